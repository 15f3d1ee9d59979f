package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport/internal/contain"
)

// Run keeps the keys fresh until ctx ends: URLs every RefreshInterval, sooner after a failure, and files every
// FilePoll. It returns nil when all its goroutines and any fetch under way have ended; from then on the keys stay as
// they are. It may be called once.
func (v *Verifier) Run(ctx context.Context) error {
	if v.running.Swap(true) {
		return errors.New("tokens: Run was called before")
	}
	var watchers sync.WaitGroup
	for _, from := range v.issuers {
		watchers.Go(func() {
			_ = v.faults.Again("a watch over keys", ctx.Done(), func() error { from.keys.watch(ctx); return nil })
		})
	}
	<-ctx.Done()
	watchers.Wait()
	v.tasks.stop()
	return nil
}

// Refresh reads all keys now, whatever the cool-down, and returns when it is done or ctx ends. Its error joins those
// of the key managers whose last good keys stay.
func (v *Verifier) Refresh(ctx context.Context) error {
	errs := make(chan error, len(v.issuers))
	for _, from := range v.issuers {
		go func() {
			defer v.faults.Catch("a refresh of keys", func(f *contain.Fault) { errs <- f })
			err := from.keys.refresh(ctx)
			if err != nil {
				err = fmt.Errorf("key manager %q: %w", from.Name, err)
			}
			errs <- err
		}()
	}
	var all []error
	for range v.issuers {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// watch reads the source at its interval; a URL immediately, since New does not fetch it.
func (r *keyring) watch(ctx context.Context) {
	pause := r.interval
	if r.remote {
		pause = 0
	}
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		// Its error is logged where it arises, and counted for the backoff.
		_ = r.refresh(ctx)
		pause = r.pause()
	}
}

func (r *keyring) pause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures > 0 {
		return min(r.backoff(), r.interval)
	}
	return r.interval
}

// tasks are goroutines that belong to a verifier rather than to a caller.
type tasks struct {
	ctx    context.Context
	cancel context.CancelFunc
	faults *contain.Faults

	mu    sync.Mutex // so that none starts while stop waits
	group sync.WaitGroup
}

func newTasks(faults *contain.Faults) *tasks {
	ctx, cancel := context.WithCancel(context.Background())
	return &tasks{ctx: ctx, cancel: cancel, faults: faults}
}

// start runs task unless the tasks have been stopped.
func (t *tasks) start(task func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	t.group.Go(func() {
		defer t.faults.Catch("a fetch of keys", nil)
		task(t.ctx)
	})
	return true
}

// stop ends the tasks and waits for them.
func (t *tasks) stop() {
	t.mu.Lock()
	t.cancel()
	t.mu.Unlock()
	t.group.Wait()
}
