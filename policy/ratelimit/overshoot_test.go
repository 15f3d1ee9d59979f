package ratelimit

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// A pass is when a call was decided: between two readings of the clock.
type pass struct{ after, before time.Time }

// await has one call decided by the clock.
func await(buckets ...Bucket) Verdict { return Await(context.Background(), time.Now, buckets...) }

// wantNoMore fails the test if in any stretch of t more than burst + rate·t calls passed for certain.
func wantNoMore(t *testing.T, all []pass, burst, rate float64) {
	t.Helper()
	slices.SortFunc(all, func(a, b pass) int { return a.before.Compare(b.before) })
	for _, first := range all {
		n := 0.0
		for _, p := range all {
			if p.after.Before(first.after) {
				continue
			}
			n++
			if stretch := p.before.Sub(first.after).Seconds(); n > burst+rate*stretch+1e-6 {
				t.Fatalf("%v calls passed within %vs, want %v at most", n, stretch, burst+rate*stretch)
			}
		}
	}
}

// drive calls as fast as it goes for so long over all buckets, and returns when calls passed.
func drive(buckets []Bucket, now func(int) time.Time, long time.Duration) []pass {
	var mu sync.Mutex
	var all []pass
	end := time.Now().Add(long)
	atOnce(len(buckets), func(i int) {
		for time.Now().Before(end) {
			after := time.Now()
			v := Await(context.Background(), func() time.Time { return now(i) }, buckets[i])
			if v.Allowed {
				mu.Lock()
				all = append(all, pass{after, time.Now()})
				mu.Unlock()
				continue
			}
			time.Sleep(time.Millisecond)
		}
	})
	return all
}

// TestNodesTogetherPassNoMoreThanTheTier calls for seconds, and with SALLYPORT_CHAOS=full for ten minutes under a tier of
// 100 a minute.
func TestNodesTogetherPassNoMoreThanTheTier(t *testing.T) {
	t.Parallel()
	const burst = 100
	perMinute, long, whole := 3000, 4*time.Second, os.Getenv("SALLYPORT_CHAOS") == "full"
	if whole {
		perMinute, long = 100, 10*time.Minute
	}
	rate := float64(perMinute) / 60
	for name, c := range map[string]struct {
		nodes int
		skew  time.Duration
	}{
		"two nodes":                      {2, 0},
		"fifty nodes with skewed clocks": {50, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tier, keys := Tier{Name: "T", RequestCount: perMinute, UnitTime: 1, TimeUnit: Minute, Burst: burst}, prefix()
			now := func(i int) time.Time {
				switch i % 4 {
				case 0:
					return time.Now().Add(c.skew)
				case 1:
					return time.Now().Add(-c.skew)
				case 2:
					return time.Now().Add(c.skew).Round(0)
				}
				return time.Now().Round(0)
			}
			var buckets []Bucket
			for i := range c.nodes {
				l, _ := run(t, Options{
					Redis: single(t), Timeout: patient, prefix: keys, Now: func() time.Time { return now(i) },
				})
				buckets = append(buckets, l.Bucket(client("orders"), tier))
			}
			all := drive(buckets, now, long)
			wantNoMore(t, all, burst, rate)
			possible := burst + rate*long.Seconds()
			t.Logf("%d of %v passed", len(all), possible)
			if (whole || c.nodes == 2) && float64(len(all)) < 0.95*possible {
				t.Errorf("%d calls passed, want 95%% of %v", len(all), possible)
			}
		})
	}
}

func twoNodes(t *testing.T) (a, b *Limiter) {
	o := Options{Redis: single(t), Timeout: patient, prefix: prefix()}
	a, _ = run(t, o)
	b, _ = run(t, o)
	return a, b
}

func TestExactlyTheBurstOverTwoNodes(t *testing.T) {
	a, b := twoNodes(t)
	tier := Tier{Name: "T", RequestCount: 1, UnitTime: 24, TimeUnit: Hour, Burst: 300}
	buckets := []Bucket{a.Bucket(client("orders"), tier), b.Bucket(client("orders"), tier)}
	var mu sync.Mutex
	passed := 0
	atOnce(800, func(i int) {
		if await(buckets[i%2]).Allowed {
			mu.Lock()
			passed++
			mu.Unlock()
		}
	})
	// What one node leased and did not spend is the other's once it is given back.
	for end := time.Now().Add(5 * time.Second); passed < 300 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, bucket := range buckets {
			if await(bucket).Allowed {
				passed++
			}
		}
	}
	if passed != 300 {
		t.Errorf("%d calls passed, want 300", passed)
	}
}

func TestKeysDoNotCollide(t *testing.T) {
	seen := map[string]Key{}
	for _, k := range []Key{
		{API: "a:1", Name: "b"},
		{API: "a", Name: "1:b"},
		{API: "a", Name: "1 b"},
		{API: "a 1", Name: "b"},
		{API: `a" "`, Name: "b"},
		{API: "a", Name: `" "b`},
		{API: "a", Name: "b\n"},
		{API: "a", Name: `b\n`},
		{API: "a", KeyType: "b"},
		{API: "a", Name: "b"},
		{API: "a", Name: "b", Level: LevelClient},
	} {
		tag := k.tag()
		if other, ok := seen[tag]; ok || len(tag) != 32 {
			t.Errorf("%+v and %+v have the tag %q", k, other, tag)
		}
		seen[tag] = k
	}
}
