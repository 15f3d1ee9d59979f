package wire

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

// A gatherer combines the writes of several goroutines into few system calls, as an HTTP/2 connection needs whose calls
// write heads and bodies one by one. Write returns before the bytes are sent; an error is returned by the next Write.
type gatherer struct {
	conn    net.Conn
	timeout time.Duration // for the peer to take any bytes

	mu      sync.Mutex
	changed sync.Cond
	memory  *[]byte // gathered and not sent yet; nil: nothing
	sending bool
	closing bool
	err     error
	until   time.Time // the deadline of the connection's writes
}

// Gather makes the Wire gather writes from now on. A peer that takes nothing for the timeout loses the connection;
// SetWriteDeadline has no effect any more. It is called while nobody writes.
func (w *Wire) Gather(timeout time.Duration) {
	w.gather = &gatherer{conn: w.Conn, timeout: timeout}
	w.gather.changed.L = &w.gather.mu
}

// SetWriteDeadline implements net.Conn.
func (w *Wire) SetWriteDeadline(t time.Time) error {
	if w.gather != nil {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn.
func (w *Wire) SetDeadline(t time.Time) error {
	if w.gather != nil {
		return w.Conn.SetReadDeadline(t)
	}
	return w.Conn.SetDeadline(t)
}

// Close implements net.Conn. Gathered bytes are still sent for a moment, for which Close does not wait.
func (w *Wire) Close() error {
	if w.gather == nil || !w.gather.close() {
		return w.Conn.Close()
	}
	return w.Conn.SetReadDeadline(time.Now().Add(-time.Second))
}

// lastWrite is how long a peer may take for gathered bytes once the connection is closing.
const lastWrite = time.Second

func (g *gatherer) write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && g.memory != nil && len(*g.memory)+len(p) > LargeSize {
		g.changed.Wait()
	}
	if g.err != nil || g.closing {
		return 0, errors.Join(g.err, net.ErrClosed)
	}
	if g.memory == nil {
		g.memory = Large.Get()
	}
	*g.memory = append(*g.memory, p...)
	if !g.sending {
		g.sending = true
		go g.send()
	}
	return len(p), nil
}

// send runs until everything gathered is sent.
func (g *gatherer) send() {
	runtime.Gosched() // other goroutines that can run may add to it
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.memory != nil && g.err == nil {
		memory := g.memory
		g.memory = nil
		g.bound()
		g.mu.Unlock()
		err := g.push(*memory)
		Large.Put(memory)
		g.mu.Lock()
		if g.err = err; err != nil {
			g.conn.Close() // so that the reader notices
		}
		g.changed.Broadcast()
	}
	g.sending = false
	if g.closing {
		g.conn.Close()
	}
}

// push writes all of p, as long as the peer takes some of it in time.
func (g *gatherer) push(p []byte) error {
	for {
		n, err := g.conn.Write(p)
		if p = p[n:]; err == nil || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		g.mu.Lock()
		closing := g.closing
		g.until = time.Time{}
		g.bound()
		g.mu.Unlock()
		if closing {
			return err
		}
	}
}

// bound sets a write deadline. It is moved only when less than the timeout is left, since each move costs.
func (g *gatherer) bound() {
	if now := time.Now(); !g.closing && g.until.Sub(now) < g.timeout {
		g.until = now.Add(g.timeout + g.timeout/4)
		_ = g.conn.SetWriteDeadline(g.until)
	}
}

// close closes the connection as soon as everything is sent; it reports false if that is so already.
func (g *gatherer) close() (later bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closing && g.sending {
		_ = g.conn.SetWriteDeadline(time.Now().Add(lastWrite))
	}
	g.closing = true
	return g.sending
}
