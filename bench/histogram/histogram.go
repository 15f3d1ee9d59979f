// Package histogram holds times in the log-linear form of HdrHistogram.
package histogram

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// Max is the longest time that is told apart from longer ones, which are counted as Max.
	Max = time.Minute

	// A power of two is cut into 1,024 equal parts: so a value is off by less than a thousandth, three significant digits.
	subBits = 10
	subs    = 1 << subBits
)

// A Histogram counts times from 1 µs to Max with three significant digits. The zero Histogram is not usable: New makes one.
// Record may be called by many goroutines at once and allocates nothing; the rest wants quiet.
type Histogram struct {
	counts []atomic.Uint64
}

// New returns an empty histogram, of some 140 KB.
func New() *Histogram {
	return &Histogram{counts: make([]atomic.Uint64, index(uint64(Max/time.Microsecond))+1)}
}

// index is where v, in µs, is counted. Below 2·subs every value has a place of its own.
func index(v uint64) int {
	shift := max(0, bits.Len64(v)-subBits-1)
	return shift*subs + int(v>>shift)
}

// middle is the value, in µs, that place i stands for.
func middle(i int) float64 {
	if i < 2*subs {
		return float64(i)
	}
	shift := i/subs - 1
	low := uint64(i-shift*subs) << shift
	return float64(low) + float64(uint64(1)<<shift-1)/2
}

// Record counts d, rounded to µs; below 1 µs as 1 µs, beyond Max as Max.
func (h *Histogram) Record(d time.Duration) {
	d = min(max(d, time.Microsecond), Max)
	h.counts[index(uint64((d+time.Microsecond/2)/time.Microsecond))].Add(1)
}

// Add counts all that other holds.
func (h *Histogram) Add(other *Histogram) {
	for i := range other.counts {
		if n := other.counts[i].Load(); n > 0 {
			h.counts[i].Add(n)
		}
	}
}

// Count is how many times were recorded.
func (h *Histogram) Count() uint64 {
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Quantile returns the time that a share q of the recorded ones, 0 to 1, does not exceed; 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	return h.Quantiles(q)[0]
}

// Quantiles is Quantile for several shares, which must ascend.
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
