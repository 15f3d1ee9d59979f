package revocation

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// asking is the state of asking somebody for something: one question at a time, and none before its time. Its zero
// value has never asked.
type asking struct {
	mu     sync.Mutex
	landed chan struct{} // closed when the question under way has an answer; nil: there is none

	flight   atomic.Int64 // since when a question is under way, in Unix nanoseconds; 0: none is
	due      atomic.Int64 // when the next may be asked; 0: none ever was
	failures atomic.Int32 // since the last good answer
}

// begin makes the caller ask, unless somebody does already. The channel is closed when there is an answer.
func (a *asking) begin(now time.Time) (landed <-chan struct{}, ask bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.landed != nil {
		return a.landed, false
	}
	a.landed = make(chan struct{})
	a.flight.Store(now.UnixNano())
	return a.landed, true
}

// end is what the caller of begin tells. The next question is asked at due; after a failure, after a pause that
// doubles with each, from least up to most.
func (a *asking) end(now time.Time, failed bool, due time.Time, least, most time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if failed {
		n := a.failures.Add(1)
		due = now.Add(spread(min(least<<min(n-1, 16), max(most, least))))
	} else {
		a.failures.Store(0)
	}
	a.due.Store(due.UnixNano())
	a.flight.Store(0)
	close(a.landed)
	a.landed = nil
}

// spread is a duration that is up to a tenth shorter, so that many do not ask at once.
func spread(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d)/10+1)) }

// isDue reports whether somebody should ask now.
func (a *asking) isDue(now time.Time) bool {
	return a.flight.Load() == 0 && now.UnixNano() >= a.due.Load()
}

// A turn is what whoever has no answer may expect of asking.
type turn uint8

const (
	over  turn = iota // nothing before due
	again             // it failed before, and may be asked again
	fresh             // it was not asked yet, or its answer has ended
)

// turn says whether to wait for an answer. Nobody waits for a question that has been under way for longer than a
// budget.
func (a *asking) turn(now time.Time, budget time.Duration) turn {
	failed := a.failures.Load() > 0
	if since := a.flight.Load(); since != 0 {
		switch {
		case now.UnixNano() >= since+int64(budget):
			return over
		case failed:
			return again
		}
		return fresh
	}
	switch due := a.due.Load(); {
	case due != 0 && now.UnixNano() < due:
		return over
	case failed:
		return again
	}
	return fresh
}

// next is when turn may say something else than over.
func (a *asking) next(now time.Time) time.Time {
	if due := time.Unix(0, a.due.Load()); due.After(now) {
		return due
	}
	return now.Add(time.Second) // what is under way changes the generation when it lands
}
