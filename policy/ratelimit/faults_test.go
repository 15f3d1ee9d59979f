package ratelimit

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testredis"
)

func TestCallsAreDecidedWhileRedisFails(t *testing.T) {
	for name, fault := range map[string]func(*testredis.Server, *testredis.Toxiproxy) (mend func()){
		"killed": func(s *testredis.Server, _ *testredis.Toxiproxy) func() { s.Kill(); return s.Restart },
		"paused": func(s *testredis.Server, _ *testredis.Toxiproxy) func() { s.Pause(); return s.Resume },
		"slow": func(_ *testredis.Server, p *testredis.Toxiproxy) func() {
			p.Slow(500 * time.Millisecond)
			return p.Clear
		},
		"reset":  func(_ *testredis.Server, p *testredis.Toxiproxy) func() { p.Reset(); return p.Clear },
		"closed": func(_ *testredis.Server, p *testredis.Toxiproxy) func() { p.Cut(); return p.Mend },
		"full": func(s *testredis.Server, _ *testredis.Toxiproxy) func() {
			s.Do("CONFIG", "SET", "maxmemory", "1")
			return func() { s.Do("CONFIG", "SET", "maxmemory", "0") }
		},
		"read-only": func(s *testredis.Server, _ *testredis.Toxiproxy) func() {
			s.Do("REPLICAOF", "127.0.0.1", "1")
			return func() { s.Do("REPLICAOF", "NO", "ONE") }
		},
	} {
		for _, onFailure := range []OnFailure{ShareLocally, AllowAll, DenyAll} {
			t.Run(name+"/"+onFailure.String(), func(t *testing.T) {
				t.Parallel()
				server := testredis.Start(t, testredis.Options{})
				proxy := testredis.Proxy(t, server.Address)
				var told atomic.Int64
				o := Options{
					Redis: Redis{Addresses: []string{proxy.Address}}, OnFailure: onFailure, prefix: prefix(),
					Told: func(err error) {
						if err != nil {
							told.Add(1)
						}
					},
				}
				tier := Tier{Name: "T", RequestCount: 600, UnitTime: 1, TimeUnit: Minute, Burst: 20}
				var nodes []*Limiter
				var load sync.WaitGroup
				end := make(chan struct{})
				var longest, passed, refused atomic.Int64
				for range 2 {
					l, _ := run(t, o)
					nodes = append(nodes, l)
					bucket := l.Bucket(client("orders"), tier)
					load.Go(func() {
						for {
							select {
							case <-end:
								return
							case <-time.After(2 * time.Millisecond):
							}
							began := time.Now()
							v := await(bucket)
							took := int64(time.Since(began))
							for seen := longest.Load(); took > seen && !longest.CompareAndSwap(seen, took); seen = longest.Load() {
							}
							switch {
							case v.Pending():
								t.Error("a call is pending")
							case v.Uncounted && v.Allowed:
								passed.Add(1)
							case v.Uncounted:
								refused.Add(1)
							}
						}
					})
				}
				stop := sync.OnceFunc(func() { close(end); load.Wait() })
				defer stop()
				until := func(what string, reached func(*Limiter) bool) {
					t.Helper()
					began := time.Now()
					for !reached(nodes[0]) || !reached(nodes[1]) {
						if time.Since(began) > 50*time.Second {
							t.Fatalf("not %s within 50 s", what)
						}
						time.Sleep(5 * time.Millisecond)
					}
					t.Logf("%s after %v", what, time.Since(began))
				}
				well := func(l *Limiter) bool { return l.State().Failing == nil }
				until("well, and both are seen", func(l *Limiter) bool { return well(l) && l.State().Nodes == 2 })
				mend := fault(server, proxy)
				until("failing", func(l *Limiter) bool { return !well(l) })
				passed.Store(0)
				refused.Store(0)
				began := time.Now()
				time.Sleep(time.Second)
				p, r, long := passed.Load(), refused.Load(), time.Since(began).Seconds()
				mend()
				until("well again", well)
				stop()
				switch {
				case onFailure == AllowAll && (p == 0 || r > 0), onFailure == DenyAll && (p > 0 || r == 0),
					onFailure == ShareLocally && float64(p) > 20+10*long+1:
					t.Errorf("without Redis, %d calls passed and %d did not", p, r)
				}
				if told.Load() == 0 {
					t.Error("nobody was told")
				}
				// A call waits for 25 ms, and a busy machine may add to it; one that waited for a connection would take a second.
				if l := time.Duration(longest.Load()); l > 900*time.Millisecond {
					t.Errorf("a call took %v", l)
				}
			})
		}
	}
}
