package ratelimit

import (
	"context"
	"sync"
	"testing"
	"time"
)

// A limiter is one way of counting. The tests that call forEachLimiter are its conformance test; each limiter is a row.
type limiter interface {
	Bucket(Key, Tier) Bucket
	Sweep(keep func(Key) bool) int
	Len() int
}

var limiters = []struct {
	name string
	make func(t *testing.T, c *clock) limiter
}{
	{"local", func(_ *testing.T, c *clock) limiter { return NewLocal(c.Now) }},
	{"shared", func(t *testing.T, c *clock) limiter { return sharedAt(t, c, single(t)) }},
	{"shared by TLS and ACL", func(t *testing.T, c *clock) limiter { return sharedAt(t, c, secured(t)) }},
	{"shared by Sentinel", func(t *testing.T, c *clock) limiter { return sharedAt(t, c, sentinel(t)) }},
	{"shared by a cluster", func(t *testing.T, c *clock) limiter { return sharedAt(t, c, cluster(t)) }},
}

// A clock stands still until it is moved.
type clock struct {
	now        time.Time
	roundedOff time.Duration // bounds the error of a duration that the limiter computes
	early      time.Duration // so long before a call can pass, it surely can't, and asking delays nothing
	shared     *moment       // of a shared limiter, and of its Redis; nil: there is none
}

const (
	localRounding  = 3 * time.Nanosecond
	sharedRounding = 3 * time.Microsecond // Redis's clock has microseconds
)

func (c *clock) Now() time.Time { return c.now }
func (c *clock) advance(d time.Duration) {
	c.now = c.now.Add(d)
	if c.shared != nil {
		c.shared.be(c.now)
	}
}

// rounds is how often a test does something that is as good as done a few times with a Redis, which takes longer.
func (c *clock) rounds(local, shared int) int {
	if c.shared != nil {
		return shared
	}
	return local
}

// noon is on the last but one day of February in a leap year.
var noon = time.Date(2028, time.February, 28, 12, 0, 0, 0, time.UTC)

func forEachLimiter(t *testing.T, test func(t *testing.T, c *clock, l limiter)) {
	t.Helper()
	for _, row := range limiters {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{now: noon, roundedOff: localRounding, early: localRounding}
			l := row.make(t, c)
			if c.shared != nil {
				c.roundedOff, c.early = sharedRounding, pollPause
			}
			test(t, c, l)
		})
	}
}

// take takes at a time, which is then the time of shared limiters and of their Redis, too.
func take(now time.Time, buckets ...Bucket) Verdict {
	if m, ok := moments.Load(sharedOf(buckets)); ok {
		m.(*moment).be(now)
	}
	return Await(context.Background(), func() time.Time { return now }, buckets...)
}

func perMinute(n int) Tier { return Tier{Name: "T", RequestCount: n, UnitTime: 1, TimeUnit: Minute} }

func per(n int, unit Unit) Tier { return Tier{Name: "T", RequestCount: n, UnitTime: 1, TimeUnit: unit} }

func client(name string) Key {
	return Key{API: "orders:1.0.0", Level: LevelClient, KeyType: "PRODUCTION", Name: name}
}

// passes returns how many of n calls at the same moment pass.
func passes(b Bucket, now time.Time, n int) int {
	passed := 0
	for range n {
		if take(now, b).Allowed {
			passed++
		}
	}
	return passed
}

func wantPasses(t *testing.T, b Bucket, now time.Time, want int) {
	t.Helper()
	if got := passes(b, now, want+5); got != want {
		t.Errorf("%d calls pass, want %d", got, want)
	}
}

// atOnce starts n goroutines together, and waits for them.
func atOnce(n int, do func(i int)) {
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-begin
			do(i)
		})
	}
	close(begin)
	all.Wait()
}
