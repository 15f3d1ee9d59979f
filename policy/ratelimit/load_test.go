package ratelimit

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slow is a tier that isn't refilled while a test runs, so that what passes can be counted.
var slow = Tier{Name: "T", RequestCount: 1, UnitTime: 24, TimeUnit: Hour, Burst: 240}

// A busyNode is a limiter with callers of one bucket.
type busyNode struct {
	*Limiter
	bucket Bucket
	told   atomic.Int64 // failures

	passed, refused           atomic.Int64 // calls that were counted in Redis
	localPassed, localRefused atomic.Int64 // calls that OnFailure decided
	longest                   peak         // that one of them took
	starved                   peak         // that a goroutine had to wait for a processor
}

// A peak is the longest of some times.
type peak struct{ atomic.Int64 }

func (p *peak) note(took time.Duration) {
	for seen := p.Load(); int64(took) > seen && !p.CompareAndSwap(seen, int64(took)); seen = p.Load() {
	}
}

func (p *peak) time() time.Duration { return time.Duration(p.Load()) }

// callersEach is how many callers a busyNode has.
const callersEach = 4

// runBusy runs so many limiters that share, with callers of the orders' bucket until the test ends or stop is called.
func runBusy(t *testing.T, count int, o Options, tier Tier) (nodes []*busyNode, stop func()) {
	t.Helper()
	var callers sync.WaitGroup
	end := make(chan struct{})
	for range count {
		n := &busyNode{}
		o.Told = func(err error) {
			if err != nil {
				n.told.Add(1)
			}
		}
		n.Limiter, _ = run(t, o)
		n.bucket = n.Bucket(client("orders"), tier)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		_ = n.Connect(t.Context()) // sees all of them
		for range callersEach {
			callers.Go(func() {
				for {
					rests := time.Now()
					select {
					case <-end:
						return
					case <-time.After(5 * time.Millisecond):
						n.starved.note(time.Since(rests) - 5*time.Millisecond)
						n.call(t)
					}
				}
			})
		}
	}
	stop = sync.OnceFunc(func() { close(end); callers.Wait() })
	t.Cleanup(stop)
	return nodes, stop
}

func (n *busyNode) call(t *testing.T) {
	began := time.Now()
	v := await(n.bucket)
	n.longest.note(time.Since(began))
	switch {
	case v.Pending():
		t.Error("a call is pending")
	case v.Uncounted && v.Allowed:
		n.localPassed.Add(1)
	case v.Uncounted:
		n.localRefused.Add(1)
	case v.Allowed:
		n.passed.Add(1)
	default:
		n.refused.Add(1)
	}
}

func (n *busyNode) well() bool { return n.State().Failing == nil }

func (n *busyNode) failing() bool { return !n.well() }

func (n *busyNode) counted() int64 { return n.passed.Load() + n.refused.Load() }

func (n *busyNode) local() int64 { return n.localPassed.Load() + n.localRefused.Load() }

// until waits for a state of all nodes: longer by far than the five seconds that each takes on a machine that does nothing
// else.
func until(t *testing.T, what string, nodes []*busyNode, reached func(*busyNode) bool) {
	t.Helper()
	const patience = 3 * time.Minute
	began := time.Now()
	for _, n := range nodes {
		for !reached(n) {
			if time.Since(began) > patience {
				t.Fatalf("not %s within %v: %+v", what, patience, n.State())
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond))
}

// untilMore waits until a figure of each node is greater by so many.
func untilMore(t *testing.T, what string, nodes []*busyNode, by int64, figure func(*busyNode) int64) {
	t.Helper()
	before := map[*busyNode]int64{}
	for _, n := range nodes {
		before[n] = figure(n)
	}
	until(t, what, nodes, func(n *busyNode) bool { return figure(n) >= before[n]+by })
}

// untilShared waits until all nodes can use Redis and know of each other.
func untilShared(t *testing.T, nodes []*busyNode) {
	t.Helper()
	until(t, "shared", nodes, func(n *busyNode) bool { return n.well() && n.State().Nodes == len(nodes) })
}

// passedOf is how many calls of all nodes passed.
func passedOf(nodes []*busyNode) (all int) {
	for _, n := range nodes {
		all += int(n.passed.Load() + n.localPassed.Load())
	}
	return all
}

// untilSpent waits until nothing is left of the nodes' bucket, in Redis, in a lease or in a share, and Redis knows of
// every call that passed. It returns what is in the bucket then: less than nothing, if more passed than were in it.
func untilSpent(t *testing.T, nodes []*busyNode) (have float64) {
	t.Helper()
	key := nodes[0].shared.keyOf(client("orders").tag(), "t")
	until(t, "spent", nodes, func(n *busyNode) bool {
		n.shared.mu.Lock()
		debts := len(n.shared.debtors)
		n.shared.mu.Unlock()
		h, err := n.shared.client.Load().HMGet(t.Context(), key, "n", "o").Result()
		if debts > 0 || n.State().Leased > 0 || err != nil || h[0] == nil || h[1] != "0" {
			return false
		}
		have, err = strconv.ParseFloat(h[0].(string), 64)
		return err == nil && have < 1
	})
	untilMore(t, "refused by Redis alone", nodes, 3*callersEach, func(n *busyNode) int64 { return n.refused.Load() })
	return have
}
