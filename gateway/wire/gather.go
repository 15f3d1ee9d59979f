package wire

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"sallyport/internal/contain"
)

// A gatherer combines the writes of several goroutines into few system calls, as an HTTP/2 connection needs whose calls
// write heads and bodies one by one. Write returns before the bytes are sent; an error is returned by the next Write.
type gatherer struct {
	conn    net.Conn
	faults  *contain.Faults
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
// SetWriteDeadline has no effect any more. It is called while nobody writes. From now on the Wire is for goroutines of
// net/http: a panic in it is told to faults, and ends the connection.
func (w *Wire) Gather(timeout time.Duration, faults *contain.Faults) {
	w.gather = &gatherer{conn: w.Conn, timeout: timeout, faults: faults}
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
func (w *Wire) Close() (err error) {
	defer w.faults().Catch("closing a connection", func(f *contain.Fault) { err = f }) // perhaps on a goroutine of crypto/tls
	if w.gather == nil || !w.gather.close() {
		return w.Conn.Close()
	}
	return w.Conn.SetReadDeadline(time.Now().Add(-time.Second))
}

func (w *Wire) faults() *contain.Faults {
	if w.gather == nil {
		return nil
	}
	return w.gather.faults
}

// lastWrite is how long a peer may take for gathered bytes once the connection is closing.
const lastWrite = time.Second

func (g *gatherer) write(p []byte) (n int, err error) {
	defer g.faults.Catch("writing to a connection", func(f *contain.Fault) { n, err = 0, f })
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

// sending is what panics in send.
const sending = "sending what a connection has gathered"

// fail ends the connection, for which nothing is sent any more. It is called with mu held.
func (g *gatherer) fail(f *contain.Fault) {
	g.err, g.sending = f, false
	g.changed.Broadcast()
	g.conn.Close()
}

// read reads for net/http.
func (g *gatherer) read(p []byte) (n int, err error) {
	defer g.faults.Catch("reading from a connection", func(f *contain.Fault) { n, err = 0, f })
	return g.conn.Read(p)
}

// send runs until everything gathered is sent.
func (g *gatherer) send() {
	runtime.Gosched() // other goroutines that can run may add to it
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.faults.Catch(sending, g.fail)
	for g.memory != nil && g.err == nil {
		memory := g.memory
		g.memory = nil
		g.bound()
		g.mu.Unlock()
		err := g.faults.Do(sending, func() error { return g.push(*memory) })
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
		if !g.goOn() {
			return err
		}
	}
}

// goOn gives the peer more time; false if the connection is closing.
func (g *gatherer) goOn() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = time.Time{}
	g.bound()
	return !g.closing
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
