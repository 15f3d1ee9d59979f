package ratelimit

import (
	"testing"
	"time"

	"sallyport/internal/testredis"
)

// An outage is two nodes under load and what is between them and their buckets.
type outage struct {
	t      *testing.T
	nodes  []*busyNode
	server *testredis.Server
	proxy  *testredis.Toxiproxy
}

// without waits until Redis fails for all nodes and each has decided some calls by itself.
func (o *outage) without() {
	o.t.Helper()
	until(o.t, "failing", o.nodes, (*busyNode).failing)
	untilMore(o.t, "decided without Redis", o.nodes, 100, (*busyNode).local)
}

// A blow is something that befalls Redis and is over when strike returns.
type blow struct {
	options testredis.Options
	strike  func(*outage)
	lost    [2]int // full buckets that it gives away at most: under load, and when all is spent
}

// TestNoFreeBurst holds docs/security.md, I 121: whatever befalls Redis, each call that passed is counted afterwards, and
// nobody gets a fresh burst, but for one if Redis lost its data.
func TestNoFreeBurst(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]blow{
		"emptied":                {strike: func(o *outage) { o.server.Do("FLUSHALL") }, lost: [2]int{1, 1}},
		"restarted without data": {strike: func(o *outage) { o.server.Kill(); o.without(); o.server.Restart() }, lost: [2]int{1, 1}},
		"restarted with its data": {
			options: testredis.Options{AppendOnly: true},
			strike:  func(o *outage) { o.server.Kill(); o.without(); o.server.Restart() },
		},
		"restarted with the data of a second ago": {
			options: testredis.Options{AppendOnly: true, Args: []string{"--appendfsync", "everysec"}},
			strike:  func(o *outage) { o.server.WaitWritten(); o.server.Kill(); o.without(); o.server.Restart() },
			lost:    [2]int{1, 0},
		},
		"loading": {
			options: testredis.Options{AppendOnly: true},
			strike:  func(o *outage) { o.server.RestartLoading(); o.without(); o.server.FinishLoading() },
		},
		"paused": {strike: func(o *outage) { o.server.Pause(); o.without(); o.server.Resume() }},
		"closed": {strike: func(o *outage) { o.proxy.Cut(); o.without(); o.proxy.Mend() }},
		"replies cut off now and then": {strike: func(o *outage) {
			o.proxy.LimitData(200) // the beginning of a connection, and a reply at most
			untilMore(o.t, "failed", o.nodes, 1, func(n *busyNode) int64 { return n.told.Load() })
			o.proxy.Clear()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &outage{t: t, server: testredis.Start(t, b.options)}
			o.proxy = testredis.Proxy(t, o.server.Address)
			o.run(Redis{Addresses: []string{o.proxy.Address}}, b)
		})
	}
}

// run strikes twice, under load and when all is spent, and counts.
func (o *outage) run(r Redis, b blow) {
	t := o.t
	t.Helper()
	burst := slow.Burst
	// A second is long enough for a busy machine, so that Redis is without answers when it is struck and not before.
	o.nodes, _ = runBusy(t, 2, Options{Redis: r, Timeout: time.Second, prefix: prefix()}, slow)
	untilShared(t, o.nodes)
	for passedOf(o.nodes) < burst/4 {
		time.Sleep(time.Millisecond)
	}
	b.strike(o)
	until(t, "well again", o.nodes, (*busyNode).well)
	have := untilSpent(t, o.nodes)
	first := passedOf(o.nodes)
	t.Logf("%d calls passed under load, and %v are left", first, have)
	if most := (1 + b.lost[0]) * burst; float64(first) > float64(most)-min(0, have)+0.01 {
		t.Errorf("%d calls passed, and Redis has %v left of %d: some were not counted", first, have, most)
	}
	if first > (2+b.lost[0])*burst {
		t.Errorf("%d calls passed, more than a burst of %d beyond what the bucket had", first, burst)
	}

	b.strike(o)
	until(t, "well again", o.nodes, (*busyNode).well)
	untilSpent(t, o.nodes)
	more := passedOf(o.nodes) - first
	t.Logf("%d calls passed when all was spent", more)
	if more > b.lost[1]*burst {
		t.Errorf("%d calls passed when all was spent, want %d at most", more, b.lost[1]*burst)
	}
	if least := b.lost[1] * burst * 3 / 4; more < least { // what is lost in leases is an eighth, and what callers wait for
		t.Errorf("%d calls passed from a full bucket, want %d at least", more, least)
	}
}

// A set is masters and replicas.
type set interface {
	WaitWhole()
	replicate()
	kill() *testredis.Server
	failOver()
}

type sentinelSet struct{ *testredis.Sentinel }

func (s sentinelSet) replicate()              { s.WaitReplicated() }
func (s sentinelSet) kill() *testredis.Server { return s.KillMaster() }
func (s sentinelSet) failOver()               { s.Failover() }

type clusterSet struct {
	*testredis.Cluster
	slot int // of the bucket
}

func (s clusterSet) replicate()              { s.WaitReplicated(s.slot) }
func (s clusterSet) kill() *testredis.Server { return s.KillMaster(s.slot) }
func (s clusterSet) failOver()               { s.Failover(s.slot) }

// TestFailover holds docs/security.md, I 121 and R 7: another master is elected under load, and again when all is spent,
// since the first has died or because an operator wants so. Calls are decided all the time; then they are shared again,
// and what was replicated is not given twice.
func TestFailover(t *testing.T) {
	t.Parallel()
	for mode, start := range map[string]func(*testing.T) (set, Redis){
		"Sentinel": func(t *testing.T) (set, Redis) {
			s := testredis.StartSentinel(t)
			return sentinelSet{s}, Redis{Addresses: s.Addresses, Mode: Sentinel, Master: s.Master}
		},
		"Cluster": func(t *testing.T) (set, Redis) {
			c := testredis.StartCluster(t)
			return clusterSet{c, slot(client("orders").tag())}, Redis{Addresses: c.Addresses, Mode: Cluster}
		},
	} {
		for name, elect := range map[string]func(*outage, set){
			"the master dies": func(o *outage, s set) {
				before := map[*busyNode]int64{}
				for _, n := range o.nodes {
					before[n] = n.local()
				}
				killed := s.kill() // for a second, the others wait whether it comes back
				until(o.t, "decided without Redis", o.nodes, func(n *busyNode) bool { return n.local() > before[n]+callersEach })
				until(o.t, "well with the new master", o.nodes, (*busyNode).well)
				killed.Restart()
			},
			"as planned": func(o *outage, s set) { s.failOver() },
		} {
			t.Run(mode+", "+name, func(t *testing.T) {
				t.Parallel()
				s, r := start(t)
				o := &outage{t: t}
				o.run(r, blow{lost: [2]int{1, 0}, strike: func(o *outage) {
					s.replicate()
					elect(o, s)
					s.WaitWhole()
				}})
			})
		}
	}
}
