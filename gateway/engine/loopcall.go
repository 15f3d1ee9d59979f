package engine

import (
	"io"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
)

// serve carries the call that is there, if it is there whole.
func (l *loop) serve(c *loopClient) {
	conn := c.conn
	defer l.contain(c)
	for {
		size, err := conn.headSize()
		if size > 0 || err != nil {
			l.carry(c, size, err)
			return
		}
		if !c.more {
			break
		}
		if len(conn.In.Room()) == 0 {
			conn.In.Enlarge() // headSize says when that is too much
		}
		var some bool
		if some, c.more, err = conn.Fill(l.raw, c.gone); err != nil {
			l.drop(c) // a head that is cut off has nobody to be answered
			return
		}
		c.more = c.more || c.gone && some // its end is there, and is not reported again
	}
	if len(conn.In.Bytes()) == 0 {
		conn.In.Close()
		if c.begun {
			l.begin(c)
		}
	} else if !c.begun {
		c.begun = true
		l.bound(c, l.engine.terms.HeadTimeout)
	}
}

// contain ends a call, or a client without one, for which something has panicked.
func (l *loop) contain(c *loopClient) {
	fault := recover()
	if fault == nil {
		return
	}
	if c.call != nil {
		l.sever(c, c.call.fault(fault))
	} else {
		l.sever(c, l.engine.faults.New("a client without a call", fault))
	}
}

// sever ends a client's connection, and its call, for a fault of ours.
func (l *loop) sever(c *loopClient, fault *contain.Fault) {
	call, conn := c.call, c.conn
	if call == nil {
		if c.here {
			l.leave(c)
		}
		conn.In.Close()
		conn.Sever()
		l.engine.forget(conn)
		return
	}
	c.call = nil
	if b := c.backend; b != nil {
		b.conn.In.Own()
		l.leaveBackend(b)
	}
	if c.here {
		l.leave(c)
	}
	l.engine.tasks.Go(func() { // since it answers
		defer l.engine.faults.Catch("ending a call", func(*contain.Fault) { l.engine.drop(conn) })
		call.panicked(fault)
		call.end()
		conn.In.Close()
		l.engine.forget(conn)
	})
}

// carry begins a call whose head, or problem, is there.
func (l *loop) carry(c *loopClient, size int, problem error) {
	call := c.conn.begin(size, problem, l.now)
	c.call = call
	switch decision.Decide(&call.Exchange) {
	case decision.ErrWait:
		l.goOn(c, call.proceed)
		return
	case nil:
		call.accept()
		l.forward(c)
		return
	}
	call.accept()
	if whole := call.skipBody(); !whole || call.last || call.Refusal().EndsConnection() {
		l.goOn(c, call.refuse)
		return
	}
	l.post(c, &c.conn.Conn, call.appendRefusal(l.scratch(&c.conn.Conn)), false)
}

// posted is a message that has been rendered but not written. Rendering a batch before writing it is cheaper than
// alternating: a peer woken by the first write is still running when the next arrives.
type posted struct {
	client  *loopClient
	request bool // to the server that carries the client's call; else the answer, to the client
	bytes   []byte
	err     error // TLS would not take it
}

// scratch is where a message is rendered: where it stays, if it is to go as it is.
func (l *loop) scratch(conn *wire.Conn) []byte {
	if conn.TLS() {
		return l.out[:0]
	}
	return l.room()
}

// room is memory of no length for what stays until it is written.
func (l *loop) room() []byte { return l.arena[len(l.arena):] }

// post has a message written with the next flush. Nothing is done for the client before that.
func (l *loop) post(c *loopClient, conn *wire.Conn, p []byte, request bool) {
	m := posted{client: c, request: request}
	m.bytes, m.err = conn.Seal(l.room(), p)
	if room := l.room(); len(m.bytes) > 0 && cap(room) > 0 && &m.bytes[0] == &room[:1][0] {
		l.arena = l.arena[:len(l.arena)+len(m.bytes)]
	}
	c.pending = true
	if l.outgoing = append(l.outgoing, m); cap(l.arena)-len(l.arena) < 2*wire.LargeSize {
		l.flush()
	}
}

// flush writes what is outgoing.
func (l *loop) flush() {
	for i := range l.outgoing {
		l.send(&l.outgoing[i])
	}
	clear(l.outgoing)
	l.outgoing, l.arena = l.outgoing[:0], l.arena[:0]
}

// send writes a message as far as that can be done at once, and continues with the call.
func (l *loop) send(m *posted) {
	c := m.client
	c.pending = false
	defer l.contain(c)
	conn := &c.conn.Conn
	if m.request {
		conn = &c.backend.conn.Conn
	}
	n, err := 0, m.err
	if err == nil {
		n, err = conn.WriteNow(m.bytes)
	}
	rest := append([]byte(nil), m.bytes[n:]...)
	if m.request {
		l.requested(c, rest, err)
	} else {
		l.answered(c, rest, err)
	}
}

// answered ends a call whose answer was written, except for a rest.
func (l *loop) answered(c *loopClient, rest []byte, err error) {
	call, conn := c.call, c.conn
	if err != nil || len(rest) > 0 || call.last {
		l.sendRest(c, rest, err)
		return
	}
	well := call.end()
	if c.call = nil; !well { // its connection has been closed
		l.leave(c)
		conn.In.Close()
		l.engine.forget(conn)
		return
	}
	l.begin(c)
	if c.more || len(conn.In.Bytes()) > 0 {
		l.queue(c)
	} else {
		conn.In.Close()
	}
}

// sendRest ends a call whose answer could not be written at once, or is the last.
func (l *loop) sendRest(c *loopClient, rest []byte, err error) {
	call, conn := c.call, c.conn
	l.goOn(c, func() bool {
		if err == nil && len(rest) > 0 {
			if due := call.answer.pace.Due(time.Now()); !due.IsZero() {
				_ = conn.SetWriteDeadline(due)
			}
			err = conn.SendSealed(rest)
		}
		if err != nil {
			err = call.notTaken(err)
		}
		return call.finish(err)
	})
}

// forward sends the call to its server, if all of it is there and there is a connection.
func (l *loop) forward(c *loopClient) {
	call := c.call
	if !call.fits() {
		l.goOn(c, func() bool { return call.finish(call.forward()) })
		return
	}
	call.Depart(&call.body)
	b := l.takeBackend(call.Trip.Turn())
	if b == nil {
		l.goOn(c, func() bool { return call.finish(call.sendAndDeliver()) })
		return
	}
	if !call.Trip.Use(b.conn) {
		b.Keep(b.conn, true)
		l.giveUp(c, backend.ErrBroken)
		return
	}
	b.client, c.backend = c, b
	request, err := call.Trip.AppendRequest(l.scratch(&b.conn.Conn))
	if err != nil {
		l.giveUp(c, err)
		return
	}
	call.Trip.Keep(request)
	l.post(c, &b.conn.Conn, request, true)
}

// fits reports whether a loop can carry the call: all of it is there, and nothing but an answer of HTTP/1.1 follows.
func (c *call) fits() bool {
	r := &c.Head
	return (c.body.done || r.Length > 0 && r.Length <= int64(len(c.client.In.Bytes()))) && c.Group.HTTP1() && !r.Upgrade
}

// requested continues with a call that was sent to its server, except for a rest.
func (l *loop) requested(c *loopClient, rest []byte, err error) {
	call := c.call
	if err != nil || len(rest) > 0 {
		l.await(c, rest, err)
		return
	}
	call.Trip.Sent(l.now)
	if len(c.conn.In.Bytes()) == 0 {
		c.conn.In.Close()
	}
	timeout := call.Trip.Group.Timeout
	if c.gone {
		timeout = min(lateGoner, timeout)
	}
	l.bound(c, timeout)
}

// lateGoner is how long a client that has gone may yet be answered: it may take an answer that comes at once.
const lateGoner = 100 * time.Millisecond

// await has a goroutine send the rest of a request, wait for the answer and send it on.
func (l *loop) await(c *loopClient, rest []byte, err error) {
	call := c.call
	l.goOn(c, func() bool {
		err := call.Trip.Resume(rest, err)
		if err == nil {
			err = call.deliver()
		}
		return call.finish(err)
	})
}

// takeBackend returns an idle connection to a server; nil if there is none.
func (l *loop) takeBackend(server *backend.Server) *loopBackend {
	if r := l.backends[server]; r != nil {
		for b := r.take(); b != nil; b = r.take() {
			if !b.conn.Stale(l.now) && b.conn.Dry() {
				return b
			}
			l.dropBackend(b)
		}
	}
	conn := server.Take()
	if conn == nil {
		return nil
	}
	b := &loopBackend{loop: l, conn: conn}
	if !conn.Detachable() || !l.join(conn.Detach, conn.Attach, member{backend: b}, &b.fd, &b.slot) {
		server.Return(conn) // for a goroutine, which needs no other descriptor
		return nil
	}
	conn.Keeper = b
	return b
}

// Keep implements backend.Keeper.
func (b *loopBackend) Keep(_ *backend.ServerConn, reusable bool) {
	l := b.loop
	if b.client != nil {
		b.client.backend, b.client = nil, nil
	}
	b.conn.Rest(l.now)
	r := l.backends[b.conn.Server()]
	if r == nil {
		r = new(ring)
		l.backends[b.conn.Server()] = r
	}
	if !reusable || len(*r) >= backend.MaxIdle || b.gone {
		l.dropBackend(b)
		return
	}
	*r = append(*r, b)
}

// answer reads the server's answer, and sends it on if all of it is there.
func (l *loop) answer(b *loopBackend) {
	c, conn := b.client, b.conn
	call := c.call
	defer l.contain(c)
	conn.In = wire.Lend(&l.plain) // for as long as this takes
	some, more, err := conn.Fill(l.raw, b.gone)
	if err == nil && !some && !more {
		conn.In = wire.Window{}
		return
	}
	whole, head := false, 0
	if err == nil && !more {
		head, whole = call.Trip.Whole(conn.In.Bytes())
	}
	if !whole {
		conn.In.Own()
		l.await(c, nil, nil)
		return
	}
	conn.In.Skip(head)
	call.seen, call.Trip.Came = l.now, l.now
	out := call.appendHead(l.scratch(&c.conn.Conn))
	for err == nil {
		var data []byte
		if data, err = call.Trip.Next(); err == nil || err == io.EOF {
			out = call.appendBody(out, data, err == io.EOF)
		}
	}
	if err != io.EOF {
		l.giveUp(c, err)
		return
	}
	call.begun = true
	call.Settle()
	l.post(c, &c.conn.Conn, out, false)
}
