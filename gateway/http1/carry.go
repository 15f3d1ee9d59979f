package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// next carries one call, and tells whether there may be another.
func (c *Conn) next() (again bool) {
	size, err := c.readHead()
	if err != nil && !errors.As(err, new(*Error)) {
		c.conn.Close()
		return false
	}
	call := c.take(size, time.Now())
	return call.guard(func() bool { return call.proceed(call.judge(err)) })
}

// take begins a call with a head of that size in the window.
func (c *Conn) take(size int, now time.Time) *Call {
	call := c.engine.calls.Get().(*Call)
	call.begin(c)
	call.Seen = now
	c.calls++
	call.size = size
	return call
}

// guard runs the last part of a call, and ends it whatever happens.
func (call *Call) guard(part func() (again bool)) (again bool) {
	c := call.Conn
	defer func() {
		if fault := recover(); fault != nil {
			again = false
			call.panicked(fault, debug.Stack())
		}
		if again = call.end() && again; !again {
			c.in.close()
		}
	}()
	return part()
}

// judge reads the head, unless it is known why it is none, and judges the call.
func (call *Call) judge(problem error) Verdict {
	c := call.Conn
	head := call.identify(c.in.bytes()[:call.size])
	if problem == nil {
		problem = call.Request.Parse(head)
	}
	if problem != nil {
		call.Problem, call.Last = problem, true
	}
	return c.engine.cfg.Handler.Judge(call)
}

// proceed does what follows from the verdict, however long it takes.
func (call *Call) proceed(verdict Verdict) (again bool) {
	c, h := call.Conn, call.Conn.engine.cfg.Handler
	for verdict == Wait {
		h.Wait(context.Background(), call)
		verdict = h.Judge(call)
	}
	if verdict == Elsewhere {
		call.left = true
		h.Left(call)
		c.leave()
		return false
	}
	call.accept()
	if verdict != Forward {
		return call.refuse()
	}
	return call.finish(call.forward())
}

// accept takes the head off the window.
func (call *Call) accept() {
	c := call.Conn
	c.in.skip(call.size)
	call.Last = call.Last || call.Request.Close || call.Request.Minor == 0 || c.engine.draining.Load()
	call.body.begin(&call.Request)
}

func (call *Call) begin(c *Conn) {
	call.Conn = c
	call.Timeout, call.MaxBody, call.First = 0, 0, 0
	call.Last, call.Status, call.BytesOut = false, 0, 0
	call.left, call.answering, call.interim, call.waited = false, false, 0, 0
	call.bytesIn.Store(0)
	call.broken = false // nobody else has the call yet
}

// identify gives the call its ID, and returns the head as a string. The two are parts of one object.
func (call *Call) identify(head []byte) string {
	call.head = call.Conn.engine.cfg.AppendID(call.head[:0])
	id := len(call.head)
	var b strings.Builder
	b.Grow(id + len(head))
	b.Write(call.head)
	b.Write(head)
	text := b.String()
	call.ID = text[:id]
	return text[id:]
}

// end gives the call back, whatever has happened; false if something panicked in it, which has ended the connection.
func (call *Call) end() (well bool) {
	c := call.Conn
	defer func() {
		if fault := recover(); fault != nil {
			// The call is left to the collector: nobody knows what holds it.
			c.engine.tell(call, fault, debug.Stack())
			c.closeNow()
			well = false
		}
	}()
	if !call.left {
		c.engine.cfg.Handler.Finish(call)
	}
	call.breaking.Lock()
	if call.broken { // perhaps when all had gone well
		_ = c.conn.SetWriteDeadline(time.Time{})
	}
	call.breaking.Unlock()
	call.Request.Reset()
	call.Response.Reset()
	call.Conn, call.ID, call.Problem, call.Upstreams, call.Upstream = nil, "", nil, nil, nil
	call.body = requestBody{chunks: call.body.chunks}
	call.body.chunks.Reset()
	call.backend = nil
	if cap(call.head) > smallBuffer {
		call.head = nil
	}
	c.engine.calls.Put(call)
	return true
}

// panicked answers for a fault of ours, if nothing was answered yet, and ends the connection.
func (call *Call) panicked(fault any, stack []byte) {
	c := call.Conn
	defer c.conn.Close()
	c.engine.tell(call, fault, stack)
	defer func() {
		if again := recover(); again != nil { // in what answers for it
			c.engine.tell(call, again, debug.Stack())
		}
	}()
	h := c.engine.cfg.Handler
	if b := call.backend; b != nil {
		b.close()
	}
	call.up.stop()
	if call.answering || call.left {
		return
	}
	call.Last = true
	h.Failed(call, Internal, fmt.Errorf("a panic: %v", fault))
	_ = c.write(h.AppendRefusal(nil, call))
}

// finish ends a call that was to be forwarded, however that went.
func (call *Call) finish(fault Fault, cause error) (again bool) {
	c := call.Conn
	switch {
	case cause == nil && !call.Last:
		return true
	case cause == nil:
		c.end(!call.body.done)
		return false
	case call.answering && fault != ClientGone:
		fault = BrokenOff
	}
	c.engine.cfg.Handler.Failed(call, fault, cause)
	if fault == BrokenOff || fault == ClientGone {
		c.breakOff()
		return false
	}
	return call.refuse()
}

// refuse answers a call that is not, or no more, to be forwarded.
func (call *Call) refuse() (again bool) {
	c := call.Conn
	whole := call.skipBody()
	if !whole && (call.Request.Length < 0 || call.Request.Length > restOfBytes || call.Request.Expect) {
		call.Last = true
	}
	out := small.get()
	defer small.put(out)
	*out = c.engine.cfg.Handler.AppendRefusal((*out)[:0], call)
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.engine.cfg.HeadTimeout))
	if c.write(*out) != nil {
		c.conn.Close()
		return false
	}
	if call.Last {
		c.end(!whole || call.Problem != nil)
		return false
	}
	_ = c.conn.SetDeadline(time.Now().Add(restOfBody))
	for !whole {
		n, err := c.conn.Read(c.in.room())
		c.in.w += n
		if n == 0 && err != nil {
			c.conn.Close()
			return false
		}
		whole = call.skipBody()
	}
	_ = c.conn.SetDeadline(time.Time{})
	return true
}

// skipBody passes over what has come of the request's body; true if that was all of it.
func (call *Call) skipBody() bool {
	if call.Problem != nil {
		return false
	}
	var none []byte
	for !call.body.done && len(call.Conn.in.bytes()) > 0 {
		var err error
		if none, err = call.moveBody(none[:0], &call.Conn.in); err != nil {
			call.Last = true
			return false
		}
	}
	return call.body.done
}

// end closes a connection after its last answer.
func (c *Conn) end(more bool) {
	if more || len(c.in.bytes()) > 0 {
		c.linger()
		return
	}
	c.conn.Close()
}

// breakOff closes a connection in a way that no client takes for the end of an answer.
func (c *Conn) breakOff() {
	if c.wire != nil {
		c.wire.Conn.Close() // without the closing word of TLS
	}
	c.conn.Close()
}

// forward carries the call to an upstream and the answer back. Without a cause all went well.
func (call *Call) forward() (Fault, error) {
	b, err := call.connect()
	if err != nil {
		return Unreachable, err
	}
	out := small.get()
	defer small.put(out)
	if *out, err = call.appendRequest((*out)[:0]); err != nil {
		call.letGo()
		b.close()
		return faultOf(err), err
	}
	again := call.mayRepeat(b)
	sent := b.write(*out)
	if sent != nil && again {
		return call.repeat(b, out)
	}
	return call.receive(b, call.startUpload(b, sent), out, again)
}

// mayRepeat tells whether the call may be sent again if the connection turns out to have been closed while it was idle.
func (call *Call) mayRepeat(b *backendConn) bool {
	return b.used && call.Request.Length == 0 && replayable(call.Request.Method)
}

// repeat sends the call again, on a new connection.
func (call *Call) repeat(b *backendConn, out *[]byte) (Fault, error) {
	call.letGo()
	b.close()
	b, err := call.Upstream.dial()
	if err != nil {
		return Unreachable, err
	}
	call.carriedBy(b)
	if *out, err = call.appendRequest((*out)[:0]); err == nil {
		err = b.write(*out)
	}
	if err != nil {
		call.letGo()
		b.close()
		return Unreachable, err
	}
	call.interim = 0
	return call.receive(b, call.startUpload(b, nil), out, false)
}

// receive reads the answer and sends it on.
func (call *Call) receive(b *backendConn, up *upload, out *[]byte, again bool) (Fault, error) {
	c := call.Conn
	for {
		err := call.readAnswer(b, up)
		if err == errNoAnswer && again {
			return call.repeat(b, out)
		}
		if err != nil {
			return call.giveUp(b, up, err)
		}
		if call.Response.Status >= 200 {
			break
		}
		if call.Response.Status == 100 || call.Request.Minor == 0 {
			continue // the client has been told by us, or knows no such thing (RFC 9110 section 15.2)
		}
		if *out, err = c.engine.cfg.Handler.AppendResponse((*out)[:0], call); err != nil {
			return call.giveUp(b, up, err)
		}
		if err = c.write(append(*out, "\r\n"...)); err != nil {
			return call.giveUp(b, up, errClientGone)
		}
	}
	if err := call.beginAnswer(up, out); err != nil {
		return call.giveUp(b, up, err)
	}
	return call.deliver(b, up, out)
}

// deliver sends the answer whose head is in out, and is done with the backend.
func (call *Call) deliver(b *backendConn, up *upload, out *[]byte) (Fault, error) {
	if err := call.relay(b, out); err != nil {
		return call.giveUp(b, up, err)
	}
	if up.ended().IsZero() {
		b.conn.Close() // or the upload may wait for it for ever
	}
	up.stop()
	reusable := call.reusable(b, up)
	if !call.letGo() {
		b.close()
		return BrokenOff, errBroken
	}
	if reusable {
		b.upstream.give(b, time.Now())
	} else {
		b.close()
	}
	return 0, nil
}

// reusable tells whether the backend's connection is at the start of another call.
func (call *Call) reusable(b *backendConn, up *upload) bool {
	return !up.ended().IsZero() && up.err == nil && !call.Response.Close && len(b.in.bytes()) == 0
}

var (
	errTooLarge   = errors.New("the body is larger than it may be")
	errTooSlow    = errors.New("the body came too slowly")
	errLate       = errors.New("no answer in time")
	errNoAnswer   = errors.New("the connection ended before an answer")
	errAnswerHead = errors.New("the head of the answer is too long")
	errSwitched   = errors.New("another protocol than the one that was asked for")
	errInterim    = errors.New("too many interim answers")
	errCut        = errors.New("the answer ended too early")
	errClientGone = errors.New("the client has gone")
	errBroken     = errors.New("the call was broken off")
)

// replayable tells the methods that may be sent again when a connection that was used before has turned out to be closed:
// a subset of RFC 9110 section 9.2.2.
func replayable(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// connect finds a connection to one of the upstreams: the next one only if the last could not be reached.
func (call *Call) connect() (*backendConn, error) {
	var err error
	for i := range call.Upstreams {
		call.Upstream = call.Upstreams[(call.First+i)%len(call.Upstreams)]
		b := call.Upstream.take()
		if b == nil {
			b, err = call.Upstream.dial()
		}
		if b != nil {
			call.carriedBy(b)
			return b, nil
		}
		if errors.As(err, new(*handshakeError)) {
			break
		}
	}
	return nil, err
}

// appendRequest appends the head for the upstream, and what has come of the body.
func (call *Call) appendRequest(out []byte) ([]byte, error) {
	out = call.Conn.engine.cfg.Handler.AppendRequest(out, call)
	r := &call.Request
	if r.Length == InChunks {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
		out = call.appendTrailerNames(out, r.Values("Trailer"), true)
	} else {
		out = appendLength(out, r.Method, r.Length, r.Length > 0 || r.hasLength())
	}
	out = append(out, "\r\n"...)
	return call.moveBody(out, &call.Conn.in)
}

// appendField appends a header line.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// appendLength appends the length of a request's body, unless there is none and nobody expects to be told.
func appendLength(b []byte, method string, n int64, stated bool) []byte {
	if !stated && method != "POST" && method != "PUT" && method != "PATCH" {
		return b
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

func (r *Request) hasLength() bool {
	_, n := r.First("Content-Length")
	return n > 0
}

func (b *backendConn) write(p []byte) error { return writeOver(b.conn, b.wire, p) }

// giveUp ends a call that has failed while the backend carried it.
func (call *Call) giveUp(b *backendConn, up *upload, cause error) (Fault, error) {
	b.conn.Close()
	if up.stop(); up.err != nil {
		cause = up.err // which is why the rest failed
	}
	call.letGo()
	b.close()
	return faultOf(cause), cause
}

func faultOf(err error) Fault {
	var malformed *Error
	switch {
	case errors.Is(err, errClientGone):
		return ClientGone
	case errors.Is(err, errTooLarge):
		return TooLarge
	case errors.Is(err, errTooSlow):
		return TooSlow
	case errors.Is(err, errLate):
		return Late
	case errors.Is(err, errBody):
		return BadBody
	case errors.As(err, &malformed), errors.Is(err, errAnswerHead), errors.Is(err, errSwitched), errors.Is(err, errInterim):
		return BadAnswer
	}
	return Unreachable
}

// slice is how long the engine waits for a backend before it looks whether the client is still there.
const slice = 100 * time.Millisecond

// keepHead is a head of the backend's as a string that lives as long as the call: its memory is the call's, and nobody
// keeps a Response. It saves an allocation a call.
func (call *Call) keepHead(head []byte) string {
	call.head = append(call.head[:0], head...)
	return unsafe.String(unsafe.SliceData(call.head), len(call.head))
}

// fill waits for more from the backend, until a time if that isn't zero. Up may tell of one, too.
func (call *Call) fill(b *backendConn, until func() time.Time) error {
	room := b.in.room()
	for {
		now := time.Now()
		end := until()
		// A deadline costs more than a look at the clock: one that is a little early is no worse.
		if left := b.deadline.Sub(now); left < slice/2 || !end.IsZero() && b.deadline.After(end) {
			b.deadline = now.Add(slice)
			if !end.IsZero() && end.Before(b.deadline) {
				b.deadline = end
			}
			_ = b.conn.SetReadDeadline(b.deadline)
		}
		n, err := b.conn.Read(room)
		b.in.w += n
		switch {
		case n > 0:
			return nil
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case gone(call.Conn.raw):
			return errClientGone
		case !end.IsZero() && !time.Now().Before(end):
			return errLate
		}
	}
}

// maxInterim is how many interim answers there may be before the answer.
const maxInterim = 16

// readAnswer reads the next head from the backend.
func (call *Call) readAnswer(b *backendConn, up *upload) error {
	if call.interim++; call.interim > maxInterim {
		return errInterim
	}
	until := func() time.Time {
		ended := up.ended()
		if ended.IsZero() {
			return ended
		}
		return ended.Add(call.Timeout)
	}
	seen := 0
	for {
		p := b.in.bytes()
		if len(p) > 0 {
			n, err := HeadEnd(p, seen)
			if err != nil {
				return err
			}
			if n > 0 {
				if err := call.Response.Parse(call.keepHead(p[:n]), call.Request.Method); err != nil {
					return err
				}
				b.in.skip(n)
				call.Seen = time.Now()
				if call.Response.Upgrade {
					return errSwitched
				}
				return nil
			}
			seen = len(p)
		}
		if len(b.in.room()) == 0 {
			if len(p) >= largeBuffer {
				return errAnswerHead
			}
			b.in.enlarge()
		}
		if err := call.fill(b, until); err != nil {
			var timeout net.Error
			switch {
			case err == errClientGone || err == errLate:
				return err
			case errors.As(err, &timeout) && timeout.Timeout():
				return err
			case len(p) == 0 && call.interim == 1:
				return errNoAnswer
			}
			return io.ErrUnexpectedEOF
		}
	}
}
