package wire_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/gateway/wire"
)

// patience is for what would come at once, if it ever came.
const patience = 2 * time.Minute

// A pausedConn counts writes, each of which waits until it may.
type pausedConn struct {
	net.Conn
	may    chan bool
	writes atomic.Int64
}

func (c *pausedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	<-c.may
	return c.Conn.Write(p)
}

// gatherOver is a Wire that gathers over a TCP connection, and its other end.
func gatherOver(t *testing.T, timeout time.Duration) (w *wire.Wire, below *pausedConn, client net.Conn) {
	t.Helper()
	ignored := goleak.IgnoreCurrent()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_ = client.SetDeadline(time.Now().Add(patience))
	below = &pausedConn{Conn: server, may: make(chan bool)}
	w = wire.NewWire(below)
	w.Gather(timeout)
	t.Cleanup(func() {
		w.Close()
		client.Close()
		goleak.VerifyNone(t, ignored)
	})
	return w, below, client
}

// TestGather: what many write while something is being sent goes out in one piece, each part whole and in its order, and
// before the end.
func TestGather(t *testing.T) {
	w, below, client := gatherOver(t, time.Minute)
	var writers sync.WaitGroup
	for i := range 10 {
		writers.Go(func() {
			for n := range byte(100) {
				if _, err := w.Write([]byte{byte(i), n}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	w.Close() // it waits for nothing
	if _, err := w.Write([]byte("late")); err == nil {
		t.Error("something was written after the end")
	}
	if n, err := w.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("after the end %d bytes were read, %v", n, err)
	}
	close(below.may)
	got, err := io.ReadAll(client)
	if err != nil || len(got) != 2000 || below.writes.Load() > 2 {
		t.Fatalf("%d bytes in %d writes, %v", len(got), below.writes.Load(), err)
	}
	var next [10]byte
	for len(got) > 0 {
		if got[1] != next[got[0]] {
			t.Fatalf("writer %d's part %d came for %d", got[0], got[1], next[got[0]])
		}
		next[got[0]]++
		got = got[2:]
	}
}

// TestGatherBounds: whoever writes faster than the client takes it waits, and loses nothing.
func TestGatherBounds(t *testing.T) {
	w, below, client := gatherOver(t, time.Minute)
	text := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	written := make(chan int, 1)
	go func() {
		n := 0
		for part := text; len(part) > 0; part = part[1<<10:] {
			m, err := w.Write(part[:1<<10])
			if n += m; err != nil {
				t.Error(err)
				break
			}
		}
		written <- n
	}()
	below.may <- true // and what was gathered meanwhile is more than fits
	below.may <- true
	select {
	case n := <-written:
		t.Errorf("all %d bytes were taken", n)
	default:
	}
	close(below.may)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, text) {
		t.Errorf("something else came, %v", err)
	}
	if n := await(t, "the writer", written); n != len(text) {
		t.Errorf("%d bytes were written", n)
	}
}

// TestGatherGivesUp: a client that takes nothing loses the connection, and whoever writes is told.
func TestGatherGivesUp(t *testing.T) {
	w, below, _ := gatherOver(t, 50*time.Millisecond)
	close(below.may)
	over := make(chan bool, 1)
	go func() {
		_, _ = w.Read(make([]byte, 1))
		over <- true
	}()
	failed := make(chan error, 1)
	go func() {
		for {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				failed <- err
				return
			}
		}
	}()
	if err := await(t, "the writer", failed); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	await(t, "the reader", over)
}

// await waits for what c tells.
func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
	}
	return v
}
