package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

// socketPair is both ends of a TCP connection.
func socketPair(t testing.TB) (a, b *Socket) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, b = NewSocket(near).(*Socket), NewSocket(far).(*Socket)
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

func detach(t testing.TB, s *Socket) int {
	t.Helper()
	fd, err := s.detach()
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestSocket: a Socket is a net.Conn like any other, also after a loop has had it.
func TestSocket(t *testing.T) {
	for name, loops := range map[string]int{"new": 0, "given back": 1, "given back twice": 2} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				a, b := socketPair(t)
				for range loops {
					for _, s := range []*Socket{a, b} {
						detach(t, s)
						s.attach()
					}
				}
				return a, b, func() { a.Close(); b.Close() }, nil
			})
		})
	}
}

// TestSocketHeld: while a loop has a Socket nobody else can read or write it, its descriptor works, and what was said of
// deadlines meanwhile counts afterwards.
func TestSocketHeld(t *testing.T) {
	a, b := socketPair(t)
	fd := detach(t, a)
	if _, err := a.Read(make([]byte, 1)); err != errHeld {
		t.Errorf("Read: %v", err)
	}
	if _, err := a.Write([]byte("a")); err != errHeld {
		t.Errorf("Write: %v", err)
	}
	if n, err := write(fd, []byte("hello")); n != 5 || err != nil {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
	var p [8]byte
	if n, err := b.Read(p[:]); string(p[:n]) != "hello" || err != nil {
		t.Fatalf("read %q, %v", p[:n], err)
	}
	if n, err := read(fd, p[:]); n != 0 || err != errNothing {
		t.Errorf("read %d bytes where there are none: %v", n, err)
	}
	if err := a.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	a.attach()
	_, err := a.Read(p[:])
	var temporary interface{ Temporary() bool } // crypto/tls asks
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &temporary) || !temporary.Temporary() {
		t.Errorf("a read after its deadline: %v", err)
	}
}

// TestSocketClosedWhileHeld: whoever closes a Socket that a loop has ends the connection, and leaves the descriptor to the
// loop: closed at once, its number could be another connection's by the time the loop uses it.
func TestSocketClosedWhileHeld(t *testing.T) {
	for name, leave := range map[string]func(*Socket){"attach": (*Socket).attach, "release": (*Socket).release} {
		t.Run(name, func(t *testing.T) {
			a, b := socketPair(t)
			fd := detach(t, a)
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("the other end read %d bytes: %v", n, err)
			}
			if n, err := read(fd, make([]byte, 1)); n != 0 || err != nil {
				t.Errorf("the loop read %d bytes: %v; want the end", n, err)
			}
			leave(a)
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("the descriptor afterwards: %v", err)
			}
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read afterwards: %v", err)
			}
			if _, err := a.detach(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("detach afterwards: %v", err)
			}
		})
	}
}
