package control

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// apiOf is an API at /CONTEXT, by "name[:version][/context]".
func apiOf(text string, change ...func(*API)) API {
	name, context, other := strings.Cut(text, "/")
	name, version, _ := strings.Cut(name, ":")
	if version == "" {
		version = "1"
	}
	if !other {
		context = name
	}
	api := API{Place: Place{name + ".yaml", 2, 5}, Tier: "Gold", Route: decision.Route{
		API: certstore.API{Name: name, Version: version}, Context: "/" + context, Security: policy.Security{Open: true},
		Upstream: backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "127.0.0.1:9000"}}},
	}}
	for _, f := range change {
		f(&api)
	}
	return api
}

// unitOf is a file that is good and has these APIs.
func unitOf(file string, apis ...API) Unit {
	return Unit{Place: Place{File: file}, File: "/" + file, Digest: sha256.Sum256(fmt.Appendf(nil, "%s %+v", file, apis)), APIs: apis}
}

// badUnit is a file that is not good, and says that it has these APIs.
func badUnit(file string, claims ...API) Unit {
	u := Unit{Place: Place{File: file}, File: "/" + file, Digest: sha256.Sum256([]byte("bad " + file)), Problems: Problems{{Place{file, 1, 1}, "bad", false}}}
	for _, api := range claims {
		u.Claims = append(u.Claims, decision.Claim{API: api.API, Context: api.Context})
	}
	return u
}

// inline is what stands in the main file.
func inline(apis ...API) Unit {
	for i := range apis {
		apis[i].Place.File = "sallyport.yaml"
	}
	return Unit{Place: Place{File: "sallyport.yaml"}, APIs: apis}
}

// withUnits makes a Spec of them, as the configuration does.
func withUnits(s *Spec, units ...Unit) {
	s.Units, s.APIs, s.Clients, s.LeftOut = units, nil, nil, nil
	for _, u := range units {
		s.APIs, s.Clients, s.LeftOut = append(s.APIs, u.APIs...), append(s.Clients, u.Clients...), append(s.LeftOut, u.LeftOut...)
	}
}

// served is what an Assembly serves and what it has fenced: "a b:2 /c - file.yaml".
func (a *Assembly) described() string {
	var words []string
	for _, r := range a.Routes.Routes() {
		words = append(words, r.API.Name+r.Context)
	}
	words = append(words, "-")
	for _, u := range a.Fenced() {
		words = append(words, u.Place.File)
	}
	return strings.Join(words, " ")
}

// TestUnits builds one configuration after the other: what is not good, or claims what serves, is fenced off, and what
// was in force of it stays.
func TestUnits(t *testing.T) {
	bound := func(change func(*API)) API { return apiOf("f", change) }
	managed := bound(func(a *API) { a.KeyManagers = []string{"one", "two"} })
	listened := bound(func(a *API) { a.Listeners = []string{"https", "other"} })
	registered := unitOf("f.yaml", apiOf("f"))
	registered.Clients = []certstore.Client{{API: apiOf("f").API, Alias: "a", Tier: "Trial", KeyType: certstore.Production, Certificate: thePKI().client.cert}}
	trial := func(s *Spec) {
		tiers, err := ratelimit.NewTiers([]ratelimit.Tier{{Name: "Trial", RequestCount: 3, UnitTime: 1, TimeUnit: ratelimit.Minute}})
		if err != nil {
			panic(err)
		}
		s.Tiers = tiers
	}
	keyManagers := func(names ...string) func(*Spec) {
		return func(s *Spec) {
			s.KeyManagers = nil
			for _, n := range names {
				s.KeyManagers = append(s.KeyManagers, Placed[token.KeyManager]{Value: token.KeyManager{Name: n, Type: "default", Issuer: n, JWKS: "https://localhost:1/" + n}})
			}
		}
	}
	another := func(s *Spec) {
		s.Listeners = append(s.Listeners, Listener{Listener: decision.Listener{Name: "other", Address: "127.0.0.1:8280"}})
	}
	type step struct {
		units  []Unit
		change func(*Spec)
		want   string // described, or part of the error after "!"
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"a bad file at a start", []step{
			{[]Unit{badUnit("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g"))}, nil, "g/g - f.yaml"},
			{[]Unit{unitOf("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g"))}, nil, "f/f g/g -"},
		}},
		{"nothing good at a start", []step{{[]Unit{badUnit("f.yaml"), badUnit("g.yaml")}, nil, "!f.yaml:1:1: bad\ng.yaml:1:1: bad"}}},
		{"nothing good in the end", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f"))}, nil, "f/f -"},
			{[]Unit{badUnit("g.yaml")}, nil, "!g.yaml:1:1: bad"},
		}},
		{"a file breaks, another follows, and both in the same change again", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g"))}, nil, "f/f g/g -"},
			{[]Unit{badUnit("f.yaml", apiOf("f/open")), unitOf("g.yaml", apiOf("g/h"))}, nil, "f/f g/h - f.yaml"},
			{[]Unit{badUnit("f.yaml"), badUnit("g.yaml")}, nil, "f/f g/h - f.yaml g.yaml"},
			{[]Unit{unitOf("f.yaml", apiOf("f/i")), badUnit("g.yaml")}, nil, "f/i g/h - g.yaml"},
			{[]Unit{badUnit("g.yaml")}, nil, "g/h - g.yaml"},
			{[]Unit{unitOf("g.yaml", apiOf("g/h"))}, nil, "g/h -"},
		}},
		{"two claim one name at a start", []step{
			{[]Unit{unitOf("f.yaml", apiOf("x/a")), unitOf("g.yaml", apiOf("x/b")), unitOf("h.yaml", apiOf("h"))}, nil, "h/h - f.yaml g.yaml"},
		}},
		{"two claim one place at a start", []step{
			{[]Unit{unitOf("f.yaml", apiOf("a/x")), unitOf("g.yaml", apiOf("b/x")), unitOf("h.yaml", apiOf("h"))}, nil, "h/h - f.yaml g.yaml"},
		}},
		{"a new file claims the name of one in force", []step{
			{[]Unit{unitOf("f.yaml", apiOf("x/a"))}, nil, "x/a -"},
			{[]Unit{unitOf("a.yaml", apiOf("x/b")), unitOf("f.yaml", apiOf("x/a"))}, nil, "x/a - a.yaml"},
			{[]Unit{unitOf("a.yaml", apiOf("x/b"))}, nil, "x/b -"}, // once the first is gone
		}},
		{"a new file claims the place of one in force", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f/x"))}, nil, "f/x -"},
			{[]Unit{unitOf("a.yaml", apiOf("a/x"), apiOf("b/y")), unitOf("f.yaml", apiOf("f/x"))}, nil, "f/x - a.yaml"},
		}},
		{"a new file claims what a broken one has", []step{
			{[]Unit{unitOf("f.yaml", apiOf("x/a")), unitOf("g.yaml", apiOf("g"))}, nil, "x/a g/g -"},
			{[]Unit{unitOf("a.yaml", apiOf("x/a")), badUnit("f.yaml"), unitOf("g.yaml", apiOf("g"))}, nil, "x/a g/g - a.yaml f.yaml"},
			{[]Unit{unitOf("a.yaml", apiOf("a")), badUnit("f.yaml"), unitOf("g.yaml", apiOf("z/a"))}, nil, "x/a g/g - a.yaml f.yaml g.yaml"},
		}},
		{"a file changes to claim what another has", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g"))}, nil, "f/f g/g -"},
			{[]Unit{unitOf("f.yaml", apiOf("g")), unitOf("g.yaml", apiOf("g"))}, nil, "f/f g/g - f.yaml"},
		}},
		{"two files change to claim the same", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g"))}, nil, "f/f g/g -"},
			{[]Unit{unitOf("f.yaml", apiOf("x")), unitOf("g.yaml", apiOf("x"))}, nil, "f/f g/g - f.yaml g.yaml"},
		}},
		{"two files change places", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g"))}, nil, "f/f g/g -"},
			{[]Unit{unitOf("f.yaml", apiOf("g")), unitOf("g.yaml", apiOf("f"))}, nil, "g/g f/f -"},
		}},
		{"one falls back, and the other with it", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g")), unitOf("h.yaml", apiOf("h"))}, nil, "f/f g/g h/h -"},
			{[]Unit{badUnit("f.yaml"), unitOf("g.yaml", apiOf("f")), unitOf("h.yaml", apiOf("g"))}, nil, "f/f g/g h/h - f.yaml g.yaml h.yaml"},
		}},
		{"the main file claims what a file has", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f"))}, nil, "f/f -"},
			{[]Unit{inline(apiOf("f")), unitOf("f.yaml", apiOf("f"))}, nil, "!sallyport.yaml"},
			{[]Unit{inline(apiOf("f")), badUnit("f.yaml")}, nil, "!sallyport.yaml"},
		}},
		{"a file claims what the main file has", []step{
			{[]Unit{inline(apiOf("f"))}, nil, "f/f -"},
			{[]Unit{unitOf("a.yaml", apiOf("f")), inline(apiOf("f"))}, nil, "f/f - a.yaml"},
		}},
		{"and at a start", []step{{[]Unit{unitOf("a.yaml", apiOf("f")), inline(apiOf("f"))}, nil, "f/f - a.yaml"}}},
		{"a file is as it was, and the rest makes it bad", []step{
			{[]Unit{unitOf("f.yaml", apiOf("f"))}, nil, "f/f -"},
			{[]Unit{func() Unit { u := badUnit("f.yaml"); u.Digest = unitOf("f.yaml", apiOf("f")).Digest; return u }(), inline(apiOf("g"))}, nil, "!f.yaml:1:1: bad"},
		}},
		{"a key manager goes", []step{
			{[]Unit{unitOf("f.yaml", managed)}, keyManagers("one", "two"), "f/f -"},
			{[]Unit{badUnit("f.yaml")}, keyManagers("two", "three"), "f/f - f.yaml"},
			{[]Unit{badUnit("f.yaml")}, keyManagers("three"), "!f.yaml: this file is not good, and what it was does not fit the rest any more: API f:1 has no key manager any more"},
		}},
		{"a listener goes", []step{
			{[]Unit{unitOf("f.yaml", listened)}, another, "f/f -"},
			{[]Unit{badUnit("f.yaml")}, nil, "f/f - f.yaml"},
			{[]Unit{badUnit("f.yaml")}, func(s *Spec) { s.Listeners[0].Name = "renamed" }, "!API f:1 has no listener any more"},
		}},
		{"the tier of a registration goes", []step{
			{[]Unit{registered}, trial, "f/f -"},
			{[]Unit{badUnit("f.yaml")}, trial, "f/f - f.yaml"},
			{[]Unit{badUnit("f.yaml")}, nil, `!certificate "a" of API f:1 has the tier "Trial", which is no more`},
		}},
		{"the labels of the gateway change", []step{
			{[]Unit{unitOf("f.yaml", bound(func(a *API) { a.Labels = []string{"eu"} })), inline(apiOf("g"))}, func(s *Spec) { s.Labels = []string{"eu"} }, "f/f g/g -"},
			{[]Unit{badUnit("f.yaml"), inline(apiOf("g"))}, func(s *Spec) { s.Labels = []string{"us"} }, "g/g - f.yaml"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t, nil)
			defer b.Close()
			var known []*Assembly
			for i, step := range tt.steps {
				b.change(func(s *Spec) {
					*s = *newSpec("/bed")
					withUnits(s, step.units...)
					if step.change != nil {
						step.change(s)
					}
				})
				next := b.builder(b.spec.Load(), known...)
				err := next.build()
				if want, wrong := strings.CutPrefix(step.want, "!"); wrong {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("step %d: %v, want %s", i, err, want)
					}
					continue
				}
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if got := next.described(); got != step.want {
					t.Errorf("step %d: %s, want %s", i, got, step.want)
				}
				for _, r := range next.Routes.Routes() { // what is gone is no right any more
					if slices.Contains(r.KeyManagers, "one") && next.Spec.keyManager("one") == nil || slices.Contains(r.Listeners, "other") && next.Spec.listener("other") == nil {
						t.Errorf("step %d: %s has %v and %v", i, r.API, r.KeyManagers, r.Listeners)
					}
				}
				known = []*Assembly{next.Assembly}
			}
		})
	}
}

// TestUnitKeepsWhatItsUpstreamHad: when the files of an API's upstream break, they are as they were; at a start the API is
// fenced off.
func TestUnitKeepsWhatItsUpstreamHad(t *testing.T) {
	b := newBed(t, nil)
	defer b.Close()
	secure := apiOf("f", func(a *API) { a.CAFile = "/bed/roots.pem" })
	b.disk.write("roots.pem", certPEM(b.ca))
	b.change(func(s *Spec) { withUnits(s, unitOf("f.yaml", secure), inline(apiOf("g"))) })
	make := func(known ...*Assembly) *Assembly {
		t.Helper()
		next := b.builder(b.spec.Load(), known...)
		if err := next.build(); err != nil {
			t.Fatal(err)
		}
		return next.Assembly
	}
	first := make()
	roots := func(a *Assembly) *decision.Route { return a.Routes.Of(secure.API) }
	b.disk.write("roots.pem", []byte("nothing"))
	b.change(func(s *Spec) { s.Listeners[0].TLS.Own.TrustStore.Location = "/bed/other.pem" })
	second := make(first)
	if second.described() != "f/f g/g - f.yaml" || !roots(second).Upstream.Roots.Equal(roots(first).Upstream.Roots) || roots(second).Upstream.TLSDigest != roots(first).Upstream.TLSDigest {
		t.Errorf("%s, and its roots are others", second.described())
	}
	third := make(second)
	if third.described() != "f/f g/g - f.yaml" || !roots(third).Upstream.Roots.Equal(roots(first).Upstream.Roots) {
		t.Errorf("%s, and its roots are others", third.described())
	}
	if b.stale(third) {
		t.Error("nothing has changed, and it is made anew all the time")
	}
	if start := make(); start.described() != "g/g - f.yaml" {
		t.Errorf("at a start: %s", start.described())
	}
	b.disk.write("roots.pem", certPEM(b.other))
	if !b.stale(third) {
		t.Error("nobody sees that the file is mended")
	}
	if mended := make(third); mended.described() != "f/f g/g -" || roots(mended).Upstream.TLSDigest == roots(first).Upstream.TLSDigest {
		t.Errorf("mended: %s", mended.described())
	}
}

// TestFencedUnitIsTold: a file that is not good is a broken source of its own, once; Reload tells it again; with the file
// it goes.
func TestFencedUnitIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(b *bed, cfg *Options) {
			s := b.spec.Load()
			s.Period = time.Second
			withUnits(s, unitOf("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g")))
		})
		const source = "API file f.yaml"
		b.change(func(s *Spec) { withUnits(s, badUnit("f.yaml"), unitOf("g.yaml", apiOf("g"))) })
		b.after(t, 2*time.Second, configuration, 1, 0)
		b.counts(t, source, 0, 1)
		if err := b.state(source).Broken; err == nil || err.Error() != "f.yaml:1:1: bad" {
			t.Errorf("%v", err)
		}
		b.change(func(s *Spec) { withUnits(s, badUnit("f.yaml"), unitOf("g.yaml", apiOf("g/h"))) })
		b.after(t, 10*time.Second, configuration, 2, 0)
		b.counts(t, source, 0, 1)
		if n := b.log.count("an API file is not good, and its APIs serve on as they were"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		if err := b.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "API file f.yaml: f.yaml:1:1: bad") {
			t.Errorf("Reload: %v", err)
		}
		b.counts(t, source, 0, 2)
		if why := b.trouble(); !strings.Contains(why, "f.yaml:1:1: bad") {
			t.Errorf("the store is told %q", why)
		}
		b.change(func(s *Spec) { withUnits(s, unitOf("f.yaml", apiOf("f")), unitOf("g.yaml", apiOf("g/h"))) })
		b.after(t, 2*time.Second, source, 1, 2)
		if s := b.state(source); s.Name != "" || b.trouble() != "" || b.log.count("an API file is good again") != 1 {
			t.Errorf("%+v, trouble %q", s, b.trouble())
		}
	})
}

// TestUnitsOfAVersion: a version of a cluster's files comes into force as a whole or not at all; what breaks in the one in
// force is fenced off, and so is a file that the node has to itself.
func TestUnitsOfAVersion(t *testing.T) {
	b := newBed(t, func(_ *bed, cfg *Options) { cfg.Cluster.Folder = "/cluster" })
	defer b.Close()
	build := func(release int, known []*Assembly, units ...Unit) (*Assembly, error) {
		b.change(func(s *Spec) { s.Release = release; withUnits(s, units...) })
		next := b.builder(b.spec.Load(), known...)
		err := next.build()
		return next.Assembly, err
	}
	shared, own := unitOf("cluster/f.yaml", apiOf("f")), unitOf("own.yaml", apiOf("o"))
	first, err := build(1, nil, shared, own)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		release int
		units   []Unit
		want    string // described; "" is refused
	}{
		{"a bad file of a new version", 2, []Unit{badUnit("cluster/f.yaml"), own}, ""},
		{"a new bad file of a new version", 2, []Unit{shared, badUnit("cluster/g.yaml"), own}, ""},
		{"a bad file of the one in force", 1, []Unit{badUnit("cluster/f.yaml"), own}, "f/f o/o - cluster/f.yaml"},
		{"a bad file of the node's", 2, []Unit{unitOf("cluster/f.yaml", apiOf("f/g")), badUnit("own.yaml")}, "f/g o/o - own.yaml"},
	} {
		next, err := build(tt.release, []*Assembly{first}, tt.units...)
		if got := ""; err == nil {
			if got = next.described(); got != tt.want {
				t.Errorf("%s: %s, want %q", tt.name, got, tt.want)
			}
		} else if tt.want != "" || !strings.Contains(err.Error(), "bad") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if start, err := build(2, nil, badUnit("cluster/f.yaml"), own); err != nil || start.described() != "o/o - cluster/f.yaml" {
		t.Errorf("at a start: %v", err)
	}
}

// TestUnitThatContradictsTheStore: a file that registers anew what the store has is fenced off, and what it registered
// before stays.
func TestUnitThatContradictsTheStore(t *testing.T) {
	b := newBed(t, nil)
	defer b.Close()
	with := func(alias string, who *party) Unit {
		u := unitOf("f.yaml", apiOf("f"))
		u.Clients = []certstore.Client{{API: apiOf("f").API, Alias: alias, KeyType: certstore.Production, Tier: "Gold", Certificate: who.cert, Source: "f.yaml:3:5"}}
		u.Digest = sha256.Sum256([]byte(alias + string(who.cert.Raw)))
		return u
	}
	build := func(known []*Assembly, u Unit) *Assembly {
		t.Helper()
		b.change(func(s *Spec) { withUnits(s, u, inline(apiOf("g"))) })
		next := b.builder(b.spec.Load(), known...)
		if err := next.build(); err != nil {
			t.Fatal(err)
		}
		return next.Assembly
	}
	first := build(nil, with("file", b.client))
	first.registered.clients = []certstore.Client{{API: apiOf("f").API, Alias: "stored", KeyType: certstore.Production, Tier: "Gold", Certificate: b.second.cert}}
	for name, u := range map[string]Unit{"its alias": with("stored", b.client), "its certificate": with("other", b.second)} {
		next := build([]*Assembly{first}, u)
		if got := next.described(); got != "f/f g/g - f.yaml" || len(next.Spec.Clients) != 1 || next.Spec.Clients[0].Alias != "file" || !next.doubtful() {
			t.Errorf("%s: %s with %v", name, got, next.Spec.Clients)
		}
		next.registered.clients = nil // it is removed from the store, and the file is as it is
		if mended := build([]*Assembly{next}, u); mended.described() != "f/f g/g -" || mended.doubtful() {
			t.Errorf("%s: %s", name, mended.described())
		}
	}
	if next := build([]*Assembly{first}, with("third", b.client)); next.described() != "f/f g/g -" || next.Spec.Clients[0].Alias != "third" {
		t.Errorf("%s with %v", next.described(), next.Spec.Clients)
	}
}
