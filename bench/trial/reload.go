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
	Reloads       int // that came into force during With, the last perhaps a moment after
}

// Reload applies half of the gateway's maximum load, once without and once with n reloads of its profiles, one in each
// interval. Each reload changes the server certificate. A gateway that takes longer than an interval gets fewer.
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

	c.Progress = b.show("half load, with reloads")
	begin, reloaded := make(chan struct{}), make(chan error, 1)
	c.Began = func() { close(begin) }
	under, stop := context.WithCancel(ctx)
	go func() {
		var err error
		r.Reloads, err = b.reloads(ctx, under, begin, n, interval)
		reloaded <- err
	}()
	r.With, err = load.Run(ctx, c)
	stop()
	return r, errors.Join(err, <-reloaded)
}

// reloads writes the profiles n times, in the middle of each interval, or later if the gateway has not taken the ones
// before: two changes in a row may be one to it. When the load ends, which under tells, the rest is left out.
func (b *bed) reloads(ctx, under context.Context, begin <-chan struct{}, n int, interval time.Duration) (done int, err error) {
	select {
	case <-begin:
	case <-under.Done():
		return 0, under.Err()
	}
	before, err := b.metric(ctx, reloads)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for ; done < n; done++ {
		if !pause(under, time.Until(began.Add(time.Duration(done)*interval+interval/2))) && done > 0 {
			return done, nil
		}
		if err := b.writeProfiles(done + 1); err != nil {
			return done, err
		}
		if err := await(ctx, "the gateway takes a reload", longest, func() (bool, error) {
			after, err := b.metric(ctx, reloads)
			return after > before+float64(done), err
		}); err != nil {
			return done, err
		}
	}
	return done, nil
}

// show returns a Progress hook that prefixes the state with name.
func (b *bed) show(name string) func(load.Progress) {
	return func(p load.Progress) {
		b.Progress.Pass("%s: %s  %.0f calls/s  %d errors  %v left",
			name, p.Phase, p.PerSec, p.Errors, p.Left.Round(time.Second))
	}
}
