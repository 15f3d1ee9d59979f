package main_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testacme"
	"sallyport/internal/testserver"
)

// acmeSettings are a gateway's whose server certificates come from a CA.
type acmeSettings struct {
	names     string // of the listener https, as in a.test, b.test
	keyTypes  string // "": the default
	listener  string // more settings of the listener https, as in `, sslVerifyClient: require`
	more      string // more settings of acme, each as in `, storage: store`
	store     string // "": in memory
	directory string // "": the CA's
}

// acmeDemo returns a folder for a gateway with two listeners, https and a plain one, and an open API, hello.
func acmeDemo(t *testing.T, ca *testacme.CA, s acmeSettings) *demoFolder {
	t.Helper()
	d := newDemo(t)
	d.write("acme.hmac", testacme.HMAC)
	d.swap("sallyport.yaml", d.acmeConfig(ca, s))
	return d
}

func (d *demoFolder) acmeConfig(ca *testacme.CA, s acmeSettings) string {
	keyTypes := ""
	if s.keyTypes != "" {
		keyTypes = ", keyTypes: [" + s.keyTypes + "]"
	}
	if s.listener == "" {
		s.listener = ", sslVerifyClient: none"
	}
	if s.store == "" {
		s.store = "sqlite:sallyport.db"
	}
	if s.directory == "" {
		s.directory = ca.Directory
	}
	return fmt.Sprintf(`listeners:
  - {name: https, address: "127.0.0.1:%d", keyStore: {type: ACME, names: [%s]%s}%s}
  - {name: plain, address: "127.0.0.1:%d"}
acme: {directory: "%s", caFile: "%s", email: ops@example.com, eab: {keyID: %s, hmac: "${file:acme.hmac}"}%s}
store: %s
apis:
  - {name: hello, version: 1.0.0, context: /hello, defaultVersion: true, security: [none], policy: Unlimited,
     upstream: {urls: ["http://127.0.0.1:%d"], timeout: 1h}}
status: {address: "127.0.0.1:%d"}
log: {level: info, format: text, access: off}
drainTimeout: 1h
`, d.Ports.HTTPS, s.names, keyTypes, s.listener, d.Ports.LoadBalancer, s.directory, ca.CAFile, testacme.KeyID, s.more, s.store,
		d.Ports.Backend, d.Ports.Status)
}

// A splitter stands before the gateways of a test, and hands connections to them by turns.
type splitter struct {
	port    string
	targets atomic.Pointer[[]string]
	turn    atomic.Int64
	held    sync.RWMutex // locked: connections wait
}

func newSplitter(t *testing.T) *splitter {
	t.Helper()
	s := &splitter{port: testserver.FreePort(t)}
	s.targets.Store(&[]string{})
	l, err := net.Listen("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.carry(c)
		}
	}()
	return s
}

func (s *splitter) to(ports ...int) {
	var targets []string
	for _, p := range ports {
		targets = append(targets, "127.0.0.1:"+strconv.Itoa(p))
	}
	s.targets.Store(&targets)
}

func (s *splitter) carry(c net.Conn) {
	defer c.Close()
	s.held.RLock()
	targets := *s.targets.Load()
	s.held.RUnlock()
	if len(targets) == 0 {
		return
	}
	target := targets[int(s.turn.Add(1))%len(targets)]
	to, err := net.Dial("tcp", target)
	for began := time.Now(); err != nil && time.Since(began) < 10*time.Second; { // it may be starting
		time.Sleep(20 * time.Millisecond)
		to, err = net.Dial("tcp", target)
	}
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, c)
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, to)
}

// front is where a CA validates the names of a test's gateways.
type front struct{ plain, secure *splitter }

func newFront(t *testing.T) front { return front{newSplitter(t), newSplitter(t)} }

func (f front) to(nodes ...*demoFolder) {
	var plain, secure []int
	for _, d := range nodes {
		plain, secure = append(plain, d.Ports.LoadBalancer), append(secure, d.Ports.HTTPS)
	}
	f.plain.to(plain...)
	f.secure.to(secure...)
}

// options are those of a CA that validates there: half its nonces are bad, and accounts need another one.
func (f front) options() testacme.Options {
	return testacme.Options{HTTPPort: f.plain.port, TLSPort: f.secure.port, RejectNonces: 50, External: true}
}

// kinds are the kinds of keys, each with a client that gets one of it.
var acmeKinds = map[string]*tls.Config{
	"ecdsa": {MinVersion: tls.VersionTLS13},
	"rsa": {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}},
}

// certificateFor returns the certificate that a gateway shows to a client for a name, which verifies it by roots; nil: it doesn't.
func (d *demoFolder) certificateFor(name, kind string, roots *x509.CertPool) (*x509.Certificate, error) {
	c, err := d.dialACME(name, kind, roots)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

func (d *demoFolder) dialACME(name, kind string, roots *x509.CertPool) (*tls.Conn, error) {
	config := acmeKinds[kind].Clone()
	config.ServerName, config.RootCAs, config.InsecureSkipVerify = name, roots, roots == nil
	dialer := net.Dialer{Timeout: patience}
	c, err := tls.DialWithDialer(&dialer, "tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS), config)
	if err != nil {
		return nil, err
	}
	_, isECDSA := c.ConnectionState().PeerCertificates[0].PublicKey.(*ecdsa.PublicKey)
	if isECDSA != (kind == "ecdsa") {
		c.Close()
		return nil, fmt.Errorf("%s: not %s", name, kind)
	}
	return c, nil
}

// waitShows waits until a gateway shows a certificate for a name that is another one than old, unless that is nil.
func (d *demoFolder) waitShows(name, kind string, ca *testacme.CA, old *x509.Certificate) (now *x509.Certificate) {
	d.t.Helper()
	testserver.Eventually(d.t, fmt.Sprintf("a certificate (%s) for %s", kind, name), func() (err error) {
		now, err = d.certificateFor(name, kind, ca.Trust())
		if err == nil && old != nil && now.Equal(old) {
			err = fmt.Errorf("still the old one")
		}
		return err
	})
	return now
}

// A counter is a backend that counts its calls.
type counter struct{ calls atomic.Int64 }

func (c *counter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.calls.Add(1)
	_, _ = io.WriteString(w, "hello")
}

// acmeCall makes a call to hello over a connection of its own, which it verifies, and returns the gateway's certificate.
func (d *demoFolder) acmeCall(name, kind string, roots *x509.CertPool) (*x509.Certificate, error) {
	c, err := d.dialACME(name, kind, roots)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "GET /hello/1 HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || string(body) != "hello") {
		err = fmt.Errorf("%s %q", res.Status, body)
	}
	return c.ConnectionState().PeerCertificates[0], err
}

// A steadyCaller calls gateways all the time.
type steadyCaller struct {
	stop func()

	calls atomic.Int64
	mu    sync.Mutex
	lost  []string
}

// sightings are the serial numbers of certificates that were shown.
type sightings struct {
	mu      sync.Mutex
	serials map[string]bool
}

func (s *sightings) add(c *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serials[c.SerialNumber.String()] = true
}

func (s *sightings) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.serials)
}

// callAll makes 50 calls a second, or fewer on a busy machine: for each name, with each kind of keys, to each node by
// turns, each over a connection of its own.
func callAll(t *testing.T, nodes []*demoFolder, names, kinds []string, roots *x509.CertPool, seen *sightings) *steadyCaller {
	c := &steadyCaller{}
	end, ended := make(chan struct{}), make(chan struct{})
	c.stop = sync.OnceFunc(func() {
		close(end)
		<-ended
		if len(c.lost) > 0 {
			t.Errorf("%d of %d calls are lost, as %q", len(c.lost), c.calls.Load(), c.lost[:min(3, len(c.lost))])
		}
	})
	t.Cleanup(c.stop)
	go func() {
		defer close(ended)
		var all sync.WaitGroup
		defer all.Wait()
		tick, room := time.NewTicker(20*time.Millisecond), make(chan struct{}, 20)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			d, name, kind := nodes[i%len(nodes)], names[i/len(nodes)%len(names)], kinds[i/len(nodes)/len(names)%len(kinds)]
			room <- struct{}{}
			all.Go(func() {
				defer func() { <-room }()
				cert, err := d.acmeCall(name, kind, roots)
				c.calls.Add(1)
				if err == nil {
					seen.add(cert)
					return
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				c.lost = append(c.lost, err.Error())
			})
		}
	}()
	return c
}

// warned reports whether the log has a line with all of the texts.
func (p *process) warned(texts ...string) bool {
	for line := range strings.Lines(p.stderr.String() + p.stdout.String()) {
		if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(line, s) }) {
			return true
		}
	}
	return false
}
