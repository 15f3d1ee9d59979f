package gateway_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestBackendDown: a backend that cannot be reached is a 502, one that does not answer in time a 504.
func TestBackendDown(t *testing.T) {
	nobody := closedAddress(t)
	f := newFixture(t, func(f *fixture, s *setup) {
		s.routes[3].Upstream = f.upstream(t, "http://"+nobody)
		s.routes[0].Upstream.Timeout = 50 * time.Millisecond
	})
	release := make(chan struct{})
	defer close(release)
	f.backend.handle("/late", func(http.ResponseWriter, *http.Request) { <-release })
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, f.a4, via{http2: h2})
		a := f.denied(t, 502, "101503", func() answer { return get(t, c, "https://mtls.test/pub/1.0/x") })
		if s := f.seen(t, a.id()); s.Reason != "backend_unreachable" || s.Status != 502 || s.Upstream != "http://"+nobody {
			t.Errorf("observed %+v", s)
		}
		a = get(t, c, "https://mtls.test/pay/1.0/late")
		a.refused(t, 504, "101504")
		f.allowed(t, func() answer { return get(t, c, "https://mtls.test/both/1.0/x") })
	})
}

// closedAddress is an address where nobody listens. Until the test ends it is given to nobody who asks for any port; who
// asks for this one can listen, since SO_REUSEADDR is set, as package net does.
func closedAddress(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) }) // nothing was done with it
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", at.(*syscall.SockaddrInet4).Port)
}

// TestOneUpstreamDown: if an upstream cannot be reached, its calls go to another, with their bodies.
func TestOneUpstreamDown(t *testing.T) {
	nobody := closedAddress(t)
	f := newFixture(t, func(f *fixture, s *setup) {
		s.routes[3].Upstream = f.upstream(t, "http://"+nobody, f.backend.URL+"/base/", "http://"+nobody)
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, nil, via{http2: h2})
		for i := range 18 {
			method, body := "GET", ""
			if i >= 9 {
				method, body = "POST", "body"
			}
			got := f.allowed(t, func() answer {
				a, err := do(c, method, "https://open.test/pub/1.0/x?q", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				return a
			})
			if got.Target != "/base/x?q" || got.Body != body {
				t.Errorf("the backend got %q, %q", got.Target, got.Body)
			}
		}
	})
}

// TestBackendBreaksOff: an answer that ends too early is a broken transfer for the client, never a clean end, and does not
// affect other calls.
func TestBackendBreaksOff(t *testing.T) {
	f := newFixture(t)
	for path, head := range map[string]string{
		"/length":  "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
		"/chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nthe half\r\nffff\r\n",
	} {
		f.backend.handle(path, func(w http.ResponseWriter, _ *http.Request) {
			c, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = buffered.WriteString(head + strings.Repeat("the half", 1000)) // the connection is closed in any case
			_ = buffered.Flush()
		})
	}
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, f.a4, via{http2: h2})
		for _, path := range []string{"/length", "/chunked"} {
			a, err := do(c, "GET", "https://mtls.test/pay/1.0"+path, nil)
			if err == nil {
				t.Errorf("%s: status %d and a clean end after %d bytes", path, a.status, len(a.body))
			}
			f.lastSeen(t, "the broken call is observed", func(s seen) bool { return strings.HasSuffix(s.Path, path) && s.Reason == "broken_off" })
			f.allowed(t, func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
		}
	})
}

// TestBackendClosesAtOnce: a backend that closes without an answer, or sends a malformed one, is a 502.
func TestBackendClosesAtOnce(t *testing.T) {
	f := newFixture(t)
	for path, text := range map[string]string{
		"/nothing": "", "/garbage": "SSH-2.0-x\r\n\r\n", "/lengths": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
		"/header": "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "/huge": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
	} {
		f.backend.handle(path, func(w http.ResponseWriter, _ *http.Request) {
			c, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = buffered.WriteString(text) // it ends in any case
			_ = buffered.Flush()
		})
		eachVersion(t, func(t *testing.T, h2 bool) {
			get(t, f.client(t, f.a4, via{http2: h2}), "https://mtls.test/pay/1.0"+path).refused(t, 502, map[bool]string{true: "101503", false: "101506"}[text == ""])
		})
	}
}

// TestClientGone: when the client disconnects, the call to the backend ends and is observed as client_gone.
func TestClientGone(t *testing.T) {
	f := newFixture(t)
	arrived, left := make(chan struct{}), make(chan struct{})
	f.backend.handle("/wait", func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := f.client(t, f.a4, via{http2: h2})
		done := make(chan error, 1)
		go func() {
			_, err := do(c, "GET", "https://mtls.test/pay/1.0/wait", nil, func(r *http.Request) { *r = *r.WithContext(ctx) })
			done <- err
		}()
		<-arrived
		cancel()
		<-left
		if err := <-done; err == nil {
			t.Error("the call that was given up has an answer")
		}
		f.lastSeen(t, "the client's leaving is observed", func(s seen) bool { return s.Reason == "client_gone" && s.Status == 499 })
		f.mu.Lock()
		f.calls = nil
		f.mu.Unlock()
	})
}

// TestClientLeavesWithItsLastBytes: the call to the backend ends even if the client closes right behind its request, for the
// first call of a connection and for later ones.
func TestClientLeavesWithItsLastBytes(t *testing.T) {
	f := newFixture(t)
	arrived, left := make(chan struct{}), make(chan struct{})
	f.backend.handle("/wait", func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	for before := range 12 {
		for _, overTLS := range []bool{false, true} {
			c := f.dialPlain(t)
			if overTLS {
				c = f.dial(t, nil, "open.test")
			}
			for range before % 3 {
				if a := c.get(t, "/pub/1.0/x", "open.test"); a.status != 200 {
					t.Fatalf("status %d", a.status)
				}
			}
			c.send(t, "GET /pub/1.0/wait HTTP/1.1\nHost: open.test\n\n")
			c.Close()
			<-arrived
			<-left
		}
	}
}

// TestHalfClosedClient: a client that has closed only its sending direction gets the backend's answer or none, never an
// empty success.
func TestHalfClosedClient(t *testing.T) {
	f := newFixture(t)
	arrived := make(chan struct{})
	f.backend.handle("/half", func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	c := f.dialPlain(t)
	c.send(t, "GET /pub/1.0/half HTTP/1.1\nHost: open.test\n\n")
	<-arrived
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if a, err := c.tryReceive("GET"); err == nil {
		t.Errorf("status %d, though the backend never answered", a.status)
	}
}
