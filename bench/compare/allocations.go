package compare

import (
	"context"
	"math"
	"time"

	"sallyport/bench/peer"
)

// A tally is what Sallyport's metrics say of its allocations and calls: the mean of several readings. One reading
// allocates some twenty objects for each registered certificate, and counts them or not, by the order in which the
// metrics are collected. That is as much as a second at 5,000 calls allocates; the mean of several is closer.
type tally struct {
	readings int     // 0: the gateway has no such metrics
	objects  float64 // allocated so far
	calls    float64 // answered so far
}

// takeTally reads the metrics up to the given number of times, but begins no reading after limit. Both figures come from
// the same readings, so that differences between two tallies belong to the same calls whenever they are taken.
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
			return tally{}, nil // a build without them
		}
		t.objects += values[0]
		t.calls += values[1]
	}
	t.objects /= float64(t.readings)
	t.calls /= float64(t.readings)
	return t, nil
}

// readingCost is how many objects the gateway allocates for one reading of its metrics. No calls may be under way.
func readingCost(ctx context.Context, g *peer.Gateway) (float64, error) {
	const readings, limit = 25, time.Second
	first, err := takeTally(ctx, g, readings, limit)
	if err != nil || first.readings == 0 {
		return 0, err
	}
	second, err := takeTally(ctx, g, readings, limit)
	return (second.objects - first.objects) / (float64(first.readings+second.readings) / 2), err
}

// perCall is how many objects a call has allocated since the tally before, less what the readings themselves have; nil if
// it is not known to a tenth, or to a fifth of an object.
func (t tally) perCall(before tally, readingCost float64) *float64 {
	calls := t.calls - before.calls
	if t.readings == 0 || before.readings == 0 || calls <= 0 {
		return nil
	}
	// From the middle of one tally to the middle of the other there is half of the readings of each.
	n, m := float64(before.readings), float64(t.readings)
	objects := max(0, (t.objects-before.objects-readingCost*(n+m)/2)/calls)
	deviation := readingCost / 2 * math.Sqrt(1/n+1/m) / calls
	if deviation > max(0.2, objects/10) {
		return nil
	}
	return &objects
}
