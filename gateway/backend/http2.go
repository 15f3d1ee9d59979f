package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
	"sallyport/listenerprofiles/trust"
)

// newTransport speaks HTTP/2 to a server. It passes compressed bodies through.
func newTransport(s *Server, p Protocol) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(p == HTTP2)
	protocols.SetUnencryptedHTTP2(p == H2C)
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (c net.Conn, err error) { // on a goroutine of net/http
			defer contain.Catch("connecting to a server", func(f *contain.Fault) { err = f })
			if c, err = s.dialTCP(ctx); err != nil {
				return nil, err
			}
			return s.share(c)
		},
		TLSClientConfig:        s.tls,
		TLSHandshakeTimeout:    s.connect,
		Protocols:              protocols,
		DisableCompression:     true,
		IdleConnTimeout:        s.rest,
		MaxResponseHeaderBytes: 8 * MaxHead, // HTTP/2 counts 32 bytes more for each field (RFC 9113 section 6.5.2); see setHead
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: silence, PingTimeout: silence, WriteByteTimeout: 2 * silence},
	}
}

// silence is how long a connection that calls share may say nothing before it is asked whether it lives, and then
// before it is given up: a server that is gone without a word would make every further call late.
const silence = 5 * time.Second

// An h2Conn is a connection that calls to a server share. net/http's client keeps it.
type h2Conn struct {
	net.Conn
	server *Server
	shown  shown
}

// deniedNow returns why a connection that net/http has for a call may carry none: a deny list names the server by now.
// The connection is closed then.
func (s *Server) deniedNow(c net.Conn) error {
	overTLS, ok := c.(*tls.Conn)
	if !ok {
		return nil
	}
	shared, ok := overTLS.NetConn().(*h2Conn)
	if !ok {
		return nil
	}
	shared.shown.once.Do(func() { shared.shown.note(overTLS.ConnectionState().VerifiedChains) })
	entry := shared.shown.deniedBy(s.denials())
	if entry == nil {
		return nil
	}
	shared.Close()
	return unbelieved(trust.DeniedBy(entry))
}

// Close implements net.Conn.
func (c *h2Conn) Close() error {
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	return c.Conn.Close()
}

// share keeps account of a new connection.
func (s *Server) share(c net.Conn) (net.Conn, error) {
	shared := &h2Conn{Conn: c, server: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && s.calls == 0 { // whoever it was for has not waited for it
		c.Close()
		return nil, net.ErrClosed
	}
	if s.conns == nil {
		s.conns = map[*h2Conn]bool{}
	}
	s.conns[shared] = true
	return shared, nil
}

// begin counts a call over HTTP/2 as under way until end.
func (s *Server) begin() {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
}

func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
	if s.closed {
		s.closeUnused()
	}
}

// closeUnused closes the connections of a Server that is closed, unless calls are under way on them. net/http would
// keep those for further calls that carried one when their Server was closed.
func (s *Server) closeUnused() {
	if s.calls > 0 {
		return
	}
	for c := range s.conns {
		c.Conn.Close()
	}
	clear(s.conns)
}

// A stream is a call over HTTP/2.
type stream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *watch
	body   streamBody
	res    *http.Response // nil: it has not come
	memory *[]byte        // that the body is read into
	over   bool           // its server was told
	most   int32          // how often net/http may send it
	sent   atomic.Int32   // how often it did
	had    bool           // it has a connection, or had one
	shared bool           // the connection had carried a call before

	mu      sync.Mutex
	deaf    bool // interim answers are not passed on any more
	heads   int  // of interim answers
	coming  []http1.Response
	passing chan struct{} // closed when coming has been passed on; nil: nobody passes it on
	fault   error         // what is wrong with an interim answer, or why it cannot be passed on
}

// askHTTP2 makes the call, up to the head of the answer, and once more if the connection turns out to have been closed
// while it was idle.
func (t *Trip) askHTTP2() error {
	if t.repeated { // to a server that could not be reached then
		return t.askStream(1)
	}
	if t.Body != nil && t.idempotent() && t.kept == nil {
		t.kept = wire.Small.Get()
		*t.kept = (*t.kept)[:0]
	}
	most := int32(1)
	if t.idempotent() {
		most = 2
	}
	err := t.askStream(most)
	if s := t.stream; err != nil && s != nil && s.shared && s.silent() && lost(err) && t.repeatable() && !s.body.killed.Load() {
		t.repeated = true
		return t.askStream(1)
	}
	return err
}

// silent reports whether no interim answer has come.
func (s *stream) silent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heads == 0
}

// lost reports whether a call failed because its connection ended, and for no reason that somebody gave.
func lost(err error) bool {
	for _, known := range []error{ErrLate, ErrBadAnswer, ErrClientGone, ErrBroken, ErrBadBody, ErrTooLarge, ErrTooSlow, errRefused} {
		if errors.Is(err, known) {
			return false
		}
	}
	return !errors.As(err, new(streamError)) && !errors.As(err, new(*errUnreached))
}

// askStream makes the call on a stream of its own. The head of the request is the one that a server of HTTP/1.1 would
// get: what is removed and added stands once.
func (t *Trip) askStream(most int32) error {
	s := &stream{most: most, body: streamBody{trip: t}}
	if t.kept != nil {
		s.body.rest = *t.kept
	}
	t.Reader.Begin(t.Request.Method(), "", true)
	out, err := t.request(s)
	if err != nil {
		return err
	}
	t.try()
	ctx, cancel := context.WithCancelCause(context.Background())
	s.ctx, s.cancel = ctx, func(cause error) {
		cancel(cause)
		s.body.abort() // or net/http would wait for a client that sends nothing
	}
	t.Server.begin()
	t.mu.Lock()
	t.stream, t.waiting, t.due = s, true, time.Time{}
	t.mu.Unlock()
	if !t.cancelBy(s.cancel) {
		return t.failHTTP2(ErrBroken)
	}
	s.watch = t.watch(s.cancel, min(slice, t.Group.Timeout))
	if out.Body == nil {
		t.Sent(time.Now())
	} else if t.Length == http1.InChunks {
		t.Request.Streams(nil)
	}
	trace := &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			s.had, s.shared = true, c.Reused
			if denied := t.Server.deniedNow(c.Conn); denied != nil {
				s.cancel(denied)
			}
			if s.sent.Load() >= s.most { // net/http sends a call again and again that the server has refused
				s.cancel(errRefused)
			}
		},
		WroteHeaders: func() { s.sent.Add(1) }, // perhaps when the call is over
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error { // on a goroutine of net/http, which other calls share
			return contain.Do("an interim answer", func() error { return s.interim(t, status, h) })
		},
	}
	s.res, err = t.Server.h2.RoundTrip(out.WithContext(httptrace.WithClientTrace(s.ctx, trace)))
	if err == nil {
		t.answered()
	}
	if fault := s.heard(); fault != nil {
		err = fault // which net/http hides
	} else if err == nil {
		err = t.setHead(s.res)
	}
	if err != nil {
		return t.failHTTP2(err)
	}
	return nil
}

// request makes the head of the request what net/http takes.
func (t *Trip) request(s *stream) (*http.Request, error) {
	var head http1.Request
	if err := head.Parse(string(append(t.Request.AppendHead(nil, t.Server), "\r\n"...))); err != nil {
		return nil, err // a fault of ours
	}
	scheme := "http"
	if t.Server.tls != nil {
		scheme = "https"
	}
	out := &http.Request{
		Method: head.Method,
		// Opaque goes out as it is: the path that was judged is the path that is sent.
		URL:  &url.URL{Scheme: scheme, Host: t.Server.Authority, Opaque: head.Target},
		Host: head.Host, Header: make(http.Header, len(head.Fields)),
	}
	for _, f := range head.Fields {
		if name := textproto.CanonicalMIMEHeaderKey(f.Name); name != "Host" {
			out.Header[name] = append(out.Header[name], f.Value)
		}
	}
	if out.Header["User-Agent"] == nil {
		out.Header["User-Agent"] = nil // or net/http would send its own
	}
	if t.Body != nil {
		out.Body, out.ContentLength = &s.body, max(t.Length, -1)
		if t.Length == http1.InChunks {
			out.Trailer = http.Header{}
			for _, name := range announced(t.Request.Trailer(), t.Request.MayTrail) {
				out.Trailer[textproto.CanonicalMIMEHeaderKey(name)] = nil
			}
			s.body.trailer = out.Trailer
		}
	}
	return out, nil
}

// interim takes an interim answer. It runs on the goroutine that reads the connection, which other calls share: a
// client that takes its time, or a panic, must not hold that up.
func (s *stream) interim(t *Trip, status int, h textproto.MIMEHeader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := http1.Response{Status: status, Minor: 1}
	res.Fields = message.AppendFields(nil, h)
	switch s.heads++; {
	case s.fault != nil:
	case s.heads >= maxHeads:
		s.fault = errInterim
	case headSize(res.Fields) > MaxHead:
		s.fault = errHead
	case status == http.StatusSwitchingProtocols: // RFC 9113 section 8.6
		s.fault = errSwitched
	}
	if s.fault != nil || s.deaf || status == http.StatusContinue || t.Interim == nil {
		return s.fault
	}
	s.coming = append(s.coming, res)
	if s.passing == nil {
		s.passing = make(chan struct{})
		go s.pass(t)
	}
	return nil
}

// pass passes interim answers on, in order.
func (s *stream) pass(t *Trip) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(s.passing)
	defer contain.Catch("passing on interim answers", func(f *contain.Fault) {
		s.fault = f
		s.cancel(f)
	})
	for len(s.coming) > 0 && s.fault == nil && s.ctx.Err() == nil {
		res := s.coming[0]
		s.coming = s.coming[1:]
		s.mu.Unlock()
		err := contain.Do("passing on an interim answer", func() error { return t.Interim(&res) })
		s.mu.Lock()
		if err != nil && s.fault == nil {
			s.fault = err
			s.cancel(err)
		}
	}
	s.passing = nil
}

// heard waits until the interim answers that have come are passed on, and returns what is wrong with them. None is
// passed on from then on.
func (s *stream) heard() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = true
	if passing := s.passing; passing != nil {
		s.mu.Unlock()
		<-passing
		s.mu.Lock()
	}
	return s.fault
}

// headSize is how long a head of these lines would be in HTTP/1.1.
func headSize(fields []http1.Field) int { return len("HTTP/1.1 200 OK\r\n\r\n") + http1.Size(fields) }

// setHead makes the head of the answer the Reader's, and holds it to the rules of every answer.
func (t *Trip) setHead(res *http.Response) error {
	r := &t.Response
	r.Reset()
	r.Status, r.Minor, r.Length = res.StatusCode, 1, res.ContentLength
	r.Fields = message.AppendFields(r.Fields, res.Header)
	for name := range res.Trailer {
		r.Fields = append(r.Fields, http1.Field{Name: "Trailer", Value: name})
		switch name {
		case "Content-Length", "Transfer-Encoding", "Trailer": // as http1 has it
			return errTrailer
		}
	}
	for name := range res.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return errFields
		}
	}
	lengths := res.Header["Content-Length"]
	switch {
	case headSize(r.Fields) > MaxHead:
		return errHead
	case len(res.Trailer) > http1.MaxAnnounced:
		return errTrailers
	case r.Status < 200 || r.Status > 999:
		return errFields
	case len(lengths) > 1 || len(lengths) == 1 && lengths[0] != strconv.FormatInt(res.ContentLength, 10):
		return errLength // for which net/http takes any length
	case t.Request.Method() == http.MethodHead || r.Status == http.StatusNoContent || r.Status == http.StatusNotModified:
		r.Length = 0 // whatever follows is no body
	case r.Length < 0 || len(res.Trailer) > 0:
		r.Length = http1.InChunks // in HTTP/1.1 chunked bodies alone have trailers
	}
	t.beginBody()
	return nil
}

func (t *Trip) nextHTTP2() ([]byte, error) {
	s := t.stream
	if t.finished != nil {
		return nil, t.finished
	}
	if t.Over() {
		t.finished = io.EOF
		return nil, io.EOF
	}
	t.streamsOn()
	if s.memory == nil {
		s.memory = wire.Large.Get()
	}
	t.resting.Store(false)
	n, err := s.res.Body.Read((*s.memory)[:cap(*s.memory)])
	t.resting.Store(true)
	t.given.Add(1)
	if err == io.EOF {
		if fault := http1.CheckTrailer(message.AppendFields(nil, s.res.Trailer), max(t.MaxTrailer, http1.MaxTrailer)); fault != nil {
			err = asBadAnswer(fault)
		}
	}
	switch {
	case err == io.EOF:
		t.state, t.finished = readDone, io.EOF
	case err != nil:
		t.finished = t.failHTTP2(err)
	}
	return (*s.memory)[:n], t.finished
}

// failHTTP2 returns why the call failed: what net/http says may be the effect and not the cause.
func (t *Trip) failHTTP2(err error) error {
	err = t.stream.cause(err)
	t.stopHTTP2()
	return t.Fail(err)
}

func (s *stream) cause(err error) error {
	late := net.Error(nil)
	switch cause := context.Cause(s.ctx); {
	case cause != nil:
		return cause
	case malformed(err):
		return &badAnswer{err}
	case !s.had && errors.As(err, &late) && late.Timeout() && !errors.Is(err, ErrConnect):
		return fmt.Errorf("%w: %w", ErrConnect, err) // the handshake's
	case !s.had:
		return unbelieved(err)
	}
	return err
}

// stopHTTP2 ends the stream, and waits for the end of the reading of the request's body. What Next has returned stays.
func (t *Trip) stopHTTP2() {
	s := t.stream
	s.body.stop()
	s.cancel(context.Canceled)
	s.watch.stop()
	_ = s.heard()
	if s.res != nil {
		s.res.Body.Close()
	}
	t.mu.Lock()
	t.waiting, t.cancel = false, nil
	t.mu.Unlock()
	if !s.over {
		s.over = true
		t.Server.end()
	}
}

func (t *Trip) endHTTP2() {
	s := t.stream
	if s == nil {
		return
	}
	t.stopHTTP2()
	if s.memory != nil {
		wire.Large.Put(s.memory)
	}
	t.mu.Lock()
	t.stream = nil
	t.mu.Unlock()
}

// Trailers are the trailer fields of an answer that is over, as far as they may be passed on.
func (t *Trip) Trailers() []http1.Field {
	if t.stream == nil {
		return t.Reader.Trailers()
	}
	return mayTrail(message.AppendFields(nil, t.stream.res.Trailer), message.MayTrail)
}

// A streamBody is the request's body as net/http reads it, on a goroutine of its own.
type streamBody struct {
	trip    *Trip
	trailer http.Header // has what is announced, and is filled at the end; nil: the length is stated
	ended   atomic.Bool
	closed  atomic.Bool
	killed  atomic.Bool // the Trip's body was stopped

	mu   sync.Mutex // held by a Read
	rest []byte

	ending sync.Mutex // held while the Trip's body is being stopped
	over   bool       // stop has returned: the Trip's body may be another call's by now
}

var errBodyClosed = errors.New("the body is closed")

// Read implements io.Reader.
func (b *streamBody) Read(p []byte) (n int, err error) { // on a goroutine of net/http
	defer contain.Catch(bodyReading, func(f *contain.Fault) {
		b.trip.spoilInput(f)
		err = f
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.trip
	switch {
	case b.ended.Load(): // net/http asks once more, and takes anything but the end for a call that broke
		return 0, io.EOF
	case b.closed.Load():
		return 0, errBodyClosed
	}
	if len(b.rest) == 0 && t.sending {
		if err := contain.Do(bodyReading, b.next); err != nil {
			if !b.closed.Load() {
				t.spoilInput(err)
			}
			return 0, err
		}
	}
	n = copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) > 0 || t.sending {
		return n, nil
	}
	if err := contain.Do(bodyReading, b.setTrailers); err != nil {
		t.spoilInput(err)
		return n, err
	}
	b.ended.Store(true)
	t.Sent(time.Now())
	return n, io.EOF
}

// next takes the next part of the body.
func (b *streamBody) next() (err error) {
	if b.rest, err = b.trip.next(true); err == nil {
		b.trip.keep(b.rest)
	}
	return err
}

// setTrailers sets the trailer fields behind the last part.
func (b *streamBody) setTrailers() error {
	if b.trailer == nil {
		return nil
	}
	t := b.trip
	for _, f := range mayTrail(t.Body.Trailers(), t.Request.MayTrail) {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		b.trailer[name] = append(b.trailer[name], f.Value)
	}
	return nil
}

// Close implements io.Closer. It ends a Read that waits, for which net/http would wait with what became of the call.
func (b *streamBody) Close() error { // on a goroutine of net/http
	return contain.Do("closing a request's body", func() error { b.abort(); return nil })
}

// abort ends a Read that waits.
func (b *streamBody) abort() {
	b.closed.Store(true)
	if b.mu.TryLock() {
		b.mu.Unlock()
		return
	}
	b.ending.Lock()
	defer b.ending.Unlock()
	if !b.over && b.trip.Body != nil {
		b.killed.Store(true)
		b.trip.Body.Stop()
	}
}

// stop is abort, and waits for the end of the Read. From then on nobody reads the Trip's body or stops it, however late
// net/http closes this one.
func (b *streamBody) stop() {
	b.abort()
	b.mu.Lock()
	b.ending.Lock()
	b.over = true
	b.ending.Unlock()
	b.mu.Unlock()
}
