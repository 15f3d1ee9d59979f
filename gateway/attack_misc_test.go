package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/gateway/message"
	"sallyport/gateway/observe"
)

// TestLoops: an API whose upstream is the gateway itself, or another one that leads back, ends at the second pass; so does
// a call that has come through too many gateways. Held: security K 149.
func TestLoops(t *testing.T) {
	a, b := newFixture(t), newFixture(t)
	loop := func(f *fixture, to string) {
		f.routes = append(slices.Clone(f.routes), decision.Route{
			API: certstore.API{Name: "loop", Version: "1.0"}, Context: "/loop", Security: open, Upstream: f.upstream(t, "http://"+to+"/loop/1.0"),
		})
		f.setRoutes(t)
	}
	eachVersion(t, func(t *testing.T, h2 bool) {
		for name, to := range map[string]string{"itself": a.plain, "another": b.plain} {
			loop(a, to)
			loop(b, a.plain)
			before := a.backend.calls.Load() + b.backend.calls.Load()
			began := a.countCalls() + b.countCalls()
			get(t, a.client(t, nil, via{http2: h2}), "https://open.test/loop/1.0/x").refused(t, 508, "508")
			if n := a.backend.calls.Load() + b.backend.calls.Load() - before; n > 0 {
				t.Errorf("%s: a backend was called %d times", name, n)
			}
			eventually(t, "the calls are observed", func() bool { return a.countCalls()+b.countCalls() >= began+2 })
			if n := a.countCalls() + b.countCalls() - began; n > 10 {
				t.Errorf("%s: the call made %d calls", name, n)
			}
			a.routes, b.routes = a.routes[:len(a.routes)-1], b.routes[:len(b.routes)-1]
		}
		c := a.client(t, nil, via{http2: h2})
		a.denied(t, 508, "508", func() answer {
			return get(t, c, "https://open.test/pub/1.0/x", header("Via", strings.TrimSuffix(strings.Repeat("1.1 sallyport-00000000, ", 10), ", ")))
		})
		// A client that names Via in Connection hides its own, not the gateway's.
		if got := a.allowed(t, func() answer { return get(t, c, "https://open.test/pub/1.0/x", header("Via", "1.1 fred")) }); !strings.Contains(strings.Join(got.Header["Via"], ","), "sallyport-") {
			t.Errorf("the backend got Via %q", got.Header["Via"])
		}
		if h2 {
			return
		}
		raw := a.dialPlain(t)
		if got := raw.get(t, "/pub/1.0/x", "open.test", "Via: 1.1 fred", "Connection: Via").echo(t); !strings.Contains(strings.Join(got.Header["Via"], ","), "sallyport-") {
			t.Errorf("the backend got Via %q", got.Header["Via"])
		}
	})
}

func (f *fixture) countCalls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// TestReissuedCertificate: a certificate that takes another's place under its alias keeps its allowance.
// Held: security I 118.
func TestReissuedCertificate(t *testing.T) {
	f := newFixture(t)
	passed := 0
	who := f.a1
	for i := range 30 {
		if i%3 == 2 { // the same key and subject, another serial number
			who = issueFor(f.a1.key, "a1", f.interA)
			f.clients = slices.Clone(f.clients)
			for j, c := range f.clients {
				if c.Alias == "a1" && c.API == payAPI {
					f.clients[j] = client(payAPI, "a1", who, "Ten")
				}
			}
			f.setClients(t)
		}
		if a := get(t, f.client(t, who, via{}), "https://mtls.test/pay/1.0/x"); a.status == 200 {
			passed++
		} else {
			a.refused(t, 429, "900804")
		}
	}
	if passed != 10 {
		t.Errorf("%d calls passed", passed)
	}
}

// TestQueriesAreSentAsTheyAre: however long and odd a query is, the backend gets its bytes, or the call is 400.
// Held: security G 102.
func TestQueriesAreSentAsTheyAre(t *testing.T) {
	f := newFixture(t)
	for _, query := range []string{
		strings.TrimSuffix(strings.Repeat("a=b&", 10_001), "&"), "a;b", "a=1;b=2", "a=%zz", "a=%", "a=%2", "a=b&a=c", "?", "a=?", "", "a=/../x", "%00", "a=%0d%0aX:%20y", "&&&", "=", "a=[]{}|^`\"<>\\", "é", "\xff",
	} {
		c := f.dialPlain(t)
		a := c.get(t, "/pub/1.0/x?"+query, "open.test")
		if a.status == 400 {
			continue
		}
		if got := f.backend.last(t); a.status != 200 || !strings.HasPrefix(got.Raw, "GET /x?"+query+" HTTP/1.1\r\n") {
			t.Errorf("%.80q: status %d, the backend got %.200q", query, a.status, got.Raw)
		}
	}
	// 103: a path of 1 MiB is refused, or 100,000 segments of dots as far as they fit.
	for _, path := range []string{strings.Repeat("/..", 350_000), strings.Repeat("/..", 20_000)} {
		statuses, got, err := sendRaw(f.plain, head("GET /pub/1.0"+path+" HTTP/1.1"))
		if err != nil || len(statuses) == 1 && statuses[0] != 400 && statuses[0] != 431 || len(statuses) > 1 {
			t.Errorf("statuses %v, %v, %.200q", statuses, err, got)
		}
	}
}

// TestRandomSpellings spells paths at random: those that pass reach the backend byte for byte as they were judged, and as
// the resource that the backend's own reading would lead to. Held: security G 104; SALLYPORT_LONG makes it 100,000.
func TestRandomSpellings(t *testing.T) {
	f := newFixture(t)
	count := 1000
	if os.Getenv("SALLYPORT_LONG") != "" {
		count = 100_000
	}
	dice := rand.New(rand.NewPCG(1, 104))
	parts := []string{"/", "/open", "/scoped", "/x", "..", ".", "%2e", "%2f", "%252e", ";", ";a=b", "%5c", "\\", "%20", "a", "A", "~", "%41", "%c3%a9", "%ff", "//", "open", "?", "?x=/open", "%00", "+", ":", "@", "*"}
	c := f.dial(t, f.a4, "mtls.test")
	passed := 0
	for range count {
		path := "/pay/1.0/"
		for range dice.IntN(5) {
			path += parts[dice.IntN(len(parts))]
		}
		want, _, _, err := message.ParseTarget(path)
		a := c.get(t, path, "mtls.test")
		switch {
		case err != nil || message.HasEscapedSlash(want):
			if a.status != 400 {
				t.Errorf("%q: status %d", path, a.status)
			}
			c.Close()
			c = f.dial(t, f.a4, "mtls.test")
		case a.status == 200:
			passed++
			got := f.backend.last(t)
			sent, _, _ := strings.Cut(got.Target, "?")
			if "/pay/1.0"+sent != want {
				t.Errorf("%q was judged and %q was sent", want, sent)
			}
			s := f.seen(t, a.id())
			if isOpen := sent == "/open"; isOpen != (s.Resource == "/open") || s.Path != want {
				t.Errorf("%q was judged as %s, as path %q", sent, s.Resource, s.Path)
			}
		case a.status != 400 || f.seen(t, a.id()).Reason != decision.AmbiguousPath.String():
			t.Errorf("%q: status %d", path, a.status)
		}
	}
	if passed < count/20 {
		t.Errorf("only %d of %d passed", passed, count)
	}
}

// TestHostileTextInLogs: whatever is in a path, a header, a certificate's name, a server name or a token, a call is one
// line of JSON, and not a long one; and however many paths there are, the metrics have the same few series.
// Held: security K 139, 144.
func TestHostileTextInLogs(t *testing.T) {
	var book logBook
	var observed atomic.Int64
	metrics := observe.NewMetrics("test")
	access := observe.NewAccessLog(&book, false, metrics)
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Observe = func(x *decision.Exchange) {
			access.Observe(x, time.Millisecond)
			metrics.Observe(x, time.Millisecond)
			observed.Add(1)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- access.Run(ctx) }()

	const hostile = "x\"},{\"a\":\"b\x1b[31m%0d%0a"
	calls := 0
	for _, path := range []string{"/pub/1.0/%0d%0a", "/pub/1.0/\"}", "/nothing/\x1b[31m", "/pub/1.0/é", "/pub/1.0/" + strings.Repeat("a", 8000), "/" + strings.Repeat("b", 60_000)} {
		c := f.dial(t, issue(hostile+"\r\n"+strings.Repeat("c", 8<<10), nil), "opt.test")
		c.send(t, "GET "+path+" HTTP/1.1\nHost: opt.test\nUser-Agent: "+"x\"},{\n")
		c.send(t, "X: "+hostile[:8]+"\nAuthorization: Bearer "+strings.Repeat("ey.", 100)+"\n\n")
		if a, err := c.tryReceive("GET"); err != nil || a.status == 0 {
			t.Errorf("%.50q: %v", path, err)
		} else if a.id() != "" {
			calls++
		}
	}
	person := f.client(t, nil, via{})
	for _, subject := range []string{hostile, "a\r\nb", "\u202e", strings.Repeat("s", 8<<10), "\x00"} {
		if a := get(t, person, "https://open.test/tok/1.0/x", bearer(f.token(t, subject, nil))); a.status != 200 {
			t.Errorf("subject %.50q: status %d", subject, a.status)
		}
		calls++
	}
	for i := range 1500 {
		get(t, person, fmt.Sprintf("https://open.test/pub-%d/1.0/%d", i, rand.Uint64()), func(r *http.Request) { r.Method = fmt.Sprintf("M%d", i) })
		calls++
	}
	eventually(t, "all calls are observed", func() bool { return observed.Load() == int64(calls) }) // after their last bytes
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(book.String(), "\n"), "\n")
	if len(lines) != calls {
		t.Errorf("%d lines for %d calls", len(lines), calls)
	}
	for _, line := range append(lines, strings.Split(strings.TrimSuffix(f.log.String(), "\n"), "\n")...) {
		if line == "" {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %.300q", err, line)
		}
		if len(line) > 8<<10 {
			t.Errorf("a line of %d bytes: %.200q", len(line), line)
		}
		if strings.ContainsAny(line, "\x1b\x00\r") {
			t.Errorf("control characters: %.300q", line)
		}
	}
	recorder := new(recorder)
	metrics.Handler().ServeHTTP(recorder, &http.Request{Method: "GET", Header: http.Header{}})
	if n := strings.Count(recorder.String(), "\n"); n > 1000 {
		t.Errorf("the metrics have %d lines", n)
	}
}

// A recorder takes a handler's answer.
type recorder struct {
	strings.Builder
	h http.Header
}

func (r *recorder) Header() http.Header {
	if r.h == nil {
		r.h = http.Header{}
	}
	return r.h
}

func (r *recorder) WriteHeader(int) {}

// TestIdentityUnderChurn: while clients, routes and listeners are swapped as fast as it goes, 24 clients call in both
// versions of TLS and HTTP and give up a third of their calls; nobody is taken for another, and who may call is not refused.
func TestIdentityUnderChurn(t *testing.T) {
	const people, calls = 24, 50
	var list []certstore.Client
	parties := make([]*party, people)
	for i := range parties {
		parties[i] = issue(fmt.Sprintf("h%d", i), theWorld().interA)
		list = append(list, client(bothAPI, fmt.Sprintf("h%d", i), parties[i], "Unlimited"))
	}
	f := newFixture(t, register(list...), func(_ *fixture, s *setup) { s.config.Log = slog.New(slog.DiscardHandler) })
	f.backend.handle("/who", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // it may break off
		_, _ = io.WriteString(w, r.Header.Get("X-Sallyport-Client")+" "+r.Header.Get("X-Client-Cert-Hash")+" "+r.Header.Get("X-N")+" "+string(body))
	})
	ctx, stop := context.WithCancel(t.Context())
	var churn, callers sync.WaitGroup
	var swaps atomic.Int64
	churn.Go(func() {
		for ctx.Err() == nil {
			f.setRoutes(t)
			f.setClients(t)
			f.setProfiles(t, f.profiles(t, nil, allProfiles...))
			swaps.Add(1)
		}
	})
	var answered, given atomic.Int64
	for i, who := range parties {
		callers.Go(func() {
			c := f.client(t, who, via{http2: i%2 == 0, tls12: i%4 < 2})
			dice := rand.New(rand.NewPCG(uint64(i), 24))
			for n := range calls {
				call, cancel := context.WithCancel(t.Context())
				if n%3 == 0 {
					timer := time.AfterFunc(time.Duration(dice.IntN(5000))*time.Microsecond, cancel)
					defer timer.Stop()
				}
				id := fmt.Sprintf("%d-%d", i, n)
				a, err := do(c, "POST", "https://opt.test/both/1.0/who", strings.NewReader(id), header("X-N", id), func(r *http.Request) { *r = *r.WithContext(call) })
				stopped := call.Err() != nil
				cancel()
				switch want := fmt.Sprintf("h%d %s %s %s", i, who.hash(), id, id); {
				case err == nil && a.status == 200 && a.body == want:
					answered.Add(1)
				case stopped && (err != nil || a.status != 200):
					given.Add(1)
				default:
					t.Errorf("call %s: status %d, %.200q, %v", id, a.status, a.body, err)
				}
			}
		})
	}
	callers.Wait()
	stop()
	churn.Wait()
	t.Logf("%d answered, %d given up, %d swaps", answered.Load(), given.Load(), swaps.Load())
	if answered.Load() < people*calls/2 {
		t.Error("too few were answered")
	}
}
