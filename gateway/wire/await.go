package wire

import (
	"io"
	"net"
	"os"
)

// An arrival reads from a socket once something is there. It lives with its connection, as a probe does, because the
// closure passed to RawConn.Read escapes.
type arrival struct {
	look func(fd uintptr) (done bool)
	n    int
	err  error
}

// Await waits for bytes and reads them into In, which is empty. The connection holds no buffer meanwhile: those of
// thousands of connections that wait for a call, or for an answer, are most of what they would hold.
func (c *Conn) Await() (n int, err error) {
	c.In.Close()
	switch {
	case c.wire != nil:
		return c.awaitTLS()
	case c.socket != nil:
		return c.awaitSocket()
	}
	n, err = c.Conn.Read(c.In.Room())
	c.In.Filled(n)
	return n, err
}

func (c *Conn) awaitSocket() (n int, err error) {
	a := &c.arrival
	if a.look == nil {
		a.look = func(fd uintptr) (done bool) {
			a.n, a.err = read(int(fd), c.In.Room())
			if a.err == errNothing {
				c.In.Close()
				return false
			}
			return true
		}
	}
	a.n, a.err = 0, nil
	if err := c.socket.await(a.look); err != nil {
		return 0, err
	}
	switch {
	case a.err != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", a.err)}
	case a.n == 0:
		return 0, io.EOF
	}
	c.In.Filled(a.n)
	return a.n, nil
}

// awaitTLS takes one byte from crypto/tls, which keeps the rest of its record, and then what it has kept.
func (c *Conn) awaitTLS() (n int, err error) {
	if n, err = c.Conn.Read(c.first[:]); n == 0 {
		return 0, err
	}
	c.In.Room()[0] = c.first[0]
	c.In.Filled(1)
	c.wire.dry = true
	more, err := c.Conn.Read(c.In.Room())
	c.wire.dry = false
	c.In.Filled(more)
	if err == error(errDry{}) {
		err = nil
	}
	return 1 + more, err
}
