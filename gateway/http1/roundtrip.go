package http1

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"sallyport/gateway/message"
)

// A Transport carries calls of net/http's on the connections to one upstream, which it shares with the engine. It is an
// http.RoundTripper but for three things: it speaks no TLS but the upstream's, whatever the URL's scheme and host; it
// leaves a request's body open if it could not reach the upstream, so that another one may be asked; and what of an
// answer's head is for one hop only is left out.
type Transport struct {
	Upstream *Upstream
	Timeout  time.Duration // from the end of a request to the end of the answer's head; 0: any
}

var (
	errLateAnswer = fmt.Errorf("%w: %w", errLate, os.ErrDeadlineExceeded) // a net.Error
	errOutgoing   = errors.New("the request has a method, a target, a host or a field that is none")
	errBodyLength = errors.New("the request's body is not as long as it is said to be")
)

// RoundTrip sends the request and returns as soon as the head of the answer has come, perhaps before the request's body
// has ended. It sends the URL's Opaque, as it is, and its query. The body is sent beside the call, by a goroutine that
// ends as soon as nobody wants more of it and the body's Read has returned.
//
// The answer's body has to be closed. It ends with io.EOF, or with another error if it came to no end. Its Read and Close
// are for one goroutine at a time.
//
// An error of net.Dialer is returned as it is; one of the handshake that follows does not look like it. An answer that is
// late is a net.Error with a timeout. If the request's context has ended, the error is the context's.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	x := &exchange{request: r, timeout: t.Timeout}
	b := t.Upstream.take()
	err := x.carry(t.Upstream, b)
	if b != nil && errors.Is(err, errNoAnswer) && !hasBody(r) && replayable(r.Method) {
		err = x.carry(t.Upstream, nil)
	}
	if err != nil {
		return nil, err
	}
	return &x.response, nil
}

// An exchange is a call of net/http's with its answer, of which it is the body.
type exchange struct {
	request  *http.Request
	timeout  time.Duration
	conn     *backendConn // nil: the exchange is over
	keep     func() bool  // ends the watch over the context; false if that has cut the connection. nil: there is no watch
	sender   *sender      // nil: the request has no body
	response http.Response

	left    int64 // Response.Length, less what has come
	chunks  Chunked
	spoiled bool  // the head of the request was not taken whole, or something came behind the answer
	err     error // of all Reads that follow

	mu       sync.Mutex
	waiting  bool      // for the head of the answer
	due      time.Time // when that has to be there; zero: any time
	badInput error     // why the request's body cannot be had whole
}

// carry makes the call on that connection, or on a new one if it is nil, up to the head of the answer.
func (x *exchange) carry(u *Upstream, b *backendConn) error {
	r := x.request
	out := small.get()
	var err error
	if *out, err = appendHead((*out)[:0], r, u.Authority); err == nil {
		err = r.Context().Err()
	}
	if err == nil && b == nil {
		if b, err = u.dialContext(r.Context()); err != nil && r.Context().Err() == nil {
			small.put(out)
			if errors.As(err, new(*handshakeError)) {
				x.closeBody()
			}
			return err
		}
	}
	if err != nil {
		small.put(out)
		if b != nil {
			b.close()
		}
		x.closeBody()
		return cmp.Or(r.Context().Err(), err)
	}
	x.begin(b)
	x.spoiled = b.write(*out) != nil // and yet the backend may have answered
	small.put(out)
	if hasBody(r) && !x.spoiled {
		x.sender = &sender{over: make(chan struct{})}
		go x.send(b)
	} else {
		x.await(b)
	}
	if err = x.receive(); err != nil {
		return x.fail(err)
	}
	return nil
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// begin takes the connection, which is cut when the context ends.
func (x *exchange) begin(b *backendConn) {
	x.conn, x.waiting, x.due, x.keep = b, true, time.Time{}, nil
	if ctx := x.request.Context(); ctx.Done() != nil {
		x.keep = context.AfterFunc(ctx, b.cut)
	}
}

// cut ends a connection at once, whoever reads or writes it.
func (b *backendConn) cut() { closeSocket(b.conn, b.wire) }

// end lets go of the connection, for others to use if both messages have come to their end on it.
func (x *exchange) end(whole bool) {
	b := x.conn
	if b == nil {
		return
	}
	x.mu.Lock()
	x.conn, x.waiting = nil, false
	x.mu.Unlock()
	whole = whole && !x.spoiled && x.sender.sentWhole()
	if x.keep != nil && !x.keep() {
		whole = false
	}
	switch {
	case !whole:
		b.cut()
		b.close()
		x.closeBody()
	case x.response.Close || len(b.in.bytes()) > 0:
		b.close()
	default:
		b.deadline = time.Time{} // the engine sets its own
		b.upstream.give(b, time.Now())
	}
}

// fail ends the exchange, and tells why: an error of the connection may be the effect and not the cause.
func (x *exchange) fail(err error) error {
	x.end(false)
	x.mu.Lock()
	defer x.mu.Unlock()
	if p, ok := x.badInput.(bodyPanic); ok {
		panic(string(p)) // where it ends this call, and not the process
	}
	switch ended := x.request.Context().Err(); {
	case ended != nil:
		return ended
	case x.badInput != nil:
		return x.badInput
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

func (x *exchange) closeBody() {
	if x.request.Body != nil {
		x.request.Body.Close()
	}
}

// appendHead appends the head of the request. What would make another message of it is refused.
func appendHead(b []byte, r *http.Request, authority string) ([]byte, error) {
	target, host := r.URL.Opaque, cmp.Or(r.Host, authority)
	if !message.ValidMethod(r.Method) || !strings.HasPrefix(target, "/") || !plain(target) || !plain(r.URL.RawQuery) || !httpguts.ValidHostHeader(host) {
		return b, errOutgoing
	}
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, target...)
	if r.URL.ForceQuery || r.URL.RawQuery != "" {
		b = append(b, '?')
		b = append(b, r.URL.RawQuery...)
	}
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", host)
	for name, values := range r.Header {
		switch {
		case ofThisHop(name), equalFold(name, "Host"), equalFold(name, "Content-Length"):
			continue
		case name == "User-Agent" && len(values) == 1 && values[0] == "":
			continue // this is how ReverseProxy says that there is none
		}
		for _, v := range values {
			if !(Field{name, v}).valid() {
				return b, errOutgoing
			}
			b = appendField(b, name, v)
		}
	}
	switch body := hasBody(r); {
	case body && r.ContentLength > 0:
		b = appendLength(b, r.ContentLength)
	case body:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for name := range r.Trailer {
			if !message.ValidMethod(name) {
				return b, errOutgoing
			}
			b = appendField(b, "Trailer", name)
		}
	case r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		b = appendLength(b, 0)
	}
	return append(b, "\r\n"...), nil
}

// plain tells whether s can be a part of a request target.
func plain(s string) bool { return nextControl(s, 0) == len(s) && strings.IndexByte(s, ' ') < 0 }

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// ofThisHop tells the fields that are about a connection or the framing of a message by themselves. Content-Length is not
// among them: in the answer to HEAD it is about another one.
func ofThisHop(name string) bool {
	switch len(name) {
	case 7:
		return equalFold(name, "Upgrade") || equalFold(name, "Trailer")
	case 10:
		return equalFold(name, "Connection") || equalFold(name, "Keep-Alive")
	case 16:
		return equalFold(name, "Proxy-Connection")
	case 17:
		return equalFold(name, "Transfer-Encoding")
	}
	return false
}

// A sender sends the body of a request.
type sender struct {
	last  atomic.Bool   // the last write has begun, and won't take long if the backend reads
	over  chan struct{} // closed when nothing more is written
	whole bool          // all was; valid after over
	ended bool          // the body has said so
}

// endWait is how long an answer that is over waits for the end of the request, which the backend may have seen before
// the sender returns from writing it.
const endWait = 50 * time.Millisecond

// sentWhole tells whether the whole body was sent.
func (s *sender) sentWhole() bool {
	if s == nil {
		return true
	}
	select {
	case <-s.over:
		return s.whole
	default:
	}
	if !s.last.Load() {
		return false
	}
	t := time.NewTimer(endWait)
	defer t.Stop()
	select {
	case <-s.over:
		return s.whole
	case <-t.C:
		return false
	}
}

// send sends the body. From when it is whole, the connection may be somebody else's.
func (x *exchange) send(b *backendConn) {
	s, r := x.sender, x.request
	defer r.Body.Close()
	if err := contain(func() error { return s.sendBody(r, b) }); err != nil {
		x.mu.Lock()
		x.badInput = err
		x.mu.Unlock()
		b.cut() // nobody waits for an answer any more
	}
	x.await(b) // if the backend takes no more, it may have answered
	unsure := s.whole && !s.ended
	close(s.over)
	if unsure { // a body of known length ends when it has been asked once more
		_ = contain(func() error {
			_, err := r.Body.Read(make([]byte, 1))
			return err
		})
	}
}

// A bodyPanic is what a body's Read did instead of returning, and where.
type bodyPanic string

func (p bodyPanic) Error() string { return string(p) }

func contain(read func() error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = bodyPanic(fmt.Sprintf("%v, in reading the request's body:\n%s", fault, debug.Stack()))
		}
	}()
	return read()
}

// chunkRoom is for what a chunk has besides its data, and the end of a body.
const chunkRoom = 64

// sendBody returns an error if the body cannot be had whole.
func (s *sender) sendBody(r *http.Request, b *backendConn) error {
	memory := &small
	if r.ContentLength <= 0 || r.ContentLength > smallBuffer {
		memory = &large
	}
	in, out := memory.get(), memory.get()
	defer memory.put(in)
	defer memory.put(out)
	p, left := (*in)[:cap(*in)-chunkRoom], max(r.ContentLength, 0)
	inChunks := left == 0
	for !s.whole {
		n, err := r.Body.Read(p)
		s.ended = err == io.EOF
		data, last := p[:n], s.ended
		switch {
		case err != nil && !s.ended:
			return err
		case inChunks:
			*out = AppendChunk((*out)[:0], data)
			if last {
				*out = AppendLast(*out, trailerOf(r))
			}
			data = *out
		case int64(n) > left || s.ended && int64(n) < left:
			return errBodyLength
		default:
			left -= int64(n)
			last = left == 0
		}
		if last {
			s.last.Store(true)
		}
		if len(data) > 0 && b.write(data) != nil {
			return nil
		}
		s.whole = last
	}
	return nil
}

// trailerOf are the trailer fields of a body that has ended.
func trailerOf(r *http.Request) []Field {
	var list []Field
	for name, values := range r.Trailer {
		for _, v := range values {
			list = append(list, Field{name, v})
		}
	}
	return list
}

// await bounds the wait for the answer from now on, if it has not come.
func (x *exchange) await(b *backendConn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waiting && x.timeout > 0 {
		x.due = time.Now().Add(x.timeout)
		_ = b.conn.SetReadDeadline(x.due)
	}
}

// late tells whether the time has come that a deadline stood for. It may have been one of an earlier wait: then it sets
// the right one.
func (x *exchange) late() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.due.IsZero() && !time.Now().Before(x.due) {
		return true
	}
	_ = x.conn.conn.SetReadDeadline(x.due)
	return false
}

// read reads some of what the backend says.
func (x *exchange) read(p []byte) (int, error) {
	for {
		n, err := x.conn.conn.Read(p)
		switch {
		case n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded):
			return n, err
		case x.late():
			return 0, errLateAnswer
		}
	}
}

// responses lends the memory that heads are read into.
var responses = sync.Pool{New: func() any { return new(Response) }}

// receive reads the head of the answer, and passes interim ones on.
func (x *exchange) receive() error {
	res := responses.Get().(*Response)
	defer func() {
		res.Reset()
		responses.Put(res)
	}()
	for i := range maxInterim {
		head, err := x.readHead(i == 0)
		if err == nil {
			err = res.Parse(head, x.request.Method)
		}
		switch {
		case err != nil:
			return err
		case res.Upgrade:
			return errSwitched
		case res.Status >= 200:
			x.answer(head, res)
			return nil
		}
		trace := httptrace.ContextClientTrace(x.request.Context())
		if res.Status == 100 || trace == nil || trace.Got1xxResponse == nil {
			continue // nobody here has asked for 100
		}
		if err := trace.Got1xxResponse(res.Status, textproto.MIMEHeader(headerOf(res))); err != nil {
			return err
		}
	}
	return errInterim
}

// readHead reads the next head.
func (x *exchange) readHead(first bool) (string, error) {
	b := x.conn
	seen := 0
	for {
		p := b.in.bytes()
		if len(p) > 0 {
			n, err := HeadEnd(p, seen)
			if err != nil {
				return "", err
			}
			if n > 0 {
				b.in.skip(n)
				return string(p[:n]), nil
			}
			seen = len(p)
		}
		room := b.in.room()
		if len(room) == 0 {
			if len(p) >= largeBuffer {
				return "", errAnswerHead
			}
			b.in.enlarge()
			room = b.in.room()
		}
		n, err := x.read(room)
		b.in.w += n
		var timeout net.Error
		switch {
		case n > 0 || err == nil:
		case first && len(p) == 0 && !(errors.As(err, &timeout) && timeout.Timeout()):
			return "", fmt.Errorf("%w: %w", errNoAnswer, err)
		default:
			return "", err
		}
	}
}

// answer makes the answer of its head. One without a body is over.
func (x *exchange) answer(head string, res *Response) {
	x.mu.Lock()
	x.waiting, x.due = false, time.Time{}
	x.mu.Unlock()
	line, _, _ := strings.Cut(head, "\r\n")
	version, status, _ := strings.Cut(line, " ")
	x.left = res.Length
	x.response = http.Response{
		Status: status, StatusCode: res.Status, Proto: version, ProtoMajor: 1, ProtoMinor: res.Minor,
		Header: headerOf(res), ContentLength: res.Length, Close: res.Close, Request: x.request, Body: x,
	}
	switch {
	case res.Length == 0:
		x.response.Body, x.err = http.NoBody, io.EOF
		if x.request.Method == http.MethodHead {
			x.response.ContentLength = -1
			if v, n := res.First("Content-Length"); n > 0 {
				x.response.ContentLength, _ = parseLength(v) // which it has passed before
			}
		}
		x.end(true)
		return
	case res.Length == InChunks:
		x.response.TransferEncoding = []string{"chunked"}
		for _, list := range res.Values("Trailer") {
			for name := range strings.SplitSeq(list, ",") {
				x.addTrailer(strings.Trim(name, " \t"))
			}
		}
	case res.Length == UntilClose:
		x.response.ContentLength = -1
	}
	if len(x.conn.in.bytes()) == 0 {
		x.conn.in.close()
	}
}

// headerOf is the head's fields but for those of this hop. All values stand in one array.
func headerOf(res *Response) http.Header {
	h, values := make(http.Header, len(res.Fields)), make([]string, len(res.Fields))
	for i, f := range res.Fields {
		if ofThisHop(f.Name) || res.Named(f.Name) {
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
	return h
}

// addTrailer adds a trailer field, unless it is one that no trailer may hold (RFC 9110 section 6.5.1).
func (x *exchange) addTrailer(name string, values ...string) {
	if !message.ValidMethod(name) || !httpguts.ValidTrailerHeader(name) { // a token, like methods
		return
	}
	if x.response.Trailer == nil {
		x.response.Trailer = http.Header{}
	}
	name = textproto.CanonicalMIMEHeaderKey(name)
	x.response.Trailer[name] = append(x.response.Trailer[name], values...)
}

// Read reads the answer's body.
func (x *exchange) Read(p []byte) (int, error) {
	for x.err == nil && len(p) > 0 {
		raw := p
		if x.left >= 0 && int64(len(p)) > x.left {
			raw = p[:x.left]
		}
		came, err := x.readRaw(raw)
		n, over, fault := x.decode(raw[:came])
		switch {
		case fault != nil:
			x.err = x.fail(fault)
		case over || err == io.EOF && x.left == UntilClose:
			x.end(over)
			x.err = io.EOF
		case err != nil:
			x.err = x.fail(err)
		case n == 0:
			continue
		}
		return n, x.err
	}
	return 0, x.err
}

// readRaw reads what came together with the head, or else from the connection.
func (x *exchange) readRaw(p []byte) (int, error) {
	in := &x.conn.in
	if in.buf == nil {
		return x.read(p)
	}
	n := copy(p, in.bytes())
	in.skip(n)
	if len(in.bytes()) == 0 {
		in.close()
	}
	return n, nil
}

// decode leaves in p what is data, of which there are n bytes then. It tells whether that was the last of it.
func (x *exchange) decode(p []byte) (n int, over bool, err error) {
	if x.left >= 0 {
		x.left -= int64(len(p))
		return len(p), x.left == 0, nil
	}
	if x.left == UntilClose {
		return len(p), false, nil
	}
	for rest := p; len(rest) > 0 && !over; {
		var data []byte
		var used int
		if data, used, over, err = x.chunks.Next(rest); err != nil {
			return n, false, err
		}
		n += copy(p[n:], data)
		rest = rest[used:]
		x.spoiled = over && len(rest) > 0
	}
	if over {
		for _, f := range x.chunks.Trailer() {
			x.addTrailer(f.Name, f.Value)
		}
	}
	return n, over, nil
}

// Close ends the exchange. Before the end of the body it closes the connection.
func (x *exchange) Close() error {
	x.end(false)
	if x.err == nil {
		x.err = http.ErrBodyReadAfterClose
	}
	return nil
}

// dialContext is dial until the context ends.
func (u *Upstream) dialContext(ctx context.Context) (*backendConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: dialKeepAlive}
	c, err := dialer.DialContext(ctx, "tcp", u.Address)
	if err != nil {
		return nil, err
	}
	c = NewSocket(c)
	b := &backendConn{upstream: u, conn: c, raw: rawOf(c)}
	b.socket = socketOf(b.raw)
	if u.TLS == nil {
		return b, nil
	}
	b.wire = NewWire(c)
	overTLS := tls.Client(b.wire, u.TLS)
	_ = c.SetDeadline(time.Now().Add(backendHandshake))
	if err := overTLS.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, &handshakeError{err}
	}
	_ = c.SetDeadline(time.Time{})
	b.conn = overTLS
	return b, nil
}
