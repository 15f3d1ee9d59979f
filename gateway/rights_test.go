package gateway_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy"
	"sallyport/policy/certrule"
	"sallyport/policy/token"
)

// A loss is a way in which a right ends.
type loss struct {
	name    string
	callers func(*testing.T, *fixture, int) [2]visitor // of whom the one of that index loses it
	end     func(*testing.T, *fixture, int)
}

var (
	tok2API = certstore.API{Name: "tok2", Version: "1.0"}
	pub2API = certstore.API{Name: "pub2", Version: "1.0"}
	duoAPI  = certstore.API{Name: "duo", Version: "1.0"}
)

// drop removes an API.
func (f *fixture) drop(t *testing.T, api certstore.API) {
	f.routes = slices.DeleteFunc(slices.Clone(f.routes), func(r decision.Route) bool { return r.API == api })
	f.setRoutes(t)
}

// alter changes an API.
func (f *fixture) alter(t *testing.T, api certstore.API, change func(*decision.Route)) {
	f.routes = slices.Clone(f.routes)
	change(&f.routes[slices.IndexFunc(f.routes, func(r decision.Route) bool { return r.API == api })])
	f.setRoutes(t)
}

// managed is a verifier of two key managers, without those of that index, and of the keys k1 and k2 of the first.
func (f *fixture) managed(t *testing.T, without int, keys ...string) *token.Verifier {
	t.Helper()
	f.write(t, "two.json", keySet(t, keys...))
	f.write(t, "second.json", keySet(t, "k1"))
	managers := []token.KeyManager{
		{Name: "first", Type: "default", Issuer: "https://first.test", JWKS: filepath.Join(f.dir, "two.json")},
		{Name: "second", Type: "default", Issuer: "https://second.test", JWKS: filepath.Join(f.dir, "second.json")},
	}
	if without >= 0 {
		managers = slices.Delete(managers, without, without+1)
	}
	v, err := token.New(token.Options{KeyManagers: managers, Now: f.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var keysByID = map[string]int{"k1": 0, "k2": 1}

func twoKeys() [2]*ecdsa.PrivateKey { return [2]*ecdsa.PrivateKey{tokenKey(), otherKey()} }

// keySet is a JWKS of those of tokenKey, k1, and otherKey, k2.
func keySet(t *testing.T, ids ...string) []byte {
	t.Helper()
	set := []any{}
	for _, id := range ids {
		key, err := jwk.Import(twoKeys()[keysByID[id]].Public())
		if err == nil {
			err = key.Set("kid", id)
		}
		if err != nil {
			t.Fatal(err)
		}
		set = append(set, key)
	}
	text, err := json.Marshal(map[string]any{"keys": set})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func byCertificates(api certstore.API, path string) func(*testing.T, *fixture, int) [2]visitor {
	return func(_ *testing.T, f *fixture, _ int) [2]visitor {
		return [2]visitor{{who: f.a4, api: api, path: path}, {who: f.a2, api: api, path: path}}
	}
}

// byRevoker are two clients of a CA that signs lists; inter is whether the one that keeps its right is of the root itself.
func byRevoker(r *revoker, inter bool) func(*testing.T, *fixture, int) [2]visitor {
	return func(t *testing.T, f *fixture, i int) [2]visitor {
		r.serve(t, f, byLists)
		for k := range r.clients {
			by := r.inter
			if inter && k != i {
				by = r.root
			}
			r.clients[k] = issue("client", by, usage(x509.ExtKeyUsageClientAuth))
			f.clients = append(slices.Clone(f.clients), client(payAPI, fmt.Sprint("client ", k), r.clients[k], "Unlimited"))
		}
		f.setClients(t)
		return [2]visitor{{who: r.clients[0], api: payAPI}, {who: r.clients[1], api: payAPI}}
	}
}

func byTokens(api certstore.API, path string, loser, keeper map[string]any) func(*testing.T, *fixture, int) [2]visitor {
	return func(t *testing.T, f *fixture, i int) [2]visitor {
		both := [2]visitor{}
		for k, name := range []string{"alice", "bob"} {
			claims := keeper
			if k == i {
				claims = loser
			}
			both[k] = visitor{api: api, path: path, raw: f.token(t, name, claims), who: f.a4}
			if api != duoAPI {
				both[k].who = nil
			}
		}
		return both
	}
}

// issued are tokens of two issuers, or by two keys of the first.
func issued(issuers [2]string, keys [2]string) func(*testing.T, *fixture, int) [2]visitor {
	return func(t *testing.T, f *fixture, _ int) (both [2]visitor) {
		f.settings.Tokens = f.managed(t, -1, "k1", "k2")
		f.setRoutes(t)
		for i := range both {
			both[i] = visitor{api: tokAPI, raw: f.signAs(t, twoKeys()[keysByID[keys[i]]], keys[i], "alice", map[string]any{"iss": issuers[i]})}
		}
		return both
	}
}

func at(apis ...certstore.API) func(*testing.T, *fixture, int) [2]visitor {
	return func(t *testing.T, f *fixture, _ int) (both [2]visitor) {
		for i, api := range apis {
			both[i] = visitor{api: api}
			switch api {
			case payAPI, boxAPI:
				both[i].who = f.a4
			case tokAPI, tok2API:
				both[i].raw = f.token(t, "alice", nil)
			}
		}
		return both
	}
}

func (f *fixture) rewrite(t *testing.T, loser int, change func(*certstore.Client)) {
	f.clients = slices.Clone(f.clients)
	for i := range f.clients {
		if f.clients[i].Alias == []string{"a4", "a2"}[loser] {
			change(&f.clients[i])
		}
	}
	f.setClients(t)
}

// revoking is the loss of whom a CRL names.
func revoking(name string, inter bool, whom func(*revoker, int) *party) loss {
	var of sync.Map // revokers, by fixture
	return loss{name, func(t *testing.T, f *fixture, i int) [2]visitor {
		r := newRevoker()
		of.Store(f, r)
		return byRevoker(r, inter)(t, f, i)
	}, func(_ *testing.T, f *fixture, i int) {
		r, _ := of.Load(f)
		r.(*revoker).list(f.dir, whom(r.(*revoker), i))
	}}
}

// denyingIssuer is the loss of a registered certificate whose issuer, which no trust store knows, is denied.
func denyingIssuer() loss {
	var of sync.Map // their issuers, by fixture
	return loss{"certificate, deny list by an issuer that is in no trust store", func(t *testing.T, f *fixture, _ int) (both [2]visitor) {
		f.vouching = trust.All
		f.clients = slices.Clone(f.clients)
		issuers := [2]*party{}
		for i, name := range []string{"one", "two"} {
			issuers[i] = issue("Issuer of "+name, issue("Root of "+name, nil, isCA), isCA)
			both[i] = visitor{who: issue(name, issuers[i]), api: payAPI}
			f.clients = append(f.clients, client(payAPI, name, both[i].who, "Unlimited"))
		}
		of.Store(f, issuers)
		f.setClients(t)
		f.setProfiles(t, f.profiles(t, certPEM(f.caA), allProfiles...))
		return both
	}, func(t *testing.T, f *fixture, i int) {
		issuers, _ := of.Load(f)
		f.setDenied(t, keyOf(issuers.([2]*party)[i]))
	}}
}

func expire(_ *testing.T, f *fixture, _ int) { f.clock.Advance(10 * time.Minute) }

// allows gives a route a rule.
func allows(t testing.TB, source string) func(*decision.Route) {
	r := ruleOf(t, source)
	return func(route *decision.Route) { route.Allow = r }
}

func losses() []loss {
	soon := map[string]any{"exp": newClock().Now().Add(5 * time.Minute).Unix()}
	dropOf := func(apis ...certstore.API) func(*testing.T, *fixture, int) {
		return func(t *testing.T, f *fixture, i int) { f.drop(t, apis[i]) }
	}
	demandsToken := func(r *decision.Route) { r.Security, r.Resources = byToken, nil }
	return []loss{
		{"certificate, registration", byCertificates(payAPI, ""), func(t *testing.T, f *fixture, i int) { f.remove(t, []string{"a4", "a2"}[i]) }},
		{"certificate, tier", byCertificates(payAPI, ""), func(t *testing.T, f *fixture, i int) {
			f.rewrite(t, i, func(c *certstore.Client) { c.Tier = "Nowhere" })
		}},
		{"certificate, scope", byCertificates(payAPI, "/scoped"), func(t *testing.T, f *fixture, i int) {
			f.rewrite(t, i, func(c *certstore.Client) { c.Scopes = []string{"pay:write"} })
		}},
		{"certificate, role", func(t *testing.T, f *fixture, _ int) (both [2]visitor) {
			f.clients = slices.Clone(f.clients)
			for i, unit := range []string{"Payments", "Sales"} {
				both[i] = visitor{who: issue(unit, f.interA, ofUnit(unit)), api: payAPI, path: "/scoped"}
				f.clients = append(f.clients, client(payAPI, unit, both[i].who, "Unlimited"))
			}
			f.setClients(t)
			f.alter(t, payAPI, func(r *decision.Route) {
				r.ScopesFrom = rolesOf(t, certrule.ScopesFrom{SubjectOU: map[string][]string{"Payments": {"pay:read"}, "Sales": {"pay:read"}}})
			})
			return both
		}, func(t *testing.T, f *fixture, i int) {
			kept := []string{"Sales", "Payments"}[i]
			f.alter(t, payAPI, func(r *decision.Route) {
				r.ScopesFrom = rolesOf(t, certrule.ScopesFrom{SubjectOU: map[string][]string{kept: {"pay:read"}}})
			})
		}},
		{"certificate, match of its CA", func(t *testing.T, f *fixture, _ int) (both [2]visitor) {
			f.chains = true
			for i, host := range []string{"one.test", "two.test"} {
				both[i] = visitor{who: issue(host, f.interA, ofDNS(host)), api: payAPI}
			}
			f.clients = append(slices.Clone(f.clients), client(payAPI, "inter", f.interA, "Unlimited"))
			f.setClients(t)
			return both
		}, func(t *testing.T, f *fixture, i int) {
			f.clients = slices.Clone(f.clients)
			last := len(f.clients) - 1
			f.clients[last] = matching(t, f.clients[last], certrule.Match{DNS: []string{[]string{"two.test", "one.test"}[i]}})
			f.setClients(t)
		}},
		{"certificate, expiry", func(t *testing.T, f *fixture, i int) [2]visitor {
			both := byCertificates(payAPI, "")(t, f, i)
			now := f.clock.Now()
			both[i].who = issue("soon", f.interA, validity(now.Add(-time.Hour), now.Add(5*time.Minute)))
			f.clients = append(slices.Clone(f.clients), client(payAPI, "soon", both[i].who, "Unlimited"))
			f.setClients(t)
			return both
		}, expire},
		revoking("certificate, CRL", false, func(r *revoker, i int) *party { return r.clients[i] }),
		revoking("certificate, its issuer on a CRL", true, func(r *revoker, _ int) *party { return r.inter }),
		{"certificate, registered CA", func(t *testing.T, f *fixture, i int) [2]visitor {
			f.chains = true
			f.clients = append(slices.Clone(f.clients), client(boxAPI, "inter", f.interA, "Unlimited"))
			f.setClients(t)
			both := byCertificates(payAPI, "")(t, f, i)
			both[i] = visitor{who: issue("leaf", f.interA), api: boxAPI}
			return both
		}, func(t *testing.T, f *fixture, _ int) { f.remove(t, "inter") }},
		{"certificate, deny list by fingerprint", byCertificates(payAPI, ""), denying(fingerprintOf)},
		{"certificate, deny list by serial number", byCertificates(payAPI, ""), denying(serialOf)},
		{"certificate, deny list by key", byCertificates(payAPI, ""), denying(keyOf)},
		denyingIssuer(),
		{"certificate, API", at(payAPI, boxAPI), dropOf(payAPI, boxAPI)},
		{"certificate, API demands a token", at(payAPI, boxAPI), func(t *testing.T, f *fixture, i int) {
			f.alter(t, []certstore.API{payAPI, boxAPI}[i], demandsToken)
		}},
		{"token, expiry", byTokens(tokAPI, "", soon, nil), expire},
		{"token beside a certificate, expiry", byTokens(duoAPI, "", soon, nil), expire},
		{"token, scope", byTokens(tok2API, "", map[string]any{"scope": "x:read"}, map[string]any{"scope": "x:read x:list"}), func(t *testing.T, f *fixture, _ int) {
			f.alter(t, tok2API, func(r *decision.Route) {
				r.Resources = []decision.Resource{{Path: "/*", Security: byToken, Scopes: []string{"x:list"}}}
			})
		}},
		{"token, audience", byTokens(tokAPI, "", map[string]any{"aud": "there"}, map[string]any{"aud": "here"}), func(t *testing.T, f *fixture, _ int) {
			f.alter(t, tokAPI, func(r *decision.Route) { r.Audiences = []string{"here"} })
		}},
		{"token, key", issued([2]string{"https://first.test", "https://first.test"}, [2]string{"k1", "k2"}), func(t *testing.T, f *fixture, i int) {
			f.write(t, "two.json", keySet(t, []string{"k2", "k1"}[i]))
			if err := f.settings.Tokens.(*token.Verifier).Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"token, key by a reload", issued([2]string{"https://first.test", "https://first.test"}, [2]string{"k1", "k2"}), func(t *testing.T, f *fixture, i int) {
			f.settings.Tokens = f.managed(t, -1, []string{"k2", "k1"}[i])
			f.setRoutes(t)
		}},
		{"token, key manager", issued([2]string{"https://first.test", "https://second.test"}, [2]string{"k1", "k1"}), func(t *testing.T, f *fixture, i int) {
			f.settings.Tokens = f.managed(t, i, "k1")
			f.setRoutes(t)
		}},
		{"token, key manager of the API", issued([2]string{"https://first.test", "https://second.test"}, [2]string{"k1", "k1"}), func(t *testing.T, f *fixture, i int) {
			f.alter(t, tokAPI, func(r *decision.Route) { r.KeyManagers = []string{[]string{"second", "first"}[i]} })
		}},
		{"token, API", at(tokAPI, tok2API), dropOf(tokAPI, tok2API)},
		{"certificate, rule", byCertificates(payAPI, ""), func(t *testing.T, f *fixture, i int) {
			f.alter(t, payAPI, allows(t, fmt.Sprintf("certificate.alias == %q", []string{"a2", "a4"}[i])))
		}},
		{"certificate, rule of the time", byCertificates(payAPI, ""), func(t *testing.T, f *fixture, i int) {
			soon := f.clock.Now().Add(time.Minute).Format(time.RFC3339)
			f.alter(t, payAPI, allows(t, fmt.Sprintf("certificate.alias == %q || now < timestamp(%q)", []string{"a2", "a4"}[i], soon)))
			f.clock.Advance(10 * time.Minute)
		}},
		{"token, rule", byTokens(tokAPI, "", nil, nil), func(t *testing.T, f *fixture, i int) {
			f.alter(t, tokAPI, allows(t, fmt.Sprintf("token.subject == %q", []string{"bob", "alice"}[i])))
		}},
		{"open, rule", at(pubAPI, pub2API), func(t *testing.T, f *fixture, i int) {
			f.alter(t, []certstore.API{pubAPI, pub2API}[i], allows(t, "method == 'BREW'"))
		}},
		{"open, API", at(pubAPI, pub2API), dropOf(pubAPI, pub2API)},
		{"open, API demands a token", at(pubAPI, pub2API), func(t *testing.T, f *fixture, i int) {
			f.alter(t, []certstore.API{pubAPI, pub2API}[i], demandsToken)
		}},
	}
}

// rightsFixture serves endpoints, by HTTP/2 to the backend if h2c.
func rightsFixture(t *testing.T, h2c bool) (*fixture, *endpoints) {
	e := &endpoints{all: map[string]*endpoint{}}
	f := newFixture(t, register(client(payAPI, "a2", theWorld().a2, "Unlimited", "*"), client(duoAPI, "a4", theWorld().a4, "Unlimited")),
		func(f *fixture, s *setup) {
			up := s.routes[0].Upstream
			s.routes = append(s.routes,
				decision.Route{API: tok2API, Context: "/tok2", Security: byToken, Upstream: up},
				decision.Route{API: pub2API, Context: "/pub2", Security: open, Upstream: up},
				decision.Route{API: duoAPI, Context: "/duo", Security: policy.Security{Certificate: policy.Mandatory, Token: policy.Mandatory}, Upstream: up},
			)
			s.routes[0].Resources[1].Path = "/scoped/*"
			if h2c {
				up := f.upstream(t, h2cBackend(t, e.ServeHTTP))
				up.Protocol = backend.H2C
				for i := range s.routes {
					s.routes[i].Upstream = up
				}
			}
		})
	f.backend.handle("/events", e.ServeHTTP)
	f.backend.handle("/scoped/events", e.ServeHTTP)
	return f, e
}

// TestStreamsEndWithTheirRight: a stream of any kind ends at both sides when what let it in ends, whatever that was, and
// each new call that the same lets in is refused. One beside it that keeps its right goes on. Held: security L 157.
func TestStreamsEndWithTheirRight(t *testing.T) {
	t.Parallel()
	for _, l := range losses() {
		for loser := range 2 {
			t.Run(fmt.Sprint(l.name, " of ", loser), func(t *testing.T) { t.Parallel(); holdLoss(t, l, loser, false) })
		}
		if strings.HasSuffix(l.name, "expiry") || strings.HasSuffix(l.name, "API") {
			t.Run(l.name+", HTTP/2 to the backend", func(t *testing.T) { t.Parallel(); holdLoss(t, l, 0, true) })
		}
	}
}

func holdLoss(t *testing.T, l loss, loser int, h2c bool) {
	f, e := rightsFixture(t, h2c)
	both := l.callers(t, f, loser)
	lost, kept := map[string]stream{}, map[string]stream{}
	for name, carry := range carriers {
		if h2c && (name == "WebSocket" || l.name == "certificate, API") { // box is a backend of HTTP/1.1
			continue
		}
		lost[name], kept[name] = carry(t, f, e, both[loser]), carry(t, f, e, both[1-loser])
	}
	all := func(when string, of map[string]stream) {
		t.Helper()
		for name, s := range of {
			if err := s.says(when); err != nil {
				t.Fatalf("%s, %s: %v", name, when, err)
			}
		}
	}
	all("before", lost)
	all("before", kept)
	f.setClients(t) // a swap that changes nothing
	all("after a swap", lost)

	l.end(t, f, loser)
	for name, s := range lost {
		s.ends(t, name)
	}
	all("afterwards", kept)
	c := both[loser]
	options := []func(*http.Request){}
	if c.raw != "" {
		options = append(options, bearer(c.raw))
	}
	if a := get(t, f.client(t, c.who, via{}), "https://opt.test"+c.target(), options...); a.status < 400 {
		t.Errorf("a new call gets %d", a.status)
	}
	all("at the end", kept)
}

// A countingVerifier counts how often streams were judged by keys.
type countingVerifier struct {
	*token.Verifier
	judged atomic.Int64
}

func (v *countingVerifier) Still(raw string, was *token.Claims) (*token.Claims, error) {
	defer v.judged.Add(1)
	return v.Verifier.Still(raw, was)
}

// TestStreamsOutliveTheirIssuersAbsence: keys that cannot be read now end no stream. When they can be, and the stream's
// key is not among them, it ends; so it does when the token expires meanwhile.
func TestStreamsOutliveTheirIssuersAbsence(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *fixture, *token.Verifier, *atomic.Bool){
		"the key is gone": func(t *testing.T, _ *fixture, v *token.Verifier, back *atomic.Bool) {
			back.Store(true)
			if err := v.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"the token expires": func(_ *testing.T, f *fixture, _ *token.Verifier, _ *atomic.Bool) { f.clock.Advance(2 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			var back atomic.Bool
			keys := keySet(t, "k2")
			issuer := unstartedBackend()
			issuer.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if !back.Load() {
					w.WriteHeader(503)
				}
				_, _ = w.Write(keys)
			})
			issuer.Start()
			t.Cleanup(issuer.Close)

			f, e := rightsFixture(t, false)
			c := visitor{api: tokAPI, raw: f.token(t, "alice", nil)}
			var streams []stream
			for _, carry := range carriers {
				streams = append(streams, carry(t, f, e, c))
			}
			// The key manager gets another address for its keys, and nobody is there.
			v, err := token.New(token.Options{
				KeyManagers: []token.KeyManager{{Name: "resident", Type: "default", Issuer: issuerURL, JWKS: issuer.URL}}, Now: f.clock.Now,
			})
			if err != nil {
				t.Fatal(err)
			}
			counting := &countingVerifier{Verifier: v}
			f.settings.Tokens = counting
			f.setRoutes(t)
			eventually(t, "two rounds over the streams", func() bool { return counting.judged.Load() >= int64(2*len(streams)) })
			for _, s := range streams {
				if err := s.says("still here"); err != nil {
					t.Fatal(err)
				}
			}
			if n := issuer.calls.Load(); n != 0 {
				t.Errorf("the issuer was asked %d times", n)
			}
			end(t, f, v, &back)
			for _, s := range streams {
				s.ends(t, "it")
			}
		})
	}
}

// TestUploadsEndWithTheirRight: an upload of unknown length that nobody has answered yet is refused, after DrainTimeout,
// as a new call would be.
func TestUploadsEndWithTheirRight(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.DrainTimeout = 50 * time.Millisecond })
	f.backend.handle("/sink", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	eachVersion(t, func(t *testing.T, h2 bool) {
		raw := f.token(t, "alice", nil)
		before := f.backend.count("/sink")
		reader, writer := io.Pipe()
		defer writer.Close()
		done := make(chan answer, 1)
		go func() {
			a, err := do(f.client(t, nil, via{http2: h2}), "POST", "https://opt.test/tok/1.0/sink", reader, bearer(raw))
			if err != nil {
				t.Error(err)
			}
			done <- a
		}()
		if _, err := writer.Write([]byte("a part")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the upload is under way", func() bool { return f.backend.count("/sink") > before })
		f.clock.Advance(2 * time.Hour)
		a := <-done
		a.refused(t, 401, "900903")
	})
}
