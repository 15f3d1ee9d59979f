//go:build !race

package observe_test

import (
	"context"
	"io"
	"testing"
	"time"

	"sallyport/gateway/observe"
)

// TestAllocObserve: to count a call that was allowed takes no memory.
func TestAllocObserve(t *testing.T) {
	m, x := observe.NewMetrics("test"), exchange()
	m.Observe(x, time.Millisecond)
	if n := testing.AllocsPerRun(1000, func() { m.Observe(x, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestAllocAccessLog: nor does its line.
func TestAllocAccessLog(t *testing.T) {
	l, x := observe.NewAccessLog(io.Discard, false, observe.NewMetrics("test")), exchange()
	for range 10_000 { // until what is pending has grown as far as it will
		l.Observe(x, time.Millisecond)
	}
	if n := testing.AllocsPerRun(1000, func() { l.Observe(x, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// BenchmarkAccessLog is a line of JSON.
func BenchmarkAccessLog(b *testing.B) {
	l, x := observe.NewAccessLog(io.Discard, false, observe.NewMetrics("test")), exchange()
	ctx, cancel := context.WithCancel(b.Context())
	written := make(chan error, 1)
	go func() { written <- l.Run(ctx) }()
	b.ReportAllocs()
	for b.Loop() {
		l.Observe(x, time.Millisecond)
	}
	cancel()
	<-written
}

// BenchmarkObserve is a call of labels that were seen before.
func BenchmarkObserve(b *testing.B) {
	m, x := observe.NewMetrics("test"), exchange()
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(x, time.Millisecond)
	}
}
