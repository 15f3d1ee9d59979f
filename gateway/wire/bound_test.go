package wire_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"sallyport/gateway/wire"
)

// TestBound: a bounded Wire gives out so many bytes and then an error, until the bound ends. Nothing is lost by it.
func TestBound(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() { _, _ = far.Write([]byte("0123456789")) }()
	w := wire.NewWire(near)
	w.Bound(4)
	got := make([]byte, 10)
	if n, err := io.ReadFull(w, got); n != 4 || !errors.Is(err, wire.ErrBound) {
		t.Fatalf("%q, %v", got[:n], err)
	}
	w.Unbound()
	if n, err := io.ReadFull(w, got[4:]); err != nil || string(got) != "0123456789" {
		t.Errorf("%q, %v", got[:4+n], err)
	}
}
