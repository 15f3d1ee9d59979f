package gateway_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/policy/certrule"
	policyrule "sallyport/policy/rule"
)

func ruleOf(t testing.TB, source string) *policyrule.Rule {
	t.Helper()
	r, err := policyrule.Compile(source)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	ruledAPI = certstore.API{Name: "ruled", Version: "1.0"}
	shutAPI  = certstore.API{Name: "shut", Version: "1.0"}
)

// withRules adds a protected API with an open resource, and an open one with a protected resource, each with rules of the
// API and of resources.
func withRules(t testing.TB) func(*fixture, *setup) {
	return func(f *fixture, s *setup) {
		up := s.routes[0].Upstream
		s.routes = append(s.routes,
			decision.Route{
				API: ruledAPI, Context: "/ruled", Security: byEither, Upstream: up,
				Allow: ruleOf(t, `certificate.present ? certificate.cn == "a4" && certificate.issuer.contains("CN=") : !token.present || token.subject == "alice"`),
				Resources: []decision.Resource{
					{Path: "/gold", Security: byEither, Allow: ruleOf(t, `certificate.tier == "Unlimited"`)},
					{Path: "/network", Security: byEither, Allow: ruleOf(t, `inNetwork(address, "127.0.0.0/29") || inNetwork(address, "2001:db8::/32")`)},
					{Path: "/open", Security: open, Allow: ruleOf(t, `method in ["GET", "HEAD"]`)},
					{Path: "/openGold", Security: open, Allow: ruleOf(t, `certificate.tier == "Unlimited"`)},
					{Path: "/*", Security: byEither},
				},
			},
			decision.Route{
				API: shutAPI, Context: "/shut", Security: open, Upstream: up,
				Allow: ruleOf(t, `host == "opt.test" && method != "DELETE"`),
				Resources: []decision.Resource{
					{Path: "/closed", Security: byEither, Allow: ruleOf(t, `certificate.alias == "a4" || token.subject == "alice"`)},
					{Path: "/*", Security: open},
				},
			},
		)
		for _, api := range []certstore.API{ruledAPI, shutAPI} {
			s.clients = append(s.clients, client(api, "a1", f.a1, "Hundred"), client(api, "a4", f.a4, "Unlimited"))
		}
	}
}

// TestRulesOfAllow: rules narrow what credentials open, alike whether a certificate comes in the handshake or in a load
// balancer's header, over HTTP/1.1 and HTTP/2, and open nothing.
func TestRulesOfAllow(t *testing.T) {
	f := newDoorFixture(t, withRules(t))
	alice, bob := f.token(t, "alice", nil), f.token(t, "bob", nil)
	const refused = "900908"
	rows := []struct {
		name         string
		who          *party
		raw          string
		method, path string
		code         string // "": allowed
	}{
		{"a certificate that the rule names", f.a4, "", "GET", "/ruled/1.0/x", ""},
		{"another one that is good", f.a1, "", "GET", "/ruled/1.0/x", refused},
		{"whatever token is beside it", f.a1, alice, "GET", "/ruled/1.0/x", refused},
		{"one that is not registered", f.a2, "", "GET", "/ruled/1.0/x", "900901"},
		{"one that is not registered, and a token", f.a2, alice, "GET", "/ruled/1.0/x", ""},
		{"nothing", nil, "", "GET", "/ruled/1.0/x", "900902"},
		{"a token that the rule names", nil, alice, "GET", "/ruled/1.0/x", ""},
		{"another token", nil, bob, "GET", "/ruled/1.0/x", refused},
		{"a forged token", nil, f.forgedToken(t), "GET", "/ruled/1.0/x", "900901"},
		{"both rules hold", f.a4, "", "GET", "/ruled/1.0/gold", ""},
		{"the resource's does not, since there is no certificate", nil, alice, "GET", "/ruled/1.0/gold", refused},
		{"a network", f.a4, "", "GET", "/ruled/1.0/network", ""},
		{"an open resource of a protected API", nil, "", "GET", "/ruled/1.0/open", ""},
		{"an open resource, another method", nil, "", "PUT", "/ruled/1.0/open", refused},
		{"an open resource looks at no certificate", f.a1, "", "GET", "/ruled/1.0/open", ""},
		{"and a rule does not make it look", f.a4, "", "GET", "/ruled/1.0/openGold", refused},
		{"an open API", nil, "", "GET", "/shut/1.0/x", ""},
		{"an open API, another method", nil, "", "DELETE", "/shut/1.0/x", refused},
		{"a protected resource of an open API", f.a4, "", "GET", "/shut/1.0/closed", ""},
		{"which the API's rule narrows, too", f.a4, "", "DELETE", "/shut/1.0/closed", refused},
		{"and its own", f.a1, "", "GET", "/shut/1.0/closed", refused},
		{"with a token", nil, alice, "GET", "/shut/1.0/closed", ""},
		{"with another token", nil, bob, "GET", "/shut/1.0/closed", refused},
		{"with nothing", nil, "", "GET", "/shut/1.0/closed", "900902"},
		{"a path that servers may read as the resource's", nil, "", "GET", "/shut/1.0/closed;x", "400"},
	}
	statuses := map[string]int{refused: 403, "900901": 401, "900902": 401, "400": 400}
	for _, at := range []struct {
		name, listener string
		h2             bool
	}{
		{"handshake, HTTP/1.1", "tls", false},
		{"handshake, HTTP/2", "tls", true},
		{"header, plain HTTP/1.1", behindLB, false},
		{"header, HTTP/1.1", byAddr, false},
		{"header, HTTP/2", byAddr, true},
	} {
		t.Run(at.name, func(t *testing.T) {
			for _, r := range rows {
				options := []func(*http.Request){}
				if r.raw != "" {
					options = append(options, bearer(r.raw))
				}
				c := f.client(t, r.who, via{http2: at.h2})
				if at.listener != "tls" {
					c = f.through(t, at.listener, f.balancer, at.h2, "127.0.0.1")
					if options = append(options, header("X-Forwarded-For", "10.0.0.1, 127.0.0.3")); r.who != nil {
						options = append(options, certificateHeader(r.who))
					}
				}
				target := "https://opt.test" + r.path
				if at.listener == behindLB {
					target = "http://opt.test" + r.path
				}
				call := func() answer {
					a, err := do(c, r.method, target, nil, options...)
					if err != nil {
						t.Fatal(err)
					}
					return a
				}
				if r.code == "" {
					if got := f.allowed(t, call); got.Method != r.method {
						t.Errorf("%s: the backend got %+v", r.name, got)
					}
					continue
				}
				a := f.denied(t, statuses[r.code], r.code, call)
				if t.Failed() {
					t.Fatalf("in %q", r.name)
				}
				if s := f.seen(t, a.id()); (r.code == refused) != (s.Reason == "rule") || r.code == refused && s.By != "nothing" {
					t.Errorf("%s is observed as %+v", r.name, s)
				}
				for _, secret := range []string{"certificate.", "Unlimited", "alias", "/closed"} {
					if strings.Contains(a.body, secret) {
						t.Errorf("%s: the caller is told %s", r.name, a.body)
					}
				}
			}
		})
	}
}

// TestRulesReadNamesAsMatchDoes: a rule takes a certificate's names, and its scopes, for what match and scopesFrom take them
// for; of a kind of which one can't be read it knows nothing, alike in the handshake and in a load balancer's header.
func TestRulesReadNamesAsMatchDoes(t *testing.T) {
	payments := ofUnit("Payments")
	rows := []struct {
		name    string
		change  []func(*x509.Certificate)
		scopes  []string // of the registration
		rule    string
		allowed bool
	}{
		{"a host in capitals", []func(*x509.Certificate){ofDNS("API.Partner.Test")}, nil, `certificate.dns == ["api.partner.test"]`, true},
		{"a wildcard", []func(*x509.Certificate){ofDNS("*.partner.test")}, nil, `"*.partner.test" in certificate.dns`, false},
		{"beside a wildcard", []func(*x509.Certificate){ofDNS("api.partner.test", "*.partner.test")}, nil, `"api.partner.test" in certificate.dns`, false},
		{"no such name beside a wildcard", []func(*x509.Certificate){ofDNS("*.partner.test")}, nil, `!("evil.test" in certificate.dns)`, false},
		{"another kind beside a wildcard", []func(*x509.Certificate){ofDNS("*.partner.test")}, nil, `certificate.emails.size() == 0`, true},
		{"a host with a final dot", []func(*x509.Certificate){ofDNS("evil.test.")}, nil, `!("evil.test" in certificate.dns)`, false},
		{"a URI's host in capitals", []func(*x509.Certificate){ofURI(t, "spiffe://Partner.Test/Billing")}, nil, `"spiffe://partner.test/Billing" in certificate.uris`, true},
		{"an address", []func(*x509.Certificate){func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 7)} }}, nil, `certificate.ips == ["10.0.0.7"]`, true},
		{"no scope", nil, nil, `certificate.scopes.size() == 0`, true},
		{"scopes of the registration", nil, []string{"x:list"}, `certificate.scopes == ["x:list"]`, true},
		{"scopes by a role", []func(*x509.Certificate){payments}, nil, `certificate.scopes == ["pay:read"]`, true},
		{"scopes of both", []func(*x509.Certificate){payments}, []string{"x:list"}, `certificate.scopes == ["x:list", "pay:read"]`, true},
		{"a scope of both", []func(*x509.Certificate){payments}, []string{"pay:read"}, `certificate.scopes == ["pay:read"]`, true},
		{"a scope that is not to be there", []func(*x509.Certificate){payments}, nil, `!("pay:read" in certificate.scopes)`, false},
	}
	parties := make([]*party, len(rows))
	f := newDoorFixture(t, func(f *fixture, s *setup) {
		route := decision.Route{
			API: ruledAPI, Context: "/ruled", Security: byCertificate, Upstream: s.routes[0].Upstream,
			ScopesFrom: rolesOf(t, certrule.ScopesFrom{SubjectOU: map[string][]string{"Payments": {"pay:read"}}}),
		}
		for i, row := range rows {
			parties[i] = issue(row.name, f.interA, row.change...)
			s.clients = append(s.clients, client(ruledAPI, row.name, parties[i], "Unlimited", row.scopes...))
			route.Resources = append(route.Resources, decision.Resource{Path: fmt.Sprintf("/%d", i), Security: byCertificate, Allow: ruleOf(t, row.rule)})
		}
		s.routes = append(s.routes, route)
	})
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path := fmt.Sprintf("/ruled/1.0/%d", i)
			for _, h2 := range []bool{false, true} {
				handshake, header := f.client(t, parties[i], via{http2: h2}), f.through(t, byAddr, f.balancer, h2, "127.0.0.1")
				for _, call := range []func() answer{
					func() answer { return get(t, handshake, lax+path) },
					func() answer { return get(t, header, lax+path, certificateHeader(parties[i])) },
				} {
					for range 2 { // the second one by a loop
						if row.allowed {
							f.allowed(t, call)
						} else {
							f.denied(t, 403, "900908", call)
						}
					}
				}
			}
		})
	}
}

// TestRulesReadTheClientsAddress: of a call through a load balancer the rule sees the address that it tells, of any other
// the socket's, whatever the call says.
func TestRulesReadTheClientsAddress(t *testing.T) {
	f := newDoorFixture(t, withRules(t))
	for _, tt := range []struct {
		name, listener, from string
		lines                []string
		allowed              bool
	}{
		{"a client of the network", "tls", "127.0.0.7", nil, true},
		{"a client of another", "tls", "127.0.0.8", nil, false},
		{"who says that it is of the network", "tls", "127.0.0.8", []string{"127.0.0.1"}, false},
		{"a balancer's client", byAddr, "127.0.0.1", []string{"127.0.0.8, 127.0.0.7"}, true},
		{"a balancer's client of IPv6", byAddr, "127.0.0.1", []string{"2001:db8::7"}, true},
		{"in the form of IPv6", byAddr, "127.0.0.1", []string{"::ffff:127.0.0.7"}, true},
		{"another client of it", byAddr, "127.0.0.1", []string{"127.0.0.7", "127.0.0.8"}, false},
		{"it does not say whose", byAddr, "127.0.0.1", []string{"unknown"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			options := []func(*http.Request){}
			c := f.client(t, f.a4, via{from: tt.from})
			if tt.listener != "tls" {
				c = f.through(t, tt.listener, f.balancer, false, tt.from)
				options = append(options, certificateHeader(f.a4))
			}
			for _, l := range tt.lines {
				options = append(options, header("X-Forwarded-For", l))
			}
			call := func() answer { return get(t, c, "https://opt.test/ruled/1.0/network", options...) }
			if tt.allowed {
				f.allowed(t, call)
			} else {
				f.denied(t, 403, "900908", call)
			}
		})
	}
	// A load balancer that has not shown its certificate speaks for nobody, and its address is nobody's.
	cfg := f.config
	cfg.Balancers = []netip.Prefix{netip.MustParsePrefix("127.0.0.7/32")}
	f.setDoor(t, cfg)
	f.denied(t, 403, "900908", func() answer {
		return get(t, f.through(t, byCert, f.a4, false, "127.0.0.7"), "https://opt.test/ruled/1.0/network")
	})
}

// TestRulesAreReloaded: a rule that is new, changed or gone counts from the next call of a kept connection on.
func TestRulesAreReloaded(t *testing.T) {
	f := newFixture(t, withRules(t))
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, f.a4, via{http2: h2})
		for _, tt := range []struct {
			source  string
			allowed bool
		}{{`certificate.alias == "a4"`, true}, {`certificate.alias == "a1"`, false}, {`certificate.alias in ["a1", "a4"]`, true}, {"false", false}, {"", true}} {
			f.routes = slices.Clone(f.routes)
			at := slices.IndexFunc(f.routes, func(r decision.Route) bool { return r.API == ruledAPI })
			if f.routes[at].Allow = nil; tt.source != "" {
				f.routes[at].Allow = ruleOf(t, tt.source)
			}
			f.setRoutes(t)
			call := func() answer { return get(t, c, "https://opt.test/ruled/1.0/x") }
			if tt.allowed {
				f.allowed(t, call)
			} else if a := f.denied(t, 403, "900908", call); !a.kept() {
				t.Error("the call came on a new connection")
			}
		}
	})
}
