package http1

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"syscall"
	"time"
)

// An Upstream is a backend's address, with the connections to it that carry no call now.
type Upstream struct {
	Name      string      // scheme://authority, for logs
	Authority string      // as in its URL: the Host of calls
	Path      string      // what goes before each path
	Address   string      // host:port to dial
	TLS       *tls.Config // with its ServerName; nil: plain

	mu     sync.Mutex
	idle   []*backendConn // the one used last is at the end
	sweep  *time.Timer    // runs while there are idle ones
	closed bool
}

// Bounds of the connections to upstreams.
const (
	dialTimeout      = 2 * time.Second
	dialKeepAlive    = 30 * time.Second
	backendHandshake = 5 * time.Second
	backendIdle      = 55 * time.Second
	sweepInterval    = 5 * time.Second
	maxIdle          = 2048 // connections kept to one upstream, by each loop and besides
)

// A backendConn is a connection to an upstream. It carries one call at a time.
type backendConn struct {
	upstream *Upstream
	conn     net.Conn
	wire     *Wire // below TLS; nil: plain
	raw      syscall.RawConn
	socket   *Socket // that raw controls, or nil
	in       window
	used     bool      // it has carried a call before
	since    time.Time // it is idle
	deadline time.Time // of reads, as it was set last
	probe    probe
}

// take returns the idle connection that was used last, if it is as it was left: open, and nothing has come since. What
// has come would be taken for the answer to the next call.
func (u *Upstream) take() *backendConn {
	for {
		u.mu.Lock()
		n := len(u.idle)
		if n == 0 {
			u.mu.Unlock()
			return nil
		}
		b := u.idle[n-1]
		u.idle[n-1] = nil
		u.idle = u.idle[:n-1]
		u.mu.Unlock()
		if time.Since(b.since) < backendIdle && b.quiet() {
			return b
		}
		b.close()
	}
}

// quiet tells whether the connection is open and nothing is there to be read.
func (b *backendConn) quiet() bool { return b.dry() && !b.probe.readable(b.raw) }

// dry tells whether nothing is there to be read of what was taken from the socket.
func (b *backendConn) dry() bool {
	if b.wire == nil {
		return true
	}
	var one [1]byte
	b.wire.dry, b.wire.drained = true, false
	_, err := b.conn.Read(one[:])
	b.wire.dry = false
	return err == (errDry{}) && b.wire.records.header == 0
}

// give takes a connection back that carries no call any more and can carry others.
func (u *Upstream) give(b *backendConn, now time.Time) {
	b.in.close()
	b.used, b.since = true, now
	u.mu.Lock()
	if u.closed || len(u.idle) >= maxIdle {
		u.mu.Unlock()
		b.close()
		return
	}
	u.idle = append(u.idle, b)
	if u.sweep == nil {
		u.sweep = time.AfterFunc(sweepInterval, u.sweepIdle)
	}
	u.mu.Unlock()
}

// sweepIdle closes the connections that have been idle for too long or that the backend has closed.
func (u *Upstream) sweepIdle() {
	u.mu.Lock()
	idle := u.idle
	u.idle = nil
	u.mu.Unlock()
	kept := idle[:0]
	for _, b := range idle {
		if time.Since(b.since) < backendIdle && b.quiet() {
			kept = append(kept, b)
		} else {
			b.close()
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		for _, b := range kept {
			b.close()
		}
		kept = nil
	}
	clear(idle[len(kept):])
	u.idle = append(kept, u.idle...)
	if u.sweep = nil; len(u.idle) > 0 {
		u.sweep = time.AfterFunc(sweepInterval, u.sweepIdle)
	}
}

// Close closes the idle connections. Those that carry a call close after it.
func (u *Upstream) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, b := range u.idle {
		b.close()
	}
	u.idle = nil
	if u.sweep != nil {
		u.sweep.Stop()
	}
}

func (u *Upstream) isClosed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.closed
}

// dial makes a new connection.
func (u *Upstream) dial() (*backendConn, error) { return u.dialContext(context.Background()) }

// dialContext is dial until the context ends.
func (u *Upstream) dialContext(ctx context.Context) (*backendConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: dialKeepAlive}
	c, err := dialer.DialContext(ctx, "tcp", u.Address)
	if err != nil {
		return nil, err
	}
	c = NewSocket(c)
	b := &backendConn{upstream: u, conn: c, raw: rawOf(c)}
	b.socket = socketOf(b.raw)
	if u.TLS == nil {
		return b, nil
	}
	b.wire = NewWire(c)
	overTLS := tls.Client(b.wire, u.TLS)
	_ = c.SetDeadline(time.Now().Add(backendHandshake))
	if err := overTLS.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, &handshakeError{err}
	}
	_ = c.SetDeadline(time.Time{})
	b.conn = overTLS
	return b, nil
}

// A handshakeError is an upstream that was reached and did not prove to be the right one. Another one isn't tried.
type handshakeError struct{ error }

func (e *handshakeError) Unwrap() error { return e.error }

func (b *backendConn) close() {
	b.in.close()
	b.conn.Close()
}

// rawOf is the socket of a connection, or nil.
func rawOf(c net.Conn) syscall.RawConn {
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}
