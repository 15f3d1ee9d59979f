package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/gateway/decision"
)

// TestSource: an IPv4 address is a source, however it is written, and so is an IPv6 /64. Held: security L 160.
func TestSource(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2::1": "2001:db8:1:2::",
		"2001:db8:1:2:ffff:ffff:ffff:ffff": "2001:db8:1:2::", "2001:db8:1:3::1": "2001:db8:1:3::", "fe80::1%eth0": "fe80::", "::1": "::",
	} {
		if got := decision.Source(netip.MustParseAddr(a)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
	if decision.Source(netip.Addr{}).IsValid() {
		t.Error("no address is a source")
	}
}

// dialFrom opens a connection from that source address.
func dialFrom(t testing.TB, from, address string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// callOver sends a call over a plain connection, and served reports whether it is answered 200.
func callOver(t testing.TB, c net.Conn, path string) {
	t.Helper()
	_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n") // the answer tells
}

func answered(c net.Conn) bool {
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body) // what is left of it would look like a connection that isn't idle
	return err == nil && r.StatusCode == http.StatusOK
}

func served(t testing.TB, c net.Conn, path string) bool {
	t.Helper()
	callOver(t, c, path)
	return answered(c)
}

// isOpen reports whether the gateway has left a connection open that it sends nothing on.
func isOpen(t testing.TB, c net.Conn) bool { return !closes(t, c, 10*time.Millisecond) }

// isClosed waits until the gateway has closed a connection that it sends nothing on.
func isClosed(t testing.TB, c net.Conn) bool { return closes(t, c, patience) }

func closes(t testing.TB, c net.Conn, within time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	return err != nil && !isTimeout(err)
}

// TestConnectionCaps: connections in all and from one source are bounded; one with a call under way is never closed for
// others, and what ends makes room. Held: security H 110, 114.
func TestConnectionCaps(t *testing.T) {
	var away, evicted turnedAway
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Connections: 8, ConnectionsPerSource: 4}
		s.config.Connections, s.config.Evictions = away.add, evicted.add
	})
	release := make(chan struct{})
	var there atomic.Int64
	f.backend.handle("/wait", func(http.ResponseWriter, *http.Request) { there.Add(1); <-release })
	var busy []net.Conn
	for _, from := range []string{"127.0.0.7", "127.0.0.8"} {
		for range 4 {
			c := dialFrom(t, from, f.plain)
			callOver(t, c, "/pub/1.0/wait")
			busy = append(busy, c)
		}
		eventually(t, "the calls are under way", func() bool { return there.Load() == int64(len(busy)) })
		if from == "127.0.0.7" && (served(t, dialFrom(t, from, f.plain), "/pub/1.0/x") || away.of("connections_per_source") != 1) {
			t.Error("a fifth connection from one source is served")
		}
	}
	if served(t, dialFrom(t, "127.0.0.9", f.plain), "/pub/1.0/x") || away.of("connections") != 1 {
		t.Error("a ninth connection is served")
	}
	close(release)
	for i, c := range busy {
		if !answered(c) {
			t.Errorf("connection %d was closed under its call", i)
		}
	}
	if evicted.of("connections")+evicted.of("connections_per_source") > 0 {
		t.Error("connections with calls were closed")
	}
	busy[0].Close()
	eventually(t, "a connection that ends makes room", func() bool {
		c := dialFrom(t, "127.0.0.9", f.plain)
		defer c.Close()
		return served(t, c, "/pub/1.0/x")
	})
}

// TestRoomIsMade: who goes for a new connection: first those without an admitted call, of the source that has most of
// them, and then the idlest. Held: security L 153.
func TestRoomIsMade(t *testing.T) {
	var evicted turnedAway
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Connections: 6, ConnectionsPerSource: 5}
		s.config.Evictions = evicted.add
	})
	first := dialFrom(t, "127.0.0.7", f.plain)
	if !served(t, first, "/pub/1.0/x") {
		t.Fatal("the first connection is not served")
	}
	one := dialFrom(t, "127.0.0.8", f.plain) // silent, the only one of its source
	var silent []net.Conn
	for range 4 {
		silent = append(silent, dialFrom(t, "127.0.0.9", f.plain))
	}
	eventually(t, "all are there", func() bool { return f.gateway.OpenConnections() == 6 })
	<-time.After(beyondGrace)
	comes := func(from string) net.Conn {
		var c net.Conn
		eventually(t, "another connection is served", func() bool {
			c = dialFrom(t, from, f.plain)
			return served(t, c, "/pub/1.0/x")
		})
		eventually(t, "its call has ended, for the gateway too", func() bool { return f.gateway.UnderWay() == 0 })
		return c
	}
	next := comes("127.0.0.10")
	if !isClosed(t, silent[0]) || !isOpen(t, silent[3]) || !isOpen(t, one) || !isOpen(t, first) {
		t.Error("it was not the idlest of the source with most silent ones that went")
	}
	for range 2 {
		comes("127.0.0.10")
	}
	if !isOpen(t, one) || !isOpen(t, first) || !isOpen(t, next) {
		t.Error("others went while the greediest source has silent ones")
	}
	for range 2 { // those of each source with one silent connection
		comes("127.0.0.10")
	}
	if !isClosed(t, one) || !isClosed(t, silent[3]) || !isOpen(t, first) || !isOpen(t, next) {
		t.Error("connections that had calls went before silent ones")
	}
	<-time.After(2 * time.Second) // so that all have been idle for long enough
	comes("127.0.0.11")
	if !isClosed(t, next) || !isOpen(t, first) {
		t.Error("it was not the idlest of the source that has most")
	}
	if evicted.of("connections") != 6 {
		t.Errorf("%d were closed for room", evicted.of("connections"))
	}
}

// TestRoomOfOnesOwn: its own idlest go for a source that has enough. Held: security L 153.
func TestRoomOfOnesOwn(t *testing.T) {
	var evicted turnedAway
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{ConnectionsPerSource: 2}
		s.config.Evictions = evicted.add
	})
	first := rested(t, f, "127.0.0.7", 1)[0]
	own := rested(t, f, "127.0.0.8", 2)
	if !served(t, dialFrom(t, "127.0.0.8", f.plain), "/pub/1.0/x") || evicted.of("connections_per_source") != 1 {
		t.Error("a source with enough connections makes no room of its own")
	}
	if !isClosed(t, own[0]) || !isOpen(t, own[1]) || !isOpen(t, first) {
		t.Error("it was not its own idlest that went")
	}
}

// beyondGrace is for how long a connection is idle before it may go, and some.
const beyondGrace = 1200 * time.Millisecond

// rested opens n connections that are served a call each, and returns when they have been idle for long enough to go, the
// first for longest.
func rested(t *testing.T, f *fixture, from string, n int) (list []net.Conn) {
	t.Helper()
	others := f.gateway.UnderWay()
	for range n {
		c := dialFrom(t, from, f.plain)
		if !served(t, c, "/pub/1.0/x") {
			t.Fatal("a connection is not served")
		}
		eventually(t, "its call has ended, for the gateway too", func() bool { return f.gateway.UnderWay() == others })
		list = append(list, c)
	}
	<-time.After(beyondGrace)
	return list
}

// TestRoomBesideNewcomers: connections that are too young to go do not keep those that may go from making room. Held:
// security L 153.
func TestRoomBesideNewcomers(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.Limits = gateway.Limits{Connections: 8} })
	rested(t, f, "127.0.0.7", 7)
	dialFrom(t, "127.0.0.8", f.plain) // has not had a call, and no time for one
	eventually(t, "all are there", func() bool { return f.gateway.OpenConnections() == 8 })
	for i := range 4 {
		if !served(t, dialFrom(t, "127.0.0.9", f.plain), "/pub/1.0/x") {
			t.Errorf("connection %d is refused, and others are idle", i)
		}
	}
}

// TestFloodOfNewcomers: whoever has more connections than others does not make theirs go that have had calls, however
// fast it comes. Held: security L 153.
func TestFloodOfNewcomers(t *testing.T) {
	var away turnedAway
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Connections: 8}
		s.config.Connections = away.add
	})
	idle := rested(t, f, "127.0.0.7", 4)
	for range 12 {
		dialFrom(t, "127.0.0.9", f.plain)
	}
	eventually(t, "all have come", func() bool { return f.gateway.OpenConnections() == 8 && away.of("connections") > 0 })
	for _, c := range idle {
		if !isOpen(t, c) {
			t.Error("a flood makes idle connections of others go")
		}
	}
	if !served(t, dialFrom(t, "127.0.0.10", f.plain), "/pub/1.0/x") {
		t.Error("a client that has no connection is refused")
	}
}

// TestRestBeginsWithTheEndOfACall: a connection whose long call has just ended is not the idlest. Held: security L 153.
func TestRestBeginsWithTheEndOfACall(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.Limits = gateway.Limits{Connections: 2} })
	release, there := make(chan struct{}), make(chan struct{})
	f.backend.handle("/wait", func(http.ResponseWriter, *http.Request) { close(there); <-release })
	long := dialFrom(t, "127.0.0.7", f.plain)
	callOver(t, long, "/pub/1.0/wait")
	<-there
	idle := rested(t, f, "127.0.0.7", 1)
	close(release)
	if !answered(long) {
		t.Fatal("the long call is not answered")
	}
	eventually(t, "another is served", func() bool { return served(t, dialFrom(t, "127.0.0.8", f.plain), "/pub/1.0/x") })
	if !isOpen(t, long) || !isClosed(t, idle[0]) {
		t.Error("it was not the idlest that went")
	}
}

// TestUnprovenBalancers: where a load balancer has to show its certificate, its address alone has the limits of any
// other, and takes nothing of those that have shown theirs. Held: security L 153.
func TestUnprovenBalancers(t *testing.T) {
	f := newDoorFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Connections: 8, ConnectionsPerSource: 2}
	})
	for i := range 5 {
		c := f.through(t, byCert, f.balancer, i%2 == 0, "127.0.0.1")
		if a := get(t, c, "https://opt.test/pay/1.0/x", certificateHeader(f.a4)); a.status != 200 {
			t.Fatalf("connection %d of a load balancer: status %d", i, a.status)
		}
	}
	address := f.gateway.Addresses()[byCert].String()
	for range 6 {
		dialFrom(t, "127.0.0.1", address)
	}
	eventually(t, "two of the address alone are held", func() bool { return f.gateway.OpenConnections() == 7 })
	for range 3 {
		if !served(t, dialFrom(t, "127.0.0.8", f.plain), "/pub/1.0/x") {
			t.Error("another client is refused")
		}
		<-time.After(1200 * time.Millisecond)
	}
	c := f.through(t, byCert, f.balancer, false, "127.0.0.1")
	if a := get(t, c, "https://opt.test/pay/1.0/x", certificateHeader(f.a4)); a.status != 200 {
		t.Errorf("another connection of a load balancer: status %d", a.status)
	}
}

// TestSilentHandshakes: sources that hold all handshakes without a word, or with a byte now and then, and renew them, keep
// nobody else out, on any listener. Held: security L 153.
func TestSilentHandshakes(t *testing.T) {
	t.Parallel()
	hello := "\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb" // begins one of 16 KB
	for name, says := range map[string]string{"silent": "", "trickling": hello + strings.Repeat("\x03", 16000)} {
		t.Run(name, func(t *testing.T) { t.Parallel(); holdHandshakes(t, says) })
	}
}

// holdHandshakes has attackers say that, a byte every 100 ms, in all handshakes that they can get.
func holdHandshakes(t *testing.T, says string) {
	var evicted turnedAway
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Handshakes: 12, HandshakesPerSource: 4, ConnectionsPerSource: 40, HeaderTimeout: patience}
		s.config.Evictions = evicted.add
	})
	ctx, cancel := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	defer attackers.Wait()
	defer cancel()
	for _, from := range []string{"127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.24"} {
		for range 10 {
			attackers.Go(func() {
				for ctx.Err() == nil {
					c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", f.address)
					if err != nil {
						continue
					}
					stop := context.AfterFunc(ctx, func() { c.Close() })
					for i := 0; i < len(says) && ctx.Err() == nil; i++ {
						if _, err := io.WriteString(c, says[i:i+1]); err != nil {
							break
						}
						time.Sleep(100 * time.Millisecond)
					}
					_, _ = c.Read(make([]byte, 1)) // until it is closed
					stop()
					c.Close()
				}
			})
		}
	}
	eventually(t, "all handshakes are taken, and others wait", func() bool {
		underWay, waiting := f.gateway.Handshakes()
		return underWay == 12 && waiting > 0
	})
	began := time.Now()
	for i := range 20 {
		for _, who := range []*party{f.a4, nil} {
			target := "https://mtls.test/pay/1.0/x"
			if who == nil {
				target = "https://open.test/pub/1.0/x"
			}
			a, err := do(f.client(t, who, via{http2: i%2 == 0}), "GET", target, nil)
			if err != nil || a.status != 200 {
				t.Errorf("call %d: status %d, %v", i, a.status, err)
			}
		}
		if !served(t, dialFrom(t, "127.0.0.1", f.plain), "/pub/1.0/x") {
			t.Errorf("call %d: the other listener does not serve", i)
		}
		time.Sleep(20 * time.Millisecond) // 50 calls a second
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("40 calls took %s", took)
	}
	eventually(t, "the log says who holds most", func() bool {
		text := f.log.String()
		return strings.Contains(text, `"msg":"a limit is reached: TLS handshakes wait"`) && strings.Contains(text, `"source":"127.0.0.2`)
	})
	eventually(t, "silent ones go", func() bool { return evicted.of("handshakes")+evicted.of("handshakes_per_source") > 0 })
}

// TestBurstOfHandshakes: handshakes that are no attack wait for their turn, and none is refused, however many come at
// once from one source. Only a client that the machine keeps from answering for a second may be taken for a silent one.
func TestBurstOfHandshakes(t *testing.T) {
	var away, evicted turnedAway
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Handshakes: 4, HandshakesPerSource: 2, HeaderTimeout: patience}
		s.config.Connections, s.config.Evictions = away.add, evicted.add
	})
	var all sync.WaitGroup
	var lost atomic.Int64
	for range 60 {
		all.Go(func() {
			a, err := do(f.client(t, f.a4, via{}), "GET", "https://mtls.test/pay/1.0/x", nil)
			switch {
			case err != nil:
				lost.Add(1)
				t.Log(err)
			case a.status != 200:
				t.Errorf("status %d", a.status)
			}
		})
	}
	all.Wait()
	if n := int64(evicted.of("handshakes") + evicted.of("handshakes_per_source")); lost.Load() > n || n > 6 {
		t.Errorf("%d of 60 handshakes were lost, %d of them for being silent, want at most 6, all for that", lost.Load(), n)
	}
	if n := away.of("handshakes") + away.of("handshakes_per_source"); n > 0 {
		t.Errorf("%d handshakes were refused", n)
	}
	eventually(t, "none is left", func() bool {
		underWay, waiting := f.gateway.Handshakes()
		return underWay+waiting == 0
	})
}

// TestExemptStrangers: what never had an admitted call goes for others though its network is exempt. Held: security L 153.
func TestExemptStrangers(t *testing.T) {
	exempt := []netip.Prefix{netip.MustParsePrefix("127.0.0.7/32")}
	t.Run("connections", func(t *testing.T) {
		f := newFixture(t, func(_ *fixture, s *setup) { s.config.Limits = gateway.Limits{Connections: 4, Exempt: exempt} })
		for range 4 {
			dialFrom(t, "127.0.0.7", f.plain)
		}
		eventually(t, "another is served", func() bool { return served(t, dialFrom(t, "127.0.0.8", f.plain), "/pub/1.0/x") })
	})
	t.Run("handshakes", func(t *testing.T) {
		f := newFixture(t, func(_ *fixture, s *setup) {
			s.config.Limits = gateway.Limits{Handshakes: 4, HeaderTimeout: 2 * patience, Exempt: exempt}
		})
		for range 8 {
			dialFrom(t, "127.0.0.7", f.address)
		}
		eventually(t, "they have all", func() bool { underWay, _ := f.gateway.Handshakes(); return underWay == 4 })
		if a := get(t, f.client(t, nil, via{}), "https://open.test/pub/1.0/x"); a.status != 200 {
			t.Errorf("status %d", a.status)
		}
	})
}

// TestExemptSources: networks that are exempt have no limits of a source, and what had a call there goes for nobody.
func TestExemptSources(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Connections: 6, ConnectionsPerSource: 2, Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.7/32")}}
	})
	var exempt []net.Conn
	for range 5 {
		c := dialFrom(t, "127.0.0.7", f.plain)
		if !served(t, c, "/pub/1.0/x") {
			t.Fatal("an exempt source is held to the limit of one")
		}
		exempt = append(exempt, c)
	}
	for range 3 {
		eventually(t, "others take turns in what is left", func() bool {
			return served(t, dialFrom(t, "127.0.0.8", f.plain), "/pub/1.0/x")
		})
	}
	for _, c := range exempt {
		if !isOpen(t, c) {
			t.Error("an exempt source's connection was closed for others")
		}
	}
}

// TestFirstCallTimeout: a connection that never had an admitted call is closed before one that had.
func TestFirstCallTimeout(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{FirstCallTimeout: 5 * time.Second, IdleTimeout: patience}
	})
	t.Run("HTTP/1.1", func(t *testing.T) {
		known := f.dial(t, nil, "open.test")
		if a := known.get(t, "/pub/1.0/x", "open.test"); a.status != 200 {
			t.Fatalf("status %d", a.status)
		}
		unknown, refused := f.dial(t, nil, "open.test"), f.dial(t, nil, "open.test")
		if a := refused.get(t, "/pay/1.0/x", "open.test"); a.status != 401 {
			t.Fatalf("status %d", a.status)
		}
		for name, c := range map[string]*raw{"without a call": unknown, "with a call that was refused": refused} {
			if !c.ended() {
				t.Errorf("a connection %s stays", name)
			}
		}
		if a := known.get(t, "/pub/1.0/x", "open.test"); a.status != 200 {
			t.Errorf("a connection that had a call: status %d", a.status)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		known := f.client(t, nil, via{http2: true})
		if a := get(t, known, "https://open.test/pub/1.0/x"); a.status != 200 {
			t.Fatalf("status %d", a.status)
		}
		unknown := f.dialHTTP2(t, nil, "open.test")
		if _, err := io.Copy(io.Discard, unknown.Conn); isTimeout(err) {
			t.Error("a connection without a call stays")
		}
		if a := get(t, known, "https://open.test/pub/1.0/x"); a.status != 200 || !a.reused {
			t.Errorf("a connection that had a call: status %d, reused %t", a.status, a.reused)
		}
	})
}
