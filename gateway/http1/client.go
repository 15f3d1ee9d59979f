package http1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// A Conn is a client's connection.
type Conn struct {
	Value any // the handler's

	engine  *Engine
	conn    net.Conn
	wire    *Wire // below TLS; nil: plain
	raw     syscall.RawConn
	socket  *Socket // that raw controls, or nil
	in      window
	seen    int         // of the window, in search of the end of a head
	calls   int         // that it has carried
	resting atomic.Bool // it waits for the first byte of a call
}

func newConn(e *Engine, conn net.Conn, value any) *Conn {
	c := &Conn{Value: value, engine: e, conn: conn}
	below := conn
	if overTLS, ok := conn.(*tls.Conn); ok {
		below = overTLS.NetConn()
	}
	if wire, ok := below.(*Wire); ok {
		c.wire, below = wire, wire.Conn
	}
	c.raw = rawOf(below)
	c.socket = socketOf(c.raw)
	return c
}

// closeNow closes the socket. TLS gets no last word, for which it might have to wait.
func (c *Conn) closeNow() { closeSocket(c.conn, c.wire) }

func closeSocket(conn net.Conn, w *Wire) {
	if w != nil {
		conn = w.Conn
	}
	conn.Close()
}

// errOver is a connection that has ended between two calls, or was left to end.
var errOver = errors.New("the connection is over")

// errHeadTooLong is answered with 431.
var errHeadTooLong = &Error{Status: 431, text: "the head is too long"}

// readHead waits for the next head, and returns its length. It is still in the window. An *Error is for the client; any
// other error ends the connection.
func (c *Conn) readHead() (int, error) {
	bounded := false
	for {
		size, err := c.headSize()
		if size > 0 || err != nil {
			return size, err
		}
		b := c.in.bytes()
		room := c.in.room()
		if len(room) == 0 {
			c.in.enlarge()
			room = c.in.room()
		}
		switch {
		case len(b) == 0:
			if !c.rest() {
				return 0, errOver
			}
		case !bounded:
			bounded = true
			_ = c.conn.SetReadDeadline(time.Now().Add(c.engine.cfg.HeadTimeout))
		}
		n, err := c.conn.Read(room)
		c.resting.Store(false)
		c.in.w += n
		if n == 0 && err != nil {
			return 0, errOver // a head that is cut off, or that does not come, has nobody to be answered
		}
	}
}

// headSize is the length of the head that the window begins with; 0 if not all of it is there.
func (c *Conn) headSize() (int, error) {
	b := c.in.bytes()
	if len(b) <= c.seen { // there is nothing new
		c.seen = min(c.seen, len(b))
		if len(b) == 0 {
			return 0, nil
		}
	}
	n, err := HeadEnd(b, c.seen)
	if n > 0 || err != nil {
		c.seen = 0
	} else {
		c.seen = len(b)
	}
	if n > c.engine.cfg.MaxHead || n == 0 && err == nil && len(b) >= min(c.engine.cfg.MaxHead, largeBuffer) {
		return 0, errHeadTooLong
	}
	return n, err
}

// rest prepares for waiting for the next call; false if there is to be none.
func (c *Conn) rest() bool {
	timeout := c.engine.cfg.IdleTimeout
	// Clients keep connections that they have made and not needed yet: closed soon, one would meet the first call on its
	// way. A handshake shows that somebody means it.
	if c.calls == 0 && c.wire == nil {
		timeout = c.engine.cfg.HeadTimeout
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(timeout))
	c.resting.Store(true)
	return !c.engine.draining.Load() // wake looks at resting after draining was set
}

// wake ends the wait for a call.
func (c *Conn) wake() {
	if c.resting.Load() {
		_ = c.conn.SetReadDeadline(time.Now().Add(-time.Second))
	}
}

// write sends b, with as few system calls as it takes.
func (c *Conn) write(b []byte) error {
	return writeOver(c.conn, c.wire, b)
}

// record is what one TLS record holds at most.
const record = 16 << 10

func writeOver(conn net.Conn, wire *Wire, b []byte) error {
	if wire == nil || len(b) <= record {
		_, err := conn.Write(b)
		return err
	}
	lent := large.get()
	wire.hold(*lent)
	_, err := conn.Write(b)
	memory, late := wire.release()
	*lent = memory
	large.put(lent)
	if err == nil {
		err = late
	}
	return err
}

// restOfBody and restOfBytes are for how long, and how much, a client may go on sending what nobody wants any more.
const (
	restOfBody  = time.Second
	restOfBytes = 256 << 10
)

// linger ends a connection whose client may still be sending: closed at once, it would lose what it was answered.
func (c *Conn) linger() {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	if c.wire != nil {
		if half, ok := c.wire.Conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(restOfBody))
	c.in.skip(len(c.in.bytes()))
	for left := restOfBytes; left > 0; {
		n, err := c.conn.Read(c.in.room())
		if left -= n; err != nil {
			break
		}
	}
	c.conn.Close()
}

// A resumed connection begins with what was read of it before.
type resumed struct {
	net.Conn
	before []byte
}

// Read implements net.Conn.
func (r *resumed) Read(p []byte) (int, error) {
	if len(r.before) > 0 {
		n := copy(p, r.before)
		r.before = r.before[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// CloseWrite ends our half of the connection.
func (r *resumed) CloseWrite() error {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return r.Close()
}

// leave hands the connection over, with what was read of it.
func (c *Conn) leave() {
	before := append([]byte(nil), c.in.bytes()...)
	_ = c.conn.SetDeadline(time.Time{})
	c.engine.cfg.Elsewhere(&resumed{c.conn, before}, c.Value)
}

var _ io.Reader = (*resumed)(nil)
