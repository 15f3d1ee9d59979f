package gateway_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/gateway/decision"
)

// A proxiedFixture has proxies in front of all listeners of a doorFixture: 127.0.0.3, and 127.0.0.1, which is a load
// balancer, too. Listeners without a door are behindTCP, with TLS, and behindPlain.
type proxiedFixture struct {
	*doorFixture
	mu      sync.Mutex
	sources map[string]netip.Addr // of calls, by ID
	peers   map[string]netip.Addr
}

// Names of the listeners, and who calls.
const (
	behindTCP   = "behindTCP"
	behindPlain = "behindPlain"

	justProxy = "127.0.0.3"
	balancer  = "127.0.0.1"
	victim    = "203.0.113.7"
	attacker  = "203.0.113.66"
)

func newProxiedFixture(t testing.TB, change ...func(*fixture, *setup)) *proxiedFixture {
	t.Helper()
	f := &proxiedFixture{sources: map[string]netip.Addr{}, peers: map[string]netip.Addr{}}
	f.doorFixture = newDoorFixture(t, append(change, func(of *fixture, s *setup) {
		s.config.Observe = func(x *decision.Exchange) {
			f.mu.Lock()
			f.sources[x.ID], f.peers[x.ID] = x.Source(), x.Peer.Addr()
			f.mu.Unlock()
			of.observe(x)
		}
	})...)
	f.listeners = append(slices.Clone(f.listeners),
		decision.Listener{Name: behindTCP, Address: "127.0.0.7:0", Profiles: f.listeners[0].Profiles},
		decision.Listener{Name: behindPlain, Address: "127.0.0.8:0"})
	f.setProxies(t, balancer+"/32", justProxy+"/32")
	return f
}

// setProxies puts the listeners but the fixture's first two into force with those proxies.
func (f *proxiedFixture) setProxies(t testing.TB, networks ...string) {
	t.Helper()
	var proxies decision.Proxies
	for _, n := range networks {
		proxies = append(proxies, netip.MustParsePrefix(n))
	}
	f.listeners = slices.Clone(f.listeners)
	for i := range f.listeners[2:] {
		f.listeners[2+i].Proxies = &proxies
	}
	f.setListeners(t)
}

func (f *proxiedFixture) at(listener string) string { return f.gateway.Addresses()[listener].String() }

// version1 and version2 are headers for a client.
func version1(client string) string {
	return "PROXY TCP4 " + client + " 10.0.0.1 12345 443\r\n"
}

func version2(client string, values ...byte) string {
	addr := netip.MustParseAddr(client)
	family, to := byte(0x11), "10.0.0.1"
	if addr.Is6() {
		family, to = 0x21, "2001:db8::1"
	}
	block := append(append(addr.AsSlice(), netip.MustParseAddr(to).AsSlice()...), 0x30, 0x39, 0x01, 0xbb)
	return frame(0x21, family, append(block, values...))
}

func frame(command, family byte, block []byte) string {
	head := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	return string(append(binary.BigEndian.AppendUint16(head, uint16(len(block))), block...))
}

// proxied is a client whose connections come from an address and begin with a header.
func (f *proxiedFixture) proxied(t testing.TB, listener string, who *party, h2 bool, from, header string) *http.Client {
	t.Helper()
	address := f.at(listener)
	transport := &http.Transport{
		TLSClientConfig: f.clientTLS(who, via{}), ForceAttemptHTTP2: h2, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(ctx, "tcp", address)
			if err == nil {
				_, err = io.WriteString(c, header)
			}
			return c, err
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// begun is a connection from an address that has begun with a header.
func (f *proxiedFixture) begun(t testing.TB, listener, from, header string) net.Conn {
	t.Helper()
	c := dialFrom(t, from, f.at(listener))
	if _, err := io.WriteString(c, header); err != nil {
		t.Fatal(err)
	}
	return c
}

// isFrom checks where a call came from: by its X-Forwarded-For, by the access log's client, and by its peer.
func (f *proxiedFixture) isFrom(t testing.TB, what string, call func() answer, forwarded, source, peer string) {
	t.Helper()
	var a answer
	r := f.allowed(t, func() answer { a = call(); return a })
	if got := r.Header.Values("X-Forwarded-For"); len(got) != 1 || got[0] != forwarded {
		t.Errorf("%s: X-Forwarded-For %q, want %q", what, got, forwarded)
	}
	eventually(t, "the call is observed", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		_, ok := f.sources[a.id()]
		return ok
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	want, _ := netip.ParseAddr(source) // "": none
	if got := f.sources[a.id()]; got != want {
		t.Errorf("%s: from %v, want %v", what, got, want)
	}
	if got := f.peers[a.id()]; got.String() != peer {
		t.Errorf("%s: the peer is %v, want %v", what, got, peer)
	}
}

func urlOf(listener, path string) string {
	if listener == behindPlain || listener == behindLB {
		return "http://opt.test" + path
	}
	return "https://opt.test" + path
}

// TestClaimedAddress: the address in a header is the client's in the access log and X-Forwarded-For, over each version of
// either protocol, on a connection's first call and later ones; without one in the header it is the proxy's, and the
// client's certificate decides as ever. Whoever is no proxy calls as if there were none.
func TestClaimedAddress(t *testing.T) {
	f := newProxiedFixture(t)
	values := []byte{4, 0, 3, 'p', 'a', 'd', 0xea, 0, 0}
	for what, c := range map[string]struct{ header, client string }{
		"version 1":                 {version1(victim), victim},
		"version 1 of IPv6":         {"PROXY TCP6 2001:db8::7 2001:db8::1 1 1\r\n", "2001:db8::7"},
		"version 1, unknown":        {"PROXY UNKNOWN\r\n", justProxy},
		"version 2":                 {version2(victim), victim},
		"version 2 of IPv6":         {version2("2001:db8::7"), "2001:db8::7"},
		"version 2 of mapped IPv4":  {frame(0x21, 0x21, slices.Concat(netip.MustParseAddr("::ffff:"+victim).AsSlice(), make([]byte, 20))), victim},
		"version 2 with values":     {version2(victim, values...), victim},
		"version 2, local":          {frame(0x20, 0, nil), justProxy},
		"version 2, unspecified":    {frame(0x21, 0, values), justProxy},
		"version 2, a UNIX socket":  {frame(0x21, 0x31, make([]byte, 216)), justProxy},
		"version 2, of the gateway": {version2("127.0.0.7"), "127.0.0.7"},
	} {
		for _, h2 := range []bool{false, true} {
			client := f.proxied(t, behindTCP, f.a4, h2, justProxy, c.header)
			for range 3 { // the first by a goroutine, the others by loops
				f.isFrom(t, what, func() answer { return get(t, client, urlOf(behindTCP, "/pay/1.0/x")) }, c.client, c.client, justProxy)
			}
		}
		client := f.proxied(t, behindPlain, nil, false, justProxy, c.header)
		for range 3 {
			f.isFrom(t, what+", plain", func() answer { return get(t, client, urlOf(behindPlain, "/pub/1.0/x")) }, c.client, c.client, justProxy)
		}
		// With the header come two calls in the same segment, and none of their bytes is lost.
		one := "GET /pub/1.0/x HTTP/1.1\r\nHost: opt.test\r\n\r\n"
		conn := f.begun(t, behindPlain, justProxy, c.header+one+one)
		both := dialed(conn)
		for i := range 2 {
			if a := both.receive(t, "GET"); a.status != 200 || a.echo(t).Header.Get("X-Forwarded-For") != c.client {
				t.Errorf("%s, call %d at once: status %d (%.200q)", what, i, a.status, a.body)
			}
		}
	}
	f.isFrom(t, "nobody's proxy", func() answer {
		return get(t, f.through(t, behindPlain, nil, false, stranger), urlOf(behindPlain, "/pub/1.0/x"), header("X-Forwarded-For", victim))
	}, stranger, stranger, stranger)
	for _, h2 := range []bool{false, true} {
		f.isFrom(t, "nobody's proxy", func() answer {
			return get(t, f.through(t, behindTCP, f.a4, h2, stranger), urlOf(behindTCP, "/pay/1.0/x"))
		}, stranger, stranger, stranger)
	}
}

func dialed(c net.Conn) *raw { return &raw{c, bufio.NewReader(c)} }

// TestClaimsOpenNoDoor: whom a proxy names is believed about nothing, even if it names a load balancer; and a load
// balancer that is a proxy, too, is believed as ever, whomever it names. What it says of the client in X-Forwarded-For
// comes before what its header says. Held: security D 61.
func TestClaimsOpenNoDoor(t *testing.T) {
	f := newProxiedFixture(t)
	seen := header("X-Forwarded-For", "198.51.100.1")
	// The values say of TLS that a4 has shown its certificate, and that it was verified.
	verified := []byte{0x20, 0, 10, 7, 0, 0, 0, 0, 0x22, 0, 2, 'a', '4'}
	for what, claim := range map[string]string{
		"version 1": version1(balancer), "version 2": version2(balancer), "TLS values": version2(balancer, verified...), "local": frame(0x20, 0, verified),
	} {
		client := balancer
		if what == "local" {
			client = justProxy
		}
		for _, listener := range []string{byCert, byAddr, behindLB, behindTCP, behindPlain} {
			for _, h2 := range []bool{false, true} {
				if h2 && (listener == behindLB || listener == behindPlain) {
					continue
				}
				own, status, code := f.balancer, 401, "900902" // a load balancer's certificate is no client's
				switch listener {
				case behindTCP:
					code = "900901" // here it is nobody's
				case behindLB:
					own = nil
				case behindPlain:
					own, status, code = nil, 404, "404" // no certificate can come here
				}
				c := f.proxied(t, listener, own, h2, justProxy, claim)
				f.denied(t, status, code, func() answer { return get(t, c, urlOf(listener, "/pay/1.0/x"), certificateHeader(f.a4), seen) })
				f.isFrom(t, what+" at "+listener, func() answer { return get(t, c, urlOf(listener, "/pub/1.0/x"), certificateHeader(f.a4), seen) }, client, client, justProxy)
			}
		}
	}

	// The load balancer names a stranger.
	for _, claim := range []string{version1(victim), version2(victim)} {
		for _, listener := range []string{byCert, byAddr, behindLB} {
			c := f.proxied(t, listener, f.balancer, listener == byAddr, balancer, claim)
			if listener == behindLB {
				c = f.proxied(t, listener, nil, false, balancer, claim)
			}
			for range 2 {
				f.isFrom(t, "a load balancer at "+listener, func() answer {
					return get(t, c, urlOf(listener, "/pay/1.0/x"), certificateHeader(f.a4), seen)
				}, "198.51.100.1, "+victim, "198.51.100.1", balancer)
				f.isFrom(t, "a load balancer that says no more, at "+listener, func() answer {
					return get(t, c, urlOf(listener, "/pay/1.0/x"), certificateHeader(f.a4))
				}, victim, victim, balancer)
			}
		}
	}
	// A call that is refused before anybody is believed has the address of the header.
	c := dialed(f.begun(t, behindLB, balancer, version1(victim)))
	c.send(t, "GET /pub/1.0/x HTTP/1.1\n\n") // without Host
	a := c.receive(t, "GET")
	eventually(t, "it is observed", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.sources[a.id()] == netip.MustParseAddr(victim)
	})
}

// TestBadProxyHeaders: a proxy's connection that does not begin with one good header, and one of anybody else that begins
// with any, ends without a call, and the log and the counter say why. Held: security D 61.
func TestBadProxyHeaders(t *testing.T) {
	var away, handshakes turnedAway
	f := newProxiedFixture(t, func(_ *fixture, s *setup) {
		s.config.Connections, s.config.Handshakes = away.add, handshakes.add
	})
	const call = "GET /pub/1.0/x HTTP/1.1\r\nHost: opt.test\r\n\r\n"
	hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 505)
	big := slices.Concat(netip.MustParseAddr(victim).AsSlice(), make([]byte, 8), []byte{4, 0xff, 0xf0}, make([]byte, 0xfff0-15))
	before := f.backend.calls.Load()
	headers := 0
	for name, c := range map[string]struct{ from, begins string }{
		"no header":                {justProxy, call},
		"no header, TLS":           {justProxy, hello},
		"no header, a balancer's":  {balancer, call},
		"a line without an end":    {justProxy, "PROXY UNKNOWN " + strings.Repeat("x", 108) + "\r\n" + call},
		"a line with LF":           {justProxy, "PROXY TCP4 203.0.113.7 10.0.0.1 1 1\n" + call},
		"a port too large":         {justProxy, "PROXY TCP4 203.0.113.7 10.0.0.1 65536 1\r\n" + call},
		"64 KiB of values":         {justProxy, frame(0x21, 0x11, big) + call},
		"a value cut off":          {justProxy, version2(victim, 4, 0, 9, 'x') + call},
		"a wrong checksum":         {justProxy, version2(victim, 3, 0, 4, 1, 2, 3, 4) + call},
		"version 3":                {justProxy, frame(0x31, 0x11, make([]byte, 12)) + call},
		"command 2":                {justProxy, frame(0x22, 0x11, make([]byte, 12)) + call},
		"a short address":          {justProxy, frame(0x21, 0x21, make([]byte, 12)) + call},
		"twice":                    {justProxy, version1(victim) + version1(victim) + call},
		"twice, version 2":         {justProxy, version2(victim) + version2(victim) + call},
		"both versions":            {justProxy, version2(victim) + version1(victim) + call},
		"a stranger's":             {stranger, version1(victim) + call},
		"a stranger's, version 2":  {stranger, version2(victim) + call},
		"a stranger's of loopback": {stranger, version2(balancer) + call},
	} {
		for _, listener := range []string{behindTCP, behindPlain, byCert, byAddr, behindLB} {
			if !strings.Contains(name, "twice") && !strings.Contains(name, "both") && c.from != stranger {
				headers++
			}
			conn := f.begun(t, listener, c.from, "")
			_, _ = io.WriteString(conn, c.begins) // it may be closed before that
			got, err := io.ReadAll(conn)
			if isTimeout(err) {
				t.Errorf("%s at %s: it stays open", name, listener)
			}
			if strings.HasPrefix(string(got), "HTTP/1.1 ") && !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
				t.Errorf("%s at %s: %.100q", name, listener, got)
			}
			conn.Close()
		}
	}
	// One that ends in its middle, and one that never begins.
	for _, begins := range []string{"PROXY TCP4 203.0.113.7", version2(victim)[:20], "P", ""} {
		headers++
		conn := f.begun(t, behindPlain, justProxy, begins)
		_ = conn.(*net.TCPConn).CloseWrite()
		if !isClosed(t, conn) {
			t.Errorf("%q: it stays open", begins)
		}
	}
	eventually(t, "no connection is left", func() bool { return f.gateway.OpenConnections() == 0 })
	if n := f.backend.calls.Load() - before; n != 0 {
		t.Errorf("the backend was called %d times", n)
	}
	if got := away.of("proxy_header"); got != headers || handshakes.of("not_tls") == 0 {
		t.Errorf("%d headers were counted, want %d; handshakes that are no TLS: %d", got, headers, handshakes.of("not_tls"))
	}
	if log := f.log.String(); !strings.Contains(log, `"PROXY header refused","listener":`) || strings.Count(log, "PROXY header refused") > 40 {
		t.Errorf("the log tells too little, or too much: %s", log)
	}
}

// TestHandshakeLogNamesTheClient: a handshake that fails is logged with the proxy and the client that it has named.
func TestHandshakeLogNamesTheClient(t *testing.T) {
	f := newProxiedFixture(t)
	if c := f.begun(t, behindTCP, justProxy, version2(victim)+"no TLS at all"); !isClosed(t, c) {
		t.Error("it stays open")
	}
	eventually(t, "it is logged", func() bool {
		log := f.log.String()
		_, line, _ := strings.Cut(log, "TLS handshake refused")
		return strings.Contains(line, `"peer":"`+justProxy+`:`) && strings.Contains(line, `"client":"`+victim+`"`)
	})
}

// TestSlowProxyHeaders: headers that don't come, or byte by byte, are waited for until headerTimeout, in as many
// connections as there may be handshakes, and hold up nobody: the one that has waited longest goes for a new one.
func TestSlowProxyHeaders(t *testing.T) {
	t.Parallel()
	var away, evicted turnedAway
	const most = 12
	f := newProxiedFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Handshakes: most, ConnectionsPerSource: 4, HeaderTimeout: 3 * time.Second}
		s.config.Connections, s.config.Evictions = away.add, evicted.add
	})
	var silent []net.Conn
	for i := range most {
		silent = append(silent, f.begun(t, []string{behindTCP, behindPlain}[i%2], justProxy, "PROXY TCP4 203.0.113.7 10.0.0.1 1"[:i]))
	}
	eventually(t, "all are there", func() bool { return f.gateway.OpenConnections() == most })
	ctx, cancel := context.WithCancel(t.Context())
	var slow sync.WaitGroup
	defer slow.Wait()
	defer cancel()
	slow.Go(func() {
		for ctx.Err() == nil { // a byte now and then is no more than none
			_, _ = io.WriteString(silent[most-1], "1")
			<-time.After(200 * time.Millisecond)
		}
	})
	eventually(t, "a client gets in", func() bool {
		c := f.begun(t, behindPlain, justProxy, version1(victim))
		defer c.Close()
		return served(t, c, "/pub/1.0/x")
	})
	if evicted.of("handshakes") == 0 {
		t.Error("nobody went for the client")
	}
	for i, c := range silent {
		if !isClosed(t, c) {
			t.Errorf("connection %d stays open", i)
		}
	}
	eventually(t, "those that nobody went for are told", func() bool {
		return away.of("proxy_header") > 0 && strings.Contains(f.log.String(), "no whole header within headerTimeout")
	})
}

// TestSilentProxiesEnd: connections whose header has not come don't hold up the gateway's end.
func TestSilentProxiesEnd(t *testing.T) {
	f := newProxiedFixture(t)
	c := f.begun(t, behindTCP, justProxy, "PROXY")
	eventually(t, "it is there", func() bool { return f.gateway.OpenConnections() == 1 })
	began := time.Now()
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 30*time.Second || !isClosed(t, c) { // headerTimeout is a minute
		t.Errorf("it took %v", took)
	}
}

// TestLimitsOfClaimedClients: connections, handshakes and calls count for the client that a header names: who has too
// many is refused and others are not, and the proxy itself is held to no limit of a source.
func TestLimitsOfClaimedClients(t *testing.T) {
	var away turnedAway
	f := newProxiedFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{ConnectionsPerSource: 4, HandshakesPerSource: 2, Handshakes: 40}
		s.config.Connections = away.add
		for i := range s.routes {
			s.routes[i].Upstream.MaxCalls, s.routes[i].Upstream.MaxCallsPerCaller = 20, 3
		}
	})
	// The proxy's own, and one of each of many clients.
	for i := range 6 {
		for _, h := range []string{frame(0x20, 0, nil), version2("2001:db8:0:" + string(rune('1'+i)) + "::7"), version1("198.51.100." + string(rune('1'+i)))} {
			if c := f.begun(t, behindPlain, justProxy, h); !served(t, c, "/pub/1.0/x") {
				t.Errorf("connection %d is not served", i)
			}
		}
	}
	// Calls: three of one client are under way.
	slow := handleSlow(t, f.fixture)
	greedy := f.proxied(t, behindPlain, nil, false, justProxy, version1(attacker))
	slow.begin(t, greedy, urlOf(behindPlain, "/pub/1.0/wait"), 3)
	f.denied(t, 503, "503", func() answer { return get(t, greedy, urlOf(behindPlain, "/pub/1.0/x")) })
	f.allowed(t, func() answer {
		return get(t, f.proxied(t, behindPlain, nil, false, justProxy, version2(victim)), urlOf(behindPlain, "/pub/1.0/x"))
	})
	// Connections: a fourth is there, and a fifth is one too many, whichever proxy and listener it comes through.
	before := f.backend.calls.Load()
	for _, listener := range []string{behindPlain, behindLB} {
		c := f.begun(t, listener, balancer, version2(attacker))
		callOver(t, c, "/pub/1.0/x")
		if a, err := dialed(c).tryReceive("GET"); err == nil && a.status == 200 {
			t.Error("a connection too many is served")
		}
	}
	eventually(t, "it is counted", func() bool { return away.of("connections_per_source") > 0 })
	if f.backend.calls.Load() != before {
		t.Error("the backend was called")
	}
	if c := f.begun(t, behindLB, balancer, version2(victim)); !served(t, c, "/pub/1.0/x") {
		t.Error("the victim is not served")
	}
	slow.end(t, 3)
	// Handshakes: the attacker's wait for each other, and the victim's for none of them.
	silent := "198.51.100.99"
	for range 4 {
		f.begun(t, behindTCP, justProxy, version1(silent))
	}
	eventually(t, "two of four are under way", func() bool {
		underWay, waiting := f.gateway.Handshakes()
		return underWay == 2 && waiting == 2
	})
	f.allowed(t, func() answer {
		return get(t, f.proxied(t, behindTCP, f.a4, true, justProxy, version1(victim)), urlOf(behindTCP, "/pay/1.0/x"))
	})
}

// TestProxiesReload: other proxies hold for new connections at once, on the same socket; connections that are there go on.
func TestProxiesReload(t *testing.T) {
	f := newProxiedFixture(t)
	address := f.at(behindTCP)
	old := f.proxied(t, behindTCP, f.a4, false, justProxy, version1(victim))
	call := func(c *http.Client) func() answer {
		return func() answer { return get(t, c, urlOf(behindTCP, "/pay/1.0/x")) }
	}
	f.isFrom(t, "before", call(old), victim, victim, justProxy)
	f.setProxies(t, "127.0.0.9/32", "10.0.0.0/8")
	if f.at(behindTCP) != address {
		t.Error("the socket is another one")
	}
	f.isFrom(t, "a proxy no more, on its connection", call(old), victim, victim, justProxy)
	f.isFrom(t, "a proxy no more", call(f.through(t, behindTCP, f.a4, false, justProxy)), justProxy, justProxy, justProxy)
	f.isFrom(t, "a new proxy", call(f.proxied(t, behindTCP, f.a4, true, stranger, version2(victim))), victim, victim, stranger)
	f.setProxies(t) // of nobody
	f.isFrom(t, "nobody's", call(f.through(t, behindTCP, f.a4, true, stranger)), stranger, stranger, stranger)
}

// TestPanicInAProxyHeader: what panics there ends that connection, and no other.
func TestPanicInAProxyHeader(t *testing.T) {
	panicked := make(chan string, 10)
	f := newProxiedFixture(t, func(_ *fixture, s *setup) {
		s.config.Panicked = func(where string) { panicked <- where }
		s.config.Connections = func(string) { panic("in the observer") }
	})
	c := f.begun(t, behindPlain, justProxy, "nothing of the kind\r\n")
	if where := <-panicked; where != "a proxy's header" || !isClosed(t, c) {
		t.Errorf("%s panicked", where)
	}
	if c := f.begun(t, behindPlain, justProxy, version1(victim)); !served(t, c, "/pub/1.0/x") {
		t.Error("the next connection is not served")
	}
}

// TestStreamsBehindAProxy: what an HTTP/2 client sends right behind the header and its handshake is whole, stream after
// stream, and its calls are all the claimed client's.
func TestStreamsBehindAProxy(t *testing.T) {
	f := newProxiedFixture(t)
	c := f.proxied(t, behindTCP, f.a4, true, justProxy, version2(victim))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			a, err := do(c, "POST", urlOf(behindTCP, "/pay/1.0/x"), strings.NewReader(strings.Repeat("b", 3000)))
			if err != nil || a.status != 200 || a.proto != 2 || a.echo(t).Bytes != 3000 || a.echo(t).Header.Get("X-Forwarded-For") != victim {
				t.Errorf("%v, status %d over HTTP/%d (%.200q)", err, a.status, a.proto, a.body)
			}
		})
	}
	all.Wait()
}

// TestProxiedClientsMakeNoRoom: a client that holds many connections through a proxy makes none go that had an admitted
// call, of those who hold few: what it may take is known when its header has come, and nothing before.
func TestProxiedClientsMakeNoRoom(t *testing.T) {
	var away turnedAway
	const most = 8
	f := newProxiedFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{Connections: most}
		s.config.Connections = away.add
	})
	var greedy []net.Conn
	for range most - 1 {
		c := f.begun(t, behindPlain, justProxy, version1(attacker))
		if !served(t, c, "/pub/1.0/x") {
			t.Fatal("not served")
		}
		greedy = append(greedy, c)
	}
	modest := f.begun(t, behindPlain, justProxy, version1(victim))
	if !served(t, modest, "/pub/1.0/x") {
		t.Fatal("not served")
	}
	<-time.After(1100 * time.Millisecond) // none goes that was of use within a second
	for range 3 {
		c := f.begun(t, behindPlain, justProxy, version2(attacker))
		served(t, c, "/pub/1.0/x")
	}
	gone := 0
	for _, c := range greedy {
		if !isOpen(t, c) {
			gone++
		}
	}
	if !isOpen(t, modest) || gone != 3 {
		t.Errorf("%d of the greedy one's connections went for its new ones", gone)
	}
	if f.gateway.OpenConnections() > most {
		t.Errorf("%d connections", f.gateway.OpenConnections())
	}
}
