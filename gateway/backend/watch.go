package backend

import (
	"context"
	"sync"
	"time"

	"sallyport/internal/contain"
)

// A watch looks ten times a second whether the answer is late, or nobody waits for it any more, for a Trip that waits
// where it cannot look by itself.
type watch struct {
	trip   *Trip
	cancel context.CancelCauseFunc // gets the reason, once

	mu    sync.Mutex // held by a look
	timer *time.Timer
	quiet lull
	over  bool
}

// watch begins a watch with its first look after some time.
func (t *Trip) watch(cancel context.CancelCauseFunc, after time.Duration) *watch {
	w := &watch{trip: t, cancel: cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(after, w.look)
	return w
}

func (w *watch) look() {
	defer contain.Catch("watching over a call", func(f *contain.Fault) { w.cancel(f) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	var gone error
	if fault := contain.Do("asking whether the client has gone", func() error { gone = w.trip.gone(); return nil }); fault != nil {
		gone = fault
	}
	if w.trip.resting.Load() {
		w.quiet = lull{}
	}
	overdue := w.trip.overdue(&w.quiet)
	switch {
	case overdue != nil:
		w.cancel(overdue)
	case gone != nil:
		w.cancel(gone)
	default:
		w.timer.Reset(slice)
	}
}

// stop ends the watch: when it returns nobody is asked any more. A nil watch has ended.
func (w *watch) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}
