package ratelimit

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestReloadsLeaveBucketsAlone holds docs/security.md, I 123: a reload that does not change a tier does not refill its bucket.
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
		whole time.Duration // time until a bucket emptied at noon on 28 February is full
	}{
		{perMinute(10), time.Minute},
		{per(10, Day), 12 * time.Hour},
		{per(10, Month), 36 * time.Hour}, // the 29th is the last
	} {
		t.Run(tt.tier.TimeUnit.String(), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				wantPasses(t, l.Bucket(client("a"), tt.tier), c.now, 10)
				for range 3 { // the key is removed, and swept more than once
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

// TestSweepSparesWhatWasJustHandedOut has the old snapshot swept while a new one is built. The bucket that both hold must
// stay.
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
				if v := take(c.now, b); v.Tier != tt.to.Name || v.Allowed != (tt.want > 0) {
					t.Errorf("got %+v", v)
				}
				wantPasses(t, b, c.now, max(0, tt.want-1))
			})
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				passes(l.Bucket(client("a"), tt.from), c.now, tt.taken)
				none := perMinute(0)
				for range 5 { // back and forth, each tier put in force by a call that takes nothing
					l.Bucket(client("a"), none).Take(c.now)
					take(c.now, l.Bucket(client("a"), tt.to), l.Bucket(client("none"), none))
					take(c.now, l.Bucket(client("a"), tt.from), l.Bucket(client("none"), none))
				}
				left := tt.from.RequestCount - tt.taken
				if !tt.from.TimeUnit.calendar() && !tt.to.TimeUnit.calendar() && tt.to.RequestCount > 0 {
					left = min(left, tt.to.RequestCount)
				}
				b := l.Bucket(client("a"), tt.from)
				if c.shared != nil { // a shared bucket learns of a tier with a call that takes, but gives no more either
					if n := passes(b, c.now, 200); n < left || n > max(left, tt.from.RequestCount-tt.taken) {
						t.Errorf("%d calls pass, want %d to %d", n, left, tt.from.RequestCount-tt.taken)
					}
					return
				}
				wantPasses(t, b, c.now, left)
			})
		})
	}
}

// TestFlippingTiersGivesNothing changes tiers again and again and takes all there is each time. In all, the rates
// let the first limit pass, and each unit of the calendar its highest quota.
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

// TestSnapshotThatIsThrownAwayChangesNothing builds a snapshot that never comes into force.
func TestSnapshotThatIsThrownAwayChangesNothing(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		inForce := l.Bucket(client("a"), perMinute(10))
		wantPasses(t, inForce, c.now, 10)
		l.Bucket(client("a"), perMinute(1000))
		c.advance(6 * time.Second)
		if v := take(c.now, inForce); !v.Allowed || v.Limit != 10 {
			t.Errorf("got %+v", v)
		}
		wantPasses(t, inForce, c.now, 0)
		mended := l.Bucket(client("a"), perMinute(10))
		wantPasses(t, mended, c.now, 0)
		c.advance(12 * time.Second)
		wantPasses(t, mended, c.now, 2)
	})
}

// TestOlderSnapshotsCountUnderTheNewestTier checks that calls under way, which hold buckets of an older snapshot, do not
// bring its tier back into force.
func TestOlderSnapshotsCountUnderTheNewestTier(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		older := l.Bucket(client("a"), perMinute(10))
		wantPasses(t, older, c.now, 10)
		newer := l.Bucket(client("a"), perMinute(20))
		wantPasses(t, newer, c.now, 0)
		for range 60 {
			c.advance(time.Second)
			if v := take(c.now.Add(-time.Hour), older); v.Allowed || v.Limit != 20 {
				t.Fatalf("got %+v", v)
			}
		}
		wantPasses(t, newer, c.now, 20)
	})
}

// TestLimitHoldsWhileSnapshotsChange takes calls while tiers change, snapshots are built and buckets swept.
func TestLimitHoldsWhileSnapshotsChange(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		tiers := []Tier{perMinute(50), perMinute(40), per(100, Hour), {Name: "U", RequestCount: 50, UnitTime: 1, TimeUnit: Minute}}
		var passed atomic.Int64
		now := c.now
		atOnce(8, func(i int) {
			for n := range c.rounds(500, 150) {
				switch {
				case i == 0:
					l.Sweep(func(Key) bool { return n%2 == 0 })
				case take(now, l.Bucket(client("a"), tiers[(i+n)%len(tiers)])).Allowed:
					passed.Add(1)
				}
			}
		})
		if n := passed.Load(); n < 40 || n > 100 {
			t.Errorf("%d calls pass, want 40 to 100: the first tier's burst", n)
		}
	})
}

// TestSweepBoundsMemory holds docs/security.md, I 119: the bucket of a removed key is forgotten as soon as it is full again.
func TestSweepBoundsMemory(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		stays := client("stays")
		for day := range c.rounds(20, 5) {
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
