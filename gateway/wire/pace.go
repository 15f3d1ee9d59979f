package wire

import (
	"sync/atomic"
	"time"
)

// A Pace is how long the other end may keep us waiting for the bytes of a body, or for taking them: for the grace, and
// besides for as long as the bytes so far are worth at the rate. Once it is free, any wait will do.
type Pace struct {
	Rate  int           // bytes a second; 0: any
	Grace time.Duration // before the rate counts

	bytes  atomic.Int64
	waited time.Duration
	free   atomic.Bool
}

// Bytes is how many bytes have passed. It may be asked at any time.
func (p *Pace) Bytes() int64 { return p.bytes.Load() }

// Passed counts bytes.
func (p *Pace) Passed(n int) { p.bytes.Add(int64(n)) }

// Free lifts the bound until Begin. Anyone may call it.
func (p *Pace) Free() { p.free.Store(true) }

// Due is when a wait that begins now has to be over; zero: any time.
func (p *Pace) Due(now time.Time) time.Time {
	if p.Rate == 0 || p.free.Load() {
		return time.Time{}
	}
	worth := time.Duration(float64(p.bytes.Load()) / float64(p.Rate) * float64(time.Second))
	return now.Add(p.Grace + worth - p.waited)
}

// Waited counts a wait.
func (p *Pace) Waited(d time.Duration) { p.waited += d }

// Begin begins another body.
func (p *Pace) Begin(rate int, grace time.Duration) {
	p.Rate, p.Grace, p.waited = rate, grace, 0
	p.bytes.Store(0)
	p.free.Store(false)
}
