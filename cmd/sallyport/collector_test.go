package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGarbagePercent(t *testing.T) {
	for mib, want := range map[uint64]int{0: 200, 1: 200, 16: 200, 20: 160, 24: 140, 30: 100, 32: 100, 1 << 10: 100, 1 << 20: 100} {
		if got := garbagePercent(mib << 20); got != want {
			t.Errorf("%d MiB live: %d%%, want %d%%", mib, got, want)
		}
	}
}

// The percentage falls while much lives, and rises again afterwards.
func TestPaceCollector(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(mostGarbage))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- paceCollector(ctx, time.Millisecond) }()
	becomes := func(want int) {
		t.Helper()
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			metrics.Read(sample)
			if int(sample[0].Value.Uint64()) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d%%, want %d%%", sample[0].Value.Uint64(), want)
			}
		}
	}
	much := make([]byte, 256<<20)
	runtime.GC()
	becomes(leastGarbage)
	runtime.KeepAlive(much)
	much = nil
	runtime.GC()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	becomes(garbagePercent(live[0].Value.Uint64()))
	if live[0].Value.Uint64() > 128<<20 {
		t.Fatalf("%d bytes live", live[0].Value.Uint64())
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
