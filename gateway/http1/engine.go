package http1

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Config says how an Engine treats its clients. No field has a default.
type Config struct {
	Handler     Handler
	HeadTimeout time.Duration       // for a head, from its first byte on, and for the first byte of a connection
	IdleTimeout time.Duration       // for the first byte of each later head
	BodyRate    int                 // bytes a second of a body that a client has to send or take on average; 0: any
	BodyGrace   time.Duration       // before that counts
	MaxHead     int                 // bytes of a head, up to 64 KiB
	AppendID    func([]byte) []byte // appends what tells one call from all others
	// Elsewhere gets a connection that the engine cannot carry on: what comes from it begins with what has been read of it.
	// It may keep the connection.
	Elsewhere func(c net.Conn, value any)
}

// An Engine carries the calls of HTTP/1.1 connections, each on a goroutine of its own.
type Engine struct {
	cfg      Config
	calls    sync.Pool
	draining atomic.Bool

	mu    sync.Mutex
	conns map[*Conn]struct{}
}

// NewEngine returns an Engine without connections.
func NewEngine(cfg Config) *Engine {
	return &Engine{cfg: cfg, calls: sync.Pool{New: func() any { return new(Call) }}, conns: map[*Conn]struct{}{}}
}

// Serve carries the calls of a connection, one after the other, until it ends or goes elsewhere. The connection may be a
// TLS connection over a Wire. Value is the handler's.
func (e *Engine) Serve(conn net.Conn, value any) {
	c := newConn(e, conn, value)
	e.mu.Lock()
	e.conns[c] = struct{}{}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.conns, c)
	}()
	for c.next() {
	}
	c.in.close()
}

// Shutdown lets the calls under way finish, and closes each connection when it has none. If ctx ends before all are
// closed, the error is that of ctx; those that are left go on.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.draining.Store(true)
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
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.conn.Close()
	}
}
