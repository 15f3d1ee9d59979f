package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
)

// slowCalls are calls that wait at the backend until they are released.
type slowCalls struct {
	there   atomic.Int64
	release chan struct{}
	let     func() // closes release, once
	over    chan error
}

// handleSlow has the backend hold calls of /wait.
func handleSlow(t *testing.T, f *fixture) *slowCalls {
	s := &slowCalls{release: make(chan struct{}), over: make(chan error, 100)}
	s.let = sync.OnceFunc(func() { close(s.release) })
	t.Cleanup(s.let)
	f.backend.handle("/wait", func(http.ResponseWriter, *http.Request) { s.there.Add(1); <-s.release })
	return s
}

// begin begins n calls, and waits until they are at the backend.
func (s *slowCalls) begin(t *testing.T, c *http.Client, target string, n int, options ...func(*http.Request)) {
	t.Helper()
	want := s.there.Load() + int64(n)
	for range n {
		go func() {
			a, err := do(c, "GET", target, nil, options...)
			if err == nil && a.status != 200 {
				err = fmt.Errorf("status %d", a.status)
			}
			s.over <- err
		}()
	}
	eventually(t, "the calls are at the backend", func() bool { return s.there.Load() == want })
}

// end releases n calls, all of which have to end well.
func (s *slowCalls) end(t *testing.T, n int) {
	t.Helper()
	s.let()
	for range n {
		if err := <-s.over; err != nil {
			t.Error(err)
		}
	}
}

// TestOneCallerLeavesRoom: one caller has at most its share of an API's calls, whatever proves who it is, through
// reloads and over any connections; all others find room. Held: security L 155.
func TestOneCallerLeavesRoom(t *testing.T) {
	const most, share = 6, 4
	for name, callers := range map[string]struct {
		target           string
		attacker, victim func(f *fixture) (*http.Client, []func(*http.Request))
	}{
		"registration": {
			"https://mtls.test/pay/1.0/wait",
			func(f *fixture) (*http.Client, []func(*http.Request)) {
				return f.client(t, f.a4, via{http2: true}), nil
			},
			func(f *fixture) (*http.Client, []func(*http.Request)) { return f.client(t, f.a2, via{}), nil },
		},
		"token": {
			"https://open.test/tok/1.0/wait",
			func(f *fixture) (*http.Client, []func(*http.Request)) {
				return f.client(t, nil, via{}), []func(*http.Request){func(r *http.Request) { // another token of the same subject each time
					bearer(f.token(t, "mallory", map[string]any{"jti": fmt.Sprint(time.Now().UnixNano())}))(r)
				}}
			},
			func(f *fixture) (*http.Client, []func(*http.Request)) {
				return f.client(t, nil, via{}), []func(*http.Request){bearer(f.token(t, "alice", nil))}
			},
		},
		"source": {
			"https://open.test/pub/1.0/wait",
			func(f *fixture) (*http.Client, []func(*http.Request)) {
				return f.client(t, nil, via{from: "127.0.0.66"}), nil
			},
			func(f *fixture) (*http.Client, []func(*http.Request)) {
				return f.client(t, nil, via{from: "127.0.0.67", http2: true}), nil
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, register(client(payAPI, "a2", theWorld().a2, "Unlimited")), func(_ *fixture, s *setup) {
				for i := range s.routes {
					s.routes[i].Upstream.MaxCalls, s.routes[i].Upstream.MaxCallsPerCaller = most, share
				}
			})
			slow := handleSlow(t, f)
			attacker, as := callers.attacker(f)
			slow.begin(t, attacker, callers.target, share-1, as...)
			f.setRoutes(t)
			slow.begin(t, attacker, callers.target, 1, as...)
			a := f.denied(t, 503, "503", func() answer { return get(t, attacker, callers.target, as...) })
			if s := f.seen(t, a.id()); s.Reason != "caller_busy" || s.Limit != "max_calls_per_caller" || a.header.Get("Retry-After") == "" {
				t.Errorf("observed %+v, Retry-After %q", s, a.header.Get("Retry-After"))
			}
			victim, by := callers.victim(f)
			other := strings.TrimSuffix(callers.target, "wait") + "x"
			for range 20 {
				f.allowed(t, func() answer { return get(t, victim, other, by...) })
			}
			slow.begin(t, victim, callers.target, most-share, by...)
			a = f.denied(t, 503, "503", func() answer { return get(t, victim, callers.target, by...) })
			if s := f.seen(t, a.id()); s.Reason != "backend_busy" {
				t.Errorf("observed %+v", s)
			}
			slow.end(t, most)
			f.allowed(t, func() answer { return get(t, attacker, other, as...) })
		})
	}
}

// TestSandboxLeavesProduction: SANDBOX calls take nothing of PRODUCTION's.
func TestSandboxLeavesProduction(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) {
		for i := range s.routes {
			s.routes[i].Upstream.MaxCalls = 2
		}
	})
	slow := handleSlow(t, f)
	f.backend.handle("/sandbox/wait", func(http.ResponseWriter, *http.Request) { slow.there.Add(1); <-slow.release })
	sand := f.client(t, f.s1, via{})
	slow.begin(t, sand, "https://mtls.test/box/1.0/wait", 2)
	f.denied(t, 503, "503", func() answer { return get(t, sand, "https://mtls.test/box/1.0/wait") })
	f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://mtls.test/box/1.0/x") })
	slow.end(t, 2)
}

// TestSourceBehindBalancer: a load balancer that is believed has no share of its own: its clients have theirs, by the
// address that it has seen, and nobody else's header counts. Held: security L 155, 160.
func TestSourceBehindBalancer(t *testing.T) {
	f := newDoorFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits = gateway.Limits{ConnectionsPerSource: 2, Connections: 40}
		for i := range s.routes {
			s.routes[i].Upstream.MaxCalls, s.routes[i].Upstream.MaxCallsPerCaller = 9, 3
		}
	})
	slow := handleSlow(t, f.fixture)
	balancer := f.through(t, behindLB, nil, false, "127.0.0.1")
	seen := func(addresses ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["X-Forwarded-For"] = addresses }
	}
	const wait, other = "http://open.test/pub/1.0/wait", "http://open.test/pub/1.0/x"
	slow.begin(t, balancer, wait, 2, seen("2001:db8::1"))
	slow.begin(t, balancer, wait, 1, seen("192.0.2.1, 2001:db8::ffff")) // the same /64; what the client claims to be does not count
	f.denied(t, 503, "503", func() answer { return get(t, balancer, wait, seen("2001:db8::2")) })
	f.denied(t, 503, "503", func() answer { return get(t, balancer, wait, seen("192.0.2.1", "[2001:db8::3]:443")) })
	f.allowed(t, func() answer { return get(t, balancer, other, seen("192.0.2.1")) })
	f.allowed(t, func() answer { return get(t, balancer, other, seen("2001:db8:0:1::1")) })
	slow.begin(t, balancer, wait, 5) // it has seen nobody, and has no share itself
	slow.end(t, 8)

	g := newDoorFixture(t, func(_ *fixture, s *setup) {
		for i := range s.routes {
			s.routes[i].Upstream.MaxCalls, s.routes[i].Upstream.MaxCallsPerCaller = 9, 3
		}
	})
	slow = handleSlow(t, g.fixture)
	nobody := g.through(t, behindLB, nil, false, stranger)
	slow.begin(t, nobody, wait, 3, seen("192.0.2.1"))
	g.denied(t, 503, "503", func() answer { return get(t, nobody, wait, seen("192.0.2.2")) })
	slow.end(t, 3)
}

// TestStreamsLeaveCalls: tunnels and open streams count among themselves: a caller that holds its share of them leaves
// everybody's calls alone, its own too, and other callers' streams. Held: security L 155.
func TestStreamsLeaveCalls(t *testing.T) {
	const most, share = 4, 3
	eachVersion(t, func(t *testing.T, h2 bool) {
		f := newFixture(t, func(_ *fixture, s *setup) {
			for i := range s.routes {
				s.routes[i].Upstream.MaxCalls, s.routes[i].Upstream.MaxCallsPerCaller = most, share
			}
		})
		f.backend.handle("/events", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		c := f.client(t, f.a4, via{http2: h2})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range share {
			r, err := http.NewRequestWithContext(ctx, "GET", "https://mtls.test/pay/1.0/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, 8)); err != nil {
				t.Fatal(err)
			}
		}
		// Upgrades count among streams from the start, so the caller gets no more of them, while all calls pass.
		tunnel := func(who *party) int {
			w := f.dial(t, who, "mtls.test")
			defer w.Close()
			return w.get(t, "/pay/1.0/ws", "mtls.test", strings.Split(strings.TrimSuffix(upgradeLines, "\r\n"), "\r\n")...).status
		}
		eventually(t, "the streams are none of the calls", func() bool { return tunnel(f.a4) == 503 })
		for range 2 * share {
			f.allowed(t, func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
		}
		if status := tunnel(f.a1); status == 503 {
			t.Errorf("another caller's upgrade: status %d", status)
		}
		cancel()
		eventually(t, "streams that end make room", func() bool { return tunnel(f.a4) != 503 })
	})
}

const upgradeLines = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

// TestIdleStreams: a stream in which nothing passes for streamIdleTimeout ends on both sides; one in which something
// does goes on.
func TestIdleStreams(t *testing.T) {
	t.Parallel()
	const lull, ticks = 5 * time.Second, 14 // in seven seconds
	ended := make(chan struct{}, 10)
	silent := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- struct{}{}
	}
	ticking := func(w http.ResponseWriter, _ *http.Request) {
		for range ticks {
			_, _ = io.WriteString(w, ".")
			_ = http.NewResponseController(w).Flush()
			<-time.After(500 * time.Millisecond)
		}
	}
	f := newFixture(t, func(f *fixture, s *setup) {
		other := f.upstream(t, h2cBackend(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/silent" {
				silent(w, r)
			} else {
				ticking(w, r)
			}
		}))
		other.Protocol = backend.H2C
		s.routes = append(s.routes, decision.Route{API: twoAPI, Context: "/two", Security: open, Upstream: other})
		for i := range s.routes {
			s.routes[i].Upstream.StreamIdleTimeout = lull
		}
	})
	f.backend.handle("/silent", silent)
	f.backend.handle("/ticking", ticking)
	eachVersion(t, func(t *testing.T, h2 bool) {
		var calls sync.WaitGroup
		for _, api := range []string{"pub", "two"} {
			c := f.client(t, nil, via{http2: h2})
			calls.Go(func() {
				if _, err := do(c, "GET", "https://open.test/"+api+"/1.0/silent", nil); err == nil {
					t.Errorf("%s: a stream in which nothing passes comes to a good end", api)
				}
			})
			calls.Go(func() {
				a, err := do(c, "GET", "https://open.test/"+api+"/1.0/ticking", nil)
				if err != nil || a.body != strings.Repeat(".", ticks) {
					t.Errorf("%s: a stream in which something passes: %q, %v", api, a.body, err)
				}
			})
		}
		calls.Wait()
		for _, api := range []string{"pub", "two"} {
			<-ended
			f.lastSeen(t, "the log names the limit", func(s seen) bool {
				return s.Path == "/"+api+"/1.0/silent" && s.Reason == "broken_off" && s.Limit == "stream_idle_timeout"
			})
		}
	})
}
