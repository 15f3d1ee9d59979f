package gateway_test

import (
	"net"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"
)

// TestMemoryIsGivenBackInUse: garbage of a burst goes back to the system though new connections never cease, and though the
// collector itself would let it be.
func TestMemoryIsGivenBackInUse(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.Rest(200 * time.Millisecond) })
	var visitors sync.WaitGroup
	over := make(chan struct{})
	defer visitors.Wait()
	defer close(over)
	visitors.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if c, err := net.Dial("tcp", f.address); err == nil {
				c.Close()
			}
		}
	})
	held := func() int64 {
		sample := []metrics.Sample{
			{Name: "/memory/classes/heap/objects:bytes"},
			{Name: "/memory/classes/heap/free:bytes"},
		}
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64() + sample[1].Value.Uint64())
	}
	before := held()
	garbage(256 << 20)
	eventually(t, "the garbage has been given back", func() bool { return held() < before+64<<20 })
}

//go:noinline
func garbage(bytes int) {
	for i := 0; i < bytes; i += 1 << 20 {
		block := make([]byte, 1<<20)
		for j := 0; j < len(block); j += 4 << 10 {
			block[j] = 1
		}
		kept = block
	}
	kept = nil
}

var kept []byte // or the compiler would have garbage on the stack
