package gateway

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Memory pressure: above high of the memory limit new calls are refused, until it is below low again.
const (
	memoryHigh     = 0.92
	memoryLow      = 0.85
	memoryInterval = 100 * time.Millisecond
)

// Memory is given back to the system when nothing has happened for a quietSpell, and, if much is held, when there was
// no collection for stillSpells of them.
const (
	quietSpell  = 10 * time.Second
	stillSpells = 3
	muchHeld    = 48 << 20 // bytes of the heap
)

// every calls do after each interval until stop is closed.
func every(interval time.Duration, stop <-chan struct{}, do func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			do()
		}
	}
}

// restMemory gives back what a burst of connections has left behind, which the collector would keep for minutes: once
// after each, when nothing has happened for a spell. A gateway that is never quite quiet, since somebody asks for its
// health, gives it back when so little has happened that the collector had nothing to do. It ends when stop is closed.
func (g *Gateway) restMemory(spell time.Duration, stop <-chan struct{}) {
	rested, last := int64(0), int64(0)
	collections, still := uint64(0), 0
	every(spell, stop, func() {
		held, n := heapHeld()
		if still++; n != collections {
			still = 0
		}
		now := g.guard.admitted.Load()
		quiet := now == last && g.decider.UnderWay() == 0
		switch {
		case quiet && rested != now:
			rested = now
			runtime.GC() // before that of FreeOSMemory: what pools hold survives the first
			debug.FreeOSMemory()
			still = 0
		case still >= stillSpells && held >= muchHeld:
			debug.FreeOSMemory()
			still = 0
		}
		last = now
		_, collections = heapHeld()
	})
}

// heapHeld is how many bytes the heap holds, garbage and free ones among them, and how many collections there have been.
func heapHeld() (bytes, collections uint64) {
	sample := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(sample)
	return sample[0].Value.Uint64() + sample[1].Value.Uint64(), sample[2].Value.Uint64()
}

// watchMemory holds the process to its memory limit (GOMEMLIMIT) by refusing new calls before the collector thrashes.
// Without a limit there is nothing to hold. It ends when stop is closed.
func watchMemory(setShort func(bool), stop <-chan struct{}) {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return
	}
	// What lives, and not what the collector has yet to find: with a limit it lets garbage grow up to it.
	sample := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	every(memoryInterval, stop, func() {
		metrics.Read(sample)
		used := float64(sample[4].Value.Uint64())
		for i, sign := range []float64{1, -1, -1, -1} {
			used += sign * float64(sample[i].Value.Uint64())
		}
		switch {
		case used > memoryHigh*float64(limit):
			setShort(true)
		case used < memoryLow*float64(limit):
			setShort(false)
		}
	})
}
