package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
)

// A call is one call of a client.
type call struct {
	Carriage
	client *client
	seen   time.Time // when its head came, and then its answer's, as far as anybody has looked at the clock
	size   int       // of the request's head
	body   body
	answer answer
	id     []byte      // memory for the ID
	last   bool        // the answer ends the connection
	begun  bool        // a part of the server's answer was sent
	broken atomic.Bool // it was broken off
}

func newCall() *call {
	c := new(call)
	c.body.call = c
	c.BreakOff, c.Trip.Interim, c.Trip.Gone = c.breakOff, c.passInterim, c.gone
	return c
}

// next carries one call, and reports whether there may be another.
func (c *client) next() (again bool) {
	size, err := c.readHead()
	if err != nil && !errors.As(err, new(*http1.Error)) {
		c.Conn.Close()
		return false
	}
	call := c.begin(size, err, time.Now())
	return call.guard(call.proceed)
}

// begin begins a call with a head of that size in the window, unless it is known why it is none.
func (c *client) begin(size int, problem error, now time.Time) *call {
	call := c.engine.calls.Get().(*call)
	call.client, call.seen, call.size, c.emptied = c, now, size, false
	head := call.identify(c.In.Bytes()[:size])
	if problem == nil {
		problem = call.Head.Parse(head)
	}
	call.Head.Problem, call.last = problem, problem != nil
	c.engine.decider.Begin(&call.Exchange, &call.Head, call.ID, c.known, now)
	return call
}

// identify gives the call its ID, and returns the head as a string. Both are parts of one object.
func (c *call) identify(head []byte) string {
	c.id = decision.AppendID(c.id[:0])
	n := len(c.id)
	var b strings.Builder
	b.Grow(n + len(head))
	b.Write(c.id)
	b.Write(head)
	text := b.String()
	c.ID = text[:n]
	return text[n:]
}

// guard runs the last part of a call, and ends it whatever happens.
func (c *call) guard(part func() (again bool)) (again bool) {
	client := c.client
	defer func() {
		if fault := recover(); fault != nil {
			again = false
			c.panicked(c.fault(fault))
		}
		if again = c.end() && again; !again {
			client.In.Close()
		}
	}()
	return part()
}

// proceed decides, and does what follows from that, however long it takes.
func (c *call) proceed() (again bool) {
	decided := decision.Await(context.Background(), &c.Exchange)
	c.accept()
	if decided != nil {
		return c.refuse()
	}
	return c.finish(c.forward())
}

// accept takes the head off the window.
func (c *call) accept() {
	r := &c.Head
	c.client.In.Skip(c.size)
	c.last = c.last || r.Close || r.Minor == 0 || c.client.engine.draining.Load()
	c.body.begin(r)
}

// forward carries the call to a server and the answer back. Without an error all went well.
func (c *call) forward() error {
	c.Depart(&c.body)
	return c.sendAndDeliver()
}

func (c *call) sendAndDeliver() error {
	if in := &c.client.In; c.body.done && len(in.Bytes()) == 0 {
		in.Close() // before the wait for the server
	}
	if err := c.Trip.Send(); err != nil {
		return err
	}
	if c.Trip.Response.Status == 101 {
		return c.tunnel()
	}
	return c.deliver()
}

// gone reports that the client does not wait for an answer any more.
func (c *call) gone() error {
	if c.client.Gone() {
		return backend.ErrClientGone
	}
	return nil
}

// lastWrite is how long a client may take for what it is still sent when its call is broken off.
const lastWrite = time.Second

// breakOff is the Exchange's BreakOff.
func (c *call) breakOff() {
	c.broken.Store(true)
	c.Trip.Break()
	_ = c.client.SetWriteDeadline(time.Now().Add(lastWrite))
}

// finish ends a call that was to be forwarded, however that went.
func (c *call) finish(cause error) (again bool) {
	c.Settle()
	client := c.client
	switch {
	case cause == nil && !c.last:
		return true
	case cause == nil:
		client.end(!c.body.done)
		return false
	case c.Fail(cause, c.begun):
		return c.refuse()
	}
	client.breakOff()
	return false
}

// refuse answers a call that is not, or no more, to be forwarded.
func (c *call) refuse() (again bool) {
	client := c.client
	whole := c.skipBody()
	if r := &c.Head; !whole && (r.Length < 0 || r.Length > restOfBytes || r.Expect) {
		c.last = true
	}
	out := wire.Small.Get()
	defer wire.Small.Put(out)
	*out = c.appendRefusal((*out)[:0])
	_ = client.SetWriteDeadline(time.Now().Add(client.engine.terms.HeadTimeout))
	if client.Send(*out) != nil {
		client.Conn.Close()
		return false
	}
	if c.last {
		client.end(!whole || c.Head.Problem != nil)
		return false
	}
	_ = client.SetDeadline(time.Now().Add(restOfBody))
	for !whole {
		n, err := client.Read(client.In.Room())
		client.In.Filled(n)
		if n == 0 && err != nil {
			client.Conn.Close()
			return false
		}
		whole = c.skipBody()
	}
	_ = client.SetDeadline(time.Time{})
	return true
}

// skipBody passes over what has come of the request's body; true if that was all of it.
func (c *call) skipBody() bool {
	if c.Head.Problem != nil {
		return false
	}
	for !c.body.done {
		data, err := c.body.take()
		if err != nil {
			c.last = true
			return false
		}
		if len(data) == 0 && !c.body.done {
			return false
		}
	}
	return true
}

// end gives the call back, whatever has happened; false if something panicked in it, which has ended the connection.
func (c *call) end() (well bool) {
	client := c.client
	defer func() {
		if fault := recover(); fault != nil {
			// The call is left to the collector: nobody knows what holds it.
			client.engine.faults.New("a call", fault, "id", c.ID)
			client.Sever()
			well = false
		}
	}()
	c.Settle()
	client.engine.decider.Finish(&c.Exchange)
	if c.broken.Swap(false) { // perhaps when all had gone well
		_ = client.SetWriteDeadline(time.Time{})
	}
	c.reset()
	client.engine.calls.Put(c)
	return true
}

// reset lets go of all that the call held.
func (c *call) reset() {
	c.Exchange = decision.Exchange{BreakOff: c.BreakOff}
	c.Head.Reset()
	c.client, c.last, c.begun = nil, false, false
	c.body.reset()
}

// fault tells of a panic that was recovered from.
func (c *call) fault(value any) *contain.Fault {
	return c.client.engine.faults.New("a call", value, "id", c.ID)
}

// panicked answers for a fault of ours, if nothing was answered yet, and ends the connection.
func (c *call) panicked(fault *contain.Fault) {
	client := c.client
	defer client.Conn.Close()
	defer func() {
		if again := recover(); again != nil { // in what answers for it
			c.fault(again)
		}
	}()
	c.Abandon()
	c.last = true
	if c.Fail(fmt.Errorf("%w: %w", decision.ErrInternal, fault), c.begun) {
		_ = client.Send(c.appendRefusal(nil))
	}
}
