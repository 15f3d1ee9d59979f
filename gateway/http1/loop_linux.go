package http1

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A loop carries calls without waiting: one goroutine for many connections, by epoll. It does what can be done at once,
// which is most; whatever would have to wait goes to a goroutine of its own, and the connection comes back afterwards.
//
// All that belongs to a loop is touched by its goroutine alone, but for the inbox.
type loop struct {
	engine *Engine
	file   *os.File        // the epoll descriptor: it is waited for as Go waits for all others
	fd     int             // its number
	epoll  syscall.RawConn // of file
	wakeup int             // an eventfd; -1: the loop has ended. Whoever else uses it holds mu
	ended  chan struct{}

	mu     sync.Mutex
	inbox  []*Conn
	closed bool // nothing comes in any more

	members  []member // by slot; of a free one only the generation counts
	free     []uint32
	clients  int // among the members
	backends map[*Upstream]*backendRing
	began    time.Time
	now      time.Time     // of the batch of events
	swept    time.Duration // since it began
	woken    bool
	later    []*loopClient // those that may have a call, whether or not more is told of them
	outgoing []posted      // made out and not sent yet
	answers  []ticket      // backends of which something was told that is not acted on yet
	asking   []ticket      // clients, likewise

	// Memory for what is done at one time.
	told  []unix.EpollEvent
	raw   []byte // as it comes from the socket
	plain []byte // what a backend has answered
	out   []byte // what TLS is to seal
	arena []byte // what is outgoing; what lies beyond its length is free
}

// A member is a socket in the epoll set. The generation tells it from others that had its slot before: their events may
// still be in a batch.
type member struct {
	generation uint32
	events     uint32        // that were told and not acted on yet
	due        time.Duration // when a client has waited for too long, since the loop began
	client     *loopClient
	backend    *loopBackend
}

// A ticket is a member's turn to be acted on.
type ticket struct{ slot, generation uint32 }

// pending tells whether something is outgoing of the call that the socket is of.
func (m *member) pending() bool {
	return m.client != nil && m.client.pending || m.backend != nil && m.backend.client != nil && m.backend.client.pending
}

// A loopClient is a client's connection that a loop has.
type loopClient struct {
	conn    *Conn
	fd      int
	slot    uint32
	call    *Call // under way; nil: none
	backend *loopBackend
	here    bool // it is in the set
	begun   bool // a part of a head has come
	more    bool // something may have come that was not read
	pending bool // something of its call is outgoing
	queued  bool // it is among the later ones
	gone    bool // it has closed at least its half of the connection, after what it has sent
}

// A loopBackend is a backend's connection that a loop has.
type loopBackend struct {
	conn   *backendConn
	fd     int
	slot   uint32
	client *loopClient // whose call it carries; nil: it is idle
	gone   bool        // it has closed its half of the connection, after what it has sent
}

// A backendRing is the idle connections to one upstream; the one that was used last is at the end.
type backendRing struct {
	idle []*loopBackend
}

// take returns the connection that was used last, nil if there is none.
func (r *backendRing) take() *loopBackend {
	n := len(r.idle)
	if n == 0 {
		return nil
	}
	b := r.idle[n-1]
	r.idle[n-1] = nil
	r.idle = r.idle[:n-1]
	return b
}

func (r *backendRing) give(b *loopBackend) { r.idle = append(r.idle, b) }

func (r *backendRing) len() int { return len(r.idle) }

// keep lets go of the connections that are not to be kept.
func (r *backendRing) keep(kept func(*loopBackend) bool) {
	list := r.idle[:0]
	for _, b := range r.idle {
		if kept(b) {
			list = append(list, b)
		}
	}
	clear(r.idle[len(list):])
	r.idle = list
}

const (
	loopTick  = 250 * time.Millisecond // how exactly timeouts are kept
	loopBatch = 64                     // batches of events before other goroutines get their turn
	batch     = 64                     // events acted on before the next look, and clients served besides: see act
	few       = 8                      // events that make another look, before waiting, not worth its while
	wakeSlot  = ^uint32(0)
)

// newLoop starts a loop.
func newLoop(e *Engine) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakeup, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := unix.SetNonblock(epoll, true); err == nil { // so that the runtime takes it among those that it waits for
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wakeup, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: -1, Pad: -1})
		if err != nil {
			unix.Close(epoll)
			unix.Close(wakeup)
			return nil, os.NewSyscallError("epoll_ctl", err)
		}
	}
	l := &loop{
		engine: e, file: os.NewFile(uintptr(epoll), "epoll"), fd: epoll, wakeup: wakeup, ended: make(chan struct{}),
		backends: map[*Upstream]*backendRing{}, began: time.Now(), raw: make([]byte, largeBuffer), plain: make([]byte, largeBuffer), out: make([]byte, 0, 4*largeBuffer), arena: make([]byte, 0, 4*largeBuffer),
	}
	if l.epoll, err = l.file.SyscallConn(); err == nil {
		err = l.file.SetReadDeadline(time.Now().Add(loopTick)) // which tells whether the runtime waits for it
	}
	if err != nil {
		l.file.Close()
		unix.Close(wakeup)
		return nil, err
	}
	go l.run()
	return l, nil
}

// run ends when the loop is closed and has no connection any more.
func (l *loop) run() {
	defer close(l.ended)
	defer l.deafen()
	defer l.file.Close()
	for {
		_ = l.file.SetReadDeadline(time.Now().Add(loopTick))
		// Everything is done within Read, so that what has become ready meanwhile is not forgotten.
		_ = l.epoll.Read(func(uintptr) bool {
			for range loopBatch {
				n, err := l.collect()
				if n == 0 && !l.busy() {
					return err != nil && err != unix.EINTR
				}
				l.act()
				l.takeTurns()
				l.arrive()
				l.flush()
				if l.woken {
					l.woken = false
					return true
				}
				if n < few && !l.busy() {
					return false // that was all; what comes from now on ends the wait
				}
			}
			return true
		})
		l.now = time.Now()
		if l.tick() {
			return
		}
	}
}

// put gives a connection to the loop; false if it is closed.
func (l *loop) put(c *Conn) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.inbox = append(l.inbox, c)
	first := len(l.inbox) == 1
	l.mu.Unlock()
	if first {
		l.wake()
	}
	return true
}

func (l *loop) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wakeup >= 0 {
		_, _ = unix.Write(l.wakeup, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // in the order of bytes of any machine it is not zero
	}
}

// deafen ends what wake does: the descriptor's number may soon be another's.
func (l *loop) deafen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	unix.Close(l.wakeup)
	l.wakeup = -1
}

// close has the loop end all its connections, at once or when they have no call.
func (l *loop) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wake()
}

// arrive takes in what has come by put.
func (l *loop) arrive() {
	l.mu.Lock()
	list := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, c := range list {
		client := &loopClient{conn: c}
		if !l.join(c.socket, member{client: client}, &client.fd, &client.slot) {
			l.engine.tasks.Go(func() { l.engine.run(c) }) // out of descriptors, most likely: it goes on without another one
			continue
		}
		client.here, client.more = true, true // what was read with the call before tells of itself no more
		l.clients++
		l.begin(client)
		l.queue(client)
	}
}

// join takes a socket, and puts it into the set.
func (l *loop) join(socket *Socket, m member, fd *int, slot *uint32) bool {
	var err error
	if *fd, err = socket.detach(); err != nil {
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
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(*slot), Pad: int32(m.generation)}
	if unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, *fd, &event) != nil {
		socket.attach()
		return false
	}
	l.free = l.free[:n-1]
	l.members[*slot] = m
	return true
}

// part takes a socket out of the set.
func (l *loop) part(fd int, slot uint32) {
	_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, fd, nil)
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

// takeTurns serves some of the clients that may have a call, but for those of which more was told: those it is acted on for.
func (l *loop) takeTurns() {
	n := min(len(l.later), batch)
	for i := range n {
		c := l.later[i]
		c.queued = false
		if c.here && c.call == nil && l.members[c.slot].events == 0 {
			l.serve(c)
		}
	}
	l.later = slices.Delete(l.later, 0, n)
}

// left is an end of the connection, or of the other side's half of it.
const left = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// busy tells whether there is something to be done without anything else being told.
func (l *loop) busy() bool { return len(l.answers) > 0 || len(l.asking) > 0 || len(l.later) > 0 }

// collect looks for all that has happened, and tells how much. What an idle backend says is acted on at once: no call may
// take it for its answer. Without this look each call would have to ask its backend's socket. A word that comes later than
// the look is one that might as well still be on its way.
func (l *loop) collect() (n int, err error) {
	l.told = slices.Grow(l.told[:0], len(l.members)+1)
	n, err = l.look(l.told[:cap(l.told)])
	l.now = time.Now()
	for _, e := range l.told[:n] {
		t := ticket{uint32(e.Fd), uint32(e.Pad)}
		if t.slot == wakeSlot {
			var count [8]byte
			_, _ = unix.Read(l.wakeup, count[:])
			l.woken = true
			continue
		}
		m := l.member(t)
		if m == nil {
			continue
		}
		waits := m.events != 0
		m.events |= e.Events
		switch {
		case m.backend != nil && m.backend.client == nil:
			l.dropBackend(m.backend) // it has ended, or says what nobody asked for
		case waits:
		case m.backend != nil:
			l.answers = append(l.answers, t)
		default:
			l.asking = append(l.asking, t)
		}
	}
	return n, err
}

// member is who has the ticket; nil if it is not there any more.
func (l *loop) member(t ticket) *member {
	m := &l.members[t.slot]
	if m.generation != t.generation || m.client == nil && m.backend == nil {
		return nil
	}
	return m
}

// act acts on some of what was told: on answers first, and on clients if only a few. Calls that are done make room for
// others, so that no more backends have calls at once than it takes: with 2,000 clients a fifth of the CPU of a call
// (sallybench compare, "many").
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

// event acts on what was told of one member.
func (l *loop) event(t ticket) {
	if m := l.member(t); m != nil && m.client != nil && m.client.backend != nil && m.events&left != 0 {
		b := m.client.backend.slot
		l.event(ticket{b, l.members[b].generation}) // an answer that may have come before the client's end
	}
	if m := l.member(t); m != nil && m.pending() {
		l.flush() // what is outgoing belongs before what follows from the event
	}
	m := l.member(t)
	if m == nil || m.events == 0 {
		return
	}
	ended := m.events&left != 0
	m.events = 0
	switch {
	case m.client != nil && m.client.call == nil:
		m.client.gone = ended // this is told once, together with what was sent before
		l.read(m.client)
	case m.client != nil && ended:
		l.giveUp(m.client, errClientGone)
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
		m := &l.members[i]
		c, late := m.client, now >= m.due
		switch {
		case c == nil:
		case c.call == nil && (late || draining && l.rests(c) || l.engine.closed.Load()):
			l.drop(c)
		case c.call == nil:
		case l.engine.closed.Load():
			l.giveUp(c, errBroken)
		case late && c.gone:
			l.giveUp(c, errClientGone)
		case late:
			l.giveUp(c, errLate)
		}
	}
	for up, r := range l.backends {
		gone := closed || up.isClosed()
		r.keep(func(b *loopBackend) bool {
			if gone || l.now.Sub(b.conn.since) > backendIdle {
				l.part(b.fd, b.slot)
				lastWord(b.conn.conn, b.conn.wire, b.fd)
				b.conn.in.close()
				b.conn.socket.release()
				return false
			}
			return true
		})
		if r.len() == 0 {
			delete(l.backends, up)
		}
	}
	return over && l.clients == 0
}

// rests tells whether a client has no call, nor anything that may become one, as far as the loop was told.
func (l *loop) rests(c *loopClient) bool {
	return !c.begun && !c.more && len(c.conn.in.bytes()) == 0 && l.members[c.slot].events == 0
}

// begin has a client wait for its next call.
func (l *loop) begin(c *loopClient) {
	c.begun = false
	l.bound(c, l.engine.cfg.IdleTimeout)
}

// bound bounds how long a client may wait from now on.
func (l *loop) bound(c *loopClient, d time.Duration) {
	l.members[c.slot].due = l.now.Sub(l.began) + d
}

// remove takes a client out of the set.
func (l *loop) remove(c *loopClient) {
	c.here = false
	l.clients--
	l.part(c.fd, c.slot)
	if w := c.conn.wire; w != nil {
		w.part()
	}
}

// leave takes a client out of the loop.
func (l *loop) leave(c *loopClient) {
	l.remove(c)
	c.conn.socket.attach()
}

// lastWord is what TLS says at its end, as far as that can be written at once.
func lastWord(conn net.Conn, w *Wire, fd int) {
	if w == nil {
		return
	}
	w.queue(nil)
	_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	if sealed := w.taken(); len(sealed) > 0 {
		_, _ = write(fd, sealed)
	}
}

// drop ends a client's connection that has no call.
func (l *loop) drop(c *loopClient) {
	if c.here {
		l.remove(c)
		lastWord(c.conn.conn, c.conn.wire, c.fd)
		c.conn.socket.release()
	}
	c.conn.in.close()
	c.conn.closeNow()
	c.conn.conn.Close()
	l.engine.forget(c.conn)
}

// dropBackend ends a backend's connection.
func (l *loop) dropBackend(b *loopBackend) {
	l.part(b.fd, b.slot)
	if r := l.backends[b.conn.upstream]; r != nil && b.client == nil {
		r.keep(func(one *loopBackend) bool { return one != b })
	}
	b.conn.in.close()
	b.conn.socket.release()
}

// goOn has a goroutine carry the rest of a client's call, and the connection come back.
func (l *loop) goOn(c *loopClient, part func() (again bool)) {
	call, conn := c.call, c.conn
	l.leave(c)
	l.engine.tasks.Go(func() {
		if call.guard(part) {
			l.engine.resume(conn)
		} else {
			l.engine.forget(conn)
		}
	})
}

// goOnWith is goOn with the backend that carries the call.
func (l *loop) goOnWith(c *loopClient, part func(b *backendConn) (Fault, error)) {
	call, b := c.call, c.backend
	l.leaveBackend(b)
	l.goOn(c, func() bool { return call.finish(part(b.conn)) })
}

// leaveBackend takes a backend's connection out of the loop.
func (l *loop) leaveBackend(b *loopBackend) {
	l.part(b.fd, b.slot)
	if w := b.conn.wire; w != nil {
		w.part()
	}
	b.conn.socket.attach()
}

// giveUp ends a call that is under way.
func (l *loop) giveUp(c *loopClient, why error) {
	call := c.call
	l.goOnWith(c, func(b *backendConn) (Fault, error) { return call.giveUp(b, &call.up, why) })
}

// The system calls of a loop don't wait, so the scheduler isn't told of them: it would take each for one that may, and have
// another thread ready.

// look fills events with what has become ready.
func (l *loop) look(events []unix.EpollEvent) (int, error) {
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}

// errNothing is a read or a write that would have to wait.
var errNothing = errors.New("it would have to wait")

// read reads what is there.
func read(fd int, p []byte) (int, error) { return transfer(unix.SYS_READ, fd, p) }

// write writes what the socket takes at once.
func write(fd int, p []byte) (int, error) { return transfer(unix.SYS_WRITE, fd, p) }

func transfer(call uintptr, fd int, p []byte) (int, error) {
	for {
		n, _, err := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch err {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errNothing
		default:
			return 0, err
		}
	}
}
