package load

import (
	"context"
	"errors"
	"time"
)

// A worker makes one call at a time.
type worker struct {
	*run
	caller caller
	shard  *shard
	turn   int // selects the next call's header
}

// closed starts a call when the previous one has ended.
func (w *worker) closed(ctx context.Context) {
	for ctx.Err() == nil {
		if !w.call(w.now()) {
			sleep(ctx, 10*time.Millisecond) // do not hammer a server that refuses
		}
	}
}

// open makes the calls that are due, timed from when they were due.
func (w *worker) open(due <-chan time.Duration) {
	for intended := range due {
		w.call(intended)
	}
}

// call makes one call, timed from start, and reports whether it succeeded.
func (w *worker) call(start time.Duration) bool {
	a := answer{want: &w.Want}
	err := w.caller.call(w.turn, &a)
	w.turn++
	if err != nil {
		if !errors.Is(err, errAborted) {
			w.errors.add(err)
		}
		return false
	}
	took := w.now() - start
	if w.Answered != nil {
		w.Answered(Call{Status: a.status, Sent: w.started.Add(start), Got: w.started.Add(start + took)})
	}
	w.shard.calls.Add(1)
	w.shard.bytes.Add(uint64(a.size))
	if int64(start) >= w.begin.Load() && int64(start) < w.end.Load() {
		w.shard.latency.Record(took)
	}
	return true
}
