package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/peer"
)

// A BurstResult is the gateway's memory around a burst of new connections, in bytes.
type BurstResult struct {
	Connections int
	Start       int64 // when it has answered one call
	End         int64 // at the end of the burst
	Rested      int64 // when it has rested since
}

// Left returns the bytes that the burst has left behind.
func (r BurstResult) Left() int64 { return r.Rested - r.Start }

// Burst opens n mTLS connections, evenly over the time that the burst lasts, makes one call on each and closes it. A
// gateway that is too slow for that gets as much time again. Then it rests, except for a call a second on a connection
// that stays: no gateway in use is ever quite idle. Burst fails if a call does.
func Burst(ctx context.Context, s Setup, p peer.Program, n int, lasts, rest time.Duration) (r BurstResult, err error) {
	b, err := s.open(ctx, p, false)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	c := b.calls()
	if r.Start, err = b.rested(ctx, c, 1, 0); err != nil {
		return r, err
	}
	c.Workload, c.Connections, c.Duration, c.Rate = load.NewConn, burstAtOnce, lasts, float64(n)/lasts.Seconds()
	c.Timeout = max(10*time.Second, lasts)
	c.Progress = b.show("a burst of new connections")
	c.Ended = func() { r.End, err = b.gateway.Memory() }
	result, ended := load.Run(ctx, c)
	if err = errors.Join(err, ended); err != nil {
		return r, err
	}
	if len(result.Errors) > 0 {
		return r, fmt.Errorf("%d of %d connections failed: %v", result.Errors.Total(), n, result.Errors)
	}
	r.Connections = int(result.Calls)
	steady, _, err := load.Open(ctx, b.calls())
	if err != nil {
		return r, err
	}
	defer steady.Close()
	if err := b.rest(ctx, fmt.Sprintf("after %d new connections", n), rest, func() error {
		if failed := steady.Call(ctx); len(failed) > 0 {
			return fmt.Errorf("a call after the burst: %v", failed)
		}
		return nil
	}); err != nil {
		return r, err
	}
	r.Rested, err = b.gateway.Memory()
	return r, err
}

// burstAtOnce is how many connections of a burst are open at once, at most.
const burstAtOnce = 64
