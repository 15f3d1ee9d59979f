package ratelimit

import (
	"time"

	"golang.org/x/time/rate"
)

// tokens is a token bucket that is refilled evenly. The account's lock guards it.
type tokens struct {
	limiter *rate.Limiter // nil until the first tier
	limit   int           // calls a window
	window  time.Duration
	burst   float64    // the limiter's, kept here to spare its lock: BenchmarkTake/tokens, -40%
	rate    rate.Limit // likewise
	latest  time.Time  // of the last change
	have    float64    // tokens at asked, which a call looks at twice: BenchmarkTakeAll, -15%
	asked   time.Time
	known   bool // have and asked count
}

func (k *tokens) fit(t Tier, now time.Time) {
	k.limit, k.window = t.RequestCount, t.window()
	k.burst = float64(t.burst())
	k.rate = t.rate()
	k.known = false
	if k.limiter == nil {
		k.limiter = rate.NewLimiter(k.rate, t.burst())
		return
	}
	// What was there is refilled at the old rate until now, and goes on at the new one: min(what is left, new burst).
	k.latest = k.at(now)
	k.limiter.SetLimitAt(k.latest, k.rate)
	k.limiter.SetBurstAt(k.latest, t.burst())
}

// at is now, but never before the last change: the limiter would refill the same time twice after a clock was put back.
// Until the clock is where it was, nothing is refilled. Times of time.Now are monotonic and aren't put back at all.
func (k *tokens) at(now time.Time) time.Time {
	if now.Before(k.latest) {
		return k.latest
	}
	return now
}

func (k *tokens) look(now time.Time, _ bool) Verdict {
	at := k.at(now)
	if !k.known || at != k.asked {
		k.have, k.asked, k.known = k.limiter.TokensAt(at), at, true
	}
	have := k.have
	v := Verdict{Limit: k.limit, Window: k.window}
	behind := at.Sub(now)
	if wait := timeFor(1-have, k.rate); wait > 0 {
		v.RetryAfter = behind + wait
	} else {
		v.Allowed = true
		v.Remaining = max(1, int(have+float64(k.rate)*time.Nanosecond.Seconds()))
	}
	if missing := timeFor(k.burst-have, k.rate); missing > 0 {
		v.Reset = behind + missing
	}
	return v
}

// spend books with a reservation, not AllowN: look has decided, and a rounding that differed by one bit must not let
// the call pass unbooked.
func (k *tokens) spend(now time.Time) Verdict {
	k.latest = k.at(now)
	k.limiter.ReserveN(k.latest, 1)
	k.have--
	k.known = k.known && k.asked == k.latest
	return k.look(now, false)
}

func (k *tokens) whole(now time.Time) bool {
	return k.limiter == nil || k.limiter.TokensAt(k.at(now)) >= k.burst
}
