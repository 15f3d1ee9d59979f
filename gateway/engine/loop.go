package engine

import (
	"slices"
	"sync"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
)

// A loop carries calls without waiting: one goroutine for many connections, by a wire.Poller. What would have to wait
// goes to a goroutine of its own, and the connection comes back afterwards.
//
// All that belongs to a loop is touched by its goroutine alone, except the inbox.
type loop struct {
	engine *Engine
	poller *wire.Poller
	ended  chan struct{}

	mu     sync.Mutex
	inbox  []*client
	closed bool // nothing comes in any more

	members  []member // by slot; of a free one only the generation counts
	free     []uint32
	clients  int // among the members
	backends map[*backend.Server]*ring
	began    time.Time
	now      time.Time     // of the batch of events
	swept    time.Duration // since it began
	later    []*loopClient // those that may have a call, whether or not epoll reports more
	outgoing []posted      // rendered and not written yet
	answers  []ticket      // servers with events that are not acted on yet
	asking   []ticket      // clients, likewise

	// Memory for what is done at one time.
	raw   []byte // as it comes from the socket
	plain []byte // what a server has answered
	out   []byte // what TLS is to seal
	arena []byte // what is outgoing; what lies beyond its length is free
}

// A member is a socket that the poller watches. The generation tells it from others that had its slot before: their
// events may still be in a batch.
type member struct {
	generation uint32
	happened   wire.Happened // reported and not acted on yet
	due        time.Duration // when a client has waited for too long, since the loop began
	client     *loopClient
	backend    *loopBackend
}

// A ticket is a member's turn to be acted on.
type ticket struct{ slot, generation uint32 }

// pending reports whether something is outgoing of the call that the socket is of.
func (m *member) pending() bool {
	return m.client != nil && m.client.pending || m.backend != nil && m.backend.client != nil && m.backend.client.pending
}

// A loopClient is a client's connection that a loop has.
type loopClient struct {
	conn    *client
	fd      int
	slot    uint32
	call    *call // under way; nil: none
	backend *loopBackend
	here    bool // the poller watches it
	begun   bool // a part of a head has come
	more    bool // something may have come that was not read
	pending bool // something of its call is outgoing
	queued  bool // it is among the later ones
	gone    bool // it has closed at least its half of the connection, after what it has sent
}

// A loopBackend is a connection to a server that a loop has. It is the connection's Keeper meanwhile.
type loopBackend struct {
	loop   *loop
	conn   *backend.ServerConn
	fd     int
	slot   uint32
	client *loopClient // whose call it carries; nil: it is idle
	gone   bool        // it has closed its half of the connection, after what it has sent
}

// A ring is the idle connections to one server; the one used last is at the end.
type ring []*loopBackend

// take returns the connection used last, nil if there is none.
func (r *ring) take() *loopBackend {
	last := len(*r) - 1
	if last < 0 {
		return nil
	}
	b := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return b
}

const (
	loopTick     = 250 * time.Millisecond // how exactly timeouts are kept
	restartPause = 100 * time.Millisecond // before a loop begins anew after a panic
	loopBatch    = 64                     // batches of events before other goroutines get their turn
	batch        = 64                     // events acted on before the next look, and clients served besides: see act
	few          = 8                      // events that make another look, before waiting, not worth its while
)

// newLoop starts a loop.
func newLoop(e *Engine) (*loop, error) {
	poller, err := wire.NewPoller()
	if err != nil {
		return nil, err
	}
	l := &loop{
		engine: e, poller: poller, ended: make(chan struct{}), backends: map[*backend.Server]*ring{}, began: time.Now(),
		raw: make([]byte, wire.LargeSize), plain: make([]byte, wire.LargeSize),
		out: make([]byte, 0, 4*wire.LargeSize), arena: make([]byte, 0, 4*wire.LargeSize),
	}
	go l.run() // Engine.Wait waits for it
	return l, nil
}

// run ends when the loop is closed and has no connection any more. After a panic that was of no single connection the
// loop begins anew, without those that it had.
func (l *loop) run() {
	defer close(l.ended)
	defer l.engine.faults.Catch("an event loop", nil)
	defer l.poller.Close()
	for {
		fault := l.engine.faults.Do("an event loop", l.carryOn)
		if fault == nil {
			return
		}
		l.empty(fault)
		time.Sleep(restartPause)
		l.poller.Wake() // for what put and close have told it of, perhaps in the round that is lost
	}
}

// carryOn is what run does unless something panics.
func (l *loop) carryOn() error {
	for {
		l.poller.Wait(loopTick, l.rounds)
		l.now = time.Now()
		if l.tick() {
			return nil
		}
	}
}

// empty ends all connections that the loop has, and their calls.
func (l *loop) empty(fault error) {
	for i := range l.members {
		_ = l.engine.faults.Do("ending a loop's connection", func() error {
			switch m := &l.members[i]; {
			case m.client != nil:
				defer l.engine.faults.Catch("ending a loop's client", func(*contain.Fault) { l.engine.drop(m.client.conn) })
				l.sever(m.client, fault.(*contain.Fault))
			case m.backend != nil && m.backend.client == nil:
				l.dropBackend(m.backend)
			}
			return nil
		})
	}
	l.free = l.free[:0]
	for i := range l.members { // whatever is left of them
		l.members[i] = member{generation: l.members[i].generation}
		l.free = append(l.free, uint32(i))
	}
	l.clients, l.backends = 0, map[*backend.Server]*ring{}
	l.later, l.answers, l.asking, l.outgoing, l.arena = nil, nil, nil, nil, l.arena[:0]
}

// rounds acts on what has happened until nothing is left; true if others want their turn.
func (l *loop) rounds() bool {
	for range loopBatch {
		n, err := l.collect()
		woken := l.poller.Woken()
		if n == 0 && !l.busy() && !woken {
			return err != nil
		}
		l.act()
		l.takeTurns()
		l.arrive()
		l.flush()
		if woken {
			return true // perhaps the loop is to end
		}
		if n < few && !l.busy() {
			return false // that was all; what comes from now on ends the wait
		}
	}
	return true
}

// put gives a connection to the loop; false if it is closed.
func (l *loop) put(c *client) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.inbox = append(l.inbox, c)
	first := len(l.inbox) == 1
	l.mu.Unlock()
	if first {
		l.poller.Wake()
	}
	return true
}

// close has the loop end all its connections, at once or when they have no call.
func (l *loop) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.poller.Wake()
}

// arrive takes in what has come by put.
func (l *loop) arrive() {
	l.mu.Lock()
	list := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, c := range list {
		l.take(c)
	}
}

// take takes in one connection.
func (l *loop) take(c *client) {
	defer l.engine.faults.Catch("a connection that comes to a loop", func(*contain.Fault) { l.engine.drop(c) })
	client := &loopClient{conn: c}
	if !l.join(c.Detach, c.Attach, member{client: client}, &client.fd, &client.slot) {
		l.engine.tasks.Go(func() { l.engine.run(c) }) // most likely out of descriptors: it goes on without another one
		return
	}
	client.here, client.more = true, true // what was read with the call before is not reported again
	l.clients++
	l.begin(client)
	l.queue(client)
}

// join takes a connection, and has the poller watch it.
func (l *loop) join(detach func() (int, error), attach func(), m member, fd *int, slot *uint32) bool {
	var err error
	if *fd, err = detach(); err != nil {
		return false
	}
	n := len(l.free)
	if n == 0 {
		l.members = append(l.members, member{})
		l.free = append(l.free, uint32(len(l.members)-1))
		n = 1
	}
	*slot = l.free[n-1]
	m.generation = l.members[*slot].generation + 1
	if l.poller.Add(*fd, *slot, m.generation) != nil {
		attach()
		return false
	}
	l.free = l.free[:n-1]
	l.members[*slot] = m
	return true
}

// part ends join.
func (l *loop) part(fd int, slot uint32) {
	l.poller.Remove(fd)
	l.members[slot] = member{generation: l.members[slot].generation}
	l.free = append(l.free, slot)
}

// queue has a client served in one of the next rounds.
func (l *loop) queue(c *loopClient) {
	if !c.queued {
		c.queued = true
		l.later = append(l.later, c)
	}
}

// takeTurns serves some of the clients that may have a call. Those with events that wait are served when these are
// acted on.
func (l *loop) takeTurns() {
	n := min(len(l.later), batch)
	for i := range n {
		c := l.later[i]
		c.queued = false
		if c.here && c.call == nil && l.members[c.slot].happened == 0 {
			l.serve(c)
		}
	}
	l.later = slices.Delete(l.later, 0, n)
}

// busy reports whether something is left to do without another event.
func (l *loop) busy() bool { return len(l.answers) > 0 || len(l.asking) > 0 || len(l.later) > 0 }

// collect looks for all that has happened, and returns of how many sockets. Bytes from an idle server are unsolicited,
// so its connection is dropped here, before a call could mistake them for its answer. Without this look each call would
// have to ask its server's socket; bytes that arrive after the look might as well still be on their way.
func (l *loop) collect() (n int, err error) {
	events, err := l.poller.Look(len(l.members))
	l.now = time.Now()
	for i := range events {
		t := ticket{events[i].Slot(), events[i].Generation()}
		m := l.member(t)
		if m == nil {
			continue
		}
		waits := m.happened != 0
		m.happened |= events[i].Happened()
		switch {
		case m.backend != nil && m.backend.client == nil:
			l.dropBackend(m.backend)
		case waits:
		case m.backend != nil:
			l.answers = append(l.answers, t)
		default:
			l.asking = append(l.asking, t)
		}
	}
	return len(events), err
}

// member is who has the ticket; nil if it is not there any more.
func (l *loop) member(t ticket) *member {
	m := &l.members[t.slot]
	if m.generation != t.generation || m.client == nil && m.backend == nil {
		return nil
	}
	return m
}

// act acts on some of the events: on answers first, and on clients if only a few. Calls that are done make room for
// others, so that no more servers' connections have calls at once than it takes: with 2,000 clients a fifth of the CPU
// of a call (sallybench compare, "many").
func (l *loop) act() {
	n := min(len(l.answers), batch)
	for _, t := range l.answers[:n] {
		l.event(t)
	}
	l.answers = slices.Delete(l.answers, 0, n)
	n = min(len(l.asking), max(batch-n, batch/4))
	for _, t := range l.asking[:n] {
		l.event(t)
	}
	l.asking = slices.Delete(l.asking, 0, n)
}

// event acts on what has happened to one member.
func (l *loop) event(t ticket) {
	if m := l.member(t); m != nil && m.client != nil && m.client.backend != nil && m.happened.Ended() {
		b := m.client.backend.slot
		l.event(ticket{b, l.members[b].generation}) // an answer that may have come before the client's end
	}
	if m := l.member(t); m != nil && m.pending() {
		l.flush() // what is outgoing belongs before what follows from the event
	}
	m := l.member(t)
	if m == nil || m.happened == 0 {
		return
	}
	ended := m.happened.Ended()
	m.happened = 0
	switch {
	case m.client != nil && m.client.call == nil:
		m.client.gone = ended // epoll reports this once, together with what was sent before
		m.client.more = true
		l.serve(m.client)
	case m.client != nil && ended:
		l.goneBefore(m.client)
	case m.client != nil:
		m.client.more = true
	default: // it has a call, or collect would have dropped it
		m.backend.gone = ended
		l.answer(m.backend)
	}
}

// tick keeps the timeouts; true if the loop has ended.
func (l *loop) tick() (over bool) {
	l.mu.Lock()
	closed := l.closed
	over = closed && len(l.inbox) == 0
	l.mu.Unlock()
	now := l.now.Sub(l.began)
	if now-l.swept < loopTick && !closed {
		return false
	}
	l.swept = now
	draining := l.engine.draining.Load()
	for i := range l.members {
		if m := &l.members[i]; m.client != nil {
			l.tickClient(m.client, now >= m.due, draining)
		}
	}
	for server, r := range l.backends {
		gone := closed || server.Closed()
		*r = slices.DeleteFunc(*r, func(b *loopBackend) bool {
			over := gone || b.conn.Stale(l.now)
			if over {
				l.part(b.fd, b.slot)
				b.conn.LastWord()
				b.conn.Release()
			}
			return over
		})
		if len(*r) == 0 {
			delete(l.backends, server)
		}
	}
	if fault := l.engine.fault.Load(); fault != nil {
		(*fault)()
	}
	return over && l.clients == 0
}

// tickClient keeps the timeouts of a client, which is late or not.
func (l *loop) tickClient(c *loopClient, late, draining bool) {
	defer l.contain(c)
	switch {
	case c.call == nil && (late || draining && l.rests(c) || l.engine.closed.Load()):
		l.drop(c)
	case c.call == nil:
	case l.engine.closed.Load():
		l.giveUp(c, backend.ErrBroken)
	case late && c.gone:
		l.giveUp(c, backend.ErrClientGone)
	case late:
		l.giveUp(c, backend.ErrLate)
	}
}

// rests reports whether a client has no call, nor anything that may become one, as far as the loop knows.
func (l *loop) rests(c *loopClient) bool {
	return !c.begun && !c.more && len(c.conn.In.Bytes()) == 0 && l.members[c.slot].happened == 0
}

// begin has a client wait for its next call.
func (l *loop) begin(c *loopClient) {
	c.begun = false
	l.bound(c, c.conn.patience())
}

// bound bounds how long a client may wait from now on.
func (l *loop) bound(c *loopClient, d time.Duration) {
	l.members[c.slot].due = l.now.Sub(l.began) + d
}

// remove ends the watch over a client.
func (l *loop) remove(c *loopClient) {
	c.here = false
	l.clients--
	l.part(c.fd, c.slot)
}

// leave gives a client back to goroutines.
func (l *loop) leave(c *loopClient) {
	l.remove(c)
	c.conn.Attach()
}

// drop ends a client's connection that has no call.
func (l *loop) drop(c *loopClient) {
	if c.here {
		l.remove(c)
		c.conn.LastWord()
		c.conn.Release()
	}
	c.conn.In.Close()
	c.conn.Sever()
	c.conn.Conn.Close()
	l.engine.forget(c.conn)
}

// dropBackend ends a server's connection.
func (l *loop) dropBackend(b *loopBackend) {
	l.part(b.fd, b.slot)
	if r := l.backends[b.conn.Server()]; r != nil && b.client == nil {
		*r = slices.DeleteFunc(*r, func(one *loopBackend) bool { return one == b })
	}
	b.conn.In.Close()
	b.conn.Release()
}

// leaveBackend gives a server's connection, and the call that it carries, back to goroutines.
func (l *loop) leaveBackend(b *loopBackend) {
	l.part(b.fd, b.slot)
	b.conn.Keeper = b.conn.Server()
	b.conn.Attach()
}

// goOn has a goroutine carry the rest of a client's call, and the connection come back.
func (l *loop) goOn(c *loopClient, part func() (again bool)) {
	call, conn := c.call, c.conn
	if c.backend != nil {
		l.leaveBackend(c.backend)
	}
	l.leave(c)
	l.engine.tasks.Go(func() {
		defer l.engine.faults.Catch("a call that has left its loop", func(*contain.Fault) { l.engine.drop(conn) })
		if !call.guard(part) {
			l.engine.forget(conn)
		} else if !l.engine.park(conn) {
			l.engine.run(conn)
		}
	})
}

// goneBefore ends the call of a client that has gone.
func (l *loop) goneBefore(c *loopClient) {
	defer l.contain(c)
	l.giveUp(c, backend.ErrClientGone)
}

// giveUp ends a call that is under way.
func (l *loop) giveUp(c *loopClient, why error) {
	call := c.call
	l.goOn(c, func() bool { return call.finish(call.Trip.Fail(why)) })
}
