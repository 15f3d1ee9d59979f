package ratelimit

import (
	"testing"
	"time"
)

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
		{"the last moment of a year", 1, Day, date(2028, 1, 1, 0, 0).Add(-time.Microsecond), date(2027, 12, 31, 0, 0), date(2028, 1, 1, 0, 0)},
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
					if v := take(c.now, b); v != want {
						t.Fatalf("call %d: got %+v, want %+v", i, v, want)
					}
				}
				wantPasses(t, b, tt.end.Add(-c.early), 0)
				wantPasses(t, b, tt.end, 2)
			})
		})
	}
}

// TestClockPutBack sets the clock back: that lets no additional call pass, and delays none for longer than the jump.
func TestClockPutBack(t *testing.T) {
	const jump = time.Hour
	for _, tier := range []Tier{perMinute(4), per(4, Second), per(4, Hour), per(4, Day), per(4, Month)} {
		t.Run(tier.TimeUnit.String(), func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				if c.shared != nil {
					return
				}
				c.now = time.Date(2027, 3, 1, 0, 30, 0, 0, time.UTC) // a day and a month just began
				b := l.Bucket(client("a"), tier)
				passes(b, c.now, 2)
				c.advance(-jump)
				if v := take(c.now, b); !v.Allowed || v.Remaining != 1 {
					t.Errorf("what was left doesn't pass: %+v", v)
				}
				wantPasses(t, b, c.now, 1)
				v := take(c.now, b)
				if v.Allowed || v.RetryAfter <= jump {
					t.Errorf("got %+v", v)
				}
				for range 12 { // back and forth
					c.advance(jump)
					wantPasses(t, b, c.now, 0)
					c.advance(-jump)
					wantPasses(t, b, c.now, 0)
				}
				c.advance(v.RetryAfter - c.roundedOff)
				wantPasses(t, b, c.now, 0)
				c.advance(c.roundedOff)
				if !take(c.now, b).Allowed {
					t.Error("held up for longer than the jump")
				}
			})
		})
	}
}
