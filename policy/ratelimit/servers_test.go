package ratelimit

import (
	"context"
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

// sharedAt returns a limiter whose clock and whose Redis's clock is theMoment.
func sharedAt(t *testing.T, r Redis) *Limiter {
	t.Helper()
	l, _ := run(t, Options{Redis: r, Timeout: patient, Now: theMoment.now, prefix: prefix(), redisTime: theMoment.now})
	theMoment.mu.Lock()
	theMoment.of, theMoment.at = l, noon
	theMoment.mu.Unlock()
	t.Cleanup(func() { // before it stops
		theMoment.mu.Lock()
		theMoment.of = nil
		theMoment.mu.Unlock()
	})
	return l
}

// theMoment is a clock that stands still until a call comes at another time. Then it waits until what is under way has
// been done at the old time.
var theMoment = &moment{at: noon}

type moment struct {
	mu sync.Mutex
	at time.Time
	of *Limiter
}

func (m *moment) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

func (m *moment) be(now time.Time) {
	m.mu.Lock()
	l, same := m.of, m.at.Equal(now)
	m.mu.Unlock()
	if same {
		return
	}
	if l != nil {
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
