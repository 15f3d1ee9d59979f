package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/backend"
)

// hurry is the time after which bodyRate counts in tests of slow clients.
const hurry = 300 * time.Millisecond

// hurried has every client of the fixture send a MiB a second, after hurry.
func hurried(_ *fixture, s *setup) {
	s.config.Limits.BodyRate = 1 << 20
	s.config.Hasten(0, 0, hurry)
}

// slowly is how long a client says nothing, in which any patience with it is over.
func slowly() { <-time.After(2 * hurry) }

// A slowCall is a call whose body comes by the hand of the test.
type slowCall struct {
	*io.PipeWriter
	res chan *http.Response // nil if there was none
	err error
}

// slow begins a call.
func (f *fixture) slow(t *testing.T, h2 bool, method, path string, change ...func(*http.Request)) *slowCall {
	t.Helper()
	r, w := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), method, "https://open.test"+path, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(request)
	}
	s := &slowCall{PipeWriter: w, res: make(chan *http.Response, 1)}
	client := f.client(t, nil, via{http2: h2})
	go func() {
		var res *http.Response
		res, s.err = client.Do(request)
		if res != nil {
			t.Cleanup(func() { res.Body.Close() })
		}
		s.res <- res
	}()
	t.Cleanup(func() { w.Close() })
	return s
}

// answer waits for the head of the answer.
func (s *slowCall) answer(t *testing.T) *http.Response {
	t.Helper()
	res := <-s.res
	if res == nil {
		t.Fatal(s.err)
	}
	return res
}

// echoes answers at once, and with each part of the body as it comes.
func echoes(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex()
	w.WriteHeader(200)
	_ = control.Flush()
	p := make([]byte, 64)
	for {
		n, err := r.Body.Read(p)
		if _, gone := w.Write(p[:n]); gone != nil || err != nil {
			return
		}
		_ = control.Flush()
	}
}

// atTheEnd answers when it has the whole body.
func atTheEnd(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	fmt.Fprint(w, n, err)
}

// duplexes runs a test over each protocol of clients and of backends, of which each has an echo and one that answers at
// the end.
func duplexes(t *testing.T, test func(t *testing.T, h2 bool, up func(*testing.T, *fixture) backend.Upstream)) {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", echoes)
	mux.HandleFunc("/late", atTheEnd)
	for name, protocol := range map[string]backend.Protocol{"http1": backend.HTTP1, "h2c": backend.H2C} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachVersion(t, func(t *testing.T, h2 bool) {
				t.Parallel()
				test(t, h2, func(t *testing.T, f *fixture) backend.Upstream {
					var at string
					if protocol == backend.H2C {
						at = h2cBackend(t, mux.ServeHTTP)
					} else {
						s := httptest.NewServer(mux)
						t.Cleanup(s.Close)
						at = s.URL
					}
					up := f.upstream(t, at)
					up.Protocol = protocol
					return up
				})
			})
		})
	}
}

// TestSlowDuplex: once the answer has begun a client may say as little as it likes, and is heard.
func TestSlowDuplex(t *testing.T) {
	duplexes(t, func(t *testing.T, h2 bool, up func(*testing.T, *fixture) backend.Upstream) {
		f := newFixture(t, hurried, func(f *fixture, s *setup) { s.routes[3].Upstream = up(t, f) })
		c := f.slow(t, h2, "POST", "/pub/1.0/echo")
		res := c.answer(t)
		for i := range 3 {
			slowly()
			text := fmt.Sprintf("tick%d", i)
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(text))
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != text {
				t.Fatalf("%q, %v", got, err)
			}
		}
		c.Close()
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
			t.Errorf("it ends with %q, %v", rest, err)
		}
		f.lastSeen(t, "all is well", func(s seen) bool { return s.Status == 200 && s.Reason == "" && s.In == 15 && s.Out == 15 })
	})
}

// TestSlowUpload: a body for a backend that answers at its end has to come at bodyRate, or at that of the API, which can
// demand nothing.
func TestSlowUpload(t *testing.T) {
	duplexes(t, func(t *testing.T, h2 bool, up func(*testing.T, *fixture) backend.Upstream) {
		for _, c := range []struct {
			all, own int
			cut      bool
		}{{1 << 20, 0, true}, {0, 1 << 20, true}, {1 << 20, -1, false}} {
			t.Run(fmt.Sprint(c.all, c.own), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, hurried, func(f *fixture, s *setup) {
					s.config.Limits.BodyRate = c.all
					s.routes[3].Upstream = up(t, f)
					s.routes[3].Upstream.BodyRate = c.own
				})
				call := f.slow(t, h2, "POST", "/pub/1.0/late")
				if _, err := io.WriteString(call, "tick"); err != nil {
					t.Fatal(err)
				}
				if !c.cut {
					slowly()
					call.Close()
				}
				res := call.answer(t)
				body, _ := io.ReadAll(res.Body)
				call.Close()
				switch {
				case c.cut && res.StatusCode != 408:
					t.Errorf("status %d, %q", res.StatusCode, body)
				case !c.cut && string(body) != "4 <nil>":
					t.Errorf("status %d, %q", res.StatusCode, body)
				}
			})
		}
	})
}

// TestSlowDuplexNeedsRoom: a slow stream takes a place among the streams, and where there is none bodyRate holds: a
// backend that answers early gives nobody more than that.
func TestSlowDuplexNeedsRoom(t *testing.T) {
	duplexes(t, func(t *testing.T, h2 bool, up func(*testing.T, *fixture) backend.Upstream) {
		f := newFixture(t, hurried, func(f *fixture, s *setup) {
			s.routes[3].Upstream = up(t, f)
			s.routes[3].Upstream.MaxCalls = 1
		})
		first := f.slow(t, h2, "POST", "/pub/1.0/echo")
		res := first.answer(t)
		second := f.slow(t, h2, "POST", "/pub/1.0/echo")
		if rest, err := io.ReadAll(second.answer(t).Body); err == nil {
			t.Errorf("the second ends with %q as if it were whole", rest)
		}
		f.lastSeen(t, "the second is cut", func(s seen) bool { return s.Status == 200 && s.Reason == "broken_off" && s.Limit == "body_rate" })
		if _, err := io.WriteString(first, "tick"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 4)); err != nil {
			t.Errorf("the first: %v", err)
		}
		first.Close()
	})
}

// TestSlowGRPC: calls of each kind live, however little their clients say, if the answer has begun, or the API demands no
// rate.
func TestSlowGRPC(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/texts.Early/") {
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
		}
		r.Header.Set("X-Sallyport-Client", "a4") // as grpcBackend expects
		grpcBackend(w, r)
	}
	f := newFixture(t, hurried, func(f *fixture, s *setup) {
		s.routes[3].Upstream = f.upstream(t, h2cBackend(t, handler))
		s.routes[3].Upstream.Protocol = backend.H2C
		free := s.routes[3]
		free.API.Name, free.Context, free.Upstream.BodyRate = "free", "/free", -1
		s.routes = append(s.routes, free)
	})
	for _, c := range []struct {
		path string
		said int
		want []string
	}{
		{"/pub/1.0/texts.Early/Unary", 1, []string{"a0"}},
		{"/pub/1.0/texts.Early/ServerStream", 1, []string{"a0", "a1", "a2"}},
		{"/pub/1.0/texts.Early/ClientStream", 3, []string{"a+a+a"}},
		{"/pub/1.0/texts.Echo/Bidi", 3, []string{"A", "A", "A"}},
		{"/free/1.0/texts.Echo/Unary", 1, []string{"a0"}},
		{"/free/1.0/texts.Echo/ClientStream", 3, []string{"a+a+a"}},
	} {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			call := f.slow(t, true, "POST", c.path, header("Content-Type", "application/grpc"), header("Te", "trailers"))
			go func() {
				defer call.Close()
				for range c.said {
					slowly()
					_ = writeMessage(call, "a")
				}
				slowly()
			}()
			res := call.answer(t)
			for _, text := range c.want {
				if got, err := readMessage(res.Body); err != nil || got != text {
					t.Fatalf("%q, %v", got, err)
				}
			}
			if _, err := readMessage(res.Body); err != io.EOF || res.Trailer.Get("Grpc-Status") != "0" {
				t.Errorf("at its end %v, trailers %v", err, res.Trailer)
			}
		})
	}
}
