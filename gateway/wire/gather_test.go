package wire_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/gateway/wire"
	"sallyport/internal/contain"
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
	w.Gather(timeout, nil)
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

// A brokenConn panics in the method of that name.
type brokenConn struct {
	net.Conn
	in string
}

func (c *brokenConn) Write(p []byte) (int, error) { c.fault("Write"); return c.Conn.Write(p) }
func (c *brokenConn) Read(p []byte) (int, error)  { c.fault("Read"); return c.Conn.Read(p) }

func (c *brokenConn) SetWriteDeadline(t time.Time) error {
	c.fault("SetWriteDeadline")
	return c.Conn.SetWriteDeadline(t)
}

func (c *brokenConn) fault(in string) {
	if c.in == in {
		panic("in " + in)
	}
}

// TestGatherPanics: what panics below a connection whose writes are gathered ends that connection, and is told once.
func TestGatherPanics(t *testing.T) {
	for _, in := range []string{"Write", "Read", "SetWriteDeadline"} {
		t.Run(in, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			near, far := net.Pipe()
			defer far.Close()
			var told atomic.Int64
			w := wire.NewWire(&brokenConn{near, in})
			w.Gather(patience, &contain.Faults{Log: slog.New(slog.DiscardHandler), Count: func(string) { told.Add(1) }})
			if in == "Read" {
				if _, err := w.Read(make([]byte, 1)); err == nil {
					t.Error("a read goes well")
				}
				w.Close()
			} else if _, err := w.Write([]byte("gathered")); err != nil {
				t.Errorf("the first write: %v", err)
			}
			if _, err := far.Read(make([]byte, 1)); err != io.EOF { // when it was closed
				t.Errorf("the connection: %v", err)
			}
			if _, err := w.Write([]byte("more")); err == nil {
				t.Error("a write goes well")
			}
			w.Close()
			if n := told.Load(); n != 1 {
				t.Errorf("told %d times", n)
			}
		})
	}
}
