package backend_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"testing"
	"time"

	"sallyport/gateway/backend"
)

// stuck is the address of a server whose connections never come to stand: its queue is full, so that each SYN is
// dropped.
func stuck(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if failed := raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }); errors.Join(failed, err) != nil {
		t.Fatal(failed, err)
	}
	first, err := net.Dial("tcp", l.Addr().String()) // which nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return l.Addr().String()
}

// silent is the address of a server that takes connections and says nothing, so that no TLS handshake ends.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestConnectTimeout: a connection, or its TLS handshake, that doesn't end within ConnectTimeout is given up, whatever
// the time for answers. Where nothing was reached another server is asked.
func TestConnectTimeout(t *testing.T) {
	for _, c := range []struct {
		scheme   string
		protocol backend.Protocol
		at       func(*testing.T) string
		next     bool // another server is asked
	}{
		{"http", backend.HTTP1, stuck, true},
		{"http", backend.H2C, stuck, true},
		{"https", backend.HTTP1, silent, false},
		{"https", backend.HTTP2, silent, false},
	} {
		t.Run(fmt.Sprint(c.scheme, c.protocol), func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.protocol, isFine)
			at := &url.URL{Scheme: c.scheme, Host: c.at(t)}
			u := backend.Upstream{
				URLs: []*url.URL{at}, Protocol: c.protocol, Timeout: time.Hour, ConnectTimeout: 100 * time.Millisecond,
			}
			done := make(chan error, 1)
			go func() {
				trip := newTrip(s.groupOf(u), "POST", nil)
				defer trip.Close()
				done <- send(trip)
			}()
			err := await(t, "the connection is given up", done)
			if !errors.Is(err, backend.ErrConnect) || errors.Is(err, backend.ErrLate) {
				t.Errorf("got %v", err)
			}
			if !c.next {
				return
			}
			// In this time the other can be reached on any machine.
			u.URLs, u.ConnectTimeout = []*url.URL{at, s.url}, 2*time.Second
			for range 2 { // each has its turn
				ask(t, new(backend.Trip), s.groupOf(u))
			}
		})
	}
}

// TestConnectTimeoutIsOver: once there is a connection its time no longer counts.
func TestConnectTimeoutIsOver(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		const connect = 2 * time.Second
		s := serve(t, p, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(connect + connect/10) // until the time is over
			_, _ = io.WriteString(w, "fine")
		})
		u := s.Upstream
		u.ConnectTimeout = connect
		ask(t, new(backend.Trip), s.groupOf(u))
	})
}
