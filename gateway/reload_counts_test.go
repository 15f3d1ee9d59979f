package gateway_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/decision"
	"sallyport/policy/ratelimit"
)

// A peak is how many there are of something, and were at most.
type peak struct{ now, most atomic.Int64 }

func (p *peak) begin() {
	n := p.now.Add(1)
	for most := p.most.Load(); n > most && !p.most.CompareAndSwap(most, n); most = p.most.Load() {
	}
}

func (p *peak) end() { p.now.Add(-1) }

// TestReloadsForgetNoCounts: 200 reloads under load, of equal and of changed tables, with and without listeners, in which
// an API goes and comes again: never is a call or a connection more let through than may be. What the backend has at
// once is the oracle. Held: security L 165.
func TestReloadsForgetNoCounts(t *testing.T) {
	for _, carrier := range []string{"loops", "goroutines", "http2"} {
		t.Run(carrier, func(t *testing.T) { reloadUnderLoad(t, carrier) })
	}
}

const (
	reloads   = 200
	mostCalls = 3
	mostConns = 4
)

func reloadUnderLoad(t *testing.T, carrier string) {
	stay, comes := certstore.API{Name: "stay", Version: "1.0"}, certstore.API{Name: "comes", Version: "1.0"}
	limited := certstore.API{Name: "limited", Version: "1.0"}
	f := newFixture(t, func(f *fixture, s *setup) {
		if drive := gateway.Carriers[carrier]; drive != nil {
			drive(&s.config)
		}
		s.config.Limits.ConnectionsPerSource = mostConns
		s.clients = append(s.clients,
			client(stay, "a4", f.a4, "Unlimited"), sandbox(client(stay, "s1", f.s1, "Unlimited")), client(comes, "a4", f.a4, "Unlimited"),
			client(limited, "a1", f.a1, "Ten"), client(limited, "a4", f.a4, "Unlimited"),
		)
	})
	peaks := map[string]*peak{}
	for _, path := range []string{"/stay", "/sandbox/stay", "/comes"} {
		p := new(peak)
		peaks[path] = p
		f.backend.handle(path, func(_ http.ResponseWriter, r *http.Request) {
			p.begin()
			defer p.end()
			select {
			case <-r.Context().Done():
			case <-time.After(3 * time.Millisecond): // longer than most reloads take
			}
		})
	}
	hundred, _ := f.tiers.Find("Hundred")
	three, _ := f.tiers.Find("Three")
	base, listeners := f.routes, f.listeners
	// reload puts the n-th state into force, as the control side makes it: everything is built anew.
	reload := func(n int) error {
		up := f.upstream(t, f.backend.URL)
		up.MaxCalls, up.SandboxURLs = mostCalls, f.upstream(t, f.backend.URL+"/sandbox").URLs
		up.Timeout = time.Minute + time.Duration(n%3)*time.Second // equal twice, then another
		f.routes = append(slices.Clone(base),
			decision.Route{API: stay, Context: "/stay", Security: byCertificate, Upstream: up},
			decision.Route{
				API: limited, Context: "/limited", Security: byCertificate, Upstream: f.upstream(t, f.backend.URL),
				Limit: f.limits.Bucket(ratelimit.Key{API: "limited:1.0", Level: ratelimit.LevelAPI}, hundred),
				Resources: []decision.Resource{
					{Path: "/three", Security: byCertificate, Limit: f.limits.Bucket(ratelimit.Key{API: "limited:1.0", Level: ratelimit.LevelResource, Name: "/three"}, three)},
					{Path: "/*", Security: byCertificate},
				},
			})
		if n%4 != 3 {
			f.routes = append(f.routes, decision.Route{API: comes, Context: "/comes", Security: byCertificate, Upstream: up})
		}
		table, err := decision.NewTable(f.settings, f.routes)
		if err != nil {
			return err
		}
		parts := gateway.Parts{Routes: table}
		if n%2 == 0 {
			parts.Clients = f.newClients(t)
		}
		if n%5 < 2 {
			parts.Listeners = slices.Clone(listeners)
		}
		if n%5 == 1 {
			parts.Listeners = append(parts.Listeners, decision.Listener{Name: "more", Address: "127.0.0.3:0"})
		}
		f.limits.Sweep(func(ratelimit.Key) bool { return true }) // all of them are in force
		return f.gateway.Set(parts)
	}
	if err := reload(0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	defer load.Wait()
	var passed, turnedAway sync.Map // by what it was: how many
	count := func(in *sync.Map, what string) {
		n, _ := in.LoadOrStore(what, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}
	of := func(in *sync.Map, what string) int64 {
		n, _ := in.LoadOrStore(what, new(atomic.Int64))
		return n.(*atomic.Int64).Load()
	}
	from := 10
	call := func(who *party, path string, clients int) {
		for range clients {
			from++
			c := f.client(t, who, via{http2: carrier == "http2", from: fmt.Sprint("127.0.0.", from)})
			load.Go(func() {
				for ctx.Err() == nil {
					a, err := do(c, "GET", "https://mtls.test"+path, nil)
					switch {
					case err == nil && a.status == 200:
						count(&passed, path)
					case err == nil && (a.status == 503 || a.status == 429):
						count(&turnedAway, path)
					case err == nil && a.status == 404 && path == "/comes/1.0/comes":
					default:
						t.Errorf("%s: status %d, %v", path, a.status, err)
						return
					}
				}
			})
		}
	}
	call(f.a4, "/stay/1.0/stay", 6)
	call(f.a4, "/comes/1.0/comes", 6)
	call(f.s1, "/stay/1.0/stay?sandbox", 5)
	call(f.a1, "/limited/1.0/x", 2)
	call(f.a4, "/limited/1.0/three", 2)
	call(f.a4, "/limited/1.0/y", 2)
	var conns peak
	for range mostConns + 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if f.holdConnection(&conns) {
					count(&passed, "connection")
				} else {
					count(&turnedAway, "connection")
				}
			}
		})
	}
	for n := range reloads {
		if err := reload(n + 1); err != nil {
			t.Fatal(err)
		}
		// Each state meets calls.
		before := of(&passed, "/stay/1.0/stay")
		eventually(t, "a call passes", func() bool { return of(&passed, "/stay/1.0/stay") > before })
	}
	for _, what := range []string{"/stay/1.0/stay", "/comes/1.0/comes", "/stay/1.0/stay?sandbox", "connection"} {
		eventually(t, what+" passes, and is turned away", func() bool { return of(&passed, what) > 0 && of(&turnedAway, what) > 0 })
	}
	eventually(t, "the limits are met", func() bool {
		return of(&turnedAway, "/limited/1.0/x") > 0 && of(&turnedAway, "/limited/1.0/three") > 0 && of(&turnedAway, "/limited/1.0/y") > 0
	})
	cancel()
	load.Wait()
	for path, p := range peaks {
		if most := p.most.Load(); most > mostCalls {
			t.Errorf("%s: the backend had %d calls at once, of %d", path, most, mostCalls)
		}
	}
	if most := conns.most.Load(); most > mostConns {
		t.Errorf("%d connections of one source were served at once, of %d", most, mostConns)
	}
	x, y, limit := of(&passed, "/limited/1.0/x"), of(&passed, "/limited/1.0/y"), of(&passed, "/limited/1.0/three")
	if x != 10 || limit != 3 || x+y+limit != 100 {
		t.Errorf("of a registration's 10 calls passed %d, of a resource's 3 %d, of the API's 100 %d", x, limit, x+y+limit)
	}
	for path, n := range map[string]int64{"/x": x, "/y": y, "/three": limit} {
		if got := int64(f.backend.count(path)); got != n {
			t.Errorf("%s: the backend had %d calls, and %d were answered", path, got, n)
		}
	}
}

// holdConnection makes two calls on a connection of 127.0.0.7's, which counts from the one to the other. It reports
// whether it was served.
func (f *fixture) holdConnection(conns *peak) bool {
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.7")}}).Dial("tcp", f.plain)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // the calls tell
	served := func() bool {
		if _, err := c.Write([]byte("GET /pub/1.0/held HTTP/1.1\r\nHost: open.test\r\n\r\n")); err != nil {
			return false
		}
		var head [15]byte
		for n := 0; n < len(head); {
			k, err := c.Read(head[n:])
			if err != nil {
				return false
			}
			n += k
		}
		return string(head[:]) == "HTTP/1.1 200 OK"
	}
	if !served() {
		return false
	}
	conns.begin()
	defer conns.end()
	time.Sleep(time.Millisecond)
	return true
}
