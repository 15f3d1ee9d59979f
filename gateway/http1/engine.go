package http1

import (
	"context"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A Config says how an Engine treats its clients. No field has a default.
type Config struct {
	Handler     Handler
	HeadTimeout time.Duration // for a head, from its first byte on, and for the first byte of a connection without TLS
	IdleTimeout time.Duration // for the first byte of any other head
	BodyRate    int           // bytes a second of a body that a client has to send or take on average; 0: any
	BodyGrace   time.Duration // before that counts
	MaxHead     int           // bytes of a head, up to 64 KiB
	// Loops is how many loops carry calls without a goroutine for each connection, where the system has what they need; 0:
	// each connection has its goroutine.
	Loops    int
	AppendID func([]byte) []byte // appends what tells one call from all others
	// Elsewhere gets a connection that the engine cannot carry on: what comes from it begins with what has been read of it.
	// It may keep the connection.
	Elsewhere func(c net.Conn, value any)
}

// An Engine carries the calls of HTTP/1.1 connections: the first of each on a goroutine of its own, the others on a loop
// if there are loops.
type Engine struct {
	cfg      Config
	calls    sync.Pool
	draining atomic.Bool
	closed   atomic.Bool

	loops []*loop
	next  atomic.Uint32  // the loop whose turn it is
	tasks sync.WaitGroup // goroutines that carry on what a loop could not

	mu    sync.Mutex
	conns map[*Conn]struct{}
}

// NewEngine returns an Engine without connections. If there are to be loops and the system cannot have them, it has none,
// and the error says why.
func NewEngine(cfg Config) (*Engine, error) {
	e := &Engine{cfg: cfg, calls: sync.Pool{New: func() any { return new(Call) }}, conns: map[*Conn]struct{}{}}
	if cfg.Loops == 0 {
		return e, nil
	}
	err := TLSCanWait()
	for range cfg.Loops {
		var l *loop
		if err == nil {
			l, err = newLoop(e)
		}
		if err != nil {
			e.closeLoops()
			e.Wait()
			e.loops = nil
			return e, err
		}
		e.loops = append(e.loops, l)
	}
	return e, nil
}

func (e *Engine) closeLoops() {
	for _, l := range e.loops {
		l.close()
	}
}

// Wait waits until the Engine has no goroutine any more. It is called after Shutdown, and after Close if that failed.
func (e *Engine) Wait() {
	for _, l := range e.loops {
		<-l.ended
	}
	e.tasks.Wait()
}

// Serve carries the calls of a connection, one after the other, until it ends, goes elsewhere, or is a loop's. The
// connection may be a TLS connection over a Wire. A loop can have it only if below there is a Socket. Value is the
// handler's.
func (e *Engine) Serve(conn net.Conn, value any) {
	c := newConn(e, conn, value)
	e.mu.Lock()
	e.conns[c] = struct{}{}
	e.mu.Unlock()
	e.run(c)
}

// run carries calls on this goroutine until a loop takes the connection.
func (e *Engine) run(c *Conn) {
	defer func() {
		if fault := recover(); fault != nil { // between two calls
			e.tell(&Call{Conn: c}, fault, debug.Stack())
			c.closeNow()
			e.forget(c)
		}
	}()
	for c.next() {
		if e.park(c) {
			return
		}
	}
	c.in.close()
	e.forget(c)
}

// tell tells of a panic, and survives another one in that.
func (e *Engine) tell(call *Call, fault any, stack []byte) {
	defer func() { _ = recover() }() // there is nobody left to be told
	e.cfg.Handler.Panicked(call, fault, stack)
}

// resume has a connection go on that was with a loop before.
func (e *Engine) resume(c *Conn) {
	if !e.park(c) {
		e.run(c)
	}
}

// park gives a connection to a loop, if there is one.
func (e *Engine) park(c *Conn) bool {
	if len(e.loops) == 0 || c.socket == nil || e.draining.Load() {
		return false
	}
	_ = c.conn.SetDeadline(time.Time{})
	if c.wire != nil {
		c.wire.drained = false
	}
	return e.loops[int(e.next.Add(1))%len(e.loops)].put(c)
}

// forget is for a connection that is closed, or somebody else's.
func (e *Engine) forget(c *Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

// Shutdown lets the calls under way finish, and closes each connection when it has none. If ctx ends before all are
// closed, the error is that of ctx; those that are left go on.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.draining.Store(true)
	e.closeLoops()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		e.mu.Lock()
		left := len(e.conns)
		for c := range e.conns {
			c.wake()
		}
		e.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Close closes all connections, whatever they carry.
func (e *Engine) Close() {
	e.draining.Store(true)
	e.closed.Store(true)
	e.closeLoops()
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.closeNow()
	}
}
