package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/gateway/wire"
)

// An http2Call carries an Exchange of an HTTP/2 client: net/http has read its request and writes its answer. Like the
// engine it asks decision and drives a backend.Trip, and has no rule of its own.
type http2Call struct {
	decision.Exchange
	socket  *socket
	request http2Request
	w       http2Writer
	body    http2Body
	trip    backend.Trip
	interim func(*http1.Response) error // passInterim
	text    []byte                      // memory for header lines
}

// ServeHTTP carries one call from its head to its last byte.
func (s *socket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.gateway.calls.Get().(*http2Call)
	c.begin(s, w, r)
	defer c.end()
	err := decision.Decide(&c.Exchange)
	for err == decision.ErrWait {
		c.Wait(r.Context())
		err = decision.Decide(&c.Exchange)
	}
	if err == nil {
		if err = c.forward(); err == nil {
			return
		}
	}
	c.refuse()
}

func newHTTP2Call() any {
	c := new(http2Call)
	c.BreakOff, c.interim = c.breakOff, c.passInterim
	c.trip.Gone, c.trip.Lasting = c.gone, true
	return c
}

func (c *http2Call) begin(s *socket, w http.ResponseWriter, r *http.Request) {
	g := s.gateway
	rate, grace := g.guard.limits.BodyRate, g.cfg.timing.bodyGrace
	c.socket, c.request.Request, c.request.problem = s, r, http2Problem(r)
	c.w.begin(w, rate, grace)
	c.body.begin(r, w, rate, grace)
	g.decider.Begin(&c.Exchange, &c.request, newID(), r.Context().Value(connectionKey{}).(*decision.Connection), time.Now())
}

func newID() string { return string(decision.AppendID(make([]byte, 0, 32))) }

// forward carries the call to a server and the answer back.
func (c *http2Call) forward() error {
	t, r := &c.trip, c.request.Request
	t.Request, t.Group, t.MaxBody, t.Interim = &c.Exchange, c.Group, c.Route.MaxBody, c.interim
	switch t.Length = r.ContentLength; {
	case t.Length != 0:
		t.Body, t.Length = &c.body, max(t.Length, http1.InChunks)
	case r.Header["Content-Length"] == nil:
		t.Length = http1.Unstated
	}
	t.Begin()
	err := t.Send()
	if err == nil {
		err = c.deliver()
	}
	c.settle()
	if err != nil && !c.Fail(err, c.w.status != 0) {
		panic(http.ErrAbortHandler)
	}
	return err
}

// gone reports that the client does not wait for an answer any more.
func (c *http2Call) gone() error {
	if c.request.Context().Err() != nil {
		return backend.ErrClientGone
	}
	return nil
}

// breakOff is the Exchange's BreakOff. A client that takes nothing would hold the call for ever.
func (c *http2Call) breakOff() {
	c.trip.Break()
	_ = http.NewResponseController(c.w.ResponseWriter).SetWriteDeadline(time.Now().Add(lastWrite))
}

// lastWrite is how long a client may take for what it is still sent when its call is broken off.
const lastWrite = time.Second

// settle lets go of the server, and of the request's body.
func (c *http2Call) settle() {
	if c.trip.Request == nil {
		return // it was never sent, or is settled already
	}
	c.Over()
	if c.trip.Server != nil {
		c.Upstream = c.trip.Server.Name
	}
	c.BytesIn = c.trip.Close()
	c.body.release()
}

// abandon is settle for a call in which something has panicked.
func (c *http2Call) abandon() {
	if c.trip.Request != nil {
		c.trip.Break()
	}
	c.settle()
}

// end finishes the call whatever happened: it is observed once, and its Exchange goes back to the pool.
func (c *http2Call) end() {
	fault := recover()
	g := c.socket.gateway
	if fault != nil && fault != http.ErrAbortHandler {
		g.log.Error("a call panicked", "id", c.ID, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
		c.abandon()
		if c.Fail(fmt.Errorf("%w: a panic: %v", decision.ErrInternal, fault), c.w.status != 0) {
			c.refuse()
			fault = nil
		} else {
			fault = http.ErrAbortHandler // what was sent cannot be taken back: let the client see that it is broken
		}
	}
	c.settle()
	c.BytesOut = c.w.pace.Bytes()
	if c.Status == 0 {
		c.Status = c.w.status
	}
	g.decider.Finish(&c.Exchange)
	c.Exchange, c.socket = decision.Exchange{BreakOff: c.BreakOff}, nil
	c.request.end()
	c.w.end()
	g.calls.Put(c)
	if fault != nil {
		panic(fault) // http.ErrAbortHandler: net/http breaks the stream off
	}
}

// refuse answers a call that is not, or no more, to be forwarded.
func (c *http2Call) refuse() {
	r := c.Refusal()
	c.Err, c.Status = r, r.Status()
	h := c.w.Header()
	clear(h)
	fields, body := c.AppendRefusalFields(c.text[:0])
	c.text = fields
	addFields(h, fields, nil)
	c.w.WriteHeader(r.Status())
	if c.request.Request.Method != http.MethodHead {
		_, _ = io.WriteString(&c.w, body) // the client may have gone; then there is nobody to tell
	}
}

// addFields adds rendered header lines. Their values stand in room, while that lasts.
func addFields(h http.Header, lines []byte, room []string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(string(lines), "\r\n"), "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		room = addField(h, textproto.CanonicalMIMEHeaderKey(name), value, room)
	}
}

// addField adds a field. Its value stands in the first place of room, of which it returns the rest: one array for all
// fields costs one allocation.
func addField(h http.Header, name, value string, room []string) []string {
	before, ok := h[name]
	if ok || len(room) == 0 {
		h[name] = append(before, value)
		return room
	}
	room[0] = value
	h[name] = room[:1:1]
	return room[1:]
}

// passInterim passes an interim answer on.
func (c *http2Call) passInterim(res *http1.Response) error {
	h := c.w.Header()
	c.setFields(h, res, 0)
	// net/http may still be reading an interim answer's fields when it returns, if the client ends the stream
	// meanwhile, and clearing them then brings the process down. With this field, which it leaves out, it takes a copy.
	h["Content-Length"] = []string{"0"}
	c.w.ResponseWriter.WriteHeader(res.Status)
	clear(h)
	return nil
}

// setFields sets the fields of an answer, and returns room for more of them.
func (c *http2Call) setFields(h http.Header, res *http1.Response, more int) (room []string) {
	room = make([]string, len(res.Fields)+more)
	c.AnswerFields(res, func(name, value string) {
		room = addField(h, textproto.CanonicalMIMEHeaderKey(name), value, room)
	})
	return room
}

// ownFields is how many fields an answer has at most besides those of the server.
const ownFields = 4

// deliver passes the server's answer on as it comes: nothing is kept while more is waited for. If it returns an error,
// the answer will never be whole.
func (c *http2Call) deliver() error {
	t, res, h := &c.trip, &c.trip.Response, c.w.Header()
	room := c.setFields(h, res, ownFields)
	if length, n := res.First("Content-Length"); n > 0 && res.Status != http.StatusNoContent { // RFC 9110 section 8.6: none there
		room = addField(h, "Content-Length", length, room)
	}
	c.text = c.AppendOwnFields(c.text[:0])
	addFields(h, c.text, room)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would make one up
	}
	announced := t.Announced()
	for i, name := range announced {
		announced[i] = textproto.CanonicalMIMEHeaderKey(name)
	}
	if announced != nil {
		h["Trailer"] = announced
	}
	c.Status = res.Status
	for {
		if !t.Ready() {
			c.w.begun(res.Status)
			if err := c.w.flush(); err != nil {
				return backend.ErrClientGone
			}
		}
		part, err := t.Next()
		if err != nil && err != io.EOF {
			return err
		}
		c.w.begun(res.Status)
		if len(part) > 0 {
			if _, err := c.w.Write(part); err != nil {
				t.Forget() // net/http may read it still
				return backend.ErrClientGone
			}
		}
		if err == io.EOF {
			c.setTrailers(t.Trailers(), announced)
			return nil
		}
	}
}

// setTrailers sets the trailer fields, announced or not.
func (c *http2Call) setTrailers(trailers []http1.Field, announced []string) {
	h := c.w.Header()
	for _, name := range announced {
		delete(h, name) // or net/http would take a header of that name
	}
	for _, f := range trailers {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = append(h[name], f.Value)
	}
}

// An http2Request is what net/http has read, as it stood on the wire.
type http2Request struct {
	*http.Request
	problem error
	fields  []message.Field // memory
}

func (r *http2Request) end() {
	r.Request, r.problem = nil, nil
	clear(r.fields)
}

// Method, Target, Authority, Version, Length, Problem, Values, Lines, Fields and Named implement message.Request.
func (r *http2Request) Method() string { return r.Request.Method }

func (r *http2Request) Target() string { return r.RequestURI }

func (r *http2Request) Authority() string { return r.Host }

func (r *http2Request) Version() string { return "2" }

func (r *http2Request) Length() int64 { return r.ContentLength }

func (r *http2Request) Problem() error { return r.problem }

func (r *http2Request) Values(name string) []string {
	if name != "Trailer" {
		return r.Header[name]
	}
	var announced []string // net/http has taken them off the header
	for name := range r.Trailer {
		announced = append(announced, name)
	}
	return announced
}

func (r *http2Request) Lines() (n int) {
	if r.Trailer != nil {
		n = 1 // net/http has taken it off the header
	}
	for name, values := range r.Header {
		switch name {
		case "Host":
		case "Cookie": // net/http has joined the lines
			for _, v := range values {
				n += strings.Count(v, "; ") + 1
			}
		default:
			n += len(values)
		}
	}
	return n
}

func (r *http2Request) Fields() []message.Field {
	r.fields = r.fields[:0]
	for name, values := range r.Header {
		for _, v := range values {
			r.fields = append(r.fields, message.Field{Name: name, Value: v})
		}
	}
	return r.fields
}

// Named is false: HTTP/2 has no Connection field, and net/http refuses one.
func (r *http2Request) Named(string) bool { return false }

var (
	errPath   = errors.New(":path is no path")                                     // RFC 9113 section 8.3.1
	errTwo    = errors.New("a host beside :authority, or two content-lengths")     // RFC 9113 sections 8.3.1 and 8.1.1
	errLength = errors.New("a content-length that is no number")                   // for which net/http takes 0, whatever comes
	errExpect = &http1.Error{Status: 417, Text: "an expectation but 100-continue"} // RFC 9110 section 10.1.1
)

// http2Problem is why a request is none that every reader reads alike, as far as net/http lets it pass.
func http2Problem(r *http.Request) error {
	hosts, lengths, expect := r.Header["Host"], r.Header["Content-Length"], r.Header["Expect"]
	switch {
	case !strings.HasPrefix(r.RequestURI, "/"):
		return errPath
	case len(hosts) > 1 || len(hosts) == 1 && hosts[0] != r.Host || len(lengths) > 1:
		return errTwo
	case len(lengths) == 1 && strings.Trim(lengths[0], "0123456789") != "":
		return errLength
	case expect != nil && (len(expect) > 1 || !strings.EqualFold(expect[0], "100-continue")):
		return errExpect
	}
	return nil
}

// An http2Writer counts what goes to the client, and bounds the wait for it.
type http2Writer struct {
	http.ResponseWriter
	status   int
	kept     int // bytes that net/http may still keep to itself
	pace     wire.Pace
	patience patience
}

func (w *http2Writer) begin(to http.ResponseWriter, rate int, grace time.Duration) {
	w.ResponseWriter, w.status, w.kept = to, 0, 0
	w.pace.Begin(rate, grace)
}

func (w *http2Writer) end() { w.ResponseWriter = nil }

// WriteHeader implements http.ResponseWriter.
func (w *http2Writer) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// begun sends the head of an answer, unless that was done. Until then the call can still be refused.
func (w *http2Writer) begun(status int) {
	if w.status == 0 {
		w.WriteHeader(status)
	}
}

// keepable is what net/http takes of an answer without waiting for the client.
const keepable = 2 << 10

// Write implements http.ResponseWriter.
func (w *http2Writer) Write(b []byte) (n int, err error) {
	w.pace.Passed(len(b))
	if w.kept += len(b); w.kept <= keepable {
		return w.ResponseWriter.Write(b)
	}
	began := w.beginWait()
	n, err = w.ResponseWriter.Write(b)
	w.endWait(began)
	return n, err
}

// flush sends what net/http has kept.
func (w *http2Writer) flush() error {
	began := w.beginWait()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.endWait(began)
	w.kept = 0
	return err
}

// beginWait bounds a wait for the client to take what it is sent.
func (w *http2Writer) beginWait() (began time.Time) {
	if w.pace.Rate > 0 {
		began = time.Now()
		w.patience.hold(w.ResponseWriter, forWrites)
		w.patience.begin(w.pace.Due(began))
	}
	return began
}

func (w *http2Writer) endWait(began time.Time) {
	if w.pace.Rate > 0 {
		w.patience.release()
		w.pace.Waited(time.Since(began))
	}
}

// An http2Body is the body of a client's request, a backend.Body.
type http2Body struct {
	in       *http.Request
	memory   *[]byte
	pace     wire.Pace
	patience patience // without a hold if there is no rate
	ended    bool
	stopped  atomic.Bool
}

func (b *http2Body) begin(r *http.Request, w http.ResponseWriter, rate int, grace time.Duration) {
	b.in, b.ended = r, false
	b.stopped.Store(false)
	b.pace.Begin(rate, grace)
	if rate > 0 && r.ContentLength != 0 {
		b.patience.hold(w, forReads)
	}
}

// release lets go of the body, which nobody reads any more.
func (b *http2Body) release() {
	b.patience.release()
	if b.memory != nil {
		wire.Large.Put(b.memory)
	}
	b.memory, b.in = nil, nil
}

// Next implements backend.Body.
func (b *http2Body) Next(wait bool) ([]byte, error) {
	switch {
	case b.ended:
		return nil, io.EOF
	case !wait:
		return nil, nil
	case b.memory == nil:
		b.memory = wire.Large.Get()
	}
	p := (*b.memory)[:cap(*b.memory)]
	for {
		began := time.Now()
		b.patience.begin(b.pace.Due(began))
		n, err := b.in.Body.Read(p)
		late := b.patience.over()
		b.patience.end()
		b.pace.Waited(time.Since(began))
		b.pace.Passed(n)
		switch {
		case err == io.EOF:
			b.ended = true
			return p[:n], err
		case n > 0:
			return p[:n], nil
		case err == nil:
		case late || errors.Is(err, os.ErrDeadlineExceeded):
			return nil, backend.ErrTooSlow
		case b.in.Context().Err() != nil || b.stopped.Load():
			return nil, backend.ErrClientGone
		default:
			return nil, fmt.Errorf("%w: %w", backend.ErrBadBody, err) // no server could be shown such an end
		}
	}
}

// Trailers implements backend.Body.
func (b *http2Body) Trailers() []http1.Field {
	var list []http1.Field
	for name, values := range b.in.Trailer {
		for _, v := range values {
			list = append(list, http1.Field{Name: name, Value: v})
		}
	}
	return list
}

// Stop implements backend.Body.
func (b *http2Body) Stop() {
	b.stopped.Store(true)
	b.in.Body.Close() // which ends a Read
}
