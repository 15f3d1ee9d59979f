package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A limiter is what every way of counting must be: the tests of this file hold for each row of limiters.
type limiter interface {
	Bucket(Key, Tier) Bucket
	Sweep(keep func(Key) bool) int
	Len() int
}

var limiters = []struct {
	name string
	make func(now func() time.Time) limiter
}{
	{"local", func(now func() time.Time) limiter { return NewLocal(now) }},
}

// A clock stands still until it is moved.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time          { return c.now }
func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }

// noon is in a leap year, at the end of a short month.
var noon = time.Date(2028, time.February, 28, 12, 0, 0, 0, time.UTC)

func forEachLimiter(t *testing.T, test func(t *testing.T, c *clock, l limiter)) {
	t.Helper()
	for _, row := range limiters {
		t.Run(row.name, func(t *testing.T) {
			c := &clock{now: noon}
			test(t, c, row.make(c.Now))
		})
	}
}

func perMinute(n int) Tier { return Tier{Name: "T", RequestCount: n, UnitTime: 1, TimeUnit: Minute} }

func per(n int, unit Unit) Tier { return Tier{Name: "T", RequestCount: n, UnitTime: 1, TimeUnit: unit} }

func client(name string) Key {
	return Key{API: "orders:1.0.0", Level: LevelClient, KeyType: "PRODUCTION", Name: name}
}

// passes counts how many of n calls at once pass.
func passes(b Bucket, now time.Time, n int) int {
	passed := 0
	for range n {
		if TakeAll(now, b).Allowed {
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

func TestTheLimitPassesThenRefills(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		b := l.Bucket(client("a"), perMinute(3))
		for i := range 3 {
			v := b.Take(c.now)
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
		for range 100 { // and refusals cost nothing
			if v := b.Take(c.now); v != want {
				t.Fatalf("got %+v, want %+v", v, want)
			}
		}
		c.advance(20*time.Second - 1)
		wantPasses(t, b, c.now, 0)
		c.advance(1)
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
				if v := b.Take(c.now); v.RetryAfter != tt.next {
					t.Errorf("retry after %v, want %v", v.RetryAfter, tt.next)
				}
				c.advance(24 * time.Hour)
				wantPasses(t, b, c.now, tt.want)
			})
		})
	}
}

// roundedOff is how much of a time the arithmetic of tokens may lose.
const roundedOff = 3 * time.Nanosecond

// RetryAfter is the moment when one call passes, and not earlier, however odd the rate.
func TestRetryAfterIsExact(t *testing.T) {
	for _, tier := range []Tier{
		perMinute(1), perMinute(7), perMinute(5000), per(3, Second), per(1_000_003, Second), per(11, Hour), per(7, Day), per(2, Month),
		{Name: "T", RequestCount: 13, UnitTime: 17, TimeUnit: Second, Burst: 2},
		{Name: "T", RequestCount: 1, UnitTime: 1000, TimeUnit: Hour},
	} {
		t.Run(fmt.Sprintf("%d in %d %v", tier.RequestCount, tier.UnitTime, tier.TimeUnit), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				random := rand.New(rand.NewPCG(1, 2))
				b := l.Bucket(client("a"), tier)
				for b.Take(c.now).Allowed {
				}
				for range 200 {
					v := b.Take(c.now)
					if v.Allowed || v.RetryAfter <= 0 {
						t.Fatalf("not empty: %+v", v)
					}
					c.advance(time.Duration(random.Int64N(int64(v.RetryAfter - roundedOff))))
					again := b.Take(c.now)
					if again.Allowed {
						t.Fatalf("passes early: %+v", again)
					}
					if early := b.Take(c.now.Add(again.RetryAfter - roundedOff)); early.Allowed {
						t.Fatalf("passes early: %+v", early)
					}
					c.advance(again.RetryAfter)
					if v := b.Take(c.now); !v.Allowed {
						t.Fatalf("doesn't pass when it should: %+v after %+v", v, again)
					}
					for b.Take(c.now).Allowed {
					}
				}
			})
		})
	}
}

// docs/security.md, I 116: of many calls at once, exactly the limit passes.
func TestExactlyTheLimitOfManyAtOnce(t *testing.T) {
	for _, tier := range []Tier{perMinute(10), per(10, Day), per(10, Month), {Name: "T", RequestCount: 1000, UnitTime: 1, TimeUnit: Second, Burst: 10}} {
		t.Run(tier.TimeUnit.String(), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				var passed atomic.Int64
				atOnce(100, func(int) {
					b := l.Bucket(client("a1"), tier) // as many snapshots as calls
					for range 5 {
						if b.Take(c.now).Allowed {
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

// atOnce runs n goroutines that begin together, and waits for them.
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
			if v := b.Take(c.now); v.Level != key.Level || v.Remaining != 1 {
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

// docs/security.md, I 124: zero means none, and what isn't valid refuses.
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
					if v := b.Take(c.now); v != want {
						t.Fatalf("got %+v, want %+v", v, want)
					}
					c.advance(1000 * time.Hour)
				}
			})
		})
	}
}

// docs/security.md, I 123: reloads leave a bucket alone whose tier they don't change.
func TestReloadsLeaveBucketsAlone(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		first := l.Bucket(client("a1"), perMinute(10))
		passed := 0
		for range 20 {
			b := l.Bucket(client("a1"), perMinute(10))
			if b != first {
				t.Fatal("a reload gives another bucket")
			}
			passed += passes(b, c.now, 3)
			l.Sweep(func(Key) bool { return true })
		}
		if passed != 10 {
			t.Errorf("%d calls pass, want 10", passed)
		}
	})
}

func TestClientThatComesBackFindsItsBucket(t *testing.T) {
	nobody := func(Key) bool { return false }
	for _, tt := range []struct {
		tier  Tier
		whole time.Duration // after all is spent at noon on 28 February
	}{
		{perMinute(10), time.Minute},
		{per(10, Day), 12 * time.Hour},
		{per(10, Month), 36 * time.Hour}, // the 29th is the last
	} {
		t.Run(tt.tier.TimeUnit.String(), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				wantPasses(t, l.Bucket(client("a"), tt.tier), c.now, 10)
				for range 3 { // removed, and swept more than once
					if n := l.Sweep(nobody); n != 0 {
						t.Fatalf("%d spent buckets are forgotten", n)
					}
				}
				wantPasses(t, l.Bucket(client("a"), tt.tier), c.now, 0)

				c.advance(tt.whole - 1)
				l.Sweep(nobody)
				if n := l.Sweep(nobody); n != 0 {
					t.Fatal("forgotten before it is whole")
				}
				c.advance(1)
				if n := l.Sweep(nobody); n != 1 || l.Len() != 0 {
					t.Fatalf("%d forgotten, %d kept", n, l.Len())
				}
				wantPasses(t, l.Bucket(client("a"), tt.tier), c.now, 10)
			})
		})
	}
}

// A snapshot that is being built while the old one is swept must not lose the bucket that both hold.
func TestSweepSparesWhatWasJustHandedOut(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		nobody := func(Key) bool { return false }
		b := l.Bucket(client("a"), perMinute(10))
		if n := l.Sweep(nobody); n != 0 {
			t.Fatal("forgotten at once")
		}
		if l.Bucket(client("a"), perMinute(10)) != b {
			t.Fatal("another bucket")
		}
		if n := l.Sweep(nobody) + l.Sweep(func(Key) bool { return true }); n != 0 {
			t.Fatal("forgotten though it was handed out, or kept")
		}
		if n := l.Sweep(nobody); n != 1 {
			t.Fatal("not forgotten")
		}
	})
}

func TestChangedTierGivesNothingAway(t *testing.T) {
	for _, tt := range []struct {
		name     string
		from, to Tier
		taken    int
		want     int // calls left at once under the new tier
	}{
		{"to more a minute", perMinute(10), perMinute(100), 10, 0},
		{"to more a minute with some left", perMinute(10), perMinute(100), 4, 6},
		{"to fewer a minute", perMinute(100), perMinute(10), 50, 10},
		{"to fewer than are left", perMinute(100), perMinute(10), 95, 5},
		{"to a quicker one", per(10, Hour), per(10, Second), 10, 0},
		{"to more a day", per(10, Day), per(100, Day), 10, 90},
		{"to fewer a day", per(100, Day), per(10, Day), 50, 0},
		{"to more a month", per(10, Month), per(100, Month), 4, 96},
		{"a bucket to a quota", perMinute(10), per(100, Day), 10, 100},
		{"a quota to a bucket", per(10, Day), perMinute(5), 10, 5},
		{"to none", perMinute(10), perMinute(0), 7, 0},
		{"to another name", perMinute(10), Tier{Name: "U", RequestCount: 10, UnitTime: 1, TimeUnit: Minute}, 7, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				if n := passes(l.Bucket(client("a"), tt.from), c.now, tt.taken); n != tt.taken {
					t.Fatalf("%d of %d pass", n, tt.taken)
				}
				b := l.Bucket(client("a"), tt.to)
				if v := b.Take(c.now); v.Tier != tt.to.Name || v.Allowed != (tt.want > 0) {
					t.Errorf("got %+v", v)
				}
				wantPasses(t, b, c.now, max(0, tt.want-1))
			})
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				passes(l.Bucket(client("a"), tt.from), c.now, tt.taken)
				none := perMinute(0)
				for range 5 { // to and fro, each put in force by a call that takes nothing
					l.Bucket(client("a"), none).Take(c.now)
					TakeAll(c.now, l.Bucket(client("a"), tt.to), l.Bucket(client("none"), none))
					TakeAll(c.now, l.Bucket(client("a"), tt.from), l.Bucket(client("none"), none))
				}
				left := tt.from.RequestCount - tt.taken
				if !tt.from.TimeUnit.calendar() && !tt.to.TimeUnit.calendar() && tt.to.RequestCount > 0 {
					left = min(left, tt.to.RequestCount)
				}
				wantPasses(t, l.Bucket(client("a"), tt.from), c.now, left)
			})
		})
	}
}

// Flipping between two tiers and taking all that there is each time passes each tier's allowance once.
func TestFlippingTiersGivesNothing(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		passed := 0
		for range 50 {
			for _, tier := range []Tier{perMinute(10), per(20, Day), perMinute(15), per(5, Hour), per(25, Day), per(30, Month)} {
				passed += passes(l.Bucket(client("a"), tier), c.now, 100)
				l.Sweep(func(Key) bool { return false })
			}
		}
		if passed != 10+25+30 {
			t.Errorf("%d calls pass, want 65", passed)
		}
	})
}

// A snapshot that is built and thrown away changes nothing for the one in force.
func TestSnapshotThatIsThrownAwayChangesNothing(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		inForce := l.Bucket(client("a"), perMinute(10))
		wantPasses(t, inForce, c.now, 10)
		l.Bucket(client("a"), perMinute(1000))
		c.advance(6 * time.Second)
		if v := inForce.Take(c.now); !v.Allowed || v.Limit != 10 {
			t.Errorf("got %+v", v)
		}
		wantPasses(t, inForce, c.now, 0)
		mended := l.Bucket(client("a"), perMinute(10))
		wantPasses(t, mended, c.now, 0)
		c.advance(12 * time.Second)
		wantPasses(t, mended, c.now, 2)
	})
}

// Calls under way hold older buckets: they don't put an older tier in force again.
func TestOlderSnapshotsCountUnderTheNewestTier(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		older := l.Bucket(client("a"), perMinute(10))
		wantPasses(t, older, c.now, 10)
		newer := l.Bucket(client("a"), perMinute(20))
		wantPasses(t, newer, c.now, 0)
		for range 60 {
			c.advance(time.Second)
			if v := older.Take(c.now.Add(-time.Hour)); v.Allowed || v.Limit != 20 {
				t.Fatalf("got %+v", v)
			}
		}
		wantPasses(t, newer, c.now, 20)
	})
}

func TestQuotaStartsAnewWithTheCalendar(t *testing.T) {
	date := func(year int, month time.Month, day, hour, minute int) time.Time {
		return time.Date(year, month, day, hour, minute, 0, 0, time.UTC)
	}
	east := time.FixedZone("east", 14*60*60)
	for _, tt := range []struct {
		name  string
		units int
		unit  Unit
		now   time.Time
		start time.Time
		end   time.Time
	}{
		{"a day", 1, Day, date(2027, 3, 5, 12, 0), date(2027, 3, 5, 0, 0), date(2027, 3, 6, 0, 0)},
		{"the first moment of a day", 1, Day, date(2027, 3, 5, 0, 0), date(2027, 3, 5, 0, 0), date(2027, 3, 6, 0, 0)},
		{"the last moment of a year", 1, Day, date(2028, 1, 1, 0, 0).Add(-1), date(2027, 12, 31, 0, 0), date(2028, 1, 1, 0, 0)},
		{"UTC, not the clock's own zone", 1, Day, time.Date(2027, 3, 5, 1, 0, 0, 0, east), date(2027, 3, 4, 0, 0), date(2027, 3, 5, 0, 0)},
		{"two days from 1970", 2, Day, date(1970, 1, 4, 1, 0), date(1970, 1, 3, 0, 0), date(1970, 1, 5, 0, 0)},
		{"before 1970", 2, Day, date(1969, 12, 31, 1, 0), date(1969, 12, 30, 0, 0), date(1970, 1, 1, 0, 0)},
		{"January", 1, Month, date(2027, 1, 31, 23, 59), date(2027, 1, 1, 0, 0), date(2027, 2, 1, 0, 0)},
		{"February", 1, Month, date(2027, 2, 15, 0, 0), date(2027, 2, 1, 0, 0), date(2027, 3, 1, 0, 0)},
		{"February of a leap year", 1, Month, date(2028, 2, 29, 12, 0), date(2028, 2, 1, 0, 0), date(2028, 3, 1, 0, 0)},
		{"February of 2100", 1, Month, date(2100, 2, 28, 12, 0), date(2100, 2, 1, 0, 0), date(2100, 3, 1, 0, 0)},
		{"December", 1, Month, date(2027, 12, 31, 23, 59), date(2027, 12, 1, 0, 0), date(2028, 1, 1, 0, 0)},
		{"a month in another zone", 1, Month, time.Date(2027, 3, 1, 1, 0, 0, 0, east), date(2027, 2, 1, 0, 0), date(2027, 3, 1, 0, 0)},
		{"a quarter", 3, Month, date(2027, 5, 31, 0, 0), date(2027, 4, 1, 0, 0), date(2027, 7, 1, 0, 0)},
		{"a year", 12, Month, date(2027, 5, 31, 0, 0), date(2027, 1, 1, 0, 0), date(2028, 1, 1, 0, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				c.now = tt.now
				b := l.Bucket(client("a"), Tier{Name: "T", RequestCount: 2, UnitTime: tt.units, TimeUnit: tt.unit})
				window, left := tt.end.Sub(tt.start), tt.end.Sub(tt.now)
				for i, want := range []Verdict{
					{Allowed: true, Remaining: 1},
					{Allowed: true, Remaining: 0},
					{RetryAfter: left},
					{RetryAfter: left},
				} {
					want.Level, want.Tier, want.Limit, want.Reset, want.Window = LevelClient, "T", 2, left, window
					if v := b.Take(c.now); v != want {
						t.Fatalf("call %d: got %+v, want %+v", i, v, want)
					}
				}
				wantPasses(t, b, tt.end.Add(-1), 0)
				wantPasses(t, b, tt.end, 2)
			})
		})
	}
}

// A clock that is put back gives nothing, and what it holds up it holds up no longer than the jump.
func TestClockPutBack(t *testing.T) {
	const jump = time.Hour
	for _, tier := range []Tier{perMinute(4), per(4, Second), per(4, Hour), per(4, Day), per(4, Month)} {
		t.Run(tier.TimeUnit.String(), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				c.now = time.Date(2027, 3, 1, 0, 30, 0, 0, time.UTC) // a day and a month just began
				b := l.Bucket(client("a"), tier)
				passes(b, c.now, 2)
				c.advance(-jump)
				if v := b.Take(c.now); !v.Allowed || v.Remaining != 1 {
					t.Errorf("what was left doesn't pass: %+v", v)
				}
				wantPasses(t, b, c.now, 1)
				v := b.Take(c.now)
				if v.Allowed || v.RetryAfter <= jump {
					t.Errorf("got %+v", v)
				}
				for range 12 { // to and fro
					c.advance(jump)
					wantPasses(t, b, c.now, 0)
					c.advance(-jump)
					wantPasses(t, b, c.now, 0)
				}
				c.advance(v.RetryAfter - roundedOff)
				wantPasses(t, b, c.now, 0)
				c.advance(roundedOff)
				if !b.Take(c.now).Allowed {
					t.Error("held up for longer than the jump")
				}
			})
		})
	}
}

func TestTakeAll(t *testing.T) {
	api := Key{API: "orders:1.0.0", Level: LevelAPI}
	resource := Key{API: "orders:1.0.0", Level: LevelResource, Name: "GET /items/{id}"}
	for _, tt := range []struct {
		name                  string
		api, resource, client int // calls a minute; -1: no limit
		calls                 int
		want                  Verdict // of the last call, its times left out
		left                  [3]int
	}{
		{"no limit", -1, -1, -1, 1, Verdict{Allowed: true}, [3]int{}},
		{"the client's is the least", 10, 5, 3, 1, Verdict{Allowed: true, Level: LevelClient, Limit: 3, Remaining: 2}, [3]int{9, 4, 2}},
		{"the API's is the least", 2, 5, 3, 2, Verdict{Allowed: true, Level: LevelAPI, Limit: 2, Remaining: 0}, [3]int{0, 3, 1}},
		{"as little is left of each", 3, 3, 3, 1, Verdict{Allowed: true, Level: LevelAPI, Limit: 3, Remaining: 2}, [3]int{2, 2, 2}},
		{"the client's refuses", 10, 5, 3, 50, Verdict{Level: LevelClient, Limit: 3}, [3]int{7, 2, 0}},
		{"the resource's refuses", 10, 2, 3, 50, Verdict{Level: LevelResource, Limit: 2}, [3]int{8, 0, 1}},
		{"the API's refuses", 1, 2, 3, 50, Verdict{Level: LevelAPI, Limit: 1}, [3]int{0, 1, 2}},
		{"all refuse", 2, 2, 2, 50, Verdict{Level: LevelAPI, Limit: 2}, [3]int{0, 0, 0}},
		{"the resource's and the client's refuse", 5, 2, 2, 50, Verdict{Level: LevelResource, Limit: 2}, [3]int{3, 0, 0}},
		{"only a client's", -1, -1, 2, 50, Verdict{Level: LevelClient, Limit: 2}, [3]int{0, 0, 0}},
		{"none for the client", 5, -1, 0, 50, Verdict{Level: LevelClient}, [3]int{5, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				var buckets [3]Bucket
				for i, n := range []int{tt.api, tt.resource, tt.client} {
					if n >= 0 {
						buckets[i] = l.Bucket([]Key{api, resource, client("a")}[i], perMinute(n))
					}
				}
				var v Verdict
				for range tt.calls {
					v = TakeAll(c.now, buckets[:]...)
				}
				v.Tier, v.Reset, v.RetryAfter, v.Window = "", 0, 0, 0
				if v != tt.want {
					t.Errorf("got %+v, want %+v", v, tt.want)
				}
				for i, b := range buckets {
					if b != nil {
						wantPasses(t, b, c.now, tt.left[i])
					}
				}
			})
		})
	}
}

func TestTakeAllOfTheSameBucketTwiceTakesOnce(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		older, newer := l.Bucket(client("a"), perMinute(5)), l.Bucket(client("a"), perMinute(6))
		if v := TakeAll(c.now, older, nil, older, newer); !v.Allowed || v.Remaining != 4 {
			t.Errorf("got %+v", v)
		}
	})
}

// docs/security.md, I 116: however calls run into each other, none passes beyond a limit and none that is refused costs anything.
func TestTakeAllAtOnce(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		random := rand.New(rand.NewPCG(3, 4))
		for round := range 60 {
			key := func(level Level, name string) Key {
				return Key{API: fmt.Sprint(round), Level: level, Name: name}
			}
			const clients = 5
			size := func() int { return random.IntN(60) }
			sizes := []int{size(), size(), size(), size(), size(), size(), size(), size()} // API, two resources, clients
			buckets := []Bucket{l.Bucket(key(LevelAPI, ""), perMinute(sizes[0]))}
			for i := range 2 {
				buckets = append(buckets, l.Bucket(key(LevelResource, fmt.Sprint(i)), perMinute(sizes[1+i])))
			}
			for i := range clients {
				buckets = append(buckets, l.Bucket(key(LevelClient, fmt.Sprint(i)), per(sizes[3+i], []Unit{Minute, Day}[i%2])))
			}

			spent := make([]atomic.Int64, len(buckets))
			atOnce(20, func(i int) {
				for n := range 40 {
					r, k := 1+n%2, 3+(i+n)%clients
					order := []int{0, r, k}
					if i%2 == 0 {
						order = []int{k, 0, r}
					}
					if TakeAll(c.now, buckets[order[0]], buckets[order[1]], buckets[order[2]]).Allowed {
						for _, b := range order {
							spent[b].Add(1)
						}
					}
				}
			})
			for i, b := range buckets {
				left := passes(b, c.now, 1000)
				if int(spent[i].Load())+left != sizes[i] {
					t.Fatalf("round %d, bucket %d: %d passed and %d are left of %d", round, i, spent[i].Load(), left, sizes[i])
				}
			}
		}
	})
}

// While tiers change, snapshots are built and buckets swept, the limit holds.
func TestLimitHoldsWhileSnapshotsChange(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		tiers := []Tier{perMinute(50), perMinute(40), per(100, Hour), {Name: "U", RequestCount: 50, UnitTime: 1, TimeUnit: Minute}}
		var passed atomic.Int64
		now := c.now
		atOnce(8, func(i int) {
			for n := range 500 {
				switch {
				case i == 0:
					l.Sweep(func(Key) bool { return n%2 == 0 })
				case TakeAll(now, l.Bucket(client("a"), tiers[(i+n)%len(tiers)])).Allowed:
					passed.Add(1)
				}
			}
		})
		if n := passed.Load(); n < 40 || n > 100 {
			t.Errorf("%d calls pass, want 40 to 100: the first tier's burst", n)
		}
	})
}

// docs/security.md, I 119: buckets are for keys of snapshots. Taking, refused or not, makes none.
func TestTakingMakesNoBuckets(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		b := l.Bucket(client("a1"), perMinute(10))
		for range 100_000 {
			TakeAll(c.now)
			TakeAll(c.now, nil, nil, nil)
			TakeAll(c.now, nil, nil, b)
		}
		if l.Len() != 1 {
			t.Errorf("%d buckets, want 1", l.Len())
		}
		c.advance(time.Minute)
		wantPasses(t, b, c.now, 10)
	})
}

// docs/security.md, I 119: what was removed is forgotten as soon as that gives nothing away.
func TestSweepBoundsMemory(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		stays := client("stays")
		for day := range 20 {
			l.Bucket(stays, perMinute(10))
			for i := range 1000 {
				l.Bucket(client(fmt.Sprint(day, i)), perMinute(10)).Take(c.now)
			}
			l.Sweep(func(k Key) bool { return k == stays })
			c.advance(time.Minute)
			l.Sweep(func(k Key) bool { return k == stays })
			if l.Len() != 1 {
				t.Fatalf("%d buckets, want 1", l.Len())
			}
		}
	})
}
