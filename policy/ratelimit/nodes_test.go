package ratelimit

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testredis"
)

// wayTo is a proxy, and a Redis behind it.
func wayTo(t *testing.T, server *testredis.Server) (*testredis.Toxiproxy, Redis) {
	t.Helper()
	p := testredis.Proxy(t, server.Address)
	return p, Redis{Addresses: []string{p.Address}}
}

// wantAway fails the test unless a node finds that Redis can't be used.
func wantAway(t *testing.T, l *Limiter) {
	t.Helper()
	if l.Connect(t.Context()) == nil {
		t.Fatal("Redis can be used")
	}
}

// wantBack waits until a node finds that Redis can be used, and has told it what it owes.
func wantBack(t *testing.T, l *Limiter) {
	t.Helper()
	for end := time.Now().Add(patient); ; time.Sleep(time.Millisecond) {
		err := l.Connect(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	l.settle()
}

// TestOutageOfAMinute holds docs/security.md, I 121: before, in and after an outage of a minute, burst + rate·t pass, to
// the call. If one node comes back before the other, what the other let pass is once more in the bucket, and is paid
// back.
func TestOutageOfAMinute(t *testing.T) {
	for name, together := range map[string]bool{"both come back": true, "one comes back first": false} {
		t.Run(name, func(t *testing.T) {
			c := &clock{now: noon}
			server := testredis.Start(t, testredis.Options{})
			wayA, a := wayTo(t, server)
			wayB, b := wayTo(t, server)
			nodes, _ := nodesAt(t, c, Options{}, a, b)
			buckets := []Bucket{nodes[0].Bucket(client("a"), perMinute(100)), nodes[1].Bucket(client("a"), perMinute(100))}

			if n := passes(buckets[0], c.now, 30) + passes(buckets[1], c.now, 100); n != 100 {
				t.Errorf("%d calls pass before the outage, want 100", n)
			}
			wantPasses(t, buckets[0], c.now, 0)
			wayA.Cut()
			wayB.Cut()
			for i, l := range nodes {
				wantAway(t, l)
				wantPasses(t, buckets[i], c.now, 0)
			}
			c.advance(time.Minute)
			for i := range nodes {
				wantPasses(t, buckets[i], c.now, 50) // its half of a minute's calls
			}

			early := 0
			wayA.Mend()
			wantBack(t, nodes[0])
			if !together {
				early = 50
				wantPasses(t, buckets[0], c.now, early)
			}
			wayB.Mend()
			wantBack(t, nodes[1])
			for i := range nodes {
				wantPasses(t, buckets[i], c.now, 0)
			}
			c.advance(time.Minute)
			if n := passes(buckets[0], c.now, 30) + passes(buckets[1], c.now, 105); n != 100-early {
				t.Errorf("%d calls pass a minute later, want %d", n, 100-early)
			}
		})
	}
}

// TestSplit holds docs/security.md, R 24: a node that alone can't reach Redis lets its share pass, and no more. The other
// one goes on with the bucket, and what the first let pass is taken from it when they are together again.
func TestSplit(t *testing.T) {
	c := &clock{now: noon}
	server := testredis.Start(t, testredis.Options{})
	way, a := wayTo(t, server)
	nodes, _ := nodesAt(t, c, Options{}, a, Redis{Addresses: []string{server.Address}})
	cut, other := nodes[0].Bucket(client("a"), perMinute(100)), nodes[1].Bucket(client("a"), perMinute(100))
	if n := passes(other, c.now, 10) + passes(cut, c.now, 10); n != 20 {
		t.Fatalf("%d calls pass, want 20", n)
	}

	way.Cut()
	wantAway(t, nodes[0])
	wantPasses(t, cut, c.now, 40) // half of the 80 that are in the bucket
	wantPasses(t, other, c.now, 80)
	c.advance(time.Minute)
	wantPasses(t, cut, c.now, 50)
	wantPasses(t, other, c.now, 100)
	if s := nodes[1].State(); s.Failing != nil || s.Uncounted > 0 {
		t.Errorf("the other node notices: %+v", s)
	}

	way.Mend()
	wantBack(t, nodes[0])
	c.advance(30 * time.Second) // 50 calls, which have passed
	wantPasses(t, cut, c.now, 0)
	c.advance(pollPauseAtMost)
	wantPasses(t, other, c.now, 2)
	wantPasses(t, cut, c.now, 0)
	c.advance(time.Minute - pollPauseAtMost)
	if n := passes(cut, c.now, 60) + passes(other, c.now, 60); n != 98 {
		t.Errorf("%d calls pass, want 98", n)
	}
}

// leaseTen has a node of two lease ten calls beyond the 21 that pass.
func leaseTen(t *testing.T, c *clock, l *Limiter, b Bucket) {
	t.Helper()
	if n := passes(b, c.now, 20); n != 20 {
		t.Fatalf("%d calls pass, want 20", n)
	}
	c.advance(200 * time.Millisecond)
	if n := passes(b, c.now, 1); n != 1 || l.State().Leased != 10 {
		t.Fatalf("%d pass, and %d are leased, want 1 and 10", n, l.State().Leased)
	}
}

// TestNodeThatGoes: what a node has leased and not spent is another's at once if the node stops, and lost if it dies;
// from the end of its lease, there is room for it in the bucket again.
func TestNodeThatGoes(t *testing.T) {
	for name, dies := range map[string]bool{"it stops": false, "it dies": true} {
		t.Run(name, func(t *testing.T) {
			c := &clock{now: noon}
			server := testredis.Start(t, testredis.Options{})
			way, a := wayTo(t, server)
			nodes, stops := nodesAt(t, c, Options{}, a, Redis{Addresses: []string{server.Address}})
			tier := per(160, Hour)
			leaseTen(t, c, nodes[0], nodes[0].Bucket(client("a"), tier))
			rest := 160 - 21
			if dies {
				way.Cut()
				wantAway(t, nodes[0])
				rest -= 10
			} else {
				stops[0]()
			}
			b := nodes[1].Bucket(client("a"), tier)
			wantPasses(t, b, c.now, rest)
			c.advance(leaseInRedis)
			wantPasses(t, b, c.now, 0)
			c.advance(time.Hour)
			wantPasses(t, b, c.now, 160)
		})
	}
}

// TestLeaseOfALostBucket: a lease from a bucket that Redis has lost ends when its node hears of it, so that exactly a
// burst passes from the new one.
func TestLeaseOfALostBucket(t *testing.T) {
	c := &clock{now: noon}
	server := testredis.Start(t, testredis.Options{})
	r := Redis{Addresses: []string{server.Address}}
	nodes, _ := nodesAt(t, c, Options{}, r, r)
	tier := Tier{Name: "T", RequestCount: 1, UnitTime: 24, TimeUnit: Hour, Burst: 160}
	a, b := nodes[0].Bucket(client("a"), tier), nodes[1].Bucket(client("a"), tier)
	leaseTen(t, c, nodes[0], a)
	c.advance(leaseHorizon)
	if n := passes(a, c.now, 1); n != 1 {
		t.Fatal("nothing passes by a lease")
	}

	server.Do("FLUSHALL")
	before := nodes[0].State().Exchanges
	c.advance(leaseLength - leaseHorizon - renewBefore/2) // it is renewed
	for nodes[0].State().Exchanges == before {
		time.Sleep(time.Millisecond)
	}
	nodes[0].settle()
	if n := passes(a, c.now, 200) + passes(b, c.now, 200); n != 160 {
		t.Errorf("%d calls pass, want 160", n)
	}
}

// TestQuotaOfNodes: two nodes together let exactly a quota pass, and no lease outlives its period.
func TestQuotaOfNodes(t *testing.T) {
	t.Parallel()
	for _, unit := range []Unit{Day, Month} {
		t.Run(unit.String(), func(t *testing.T) {
			t.Parallel()
			c := &clock{now: time.Date(2028, time.February, 29, 23, 59, 59, 0, time.UTC)}
			nodes, _ := nodesAt(t, c, Options{}, single(t), single(t))
			buckets := []Bucket{nodes[0].Bucket(client("a"), per(160, unit)), nodes[1].Bucket(client("a"), per(160, unit))}
			both := func() int {
				var passed atomic.Int64
				atOnce(12, func(i int) { passed.Add(int64(passes(buckets[i%2], c.now, 20))) })
				return int(passed.Load())
			}
			leaseTen(t, c, nodes[0], buckets[0])
			c.advance(800 * time.Millisecond) // the next period begins
			n := both()
			for _, b := range buckets { // what a node has leased is there when its callers have ended
				n += passes(b, c.now, 20)
			}
			if n != 160 {
				t.Errorf("%d calls pass in the new period, want 160", n)
			}
			c.advance(time.Hour)
			if n := both(); n != 0 {
				t.Errorf("%d calls pass beyond the quota", n)
			}
		})
	}
}

// TestQuotaOutage: while Redis is away, two nodes let the rest of a quota pass, each its half, and the next period's, too.
// Redis is told, of the period that it is in then.
func TestQuotaOutage(t *testing.T) {
	for name, backAt := range map[string]time.Duration{"the same day": 0, "the next day": 12 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			c := &clock{now: noon}
			server := testredis.Start(t, testredis.Options{})
			wayA, a := wayTo(t, server)
			wayB, b := wayTo(t, server)
			nodes, _ := nodesAt(t, c, Options{}, a, b)
			buckets := []Bucket{nodes[0].Bucket(client("a"), per(160, Day)), nodes[1].Bucket(client("a"), per(160, Day))}
			want := func(each int) {
				t.Helper()
				for _, bucket := range buckets {
					wantPasses(t, bucket, c.now, each)
				}
			}
			for range 30 { // by turns, so that each knows of the other's
				if n := passes(buckets[0], c.now, 1) + passes(buckets[1], c.now, 1); n != 2 {
					t.Fatalf("%d of 2 calls pass", n)
				}
			}
			passes(buckets[0], c.now, 2)
			wayA.Cut()
			wayB.Cut()
			for _, l := range nodes {
				wantAway(t, l)
			}
			wantPasses(t, buckets[0], c.now, 49) // half of the 98 that are left
			wantPasses(t, buckets[1], c.now, 50) // it does not know of the last two
			if c.advance(backAt); backAt > 0 {
				want(80)
			}
			wayA.Mend()
			wayB.Mend()
			for _, l := range nodes {
				wantBack(t, l)
			}
			want(0)
			c.advance(24 * time.Hour)
			if n := passes(buckets[0], c.now, 80) + passes(buckets[1], c.now, 100); n != 160 {
				t.Errorf("%d calls pass on another day, want 160", n)
			}
		})
	}
}

// TestAllOrNoneOverNodes: of calls that need two limits, on two nodes at once, none takes from one of them alone.
func TestAllOrNoneOverNodes(t *testing.T) {
	t.Parallel()
	for name, small := range map[string]Tier{
		"tokens": {Name: "T", RequestCount: 1, UnitTime: 24, TimeUnit: Hour, Burst: 50},
		"quota":  per(50, Month),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := twoNodes(t)
			var api, own [2]Bucket
			for i, l := range []*Limiter{a, b} {
				api[i] = l.Bucket(Key{API: "orders", Level: LevelAPI}, small)
				own[i] = l.Bucket(client("a"), Tier{Name: "T", RequestCount: 1, UnitTime: 24, TimeUnit: Hour, Burst: 100})
			}
			both := func(i int) bool { return await(api[i], own[i]).Allowed }
			var passed atomic.Int64
			atOnce(200, func(i int) {
				if both(i % 2) {
					passed.Add(1)
				}
			})
			lost := func() int { return int(a.State().Lost + b.State().Lost) } // by a machine too busy to give it back
			if n := int(passed.Load()) + untilNone(both); n > 50 || n+lost() < 50 {
				t.Errorf("%d calls pass by both limits, and %d are lost, want 50", n, lost())
			}
			if n := untilNone(func(i int) bool { return await(own[i]).Allowed }); n > 50 || n+lost() < 50 {
				t.Errorf("%d calls pass by the other limit, and %d are lost, want the 50 that are left", n, lost())
			}
		})
	}
}

// untilNone returns how many calls pass on two nodes by turns, until none does for longer than leases last.
func untilNone(call func(node int) bool) (passed int) {
	for last := time.Now(); time.Since(last) < 2*leaseInRedis; time.Sleep(time.Millisecond) {
		for i := range 2 {
			if call(i) {
				passed++
				last = time.Now()
			}
		}
	}
	return passed
}

// TestNodesAreNotForgotten: to a node that comes first to a Redis that lost its data, the others are still there, so that
// its share isn't theirs. That others have gone is believed a sign of life later.
func TestNodesAreNotForgotten(t *testing.T) {
	server := testredis.Start(t, testredis.Options{})
	o := Options{Redis: Redis{Addresses: []string{server.Address}}, Timeout: patient, prefix: prefix()}
	a, _ := run(t, o)
	_, stop := run(t, o)
	wantNodes := func(want int, when string) {
		t.Helper()
		if err := a.Connect(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := a.State().Nodes; n != want {
			t.Errorf("%s: %d nodes, want %d", when, n, want)
		}
	}
	wantNodes(2, "both are there")
	server.Do("FLUSHALL")
	wantNodes(2, "Redis is empty")
	stop()
	a.Connect(context.Background())
	wantNodes(1, "one has stopped")
}
