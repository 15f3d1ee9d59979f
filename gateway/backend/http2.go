package backend

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/gateway/wire"
)

// newTransport speaks HTTP/2 to a server. It passes compressed bodies through.
func newTransport(s *Server, p Protocol) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(p == HTTP2)
	protocols.SetUnencryptedHTTP2(p == H2C)
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, s.address)
			if err != nil {
				return nil, &errUnreached{err}
			}
			return c, nil
		},
		TLSClientConfig:        s.tls,
		TLSHandshakeTimeout:    handshakeTimeout,
		Protocols:              protocols,
		DisableCompression:     true,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: 2 * MaxHead, // HTTP/2 counts more for each field (RFC 9113 section 6.5.2); see setHead
	}
}

// A stream is a call over HTTP/2.
type stream struct {
	cancel context.CancelCauseFunc
	ctx    context.Context
	body   streamBody
	res    *http.Response // nil: it has not come
	memory *[]byte        // that the body is read into

	watching sync.Mutex // held by a look of the watch
	watch    *time.Timer
	over     bool // nobody may be asked any more

	mu       sync.Mutex
	deaf     bool // interim answers are not passed on any more
	interims int
	fault    error // what is wrong with one of them
}

// askHTTP2 makes the call, up to the head of the answer. The head of the request is the one that a server of HTTP/1.1
// would get: what is removed and added stands once.
func (t *Trip) askHTTP2() error {
	s := &stream{body: streamBody{trip: t}}
	t.Reader.Begin(t.Request.Method(), "", true)
	out, err := t.request(s)
	if err != nil {
		return err
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	t.mu.Lock()
	t.stream, t.waiting, t.due = s, true, time.Time{}
	t.mu.Unlock()
	if !t.cancelBy(s.cancel) {
		return t.failHTTP2(ErrBroken)
	}
	s.watching.Lock()
	s.watch = time.AfterFunc(min(slice, t.Group.Timeout), func() { t.watchHTTP2(s) })
	s.watching.Unlock()
	if !t.sending {
		t.Sent(time.Now())
	} else if t.Length == http1.InChunks {
		t.Request.Streams(nil)
	}
	trace := &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error { return s.interim(t, status, h) }}
	s.res, err = t.Server.h2.RoundTrip(out.WithContext(httptrace.WithClientTrace(s.ctx, trace)))
	s.mu.Lock()
	s.deaf = true
	fault := s.fault
	s.mu.Unlock()
	switch {
	case fault != nil:
		err = fault // which net/http hides
	case err == nil:
		err = t.setHead(s.res)
	}
	if err != nil {
		return t.failHTTP2(err)
	}
	t.answered()
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
	if t.sending {
		out.Body, out.ContentLength = &s.body, max(t.Length, -1)
		if names := announced(t.Request.Trailer(), t.Request.MayTrail); t.Length == http1.InChunks && names != nil {
			out.Trailer = http.Header{}
			for _, name := range names {
				out.Trailer[textproto.CanonicalMIMEHeaderKey(name)] = nil
			}
			s.body.trailer = out.Trailer
		}
	}
	return out, nil
}

// watchHTTP2 looks whether the answer is late, or nobody waits for it any more.
func (t *Trip) watchHTTP2(s *stream) {
	s.watching.Lock()
	defer s.watching.Unlock()
	if s.over {
		return
	}
	switch gone := t.gone(); {
	case t.late():
		s.cancel(ErrLate)
	case gone != nil:
		s.cancel(gone)
	default:
		s.watch.Reset(slice)
	}
}

// interim passes an interim answer on.
func (s *stream) interim(t *Trip, status int, h textproto.MIMEHeader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interims++; s.interims >= maxHeads {
		s.fault = errInterim
	}
	if s.fault != nil || s.deaf || status == 100 || t.Interim == nil {
		return s.fault
	}
	res := http1.Response{Status: status, Minor: 1}
	for name, values := range h {
		for _, v := range values {
			res.Fields = append(res.Fields, http1.Field{Name: name, Value: v})
		}
	}
	s.fault = t.Interim(&res)
	return s.fault
}

// setHead makes the head of the answer the Reader's, and holds it to the rules of every answer.
func (t *Trip) setHead(res *http.Response) error {
	r := &t.Response
	r.Reset()
	r.Status, r.Minor, r.Length = res.StatusCode, 1, res.ContentLength
	size := len("HTTP/1.1 200 OK\r\n\r\n")
	add := func(name, value string) {
		r.Fields = append(r.Fields, http1.Field{Name: name, Value: value})
		size += len(name) + len(value) + len(": \r\n")
	}
	for name, values := range res.Header {
		for _, v := range values {
			add(name, v)
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return errFields
		}
	}
	for name := range res.Trailer {
		add("Trailer", name)
	}
	switch {
	case size > MaxHead:
		return errHead
	case r.Status < 200 || r.Status > 999:
		return errFields
	case t.Request.Method() == http.MethodHead || r.Status == http.StatusNoContent || r.Status == http.StatusNotModified:
		r.Length = 0
	case r.Length < 0 || len(res.Trailer) > 0:
		r.Length = http1.InChunks // in HTTP/1.1 chunked bodies alone have trailers
	}
	t.state = readingBody
	return nil
}

func (t *Trip) nextHTTP2() ([]byte, error) {
	s := t.stream
	if t.finished != nil {
		return nil, t.finished
	}
	t.streamsOn()
	if s.memory == nil {
		s.memory = wire.Large.Get()
	}
	n, err := s.res.Body.Read((*s.memory)[:cap(*s.memory)])
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
	s := t.stream
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	t.stopHTTP2()
	return t.Fail(err)
}

// stopHTTP2 ends the stream, and waits for the end of the reading of the request's body. What Next has returned stays.
func (t *Trip) stopHTTP2() {
	s := t.stream
	s.body.stop()
	s.cancel(context.Canceled)
	s.watching.Lock()
	s.over = true
	if s.watch != nil {
		s.watch.Stop()
	}
	s.watching.Unlock()
	if s.res != nil {
		s.res.Body.Close()
	}
	t.mu.Lock()
	t.waiting, t.cancel = false, nil
	t.mu.Unlock()
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
	var list []http1.Field
	for name, values := range t.stream.res.Trailer {
		for _, v := range values {
			list = append(list, http1.Field{Name: name, Value: v})
		}
	}
	return mayTrail(list, message.MayTrail)
}

// A streamBody is the request's body as net/http reads it, on a goroutine of its own.
type streamBody struct {
	trip    *Trip
	trailer http.Header // announced; filled at the end
	ended   atomic.Bool
	closed  atomic.Bool

	mu   sync.Mutex // held by a Read
	rest []byte
}

var errBodyClosed = errors.New("the body is closed")

// Read implements io.Reader.
func (b *streamBody) Read(p []byte) (int, error) {
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
		var err error
		if err = contain("in reading the request's body", b.next); err != nil {
			if !b.closed.Load() {
				t.spoilInput(err)
			}
			return 0, err
		}
	}
	n := copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) > 0 || t.sending {
		return n, nil
	}
	b.ended.Store(true)
	t.Sent(time.Now())
	return n, io.EOF
}

// next takes the next part of the body, and the trailer fields behind the last one.
func (b *streamBody) next() (err error) {
	t := b.trip
	if b.rest, err = t.next(true); err != nil || t.sending {
		return err
	}
	for _, f := range mayTrail(t.Body.Trailers(), t.Request.MayTrail) {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if before, announced := b.trailer[name]; announced {
			b.trailer[name] = append(before, f.Value)
		}
	}
	return nil
}

// Close implements io.Closer. It does not wait for a Read.
func (b *streamBody) Close() error {
	b.closed.Store(true)
	return nil
}

// stop ends a Read that waits, and waits for its end. From then on the body is read by nobody.
func (b *streamBody) stop() {
	b.closed.Store(true)
	if !b.mu.TryLock() {
		b.trip.Body.Stop()
		b.mu.Lock()
	}
	b.mu.Unlock()
}
