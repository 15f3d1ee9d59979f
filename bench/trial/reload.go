package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/peer"
)

// A ReloadResult compares calls without and with reloads.
type ReloadResult struct {
	Rate          float64 // calls a second: half of the maximum
	Without, With *load.Result
	Reloads       int // by the gateway's metrics
}

// Reload applies half of the gateway's maximum load, once without and once with n reloads of its profiles, one in each
// interval. Each reload changes the server certificate.
func Reload(ctx context.Context, s Setup, p peer.Program, n int, interval time.Duration) (r ReloadResult, err error) {
	b, err := s.open(ctx, p, true)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	c := b.calls()
	c.Connections, c.Warmup, c.Duration = 64, 500*time.Millisecond, 2*time.Second
	c.Progress = b.show("finding out how many calls a second there can be")
	full, err := load.Run(ctx, c)
	if err != nil {
		return r, err
	}
	if len(full.Errors) > 0 || full.Calls == 0 {
		return r, fmt.Errorf("at full load: %d calls, %v", full.Calls, full.Errors)
	}
	r.Rate = full.PerSecond() / 2
	c.Rate, c.Duration = r.Rate, time.Duration(n)*interval

	c.Progress = b.show("half load, without reloads")
	if r.Without, err = load.Run(ctx, c); err != nil {
		return r, err
	}

	before, err := b.metric(ctx, reloads)
	if err != nil {
		return r, err
	}
	c.Progress = b.show("half load, with reloads")
	begin, reloaded := make(chan struct{}), make(chan error, 1)
	c.Began = func() { close(begin) }
	inner, stop := context.WithCancel(ctx)
	go func() { reloaded <- b.reloads(inner, begin, n, interval) }()
	r.With, err = load.Run(ctx, c)
	stop()
	if err = errors.Join(err, <-reloaded); err != nil {
		return r, err
	}
	return r, await(ctx, "the gateway takes all reloads", longest, func() (bool, error) {
		after, err := b.metric(ctx, reloads)
		r.Reloads = int(after - before)
		return r.Reloads >= n, err
	})
}

// reloads writes the profiles n times, in the middle of each interval. The gateway notices the change of the file.
func (b *bed) reloads(ctx context.Context, begin <-chan struct{}, n int, interval time.Duration) error {
	select {
	case <-begin:
	case <-ctx.Done():
		return ctx.Err()
	}
	began := time.Now()
	for i := range n {
		if !pause(ctx, time.Until(began.Add(time.Duration(i)*interval+interval/2))) {
			return fmt.Errorf("after %d of %d reloads: %w", i, n, ctx.Err())
		}
		if err := b.writeProfiles(i + 1); err != nil {
			return err
		}
	}
	return nil
}

// show returns a Progress hook that prefixes the state with name.
func (b *bed) show(name string) func(load.Progress) {
	return func(p load.Progress) {
		b.Progress.Pass("%s: %s  %.0f calls/s  %d errors  %v left",
			name, p.Phase, p.PerSec, p.Errors, p.Left.Round(time.Second))
	}
}
