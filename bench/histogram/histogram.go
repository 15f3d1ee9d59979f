// Package histogram counts durations in log-linear buckets, as HdrHistogram does.
package histogram

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// Max is the longest duration that has a bucket of its own; longer ones are counted as Max.
	Max = time.Minute

	// Each power of two is divided into 1,024 equal buckets, so a value is off by less than a thousandth: three
	// significant digits.
	subBits = 10
	subs    = 1 << subBits
)

// A Histogram counts durations from 1 µs to Max with three significant digits. Use New: the zero Histogram does not
// work. Record may be called concurrently and allocates nothing; the other methods need all recording to have stopped.
type Histogram struct {
	counts []atomic.Uint64
}

// New returns an empty histogram, of about 140 KB.
func New() *Histogram {
	return &Histogram{counts: make([]atomic.Uint64, index(uint64(Max/time.Microsecond))+1)}
}

// index returns the bucket of v, in µs. Below 2·subs every value has a bucket of its own.
func index(v uint64) int {
	shift := max(0, bits.Len64(v)-subBits-1)
	return shift*subs + int(v>>shift)
}

// middle returns the value, in µs, in the middle of bucket i.
func middle(i int) float64 {
	if i < 2*subs {
		return float64(i)
	}
	shift := i/subs - 1
	low := uint64(i-shift*subs) << shift
	return float64(low) + float64(uint64(1)<<shift-1)/2
}

// Record counts d, rounded to µs and limited to the range from 1 µs to Max.
func (h *Histogram) Record(d time.Duration) {
	d = min(max(d, time.Microsecond), Max)
	h.counts[index(uint64((d+time.Microsecond/2)/time.Microsecond))].Add(1)
}

// Add adds the counts of other.
func (h *Histogram) Add(other *Histogram) {
	for i := range other.counts {
		if n := other.counts[i].Load(); n > 0 {
			h.counts[i].Add(n)
		}
	}
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 {
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Quantile returns the duration that a share q of the recorded ones, 0 to 1, does not exceed. It is 0 if there are
// none.
func (h *Histogram) Quantile(q float64) time.Duration {
	return h.Quantiles(q)[0]
}

// Quantiles is Quantile for several shares, in ascending order.
func (h *Histogram) Quantiles(qs ...float64) []time.Duration {
	times := make([]time.Duration, len(qs))
	n := h.Count()
	if n == 0 {
		return times
	}
	var seen uint64
	place := -1
	for i, q := range qs {
		rank := max(1, uint64(math.Ceil(q*float64(n))))
		for seen < min(rank, n) {
			place++
			seen += h.counts[place].Load()
		}
		times[i] = time.Duration(middle(place) * float64(time.Microsecond))
	}
	return times
}
