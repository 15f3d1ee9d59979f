package gateway_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/policy/ratelimit"
)

// TestExactlyTheTier: however a client spreads its calls over connections, streams, names, addresses and spellings, its
// tier's calls pass and no more. Held: security I 116.
func TestExactlyTheTier(t *testing.T) {
	f := newFixture(t)
	var calls []func() answer
	add := func(n int, c func() *http.Client, target func(i int) string, options ...func(*http.Request)) {
		for i := range n {
			calls = append(calls, func() answer { return get(t, c(), target(i), options...) })
		}
	}
	one := f.client(t, f.a1, via{})
	add(10, func() *http.Client { return one }, func(i int) string { return "https://mtls.test/pay/1.0/x?n=" + strconv.Itoa(i) })
	add(10, func() *http.Client { return f.client(t, f.a1, via{}) }, func(int) string { return "https://opt.test/pay/1.0/x" })
	streams := f.client(t, f.a1, via{http2: true})
	add(10, func() *http.Client { return streams }, func(i int) string { return "https://mtls.test/pay/y" + strconv.Itoa(i) })
	for i := range 10 {
		from := f.client(t, f.a1, via{from: fmt.Sprintf("127.0.0.%d", 10+i)})
		add(1, func() *http.Client { return from }, func(int) string { return "https://mtls.test/pay/1.0/" })
	}
	for i, name := range []string{"MTLS.test", "mtls.test", "a.wild.test", "b.wild.test", "HARD.wild.test"} {
		named := f.client(t, f.a1, via{sni: name, tls12: i%2 == 0})
		add(2, func() *http.Client { return named }, func(int) string { return "https://" + name + "/pay" }, header("X-Forwarded-For", strconv.Itoa(i)))
	}
	if len(calls) != 50 {
		t.Fatalf("%d calls", len(calls))
	}
	before := f.backend.calls.Load()
	var passed, throttled atomic.Int64
	var wg sync.WaitGroup
	for _, call := range calls {
		wg.Go(func() {
			switch a := call(); a.status {
			case 200:
				passed.Add(1)
			case 429:
				throttled.Add(1)
				a.refused(t, 429, "900804")
				if a.header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			default:
				t.Errorf("status %d (%q)", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if passed.Load() != 10 || throttled.Load() != 40 || f.backend.calls.Load()-before != 10 {
		t.Errorf("%d passed, %d throttled, %d reached the backend", passed.Load(), throttled.Load(), f.backend.calls.Load()-before)
	}
	// Other spellings of the path add nothing: they are refused, or count as the same.
	for target, want := range map[string]int{"/PAY/1.0/x": 404, "//pay/1.0/x": 400, "/%70ay/1.0/x": 429, "/pay/1.0/./x": 400, "/pay/1.0/%78": 429} {
		if a := f.dial(t, f.a1, "mtls.test").get(t, target, "mtls.test"); a.status != want {
			t.Errorf("%q: status %d, want %d", target, a.status, want)
		}
	}
	if f.backend.calls.Load()-before != 10 {
		t.Error("a refused spelling reached the backend")
	}
	// Another client, and the same one on another API, have allowances of their own; after six seconds one more passes.
	f.allowed(t, func() answer { return get(t, one, "https://opt.test/both/1.0/x") })
	f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://mtls.test/pay/1.0/x") })
	a := f.denied(t, 429, "900804", func() answer { return get(t, one, "https://mtls.test/pay/1.0/x") })
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(time.Duration(seconds) * time.Second)
	f.allowed(t, func() answer { return get(t, one, "https://mtls.test/pay/1.0/x") })
	f.denied(t, 429, "900804", func() answer { return get(t, one, "https://mtls.test/pay/1.0/x") })
}

// TestReloadKeepsBuckets: new snapshots give no new allowance. Held: security I 123 as far as the gateway shows it.
func TestReloadKeepsBuckets(t *testing.T) {
	f := newFixture(t)
	c := f.client(t, f.a1, via{})
	passed := 0
	for range 30 {
		if get(t, c, "https://mtls.test/pay/1.0/x").status == 200 {
			passed++
		}
		f.setRoutes(t)
		f.setClients(t)
	}
	if passed != 10 {
		t.Errorf("%d calls passed", passed)
	}
}

// TestRefusedCallsCostNothing: whoever is refused takes nothing from anybody's allowance and leaves no trace in the
// registry of buckets; a package test shows the same for a million certificates. Held: security I 119.
func TestRefusedCallsCostNothing(t *testing.T) {
	f := newFixture(t)
	before := f.limits.Len()
	impostor := issue("a1", nil)
	for range 15 {
		f.denied(t, 401, "900901", func() answer { return get(t, f.client(t, impostor, via{}), "https://opt.test/pay/1.0/x") })
	}
	c := f.client(t, f.a1, via{})
	for range 15 {
		f.denied(t, 403, "900910", func() answer { return get(t, c, "https://mtls.test/pay/1.0/scoped") })
		f.denied(t, 404, "404", func() answer { return get(t, c, "https://mtls.test/nothing") })
	}
	for range 10 {
		f.allowed(t, func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
	}
	f.denied(t, 429, "900804", func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
	if after := f.limits.Len(); after != before {
		t.Errorf("%d buckets, %d before", after, before)
	}
}

// TestAllLimitsOrNone: a call takes from the API's, the resource's and the certificate's allowance, or from none of them.
func TestAllLimitsOrNone(t *testing.T) {
	f := newFixture(t, register(client(payAPI, "zero", theWorld().a2, "Zero")), func(f *fixture, s *setup) {
		ten, _ := f.tiers.Find("Ten")
		three, _ := f.tiers.Find("Three")
		s.routes[0].Limit = f.limits.Bucket(ratelimit.Key{API: "pay:1.0", Level: ratelimit.LevelAPI}, ten)
		s.routes[0].Resources[1] = decision.Resource{
			Path: "/scoped", Security: byCertificate,
			Limit: f.limits.Bucket(ratelimit.Key{API: "pay:1.0", Level: ratelimit.LevelResource, Name: "/scoped"}, three),
		}
	})
	zero := f.client(t, f.a2, via{})
	for range 12 { // takes nothing from the API or the resource
		f.denied(t, 429, "900804", func() answer { return get(t, zero, "https://mtls.test/pay/1.0/scoped") })
	}
	c := f.client(t, f.a4, via{})
	for range 3 {
		f.allowed(t, func() answer { return get(t, c, "https://mtls.test/pay/1.0/scoped") })
	}
	for range 5 {
		a := f.denied(t, 429, "900802", func() answer { return get(t, c, "https://mtls.test/pay/1.0/scoped") })
		if got := a.header.Get("Ratelimit-Policy"); got != `"resource";q=3;w=60` {
			t.Errorf("RateLimit-Policy %q", got)
		}
	}
	for range 7 { // what the resource refused took nothing from the API
		f.allowed(t, func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
	}
	a := f.denied(t, 429, "900800", func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
	if a.header.Get("Retry-After") != "6" || a.header.Get("Ratelimit") != `"api";r=0;t=6` {
		t.Errorf("Retry-After %q, RateLimit %q", a.header.Get("Retry-After"), a.header.Get("Ratelimit"))
	}
	// The open resource has the API's limit too.
	f.denied(t, 429, "900800", func() answer { return get(t, f.client(t, nil, via{}), "https://opt.test/pay/1.0/open") })
}

// TestTiersThatAreNone: a tier that is not configured admits nobody, one of no calls lets none pass, and neither is ever
// no limit. Held: security I 124.
func TestTiersThatAreNone(t *testing.T) {
	var list []certstore.Client
	people := map[string]*party{}
	for _, tier := range []string{"Removed", "ten", "unlimited", "Zero", " Unlimited"[1:] + "x"} {
		people[tier] = issue(tier, theWorld().interA)
		list = append(list, client(payAPI, tier, people[tier], tier))
	}
	f := newFixture(t, register(list...))
	for tier, who := range people {
		t.Run(tier, func(t *testing.T) {
			ask := func() answer { return get(t, f.client(t, who, via{}), "https://mtls.test/pay/1.0/x") }
			if tier == "Zero" {
				a := f.denied(t, 429, "900804", ask)
				if a.header.Get("Retry-After") != "60" {
					t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
				}
				return
			}
			f.denied(t, 401, "900901", ask)
		})
	}
	index, err := certstore.NewIndex(list)
	if err != nil {
		t.Fatal(err)
	}
	_, unknown := decision.NewClients(index, f.tiers, f.limits)
	if len(unknown) != 4 || !strings.Contains(unknown[0].Error(), "Removed") {
		t.Errorf("told of %v", unknown)
	}
	for name, tier := range map[string]ratelimit.Tier{
		"negative":       {Name: "T", RequestCount: -1, UnitTime: 1, TimeUnit: ratelimit.Minute},
		"no unit":        {Name: "T", RequestCount: 1, UnitTime: 1},
		"no time":        {Name: "T", RequestCount: 1, TimeUnit: ratelimit.Minute},
		"built in":       {Name: "Gold", RequestCount: 1, UnitTime: 1, TimeUnit: ratelimit.Minute},
		"another no end": {Name: "T", Unlimited: true},
		"zero":           {},
	} {
		if _, err := ratelimit.NewTiers([]ratelimit.Tier{tier}); err == nil {
			t.Errorf("%s: it is taken for a tier", name)
		}
	}
	// A tier that is taken away ends the clients that have it, with the next snapshot.
	c := f.client(t, f.a1, via{})
	f.allowed(t, func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
	f.tiers, err = ratelimit.NewTiers(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.setRoutes(t)
	f.denied(t, 401, "900901", func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
}

// TestRateLimitFields: an allowed call is told what is left, by the standard's fields.
func TestRateLimitFields(t *testing.T) {
	f := newFixture(t)
	eachVersion(t, func(t *testing.T, h2 bool) {
		f.clock.Advance(time.Minute)
		a := get(t, f.client(t, f.a1, via{http2: h2}), "https://mtls.test/pay/1.0/x")
		if a.header.Get("Ratelimit-Policy") != `"certificate";q=10;w=60` || a.header.Get("Ratelimit") != `"certificate";r=9;t=6` {
			t.Errorf("%q, %q", a.header.Get("Ratelimit-Policy"), a.header.Get("Ratelimit"))
		}
		a = get(t, f.client(t, f.a4, via{http2: h2}), "https://mtls.test/pay/1.0/x")
		if a.header.Get("Ratelimit-Policy") != "" || a.header.Get("Ratelimit") != "" {
			t.Errorf("without a limit: %v", a.header)
		}
	})
}
