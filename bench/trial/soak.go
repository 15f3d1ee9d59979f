package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/peer"
)

// SoakOptions configure a soak.
type SoakOptions struct {
	Duration time.Duration
	Rate     float64       // calls a second of the mixed workload; 0: closed loop
	Every    time.Duration // between changes: a reload, a certificate added and one removed
	Sample   func(Sample)  // called after each change; may be nil
}

// A Sample is the state of the gateway at one time.
type Sample struct {
	At         time.Duration
	Memory     int64 // bytes
	Goroutines int
	Calls      uint64
	Errors     uint64
}

// A SoakResult is the outcome of a soak.
type SoakResult struct {
	*load.Result
	Changes int
	Samples []Sample
}

// Soak keeps the gateway under load while its profiles and its certificates change.
func Soak(ctx context.Context, s Setup, p peer.Program, o SoakOptions) (r SoakResult, err error) {
	b, err := s.open(ctx, p, true)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	tokens, err := b.pki.Issuers[1].Tokens(64)
	if err != nil {
		return r, err
	}
	c := b.calls()
	c.Workload, c.Connections, c.Rate, c.Warmup, c.Duration = load.Mixed, 64, o.Rate, time.Second, o.Duration
	for _, t := range tokens { // the API does not ask for them, and the gateway must ignore them
		c.Headers = append(c.Headers, load.Header{Name: "Authorization", Value: "Bearer " + t})
	}
	last := make(chan load.Progress, 1)
	show := b.show("soaking")
	c.Progress = func(p load.Progress) {
		show(p)
		select {
		case <-last:
		default:
		}
		last <- p
	}
	inner, stop := context.WithCancel(ctx)
	changed := make(chan error, 1)
	go func() { changed <- b.change(inner, o, last, &r) }()
	result, err := load.Run(ctx, c)
	stop()
	err = errors.Join(err, <-changed)
	r.Result = result
	return r, err
}

// change makes the changes and takes the samples until ctx ends. Until it returns, nothing else touches r.
func (b *bed) change(ctx context.Context, o SoakOptions, last <-chan load.Progress, r *SoakResult) error {
	began := time.Now()
	name := func(n int) string { return fmt.Sprintf("soaked-%d", n) }
	for n := 1; pause(ctx, o.Every); n++ {
		if _, err := b.pki.NewClient(name(n)); err != nil {
			return err
		}
		// A change that has begun is completed even if ctx ends.
		whole := context.WithoutCancel(ctx)
		err := errors.Join(b.reload(n), b.register(whole, name(n)))
		if n > 1 {
			err = errors.Join(err, b.unregister(whole, name(n-1)))
		}
		if err != nil {
			return err
		}
		r.Changes++
		sample := Sample{At: time.Since(began)}
		if sample.Memory, err = b.gateway.Memory(); err != nil {
			return err
		}
		count, err := b.metric(whole, goroutines)
		if err != nil {
			return err
		}
		sample.Goroutines = int(count)
		select {
		case p := <-last:
			sample.Calls, sample.Errors = p.Calls, p.Errors
		default:
			if len(r.Samples) > 0 {
				sample.Calls, sample.Errors = r.Samples[len(r.Samples)-1].Calls, r.Samples[len(r.Samples)-1].Errors
			}
		}
		r.Samples = append(r.Samples, sample)
		if o.Sample != nil {
			o.Sample(sample)
		}
	}
	return nil
}
