package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"
)

// An Exchange carries a call on the connections to upstreams, which it shares with the engine, for somebody who reads the
// request and writes the answer in a way of his own. What is exported, but for Upstream and Response, is set before Send;
// after Close the Exchange can be used again. But for Break, its methods are for one goroutine at a time.
type Exchange struct {
	Context context.Context // its end breaks the exchange off, perhaps a moment later
	Method  string
	// Head appends the request's head for an upstream, without the fields that frame the message and the empty line.
	Head    func(b []byte, u *Upstream) []byte
	Interim func(*Response) error // passes on an interim answer but 100; nil: nobody wants them
	Body    io.Reader             // nil: the request has none
	Length  int64                 // of the body in bytes, or InChunks; without a body 0, which is told, or Unstated
	Trailer map[string][]string   // of a body in chunks: the names, whose values are there when the body has ended
	Timeout time.Duration         // from the end of the request to the end of the answer's head; 0: any

	Upstream *Upstream // that was asked last
	Response Response  // the head of its answer, from Send to Close

	conn    *backendConn // that carries the call now; nil: none does
	in      window       // of what has come from it
	keep    func() bool  // ends the watch over the context; false if that has cut the connection. nil: there is no watch
	sender  *sender      // nil: no body was sent
	left    int64        // Response.Length, less what has come
	chunks  Chunked
	spoiled bool  // the head of the request was not taken whole
	err     error // of Next from now on

	mu       sync.Mutex
	broken   bool
	waiting  bool      // for the head of the answer
	due      time.Time // when that has to be there; zero: any time
	badInput error     // why the request's body cannot be had whole
}

// Unstated is the Length of a request without a body that had no Content-Length.
const Unstated = unstated

var (
	errLateAnswer = fmt.Errorf("%w: %w", errLate, os.ErrDeadlineExceeded) // a net.Error
	errNoUpstream = errors.New("no upstream")
)

// Send asks the upstreams in turn, from the first one on: the next one only if the last could not be reached. It returns as
// soon as the head of the answer has come, perhaps before the request's body has ended: that is sent beside the call, by a
// goroutine that ends as soon as nobody wants more of it and the body's Read has returned.
//
// An error of net.Dialer is returned as it is; one of the handshake that follows does not look like it. An answer that is
// late is a net.Error with a timeout. If the context has ended, the error is the context's.
func (x *Exchange) Send(list []*Upstream, first int) error {
	for i := range list {
		x.Upstream = list[(first+i)%len(list)]
		if reached, err := x.ask(); reached || i == len(list)-1 {
			return err
		}
	}
	return errNoUpstream
}

// ask asks the upstream. If it was not reached, another one may be asked.
func (x *Exchange) ask() (reached bool, err error) {
	if ended := x.Context.Err(); ended != nil {
		return true, ended
	}
	if b := x.Upstream.take(); b != nil {
		err := x.carry(b)
		if !errors.Is(err, errNoAnswer) || x.Body != nil || !replayable(x.Method) {
			return true, err
		}
	}
	b, err := x.Upstream.dialContext(x.Context)
	if ended := x.Context.Err(); err != nil && ended != nil {
		return true, ended
	}
	if err != nil {
		return errors.As(err, new(*handshakeError)), err
	}
	return true, x.carry(b)
}

// longHead is what a connection to a backend that does not read may not take at once.
const longHead = 4 << 10

// carry makes the call on that connection, up to the head of the answer.
func (x *Exchange) carry(b *backendConn) error {
	if !x.begin(b) {
		b.close()
		return errBroken
	}
	out := small.get()
	*out = x.appendHead((*out)[:0])
	if x.Body != nil || len(*out) > longHead {
		x.watch()
	}
	x.spoiled = b.write(*out) != nil // and yet the backend may have answered
	small.put(out)
	runtime.Gosched() // until the others have had their turn, the answer may be there, and nobody has to wait for it
	if x.Body != nil && !x.spoiled {
		x.sender = &sender{over: make(chan struct{})}
		go x.send(b)
	} else {
		x.await()
	}
	if err := x.receive(); err != nil {
		return x.fail(err)
	}
	return nil
}

func (x *Exchange) appendHead(b []byte) []byte {
	b = x.Head(b, x.Upstream)
	if x.Body != nil && x.Length < 0 {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for name := range x.Trailer {
			b = appendField(b, "Trailer", name)
		}
	} else {
		b = appendLength(b, x.Method, max(x.Length, 0), x.Length >= 0)
	}
	return append(b, "\r\n"...)
}

// begin takes the connection, unless the call was broken off.
func (x *Exchange) begin(b *backendConn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken {
		return false
	}
	x.conn, x.waiting, x.due, x.keep = b, true, time.Time{}, nil
	x.in.close()
	return true
}

// watch has the connection cut when the context ends.
func (x *Exchange) watch() {
	if x.keep == nil {
		x.keep = context.AfterFunc(x.Context, x.conn.cut)
	}
}

// cut ends a connection at once, whoever reads or writes it.
func (b *backendConn) cut() { closeSocket(b.conn, b.wire) }

// Break breaks the exchange off. It may be called from any goroutine until Close is called.
func (x *Exchange) Break() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.broken = true
	if x.conn != nil {
		x.conn.cut()
	}
}

// end lets go of the connection, for others to use if both messages have come to their end on it.
func (x *Exchange) end(whole bool) {
	b := x.conn
	if b == nil {
		return
	}
	if x.keep != nil && !x.keep() {
		whole = false
	}
	whole = whole && !x.spoiled && x.sender.sentWhole()
	x.mu.Lock()
	x.conn, x.waiting = nil, false
	whole = whole && !x.broken
	x.mu.Unlock()
	switch {
	case !whole:
		b.cut()
		b.close()
	case x.Response.Close || len(x.in.bytes()) > 0:
		b.close()
	default:
		if x.keep != nil {
			b.deadline = time.Time{} // the next call looks to its own context
			_ = b.conn.SetReadDeadline(b.deadline)
		}
		b.upstream.give(b, time.Now())
	}
}

// fail ends the exchange, and tells why: an error of the connection may be the effect and not the cause.
func (x *Exchange) fail(err error) error {
	x.end(false)
	x.mu.Lock()
	defer x.mu.Unlock()
	if p, ok := x.badInput.(bodyPanic); ok {
		panic(string(p)) // where it ends this call, and not the process
	}
	switch ended := x.Context.Err(); {
	case ended != nil:
		return ended
	case x.badInput != nil:
		return x.badInput
	case x.broken:
		return errBroken
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close ends the exchange, and its connection unless the answer has come whole. If a Read of the request's body goes on, it
// waits for that: whoever has the body ends it before.
func (x *Exchange) Close() {
	x.end(false)
	if x.sender != nil {
		<-x.sender.over
	}
	x.in.close()
	x.Response.Reset()
	x.chunks.Reset()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.Context, x.Method, x.Body, x.Length, x.Trailer, x.Timeout, x.Upstream = nil, "", nil, 0, nil, 0, nil
	x.keep, x.sender, x.left, x.spoiled, x.err = nil, nil, 0, false, nil
	x.broken, x.waiting, x.due, x.badInput = false, false, time.Time{}, nil
}

// await bounds the wait for the answer from now on, if it has not come.
func (x *Exchange) await() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waiting && x.Timeout > 0 {
		x.due = time.Now().Add(x.Timeout)
		if x.sender != nil {
			x.bound(x.due) // somebody may be reading
		}
	}
}

// bound sets the time that the connection's reader waits until.
func (x *Exchange) bound(until time.Time) {
	if b := x.conn; !b.deadline.Equal(until) {
		b.deadline = until
		_ = b.conn.SetReadDeadline(until)
	}
}

// beginRead bounds the next read. For a slice it looks neither to the context nor, exactly, at the clock: most answers come
// sooner, and to be told of the context's end costs more. A deadline that is a little early is no worse.
func (x *Exchange) beginRead() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.keep != nil {
		x.bound(x.due)
		return
	}
	now := time.Now()
	if left := x.conn.deadline.Sub(now); left < slice/2 || left > slice || !x.due.IsZero() && x.conn.deadline.After(x.due) {
		until := now.Add(slice)
		if !x.due.IsZero() && x.due.Before(until) {
			until = x.due
		}
		x.bound(until)
	}
}

// late tells whether the time for the head of the answer is over.
func (x *Exchange) late() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.due.IsZero() && !time.Now().Before(x.due)
}

// fill reads some of what the backend says.
func (x *Exchange) fill() error {
	room := x.in.room()
	for {
		x.beginRead()
		n, err := x.conn.conn.Read(room)
		x.in.w += n
		switch {
		case n > 0:
			return nil
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case x.late():
			return errLateAnswer
		default:
			x.watch() // and ask no more
		}
	}
}

// Sending tells whether the request's body is still being sent.
func (x *Exchange) Sending() bool {
	if x.sender == nil {
		return false
	}
	select {
	case <-x.sender.over:
		return false
	default:
		return true
	}
}
