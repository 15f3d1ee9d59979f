package engine

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/gateway/decision"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
)

// Terms are what clients have to keep to. No field has a default.
type Terms struct {
	HeadTimeout      time.Duration // for a head, from its first byte on
	FirstCallTimeout time.Duration // for the first byte of a head, until a call of the connection was admitted
	IdleTimeout      time.Duration // for the first byte of a head, afterwards
	BodyRate         int           // bytes a second of a body that a client has to send or take on average; 0: any
	BodyGrace        time.Duration // before that counts
	MaxHead          int           // bytes of a head, up to 64 KiB
}

// An Engine carries the calls of HTTP/1.1 connections.
type Engine struct {
	decider  *decision.Decider
	faults   *contain.Faults // the decider's
	terms    Terms
	calls    sync.Pool
	date     atomic.Pointer[dateLine]
	draining atomic.Bool
	closed   atomic.Bool

	loops []*loop
	next  atomic.Uint32  // the loop whose turn it is
	tasks sync.WaitGroup // goroutines that continue what a loop could not

	mu      sync.Mutex
	clients map[*client]struct{}

	fault atomic.Pointer[func()] // called by loops with each tick; tests panic in it
}

// New returns an Engine without connections. loops is how many loops carry calls without a goroutine for each
// connection, where the system has what they need; 0: each connection has its goroutine. If loops cannot be had, the
// Engine has none, and the error says why.
func New(d *decision.Decider, terms Terms, loops int) (*Engine, error) {
	e := &Engine{decider: d, faults: d.Faults(), terms: terms, clients: map[*client]struct{}{}}
	e.calls.New = func() any { return newCall() }
	if loops == 0 {
		return e, nil
	}
	err := wire.TLSCanWait()
	for range loops {
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

// Serve carries the calls of a connection, one after the other, until it ends or a loop has it. The connection may be a
// TLS connection over a wire.Wire. A loop can have it only if below there is a wire.Socket.
func (e *Engine) Serve(conn net.Conn, known *decision.Connection) {
	c := &client{Conn: wire.NewConn(conn), engine: e, known: known}
	e.mu.Lock()
	e.clients[c] = struct{}{}
	e.mu.Unlock()
	e.run(c)
}

// run carries calls on this goroutine until a loop takes the connection.
func (e *Engine) run(c *client) {
	defer e.faults.Catch("a connection between two calls", func(*contain.Fault) { e.drop(c) })
	for c.next() {
		if e.park(c) {
			return
		}
	}
	c.In.Close()
	e.forget(c)
}

// park gives a connection to a loop, if there is one.
func (e *Engine) park(c *client) bool {
	if len(e.loops) == 0 || !c.Detachable() || e.draining.Load() {
		return false
	}
	return e.loops[int(e.next.Add(1))%len(e.loops)].put(c)
}

// drop ends a connection that nobody else has any more.
func (e *Engine) drop(c *client) {
	defer e.forget(c)
	c.Sever()
}

// forget is for a connection that is closed.
func (e *Engine) forget(c *client) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.clients, c)
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
		left := len(e.clients)
		for c := range e.clients {
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
	for c := range e.clients {
		c.Sever()
	}
}
