package port

import (
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
)

func TestHold(t *testing.T) {
	h, err := Hold(0)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", h.Address()); err == nil {
		c.Close()
		t.Error("somebody listens on a port that is only held")
	}
	for range 2 { // a server that ends and starts again
		l, err := net.Listen("tcp", h.Address())
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", h.Address())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(accepted, "hello")
		accepted.Close()
		if got, err := io.ReadAll(c); string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		c.Close()
		l.Close()
	}
	if runtime.GOOS == "linux" {
		if other, err := Hold(h.Number()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("held twice: %v, %v", other, err)
		}
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Error(err)
	}
}

// TestNobodyIsLentAHeldPort asks the system for many ports of its own choice, for listeners and for clients.
func TestNobodyIsLentAHeldPort(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ports are held on Linux alone")
	}
	held := map[int]bool{}
	for range 100 {
		h, err := Hold(0)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if held[h.Number()] {
			t.Fatalf("port %d is held twice", h.Number())
		}
		held[h.Number()] = true
	}
	for range 1000 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []net.Addr{l.Addr(), c.LocalAddr()} {
			if held[a.(*net.TCPAddr).Port] {
				t.Errorf("%s was lent", a)
			}
		}
		c.Close()
		l.Close()
	}
}
