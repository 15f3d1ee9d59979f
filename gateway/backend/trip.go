package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
)

// A Request is the call that a Trip carries, as its server sees it.
type Request interface {
	// Method is the request method.
	Method() string
	// AppendHead appends the head for a server, without the fields that frame the message and without the empty line.
	AppendHead(b []byte, s *Server) []byte
	// Trailer are the trailer fields that the request announces, as lists.
	Trailer() []string
	// MayTrail reports whether the server may get a trailer field.
	MayTrail(name string) bool
	// Streams is called once when a body continues beyond what came at once: the request's, of no stated length, with
	// nil, or the answer's. The call may be broken off from then on.
	Streams(answer *http1.Response)
	// Duplex is called once if the answer begins before the request's body has ended, and reports whether the body may
	// come as slowly as it likes from now on.
	Duplex() bool
}

// A Body is where the body of a request comes from.
type Body interface {
	// Next returns the next part, which is valid until the next call. io.EOF ends the body, perhaps together with the
	// last part. Unless it may wait, it returns nothing rather than wait.
	Next(wait bool) ([]byte, error)
	// Trailers are the trailer fields of a body that has ended.
	Trailers() []http1.Field
	// Free lifts the bound on how slowly the body may come. Anyone may call it.
	Free()
	// Stop makes a Next that waits return, and every Next after it fail. Anyone may call it.
	Stop()
}

// A Trip is one call's way to a server of its Group and back. What is exported is set before Send, or Begin, and Server
// is read afterwards; after Close the Trip can be used again. Its methods are for one goroutine at a time, except
// Break.
type Trip struct {
	Request Request
	Body    Body  // nil: the request has none
	Length  int64 // of the body in bytes, http1.InChunks, or http1.Unstated; without a body 0 is stated to the server
	MaxBody int64 // bytes of the body; 0: any number
	Group   *Group
	Upgrade string                      // the protocol that the call asks for; "": none
	Lasting bool                        // strings of the answer's head outlive the call
	Interim func(*http1.Response) error // passes on an interim answer; nil: nobody wants them
	Gone    func() error                // why nobody waits for the answer any more; asked ten times a second; nil: never

	// MaxTrailer is how many bytes of a trailer section the client takes; 0: http1.MaxTrailer.
	MaxTrailer int

	Server *Server   // that was asked last
	Reader           // of its answer
	Tries  int       // how often a server was asked, those that could not be reached included
	Began  time.Time // when the first of them was about to be asked
	Came   time.Time // when the head of the answer had come, which a loop sets that found it Whole; zero: it has not

	trying bool      // a try is under way, and not counted:
	asked  *figures  // of the server
	since  time.Time // when it began
	cause  error     // why it failed; nil: it has not

	first    int         // index of the server whose turn it is
	conn     *ServerConn // that carries the call now
	stream   *stream     // the same over HTTP/2
	held     wire.Window // what the last Next returned is in it, if the connection is somebody else's by now
	sender   *sender     // nil: no body is sent beside the call
	taken    atomic.Int64
	given    atomic.Int64 // over HTTP/2: parts of the answer that Next has returned
	resting  atomic.Bool  // over HTTP/2: what has come of the answer is with the client
	unsent   int64        // bytes of a body of stated length
	kept     *[]byte      // what has gone out so far, over HTTP/2 of the body; the sender's, if there is one; nil: it isn't kept
	head     int          // bytes of the head in what was last made of the request
	repeated bool         // the call has been sent before
	sending  bool         // the body has not ended; the sender's, if there is one
	streams  bool         // Request.Streams was called for the answer
	spoiled  bool         // the server did not take all that was sent at once
	finished error        // what Next returns from now on

	mu       sync.Mutex
	broken   bool
	cancel   context.CancelCauseFunc // ends a dial, or a stream; nil: there is none
	waiting  bool                    // for the head of the answer
	due      time.Time               // when it has to be there; zero: any time
	badInput error                   // why the request's body cannot be had whole
}

// slice is how long a read waits before it asks whether somebody still waits for the answer.
const slice = 100 * time.Millisecond

// longHead is what a server that does not read may not take at once.
const longHead = 4 << 10

// Begin chooses the server whose turn it is. Send, or a loop's Use, follows.
func (t *Trip) Begin() {
	t.Began = time.Now()
	t.first = t.Group.next()
	t.sending = t.Body != nil
	t.unsent = max(t.Length, 0)
	t.Reader.Begin(t.Request.Method(), t.Upgrade, t.Lasting)
}

// Send asks the servers in turn, the next one only if the last could not be reached, and returns when the head of the
// answer has come, perhaps before the request's body has ended: a goroutine sends that beside the call, and ends as
// soon as nobody wants more of it and the body's Next has returned.
func (t *Trip) Send() error {
	t.Turn()
	return t.orNext(t.ask())
}

// orNext asks the next servers in turn, if the one that was asked, with that error, could not be reached.
func (t *Trip) orNext(err error) error {
	servers := t.Group.servers
	for i := 1; i < len(servers) && err != nil && errors.As(err, new(*errUnreached)); i++ {
		t.Server = servers[(t.first+i)%len(servers)]
		if t.kept != nil && t.Server.h2 == nil { // its head is another server's
			body := slices.Clone((*t.kept)[t.head:])
			*t.kept = append(t.appendHead((*t.kept)[:0]), body...)
		}
		err = t.ask()
	}
	return err
}

func (t *Trip) ask() error {
	if t.Server.h2 != nil {
		return t.askHTTP2()
	}
	// A call that asks for another protocol gets a new connection, and gives none back: after an answer that two readers
	// may read differently, the next call must not meet a tunnel (CVE-2026-71324). One that was sent before gets a new
	// one, or it might have to be sent a third time.
	if t.Upgrade == "" && !t.repeated {
		if c := t.Server.Take(); c != nil {
			return t.carry(c)
		}
	}
	return t.askAnew()
}

// idempotent reports whether the call does no harm if a server gets it twice (RFC 9110 section 9.2.2).
func (t *Trip) idempotent() bool {
	switch t.Request.Method() {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// repeatable reports whether the call may be sent again, once, if the connection turns out to have been closed while it
// was idle: nothing has come of an answer, to send it twice does no harm, and what was taken of its body is still there.
func (t *Trip) repeatable() bool { return t.idempotent() && (t.Body == nil || t.kept != nil) }

// mostKept is how much of a request is kept so that it can be sent again.
const mostKept = wire.LargeSize

// keep keeps a part of the body that was taken, if all before it is kept. If that is too much, nothing is kept.
func (t *Trip) keep(part []byte) {
	switch {
	case t.kept == nil:
	case len(*t.kept)+len(part) > mostKept:
		t.letGo()
	default:
		*t.kept = append(*t.kept, part...)
	}
}

// letGo ends the keeping of what may have to be sent again.
func (t *Trip) letGo() {
	if t.kept != nil {
		wire.Small.Put(t.kept)
		t.kept = nil
	}
}

// Keep keeps, for a loop, a copy of the request as it goes out, if it may have to be sent again.
func (t *Trip) Keep(request []byte) {
	if t.Body != nil && t.idempotent() {
		t.kept = wire.Small.Get()
		*t.kept = append((*t.kept)[:0], request...)
	}
}

// rewind lets go of the connection, and reports whether the call can be sent again from its beginning.
func (t *Trip) rewind() bool {
	t.end(false)
	if s := t.sender; s != nil {
		wait := time.NewTimer(endWait)
		defer wait.Stop()
		select {
		case <-s.over:
			t.sender = nil
		case <-wait.C:
			return false // it waits for the client, and could be stopped only for good
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.badInput == nil && !t.broken && t.repeatable()
}

// askAnew makes the call on a new connection. To wait for that is to wait for the server: Break ends it, and Gone is
// asked.
func (t *Trip) askAnew() error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if !t.cancelBy(cancel) {
		return ErrBroken
	}
	w := t.watch(cancel, slice)
	c, err := t.Server.dial(ctx)
	w.stop()
	t.cancelBy(nil)
	if err == nil {
		return t.carry(c)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	t.try()
	t.cause = err
	return err
}

// cancelBy sets what Break calls; false if the call was broken off.
func (t *Trip) cancelBy(cancel context.CancelCauseFunc) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel = cancel
	return !t.broken
}

// carry makes the call on that connection, up to the head of the answer.
func (t *Trip) carry(c *ServerConn) error {
	if !t.Use(c) {
		c.Conn.Close()
		return ErrBroken
	}
	out := t.kept
	t.kept = nil
	var err error
	if out == nil {
		out = wire.Small.Get()
		if *out, err = t.AppendRequest((*out)[:0]); err != nil {
			wire.Small.Put(out)
			return t.Fail(err)
		}
	}
	if len(*out) <= longHead {
		err = c.Send(*out)
	} else {
		_ = c.SetWriteDeadline(time.Now().Add(t.Group.Timeout))
		err = c.Send(*out)
		_ = c.SetWriteDeadline(time.Time{})
	}
	if c.used && t.Body != nil && t.idempotent() && len(*out) <= mostKept {
		t.kept = out
	} else {
		wire.Small.Put(out) // before the wait for the answer
	}
	return t.await(c, err)
}

// Use makes c the connection that carries the call; false if the call was broken off.
func (t *Trip) Use(c *ServerConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken {
		return false
	}
	t.try()
	t.conn, t.waiting, t.due = c, true, time.Time{}
	t.Reader.Begin(t.Request.Method(), t.Upgrade, t.Lasting)
	return true
}

// Turn is, for a loop, the server whose turn it is.
func (t *Trip) Turn() *Server {
	t.Server = t.Group.servers[t.first]
	return t.Server
}

// AppendRequest appends the head for the Server, and what there is of the body.
func (t *Trip) AppendRequest(b []byte) ([]byte, error) { return t.appendBody(t.appendHead(b)) }

func (t *Trip) appendHead(b []byte) []byte {
	before := len(b)
	b = t.Request.AppendHead(b, t.Server)
	if t.Length == http1.InChunks {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for _, name := range announced(t.Request.Trailer(), t.Request.MayTrail) {
			b = http1.AppendField(b, "Trailer", name)
		}
	} else {
		b = appendLength(b, t.Request.Method(), t.Length)
	}
	if t.Upgrade != "" {
		b = http1.AppendField(b, "Connection", "Upgrade")
		b = http1.AppendField(b, "Upgrade", t.Upgrade)
	}
	b = append(b, "\r\n"...)
	t.head = len(b) - before
	return b
}

// appendLength states the length of a request's body, unless there is none and the method does not expect one.
func appendLength(b []byte, method string, n int64) []byte {
	if n == http1.Unstated && method != "POST" && method != "PUT" && method != "PATCH" {
		return b
	}
	return http1.AppendNumber(b, "Content-Length", max(n, 0))
}

// appendBody appends what there is of the body, framed, without waiting.
func (t *Trip) appendBody(b []byte) ([]byte, error) {
	for t.sending {
		data, err := t.next(false)
		if err != nil || len(data) == 0 && t.sending {
			return b, err
		}
		b = t.frame(b, data)
	}
	return b, nil
}

// next takes the next part of the body.
func (t *Trip) next(wait bool) ([]byte, error) {
	data, err := t.Body.Next(wait)
	total := t.taken.Add(int64(len(data)))
	switch {
	case err != nil && err != io.EOF:
		return nil, err
	case t.MaxBody > 0 && total > t.MaxBody:
		return nil, ErrTooLarge
	case t.Length == http1.InChunks:
		t.sending = err == nil
		if !t.sending && t.stream == nil {
			if fault := http1.CheckTrailer(t.Body.Trailers(), http1.MaxTrailer); fault != nil {
				return nil, fmt.Errorf("%w: %w", ErrBadBody, fault)
			}
		}
		return data, nil
	}
	t.unsent -= int64(len(data))
	if t.unsent < 0 || err == io.EOF && t.unsent > 0 {
		return nil, errBodyLength
	}
	t.sending = t.unsent > 0
	return data, nil
}

// frame appends a part of the body as it goes to the server.
func (t *Trip) frame(b, data []byte) []byte {
	if t.Length != http1.InChunks {
		return append(b, data...)
	}
	b = http1.AppendChunk(b, data)
	if !t.sending {
		b = http1.AppendLast(b, mayTrail(t.Body.Trailers(), t.Request.MayTrail))
	}
	return b
}

// Resume continues, by waiting, with a call that a loop has begun: the loop sent the request except for a rest, or got
// err. From then on it is as with Send.
func (t *Trip) Resume(rest []byte, err error) error {
	if err == nil && len(rest) > 0 {
		err = t.conn.SendSealed(rest)
	}
	return t.orNext(t.await(t.conn, err))
}

// await waits for the head of the answer, once the request, or its beginning, was sent with that error. The call is
// sent again, once, if the connection turns out to have been closed while it was idle.
func (t *Trip) await(c *ServerConn, sent error) error {
	again := c.used && t.repeatable()
	if sent != nil && again {
		t.end(false)
		t.repeated = true
		return t.askAnew()
	}
	t.spoiled = sent != nil // and yet the server may have answered
	runtime.Gosched()       // once others have had their turn the answer may be there, and nobody has to wait for it
	if t.sending && !t.spoiled {
		t.startSending()
	} else {
		t.Sent(time.Now())
	}
	err := t.receive()
	switch {
	case err == nil:
		return nil
	case again && errors.Is(err, errNoAnswer) && t.rewind():
		t.repeated = true
		return t.askAnew()
	}
	return t.Fail(err)
}

// Sent bounds the wait for the answer from now on, if it has not come.
func (t *Trip) Sent(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting && t.due.IsZero() {
		t.due = now.Add(t.Group.Timeout)
		// Somebody may be reading, until the end of a slice: no longer, or nobody would ask whether the client has
		// gone.
		if t.sender != nil && t.conn != nil && t.due.Before(t.conn.deadline) {
			t.bound(t.due)
		}
	}
}

// receive reads the head of the answer, and passes interim ones on.
func (t *Trip) receive() error {
	for {
		found, _, used, err := t.Reader.Next(t.conn.In.Bytes())
		t.conn.In.Skip(used)
		switch {
		case err != nil:
			return err
		case found == Head:
			t.answered()
			return nil
		case found == Interim && t.Interim != nil:
			if err := t.Interim(&t.Response); err != nil {
				return err
			}
		case found == More:
			if err := t.fill(); err != nil {
				return err
			}
		}
	}
}

// answered ends the wait for the head of the answer. A body that has not ended by then makes the call a stream both
// ways, in which a side that says little may have little to say.
func (t *Trip) answered() {
	t.Came = time.Now()
	t.mu.Lock()
	t.waiting, t.due = false, time.Time{}
	t.mu.Unlock()
	if t.stream == nil && t.sender == nil {
		t.letGo()
	}
	if t.bodyGoesOn() && t.Request.Duplex() {
		t.Body.Free()
	}
}

// bodyGoesOn reports whether more of the request's body is still to come from the client.
func (t *Trip) bodyGoesOn() bool {
	switch {
	case t.stream != nil:
		return t.Body != nil && !t.stream.body.ended.Load()
	case t.sender != nil:
		return !t.sender.last.Load()
	}
	return false
}

// over ends the use of the server, for the reason that Next returns from now on.
func (t *Trip) over(whole bool, err error) {
	t.end(whole)
	t.finished = err
}

// Ready reports whether Next returns without waiting for the server.
func (t *Trip) Ready() bool {
	return t.finished != nil || t.Over() || t.conn != nil && len(t.conn.In.Bytes()) > 0
}

// Next returns the next part of the answer's body, which is valid until the next call. io.EOF ends it, perhaps together
// with the last part; any other error means that it came to no end.
func (t *Trip) Next() ([]byte, error) {
	if t.stream != nil {
		return t.nextHTTP2()
	}
	for t.finished == nil {
		if t.Over() {
			t.over(true, io.EOF)
			break
		}
		if len(t.conn.In.Bytes()) == 0 {
			t.streamsOn()
			if t.Reader.left < 0 || t.Reader.left > wire.SmallSize {
				t.conn.In.Enlarge()
			}
			if err := t.fill(); err == io.EOF {
				continue
			} else if err != nil {
				t.finished = t.Fail(err)
				break
			}
		}
		_, data, used, err := t.Reader.Next(t.conn.In.Bytes())
		t.conn.In.Skip(used)
		switch {
		case err != nil:
			t.finished = t.Fail(err)
		case t.Over():
			t.over(true, io.EOF)
		}
		if len(data) > 0 {
			return data, t.finished
		}
	}
	return nil, t.finished
}

// streamsOn reports once that the answer continues beyond what came at once.
func (t *Trip) streamsOn() {
	if !t.streams {
		t.streams = true
		t.Request.Streams(&t.Response)
	}
}

// end lets go of the connection, for other calls if both messages have come to their end on it.
func (t *Trip) end(whole bool) {
	c := t.conn
	if c == nil {
		return
	}
	whole = whole && !t.spoiled && t.Upgrade == "" && t.sender.sentWhole()
	t.mu.Lock()
	t.conn, t.waiting, t.due = nil, false, time.Time{}
	whole = whole && !t.broken
	t.mu.Unlock()
	if !whole {
		c.Sever()
	}
	if whole = whole && !t.Response.Close && len(c.In.Bytes()) == 0; whole {
		c.heed(&t.Response)
		whole = c.rest > 0
	}
	t.held.Close()
	t.held, c.In = c.In, wire.Window{}
	c.Keeper.Keep(c, whole)
}

// Forget leaves what Next has returned to the collector: somebody may read it still.
func (t *Trip) Forget() {
	t.held = wire.Window{}
	if t.conn != nil {
		t.conn.In = wire.Window{}
	}
	if t.stream != nil {
		t.stream.memory = nil
	}
}

// BodySent reports whether the whole body of the request has been sent.
func (t *Trip) BodySent() bool {
	switch {
	case t.Body == nil:
		return true
	case t.stream != nil:
		return t.stream.body.ended.Load()
	case t.sender != nil:
		return t.sender.sentWhole()
	}
	return !t.sending
}

// Tunnel is the connection of a call that has switched to another protocol.
func (t *Trip) Tunnel() *wire.Conn { return &t.conn.Conn }

// Break breaks the call off at the server. Anyone may call it until Close is called.
func (t *Trip) Break() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = true
	if t.conn != nil {
		t.conn.Sever()
	}
	if t.cancel != nil {
		t.cancel(ErrBroken)
	}
}

// Broken reports whether Break was called.
func (t *Trip) Broken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.broken
}

// Fail ends the use of the server, and returns why: an error of the connection may be the effect and not the cause.
func (t *Trip) Fail(err error) error {
	t.end(false)
	t.mu.Lock()
	bad, broken := t.badInput, t.broken
	t.mu.Unlock()
	t.stopSending()
	switch {
	case bad != nil:
		err = bad
	case broken:
		err = ErrBroken
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	t.cause = err
	if fault := (*contain.Fault)(nil); errors.As(err, &fault) {
		panic(fault) // where it is told, and ends this call alone
	}
	return err
}

// Close ends the call, and its connection unless the answer has come whole. It stops a body that is still being sent,
// and returns how many bytes of it were taken.
func (t *Trip) Close() (bytesIn int64) {
	t.count()
	t.end(false)
	t.endHTTP2()
	t.stopSending()
	t.letGo()
	t.Reader.Reset()
	t.held.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Request, t.Body, t.Length, t.MaxBody, t.Group, t.Upgrade, t.Server = nil, nil, 0, 0, nil, "", nil
	t.Tries, t.Began, t.Came, t.since = 0, time.Time{}, time.Time{}, time.Time{}
	t.unsent, t.sending, t.streams, t.spoiled, t.repeated, t.finished = 0, false, false, false, false, nil
	t.resting.Store(false)
	t.given.Store(0)
	t.broken, t.cancel, t.waiting, t.due, t.badInput = false, nil, false, time.Time{}, nil
	return t.taken.Swap(0)
}

// bound sets the time that the connection's reader waits until.
func (t *Trip) bound(until time.Time) {
	if c := t.conn; !c.deadline.Equal(until) {
		c.deadline = until
		_ = c.SetReadDeadline(until)
	}
}

// beginRead bounds the next read to a slice, or to when the answer is due. To set a deadline costs more than a look at
// the clock, so one that is a little early is left as it is.
func (t *Trip) beginRead() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return
	}
	now := time.Now()
	if left := t.conn.deadline.Sub(now); left < slice/2 || left > slice || !t.due.IsZero() && t.conn.deadline.After(t.due) {
		until := now.Add(slice)
		if !t.due.IsZero() && t.due.Before(until) {
			until = t.due
		}
		t.bound(until)
	}
}

// A lull is for how long nothing has come from the server, nor from the client.
type lull struct {
	since time.Time // zero: it has not begun
	taken int64     // of the request's body by then
	given int64     // of the answer by then, over HTTP/2
}

// overdue is why there is nothing to wait for any more, or nil: the time for the head of the answer is over, or that for
// a lull before that runs, or behind the head.
func (t *Trip) overdue(quiet *lull) error {
	now, taken, given := time.Now(), t.taken.Load(), t.given.Load()
	t.mu.Lock()
	due := t.due
	t.mu.Unlock()
	switch {
	case !due.IsZero() && !now.Before(due):
		return ErrLate
	case !due.IsZero() || quiet.since.IsZero() || taken != quiet.taken || given != quiet.given:
		*quiet = lull{now, taken, given}
	case now.Sub(quiet.since) >= t.Group.StreamIdleTimeout:
		return ErrIdle
	}
	return nil
}

// fill waits for more from the server.
func (t *Trip) fill() error {
	in := &t.conn.In
	if in.Held() && len(in.Room()) == 0 {
		in.Enlarge()
	}
	var quiet lull
	for {
		t.beginRead()
		var n int
		var err error
		if in.Held() {
			n, err = t.conn.Read(in.Room())
			in.Filled(n)
		} else {
			n, err = t.conn.Await()
		}
		switch {
		case n > 0:
			return nil
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return t.Closed(err)
		default:
			if err := t.overdue(&quiet); err != nil {
				return err
			}
			if err := t.gone(); err != nil {
				return err
			}
		}
	}
}

func (t *Trip) gone() error {
	if t.Gone == nil {
		return nil
	}
	return t.Gone()
}
