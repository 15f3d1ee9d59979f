//go:build linux

package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/decision"
	"sallyport/gateway/engine"
	"sallyport/gateway/wire"
)

const (
	upgrade  = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n%s"
)

// A tunneller is a server that switches to another protocol when it is asked to. Then it says "hello", echoes until the
// client's end, and says "over". What does not ask is answered with its path.
type tunneller struct {
	to    string       // "": websocket
	conns atomic.Int64 // accepted
	ended atomic.Int64 // tunnels
}

func (s *tunneller) serve(c net.Conn) {
	s.conns.Add(1)
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Header.Get("Upgrade") != "" && req.URL.Path != "/no" {
			break
		}
		if !say(c, req.Header.Get("Upgrade"), req.URL.Path) {
			return
		}
	}
	defer s.ended.Add(1)
	to := s.to
	if to == "" {
		to = "websocket"
	}
	if _, err := fmt.Fprintf(c, switched, to, "hello"); err != nil {
		return
	}
	if _, err := io.Copy(c, r); err == nil {
		_, _ = io.WriteString(c, "over")
	}
}

// open opens a tunnel.
func open(t *testing.T, c *caller) {
	t.Helper()
	c.say(t, request("GET", "/ws", upgrade, "early"))
	res, err := c.hearHead("GET")
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("Sec-WebSocket-Accept") == "" {
		t.Fatal(res, err)
	}
	c.takes(t, "helloearly")
}

// takes reads that text.
func (c *caller) takes(t testing.TB, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("%d bytes came, %v, want %d", n, err, len(want))
	}
}

// TestTunnel: a WebSocket carries whatever either side says, until both have ended.
func TestTunnel(t *testing.T) {
	for _, from := range carriers {
		t.Run(from.name, func(t *testing.T) {
			var s tunneller
			var in, out, tunnels atomic.Int64
			g := newGate(t, setup{
				version: from.version, servers: []*url.URL{newSource(t, s.serve)},
				observe: func(x *decision.Exchange) {
					if x.Status == 101 && x.Err == nil {
						in.Store(x.BytesIn)
						out.Store(x.BytesOut)
						tunnels.Add(1)
					}
				},
			})
			c := g.call(t)
			if from.settled {
				c.settle(t)
			}
			conns := s.conns.Load()
			open(t, c)
			if n := s.conns.Load(); n != conns+1 {
				t.Errorf("the tunnel has a connection that was there before")
			}
			c.say(t, "ping")
			c.takes(t, "ping")
			big := strings.Repeat("0123456789abcdef", 64<<10)
			var sending sync.WaitGroup
			sending.Go(func() {
				_, _ = io.WriteString(c.Conn, big)
				_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			})
			c.takes(t, big+"over")
			sending.Wait()
			c.ended(t)
			within(t, "the tunnel ends", func() bool { return tunnels.Load() == 1 })
			if n := int64(len("early" + "ping" + big)); in.Load() != n || out.Load() != n+int64(len("hello"+"over")) {
				t.Errorf("%d bytes in, %d bytes out, sent were %d", in.Load(), out.Load(), n)
			}
			if got := g.call(t).ask(t, "/next"); got != "/next" {
				t.Errorf("another client: %q", got)
			}
		})
	}
}

// TestNoTunnel: a server that does not switch answers, and the connection goes on; one that switches to what nobody has
// asked for has not answered.
func TestNoTunnel(t *testing.T) {
	for _, from := range carriers {
		t.Run(from.name, func(t *testing.T) {
			s := tunneller{to: "another"}
			g := newGate(t, setup{version: from.version, servers: []*url.URL{newSource(t, s.serve)}})
			c := g.call(t)
			if from.settled {
				c.settle(t)
			}
			c.say(t, request("GET", "/no", upgrade, ""))
			if r := c.expect(t, 200, "/no"); r.header.Get("X-Tag") != "websocket" {
				t.Error("the server was not asked")
			}
			c.say(t, request("GET", "/h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n", ""))
			if r := c.expect(t, 200, "/h2c"); r.header.Get("X-Tag") != "" {
				t.Error("the server was asked for what the gate does not pass on")
			}
			c.say(t, request("POST", "/post", upgrade+"Content-Length: 2\r\n", "hi"))
			c.expect(t, 200, "/post")
			c.settle(t)
			c.say(t, request("GET", "/ws", upgrade, ""))
			c.expect(t, 502, "")
			g.quiet(t)
			if n := g.refused(decision.BackendUnreadable); n != 1 {
				t.Errorf("%d calls have failed, want 1", n)
			}
		})
	}
}

// TestEndOfATunnel: either side's end ends it, and so does Close.
func TestEndOfATunnel(t *testing.T) {
	for _, from := range carriers {
		for _, by := range []string{"client", "server", "Close"} {
			t.Run(from.name+"/"+by, func(t *testing.T) {
				var s tunneller
				var server atomic.Pointer[net.TCPConn]
				g := newGate(t, setup{version: from.version, servers: []*url.URL{newSource(t, func(c net.Conn) {
					server.Store(c.(*net.TCPConn))
					s.serve(c)
				})}})
				c := g.call(t)
				if from.settled {
					c.settle(t)
				}
				before := g.finished.Load()
				open(t, c)
				switch by {
				case "client":
					_ = c.tcp.SetLinger(0)
					c.tcp.Close()
				case "server":
					_ = server.Load().SetLinger(0)
					server.Load().Close()
				case "Close":
					g.end(t)
				}
				within(t, "the server's end", func() bool { return s.ended.Load() == 1 })
				if by != "client" {
					c.ended(t)
				}
				within(t, "the call ends", func() bool { return g.finished.Load() > before && g.decider.UnderWay() == 0 })
			})
		}
	}
}

// TestIdleTunnels: a tunnel in which nothing passes either way ends on both sides, also if what is sent is not taken; one
// in which something passes one way goes on. Held: security L 155.
func TestIdleTunnels(t *testing.T) {
	const lull = 5 * time.Second
	for _, from := range carriers {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			var s tunneller
			g := newGate(t, setup{version: from.version, servers: []*url.URL{newSource(t, s.serve)}, lull: lull})
			silent, talking := g.call(t), g.call(t)
			if from.settled {
				silent.settle(t)
				talking.settle(t)
			}
			open(t, talking)
			began := time.Now()
			open(t, silent)
			for time.Since(began) < 2*lull {
				talking.say(t, "ping")
				talking.takes(t, "ping")
				<-time.After(lull / 8)
			}
			silent.ended(t)
			within(t, "the server's end of the silent one", func() bool { return s.ended.Load() == 1 })
			talking.say(t, "ping")
			talking.takes(t, "ping")
			talking.ended(t)
			within(t, "the server's end of the other", func() bool { return s.ended.Load() == 2 })
		})
	}
}

// TestBrokenOffTunnelEnds: what had come from a server before its tunnel was broken off waits no longer for a client that
// takes nothing than anything else does.
func TestBrokenOffTunnelEnds(t *testing.T) {
	client, out := net.Pipe()
	in, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go func() { _, _ = server.Write([]byte("late")) }()
	to, from, over := wire.NewConn(out), wire.NewConn(in), make(chan error, 1)
	go func() { over <- engine.PipeBrokenOff(&to, &from) }()
	if err := await(t, "the end of the tunnel", over); err == nil {
		t.Error("it has passed on what nobody took")
	}
}

// TestShutdownWithATunnel: a tunnel is a call under way.
func TestShutdownWithATunnel(t *testing.T) {
	var s tunneller
	g := newGate(t, setup{servers: []*url.URL{newSource(t, s.serve)}})
	c, idle := g.call(t), g.call(t)
	c.settle(t)
	idle.settle(t)
	open(t, c)
	over := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() { over <- g.engine.Shutdown(ctx) }()
	idle.ended(t)
	c.say(t, "ping")
	c.takes(t, "ping")
	select {
	case err := <-over:
		t.Fatalf("Shutdown has not waited for the tunnel: %v", err)
	default:
	}
	_ = c.tcp.CloseWrite()
	c.takes(t, "over")
	c.ended(t)
	if err := await(t, "Shutdown", over); err != nil {
		t.Error(err)
	}
}
