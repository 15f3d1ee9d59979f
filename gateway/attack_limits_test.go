package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sallyport/gateway/decision"
)

// turnedAway counts connections that were refused, by the reason.
type turnedAway struct {
	mu    sync.Mutex
	count map[string]int
}

func (a *turnedAway) add(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count == nil {
		a.count = map[string]int{}
	}
	a.count[why]++
}

func (a *turnedAway) of(why string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[why]
}

// TestSlowClients: whoever keeps the gateway waiting, in any way, loses the connection, and nobody else notices. The waits
// are shortened; what is shown is that each of them ends. Held: security H 105, 106, 113 in small.
func TestSlowClients(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Hasten(5*time.Second, 5*time.Second, 5*time.Second) // which a client in order keeps to on a busy machine
		s.config.Limits.BodyRate = 1 << 20
	})
	f.backend.handle("/endless", func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	bytesOnly := func(address, text string) func(*testing.T) io.Reader {
		return func(t *testing.T) io.Reader {
			c := dialRaw(t, address, nil)
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	inTLS := func(text string) func(*testing.T) io.Reader {
		return func(t *testing.T) io.Reader {
			c := f.dial(t, nil, "open.test")
			c.send(t, text)
			return c
		}
	}
	inHTTP2 := func(run func(h *framed)) func(*testing.T) io.Reader {
		return func(t *testing.T) io.Reader {
			h := f.dialHTTP2(t, nil, "open.test")
			run(h)
			return h.Conn
		}
	}
	for name, begin := range map[string]func(*testing.T) io.Reader{
		"nothing":                       bytesOnly(f.plain, ""),
		"half a head":                   bytesOnly(f.plain, "GET /pub/1.0/x HTTP/1.1\r\nHost: op"),
		"half a preface":                bytesOnly(f.plain, http2.ClientPreface[:10]),
		"a preface without an end":      bytesOnly(f.plain, http2.ClientPreface[:18]),
		"no handshake":                  bytesOnly(f.address, ""),
		"half a ClientHello":            bytesOnly(f.address, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
		"a huge ClientHello that stops": bytesOnly(f.address, "\x16\x03\x01\x40\x00\x01\x00\xff\xfc\x03\x03"+strings.Repeat("x", 9000)),
		"nothing in TLS":                inTLS(""),
		"half a head in TLS":            inTLS("GET /pub/1.0/x HTTP/1.1\nX: y\n"),
		"idle after a call":             inTLS("GET /pub/1.0/x HTTP/1.1\nHost: open.test\n\n"),
		"half a second head":            inTLS("GET /pub/1.0/x HTTP/1.1\nHost: open.test\n\nGET /p"),
		"half a body":                   inTLS("POST /pub/1.0/x HTTP/1.1\nHost: open.test\nContent-Length: 1000\n\nhalf"),
		"half a chunk":                  inTLS("POST /pub/1.0/x HTTP/1.1\nHost: open.test\nTransfer-Encoding: chunked\n\n9\nhalf"),
		"a refused call's body":         inTLS("POST /pay/1.0/x HTTP/1.1\nHost: open.test\nContent-Length: 1000\n\nhalf"),
		"a wrong call's body":           inTLS("POST /nothing HTTP/1.1\nHost: open.test\nTransfer-Encoding: chunked\n\n9\nhalf"),
		"HTTP/2 without a call":         inHTTP2(func(*framed) {}),
		"HTTP/2 with half a head": inHTTP2(func(h *framed) {
			_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}) // the connection's end tells
		}),
		"HTTP/2 with half a frame": inHTTP2(func(h *framed) { _, _ = h.Write([]byte{0, 0, 9, 0}) }),
		"HTTP/2 with half a body": inHTTP2(func(h *framed) {
			id := h.ask(t, false)
			_ = h.framer.WriteData(id, false, []byte("half"))
		}),
	} {
		t.Run(strings.ReplaceAll(name, "/", ""), func(t *testing.T) {
			t.Parallel()
			var all []io.Reader
			for range 5 {
				all = append(all, begin(t))
			}
			for _, c := range all {
				if _, err := io.Copy(io.Discard, c); isTimeout(err) {
					t.Error("the connection is still open")
				}
			}
		})
	}
	t.Run("slow readers", func(t *testing.T) {
		t.Parallel()
		const endless = "GET /pub/1.0/endless HTTP/1.1\nHost: open.test\n\n"
		for range 5 {
			f.dial(t, nil, "open.test").send(t, endless)
			f.dialPlain(t).send(t, endless)
			h := f.dialHTTP2(t, nil, "open.test")
			h.ask(t, true, ":method", "GET", ":path", "/pub/1.0/endless")
		}
		eventually(t, "the calls of those who read nothing are broken off", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			n := 0
			for _, s := range f.calls {
				if strings.HasSuffix(s.Path, "/endless") && s.Reason != "" {
					n++
				}
			}
			return n == 15
		})
	})
	t.Run("others", func(t *testing.T) {
		t.Parallel()
		for range 50 {
			if a := get(t, f.client(t, f.a4, via{http2: true}), "https://mtls.test/pay/1.0/x"); a.status != 200 {
				t.Errorf("status %d", a.status)
			}
		}
	})
}

// TestRefusedCallsDoNotWait: a client that is refused is told at once, though its body has not come, and what it sends
// later is nobody's call.
func TestRefusedCallsDoNotWait(t *testing.T) {
	f := newFixture(t)
	for _, lines := range []string{"Content-Length: 1000000\n", "Transfer-Encoding: chunked\n", "Content-Length: 5\nExpect: 100-continue\n"} {
		for path, status := range map[string]int{"/pay/1.0/x": 401, "/nothing": 404, "/pub/1.0/../x": 400} {
			c := f.dial(t, nil, "open.test")
			before := f.backend.calls.Load()
			c.send(t, "POST "+path+" HTTP/1.1\nHost: open.test\n"+lines+"\n")
			if a := c.receive(t, "POST"); a.status != status {
				t.Errorf("%s, %q: status %d, want %d", path, lines, a.status, status)
			}
			if !c.ended() {
				t.Errorf("%s, %q: the connection goes on", path, lines)
			}
			if f.backend.calls.Load() != before {
				t.Errorf("%s, %q: the backend was called", path, lines)
			}
		}
	}
}

// TestSlowBackendHoldsNobodyElse: a backend has as many calls as its API allows, the others are told to come again, and
// other APIs don't notice. Held: security H 115.
func TestSlowBackendHoldsNobodyElse(t *testing.T) {
	f := newFixture(t, func(f *fixture, s *setup) {
		i := slices.IndexFunc(s.routes, func(r decision.Route) bool { return r.API == pubAPI })
		s.routes[i].Upstream.MaxCalls, s.routes[i].Upstream.MaxCallsPerCaller = 5, 5
	})
	arrived, leave := make(chan struct{}, 100), make(chan struct{})
	f.backend.handle("/hold", func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-leave
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		eventually(t, "no call is under way", func() bool { return f.gateway.UnderWay() == 0 }) // after its answer, for a moment
		leave = make(chan struct{})
		c := f.client(t, nil, via{http2: h2})
		var held sync.WaitGroup
		for range 5 {
			held.Go(func() {
				if a, err := do(c, "GET", "https://open.test/pub/1.0/hold", nil); err != nil || a.status != 200 {
					t.Errorf("a call that was held: status %d, %v", a.status, err)
				}
			})
		}
		for range 5 {
			<-arrived
		}
		for range 20 {
			a := f.denied(t, 503, "503", func() answer { return get(t, c, "https://open.test/pub/1.0/hold") })
			if a.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}
		f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{http2: h2}), "https://mtls.test/pay/1.0/x") })
		close(leave)
		held.Wait()
		eventually(t, "the backend is free again", func() bool { return get(t, c, "https://open.test/pub/1.0/x").status == 200 })
	})
}

// TestHeadsAreBounded: too many header lines and too large a head are 431, of which net/http says the second itself, at
// 64 KiB and its 4 KiB of leeway. Held: security H 109.
func TestHeadsAreBounded(t *testing.T) {
	f := newFixture(t)
	lines := func(n int, line string) string { return strings.Repeat(line, n) }
	for name, more := range map[string]string{
		"one line": "X: " + strings.Repeat("x", 69<<10) + "\r\n", "201 lines": lines(201, "X: y\r\n"), "10,000 lines": lines(10_000, "X: y\r\n"), "10,000 short lines": lines(10_000, "A:\r\n"),
		"1,000 cookies": lines(1000, "Cookie: a=b\r\n"), "many names": func() string {
			var b strings.Builder
			for i := range 300 {
				fmt.Fprintf(&b, "X-%d: y\r\n", i)
			}
			return b.String()
		}(),
	} {
		before := f.backend.calls.Load()
		statuses, got, err := sendRaw(f.plain, head("GET /pub/1.0/x HTTP/1.1", more, "Connection: close\r\n"))
		if err != nil || !slices.Equal(statuses, []int{431}) || f.backend.calls.Load() != before {
			t.Errorf("%s: statuses %v, %v (%.200q)", name, statuses, err, got)
		}
	}
	for name, fields := range map[string][]string{
		"one line": {"x", strings.Repeat("x", 69<<10)}, "201 lines": slices.Repeat([]string{"x", "y"}, 201), "10,000 lines": slices.Repeat([]string{"x", "y"}, 10_000),
	} {
		before := f.backend.calls.Load()
		h := f.dialHTTP2(t, nil, "open.test")
		h.block.Reset()
		id := h.stream
		if name == "201 lines" {
			id = h.ask(t, true, fields...)
		} else {
			writeLong(t, h, fields)
		}
		if a := h.receive(t, id); a.status != 431 && a.status != 0 || f.backend.calls.Load() != before {
			t.Errorf("HTTP/2, %s: status %d", name, a.status)
		}
	}
	// What fits is let through whole.
	var fits strings.Builder
	for i := range 150 {
		fmt.Fprintf(&fits, "X-%d: %s\n", i, strings.Repeat("y", 300))
	}
	c := f.dialPlain(t)
	c.send(t, "GET /pub/1.0/x HTTP/1.1\nHost: open.test\n"+fits.String()+"\n")
	if got := c.receive(t, "GET").echo(t); len(got.Header["X-149"]) != 1 {
		t.Error("a head that fits is not whole")
	}
}

// writeLong writes a block of headers that takes several frames.
func writeLong(t *testing.T, h *framed, fields []string) {
	t.Helper()
	h.block.Reset()
	for pair := range slices.Chunk(append([]string{":method", "GET", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/x"}, fields...), 2) {
		if err := h.encode.WriteField(headerField(pair)); err != nil {
			t.Fatal(err)
		}
	}
	rest := []byte(h.block.String())
	first := rest[:min(len(rest), 16<<10)]
	rest = rest[len(first):]
	_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: len(rest) == 0}) // the answer tells
	for len(rest) > 0 {
		n := min(len(rest), 16<<10)
		_ = h.framer.WriteContinuation(1, n == len(rest), rest[:n])
		rest = rest[n:]
	}
}

// TestCompressedBodiesPassThrough: what is compressed is neither inflated nor told of. Held: security H 112.
func TestCompressedBodiesPassThrough(t *testing.T) {
	f := newFixture(t)
	text := "\x1f\x8b\x08 no gzip at all, and nobody looks"
	f.backend.handle("/gzip", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != text || r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("the backend got %q, %v", body, r.Header)
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, text)
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		a, err := do(f.client(t, nil, via{http2: h2}), "POST", "https://open.test/pub/1.0/gzip", strings.NewReader(text), header("Content-Encoding", "gzip"))
		if err != nil || a.body != text || a.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%q, %v, %v", a.body, a.header, err)
		}
	})
}
