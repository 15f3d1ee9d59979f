package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"sallyport/certstore"
	"sallyport/gateway/http1"
)

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
	defer c.backend.Close() // when nobody can break it off any more
	defer c.unbind()
	if route.Upstream.Protocol == HTTP1 && !c.upgrades() {
		c.carry()
	} else {
		c.proxied()
	}
}

// upgrades tells whether the call asks to become a WebSocket (RFC 6455 section 4.1) and the backend may be asked. Any other
// protocol would be a tunnel that nobody looks into.
func (c *call) upgrades() bool {
	h := c.r.Header
	return len(h["Upgrade"]) == 1 && strings.EqualFold(h["Upgrade"][0], "websocket") && httpguts.HeaderValuesContainsToken(h["Connection"], "Upgrade") &&
		c.r.Method == http.MethodGet && c.r.ProtoMajor == 1 && c.r.ProtoAtLeast(1, 1) && c.r.ContentLength == 0 && c.Route.Upstream.Protocol == HTTP1
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

// follow has the call watched from now on, if a certificate has let it in.
func (c *call) follow(endless bool) {
	if c.watch == nil {
		c.watch = newWatch(c.gateway, c.socket, &c.Exchange, c.breakOff)
	}
	c.watch.follow(endless)
}

// breakOff ends both sides of the call.
func (c *call) breakOff() {
	if c.cancel != nil {
		c.cancel()
	} else {
		c.backend.Break()
	}
	// A client that takes nothing would hold the call for ever. HTTP/2 has such deadlines for each stream.
	_ = http.NewResponseController(c.w.ResponseWriter).SetWriteDeadline(time.Now().Add(lastWrite))
}

// unbind ends the call's watch.
func (c *call) unbind() {
	if c.cancel != nil {
		c.cancel()
	}
	c.watch.unbind()
	if c.watch.brokenOff() && c.r.ProtoMajor == 1 {
		_ = http.NewResponseController(c.w.ResponseWriter).SetWriteDeadline(time.Time{}) // which breakOff has set
	}
}

// carry asks a backend of HTTP/1.1 on a connection that it shares with the engine, and answers.
func (c *call) carry() {
	x, route := &c.backend, c.Route
	answered := false
	defer func() { c.leaveBody(answered) }()
	x.Context, x.Method, x.Timeout = c.r.Context(), c.r.Method, route.Upstream.Timeout
	switch {
	case c.r.ContentLength != 0:
		c.takeBody()
		x.Body, x.Length, x.Trailer = c.body, c.r.ContentLength, c.body.trailer
		if x.Length < 0 {
			x.Length = http1.InChunks
			c.follow(endless(c.r.Header.Get("Content-Type")))
		}
	case c.r.Header["Content-Length"] == nil:
		x.Length = http1.Unstated
	}
	backends := route.engine
	if c.sandboxed() {
		backends = route.engineSandbox
	}
	err := x.Send(backends, int(route.next.Add(1)-1))
	if x.Upstream != nil {
		c.Upstream = x.Upstream.Name
	}
	if err != nil {
		c.fail(err)
	} else if c.answer() != nil {
		panic(http.ErrAbortHandler)
	}
	answered = true
}

// leaveBody ends the sending of a body that the backend does not want any more.
func (c *call) leaveBody(answered bool) {
	switch {
	case !c.backend.Sending():
	case c.r.ProtoMajor == 2:
		c.r.Body.Close() // which ends a Read
	case answered:
		_ = c.w.FlushError() // so that the client knows that it may stop
		c.leaveRest()
	default:
		_ = http.NewResponseController(c.w.ResponseWriter).SetReadDeadline(longAgo)
	}
}

// appendHead makes the head of the request.
func (c *call) appendHead(b []byte, up *http1.Upstream) []byte {
	b = c.appendStart(b, up)
	keepsBearer, options := c.keepsBearer(), c.r.Header["Connection"]
	for name, values := range c.r.Header {
		if !c.goesOn(name, keepsBearer) || len(options) > 0 && httpguts.HeaderValuesContainsToken(options, name) {
			continue
		}
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	return c.appendOwn(b, viaVersion(c.r), c.gateway.via)
}

// viaVersion is the protocol that the call came by, as RFC 9110 section 7.6.3 writes it.
func viaVersion(r *http.Request) string {
	if r.ProtoMajor == 2 {
		return "2"
	}
	return strings.TrimPrefix(r.Proto, "HTTP/")
}

// passInterim passes an interim answer on.
func (c *call) passInterim(res *http1.Response) error {
	if c.r.ProtoMajor == 1 && c.r.Header["Expect"] != nil && c.body != nil && c.body.read.Load() == 0 {
		return nil // net/http may be writing its 100 Continue
	}
	h := c.w.Header()
	setFields(h, res, make([]string, len(res.Fields)))
	c.w.WriteHeader(res.Status)
	clear(h)
	return nil
}

// answer passes the backend's answer on. If it returns an error, the answer will never be whole.
func (c *call) answer() error {
	x, res, h := &c.backend, &c.backend.Response, c.w.Header()
	if c.unfinished() {
		// It goes on to the backend, so that the connection cannot be used again. If it could, net/http would take what is
		// left of the body for itself before it sends the answer's head.
		c.w.last = true
	}
	values := make([]string, len(res.Fields)+1)
	setFields(h, res, values)
	values[len(res.Fields)] = c.ID
	h["X-Request-Id"] = values[len(res.Fields):]
	setRateLimit(h, c.Allowance)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would make one up
	}
	if res.Status == http.StatusNoContent {
		delete(h, "Content-Length") // RFC 9110 section 8.6; an HTTP/2 client would wait for that much
	}
	announced := announceTrailers(h, res)
	c.w.WriteHeader(res.Status)
	if err := c.passBody(); err != nil {
		return err
	}
	if trailers := x.Trailers(); len(trailers) > 0 || announced != nil { // or net/http would take a header of that name
		return c.passTrailers(trailers, announced)
	}
	return nil
}

// passBody passes on what comes from the backend as it comes: nothing is kept while it is waited for.
func (c *call) passBody() error {
	x := &c.backend
	for streams := false; ; {
		if !x.Ready() {
			if kind, _ := x.Response.First("Content-Type"); !streams && (x.Response.Length < 0 || endless(kind)) {
				c.follow(endless(kind))
			}
			streams = true
			if err := c.w.FlushError(); err != nil {
				return err
			}
		}
		part, err := x.Next()
		if len(part) > 0 {
			if _, err := c.w.Write(part); err != nil {
				x.Forget() // net/http may read it still
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// setFields sets the answer's fields but for those of its hop. All values stand in one array, of which there is one for
// each field.
func setFields(h http.Header, res *http1.Response, values []string) {
	for i := range res.Fields {
		f := &res.Fields[i]
		if forThisHop(f.Name) && len(f.Name) != len("Content-Length") || res.Named(f.Name) {
			continue
		}
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if before, ok := h[name]; ok {
			h[name] = append(before, f.Value)
			continue
		}
		values[i] = f.Value
		h[name] = values[i : i+1 : i+1]
	}
}

// announceTrailers announces the trailer fields that the backend has announced and the client may get.
func announceTrailers(h http.Header, res *http1.Response) (announced []string) {
	if res.Length != http1.InChunks {
		return nil
	}
	for _, list := range res.Values("Trailer") {
		for name := range strings.SplitSeq(list, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t")); mayTrail(name) {
				announced = append(announced, name)
			}
		}
	}
	if announced != nil {
		h["Trailer"] = announced
	}
	return announced
}

// mayTrail tells whether a trailer field may go on to a client: it frames, routes and authenticates nothing (RFC 9110
// section 6.5.1).
func mayTrail(name string) bool {
	return httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name) && !framing[plainName(name)]
}

// passTrailers passes on the trailer fields, announced or not.
func (c *call) passTrailers(trailers []http1.Field, announced []string) error {
	if err := c.w.FlushError(); err != nil { // or net/http would say how long a short body is, and HTTP/1.1 has no trailers then
		return err
	}
	h := c.w.Header()
	for _, name := range announced {
		delete(h, name)
	}
	for _, f := range trailers {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if !mayTrail(name) {
			continue
		}
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = append(h[name], f.Value)
	}
	return nil
}

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
