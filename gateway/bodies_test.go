package gateway_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sallyport/gateway/backend"
)

// TestLargeBodies: 64 MiB pass in both directions, byte for byte, in bounded memory.
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
		// Client, gateway and backend share this process: had one of them kept the body, this would be 64 MiB.
		if grown := peak(); grown > 32<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
}

// watchHeap samples the live heap until the function it returns is called, which returns the largest growth.
func watchHeap(t testing.TB) func() uint64 {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base, most := m.HeapAlloc, m.HeapAlloc
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.GC() // or garbage would count, of which there is more on a busy machine
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

// TestHugeBodies: bodies of any size pass in both directions in bounded memory, over each protocol of the backend.
// SALLYPORT_HUGE=1 makes them 1 GiB; else they are 96 MiB, three times what the heap may grow by.
// Held: security H 111.
func TestHugeBodies(t *testing.T) {
	size := int64(96 << 20)
	if os.Getenv("SALLYPORT_HUGE") != "" {
		size = 1 << 30
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Got", fmt.Sprint(n, err))
		if r.Method == "GET" {
			_, _ = io.CopyN(w, zeros{}, size)
		}
	}
	f := newFixture(t, func(f *fixture, s *setup) {
		s.routes[3].Upstream = f.upstream(t, h2cBackend(t, handler))
		s.routes[3].Upstream.Protocol = backend.H2C
	})
	f.backend.handle("/huge", handler)
	for _, c := range []struct {
		api string
		h2  bool
	}{{"pay", false}, {"pay", true}, {"pub", true}} {
		cl := f.client(t, f.a4, via{http2: c.h2, sni: "mtls.test"})
		peak := watchHeap(t)
		a, err := do(cl, "POST", "https://mtls.test/"+c.api+"/1.0/huge", io.LimitReader(zeros{}, size))
		if err != nil || a.header.Get("X-Got") != fmt.Sprint(size, " <nil>") {
			t.Errorf("%v up: %v, %q", c, err, a.header.Get("X-Got"))
		}
		res, err := cl.Get("https://mtls.test/" + c.api + "/1.0/huge")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
			t.Errorf("%v down: %d bytes, %v", c, n, err)
		}
		res.Body.Close()
		if grown := peak(); grown > 32<<20 {
			t.Errorf("%v: the heap grew by %d MiB", c, grown>>20)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestCompressedBodies: compressed bodies pass unchanged in both directions. Held: security H 112.
func TestCompressedBodies(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 32 {
		_, _ = z.Write(zeros)
	}
	z.Close()
	f := newFixture(t)
	f.backend.handle("/bomb", func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("X-Same", strconv.FormatBool(bytes.Equal(got, bomb.Bytes()) && r.Header.Get("Content-Encoding") == "gzip"))
		w.Header().Set("X-Accept", r.Header.Get("Accept-Encoding"))
		_, _ = w.Write(bomb.Bytes())
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		a, err := do(f.client(t, nil, via{http2: h2}), "POST", "https://open.test/pub/1.0/bomb", bytes.NewReader(bomb.Bytes()), header("Content-Encoding", "gzip"))
		if err != nil {
			t.Fatal(err)
		}
		if a.body != bomb.String() || a.header.Get("Content-Encoding") != "gzip" || a.header.Get("X-Same") != "true" || a.header.Get("X-Accept") != "" {
			t.Errorf("%d bytes with %v", len(a.body), a.header)
		}
	})
}

// TestMaxBodySize: a body larger than MaxBody is 413, whether its length is stated or not, and the backend gets no more
// than MaxBody bytes. Held: security H 111 for the limit.
func TestMaxBodySize(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.routes[3].MaxBody = 1000 })
	var most atomic.Int64
	f.backend.handle("/size", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		for n := int64(len(body)); ; {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		fmt.Fprint(w, len(body), err)
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		for _, c := range []struct {
			size   int
			status int
		}{{1000, 200}, {1001, 413}, {100_000, 413}, {4 << 20, 413}} {
			for _, told := range []bool{true, false} {
				var body io.Reader = strings.NewReader(strings.Repeat("x", c.size))
				if !told {
					body = io.MultiReader(body)
				}
				a, err := do(f.client(t, nil, via{http2: h2}), "POST", "https://open.test/pub/1.0/size", body)
				if err != nil {
					// The client may still be sending when it is refused.
					if c.size < 1<<20 {
						t.Errorf("%d, told %v: %v", c.size, told, err)
					}
					continue
				}
				if c.status == 413 {
					a.refused(t, 413, "413")
				} else if a.status != c.status || a.body != "1000 <nil>" {
					t.Errorf("%d, told %v: status %d (%q)", c.size, told, a.status, a.body)
				}
			}
		}
	})
	if n := most.Load(); n > 1000 {
		t.Errorf("the backend got %d bytes", n)
	}
}

// TestBodyRate: a request body that stalls is 408, and an answer that the client does not read is broken off. A request
// body that is slow because the backend does not read passes. Held: security H 105 for bodies.
func TestBodyRate(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits.BodyRate = 1 << 20
		s.config.Hasten(0, 0, grace)
	})
	gone := make(chan struct{}, 8)
	f.backend.handle("/pour", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				gone <- struct{}{}
				return
			}
		}
	})
	next := make(chan struct{})
	f.backend.handle("/thinks", func(w http.ResponseWriter, r *http.Request) {
		<-next
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	for name, head := range map[string]string{"told": "Content-Length: 1000\n\nabc", "chunked": "Transfer-Encoding: chunked\n\n3\nabc\n"} {
		c := f.dial(t, nil, "open.test")
		c.send(t, "POST /pub/1.0/x HTTP/1.1\nHost: open.test\n"+head)
		c.receive(t, "POST").refused(t, 408, "408")
		if !c.ended() {
			t.Errorf("%s: the connection goes on", name)
		}
	}
	h := f.dialHTTP2(t, nil, "open.test")
	id := h.open(t, false, ":method", "POST", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/x")
	if err := h.framer.WriteData(id, false, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	h.receive(t, id).refused(t, 408, "408")
	f.allowed(t, func() answer { return h.get(t, "/pub/1.0/x", "open.test") }) // its neighbours live on

	// Answers that the client does not read.
	c := f.dial(t, nil, "open.test")
	c.send(t, "GET /pub/1.0/pour HTTP/1.1\nHost: open.test\n\n")
	<-gone
	h = f.dialHTTP2(t, nil, "open.test")
	h.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/pour")
	<-gone // nothing was read from the connection
	h = f.dialHTTP2(t, nil, "open.test")
	if err := h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}); err != nil {
		t.Fatal(err)
	}
	id = h.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/pour")
	if a := h.receive(t, id); a.status != 0 || len(a.body) > 1000 && !strings.Contains(a.body, "INTERNAL") {
		t.Errorf("a stream without a window: %d, %.100q", a.status, a.body)
	}
	<-gone
	f.allowed(t, func() answer { return h.get(t, "/pub/1.0/x", "open.test") })

	eventually(t, "the log names the limit of those calls, and of no other", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		ended := map[string]int{}
		for _, s := range f.calls {
			if s.Limit != "" {
				ended[string(s.Limit)+" "+s.Reason]++
			}
		}
		return maps.Equal(ended, map[string]int{"body_rate body_too_slow": 3, "body_rate client_gone": 3})
	})

	// The backend does not read.
	done := make(chan answer, 1)
	go func() {
		a, err := do(f.client(t, nil, via{}), "POST", "https://open.test/pub/1.0/thinks", bytes.NewReader(make([]byte, 32<<20)))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	eventually(t, "the backend has the call", func() bool { return f.backend.count("/thinks") == 1 })
	time.AfterFunc(3*grace, func() { close(next) })
	if a := <-done; a.status != 200 || a.body != strconv.Itoa(32<<20)+" <nil>" {
		t.Errorf("status %d (%q)", a.status, a.body)
	}
}
