package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"sallyport/certstore"
	"sallyport/gateway/http1"
	"sallyport/listenerprofiles"
)

// An engine carries the HTTP/1.1 calls of a socket that go on as HTTP/1.1: it is the handler of http1.Engine. What it
// cannot carry goes to net/http, before anything was decided.
type engine struct{ socket *socket }

// A wireCall is an Exchange that the engine carries.
type wireCall struct {
	Exchange
	call    *http1.Call
	begun   bool
	counted bool   // among the calls under way of its route
	watch   *watch // nil: it finishes whatever becomes of its caller's right
}

// Of the call as a message.Request: what the engine has read, as it stood on the wire.

// Method is the request method.
func (c *wireCall) Method() string { return c.call.Request.Method }

// Target is the request target.
func (c *wireCall) Target() string { return c.call.Request.Target }

// Authority is the host that the call is for.
func (c *wireCall) Authority() string { return c.call.Request.Authority() }

// Values are the header lines of that name.
func (c *wireCall) Values(name string) []string { return c.call.Request.Values(name) }

// newEngine is the engine of a socket.
func (s *socket) newEngine() *http1.Engine {
	g := s.gateway
	loops := 0
	if g.cfg.driver == driverLoops {
		loops = runtime.GOMAXPROCS(0)
	}
	e, err := http1.NewEngine(http1.Config{
		Handler: engine{s}, HeadTimeout: g.cfg.timing.readHeader, IdleTimeout: g.cfg.timing.idle,
		BodyRate: g.guard.limits.BodyRate, BodyGrace: g.cfg.timing.bodyGrace, MaxHead: maxHeaderBytes, AppendID: appendID,
		Elsewhere: func(c net.Conn, value any) { s.hand(&knownConn{c, value.(*conn)}) }, Loops: loops,
	})
	if err != nil {
		g.log.Error("each connection gets a goroutine of its own, which costs more, since event loops cannot be had", "error", err)
	}
	return e
}

// A knownConn is a connection of which the gateway knows already what there is to know.
type knownConn struct {
	net.Conn
	conn *conn
}

// CloseWrite ends our half of the connection, as upgraded calls do.
func (c *knownConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// Judge implements http1.Handler.
func (e engine) Judge(w *http1.Call) http1.Verdict {
	g := e.socket.gateway
	c := e.begin(w)
	if c.Err != nil {
		return http1.Refuse
	}
	var err error
	if c.stage == stageIdentify {
		err = c.hold(g)
	}
	if err == nil && c.stage <= stageMatch {
		err = g.decideUntil(&c.Exchange, stageAuthorize)
		if err == nil && !c.speaksHTTP1() {
			return http1.Elsewhere
		}
	}
	if err == nil {
		err = g.decide(&c.Exchange)
	}
	if err == nil {
		err = c.send()
	}
	switch {
	case err == ErrWait:
		return http1.Wait
	case err != nil:
		c.refused(err)
		return http1.Refuse
	}
	return http1.Forward
}

// begin makes the Exchange of a call that is new.
func (e engine) begin(w *http1.Call) *wireCall {
	c, _ := w.State.(*wireCall)
	if c == nil {
		c = new(wireCall)
		w.State = c
	}
	if c.begun {
		return c
	}
	g := e.socket.gateway
	g.underWay.Add(1)
	snapshot := g.snapshot.Load()
	cn := w.Conn.Value.(*conn)
	c.call, c.begun = w, true
	c.Exchange = Exchange{
		Request: c, ID: w.ID, Peer: cn.peer, Started: w.Seen,
		Listener: snapshot.listener(e.socket), Snapshot: snapshot, conn: cn,
	}
	if g.cfg.Now != nil {
		c.Started = g.now()
	}
	c.now = c.Started
	return c
}

// hold refuses what is too much, or no request, before anything is decided.
func (c *wireCall) hold(g *Gateway) error {
	if g.short.Load() {
		return refuse(Overloaded, nil)
	}
	if c.call.Problem != nil {
		return refuse(reasonOfHead(c.call.Problem), c.call.Problem)
	}
	if len(c.call.Request.Fields) > g.guard.limits.HeaderLines {
		return refuse(TooManyHeaders, nil)
	}
	return g.holdLoops(c.Values("Via"))
}

// holdLoops refuses a call that has been here, or through many gateways of our kind.
func (g *Gateway) holdLoops(via []string) error {
	for _, v := range via {
		if strings.Contains(v, g.via) || strings.Count(v, "sallyport-") >= maxHops {
			return refuse(Loop, nil)
		}
	}
	return nil
}

// reasonOfHead is the reason for which a head is refused that is none.
func reasonOfHead(problem error) Reason {
	var malformed *http1.Error
	if !errors.As(problem, &malformed) {
		return BadRequest
	}
	switch malformed.Status {
	case http.StatusExpectationFailed:
		return UnknownExpectation
	case http.StatusRequestHeaderFieldsTooLarge:
		return TooManyHeaders
	case http.StatusNotImplemented:
		return UnknownCoding
	case http.StatusHTTPVersionNotSupported:
		return UnknownVersion
	}
	return BadRequest
}

// speaksHTTP1 tells whether the call stays HTTP/1.1 all the way.
func (c *wireCall) speaksHTTP1() bool {
	r := &c.call.Request
	upgrade, _ := r.First("Upgrade")
	return c.Route.Upstream.Protocol == HTTP1 && !(r.Upgrade && strings.EqualFold(upgrade, "websocket"))
}

// send prepares the way to the backend.
func (c *wireCall) send() error {
	route, w := c.Route, c.call
	w.MaxBody, w.Timeout = route.MaxBody, route.Upstream.Timeout
	if w.MaxBody > 0 && w.Request.Length > w.MaxBody {
		return refuse(BodyTooLarge, nil)
	}
	if route.underWay.Add(1) > int64(route.Upstream.MaxCalls) {
		route.underWay.Add(-1)
		return refuse(BackendBusy, nil)
	}
	c.counted = true
	w.Upstreams = route.engine
	if c.Client != nil && c.Client.KeyType == certstore.Sandbox {
		w.Upstreams = route.engineSandbox
	}
	w.First = int(route.next.Add(1)-1) % len(w.Upstreams)
	return nil
}

func (c *wireCall) refused(err error) {
	var r *Refusal
	if !errors.As(err, &r) {
		r = refuse(Internal, err)
	}
	c.Err = r
	if r.Reason == BadRequest || r.Reason == Misdirected {
		c.call.Last = true
	}
}

// Wait implements http1.Handler.
func (engine) Wait(ctx context.Context, w *http1.Call) { w.State.(*wireCall).Exchange.Wait(ctx) }

// Stream implements http1.Handler.
func (e engine) Stream(w *http1.Call) {
	c := w.State.(*wireCall)
	fields, length := w.Request.First, w.Request.Length
	if w.Response.Status != 0 {
		fields, length = w.Response.First, w.Response.Length
	}
	kind, _ := fields("Content-Type")
	never := endless(kind)
	if !never && length >= 0 {
		return
	}
	if c.watch == nil {
		c.watch = newWatch(e.socket.gateway, e.socket, &c.Exchange, w.Break)
	}
	c.watch.follow(never)
}

// Failed implements http1.Handler.
func (engine) Failed(w *http1.Call, f http1.Fault, cause error) {
	c := w.State.(*wireCall)
	switch {
	case c.watch.brokenOff() && (f == http1.BrokenOff || f == http1.ClientGone && w.Status != 0):
		c.Err = errRightEnded // the client may not have taken what it was sent before the last deadline
	case f == http1.BrokenOff:
		c.Err = errBrokenOff
	case c.watch.brokenOff():
		c.refused(refuse(InvalidCredentials, cause))
	default:
		c.refused(refuse(reasonOfFault[f], cause))
		if f == http1.ClientGone {
			w.Status = answers[ClientGone].status
		}
	}
}

var reasonOfFault = map[http1.Fault]Reason{
	http1.Internal:    Internal,
	http1.Unreachable: BackendUnreachable,
	http1.BadAnswer:   BackendUnreachable,
	http1.Late:        BackendLate,
	http1.ClientGone:  ClientGone,
	http1.BadBody:     BadRequest,
	http1.TooLarge:    BodyTooLarge,
	http1.TooSlow:     BodyTooSlow,
}

// Finish implements http1.Handler.
func (e engine) Finish(w *http1.Call) {
	c, _ := w.State.(*wireCall)
	if c == nil || !c.begun {
		return
	}
	g := e.socket.gateway
	defer g.underWay.Add(-1)
	c.watch.unbind()
	if c.counted {
		c.Route.underWay.Add(-1)
	}
	c.Status, c.BytesIn, c.BytesOut = w.Status, w.BytesIn(), w.BytesOut
	if w.Upstream != nil {
		c.Upstream = w.Upstream.Name
	}
	g.observe(&c.Exchange)
	*c = wireCall{}
}

// Left implements http1.Handler.
func (e engine) Left(w *http1.Call) {
	*w.State.(*wireCall) = wireCall{}
	e.socket.gateway.underWay.Add(-1)
}

// Panicked implements http1.Handler.
func (e engine) Panicked(w *http1.Call, fault any, stack []byte) {
	id := ""
	if c, _ := w.State.(*wireCall); c != nil {
		id = c.ID
	}
	e.socket.gateway.log.Error("a call panicked", "id", id, "panic", fmt.Sprint(fault), "stack", string(stack))
}

// KeepTrailer implements http1.Handler: trailers may carry nothing that frames, routes or authenticates a call (RFC 9110
// section 6.5.1), and no header that is managed.
func (engine) KeepTrailer(w *http1.Call, name string, toBackend bool) bool {
	if framing[plainName(name)] {
		return false
	}
	return !toBackend || !isManaged(name, w.State.(*wireCall).Snapshot.Routes.certificateHeader)
}

// newConn is what accept and the handshake have learned of a connection, TLS or not.
func newConn(c net.Conn, serverName string, chain []*x509.Certificate, plain bool) *conn {
	return &conn{
		peer: addressOf(c.RemoteAddr()), local: addressOf(c.LocalAddr()).Addr(), plain: plain,
		serverName: listenerprofiles.NormalizeName(serverName), chain: slices.Clip(chain),
	}
}
