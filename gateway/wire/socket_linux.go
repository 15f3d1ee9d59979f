package wire

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Socket is a TCP connection that can leave Go's poller for a loop's, and return: in both at once, each packet would
// wake the process twice.
//
// While it is detached, only its loop reads and writes; anyone may do everything else at any time.
type Socket struct {
	local, remote net.Addr

	mu      sync.Mutex
	conn    waiting         // in Go's poller; nil: detached, or closed
	raw     syscall.RawConn // of conn
	fd      int             // of a detached socket; else -1
	closed  bool
	readBy  time.Time // deadlines set while detached
	writeBy time.Time
}

// waiting is a connection in Go's poller.
type waiting interface {
	io.ReadWriteCloser
	syscall.Conn
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// NewSocket returns the Socket of a TCP connection and takes the connection over; anything else it returns as it is.
func NewSocket(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c // it is closed
	}
	return &Socket{local: tcp.LocalAddr(), remote: tcp.RemoteAddr(), conn: tcp, raw: raw, fd: -1}
}

// detach takes the socket out of Go's poller. attach or release ends that.
func (s *Socket) detach() (fd int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return -1, net.ErrClosed
	}
	fd = -1
	// Closing is the only way out of the poller, so a second descriptor remains.
	if closed := s.raw.Control(func(first uintptr) { fd, err = unix.FcntlInt(first, unix.F_DUPFD_CLOEXEC, 0) }); closed != nil {
		err = closed
	}
	if err != nil {
		return -1, err
	}
	s.conn.Close()
	s.conn, s.raw, s.fd, s.readBy, s.writeBy = nil, nil, fd, time.Time{}, time.Time{}
	return fd, nil
}

// attach returns the socket to Go's poller.
func (s *Socket) attach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		unix.Close(s.fd)
		s.fd = -1
		return
	}
	conn := file{os.NewFile(uintptr(s.fd), "tcp")} // it does not block, so Go's poller takes it
	s.raw, _ = conn.SyscallConn()                  // it is open
	s.fd = -1
	if !s.readBy.IsZero() {
		_ = conn.SetReadDeadline(s.readBy)
	}
	if !s.writeBy.IsZero() {
		_ = conn.SetWriteDeadline(s.writeBy)
	}
	s.conn = conn
}

// release closes a detached socket.
func (s *Socket) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd, s.closed = -1, true
	}
}

// waiter returns the connection in Go's poller.
func (s *Socket) waiter() (waiting, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, net.ErrClosed
	case s.conn == nil:
		return nil, errHeld
	}
	return s.conn, nil
}

// errHeld is a Read or Write of a detached socket.
var errHeld = errors.New("the connection is with a loop")

// Read implements net.Conn.
func (s *Socket) Read(p []byte) (int, error) {
	c, err := s.waiter()
	if err != nil {
		return 0, err
	}
	return c.Read(p)
}

// await calls f with the descriptor when the socket may have something to read, and again until f returns true.
func (s *Socket) await(f func(fd uintptr) (done bool)) error {
	s.mu.Lock()
	raw, detached, closed := s.raw, s.conn == nil, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return net.ErrClosed
	case detached:
		return errHeld
	}
	return asNet("read", raw.Read(f))
}

// Write implements net.Conn.
func (s *Socket) Write(p []byte) (int, error) {
	c, err := s.waiter()
	if err != nil {
		return 0, err
	}
	return c.Write(p)
}

// Close ends the connection. A detached socket is shut down; its descriptor stays open until the loop closes it.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	if s.conn == nil {
		return os.NewSyscallError("shutdown", unix.Shutdown(s.fd, unix.SHUT_RDWR))
	}
	c := s.conn
	s.conn = nil
	return c.Close()
}

// CloseWrite ends our half of the connection.
func (s *Socket) CloseWrite() error {
	err := error(nil)
	if closed := s.control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); closed != nil {
		return closed
	}
	return os.NewSyscallError("shutdown", err)
}

func (s *Socket) control(f func(fd uintptr)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fd >= 0:
		f(uintptr(s.fd))
		return nil
	case s.closed:
		return net.ErrClosed
	}
	return s.raw.Control(f)
}

// SetDeadline implements net.Conn.
func (s *Socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn. Of a detached socket it takes effect with attach.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		s.readBy = t
		return nil
	}
	return s.conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn, as SetReadDeadline does.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		s.writeBy = t
		return nil
	}
	return s.conn.SetWriteDeadline(t)
}

// LocalAddr implements net.Conn.
func (s *Socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *Socket) RemoteAddr() net.Addr { return s.remote }

// SyscallConn implements syscall.Conn. The result controls the socket in either state, and does nothing else.
func (s *Socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s}, nil }

// A rawSocket is the Socket as a syscall.RawConn, which has methods of the same names.
type rawSocket struct{ socket *Socket }

// Control calls f with the descriptor, which stays open meanwhile.
func (c rawSocket) Control(f func(fd uintptr)) error { return c.socket.control(f) }

// Read implements syscall.RawConn.
func (rawSocket) Read(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// Write implements syscall.RawConn.
func (rawSocket) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// socketOf returns the Socket that raw controls, or nil.
func socketOf(raw syscall.RawConn) *Socket {
	c, _ := raw.(rawSocket)
	return c.socket
}

// A file is a socket that has returned to Go's poller. Its errors are those of net, after which crypto/tls continues.
type file struct{ *os.File }

// Read implements io.Reader.
func (f file) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	return n, asNet("read", err)
}

// Write implements io.Writer.
func (f file) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, asNet("write", err)
}

func asNet(op string, err error) error {
	if err == nil {
		return nil // before errors.As, which has path allocated
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return &net.OpError{Op: op, Net: "tcp", Err: path.Err}
	}
	return err
}
