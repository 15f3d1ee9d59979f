package ratelimit

import (
	"testing"
	"time"

	"sallyport/internal/testredis"
)

// TestCallsAreDecidedWhileRedisFails holds docs/security.md, I 120 and R 7: while Redis fails in whichever way, each
// call is decided by OnFailure, and none waits for Redis.
func TestCallsAreDecidedWhileRedisFails(t *testing.T) {
	t.Parallel()
	type server = *testredis.Server
	type proxy = *testredis.Toxiproxy
	divert := func(kind testredis.Kind) func(*testing.T, server, proxy) func() {
		return func(t *testing.T, s server, p proxy) func() {
			p.Divert(testredis.Fake(t, kind))
			return func() { p.Divert(s.Address) }
		}
	}
	for name, fault := range map[string]func(*testing.T, server, proxy) (mend func()){
		"killed":  func(_ *testing.T, s server, _ proxy) func() { s.Kill(); return s.Restart },
		"paused":  func(_ *testing.T, s server, _ proxy) func() { s.Pause(); return s.Resume },
		"loading": func(_ *testing.T, s server, _ proxy) func() { s.RestartLoading(); return s.FinishLoading },
		"slow":    func(_ *testing.T, _ server, p proxy) func() { p.Slow(500 * time.Millisecond); return p.Clear },
		"reset":   func(_ *testing.T, _ server, p proxy) func() { p.Reset(); return p.Clear },
		"closed":  func(_ *testing.T, _ server, p proxy) func() { p.Cut(); return p.Mend },
		"full": func(_ *testing.T, s server, _ proxy) func() {
			s.Do("CONFIG", "SET", "maxmemory", "1")
			return func() { s.Do("CONFIG", "SET", "maxmemory", "0") }
		},
		"read-only": func(_ *testing.T, s server, _ proxy) func() {
			s.Do("REPLICAOF", "127.0.0.1", "1")
			return func() { s.Do("REPLICAOF", "NO", "ONE") }
		},
		"unable to save": func(t *testing.T, s server, _ proxy) func() {
			s.DenySaving()
			return s.AllowSaving
		},
		"silent":            divert(testredis.Silent),
		"talking garbage":   divert(testredis.Garbage),
		"gone in mid-reply": divert(testredis.ResetMidReply),
		"replies cut off":   func(_ *testing.T, _ server, p proxy) func() { p.LimitData(20); return p.Clear },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testredis.Start(t, testredis.Options{AppendOnly: name == "loading"})
			proxy := testredis.Proxy(t, server.Address)
			tier := Tier{Name: "T", RequestCount: 600, UnitTime: 1, TimeUnit: Minute, Burst: 20}
			var all []*busyNode
			for _, onFailure := range []OnFailure{ShareLocally, AllowAll, DenyAll} {
				nodes, _ := runBusy(t, 2, Options{
					Redis: Redis{Addresses: []string{proxy.Address}}, OnFailure: onFailure, prefix: prefix(),
					Timeout: 100 * time.Millisecond, // more than a busy machine needs
				}, tier)
				all = append(all, nodes...)
			}
			until(t, "shared", all, func(n *busyNode) bool { return n.well() && n.State().Nodes == 2 })

			began, before := time.Now(), map[*busyNode]int64{}
			for _, n := range all {
				before[n] = n.localPassed.Load()
			}
			mend := fault(t, server, proxy)
			until(t, "failing", all, (*busyNode).failing)
			waits := map[*busyNode]int64{}
			for _, n := range all {
				waits[n] = n.State().Waits
			}
			untilMore(t, "decided without Redis", all, 200, (*busyNode).local)
			for _, n := range all {
				if more := n.State().Waits - waits[n]; more > callersEach { // those who had found it well just before
					t.Errorf("%v: %d calls wait for Redis though it fails", n.State().OnFailure, more)
				}
				if n.told.Load() == 0 {
					t.Error("nobody was told")
				}
			}
			passed, long := map[OnFailure]int64{}, time.Since(began).Seconds()
			for _, n := range all {
				passed[n.State().OnFailure] += n.localPassed.Load() - before[n]
				switch {
				case n.State().OnFailure == AllowAll && n.localRefused.Load() > 0:
					t.Error("allow: a call is refused")
				case n.State().OnFailure == DenyAll && n.localPassed.Load() > 0:
					t.Error("deny: a call passes")
				}
			}
			if n := passed[ShareLocally]; float64(n) > 20+10*long {
				t.Errorf("local: %d calls pass within %vs, want %v at most", n, long, 20+10*long)
			}

			mend()
			until(t, "well again", all, (*busyNode).well)
			untilMore(t, "counted again", all, 1, (*busyNode).counted)
			// A call waits for the Timeout. One that waited for a connection or an answer would take half a second or more,
			// on top of what a busy machine makes everybody wait.
			var starved time.Duration
			for _, n := range all {
				starved = max(starved, n.starved.time())
			}
			for _, n := range all {
				if l := n.longest.time(); l > 900*time.Millisecond+4*starved {
					t.Errorf("%v: a call took %v, though nobody waited longer than %v for a processor", n.State().OnFailure, l, starved)
				}
			}
		})
	}
}
