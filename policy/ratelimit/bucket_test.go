package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

func TestTheLimitPassesThenRefills(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		b := l.Bucket(client("a"), perMinute(3))
		for i := range 3 {
			v := take(c.now, b)
			want := Verdict{
				Allowed: true, Level: LevelClient, Tier: "T", Limit: 3, Remaining: 2 - i,
				Reset: time.Duration(i+1) * 20 * time.Second, Window: time.Minute,
			}
			if v != want {
				t.Fatalf("call %d: got %+v, want %+v", i, v, want)
			}
		}
		want := Verdict{
			Level: LevelClient, Tier: "T", Limit: 3,
			Reset: time.Minute, RetryAfter: 20 * time.Second, Window: time.Minute,
		}
		for range 100 { // refusals take nothing
			if v := take(c.now, b); v != want {
				t.Fatalf("got %+v, want %+v", v, want)
			}
		}
		c.advance(20*time.Second - pollPause)
		wantPasses(t, b, c.now, 0)
		c.advance(pollPause)
		wantPasses(t, b, c.now, 1)
		c.advance(40 * time.Second)
		wantPasses(t, b, c.now, 2)
		c.advance(time.Hour)
		wantPasses(t, b, c.now, 3)
	})
}

func TestBurst(t *testing.T) {
	for _, tt := range []struct {
		count, burst int
		want         int           // at once
		next         time.Duration // until one more
	}{
		{count: 60, burst: 0, want: 60, next: time.Second},
		{count: 60, burst: 1, want: 1, next: time.Second},
		{count: 60, burst: 5, want: 5, next: time.Second},
		{count: 6, burst: 100, want: 100, next: 10 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d a minute, burst %d", tt.count, tt.burst), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				tier := perMinute(tt.count)
				tier.Burst = tt.burst
				b := l.Bucket(client("a"), tier)
				wantPasses(t, b, c.now, tt.want)
				if v := take(c.now, b); v.RetryAfter != tt.next {
					t.Errorf("retry after %v, want %v", v.RetryAfter, tt.next)
				}
				c.advance(24 * time.Hour)
				wantPasses(t, b, c.now, tt.want)
			})
		})
	}
}

// TestRetryAfterIsExact checks that after RetryAfter one call passes, and none before it, however odd the rate.
func TestRetryAfterIsExact(t *testing.T) {
	for _, tier := range []Tier{
		perMinute(1), perMinute(7), perMinute(5000), per(3, Second), per(11, Hour), per(7, Day), per(2, Month),
		{Name: "T", RequestCount: 5000, UnitTime: 1, TimeUnit: Minute, Burst: 50},
		{Name: "T", RequestCount: 1_000_003, UnitTime: 1, TimeUnit: Second, Burst: 50},
		{Name: "T", RequestCount: 13, UnitTime: 17, TimeUnit: Second, Burst: 2},
		{Name: "T", RequestCount: 1, UnitTime: 1000, TimeUnit: Hour},
	} {
		t.Run(fmt.Sprintf("%d in %d %v, burst %d", tier.RequestCount, tier.UnitTime, tier.TimeUnit, tier.burst()), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				if c.shared != nil && tier.burst() > 100 {
					return // while the clock stands still, a lease is for one call: emptying the bucket would take too long
				}
				random := rand.New(rand.NewPCG(1, 2))
				b := l.Bucket(client("a"), tier)
				for take(c.now, b).Allowed {
				}
				for range c.rounds(200, 20) {
					v := take(c.now, b)
					if v.Allowed || v.RetryAfter <= 0 {
						t.Fatalf("not empty: %+v", v)
					}
					c.advance(time.Duration(random.Int64N(max(1, int64(v.RetryAfter-c.early)))))
					again := take(c.now, b)
					if again.Allowed {
						t.Fatalf("passes early: %+v", again)
					}
					if early := take(c.now.Add(again.RetryAfter-c.early), b); early.Allowed {
						t.Fatalf("passes early: %+v", early)
					}
					c.advance(again.RetryAfter)
					if v := take(c.now, b); !v.Allowed {
						t.Fatalf("doesn't pass when it should: %+v after %+v", v, again)
					}
					for take(c.now, b).Allowed {
					}
				}
			})
		})
	}
}

// TestExactlyTheLimitOfManyAtOnce holds docs/security.md, I 116: of many concurrent calls, exactly the limit passes.
func TestExactlyTheLimitOfManyAtOnce(t *testing.T) {
	for _, tier := range []Tier{perMinute(10), per(10, Day), per(10, Month), {Name: "T", RequestCount: 1000, UnitTime: 1, TimeUnit: Second, Burst: 10}} {
		t.Run(tier.TimeUnit.String(), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				var passed atomic.Int64
				atOnce(100, func(int) {
					b := l.Bucket(client("a1"), tier) // each call has a snapshot of its own
					for range 5 {
						if take(c.now, b).Allowed {
							passed.Add(1)
						}
					}
				})
				if passed.Load() != 10 {
					t.Errorf("%d calls pass, want 10", passed.Load())
				}
			})
		})
	}
}

func TestKeysHaveTheirOwnBuckets(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		a := client("a")
		for _, key := range []Key{
			a, client("b"), client(""),
			{API: "orders:1.0.0", Level: LevelClient, KeyType: "SANDBOX", Name: "a"},
			{API: "orders:2.0.0", Level: LevelClient, KeyType: "PRODUCTION", Name: "a"},
			{API: "orders:1.0.0", Level: LevelResource, KeyType: "PRODUCTION", Name: "a"},
			{API: "orders:1.0.0", Level: LevelAPI},
		} {
			b := l.Bucket(key, perMinute(2))
			if v := take(c.now, b); v.Level != key.Level || v.Remaining != 1 {
				t.Errorf("%+v: %+v", key, v)
			}
			wantPasses(t, b, c.now, 1)
		}
	})
}

func TestUnlimitedIsNoBucket(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		if b := l.Bucket(client("a"), BuiltIn()[0]); b != nil {
			t.Errorf("Unlimited gives %v", b)
		}
		if l.Len() != 0 {
			t.Errorf("%d buckets", l.Len())
		}
	})
}

// TestTiersThatLetNonePass holds docs/security.md, I 124: a count of zero lets no call pass, and neither does an invalid tier.
func TestTiersThatLetNonePass(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tier  Tier
		retry time.Duration
	}{
		{"none a minute", perMinute(0), time.Minute},
		{"none a day", per(0, Day), 24 * time.Hour},
		{"the zero tier", Tier{}, 0},
		{"a negative count", perMinute(-1), 0},
		{"no unit", per(5, 0), 0},
		{"no unit time", Tier{Name: "T", RequestCount: 5, TimeUnit: Minute}, 0},
		{"unlimited with a count", Tier{Name: "T", RequestCount: 5, Unlimited: true}, 0},
		{"unlimited without a name", Tier{Unlimited: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				b := l.Bucket(client("a"), tt.tier)
				if b == nil {
					t.Fatal("no limit")
				}
				want := Verdict{Level: LevelClient, Tier: tt.tier.Name, Reset: tt.retry, RetryAfter: tt.retry, Window: tt.retry}
				for range 3 {
					if v := take(c.now, b); v != want {
						t.Fatalf("got %+v, want %+v", v, want)
					}
					c.advance(1000 * time.Hour)
				}
			})
		})
	}
}
