package trial

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A pass is a call that a limit let pass. When it was decided is known to lie between two readings of the clock.
type pass struct{ sent, got time.Duration }

// A Window is a stretch of time, and how many calls passed within it for certain: they were sent after its begin, and
// answered before its end.
type Window struct {
	Passed  int
	Length  time.Duration
	Allowed float64 // by a bucket that was full at its begin
}

// Over returns how many calls passed beyond what is allowed; below 0 it is how many more might have.
func (w Window) Over() float64 { return float64(w.Passed) - w.Allowed }

// worstWindow returns the window that is most over what a bucket of burst calls allows, refilled with rate calls a
// second; the zero Window if nothing passed. It takes n log n steps.
//
// Windows that matter begin when a pass was sent and end when one was answered. Going through the ends in order, each
// pass counts in all windows that begin no later than it was sent. The worst of these is the worst that ends here: one
// that begins later does without this pass, and is worse if it ends before it.
func worstWindow(passes []pass, burst, rate float64) Window {
	starts := make([]time.Duration, len(passes))
	for i, p := range passes {
		starts[i] = p.sent
	}
	slices.Sort(starts)
	ends := slices.Clone(passes)
	slices.SortFunc(ends, func(a, b pass) int {
		return cmp.Or(cmp.Compare(a.got, b.got), cmp.Compare(a.sent, b.sent))
	})
	// Allowed is burst + rate·(end - begin), so a begin is worth its passes and rate·begin.
	worth := make([]float64, len(starts))
	for i, s := range starts {
		worth[i] = rate * s.Seconds()
	}
	begins := newHeights(worth)
	var worst Window
	for i, p := range ends {
		upTo, _ := slices.BinarySearch(starts, p.sent+1) // how many begin no later than it was sent
		height, at := begins.raise(upTo)
		length := p.got - starts[at]
		w := Window{
			Passed:  int(math.Round(height - worth[at])),
			Length:  length,
			Allowed: burst + rate*length.Seconds(),
		}
		if i == 0 || w.Over() > worst.Over() {
			worst = w
		}
	}
	return worst
}

// heights is a list of numbers whose beginning can be raised. It is a binary tree: a node's children are at twice its
// index and the one after, and the root is at 1.
type heights struct {
	size   int
	best   []float64 // the largest below a node, less what its ancestors were raised by
	at     []int     // where it is
	raised []float64 // what all below a node were raised by
}

func newHeights(list []float64) *heights {
	size := 1
	for size < len(list) {
		size *= 2
	}
	h := &heights{
		size:   size,
		best:   make([]float64, 2*size),
		at:     make([]int, 2*size),
		raised: make([]float64, 2*size),
	}
	for i := range size {
		h.best[size+i], h.at[size+i] = math.Inf(-1), i
		if i < len(list) {
			h.best[size+i] = list[i]
		}
	}
	for node := size - 1; node > 0; node-- {
		h.settle(node)
	}
	return h
}

// raise adds 1 to the first n, of which there is at least one, and returns the largest of them and its index.
func (h *heights) raise(n int) (float64, int) { return h.raiseBelow(1, h.size, n) }

func (h *heights) raiseBelow(node, size, n int) (best float64, at int) {
	if n >= size {
		h.best[node]++
		h.raised[node]++
		return h.best[node], h.at[node]
	}
	half := size / 2
	best, at = h.raiseBelow(2*node, half, n)
	if n > half {
		if right, where := h.raiseBelow(2*node+1, half, n-half); right > best {
			best, at = right, where
		}
	}
	h.settle(node)
	return best + h.raised[node], at
}

// settle takes the best of a node from its children.
func (h *heights) settle(node int) {
	child := 2 * node
	if h.best[child+1] > h.best[child] {
		child++
	}
	h.best[node], h.at[node] = h.best[child]+h.raised[node], h.at[child]
}
