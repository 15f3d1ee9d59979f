//go:build !race

package observe_test

import (
	"testing"
	"time"

	"sallyport/gateway/observe"
)

// TestAllocObserve: to count a call that was allowed takes no memory.
func TestAllocObserve(t *testing.T) {
	m, x := observe.NewMetrics(), exchange()
	m.Observe(x, time.Millisecond)
	if n := testing.AllocsPerRun(1000, func() { m.Observe(x, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// BenchmarkObserve is a call of labels that were seen before.
func BenchmarkObserve(b *testing.B) {
	m, x := observe.NewMetrics(), exchange()
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(x, time.Millisecond)
	}
}
