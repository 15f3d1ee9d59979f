package gateway

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/engine"
	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/gateway/wire"
)

// An http2Call carries an Exchange of an HTTP/2 client: net/http has read its request and writes its answer. Like the
// engine it asks decision and drives a backend.Trip, and has no rule of its own.
type http2Call struct {
	engine.Carriage
	socket *socket
	w      http2Writer
	body   http2Body
	text   []byte   // memory for header lines
	values []string // memory for the values of the answer's fields
}

// ServeHTTP carries one call from its head to its last byte.
func (s *socket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.gateway.calls.Get().(*http2Call)
	c.begin(s, w, r)
	defer c.end()
	err := decision.Await(r.Context(), &c.Exchange)
	if err == nil {
		err = c.forward()
	}
	if err != nil {
		c.refuse()
	}
}

func newHTTP2Call() any {
	c := new(http2Call)
	c.BreakOff = c.breakOff
	c.Trip.Interim, c.Trip.Gone, c.Trip.Lasting, c.Trip.MaxTrailer = c.passInterim, c.gone, true, http1.MaxTrailerHTTP2
	return c
}

func (c *http2Call) begin(s *socket, w http.ResponseWriter, r *http.Request) {
	g := s.gateway
	c.socket = s
	c.read(r)
	c.w.patience.faults, c.body.patience.faults = g.decider.Faults(), g.decider.Faults()
	c.w.begin(w, &g.terms)
	c.body.begin(r, w)
	known := r.Context().Value(connectionKey{}).(*decision.Connection)
	g.decider.Begin(&c.Exchange, &c.Head, decision.NewID(), known, time.Now())
}

// read tells the request in the words of HTTP/1.1.
func (c *http2Call) read(in *http.Request) {
	r := &c.Head
	r.Method, r.Target, r.Version, r.Host = in.Method, in.RequestURI, "2", in.Host
	r.Length, r.HasLength = in.ContentLength, in.Header["Content-Length"] != nil
	r.Fields = message.AppendFields(r.Fields, in.Header)
	r.Hosts = len(in.Header["Host"])
	for _, cookies := range in.Header["Cookie"] { // net/http has joined the lines
		r.Joined += strings.Count(cookies, "; ")
	}
	if in.Trailer != nil { // net/http has taken it off the header
		names := slices.Collect(maps.Keys(in.Trailer))
		r.Fields = append(r.Fields, http1.Field{Name: "Trailer", Value: strings.Join(names, ", ")})
	}
	r.Problem = http2Problem(in)
	if r.Problem == nil && http2HeadSize(r) > maxHeaderBytes {
		r.Problem = http1.ErrHeadTooLong
	}
}

// forward carries the call to a server and the answer back.
func (c *http2Call) forward() error {
	terms := &c.socket.gateway.terms
	rate := c.BodyRate(terms)
	c.w.patience.Begin(rate, terms.BodyGrace)
	c.body.patience.Begin(rate, terms.BodyGrace)
	c.Depart(&c.body)
	err := c.Trip.Send()
	if err == nil {
		err = c.deliver()
	}
	c.Settle()
	if err != nil && !c.Fail(err, c.w.status != 0) {
		panic(http.ErrAbortHandler)
	}
	return err
}

// gone reports that the client does not wait for an answer any more.
func (c *http2Call) gone() error {
	if c.body.in.Context().Err() != nil {
		return backend.ErrClientGone
	}
	return nil
}

// breakOff is the Exchange's BreakOff. A client that takes nothing would hold the call for ever.
func (c *http2Call) breakOff() {
	c.Trip.Break()
	_ = http.NewResponseController(c.w.ResponseWriter).SetWriteDeadline(time.Now().Add(lastWrite))
}

// lastWrite is how long a client may take for what it is still sent when its call is broken off.
const lastWrite = time.Second

// end finishes the call whatever happened: it is observed once, and its Exchange goes back to the pool.
func (c *http2Call) end() {
	fault := recover()
	g := c.socket.gateway
	if fault != nil && fault != http.ErrAbortHandler {
		told := g.decider.Faults().New("a call", fault, "id", c.ID)
		c.Abandon()
		if c.Fail(fmt.Errorf("%w: %w", decision.ErrInternal, told), c.w.status != 0) {
			c.refuse()
			fault = nil
		} else {
			fault = http.ErrAbortHandler // what was sent cannot be taken back: let the client see that it is broken
		}
	}
	c.Settle()
	c.BytesOut = c.w.patience.Bytes()
	if c.Status == 0 {
		c.Status = c.w.status
	}
	g.decider.Finish(&c.Exchange)
	c.Exchange, c.socket = decision.Exchange{BreakOff: c.BreakOff}, nil
	c.Head.Reset()
	c.w.end()
	c.body.end()
	if clear(c.values); len(c.values) > keptValues {
		c.values = nil
	}
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
	if c.Head.Method != http.MethodHead {
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
	c.setFields(h, res, make([]string, len(res.Fields)))
	// net/http may still be reading an interim answer's fields when it returns, if the client ends the stream
	// meanwhile, and clearing them then brings the process down. With this field, which it leaves out, it takes a copy.
	h["Content-Length"] = []string{"0"}
	c.w.ResponseWriter.WriteHeader(res.Status)
	clear(h)
	return nil
}

// setFields sets the fields of an answer. Their values stand in room, of which it returns the rest.
func (c *http2Call) setFields(h http.Header, res *http1.Response, room []string) []string {
	c.AnswerFields(c.Trip.Server, res, func(name, value string) {
		room = addField(h, textproto.CanonicalMIMEHeaderKey(name), value, room)
	})
	return room
}

// keptValues is how many values an http2Call keeps memory for.
const keptValues = 128

// ownFields is how many fields an answer has at most besides those of the server.
const ownFields = 5

// deliver passes the server's answer on as it comes: nothing is kept while more is waited for. If it returns an error,
// the answer will never be whole.
func (c *http2Call) deliver() error {
	t, res, h := &c.Trip, &c.Trip.Response, c.w.Header()
	n := len(res.Fields) + ownFields
	c.values = slices.Grow(c.values[:0], n)[:n] // net/http takes a copy when it is told the status
	room := c.setFields(h, res, c.values)
	if length, n := res.First("Content-Length"); n > 0 && res.Status != http.StatusNoContent { // RFC 9110 section 8.6: none there
		room = addField(h, "Content-Length", length, room)
	}
	c.text = c.AppendOwnFields(c.text[:0])
	addFields(h, c.text, room)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would make one up
	}
	announced := c.AnnouncedTrailers(t)
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
				return c.w.notTaken()
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
				return c.w.notTaken()
			}
		}
		if err == io.EOF {
			c.setTrailers(c.AnswerTrailers(t), announced)
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

var (
	errPath   = errors.New(":path is no path")                                     // RFC 9113 section 8.3.1
	errTwo    = errors.New("a host beside :authority, or two content-lengths")     // RFC 9113 sections 8.3.1 and 8.1.1
	errLength = errors.New("a content-length that is no plain number")             // for which net/http takes another, or 0
	errExpect = &http1.Error{Status: 417, Text: "an expectation but 100-continue"} // RFC 9110 section 10.1.1
	errLists  = &http1.Error{Status: 431, Text: "too many trailers are announced"} // as http1 has it
)

// http2Problem is why a request is none that every reader reads alike, as far as net/http lets it pass.
func http2Problem(r *http.Request) error {
	hosts, lengths, expect := r.Header["Host"], r.Header["Content-Length"], r.Header["Expect"]
	switch {
	case !strings.HasPrefix(r.RequestURI, "/"):
		return errPath
	case len(hosts) > 1 || len(hosts) == 1 && hosts[0] != r.Host || len(lengths) > 1:
		return errTwo
	case len(lengths) == 1 && lengths[0] != strconv.FormatInt(r.ContentLength, 10):
		return errLength
	case len(r.Trailer) > http1.MaxAnnounced:
		return errLists
	case expect != nil && (len(expect) > 1 || !strings.EqualFold(expect[0], "100-continue")):
		return errExpect
	}
	return nil
}

// http2HeadSize is how many bytes the head would take in HTTP/1.1. net/http counts 32 more for each field (RFC 9113
// section 6.5.2), and is given room for these.
func http2HeadSize(r *http1.Request) int {
	size := len(r.Method) + len(" ") + len(r.Target) + len(" HTTP/1.1\r\n\r\n") + http1.Size(r.Fields)
	if r.Hosts == 0 {
		size += len("Host: \r\n") + len(r.Host)
	}
	return size
}

// An http2Writer counts what goes to the client, and bounds the wait for it.
type http2Writer struct {
	http.ResponseWriter
	status   int
	kept     int  // bytes that net/http may still keep to itself
	late     bool // the client took too long for the last that it was sent
	patience patience
}

func (w *http2Writer) begin(to http.ResponseWriter, terms *engine.Terms) {
	w.ResponseWriter, w.status, w.kept, w.late = to, 0, 0, false
	w.patience.client, w.patience.giveUp = to, forWrites
	w.patience.Begin(terms.BodyRate, terms.BodyGrace)
}

func (w *http2Writer) end() { w.ResponseWriter, w.patience.client = nil, nil }

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
	w.patience.Passed(len(b))
	if w.kept += len(b); w.kept <= keepable {
		return w.ResponseWriter.Write(b)
	}
	w.patience.begin()
	n, err = w.ResponseWriter.Write(b)
	w.waited()
	return n, err
}

// waited ends a wait. A client that takes nothing at all for the grace is late, too: net/http ends its connection then.
func (w *http2Writer) waited() {
	p := &w.patience
	w.late = p.end() || p.Rate > 0 && time.Since(p.began) >= p.Grace
}

// notTaken is why the client was not sent a part of the answer.
func (w *http2Writer) notTaken() error {
	if w.late {
		return backend.ErrNotTaken
	}
	return backend.ErrClientGone
}

// flush sends what net/http has kept.
func (w *http2Writer) flush() error {
	w.patience.begin()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.waited()
	w.kept = 0
	return err
}

// An http2Body is the body of a client's request, a backend.Body.
type http2Body struct {
	in       *http.Request
	memory   *[]byte
	patience patience
	ended    bool
	stopped  atomic.Bool
}

func (b *http2Body) begin(r *http.Request, w http.ResponseWriter) {
	b.in, b.ended = r, false
	b.stopped.Store(false)
	b.patience.client, b.patience.giveUp = w, forReads
}

// end lets go of the body, which nobody reads any more.
func (b *http2Body) end() {
	if b.memory != nil {
		wire.Large.Put(b.memory)
	}
	b.memory, b.in, b.patience.client = nil, nil, nil
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
		b.patience.begin()
		n, err := b.in.Body.Read(p)
		late := b.patience.end()
		b.patience.Passed(n)
		switch {
		case err == io.EOF:
			if err := http1.CheckTrailer(b.Trailers(), http1.MaxTrailerHTTP2); err != nil {
				return nil, fmt.Errorf("%w: %w", backend.ErrBadBody, err)
			}
			b.ended = true
			return p[:n], io.EOF
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

// Free implements backend.Body.
func (b *http2Body) Free() { b.patience.Free() }

// Trailers implements backend.Body.
func (b *http2Body) Trailers() []http1.Field {
	return message.AppendFields(nil, b.in.Trailer)
}

// Stop implements backend.Body.
func (b *http2Body) Stop() {
	b.stopped.Store(true)
	b.in.Body.Close() // which ends a Read
}
