package gateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ask begins a call with the pseudo headers of a good one, but for those that are given; a "-" leaves one out.
func (h *framed) ask(t testing.TB, end bool, fields ...string) uint32 {
	t.Helper()
	pseudo := []string{":method", "POST", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/x"}
	var rest []string
	given := map[string]bool{}
	for i := 0; i < len(fields); i += 2 {
		j := slices.Index(pseudo, fields[i])
		switch {
		case j >= 0 && given[fields[i]]: // the second one of its name
			pseudo = append(pseudo, fields[i], fields[i+1])
		case j >= 0:
			pseudo[j+1], given[fields[i]] = fields[i+1], true
		default:
			rest = append(rest, fields[i], fields[i+1])
		}
	}
	var all []string
	for j := 0; j < len(pseudo); j += 2 {
		if pseudo[j+1] != "-" {
			all = append(all, pseudo[j], pseudo[j+1])
		}
	}
	return h.open(t, end, append(all, rest...)...)
}

// TestHTTP2RequestsThatAreNone: what HTTP/2 can carry and HTTP/1.1 reads otherwise is an error of the stream or 400, and no
// backend hears of it. Held: security F 92.
func TestHTTP2RequestsThatAreNone(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		name   string
		fields []string
		body   string
	}{
		{name: "less body than content-length", fields: []string{"content-length", "10"}, body: "abc"},
		{name: "more body than content-length", fields: []string{"content-length", "2"}, body: "abc"},
		{name: "content-length without a body", fields: []string{"content-length", "2"}},
		{name: "two content-lengths", fields: []string{"content-length", "3", "content-length", "4"}, body: "abc"},
		{name: "a content-length that is none", fields: []string{"content-length", "+3"}, body: "abc"},
		{name: "CR in a value", fields: []string{"x", "a\rb"}},
		{name: "LF in a value", fields: []string{"x", "a\nb: c"}},
		{name: "NUL in a value", fields: []string{"x", "a\x00b"}},
		{name: "CRLF in a value", fields: []string{"x", "a\r\n\r\nGET /pub/1.0/smuggled HTTP/1.1\r\n\r\n"}},
		{name: "CRLF in a name", fields: []string{"x\r\ny", "z"}},
		{name: "space in a name", fields: []string{"x y", "z"}},
		{name: "colon in a name", fields: []string{"x:y", "z"}},
		{name: "no name", fields: []string{"", "z"}},
		{name: "upper-case name", fields: []string{"X-Upper", "z"}},
		{name: "space in the path", fields: []string{":path", "/pub/1.0/x y"}},
		{name: "HTTP/1.1 in the path", fields: []string{":path", "/pub/1.0/x HTTP/1.1\r\nX: y\r\n\r\n"}},
		{name: "newline in the path", fields: []string{":path", "/pub/1.0/x\n"}},
		{name: "NUL in the path", fields: []string{":path", "/pub/1.0/x\x00"}},
		{name: "empty path", fields: []string{":path", ""}},
		{name: "no path", fields: []string{":path", "-"}},
		{name: "relative path", fields: []string{":path", "pub/1.0/x"}},
		{name: "star", fields: []string{":path", "*"}},
		{name: "absolute path", fields: []string{":path", "https://open.test/pub/1.0/x"}},
		{name: "absolute path of another host", fields: []string{":path", "https://mtls.test/pub/1.0/x"}},
		{name: "fragment", fields: []string{":path", "/pub/1.0/x#y"}},
		{name: "method with a target", fields: []string{":method", "GET /x"}},
		{name: "method with a request", fields: []string{":method", "GET / HTTP/1.1\r\n"}},
		{name: "empty method", fields: []string{":method", ""}},
		{name: "no method", fields: []string{":method", "-"}},
		{name: "CONNECT with a path", fields: []string{":method", "CONNECT"}},
		{name: "CONNECT", fields: []string{":method", "CONNECT", ":path", "-", ":scheme", "-"}},
		{name: "extended CONNECT", fields: []string{":method", "CONNECT", ":protocol", "websocket"}},
		{name: "no scheme", fields: []string{":scheme", "-"}},
		{name: "two methods", fields: []string{":method", "GET", ":method", "POST"}},
		{name: "two paths", fields: []string{":path", "/pub/1.0/x", ":path", "/pub/1.0/y"}},
		{name: "two authorities", fields: []string{":authority", "open.test", ":authority", "opt.test"}},
		{name: "a pseudo header behind the others", fields: []string{"x", "y", ":late", "z"}},
		{name: "an unknown pseudo header", fields: []string{":unknown", "x"}},
		{name: "a status", fields: []string{":status", "200"}},
		{name: "host of another name", fields: []string{"host", "mtls.test"}},
		{name: "two hosts", fields: []string{"host", "open.test", "host", "mtls.test"}},
		{name: "authority with a user", fields: []string{":authority", "x@open.test"}},
		{name: "authority with a path", fields: []string{":authority", "open.test/x"}},
		{name: "no authority and no host", fields: []string{":authority", "-"}},
		{name: "connection", fields: []string{"connection", "close"}},
		{name: "keep-alive", fields: []string{"keep-alive", "x"}},
		{name: "proxy-connection", fields: []string{"proxy-connection", "x"}},
		{name: "transfer-encoding", fields: []string{"transfer-encoding", "chunked"}, body: "0\r\n\r\n" + smuggled},
		{name: "transfer-encoding in capitals", fields: []string{"Transfer-Encoding", "chunked"}, body: "0\r\n\r\n" + smuggled},
		{name: "upgrade", fields: []string{"upgrade", "h2c"}},
		{name: "te", fields: []string{"te", "chunked"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := f.backend.calls.Load()
			conn := f.dialHTTP2(t, nil, "open.test")
			id := conn.ask(t, c.body == "" && !strings.Contains(c.name, "without a body"), c.fields...)
			if c.body != "" || strings.Contains(c.name, "without a body") {
				_ = conn.framer.WriteData(id, true, []byte(c.body)) // the connection may have ended
			}
			a := conn.receive(t, id)
			if a.status != 0 && a.status != 400 && a.status != 421 {
				t.Errorf("status %d (%.200q)", a.status, a.body)
			}
			if n := f.backend.whole(); n > 0 || f.backend.calls.Load() > before && !strings.Contains(c.name, "content-length") {
				t.Errorf("the backend was called (%d whole)", n)
			}
		})
	}
	// One connection: a bad stream harms no good one.
	conn := f.dialHTTP2(t, nil, "open.test")
	bad := conn.ask(t, true, ":path", "/pub/1.0/../x")
	if a := conn.receive(t, bad); a.status != 400 {
		t.Errorf("status %d", a.status)
	}
	if a := conn.get(t, "/pub/1.0/x", "open.test"); a.status != 200 {
		t.Errorf("after a bad stream: status %d", a.status)
	}
	if f.backend.count("/smuggled") > 0 {
		t.Error("a request was smuggled")
	}
}

// whole counts the calls whose body came to its end, and forgets them.
func (b *testBackend) whole() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, r := range b.records {
		if r.Header.Get("Content-Length") == "" || r.Header.Get("Content-Length") == fmt.Sprint(r.Bytes) {
			n++
		}
	}
	b.records = nil
	return n
}

// TestBackendAnswersBeforeTheBodyEnds: over HTTP/2 the transport goes on reading a body after the call has ended; many
// such calls on one connection end well, and so does what follows.
func TestBackendAnswersBeforeTheBodyEnds(t *testing.T) {
	for _, rate := range []int{0, 1 << 20} {
		f := newFixture(t, func(_ *fixture, s *setup) { s.config.Limits.BodyRate = rate })
		f.backend.handle("/early", func(w http.ResponseWriter, r *http.Request) {
			c, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = buffered.WriteString("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n")
			_ = buffered.Flush()
			_, _ = io.CopyN(io.Discard, c, 1<<10) // so that it is on its way, whatever has become of it
		})
		eachVersion(t, func(t *testing.T, h2 bool) {
			c := f.client(t, nil, via{http2: h2})
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					in, out := io.Pipe()
					go func() {
						chunk := bytes.Repeat([]byte("x"), 8<<10)
						for range 32 {
							if _, err := out.Write(chunk); err != nil {
								return
							}
						}
						out.Close()
					}()
					a, err := do(c, "POST", "https://open.test/pub/1.0/early", in)
					in.Close()
					// A backend that closes while it is sent a body may be seen to break off.
					if err == nil && a.status != 403 && a.status != 502 {
						t.Errorf("status %d (%.100q)", a.status, a.body)
					}
				})
			}
			wg.Wait()
			if a := get(t, c, "https://open.test/pub/1.0/x"); a.status != 200 {
				t.Errorf("after that: status %d", a.status)
			}
		})
		if strings.Contains(f.log.String(), "panic") {
			t.Errorf("a call panicked:\n%s", f.log)
		}
	}
}

// A flood is an HTTP/2 connection that an attacker floods, and what it may come to.
type flood struct {
	name string
	// run floods until the other end closes, or it has sent its fill.
	run func(t *testing.T, h *framed)
	// ends: the gateway has to end the connection by itself. The others cost it no memory, and the connection's own
	// processor time: net/http tells all SETTINGS at once that it has them, and ends idle connections whatever they say.
	ends bool
}

func floods() []flood {
	// burst writes n frames, a thousand at a time, until the other end closes.
	burst := func(h *framed, n int, frame func(*http2.Framer, int) error) {
		var buffer bytes.Buffer
		f := http2.NewFramer(&buffer, nil)
		f.AllowIllegalWrites = true
		for i := range n {
			_ = frame(f, i) // it goes to memory
			if i%1000 == 999 || i == n-1 {
				if _, err := h.Write(buffer.Bytes()); err != nil {
					return
				}
				buffer.Reset()
			}
		}
	}
	block := func(fields ...string) []byte {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		e.SetMaxDynamicTableSize(0)
		for i := 0; i < len(fields); i += 2 {
			_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // to memory
		}
		return b.Bytes()
	}
	get := block(":method", "GET", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/hang")
	post := block(":method", "POST", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/hang")
	id := func(i int) uint32 { return uint32(2*i + 1) }
	headers := func(f *http2.Framer, id uint32, b []byte, end bool) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b, EndHeaders: true, EndStream: end})
	}
	return []flood{
		{name: "rapid reset", run: func(_ *testing.T, h *framed) {
			burst(h, 5_000, func(f *http2.Framer, i int) error {
				_ = headers(f, id(i), get, true)
				return f.WriteRSTStream(id(i), http2.ErrCodeCancel)
			})
		}},
		{name: "reset by a window that overflows", run: func(_ *testing.T, h *framed) {
			burst(h, 2_000, func(f *http2.Framer, i int) error {
				_ = headers(f, id(i), post, false)
				return f.WriteWindowUpdate(id(i), 1<<31-1)
			})
		}},
		{name: "reset by an empty window update", run: func(_ *testing.T, h *framed) {
			burst(h, 2_000, func(f *http2.Framer, i int) error {
				_ = headers(f, id(i), post, false)
				return f.WriteWindowUpdate(id(i), 0)
			})
		}},
		{name: "reset by data behind the end", run: func(_ *testing.T, h *framed) {
			burst(h, 2_000, func(f *http2.Framer, i int) error {
				_ = headers(f, id(i), post, true)
				return f.WriteData(id(i), false, []byte("x"))
			})
		}},
		{name: "reset by a stream that depends on itself", run: func(_ *testing.T, h *framed) {
			burst(h, 2_000, func(f *http2.Framer, i int) error {
				_ = headers(f, id(i), post, false)
				return f.WritePriority(id(i), http2.PriorityParam{StreamDep: id(i)})
			})
		}},
		{name: "CONTINUATION", ends: true, run: func(_ *testing.T, h *framed) {
			line := block("x-flood", strings.Repeat("x", 8<<10))
			_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get}) // what follows tells
			burst(h, 8_000, func(f *http2.Framer, _ int) error { return f.WriteContinuation(1, false, line) })
		}},
		{name: "empty CONTINUATION", run: func(_ *testing.T, h *framed) {
			_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get}) // what follows tells
			burst(h, 20_000, func(f *http2.Framer, _ int) error { return f.WriteContinuation(1, false, nil) })
		}},
		{name: "PING", ends: true, run: func(_ *testing.T, h *framed) {
			burst(h, 3_000_000, func(f *http2.Framer, _ int) error { return f.WritePing(false, [8]byte{}) })
		}},
		{name: "SETTINGS", run: func(_ *testing.T, h *framed) {
			burst(h, 20_000, func(f *http2.Framer, _ int) error { return f.WriteSettings() })
		}},
		{name: "empty DATA", run: func(_ *testing.T, h *framed) {
			_ = headers(h.framer, 1, post, false) // what follows tells
			burst(h, 20_000, func(f *http2.Framer, _ int) error { return f.WriteData(1, false, nil) })
		}},
		{name: "PRIORITY", run: func(_ *testing.T, h *framed) {
			burst(h, 20_000, func(f *http2.Framer, i int) error {
				return f.WritePriority(id(i%1000), http2.PriorityParam{StreamDep: 0, Weight: 7})
			})
		}},
		{name: "WINDOW_UPDATE", run: func(_ *testing.T, h *framed) {
			_ = headers(h.framer, 1, get, true)
			burst(h, 20_000, func(f *http2.Framer, _ int) error { return f.WriteWindowUpdate(1, 1) })
		}},
		{name: "HPACK", run: func(t *testing.T, h *framed) {
			// A line of 4,000 bytes is told once and then named by a byte: 16 KiB of frames are 64 MiB of headers.
			var b bytes.Buffer
			e := hpack.NewEncoder(&b)
			for _, f := range []string{":method GET", ":scheme https", ":authority open.test", ":path /pub/1.0/x"} {
				name, value, _ := strings.Cut(f, " ")
				_ = e.WriteField(hpack.HeaderField{Name: name, Value: value}) // to memory
			}
			_ = e.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 4000)})
			b.Write(bytes.Repeat([]byte{0x80 | 62}, 16_000-b.Len()))
			if err := headers(h.framer, 1, b.Bytes(), true); err != nil {
				t.Fatal(err)
			}
			if a := h.receive(t, 1); a.status != 431 && a.status != 0 {
				t.Errorf("status %d", a.status)
			}
		}},
	}
}

// TestHTTP2Floods floods one connection in each way. Meanwhile another client is served, and no backend has more calls
// under way than the connection may have streams, give or take those that it has not seen the end of. Afterwards nothing
// of the flood is left. Held: security H 107, 108.
func TestHTTP2Floods(t *testing.T) {
	f := newFixture(t)
	var underWay, most atomic.Int64
	f.backend.handle("/hang", func(_ http.ResponseWriter, r *http.Request) {
		now := underWay.Add(1)
		defer underWay.Add(-1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		_, _ = io.Copy(io.Discard, r.Body) // before its end net/http does not look whether the gateway is still there
		<-r.Context().Done()
	})
	for _, flood := range floods() {
		t.Run(strings.ReplaceAll(flood.name, " ", "_"), func(t *testing.T) {
			most.Store(0)
			h := f.dialHTTP2(t, nil, "open.test")
			done := make(chan struct{})
			go func() {
				defer close(done)
				flood.run(t, h)
				h.settle(t, flood.ends)
			}()
			good := f.client(t, f.a4, via{http2: true})
			for calls := 0; ; calls++ {
				if a := get(t, good, "https://mtls.test/pay/1.0/x"); a.status != 200 {
					t.Errorf("a client beside the flood: status %d", a.status)
				}
				select {
				case <-done:
				default:
					continue
				}
				t.Logf("%d calls beside it; %d calls at the backend at most", calls, most.Load())
				break
			}
			h.Close()
			eventually(t, "the backend's calls end", func() bool { return underWay.Load() == 0 })
			if n := most.Load(); n > 10*100 {
				t.Errorf("the backend had %d calls at once", n)
			}
		})
	}
	eventually(t, "only good connections are left", func() bool { return f.gateway.OpenConnections() <= len(floods()) })
}

// settle waits until the other end has read all that was sent, or has ended the connection.
func (h *framed) settle(t *testing.T, ends bool) {
	last := [8]byte{'l', 'a', 's', 't'}
	_ = h.framer.WritePing(false, last) // the connection may have ended
	for {
		frame, err := h.framer.ReadFrame()
		if isTimeout(err) {
			t.Error("the connection is still open, and not served")
		}
		if err != nil {
			var stream http2.StreamError
			if errors.As(err, &stream) {
				continue
			}
			return
		}
		if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() && ping.Data == last {
			if ends {
				t.Error("the connection goes on")
			}
			return
		}
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(interface{ Timeout() bool })
	return ok && timeout.Timeout()
}

func headerField(pair []string) hpack.HeaderField {
	return hpack.HeaderField{Name: pair[0], Value: pair[1]}
}

// TestInterimAnswersToCutStreams: a client that ends its streams while interim answers are under way to it ends nothing else.
// net/http may then still be reading the fields of one while the next is made, which the race detector sees, and which in
// earnest ends the process.
func TestInterimAnswersToCutStreams(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.backend.handle("/hints", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 10 {
			for j := range 20 {
				w.Header().Set(fmt.Sprintf("X-Hint-%d-%d", i, j), "a hint")
			}
			w.WriteHeader(http.StatusEarlyHints)
		}
	})
	var clients sync.WaitGroup
	for range 20 {
		h := f.dialHTTP2(t, nil, "open.test")
		clients.Go(func() { // what comes is not looked at
			_, _ = io.Copy(io.Discard, h.Conn)
		})
		for i := range 250 {
			id := h.ask(t, true, ":method", "GET", ":path", "/pub/1.0/hints")
			for range i % 50 { // sooner or later; fewer in all than net/http lets wait for an answer
				_ = h.framer.WritePing(false, [8]byte{})
			}
			_ = h.framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		h.Conn.Close()
	}
	clients.Wait()
}
