package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"runtime/debug"
	"strings"
	"time"

	"sallyport/gateway/http1"
	"sallyport/listenerprofiles"
)

// A call carries an Exchange that net/http has read the request of and writes the answer of, in any version of HTTP.
type call struct {
	Exchange
	gateway *Gateway
	socket  *socket
	r       *http.Request
	w       writer
	body    *body                  // nil: there is none, or it was not looked at
	backend http1.Exchange         // with a backend of HTTP/1.1
	proxy   *httputil.ReverseProxy // for all others; nil: it had none yet
	watch   *watch                 // nil: the call finishes whatever becomes of its caller's right
	cancel  context.CancelFunc     // breaks off what the proxy does; nil: it does nothing
	writing patience
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
		c.backend.Head, c.backend.Interim = c.appendHead, c.passInterim
	}
	c.socket, c.r, c.body, c.watch, c.cancel = s, r, nil, nil, nil
	c.w = writer{ResponseWriter: w, rate: g.guard.limits.BodyRate, grace: g.cfg.timing.bodyGrace, old: !r.ProtoAtLeast(1, 1), http2: r.ProtoMajor == 2, patience: &c.writing}
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
	var space [32]byte
	return string(appendID(space[:0]))
}

func appendID(b []byte) []byte {
	var id [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()|1 // never all zeros (W3C Trace Context section 3.2.2.3)
	for i := range 8 {
		id[i], id[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	return hex.AppendEncode(b, id[:])
}
