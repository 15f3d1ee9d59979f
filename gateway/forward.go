package gateway

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"sallyport/certstore"
	"sallyport/gateway/message"
	"sallyport/listenerprofiles"
	"sallyport/policy"
	"sallyport/policy/token"
)

// A call carries an Exchange the complete way: net/http on both sides, any version of HTTP in, bodies streamed, upgrades.
type call struct {
	Exchange
	gateway *Gateway
	proxy   httputil.ReverseProxy
	r       *http.Request
	w       writer
	body    *body
}

// ServeHTTP carries one call from its head to its last byte.
func (s *socket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.gateway.calls.Get().(*call)
	c.begin(s, w, r)
	defer c.end()

	err := s.gateway.decide(&c.Exchange)
	for err == ErrWait {
		c.Wait(r.Context())
		err = s.gateway.decide(&c.Exchange)
	}
	if err != nil {
		c.refuse(err)
		return
	}
	c.forward()
}

func (c *call) begin(s *socket, w http.ResponseWriter, r *http.Request) {
	g := s.gateway
	cn := r.Context().Value(connKey{}).(*conn)
	cn.learn(r)
	if c.gateway == nil {
		c.gateway = g
		c.proxy = httputil.ReverseProxy{
			Rewrite:        c.rewrite,
			Transport:      roundTripper(c.roundTrip),
			ModifyResponse: c.modifyResponse,
			ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { c.fail(err) },
			ErrorLog:       log.New(serverLog{g.log}, "", 0),
			BufferPool:     &copyBuffers,
		}
	}
	c.r, c.w, c.body = r, writer{ResponseWriter: w}, nil
	c.Exchange = Exchange{
		Request: c, ID: newID(), Peer: cn.peer, Started: g.now(),
		Listener: s.settings.Load(), Snapshot: g.snapshot.Load(), conn: cn,
	}
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
		// A request that had both Content-Length and Transfer-Encoding ends its connection (RFC 9112 section 6.1), and
		// net/http does not tell whether this one had.
		w.Header().Set("Connection", "close")
	}
}

// end finishes the call whatever happened: it is observed once, and its Exchange goes back to the pool.
func (c *call) end() {
	fault := recover()
	if fault != nil && fault != http.ErrAbortHandler {
		c.gateway.log.Error("a call panicked", "id", c.ID, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
		c.Err = refuse(Internal, nil)
		if c.w.status == 0 {
			c.refuse(c.Err)
			fault = nil
		} else {
			fault = http.ErrAbortHandler // what was sent cannot be taken back: let the client see that it is broken
		}
	}
	c.Status, c.BytesOut = c.w.status, c.w.written
	if c.body != nil {
		c.BytesIn = c.body.read.Load()
	}
	if fault != nil && c.Err == nil {
		c.Err = errBrokenOff
		if c.r.Context().Err() != nil {
			c.Err = refuse(ClientGone, nil)
		}
	}
	if c.gateway.cfg.Observe != nil {
		c.gateway.cfg.Observe(&c.Exchange)
	}
	c.Exchange, c.r, c.w, c.body = Exchange{}, nil, writer{}, nil
	c.gateway.calls.Put(c)
	if fault != nil {
		panic(fault) // http.ErrAbortHandler: net/http breaks the connection off
	}
}

var errBrokenOff = errors.New("the answer was broken off")

func (c *call) refuse(err error) {
	var r *Refusal
	if !errors.As(err, &r) {
		r = refuse(Internal, err)
	}
	c.Err = r
	if r.Reason == ClientGone {
		c.w.status = r.Status() // there is nobody to answer
		return
	}
	if c.r.ProtoMajor == 1 && (r.Reason == BadRequest || r.Reason == Misdirected) {
		c.w.Header().Set("Connection", "close") // HTTP/2 has other calls on the connection that are in order
	}
	r.write(&c.w, &c.Exchange)
}

// forward hands the call to the backend and streams both bodies.
func (c *call) forward() {
	c.proxy.ServeHTTP(&c.w, c.r)
}

// rewrite makes the backend's request. Hop-by-hop headers are gone by now, by the words of the client's Connection
// header too; so what is set here cannot be named away.
func (c *call) rewrite(pr *httputil.ProxyRequest) {
	out, route, table := pr.Out, c.Route, c.Snapshot.Routes
	h := out.Header
	stripManaged(h, table.settings.CertificateHeader)
	if !strings.EqualFold(h.Get("Upgrade"), "websocket") {
		delete(h, "Upgrade")
		delete(h, "Connection")
	}
	if route.Security.Token != policy.Off && !route.ForwardAuthorization && carriesBearer(c.Request) {
		delete(h, "Authorization")
	}

	peer := c.Peer.Addr().String()
	h["X-Forwarded-For"] = []string{peer}
	h["X-Forwarded-Host"] = []string{c.Request.Authority()}
	h["X-Forwarded-Proto"] = []string{"http"}
	if c.Listener.Profiles != nil {
		h["X-Forwarded-Proto"] = []string{"https"}
	}
	h["X-Request-Id"] = []string{c.ID}
	h["Traceparent"] = []string{"00-" + c.ID + "-" + newID()[:16] + "-00"}
	if c.Client != nil {
		h["X-Sallyport-Client"] = []string{headerText(c.Client.Alias)}
		h["X-Client-Cert-Hash"] = []string{hex.EncodeToString(c.Client.Fingerprint[:])}
		if table.settings.ForwardCertificate {
			block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate.Leaf.Raw})
			h.Set(table.settings.CertificateHeader, url.QueryEscape(string(block)))
		}
	}
	if c.Claims != nil {
		h["X-Sallyport-Subject"] = []string{headerText(c.Claims.Subject)}
	}

	out.Trailer = nil // a trailer could carry what a header may not
	if !route.Upstream.PreserveHost {
		out.Host = ""
	}
	if out.Body != nil {
		c.body = &body{ReadCloser: out.Body}
		out.Body = c.body
	}
}

// carriesBearer tells whether the Authorization header has a bearer credential, readable or not: one that was meant for
// the gateway stays here.
func carriesBearer(r message.Request) bool {
	raw, err := token.Bearer(r.Values("Authorization")...)
	return raw != "" || err != nil
}

// roundTrip asks the upstreams in turn: the next one only if the last could not be reached and nothing was sent.
func (c *call) roundTrip(out *http.Request) (*http.Response, error) {
	route := c.Route
	urls := route.Upstream.URLs
	if c.Client != nil && c.Client.KeyType == certstore.Sandbox {
		urls = route.Upstream.SandboxURLs
	}
	first := int(route.next.Add(1) - 1)
	for i := range urls {
		u := urls[(first+i)%len(urls)]
		c.Upstream = u.Scheme + "://" + u.Host
		// Opaque goes out as it is: the path that was judged is the path that is sent.
		out.URL = &url.URL{
			Scheme: u.Scheme, Host: u.Host,
			Opaque:   strings.TrimSuffix(u.EscapedPath(), "/") + c.ResourcePath,
			RawQuery: c.Query, ForceQuery: c.HasQuery,
		}
		res, err := route.transport.RoundTrip(out)
		if err == nil || out.Body != nil || i == len(urls)-1 || !neverReached(err) || out.Context().Err() != nil {
			return res, err
		}
	}
	return nil, errors.New("no upstream")
}

func neverReached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (c *call) modifyResponse(res *http.Response) error {
	res.Header["X-Request-Id"] = []string{c.ID}
	setRateLimit(res.Header, c.Allowance)
	return nil
}

// fail answers for a backend that did not.
func (c *call) fail(err error) {
	var timeout net.Error
	reason := BackendUnreachable
	switch {
	case c.r.Context().Err() != nil:
		reason = ClientGone
	case c.body != nil && c.body.broken():
		reason = BadRequest // the client's body ended in a way that no backend can be told of
	case !neverReached(err) && errors.As(err, &timeout) && timeout.Timeout():
		reason = BackendLate
	}
	c.refuse(refuse(reason, err))
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Of the call as a message.Request: what net/http has read, as it stood on the wire.

// Method is the request method.
func (c *call) Method() string { return c.r.Method }

// Target is the request target.
func (c *call) Target() string { return c.r.RequestURI }

// Authority is the host that the call is for.
func (c *call) Authority() string { return c.r.Host }

// Values are the header lines of that name.
func (c *call) Values(name string) []string { return c.r.Header[name] }

// learn takes what the handshake told, once a connection: HTTP/2 runs many calls at a time.
func (c *conn) learn(r *http.Request) {
	if r.TLS == nil {
		return
	}
	c.learned.Do(func() {
		c.serverName = listenerprofiles.NormalizeName(r.TLS.ServerName)
		c.chain = r.TLS.PeerCertificates
	})
}

// newID is 128 random bits as 32 hexadecimal digits. It tells calls apart; it is no secret.
func newID() string {
	var b [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()|1 // never all zeros (W3C Trace Context section 3.2.2.3)
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	return hex.EncodeToString(b[:])
}

// A writer counts what goes to the client. Unwrap lets http.ResponseController reach what lies below.
type writer struct {
	http.ResponseWriter
	status  int
	written int64
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	return n, err
}

// Hijack is what an upgrade takes the connection over with.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.status = http.StatusSwitchingProtocols
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// A body counts what comes from the client and remembers whether it broke. The transport may go on reading it for a
// moment after the answer, so it outlives the call.
type body struct {
	io.ReadCloser
	read atomic.Int64
	bad  atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	if err != nil && err != io.EOF && !errors.Is(err, http.ErrBodyReadAfterClose) && !errors.Is(err, context.Canceled) {
		b.bad.Store(true)
	}
	return n, err
}

func (b *body) broken() bool { return b.bad.Load() }

// buffers lends the memory that bodies are copied through.
type buffers struct{ pool sync.Pool }

const copyBufferSize = 32 << 10

var copyBuffers buffers // it holds memory only, no state: one for all gateways

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, copyBufferSize)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
