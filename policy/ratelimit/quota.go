package ratelimit

import "time"

// quota counts calls in periods of the calendar, UTC. The account's lock guards it.
type quota struct {
	count      int // calls a period
	units      int // units a period
	unit       Unit
	begun      bool      // there is a period below
	used       int       // in it
	start, end time.Time // the period that was last counted in; start is in it and end is not
}

func (q *quota) fit(t Tier, now time.Time) {
	used := q.usedAt(now)
	q.count, q.units, q.unit = t.RequestCount, t.UnitTime, t.TimeUnit
	if used == 0 {
		q.begun = false
		return
	}
	// Calls already counted stay counted in the new period. A clock that was put back doesn't start one.
	if now.Before(q.start) {
		now = q.start
	}
	q.start, q.end = period(now, q.units, q.unit)
}

// within reports whether now is in the period that was last counted in. A clock that was put back stays in it, so that
// the same period isn't given twice.
func (q *quota) within(now time.Time) bool { return q.begun && now.Before(q.end) }

// usedAt is how much is used in the period that now is in.
func (q *quota) usedAt(now time.Time) int {
	if q.within(now) {
		return q.used
	}
	return 0
}

func (q *quota) look(now time.Time, _ bool) Verdict {
	start, end := q.start, q.end
	if !q.within(now) {
		start, end = period(now, q.units, q.unit)
	}
	v := Verdict{
		Limit:     q.count,
		Remaining: max(0, q.count-q.usedAt(now)),
		Reset:     end.Sub(now),
		Window:    end.Sub(start),
	}
	v.Allowed = v.Remaining > 0
	if !v.Allowed {
		v.RetryAfter = v.Reset
	}
	return v
}

func (q *quota) spend(now time.Time) Verdict {
	if !q.within(now) {
		q.begun, q.used = true, 0
		q.start, q.end = period(now, q.units, q.unit)
	}
	q.used++
	return q.look(now, false)
}

func (q *quota) whole(now time.Time) bool { return q.usedAt(now) == 0 }

// period returns the period of n days or months that now is in, counted from 1970-01-01 UTC.
func period(now time.Time, n int, unit Unit) (start, end time.Time) {
	now = now.UTC()
	if unit == Day {
		const secondsADay = 24 * 60 * 60 // in UTC, every day
		length := int64(n) * secondsADay
		first := floorTo(now.Unix(), length)
		return time.Unix(first, 0).UTC(), time.Unix(first+length, 0).UTC()
	}
	first := floorTo(int64(now.Year()-1970)*12+int64(now.Month()-time.January), int64(n))
	return startOfMonth(first), startOfMonth(first + int64(n))
}

// startOfMonth counts months from January 1970.
func startOfMonth(month int64) time.Time {
	return time.Date(1970, time.January+time.Month(month), 1, 0, 0, 0, 0, time.UTC)
}

// floorTo is the greatest multiple of n that is at most x.
func floorTo(x, n int64) int64 {
	rest := x % n
	if rest < 0 {
		rest += n
	}
	return x - rest
}
