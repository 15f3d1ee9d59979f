package load

import (
	"context"
	"time"
)

// shortestTick bounds how often the pacer wakes up; calls that fall into one tick are handed out together.
const shortestTick = 50 * time.Microsecond

// A clock wakes the pacer.
type clock interface {
	wait() error // until the next tick, or until close
	close()
}

// pace hands out the times at which calls are due, one for each 1/Rate seconds from first on. None is left out: what finds
// no free connection waits, and its time keeps counting. What has not begun Timeout after the last was due is an error.
func (r *run) pace(ctx context.Context, due chan<- time.Duration, first time.Duration) {
	defer close(due)
	every := time.Duration(float64(time.Second) / r.Rate)
	clock := newClock(max(every, shortestTick))
	defer context.AfterFunc(ctx, clock.close)()
	defer clock.close()

	n := uint64((r.Warmup + r.Duration).Seconds() * r.Rate)
	giveUp := time.NewTimer(r.Warmup + r.Duration + r.Timeout)
	defer giveUp.Stop()
	for k := uint64(0); k < n; k++ {
		intended := first + time.Duration(float64(k)/r.Rate*float64(time.Second))
		for r.now() < intended {
			if clock.wait() != nil {
				return
			}
		}
		select {
		case due <- intended:
		case <-ctx.Done():
			return
		case <-giveUp.C:
			r.errors.addMany(failed(neverStarted, nil), n-k)
			return
		}
	}
}

// A ticker is a clock as exact as Go's timers, which may be late by a millisecond.
type ticker struct {
	ticks *time.Ticker
	ctx   context.Context
	end   context.CancelFunc
}

func newTicker(every time.Duration) *ticker {
	ctx, end := context.WithCancel(context.Background())
	return &ticker{time.NewTicker(every), ctx, end}
}

func (t *ticker) wait() error {
	select {
	case <-t.ticks.C:
		return nil
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}

func (t *ticker) close() { t.end(); t.ticks.Stop() }
