package compare

import (
	"context"
	"math"
	"time"

	"sallyport/bench/peer"
)

// A tally is the mean of several readings of Sallyport's counters. A reading allocates some twenty objects for each
// registered certificate, in total as much as a second of calls at 5,000 a second, and includes them in its own figure
// or not, depending on the order in which the metrics are collected. The mean of several readings evens that out.
type tally struct {
	readings int     // 0: the gateway has no such metrics
	objects  float64 // allocated so far
	calls    float64 // answered so far
}

// takeTally reads the counters the given number of times, but starts no reading after limit. Both counters come from
// the same readings, so the difference between two tallies covers the same calls, whenever they are taken.
func takeTally(ctx context.Context, g *peer.Gateway, readings int, limit time.Duration) (tally, error) {
	var t tally
	if !g.Sallyport() {
		return t, nil
	}
	for began := time.Now(); t.readings < readings && (t.readings == 0 || time.Since(began) < limit); t.readings++ {
		values, err := g.Metrics(ctx, "go_memstats_mallocs_total", "sallyport_calls_total")
		if err != nil {
			return tally{}, err
		}
		if values[0] == 0 {
			return tally{}, nil // this build has no such counters
		}
		t.objects += values[0]
		t.calls += values[1]
	}
	t.objects /= float64(t.readings)
	t.calls /= float64(t.readings)
	return t, nil
}

// readingCost measures how many objects a reading of the metrics allocates. The gateway must be idle.
func readingCost(ctx context.Context, g *peer.Gateway) (float64, error) {
	const readings, limit = 25, time.Second
	first, err := takeTally(ctx, g, readings, limit)
	if err != nil || first.readings == 0 {
		return 0, err
	}
	second, err := takeTally(ctx, g, readings, limit)
	return (second.objects - first.objects) / (float64(first.readings+second.readings) / 2), err
}

// perCall returns how many objects a call has allocated since the tally before, without what the readings allocated. It
// returns nil if the figure is uncertain by more than a tenth and by more than 0.2 objects.
func (t tally) perCall(before tally, readingCost float64) *float64 {
	calls := t.calls - before.calls
	if t.readings == 0 || before.readings == 0 || calls <= 0 {
		return nil
	}
	// Between the middles of the two tallies lie half of the readings of each.
	n, m := float64(before.readings), float64(t.readings)
	objects := max(0, (t.objects-before.objects-readingCost*(n+m)/2)/calls)
	deviation := readingCost / 2 * math.Sqrt(1/n+1/m) / calls
	if deviation > max(0.2, objects/10) {
		return nil
	}
	return &objects
}
