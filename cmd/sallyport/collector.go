package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage the collector lets be beside what lives, unless GOGC says something else. Up to 16 MiB that live it
// is twice as much, since collecting takes a tenth of a call's CPU where heads are large, and memory is little. With
// thousands of connections more lives, and as much garbage in percent would be most of the memory.
const (
	mostGarbage  = 200      // percent of what lives
	leastGarbage = 100      // percent, what Go lets be by itself
	roomForMost  = 32 << 20 // bytes of garbage at which the percentage begins to fall

	collectorInterval = 250 * time.Millisecond
)

// garbagePercent is how much garbage there may be, in percent of the bytes that live.
func garbagePercent(live uint64) int {
	const step = 20 // a new percentage stops the world for some microseconds
	percent := int(min(mostGarbage, roomForMost*100/max(live, 1)))
	return max(leastGarbage, (percent+step/2)/step*step)
}

// paceCollector sets the collector's percentage by what lived at its last cycle, until ctx ends.
func paceCollector(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for last := mostGarbage; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(live)
		if percent := garbagePercent(live[0].Value.Uint64()); percent != last {
			last = percent
			debug.SetGCPercent(percent)
		}
	}
}
