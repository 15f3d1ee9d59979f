package trust

import (
	"sync/atomic"
	"time"
)

// Bounds of an Effort.
const (
	effortShare = 6                      // one part in so many of a core may go into certificates that are refused
	effortAhead = 250 * time.Millisecond // how far the debt may lie ahead before no more are examined
	effortMost  = time.Second            // of debt, however long something has taken: a busy machine is nobody's fault
)

// An Effort bounds the time that goes into the certificates of strangers. Anybody can make them without end, each unlike
// all before, so that no memory of refused ones helps. Each one that was refused adds a debt of six times what it took,
// which time pays off; while there is more of it than a quarter of a second no other is examined. What turns out to be good
// costs nothing. The zero value has no debt; a nil Effort bounds nothing. It is safe for concurrent use.
type Effort struct {
	free  atomic.Int64 // when the debt is paid off, in nanoseconds since epoch
	spent atomic.Int64 // on those that were refused, in nanoseconds
	count atomic.Int64 // of these
}

// epoch is what an Effort's times count from, so that nobody who sets the clock makes or remits a debt.
var epoch = time.Now()

// Begin reports whether another certificate may be examined, and when that begins.
func (e *Effort) Begin() (began time.Duration, ok bool) {
	if e == nil {
		return 0, true
	}
	began = time.Since(epoch)
	return began, time.Duration(e.free.Load())-began <= effortAhead
}

// Refused notes that a certificate was examined since began, and is not good.
func (e *Effort) Refused(began time.Duration) {
	if e == nil {
		return
	}
	now := time.Since(epoch)
	took := now - began
	e.spent.Add(int64(took))
	e.count.Add(1)
	for {
		free := e.free.Load()
		next := min(max(free, int64(now))+int64(effortShare*took), int64(now+effortMost))
		if next <= free || e.free.CompareAndSwap(free, next) {
			return
		}
	}
}

// Spent is how many certificates were refused after an examination, and how long all of these have taken.
func (e *Effort) Spent() (count int64, took time.Duration) {
	return e.count.Load(), time.Duration(e.spent.Load())
}

// NotExamined is the Fault for a certificate that an Effort has kept from being examined.
func NotExamined() *Fault { return notExamined }

var notExamined = fault(Unexamined, "the certificate is not examined: too many others were that are not good; it may be shown again in a second")
