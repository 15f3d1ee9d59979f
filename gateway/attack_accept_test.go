package gateway

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/gateway/decision"
)

// A poorListener has no file descriptors to give until it is closed or made rich.
type poorListener struct {
	asked  atomic.Int64
	closed chan struct{}
	rich   chan net.Conn
}

func (l *poorListener) Accept() (net.Conn, error) {
	l.asked.Add(1)
	select {
	case c := <-l.rich:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
}

func (l *poorListener) Close() error   { close(l.closed); return nil }
func (l *poorListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestAcceptBacksOff: without file descriptors the gateway asks again, more and more rarely down to once a second, says so,
// and goes on when there are some. Held: security H 114 and fault R12 in small.
func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int64
		g := New(Options{goroutines: true, Connections: func(why string) {
			if why == "accept" {
				told.Add(1)
			}
		}})
		l := &poorListener{closed: make(chan struct{}), rich: make(chan net.Conn, 1)}
		s := &socket{gateway: g, listener: l, ready: make(chan net.Conn), engine: g.newEngine()}
		s.life, s.close = context.WithCancel(context.Background())
		s.endpoint.SetSettings(&decision.Listener{Name: "poor"})
		ended := make(chan struct{})
		go func() {
			s.accept()
			close(ended)
		}()
		time.Sleep(time.Minute) // of the bubble's clock
		synctest.Wait()
		if n := l.asked.Load(); n < 60 || n > 80 || told.Load() != n {
			t.Errorf("asked %d times in a minute, told of %d", n, told.Load())
		}
		client, server := net.Pipe()
		defer client.Close()
		l.rich <- server
		if _, err := client.Write([]byte("nonsense\r\n\r\n")); err != nil { // which the engine reads
			t.Fatal(err)
		}
		client.Close()
		s.Close()
		<-ended
		g.serving.Wait()
	})
}
