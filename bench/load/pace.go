package load

import (
	"context"
	"time"
)

// shortestTick limits how often the pacer wakes up. It hands out all calls due within a tick together.
const shortestTick = 50 * time.Microsecond

// A clock wakes the pacer at every tick.
type clock interface {
	wait() error // until the next tick, or until close
	close()
}

// pace sends the times at which calls are due, every 1/Rate seconds starting at first. It skips none: a call that finds
// no free connection waits, and its latency grows meanwhile. Calls that have not begun Timeout after the last was due
// are errors.
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

// A ticker is a clock on Go's timers, which can be a millisecond late.
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
