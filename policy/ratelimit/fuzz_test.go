package ratelimit

import (
	"testing"
	"time"
)

// FuzzTokens plays any course of calls and times, and compares with a bucket that counts in whole numbers.
func FuzzTokens(f *testing.F) {
	f.Add(uint8(3), uint16(1), uint8(2), uint8(0), []byte{0, 0, 0, 0, 20, 0, 255, 0, 0})
	f.Add(uint8(7), uint16(17), uint8(1), uint8(2), []byte{0, 0, 0, 130, 0, 140, 0, 200, 0, 0, 255, 255, 0})
	f.Add(uint8(255), uint16(999), uint8(3), uint8(9), []byte{0, 1, 0, 2, 0, 3, 0})
	f.Fuzz(func(t *testing.T, count uint8, unitTime uint16, unit, burst uint8, steps []byte) {
		tier := Tier{
			Name: "T", RequestCount: int(count), UnitTime: int(unitTime%1000) + 1, TimeUnit: Unit(unit%3) + Second, Burst: int(burst),
		}
		if count == 0 || tier.Validate() != nil {
			return
		}
		b := NewLocal(nil).Bucket(client("a"), tier)

		// The model counts in parts of a call, of which the window has as many as nanoseconds.
		one := int64(tier.window())
		full := int64(tier.burst()) * one
		have, latest, now := full, time.Time{}, noon
		for _, step := range steps {
			if step != 0 {
				d := one / int64(count) * int64(int8(step)) / 40 // up to three calls' time, to and fro
				now = now.Add(time.Duration(d))
				continue
			}
			if elapsed := int64(now.Sub(latest)); elapsed > full/int64(count) {
				have = full
			} else if elapsed > 0 {
				have = min(full, have+elapsed*int64(count))
			}
			if now.After(latest) {
				latest = now
			}
			v := b.Take(now)
			allowed := have >= one
			if rounding := int64(count) * int64(localRounding); max(have-one, one-have) <= rounding {
				allowed = v.Allowed // too close to call
			}
			if v.Allowed != allowed {
				t.Fatalf("allowed %v, with %d of %d parts of a call: %+v", v.Allowed, have, one, v)
			}
			if v.Allowed {
				have -= one
			}
			if v.Remaining < 0 || v.Remaining > tier.burst() || v.Reset < 0 || v.RetryAfter < 0 || v.Allowed == (v.RetryAfter > 0) {
				t.Fatalf("%+v", v)
			}
		}
	})
}

// FuzzPeriod holds that every moment is in exactly one period, and that the next begins where it ends.
func FuzzPeriod(f *testing.F) {
	f.Add(int64(0), uint16(1), false)
	f.Add(int64(1835265600), uint16(1), true)
	f.Add(int64(-1), uint16(7), false)
	f.Add(int64(-62135596800), uint16(1180), true)
	f.Fuzz(func(t *testing.T, second int64, n uint16, month bool) {
		const farthest = 200_000_000_000 // past the year 8000, either way
		unit := Day
		if month {
			unit = Month
		}
		tier := Tier{Name: "T", RequestCount: 1, UnitTime: int(n), TimeUnit: unit}
		if tier.Validate() != nil || second > farthest || second < -farthest {
			return
		}
		now := time.Unix(second, 0)
		start, end := period(now, tier.UnitTime, unit)
		if now.Before(start) || !now.Before(end) || end.Sub(start) > tier.window() {
			t.Fatalf("%v is in %v to %v", now, start, end)
		}
		if next, _ := period(end, tier.UnitTime, unit); !next.Equal(end) {
			t.Fatalf("the period to %v is followed by one from %v", end, next)
		}
		if last, _ := period(end.Add(-1), tier.UnitTime, unit); !last.Equal(start) {
			t.Fatalf("the period from %v ends in one from %v", start, last)
		}
		b := NewLocal(nil).Bucket(client("a"), tier)
		if first, second := b.Take(now), b.Take(now); !first.Allowed || second.Allowed || second.RetryAfter != end.Sub(now) {
			t.Fatalf("%+v, %+v", first, second)
		}
	})
}
