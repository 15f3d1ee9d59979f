package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// A Conn is one end of a connection, plain or under TLS. See the package's comment for its two states.
type Conn struct {
	net.Conn        // TLS if the connection has it, else the socket
	In       Window // read and not used yet

	wire   *Wire           // below TLS; nil: plain
	below  net.Conn        // the socket
	socket *Socket         // the same, if a loop can have it
	raw    syscall.RawConn // of the socket; nil: it has none
	fd     int             // of a detached connection
	probe  probe

	arrival arrival
	first   [1]byte // of what Await has read
}

// NewConn returns the Conn of a connection, which may be a TLS connection over a Wire. It is not copied once it is used.
// It can be detached only if below there is a Socket.
func NewConn(c net.Conn) Conn {
	conn := Conn{Conn: c, below: c}
	if overTLS, ok := c.(*tls.Conn); ok {
		conn.below = overTLS.NetConn()
	}
	if w, ok := conn.below.(*Wire); ok {
		conn.wire, conn.below = w, w.Conn
	}
	if s, ok := conn.below.(syscall.Conn); ok {
		conn.raw, _ = s.SyscallConn() // nil if the connection is closed
	}
	conn.socket = socketOf(conn.raw)
	return conn
}

// TLS reports whether the connection is under TLS.
func (c *Conn) TLS() bool { return c.wire != nil }

// Sever closes the socket without TLS's closing alert, for which it might have to wait, and so that no reader takes it
// for the end of a message.
func (c *Conn) Sever() { c.below.Close() }

// record is what one TLS record holds at most.
const record = 16 << 10

// Send writes all of b, with as few system calls as it takes.
func (c *Conn) Send(b []byte) error {
	if c.wire == nil || len(b) <= record {
		_, err := c.Conn.Write(b)
		return err
	}
	lent := Large.Get()
	c.wire.hold(*lent)
	_, err := c.Conn.Write(b)
	memory, late := c.wire.release()
	*lent = memory
	Large.Put(lent)
	if err == nil {
		err = late
	}
	return err
}

// SendSealed writes bytes that TLS, if there is any, has sealed before.
func (c *Conn) SendSealed(b []byte) error {
	_, err := c.below.Write(b)
	return err
}

// CloseWrite ends our half of the connection.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	err := half.CloseWrite()
	if c.wire != nil {
		if half, ok := c.below.(interface{ CloseWrite() error }); ok {
			err = errors.Join(err, half.CloseWrite())
		}
	}
	return err
}

// Gone reports whether the other end has closed the connection, or its half of it, even if it has sent something
// before.
func (c *Conn) Gone() bool { return gone(c.raw) }

// Quiet reports whether the connection is open and has nothing to read.
func (c *Conn) Quiet() bool { return c.Dry() && !c.probe.readable(c.raw) }

// Dry reports whether nothing is left to read of what was taken from the socket.
func (c *Conn) Dry() bool {
	if c.wire == nil {
		return true
	}
	var one [1]byte
	c.wire.dry, c.wire.drained = true, false
	_, err := c.Conn.Read(one[:])
	c.wire.dry = false
	return err == (errDry{}) && c.wire.records.header == 0
}

// What follows is for loops.

// Detachable reports whether a loop can have the connection.
func (c *Conn) Detachable() bool { return c.socket != nil }

// Detach takes the connection's socket out of Go's poller. The loop then leaves it by Attach or Release.
func (c *Conn) Detach() (fd int, err error) {
	_ = c.Conn.SetDeadline(time.Time{})
	if c.wire != nil {
		c.wire.drained = false
	}
	c.fd, err = c.socket.detach()
	return c.fd, err
}

// Attach gives the connection back to goroutines.
func (c *Conn) Attach() {
	if c.wire != nil {
		c.wire.part()
	}
	c.socket.attach()
}

// Release closes the socket.
func (c *Conn) Release() {
	if c.wire != nil {
		c.wire.part()
	}
	c.socket.release()
}

// LastWord sends TLS's closing alert, as far as that can be done at once.
func (c *Conn) LastWord() {
	if c.wire == nil {
		return
	}
	c.wire.queue(nil)
	_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	if sealed := c.wire.taken(); len(sealed) > 0 {
		_, _ = write(c.fd, sealed)
	}
}

// Seal returns p as it goes to the socket: p itself, or the records of TLS, in the memory while they fit.
func (c *Conn) Seal(memory, p []byte) ([]byte, error) {
	if c.wire == nil {
		return p, nil
	}
	c.wire.queue(memory)
	_, err := c.Conn.Write(p)
	return c.wire.taken(), err
}

// WriteNow writes to the socket what it takes at once.
func (c *Conn) WriteNow(p []byte) (n int, err error) {
	if n, err = write(c.fd, p); err == errNothing {
		err = nil
	}
	return n, err
}

// errStuck is a peer that does not take what TLS itself has to say.
var errStuck = errors.New("the connection takes nothing")

// Fill reads into In what has arrived, as far as there is room. some reports that data arrived, more that the socket
// may hold more; with an error both are false. After the other end has ended the connection epoll reports nothing any
// more, so Fill then reads to the end. The scratch is memory for bytes before they are decrypted.
func (c *Conn) Fill(scratch []byte, ended bool) (some, more bool, err error) {
	if c.wire != nil {
		return c.fillTLS(scratch, ended)
	}
	room := c.In.Room()
	if len(room) == 0 {
		return false, true, nil
	}
	n, err := read(c.fd, room)
	switch {
	case err == errNothing:
		return false, false, nil
	case err != nil:
		return false, false, err
	case n == 0:
		return false, false, io.EOF
	}
	c.In.Filled(n)
	return true, n == len(room), nil
}

func (c *Conn) fillTLS(scratch []byte, ended bool) (some, more bool, err error) {
	w := c.wire
	w.dry = true
	w.queue(nil)
	some, more, err = c.unseal(scratch, ended)
	w.keep()
	if said := w.taken(); len(said) > 0 {
		if n, _ := write(c.fd, said); n < len(said) {
			return false, false, errStuck
		}
	}
	return some, more, err
}

func (c *Conn) unseal(scratch []byte, ended bool) (some, more bool, err error) {
	w := c.wire
	for drained := false; ; {
		for !w.drained {
			room := c.In.Room()
			if len(room) == 0 {
				return some, true, nil
			}
			n, err := c.Conn.Read(room)
			c.In.Filled(n)
			some = some || n > 0
			switch {
			case err == nil:
				// Each further attempt costs an allocation of crypto/tls.
				w.drained = len(w.fed) == 0 && w.records.whole == 1 && w.records.header == 0 && n < len(room)
			case err == errDry{}:
				w.drained = true
			case some:
				return true, true, nil // the next read returns the error again
			default:
				return false, false, err
			}
		}
		if drained {
			return some, false, nil
		}
		n, err := read(c.fd, scratch)
		switch {
		case err == errNothing:
			return some, false, nil
		case (err != nil || n == 0) && some:
			return true, true, nil
		case err != nil:
			return false, false, err
		case n == 0:
			return false, false, io.EOF
		}
		w.fed, w.drained, w.records.whole, drained = scratch[:n], false, 0, n < len(scratch) && !ended
	}
}
