package gateway_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/decision"
)

// TestResponseIsStreamed: what the backend has sent is at the client before the backend goes on.
func TestResponseIsStreamed(t *testing.T) {
	f := newFixture(t)
	next := make(chan struct{})
	f.backend.handle("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		res, err := f.client(t, f.a4, via{http2: h2}).Get("https://mtls.test/pay/1.0/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		r := bufio.NewReader(res.Body)
		for i := range 3 {
			line, err := r.ReadString('\n') // the backend waits for us
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("got %q, %v", line, err)
			}
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			next <- struct{}{}
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("after the last event: %v", err)
		}
	})
}

// TestRequestIsStreamed: what the client has sent is at the backend before the client goes on.
func TestRequestIsStreamed(t *testing.T) {
	f := newFixture(t)
	got := make(chan string)
	f.backend.handle("/upload", func(_ http.ResponseWriter, r *http.Request) {
		p := make([]byte, 64)
		for {
			n, err := r.Body.Read(p)
			if n > 0 {
				got <- string(p[:n])
			}
			if err != nil {
				return
			}
		}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		reader, writer := io.Pipe()
		c := f.client(t, f.a4, via{http2: h2})
		done := make(chan error, 1)
		go func() {
			a, err := do(c, "POST", "https://mtls.test/pay/1.0/upload", reader)
			if err == nil && a.status != 200 {
				err = fmt.Errorf("status %d", a.status)
			}
			done <- err
		}()
		for i := range 3 {
			text := fmt.Sprintf("part %d", i)
			if _, err := io.WriteString(writer, text); err != nil {
				t.Fatal(err)
			}
			if part := <-got; part != text {
				t.Errorf("the backend got %q", part)
			}
		}
		writer.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestLargeBodies: 64 MiB pass both ways, byte for byte, in bounded memory.
func TestLargeBodies(t *testing.T) {
	const size = 64 << 20
	f := newFixture(t)
	pattern := make([]byte, 64<<10)
	for i := range pattern {
		pattern[i] = byte(i * 7)
	}
	sum := sha256.New()
	for range size / len(pattern) {
		sum.Write(pattern)
	}
	want := fmt.Sprintf("%x", sum.Sum(nil))
	f.backend.handle("/sum", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		fmt.Fprintf(w, "%d %v %x", n, err, h.Sum(nil))
	})
	f.backend.handle("/large", func(w http.ResponseWriter, _ *http.Request) {
		for range size / len(pattern) {
			if _, err := w.Write(pattern); err != nil {
				return
			}
		}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, f.a4, via{http2: h2})
		peak := watchHeap(t)
		a, err := do(c, "POST", "https://mtls.test/pay/1.0/sum", &repeated{pattern: pattern, left: size})
		if err != nil {
			t.Fatal(err)
		}
		if a.body != fmt.Sprintf("%d <nil> %s", size, want) {
			t.Errorf("the backend got %q", a.body)
		}
		if s := f.seen(t, a.id()); s.In != size || s.Out != int64(len(a.body)) {
			t.Errorf("counted %d bytes in, %d out", s.In, s.Out)
		}
		res, err := c.Get("https://mtls.test/pay/1.0/large")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		h := sha256.New()
		if _, err := io.Copy(h, res.Body); err != nil || fmt.Sprintf("%x", h.Sum(nil)) != want {
			t.Errorf("the client got something else: %v", err)
		}
		// All three ends are in this process; what is kept of a body would be 64 MiB.
		if grown := peak(); grown > 32<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
}

// watchHeap samples the live heap until the function it returns is called, which says by how much it grew at most.
func watchHeap(t testing.TB) func() uint64 {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base, most := m.HeapAlloc, m.HeapAlloc
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-done
		return most - base
	}
}

type repeated struct {
	pattern []byte
	left    int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.pattern[(64<<20-r.left)%len(r.pattern):])
	n = min(n, r.left)
	r.left -= n
	return n, nil
}

// TestBackendDown: a backend that cannot be reached is a 502, one that is late a 504.
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

func closedAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestOneUpstreamDown: with one of several upstreams dead, calls go to another, whole.
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

// TestBackendBreaksOff: an answer that ends too early is a broken transfer at the client, never a clean end, and others
// do not notice.
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
			_, _ = buffered.WriteString(head + strings.Repeat("the half", 1000)) // it ends in any case
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

// TestBackendClosesAtOnce: a backend that closes without an answer, or answers garbage, is a 502.
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
			get(t, f.client(t, f.a4, via{http2: h2}), "https://mtls.test/pay/1.0"+path).refused(t, 502, "101503")
		})
	}
}

// TestClientGone: when the client leaves, the backend's call ends, and it is observed as such.
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

// TestClientLeavesWithItsLastBytes: the backend is told even if the client's leaving comes together with its request, when
// nothing else is heard of it. It holds for the first call of a connection and for later ones.
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

// TestHalfClosedClient: a client that has only stopped sending is told the truth or nothing, never an empty success.
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

// TestAuthorizationStaysHere: a token that the gateway consumes does not reach the backend, unless the API says so; what
// was meant for the backend does.
func TestAuthorizationStaysHere(t *testing.T) {
	f := newFixture(t)
	raw := f.token(t, "alice", nil)
	ask := func(t *testing.T, who *party, target, value string) string {
		t.Helper()
		a := get(t, f.client(t, who, via{}), target, header("Authorization", value))
		if a.status != 200 {
			t.Fatalf("status %d (%q)", a.status, a.body)
		}
		return a.echo(t).Header.Get("Authorization")
	}
	for _, c := range []struct {
		name   string
		who    *party
		target string
		value  string
		kept   bool
	}{
		{"token API", nil, "https://open.test/tok/1.0/x", "Bearer " + raw, false},
		{"token API, odd case", nil, "https://open.test/tok/1.0/x", "bEARER " + raw, false},
		{"either, the certificate won", f.a4, "https://opt.test/both/1.0/x", "Bearer " + raw, false},
		{"either, not even a token", f.a4, "https://opt.test/both/1.0/x", "Bearer !", false},
		{"either, basic", f.a4, "https://opt.test/both/1.0/x", "Basic Zm9vOmJhcg==", true},
		{"certificate API", f.a4, "https://opt.test/pay/1.0/x", "Bearer " + raw, true},
		{"open API", nil, "https://open.test/pub/1.0/x", "Basic Zm9vOmJhcg==", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := ""
			if c.kept {
				want = c.value
			}
			if got := ask(t, c.who, c.target, c.value); got != want {
				t.Errorf("the backend got %.20q, want %.20q", got, want)
			}
		})
	}
	f.routes[2].ForwardAuthorization = true
	f.setRoutes(t)
	if got := ask(t, nil, "https://open.test/tok/1.0/x", "Bearer "+raw); got != "Bearer "+raw {
		t.Errorf("with forwardAuthorization the backend got %.20q", got)
	}
}

// TestForwardedHeaders: the backend is told where the call came from by us alone, and the Host is its own or the client's.
func TestForwardedHeaders(t *testing.T) {
	f := newFixture(t)
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, nil, via{http2: h2, from: "127.0.0.7"})
		trace := "00-11111111111111111111111111111111-2222222222222222-01"
		a := get(t, c, "https://open.test/pub/1.0/x", header("Traceparent", trace), header("X-Request-Id", "mine"), header("X-Forwarded-For", "1.2.3.4"),
			header("X-Custom", "a"), header("X-Custom", "b"))
		got := a.echo(t)
		for name, want := range map[string]string{
			"X-Forwarded-For": "127.0.0.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "open.test", "X-Request-Id": a.id(), "X-Custom": "a|b",
		} {
			if v := strings.Join(got.Header.Values(name), "|"); v != want {
				t.Errorf("%s: %q, want %q", name, v, want)
			}
		}
		if v := got.Header.Get("Traceparent"); len(v) != 55 || v == trace || v[3:35] != a.id() {
			t.Errorf("traceparent %q", v)
		}
		if got.Host != strings.TrimPrefix(f.backend.URL, "http://") {
			t.Errorf("Host %q", got.Host)
		}
	})
	plain := get(t, f.client(t, nil, via{}), "http://open.test/pub/1.0/x").echo(t)
	if plain.Header.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("X-Forwarded-Proto %q over plain HTTP", plain.Header.Get("X-Forwarded-Proto"))
	}
	f.routes[3].Upstream.PreserveHost = true
	f.setRoutes(t)
	if got := get(t, f.client(t, nil, via{}), "https://open.test/pub/1.0/x", host("OPEN.test:8243")).echo(t); got.Host != "OPEN.test:8243" {
		t.Errorf("Host %q with preserveHost", got.Host)
	}
}

// TestForwardedCertificate: with forwardClientCertificateHeader the backend gets the certificate of who was let in.
func TestForwardedCertificate(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.settings.ForwardCertificate = true })
	if got := f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://opt.test/pay/1.0/x") }); got.Header.Get("X-WSO2-CLIENT-CERTIFICATE") != escapedPEM(f.a4) {
		t.Errorf("the backend got %q", got.Header.Get("X-WSO2-CLIENT-CERTIFICATE"))
	}
	got := f.allowed(t, func() answer {
		return get(t, f.client(t, f.a2, via{}), "https://opt.test/both/1.0/x", bearer(f.token(t, "alice", nil)))
	})
	if v, ok := got.Header["X-Wso2-Client-Certificate"]; ok {
		t.Errorf("the backend got a certificate that let nobody in: %q", v)
	}
}

// TestUpstreamTLS: an https backend has to prove itself. Held: security K 143 for what is built.
func TestUpstreamTLS(t *testing.T) {
	w := theWorld()
	now := newClock().Now()
	backends := map[string]struct {
		server *party
		roots  *party
		name   string
		status int
	}{
		"good":            {issue("b", w.serverCA, server("backend.test")), w.serverCA, "127.0.0.1", 200},
		"system root":     {issue("b", theSystemRoot(), server()), nil, "127.0.0.1", 200},
		"wrong CA":        {issue("b", w.caB, server()), w.serverCA, "127.0.0.1", 502},
		"not the system":  {issue("b", w.serverCA, server()), nil, "127.0.0.1", 502},
		"another's roots": {issue("b", theSystemRoot(), server()), w.serverCA, "127.0.0.1", 502},
		"wrong name":      {issue("b", w.serverCA, func(c *x509.Certificate) { c.DNSNames = []string{"other.test"} }), w.serverCA, "127.0.0.1", 502},
		"expired":         {issue("b", w.serverCA, server(), validity(now.AddDate(-20, 0, 0), time.Now().Add(-time.Hour))), w.serverCA, "127.0.0.1", 502},
		"self-signed":     {issue("b", nil, server()), w.serverCA, "127.0.0.1", 502},
	}
	for name, c := range backends {
		t.Run(name, func(t *testing.T) {
			b := unstartedBackend()
			b.TLS = &tls.Config{Certificates: []tls.Certificate{*c.server.tls()}}
			b.StartTLS()
			defer b.Close()
			f := newFixture(t, func(f *fixture, s *setup) {
				up := f.upstream(t, b.URL)
				if c.roots != nil {
					up.Roots = x509.NewCertPool()
					up.Roots.AddCert(c.roots.cert)
					up.TLSDigest = sha256.Sum256(c.roots.cert.Raw)
				}
				s.routes[3].Upstream = up
			})
			a := get(t, f.client(t, nil, via{}), "https://open.test/pub/1.0/x")
			if c.status == 200 {
				if a.status != 200 {
					t.Errorf("status %d (%q)", a.status, a.body)
				}
				return
			}
			a.refused(t, 502, "101503")
			if b.calls.Load() != 0 {
				t.Error("the backend was called")
			}
		})
	}
}

// TestHeadHasNoBody: an answer to HEAD, the backend's or ours, ends with its head.
func TestHeadHasNoBody(t *testing.T) {
	f := newFixture(t)
	c := f.dial(t, nil, "opt.test")
	for path, status := range map[string]int{"/pub/1.0/x": 200, "/pay/1.0/x": 401, "/nothing": 404, "/pay/1.0/open": 200} {
		c.send(t, "HEAD "+path+" HTTP/1.1\nHost: opt.test\n\n")
		if a := c.receive(t, "HEAD"); a.status != status || a.body != "" {
			t.Errorf("%s: status %d, body %q", path, a.status, a.body)
		}
	}
	// The connection is in step: what comes next is the next answer.
	if a := c.get(t, "/pub/1.0/x", "opt.test"); a.status != 200 {
		t.Errorf("after them: status %d", a.status)
	}
	h := f.dialHTTP2(t, nil, "opt.test")
	id := h.open(t, true, ":method", "HEAD", ":scheme", "https", ":authority", "opt.test", ":path", "/pay/1.0/x")
	if a := h.receive(t, id); a.status != 401 || a.body != "" || a.header.Get("content-length") == "" {
		t.Errorf("HTTP/2: %+v", a)
	}
}

// TestChunkedRequestsEndTheirConnection: a request with both Content-Length and Transfer-Encoding is the last of its
// connection, refused or not. net/http does not tell it from one without, so with it each chunked one is.
func TestChunkedRequestsEndTheirConnection(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/pub/1.0/x", "/pay/1.0/x", "/nothing"} {
		for _, lines := range []string{"Content-Length: 3\nTransfer-Encoding: chunked\n", "Transfer-Encoding: chunked\nContent-Length: 3\n"} {
			c := f.dial(t, nil, "opt.test")
			before := f.backend.calls.Load()
			c.send(t, "POST "+path+" HTTP/1.1\nHost: opt.test\n"+lines+"\n0\n\nGET /pub/1.0/smuggled HTTP/1.1\nHost: opt.test\n\n")
			a := c.receive(t, "POST")
			if a.header.Get("Connection") != "close" {
				t.Errorf("%s, %q: Connection %q", path, lines, a.header.Get("Connection"))
			}
			if !c.ended() {
				t.Errorf("%s, %q: the connection goes on", path, lines)
			}
			if n := f.backend.calls.Load() - before; n > 1 || f.backend.count("/smuggled") > 0 {
				t.Errorf("%s, %q: the backend was called %d times", path, lines, n)
			}
		}
	}
}

// TestExplainForwardsNothing: a question forwards nothing and takes nothing from the backend.
func TestExplainForwardsNothing(t *testing.T) {
	f := newFixture(t)
	before := f.backend.calls.Load()
	e := f.gateway.Explain(t.Context(), decision.Question{
		Listener: &f.listeners[0], Local: mustAddr("127.0.0.1"), Host: "mtls.test", Method: "GET", Target: "/pay/1.0/x",
		Chain: []*x509.Certificate{f.a4.cert, f.interA.cert},
	})
	if !e.Allowed || e.By != "certificate" || f.backend.calls.Load() != before {
		t.Errorf("explained as %+v", e)
	}
	e = f.gateway.Explain(t.Context(), decision.Question{
		Listener: &f.listeners[0], Local: mustAddr("127.0.0.1"), Host: "opt.test", Method: "GET", Target: "/both/1.0/x",
		Chain: []*x509.Certificate{f.a2.cert, f.interA.cert}, Authorization: "Bearer " + f.expiredToken(t),
	})
	if e.Allowed || e.Status != 401 || e.Code != "900903" || len(e.Steps) == 0 {
		t.Errorf("explained as %+v", e)
	}
}
