package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// A caller makes one call at a time. abort may be called concurrently; it fails the call in progress and all later
// ones.
type caller interface {
	connect() error
	call(turn int, a *answer) error
	close()
	abort()
}

// A target holds where calls go and the bytes that they send.
type target struct {
	*Config
	url      *url.URL
	tls      *tls.Config // nil: plain
	plain    []byte      // the request without any of Headers
	requests [][]byte    // one with each of Headers, or only the plain one
}

func newTarget(u *url.URL, c *Config) *target {
	t := &target{Config: c, url: u}
	if u.Scheme == "https" {
		t.tls = &tls.Config{}
		if c.TLS != nil {
			t.tls = c.TLS.Clone()
		}
		if t.tls.ServerName == "" {
			t.tls.ServerName = u.Hostname()
		}
		t.tls.NextProtos = []string{"http/1.1"}
		if c.HTTP2 {
			t.tls.NextProtos = []string{"h2"}
		}
	}
	t.plain = t.request(Header{})
	for _, h := range c.Headers {
		t.requests = append(t.requests, t.request(h))
	}
	if t.requests == nil {
		t.requests = [][]byte{t.plain}
	}
	return t
}

func (t *target) request(h Header) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sallybench\r\n", t.url.RequestURI(), t.url.Host)
	if h.Name != "" {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// callers returns n callers that are not yet connected.
func (t *target) callers(n int) []caller {
	list := make([]caller, 0, n)
	for i := 0; len(list) < n; i++ {
		d := &dialer{target: t, tls: t.identity(i)}
		if t.HTTP2 {
			c := &http2Conn{dialer: d}
			for range min(t.Streams, n-len(list)) {
				list = append(list, &http2Caller{conn: c})
			}
			continue
		}
		switch t.Workload {
		case NewConn, Resumed:
			list = append(list, &onceCaller{dialer: d, resume: t.Workload == Resumed})
		case Mixed:
			list = append(list, &mixedCaller{
				kept: keptCaller{dialer: d},
				once: onceCaller{dialer: &dialer{target: t, tls: d.tls}},
			})
		default:
			list = append(list, &keptCaller{dialer: d})
		}
	}
	return list
}

// identity returns the TLS settings of connection i, with a certificate and a session cache of its own.
func (t *target) identity(i int) *tls.Config {
	if t.tls == nil {
		return nil
	}
	c := t.tls
	if len(t.Identities) > 0 || t.Workload == Resumed {
		c = c.Clone()
	}
	if len(t.Identities) > 0 {
		certificate := &t.Identities[i%len(t.Identities)]
		// Sent whichever CAs the server names: whether it names the right ones is not measured.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	if t.Workload == Resumed {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return c
}

// A dialer opens connections and remembers the newest, so that abort can close it.
type dialer struct {
	*target
	tls *tls.Config

	mu      sync.Mutex
	current net.Conn
	aborted bool
}

func (d *dialer) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.Timeout)
	defer cancel()
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "tcp", d.Address)
	if err != nil {
		return nil, d.failure(failed(connect, err))
	}
	if !d.hold(c) {
		c.Close()
		return nil, errAborted
	}
	if d.tls == nil {
		return c, nil
	}
	t := tls.Client(c, d.tls)
	err = t.SetDeadline(time.Now().Add(d.Timeout))
	if err == nil {
		err = t.Handshake()
	}
	if err == nil {
		err = t.SetDeadline(time.Time{})
	}
	if want := d.tls.NextProtos[0]; err == nil && want == "h2" && t.ConnectionState().NegotiatedProtocol != want {
		err = fmt.Errorf("the server doesn't speak %s", want)
	}
	if err != nil {
		c.Close()
		return nil, d.failure(failed(handshake, err))
	}
	return t, nil
}

func (d *dialer) hold(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = c
	return !d.aborted
}

func (d *dialer) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aborted = true
	if d.current != nil {
		d.current.Close()
	}
}

// failure returns err, or errAborted if the run was aborted, because the errors that follow an abort say nothing about
// the server.
func (d *dialer) failure(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.aborted && err != nil {
		return errAborted
	}
	return err
}

// A keptCaller keeps its connection. If the server announced the end of the connection, the next call opens another; if
// the connection breaks, the call fails.
type keptCaller struct {
	*dialer
	wire *wire
}

func (k *keptCaller) connect() error {
	c, err := k.dial()
	if err != nil {
		return err
	}
	k.wire = newWire(c, k.Timeout)
	return nil
}

func (k *keptCaller) call(turn int, a *answer) error {
	return k.send(k.requests[turn%len(k.requests)], a)
}

func (k *keptCaller) send(request []byte, a *answer) error {
	if k.wire == nil {
		if err := k.connect(); err != nil {
			return err
		}
	}
	reusable, err := k.wire.exchange(request, a)
	if !reusable {
		k.close()
	}
	return k.failure(err)
}

func (k *keptCaller) close() {
	if k.wire != nil {
		k.wire.Close()
		k.wire = nil
	}
}

// A onceCaller opens a connection for each call.
type onceCaller struct {
	*dialer
	resume bool
}

// connect makes the call whose session the first counted call resumes.
func (o *onceCaller) connect() error {
	if !o.resume {
		return nil
	}
	_, err := o.once(o.requests[0], &answer{want: &o.Want})
	return err
}

func (o *onceCaller) call(turn int, a *answer) error {
	resumed, err := o.once(o.requests[turn%len(o.requests)], a)
	if err == nil && o.resume && !resumed {
		err = failed(notResumed, nil)
	}
	return err
}

func (o *onceCaller) once(request []byte, a *answer) (resumed bool, err error) {
	c, err := o.dial()
	if err != nil {
		return false, err
	}
	defer c.Close()
	if t, ok := c.(*tls.Conn); ok {
		resumed = t.ConnectionState().DidResume
	}
	_, err = newWire(c, o.Timeout).exchange(request, a)
	return resumed, o.failure(err)
}

func (o *onceCaller) close() {}

// A mixedCaller makes the calls of the workload Mixed.
type mixedCaller struct {
	kept keptCaller
	once onceCaller
	n    int
}

func (m *mixedCaller) connect() error { return m.kept.connect() }

func (m *mixedCaller) call(turn int, a *answer) error {
	m.n++
	switch m.n % 10 {
	case 0:
		_, err := m.once.once(m.once.plain, a)
		return err
	case 3, 7:
		return m.kept.call(turn, a)
	}
	return m.kept.send(m.kept.plain, a)
}

func (m *mixedCaller) close() { m.kept.close() }
func (m *mixedCaller) abort() { m.kept.abort(); m.once.abort() }
