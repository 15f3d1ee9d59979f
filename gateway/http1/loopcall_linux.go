package http1

import (
	"errors"
	"io"
	"net"
	"runtime/debug"
	"time"
)

// errStuck is a client that does not take what TLS itself has to say.
var errStuck = errors.New("the connection takes nothing")

// fill reads what has come of a connection into its window, as far as there is room. Some tells whether anything has, more
// whether there may be more; an error comes alone. Of one that has ended nothing more is told: it is read to its end.
func (l *loop) fill(conn net.Conn, w *Wire, fd int, in *window, ended bool) (some, more bool, err error) {
	if w == nil {
		room := in.room()
		if len(room) == 0 {
			return false, true, nil
		}
		n, err := read(fd, room)
		switch {
		case err == errNothing:
			return false, false, nil
		case err != nil:
			return false, false, err
		case n == 0:
			return false, false, io.EOF
		}
		in.w += n
		return true, n == len(room), nil
	}

	w.dry = true
	w.queue(l.room())
	some, more, err = l.unseal(conn, w, fd, in, ended)
	w.keep()
	if said := w.taken(); len(said) > 0 {
		if n, _ := write(fd, said); n < len(said) {
			return false, false, errStuck
		}
	}
	return some, more, err
}

// unseal is fill under TLS.
func (l *loop) unseal(conn net.Conn, w *Wire, fd int, in *window, ended bool) (some, more bool, err error) {
	for drained := false; ; {
		for !w.drained {
			room := in.room()
			if len(room) == 0 {
				return some, true, nil
			}
			n, err := conn.Read(room)
			in.w += n
			some = some || n > 0
			switch {
			case err == nil:
				// Each further try costs an allocation of crypto/tls.
				w.drained = len(w.fed) == 0 && w.records.whole == 1 && w.records.header == 0 && n < len(room)
			case err == errDry{}:
				w.drained = true
			case some:
				return true, true, nil // the error is told again when it is read next
			default:
				return false, false, err
			}
		}
		if drained {
			return some, false, nil
		}
		n, err := read(fd, l.raw)
		switch {
		case err == errNothing:
			return some, false, nil
		case (err != nil || n == 0) && some:
			return true, true, nil
		case err != nil:
			return false, false, err
		case n == 0:
			return false, false, io.EOF
		}
		w.fed, w.drained, w.records.whole, drained = l.raw[:n], false, 0, n < len(l.raw) && !ended
	}
}

// read reads what a client without a call has sent, and carries the calls that it finds.
func (l *loop) read(c *loopClient) {
	c.more = true
	l.serve(c)
}

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
		if len(conn.in.room()) == 0 {
			conn.in.enlarge() // headSize tells when that is too much
		}
		var some bool
		if some, c.more, err = l.fill(conn.conn, conn.wire, c.fd, &conn.in, c.gone); err != nil {
			l.drop(c) // a head that is cut off has nobody to be answered
			return
		}
		c.more = c.more || c.gone && some // its end is there, and tells of itself no more
	}
	if len(conn.in.bytes()) == 0 {
		conn.in.close()
		if c.begun {
			l.begin(c)
		}
	} else if !c.begun {
		c.begun = true
		l.bound(c, l.engine.cfg.HeadTimeout)
	}
}

// contain ends a call, or a client without one, for which something has panicked.
func (l *loop) contain(c *loopClient) {
	fault := recover()
	if fault == nil {
		return
	}
	call, conn, stack := c.call, c.conn, debug.Stack()
	if call == nil {
		l.engine.tell(&Call{Conn: conn}, fault, stack)
		if c.here {
			l.leave(c)
		}
		conn.in.close()
		conn.closeNow()
		l.engine.forget(conn)
		return
	}
	c.call = nil
	if b := c.backend; b != nil {
		if b.conn.in.buf == &l.plain {
			b.conn.in = window{}
		}
		l.leaveBackend(b)
	}
	if c.here {
		l.leave(c)
	}
	l.engine.tasks.Go(func() { // since it answers
		call.panicked(fault, stack)
		call.end()
		conn.in.close()
		l.engine.forget(conn)
	})
}

// carry begins a call whose head, or problem, is there.
func (l *loop) carry(c *loopClient, size int, problem error) {
	conn := c.conn
	call := conn.take(size, l.now)
	c.call = call
	switch verdict := call.judge(problem); verdict {
	case Wait, Elsewhere:
		l.goOn(c, func() bool { return call.proceed(verdict) })
		return
	case Forward:
		call.accept()
		l.forward(c)
		return
	}
	call.accept()
	if whole := call.skipBody(); !whole || call.Last {
		l.goOn(c, call.refuse)
		return
	}
	l.post(c, conn.conn, conn.wire, l.engine.cfg.Handler.AppendRefusal(l.scratch(conn.wire), call), false)
}

// What is posted was made out and is not sent yet. To make out several messages and then to send them is cheaper than to
// do both by turns: whom the first wakes up is still awake at the second.
type posted struct {
	client  *loopClient
	request bool // to the backend that carries the client's call; else the answer, to the client
	bytes   []byte
	err     error // TLS would not take it
}

// scratch is where a message is made out: where it stays, if it is to go as it is.
func (l *loop) scratch(w *Wire) []byte {
	if w != nil {
		return l.out[:0]
	}
	return l.room()
}

// room is memory of no length for what stays until it is sent.
func (l *loop) room() []byte { return l.arena[len(l.arena):] }

// post has a message sent with the next flush. Nothing is done for the client before that.
func (l *loop) post(c *loopClient, conn net.Conn, w *Wire, p []byte, request bool) {
	m := posted{client: c, request: request, bytes: p}
	if w != nil {
		w.queue(l.room())
		_, m.err = conn.Write(p)
		m.bytes = w.taken()
	}
	if room := l.room(); len(m.bytes) > 0 && cap(room) > 0 && &m.bytes[0] == &room[:1][0] {
		l.arena = l.arena[:len(l.arena)+len(m.bytes)]
	}
	c.pending = true
	if l.outgoing = append(l.outgoing, m); cap(l.arena)-len(l.arena) < 2*largeBuffer {
		l.flush()
	}
}

// flush sends what is outgoing.
func (l *loop) flush() {
	for i := range l.outgoing {
		l.send(&l.outgoing[i])
	}
	clear(l.outgoing)
	l.outgoing, l.arena = l.outgoing[:0], l.arena[:0]
}

// send sends a message as far as that can be done at once, and goes on with the call.
func (l *loop) send(m *posted) {
	c := m.client
	c.pending = false
	defer l.contain(c)
	fd := c.fd
	if m.request {
		fd = c.backend.fd
	}
	n, err := 0, m.err
	if err == nil {
		if n, err = write(fd, m.bytes); err == errNothing {
			err = nil
		}
	}
	rest := append([]byte(nil), m.bytes[n:]...)
	if m.request {
		l.requested(c, rest, err)
	} else {
		l.answered(c, rest, err)
	}
}

// answered ends a call whose answer was sent, but for a rest.
func (l *loop) answered(c *loopClient, rest []byte, err error) {
	call, conn := c.call, c.conn
	if err != nil || len(rest) > 0 || call.Last {
		l.sendRest(c, rest, err)
		return
	}
	if !call.end() {
		l.lose(c)
		return
	}
	c.call = nil
	l.begin(c)
	if c.more || len(conn.in.bytes()) > 0 {
		l.queue(c)
	} else {
		conn.in.close()
	}
}

// lose lets go of a client whose connection has been closed.
func (l *loop) lose(c *loopClient) {
	c.call = nil
	l.leave(c)
	c.conn.in.close()
	l.engine.forget(c.conn)
}

// sendRest ends a call whose answer could not be sent at once, or is the last.
func (l *loop) sendRest(c *loopClient, rest []byte, err error) {
	call, conn := c.call, c.conn
	l.goOn(c, func() bool {
		if err == nil && len(rest) > 0 {
			if cfg := &l.engine.cfg; cfg.BodyRate > 0 {
				_ = conn.conn.SetWriteDeadline(time.Now().Add(cfg.BodyGrace + worth(call.BytesOut, cfg.BodyRate)))
			}
			err = writeBelow(conn.conn, conn.wire, rest)
		}
		if err != nil {
			return call.finish(ClientGone, errClientGone)
		}
		return call.finish(0, nil)
	})
}

// forward sends the call to its backend, if all of it is there and there is a connection.
func (l *loop) forward(c *loopClient) {
	call := c.call
	up := call.Upstreams[call.First%len(call.Upstreams)]
	var b *loopBackend
	if call.body.done || !call.body.inChunks && call.body.left <= int64(len(c.conn.in.bytes())) {
		b = l.takeBackend(up)
	}
	if b == nil {
		l.goOn(c, func() bool { return call.finish(call.forward()) })
		return
	}
	call.Upstream = up
	call.carriedBy(b.conn)
	b.client, c.backend = c, b
	request, err := call.appendRequest(l.scratch(b.conn.wire))
	if err != nil {
		l.giveUp(c, err)
		return
	}
	l.post(c, b.conn.conn, b.conn.wire, request, true)
}

// requested goes on with a call that was sent to its backend, but for a rest.
func (l *loop) requested(c *loopClient, rest []byte, err error) {
	call := c.call
	if err != nil || len(rest) > 0 {
		l.forwardRest(c, rest, err)
		return
	}
	call.sentWhole(l.now)
	if len(c.conn.in.bytes()) == 0 {
		c.conn.in.close()
	}
	if c.gone {
		l.bound(c, min(slice, call.Timeout)) // it may yet take an answer that comes at once
	} else {
		l.bound(c, call.Timeout)
	}
}

// forwardRest goes on with a call that the backend did not take at once.
func (l *loop) forwardRest(c *loopClient, rest []byte, err error) {
	call := c.call
	l.goOnWith(c, func(b *backendConn) (Fault, error) {
		out := small.get()
		defer small.put(out)
		again := call.mayRepeat(b)
		if err == nil {
			err = writeBelow(b.conn, b.wire, rest)
		}
		if err != nil && again {
			return call.repeat(b, out)
		}
		return call.receive(b, call.startUpload(b, err), out, again)
	})
}

// takeBackend returns an idle connection to an upstream; nil if there is none.
func (l *loop) takeBackend(up *Upstream) *loopBackend {
	if r := l.backends[up]; r != nil {
		for b := r.take(); b != nil; b = r.take() {
			if b.conn.dry() {
				return b
			}
			l.dropBackend(b)
		}
	}
	conn := up.take()
	if conn == nil {
		return nil
	}
	b := &loopBackend{conn: conn}
	conn.deadline = time.Time{} // Go's poller forgets it
	if conn.socket == nil || !l.join(conn.socket, member{backend: b}, &b.fd, &b.slot) {
		up.give(conn, l.now) // for whoever needs no other descriptor
		return nil
	}
	return b
}

// giveBackend keeps a connection for the next call.
func (l *loop) giveBackend(b *loopBackend) {
	b.client = nil
	b.conn.in.close()
	b.conn.used, b.conn.since = true, l.now
	up := b.conn.upstream
	r := l.backends[up]
	if r == nil {
		r = new(backendRing)
		l.backends[up] = r
	}
	if r.len() >= maxIdle || b.gone {
		l.dropBackend(b)
		return
	}
	r.give(b)
}

// answer reads the backend's answer, and sends it on if all of it is there.
func (l *loop) answer(b *loopBackend) {
	c := b.client
	call, conn := c.call, b.conn
	defer l.contain(c)
	conn.in = window{buf: &l.plain} // for as long as this takes
	some, more, err := l.fill(conn.conn, conn.wire, b.fd, &conn.in, b.gone)
	if err == nil && !some && !more {
		conn.in = window{}
		return
	}
	head := 0
	if err == nil && !more {
		head = call.wholeAnswer(conn.in.bytes())
	}
	if head == 0 {
		conn.in.own()
		l.goOnWith(c, func(b *backendConn) (Fault, error) {
			out := small.get()
			defer small.put(out)
			return call.receive(b, &call.up, out, call.mayRepeat(b))
		})
		return
	}
	conn.in.skip(head)
	call.Seen = l.now
	out := l.scratch(c.conn.wire)
	if err = call.beginAnswer(&call.up, &out); err == nil {
		err = call.moveAnswer(conn, &out)
	}
	if err != nil {
		conn.in = window{}
		l.giveUp(c, err)
		return
	}
	call.answering = true
	reusable := call.reusable(conn, &call.up) && call.letGo()
	conn.in = window{}
	c.backend, b.client = nil, nil
	if reusable {
		l.giveBackend(b)
	} else {
		l.dropBackend(b)
	}
	l.post(c, c.conn.conn, c.conn.wire, out, false)
}

// wholeAnswer reads p into Response if it is a final answer from its first byte to its last, and returns the length of its
// head; 0 if it is not. What is malformed is none.
func (call *Call) wholeAnswer(p []byte) (head int) {
	n, err := HeadEnd(p, 0)
	if n == 0 || err != nil || call.Response.Parse(call.keepHead(p[:n]), call.Request.Method) != nil || call.Response.Status < 200 {
		return 0
	}
	body := p[n:]
	switch length := call.Response.Length; length {
	case InChunks:
		var chunks Chunked
		for {
			_, used, done, err := chunks.Next(body)
			body = body[used:]
			switch {
			case err != nil || done && len(body) > 0:
				return 0
			case done:
				return n
			case len(body) == 0:
				return 0
			}
		}
	case UntilClose:
		return 0
	default:
		if int64(len(body)) != length {
			return 0
		}
		return n
	}
}
