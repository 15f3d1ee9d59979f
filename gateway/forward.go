package gateway

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"sallyport/certstore"
	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/listenerprofiles"
	"sallyport/policy"
	"sallyport/policy/token"
)

// A call carries an Exchange the complete way: net/http on both sides, any version of HTTP in, bodies streamed, upgrades.
type call struct {
	Exchange
	gateway *Gateway
	socket  *socket
	proxy   httputil.ReverseProxy
	r       *http.Request
	w       writer
	body    *body
	watch   *watch             // nil: the call finishes whatever becomes of its caller's right
	cancel  context.CancelFunc // breaks the backend's side off
}

// ServeHTTP carries one call from its head to its last byte.
func (s *socket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.gateway.underWay.Add(1)
	defer s.gateway.underWay.Add(-1)
	c := s.gateway.calls.Get().(*call)
	c.begin(s, w, r)
	defer c.end()

	err := c.hold()
	if err == nil {
		err = s.gateway.decide(&c.Exchange)
	}
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
	c.socket, c.r, c.body, c.watch, c.cancel = s, r, nil, nil, nil
	c.w = writer{ResponseWriter: w, rate: g.guard.limits.BodyRate, grace: g.cfg.timing.bodyGrace, old: !r.ProtoAtLeast(1, 1)}
	snapshot := g.snapshot.Load()
	c.Exchange = Exchange{
		Request: c, ID: newID(), Peer: cn.peer, Started: g.now(),
		Listener: snapshot.listener(s), Snapshot: snapshot, conn: cn,
	}
	// A request that had both Content-Length and Transfer-Encoding, or Transfer-Encoding in HTTP/1.0, ends its connection
	// (RFC 9112 section 6.1), and net/http does not tell whether this one had.
	c.w.last = r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)
	// net/http takes the preface of HTTP/2 within HTTP/1.1 for a call; those who meant it don't speak HTTP/1.1.
	c.w.last = c.w.last || r.Method == "PRI"
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
	c.w.unbind()
	if c.body != nil {
		c.body.leave()
		c.leaveRest()
	}
	c.Status, c.BytesOut = c.w.status, c.w.written
	if c.body != nil {
		c.BytesIn = c.body.read.Load()
	}
	if c.w.status == answers[ClientGone].status {
		fault = http.ErrAbortHandler // nothing was answered: net/http would answer 200
	}
	if c.watch.brokenOff() && c.Err == nil {
		c.Err = errRightEnded
	}
	if fault != nil && c.Err == nil {
		c.Err = errBrokenOff
		if c.r.Context().Err() != nil {
			c.Err = refuse(ClientGone, nil)
		}
	}
	if r, ok := c.Err.(*Refusal); ok && r.Reason == ClientGone {
		fault = http.ErrAbortHandler // or net/http would answer 200 to a client that has only stopped sending
	}
	c.gateway.observe(&c.Exchange)
	c.Exchange, c.socket, c.r, c.w, c.body, c.watch, c.cancel = Exchange{}, nil, nil, writer{}, nil, nil, nil
	c.gateway.calls.Put(c)
	if fault != nil {
		panic(fault) // http.ErrAbortHandler: net/http breaks the connection off
	}
}

// leaveRest bounds the wait for the rest of a body that the backend did not want: net/http looks for its end, so as to
// find the next call, and would wait for a client that waits for its answer.
func (c *call) leaveRest() {
	if c.unfinished() {
		_ = http.NewResponseController(c.w.ResponseWriter).SetReadDeadline(time.Now().Add(restOfBody))
	}
}

// unfinished tells whether an HTTP/1 client has more of its body to send.
func (c *call) unfinished() bool {
	return c.r.ProtoMajor == 1 && c.body != nil && !c.body.ended.Load()
}

// observe tells the hook of the finished call. A fault of the hook is no fault of the call.
func (g *Gateway) observe(x *Exchange) {
	if g.cfg.Observe == nil {
		return
	}
	defer func() {
		if fault := recover(); fault != nil {
			g.log.Error("observing a call panicked", "id", x.ID, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
		}
	}()
	g.cfg.Observe(x)
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
	if c.r.ProtoMajor == 1 {
		// HTTP/2 has other calls on the connection that are in order.
		c.w.last = c.w.last || r.Reason == BadRequest || r.Reason == Misdirected || c.unfinished()
		if c.r.ContentLength != 0 {
			// net/http takes what is left of the body before it answers: not for long.
			_ = http.NewResponseController(c.w.ResponseWriter).SetReadDeadline(time.Now().Add(restOfBody))
		}
	}
	r.write(&c.w, &c.Exchange)
}

// hold refuses what is too much before anything is decided.
func (c *call) hold() error {
	if c.gateway.short.Load() {
		return refuse(Overloaded, nil)
	}
	if c.r.ProtoMajor == 2 && !strings.HasPrefix(c.r.RequestURI, "/") {
		return refuse(BadRequest, errPath)
	}
	if c.r.ProtoMajor == 2 {
		// Over HTTP/1.1 net/http sees to these itself.
		if hosts := c.r.Header["Host"]; len(hosts) > 1 || len(hosts) == 1 && hosts[0] != c.r.Host || len(c.r.Header["Content-Length"]) > 1 {
			return refuse(BadRequest, errTwo)
		}
		if v := c.r.Header["Content-Length"]; len(v) == 1 && strings.Trim(v[0], "0123456789") != "" {
			return refuse(BadRequest, errLength) // for which net/http takes 0, whatever comes
		}
	}
	if v := c.r.Header["Expect"]; v != nil && (len(v) > 1 || !strings.EqualFold(v[0], "100-continue")) {
		return refuse(UnknownExpectation, nil) // over HTTP/1.1 net/http says so itself
	}
	lines := 0
	for _, values := range c.r.Header {
		lines += len(values)
	}
	if lines > c.gateway.guard.limits.HeaderLines {
		return refuse(TooManyHeaders, nil)
	}
	return c.gateway.holdLoops(c.r.Header["Via"])
}

// errTwo is a call that two readers could take for different ones: RFC 9113 sections 8.3.1 and 8.1.1.
var errTwo = errors.New("a host beside :authority, or two content-lengths")

var errLength = errors.New("a content-length that is no number")

// errPath is a :path that HTTP/2 has no room for: RFC 9113 section 8.3.1.
var errPath = errors.New(":path is no path")

// maxHops is how many gateways of our kind a call may have come through.
const maxHops = 10

// restOfBody is how long a refused client may take to send the rest of its body. What has not come by then ends the
// connection.
const restOfBody = time.Second

// forward hands the call to the backend and streams both bodies.
func (c *call) forward() {
	route := c.Route
	if route.MaxBody > 0 && c.r.ContentLength > route.MaxBody {
		c.refuse(refuse(BodyTooLarge, nil))
		return
	}
	if route.underWay.Add(1) > int64(route.Upstream.MaxCalls) {
		route.underWay.Add(-1)
		c.refuse(refuse(BackendBusy, nil))
		return
	}
	defer route.underWay.Add(-1)
	defer c.unbind()
	c.proxy.ServeHTTP(&c.w, c.r)
}

// rewrite makes the backend's request. Hop-by-hop headers are gone by now, by the words of the client's Connection
// header too; so what is set here cannot be named away.
func (c *call) rewrite(pr *httputil.ProxyRequest) {
	out, route, table := pr.Out, c.Route, c.Snapshot.Routes
	h := out.Header
	stripManaged(h, table.certificateHeader)
	if !c.upgradable(out) {
		delete(h, "Upgrade")
		delete(h, "Connection")
	}
	if route.Security.Token != policy.Off && !route.ForwardAuthorization && carriesBearer(c.Request) {
		delete(h, "Authorization")
	}

	c.setOrigin(h, pr.In.Header)
	h["X-Request-Id"] = []string{c.ID}
	h["Via"] = append(h["Via"], viaVersion(c.r)+" "+c.gateway.via)
	if c.Client != nil {
		h["X-Sallyport-Client"] = []string{headerText(c.Client.Alias)}
		h["X-Client-Cert-Hash"] = []string{hex.EncodeToString(c.Client.Fingerprint[:])}
		if table.settings.ForwardCertificate {
			h.Set(table.settings.CertificateHeader, c.certificateText())
		}
	}
	if c.Claims != nil {
		h["X-Sallyport-Subject"] = []string{headerText(c.Claims.Subject)}
	}

	out.Trailer = trailersFor(c.r, table.certificateHeader)
	// Whoever is admitted may send its body: net/http says 100 Continue when it is first read. A backend that never says
	// so would cost a second of waiting.
	delete(h, "Expect")
	if !route.Upstream.PreserveHost {
		out.Host = ""
	}
	if out.Body != nil {
		c.body = &body{
			ReadCloser: out.Body, most: route.MaxBody, rate: c.gateway.guard.limits.BodyRate, grace: c.gateway.cfg.timing.bodyGrace,
			in: c.r, trailer: out.Trailer,
		}
		if c.body.rate > 0 {
			c.body.deadline = http.NewResponseController(c.w.ResponseWriter)
		}
		out.Body = c.body
	}
	pr.Out = c.bind(out)
}

// bind lets the call be broken off later.
func (c *call) bind(out *http.Request) *http.Request {
	c.watch = newWatch(c.gateway, c.socket, &c.Exchange, c.breakOff)
	if c.watch == nil {
		return out
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(out.Context())
	out = out.WithContext(ctx)
	if out.Body != nil && out.ContentLength < 0 {
		c.watch.follow(endless(out.Header.Get("Content-Type")))
	}
	return out
}

// unbind ends the call's watch.
func (c *call) unbind() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	c.watch.unbind()
	c.w.bounded = c.w.bounded || c.watch.brokenOff() // the deadline that breakOff set
}

// breakOff ends both sides of the call.
func (c *call) breakOff() {
	c.cancel()
	// A client that takes nothing would hold the call for ever. HTTP/2 has such deadlines for each stream.
	_ = http.NewResponseController(c.w.ResponseWriter).SetWriteDeadline(time.Now().Add(lastWrite))
}

// upgradable tells whether the call asks to become a WebSocket (RFC 6455 section 4.1) and the backend may be asked. Any
// other protocol would be a tunnel that nobody looks into.
func (c *call) upgradable(out *http.Request) bool {
	return len(c.r.Header["Upgrade"]) == 1 && strings.EqualFold(out.Header.Get("Upgrade"), "websocket") && c.r.Method == http.MethodGet && c.r.ProtoMajor == 1 &&
		c.r.ProtoAtLeast(1, 1) && out.Body == nil && c.Route.Upstream.Protocol == HTTP1
}

// trailersFor are the trailers that the client has announced and the backend may get, without values yet. They may carry
// nothing that frames, routes or authenticates a call (RFC 9110 section 6.5.1), and no header that is managed.
func trailersFor(in *http.Request, certificateHeader string) http.Header {
	var t http.Header
	for name := range in.Trailer {
		if httpguts.ValidTrailerHeader(name) && !isManaged(name, certificateHeader) && !framing[plainName(name)] {
			if t == nil {
				t = http.Header{}
			}
			t[name] = nil
		}
	}
	return t
}

// setOrigin tells the backend where the call comes from. What the client says of that counts only from a load balancer.
func (c *call) setOrigin(out, in http.Header) {
	source, host, proto := c.Peer.Addr().String(), c.Request.Authority(), "http"
	if c.Listener.Profiles != nil {
		proto = "https"
	}
	trace := "00-" + c.ID + "-" + newID()[:16] + "-00"
	if c.Balancer {
		if before := strings.Join(in["X-Forwarded-For"], ", "); strings.Trim(before, ", \t") != "" {
			source = before + ", " + source
		}
		if v := in["X-Forwarded-Host"]; len(v) == 1 {
			host = v[0]
		}
		if v := in["X-Forwarded-Proto"]; len(v) == 1 && (v[0] == "http" || v[0] == "https") {
			proto = v[0]
		}
		if v := in["Traceparent"]; len(v) == 1 && traceparent(v[0]) {
			trace = v[0]
			if state := in["Tracestate"]; state != nil {
				out["Tracestate"] = state
			}
		}
	}
	out["X-Forwarded-For"] = []string{source}
	out["X-Forwarded-Host"] = []string{host}
	out["X-Forwarded-Proto"] = []string{proto}
	out["Traceparent"] = []string{trace}
}

// traceparent tells whether v is a version 00 traceparent, W3C Trace Context section 3.2.
func traceparent(v string) bool {
	if len(v) != 55 || v[:3] != "00-" || v[35] != '-' || v[52] != '-' {
		return false
	}
	for i := 3; i < len(v); i++ {
		if c := v[i]; c != '-' && !('0' <= c && c <= '9') && !('a' <= c && c <= 'f') {
			return false
		}
	}
	return strings.Count(v, "-") == 3 && strings.Trim(v[3:35], "0") != "" && strings.Trim(v[36:52], "0") != ""
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
	urls, pool := c.upstreams(), route.engine
	if c.sandboxed() {
		pool = route.engineSandbox
	}
	shared := route.Upstream.Protocol == HTTP1 && out.Header["Upgrade"] == nil
	first := int(route.next.Add(1) - 1)
	for i := range urls {
		n := (first + i) % len(urls)
		u := urls[n]
		// Opaque goes out as it is: the path that was judged is the path that is sent.
		*out.URL = url.URL{Scheme: u.Scheme, Host: u.Host, RawQuery: c.Query, ForceQuery: c.HasQuery}
		var transport http.RoundTripper
		if shared {
			c.Upstream, out.URL.Opaque = pool[n].Name, pool[n].Path+c.ResourcePath
			transport = http1.Transport{Upstream: pool[n], Timeout: route.Upstream.Timeout}
		} else {
			c.Upstream, out.URL.Opaque = u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")+c.ResourcePath
			transport = cmp.Or(route.transport, route.upgrades)
		}
		res, err := transport.RoundTrip(out)
		if err == nil || out.Body != nil && !shared || i == len(urls)-1 || !neverReached(err) || out.Context().Err() != nil {
			return res, err
		}
	}
	return nil, errors.New("no upstream")
}

// upstreams are the backends that the caller's key type reaches.
func (x *Exchange) upstreams() []*url.URL {
	if x.sandboxed() {
		return x.Route.Upstream.SandboxURLs
	}
	return x.Route.Upstream.URLs
}

func (x *Exchange) sandboxed() bool {
	return x.Client != nil && x.Client.KeyType == certstore.Sandbox
}

func neverReached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (c *call) modifyResponse(res *http.Response) error {
	if res.StatusCode < 100 {
		return errAnswer // net/http would panic
	}
	if res.StatusCode == http.StatusNoContent {
		delete(res.Header, "Content-Length") // RFC 9110 section 8.6; an HTTP/2 client would wait for that much
	}
	for name := range res.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return errAnswer // "Content-Length : 3": net/http overlooks it, another reader may not
		}
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		if asked := res.Request.Header.Get("Upgrade"); asked == "" || !strings.EqualFold(asked, res.Header.Get("Upgrade")) {
			return errSwitch // ReverseProxy would refuse it, too, but keep the connection open
		}
	}
	if c.unfinished() {
		// It goes on to the backend, so that the connection cannot be used again. If it could, net/http would take what is
		// left of the body for itself before it sends the answer's head.
		c.w.last = true
	}
	if stream := res.StatusCode == http.StatusSwitchingProtocols || endless(res.Header.Get("Content-Type")); stream || res.ContentLength < 0 {
		c.watch.follow(stream)
	}
	if len(res.Trailer) > 0 && c.r.ProtoMajor == 1 && c.r.ProtoAtLeast(1, 1) && c.r.Method != http.MethodHead {
		delete(res.Header, "Content-Length") // HTTP/1.1 has trailers in chunked bodies alone
	}
	res.Header["X-Request-Id"] = []string{c.ID}
	setRateLimit(res.Header, c.Allowance)
	return nil
}

var errSwitch = errors.New("the backend switched to a protocol that it was not asked for")

var errAnswer = errors.New("the backend's answer has a status or a header name that is none")

// fail answers for a backend that did not.
func (c *call) fail(err error) {
	var timeout net.Error
	reason := BackendUnreachable
	switch {
	case c.watch.brokenOff():
		reason = InvalidCredentials
	case c.body != nil && c.body.late():
		reason, err = BodyTooSlow, errors.Join(err, errClientBody) // for net/http it is as if the client had gone
	case c.r.Context().Err() != nil:
		reason = ClientGone
	case c.body != nil && c.body.bad.Load() != nil:
		reason, err = *c.body.bad.Load(), errors.Join(err, errClientBody)
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
func newID() string { return string(appendID(nil)) }

func appendID(b []byte) []byte {
	var id [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()|1 // never all zeros (W3C Trace Context section 3.2.2.3)
	for i := range 8 {
		id[i], id[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	return hex.AppendEncode(b, id[:])
}

// A writer counts what goes to the client. Unwrap lets http.ResponseController reach what lies below.
type writer struct {
	http.ResponseWriter
	status  int
	written int64
	last    bool          // this answer ends the connection
	old     bool          // a client of HTTP/1.0, which must not get interim answers (RFC 9110 section 15.2)
	rate    int           // bytes a second that the client has to take; 0: any number
	grace   time.Duration // before that counts
	waited  time.Duration // for the client
	bounded bool          // a deadline is set
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols && w.old {
		return
	}
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.status = status
		if w.last {
			w.Header().Set("Connection", "close")
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.rate == 0 {
		n, err := w.ResponseWriter.Write(b)
		w.written += int64(n)
		return n, err
	}
	began := time.Now()
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(began.Add(w.grace + worth(w.written, w.rate) - w.waited))
	w.bounded = true
	n, err := w.ResponseWriter.Write(b)
	w.waited += time.Since(began)
	w.written += int64(n)
	return n, err
}

// unbind takes the deadline off again: the connection has other calls to carry.
func (w *writer) unbind() {
	if w.bounded {
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Time{})
	}
}

// worth is how long a client may keep us waiting, after its grace, for so many bytes of a body at the rate.
func worth(bytes int64, rate int) time.Duration {
	return time.Duration(float64(bytes) / float64(rate) * float64(time.Second))
}

// Hijack is what an upgrade takes the connection over with.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.status = http.StatusSwitchingProtocols
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// A body counts what comes from the client, holds it to its limits, and remembers whether it broke. The transport may
// go on reading it for a moment after the answer, so it outlives the call.
type body struct {
	io.ReadCloser
	most   int64         // bytes; 0: any number
	rate   int           // bytes a second; 0: any
	grace  time.Duration // before that counts
	waited time.Duration // for the client
	read   atomic.Int64
	ended  atomic.Bool            // it was read whole
	bad    atomic.Pointer[Reason] // why it cannot be had whole

	in      *http.Request // whose body it is; net/http fills in its trailers at the end
	trailer http.Header   // what the backend gets of them

	mu       sync.Mutex
	due      time.Time                // when the read that is waiting has to have something; zero: none is
	deadline *http.ResponseController // nil: there is none, or the call has ended and the connection carries others
}

// leave ends the body's hold on the connection.
func (b *body) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deadline != nil {
		_ = b.deadline.SetReadDeadline(time.Time{})
		b.deadline = nil
	}
}

// wait bounds how long the client may keep the next read waiting. A connection without deadlines has no rate either.
func (b *body) wait(began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deadline != nil {
		b.due = began.Add(b.grace + worth(b.read.Load(), b.rate) - b.waited)
		_ = b.deadline.SetReadDeadline(b.due)
	}
}

// late tells whether the client keeps a read waiting for longer than it may.
func (b *body) late() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.due.IsZero() && !time.Now().Before(b.due)
}

// came ends the wait.
func (b *body) came() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = time.Time{}
}

var (
	errClientBody   = errors.New("the client's body could not be had whole")
	errBodyTooLarge = errors.New("the body is larger than maxBodySize")
)

func (b *body) Read(p []byte) (int, error) {
	if b.ended.Load() {
		// The transport asks once more after the end, and takes any other answer for a call that broke. By then the answer
		// may have come, and net/http has closed the body.
		return 0, io.EOF
	}
	began := time.Now()
	b.wait(began)
	n, err := b.ReadCloser.Read(p)
	b.waited += time.Since(began)
	if b.rate > 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		b.came()
	}
	total := b.read.Add(int64(n))
	switch {
	case b.most > 0 && total > b.most:
		b.fault(BodyTooLarge)
		return 0, errBodyTooLarge
	case err == nil:
	case err == io.EOF:
		b.leave() // the connection is watched for the client's leaving from now on, without a deadline
		for name := range b.trailer {
			b.trailer[name] = b.in.Trailer[name]
		}
		b.ended.Store(true)
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.fault(BodyTooSlow)
	case !errors.Is(err, http.ErrBodyReadAfterClose) && !errors.Is(err, context.Canceled):
		b.fault(BadRequest) // it ended in a way that no backend can be told of
	}
	return n, err
}

func (b *body) fault(r Reason) { b.bad.Store(&r) }

// viaVersion is the protocol that the call came by, as RFC 9110 section 7.6.3 writes it.
func viaVersion(r *http.Request) string {
	if r.ProtoMajor == 2 {
		return "2"
	}
	return strings.TrimPrefix(r.Proto, "HTTP/")
}

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
