package http1

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

// A gatherer sends together what is written to a Wire by several goroutines one after the other, or in several parts, as
// the answers of an HTTP/2 connection are: their heads and their bodies come by themselves. What was written is on its way,
// and an error is told with the next write.
type gatherer struct {
	conn    net.Conn
	timeout time.Duration // for the client to take any of it

	mu      sync.Mutex
	changed sync.Cond
	memory  *[]byte // what is to be sent; nil: nothing
	sending bool
	closing bool
	err     error
	until   time.Time // the deadline of the connection's writes
}

// Gather has the Wire gather what is written from now on. A client that takes nothing of it for the timeout loses the
// connection; SetWriteDeadline has no meaning any more. It is called while nobody writes.
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

// Close implements net.Conn. What was gathered is still sent, for a moment: Close does not wait for that.
func (w *Wire) Close() error {
	if w.gather == nil || !w.gather.close() {
		return w.Conn.Close()
	}
	return w.Conn.SetReadDeadline(time.Now().Add(-time.Second))
}

func (g *gatherer) write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && g.memory != nil && len(*g.memory)+len(p) > maxHeld {
		g.changed.Wait()
	}
	if g.err != nil || g.closing {
		return 0, errors.Join(g.err, net.ErrClosed)
	}
	if g.memory == nil {
		g.memory = large.get()
	}
	*g.memory = append(*g.memory, p...)
	if !g.sending {
		g.sending = true
		go g.send()
	}
	return len(p), nil
}

// send sends until there is nothing more to send.
func (g *gatherer) send() {
	runtime.Gosched() // whoever can run may have something to add
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.memory != nil && g.err == nil {
		memory := g.memory
		g.memory = nil
		g.bound()
		g.mu.Unlock()
		err := g.push(*memory)
		large.put(memory)
		g.mu.Lock()
		if g.err = err; err != nil {
			g.conn.Close() // whoever reads is to know
		}
		g.changed.Broadcast()
	}
	g.sending = false
	if g.closing {
		g.conn.Close()
	}
}

// push writes all of p, as long as some of it is taken in time.
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

// bound sets a deadline for a write. One that comes a little later than it might is no worse.
func (g *gatherer) bound() {
	if now := time.Now(); !g.closing && g.until.Sub(now) < g.timeout {
		g.until = now.Add(g.timeout + g.timeout/4)
		_ = g.conn.SetWriteDeadline(g.until)
	}
}

// close has the connection closed as soon as all is sent; false if it is.
func (g *gatherer) close() (later bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closing && g.sending {
		_ = g.conn.SetWriteDeadline(time.Now().Add(lastWrite))
	}
	g.closing = true
	return g.sending
}
