//go:build !race

package histogram

import (
	"testing"
	"time"
)

func TestAllocRecord(t *testing.T) {
	h := New()
	d := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() { d += time.Millisecond; h.Record(d) }); n > 0 {
		t.Errorf("%g allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	h := New()
	for i := range b.N {
		h.Record(time.Duration(i))
	}
}
