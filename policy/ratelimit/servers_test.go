package ratelimit

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testredis"
)

func TestMain(m *testing.M) {
	flag.Parse()
	const parallel = "test.parallel"
	if f := flag.Lookup(parallel); f.Value.String() == f.DefValue { // these tests wait more than they compute
		if err := flag.Set(parallel, "6"); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	for _, end := range slices.Backward(forAll.ends) {
		end()
	}
	os.Exit(code)
}

// forAll is what tests share: it ends after the last of them.
var forAll struct {
	mu   sync.Mutex
	ends []func()
}

// A lasting TB has its cleanup done after the last test.
type lasting struct{ testing.TB }

func (l lasting) Cleanup(end func()) { forAll.ends = append(forAll.ends, end) }

// Logf writes what the last test can't any more.
func (l lasting) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (l lasting) TempDir() string {
	dir, err := os.MkdirTemp("", "ratelimit")
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// once returns a function that starts something for all tests, with the first that asks.
func once(start func(testing.TB) Redis) func(testing.TB) Redis {
	var started *Redis
	return func(t testing.TB) Redis {
		forAll.mu.Lock()
		defer forAll.mu.Unlock()
		if started == nil {
			r := start(lasting{t})
			started = &r
		}
		return *started
	}
}

var (
	single = once(func(t testing.TB) Redis {
		return Redis{Addresses: []string{testredis.Start(t, testredis.Options{}).Address}}
	})
	secured = once(func(t testing.TB) Redis {
		s := testredis.Start(t, testredis.Options{TLS: true, User: "limiter", Password: "open-sesame"})
		return Redis{Addresses: []string{s.Address}, TLS: true, CAFile: s.CAFile, Username: "limiter", Password: "open-sesame"}
	})
	sentinel = once(func(t testing.TB) Redis {
		s := testredis.StartSentinel(t)
		return Redis{Addresses: s.Addresses, Mode: Sentinel, Master: s.Master}
	})
	cluster = once(func(t testing.TB) Redis {
		return Redis{Addresses: testredis.StartCluster(t).Addresses, Mode: Cluster}
	})
)

// patient is long enough for a busy machine, where calls are to be counted in Redis and nowhere else.
const patient = time.Minute

var prefixes atomic.Int64

// prefix is one of keys that no other limiter has.
func prefix() string { return fmt.Sprint("sallyport:", prefixes.Add(1)) }

// run connects a limiter, and runs it until the test ends or the returned function is called.
func run(t *testing.T, o Options) (l *Limiter, stop func()) {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	if err := l.Connect(ctx); err != nil && o.Timeout == patient {
		t.Fatal(err)
	}
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

// sharedAt returns a limiter whose time and whose Redis's time is that of c.shared.
func sharedAt(t *testing.T, c *clock, r Redis) *Limiter {
	t.Helper()
	nodes, _ := nodesAt(t, c, Options{}, r)
	return nodes[0]
}

// nodesAt returns limiters that share and know of each other, one for each way to Redis, and what stops them. Their time
// and Redis's is that of c.shared.
func nodesAt(t *testing.T, c *clock, o Options, ways ...Redis) (nodes []*Limiter, stops []func()) {
	t.Helper()
	m := &moment{at: c.now}
	o.Timeout, o.Now, o.prefix, o.redisTime = patient, m.now, prefix(), m.now
	for _, r := range ways {
		o.Redis = r
		l, stop := run(t, o)
		nodes, stops = append(nodes, l), append(stops, stop)
		moments.Store(l.shared, m)
	}
	for _, l := range nodes[:len(nodes)-1] {
		if err := l.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m.of, c.shared = nodes, m
	return nodes, stops
}

// moments are the times of limiters that have one of their own, by their *shared.
var moments sync.Map

// A moment is a clock that stands still until a call comes at another time. Then it waits until what is under way has
// been done at the old time.
type moment struct {
	mu sync.Mutex
	at time.Time
	of []*Limiter
}

func (m *moment) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

func (m *moment) be(now time.Time) {
	if m.now().Equal(now) {
		return
	}
	for _, l := range m.of {
		l.settle()
	}
	m.mu.Lock()
	m.at = now
	m.mu.Unlock()
}

// settle waits until no exchange is under way.
func (l *Limiter) settle() {
	for busy := true; busy; time.Sleep(100 * time.Microsecond) {
		busy = false
		l.mu.Lock()
		for _, a := range l.accounts {
			a.mu.Lock()
			for _, m := range a.leased {
				busy = busy || m != nil && m.busy
			}
			a.mu.Unlock()
		}
		l.mu.Unlock()
	}
}
