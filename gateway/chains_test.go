package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"testing"
	"time"
)

func withChains(f *fixture, _ *setup) { f.chains = true }

// alone is the party without the certificates that it shows beside its own.
func alone(p *party) *party { return &party{cert: p.cert, key: p.key} }

// TestRegisteredCAAdmitsItsLeaves: with chain validation a registered CA admits what it has really issued, to its API
// alone, whatever names, shown certificates and other CAs say. Held: security C 28, 30, 31, 32, 35.
func TestRegisteredCAAdmitsItsLeaves(t *testing.T) {
	w := theWorld()
	clientAuth := usage(x509.ExtKeyUsageClientAuth)
	under := issue("Sub of A", w.interA, isCA)
	namesake := issue("Issuer A", w.caB, isCA)
	byNamesake := issue("leaf", namesake, clientAuth)
	for _, c := range []struct {
		name      string
		who       *party
		pay, both string // the registration that lets it in there; "" for none
	}{
		{"of the intermediate", issue("leaf", w.interA, clientAuth), "inter", "root"},
		{"without the intermediate, which is registered", alone(issue("leaf", w.interA, clientAuth)), "inter", "root"},
		{"of the root alone", issue("leaf", w.caA, clientAuth), "", "root"},
		{"two below the intermediate", issue("leaf", under, clientAuth), "inter", "root"},
		{"two below, what is between isn't shown", alone(issue("leaf", under, clientAuth)), "", ""},
		{"of another root", issue("leaf", w.caB, clientAuth), "", ""},
		{"of an intermediate of the same name, under another root", byNamesake, "", ""},
		{"such a one that shows the registered chain, too", &party{cert: byNamesake.cert, key: byNamesake.key, also: []*party{w.interA, w.caA}}, "", ""},
		{"a stranger's that shows the intermediate", &party{cert: issue("leaf", nil, clientAuth).cert, key: issue("leaf", nil, clientAuth).key}, "", ""},
		{"of a root of the same name", issue("leaf", w.caA2, clientAuth), "", ""},
		{"of a leaf", issue("leaf", w.a2, clientAuth), "", ""},
		{"for servers", issue("leaf", w.interA, usage(x509.ExtKeyUsageServerAuth)), "", ""},
		{"registered itself, for both", w.a1, "a1", "a1"},
		{"registered itself for the other alone", w.a3, "inter", "a3"},
		{"the intermediate itself", w.interA, "inter", "root"},
		{"none", nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "a stranger's that shows the intermediate" {
				stranger := issue("leaf", nil, clientAuth)
				c.who = &party{cert: stranger.cert, key: stranger.key, also: []*party{w.interA, w.caA}}
			}
			f := newFixture(t, withChains, register(
				client(payAPI, "inter", w.interA, "Unlimited"), client(bothAPI, "root", w.caA, "Unlimited"),
			))
			f.setProfiles(t, f.profiles(t, certPEM(f.caA), allProfiles...))
			for _, how := range []via{{}, {http2: true}, {tls12: true}, {http2: true, tls12: true}} {
				for _, host := range []string{"opt.test", "mtls.test"} {
					caller := f.client(t, c.who, how)
					for path, by := range map[string]string{"/pay/1.0/x": c.pay, "/both/1.0/x": c.both} {
						call := func() answer { return get(t, caller, "https://"+host+path) }
						if by != "" {
							got := f.allowed(t, call)
							if alias, hash := got.Header.Get("X-Sallyport-Client"), got.Header.Get("X-Client-Cert-Hash"); alias != by || hash != c.who.hash() {
								t.Errorf("%+v %s%s: as %q with %q, want %q", how, host, path, alias, hash, by)
							}
							continue
						}
						before := f.backend.calls.Load()
						a, err := do(caller, "GET", "https://"+host+path, nil)
						if err == nil && a.status != 401 || host == "opt.test" && err != nil || f.backend.calls.Load() != before {
							t.Errorf("%+v %s%s: %d, %v, want a refusal", how, host, path, a.status, err)
						}
					}
				}
			}
		})
	}
}

// TestRegisteredCAWithoutChainValidation: without the setting a CA's registration admits itself alone.
func TestRegisteredCAWithoutChainValidation(t *testing.T) {
	w := theWorld()
	f := newFixture(t, register(client(payAPI, "inter", w.interA, "Unlimited")))
	f.denied(t, 401, "900901", func() answer { return get(t, f.client(t, f.a3, via{}), "https://opt.test/pay/1.0/x") })
	f.chains = true
	f.setClients(t)
	caller := f.client(t, f.a3, via{})
	f.allowed(t, func() answer { return get(t, caller, "https://opt.test/pay/1.0/x") })
	f.chains = false
	f.setClients(t)
	f.denied(t, 401, "900901", func() answer { return get(t, caller, "https://opt.test/pay/1.0/x") })
}

// TestBucketOfALeaf: each certificate that a CA has issued has the tier of the CA's registration for itself, on all ways in
// and across reloads.
func TestBucketOfALeaf(t *testing.T) {
	w := theWorld()
	ca := client(payAPI, "inter", w.interA, "Ten")
	f := newDoorFixture(t, withChains, register(ca))
	one, other := issue("one", w.interA, usage(x509.ExtKeyUsageClientAuth)), issue("other", w.interA, usage(x509.ExtKeyUsageClientAuth))
	balancer := f.through(t, byCert, f.balancer, false, "127.0.0.1")
	passed := map[*party]int{}
	for i := range 40 {
		who := []*party{one, other}[i%2]
		var a answer
		if i%4 < 2 {
			a = get(t, f.client(t, who, via{http2: i%3 == 0}), "https://opt.test/pay/1.0/x")
		} else {
			a = get(t, balancer, "https://opt.test/pay/1.0/x", certificateHeader(who))
		}
		switch a.status {
		case 200:
			passed[who]++
		case 429:
		default:
			t.Fatalf("call %d: %d (%s)", i, a.status, a.body)
		}
		if i%10 == 9 {
			f.clients = append(f.clients, client(boxAPI, fmt.Sprint("more ", i), issue("more", nil), "Ten"))
			f.setClients(t)
			f.limits.Sweep(f.inForce.Load().Holds)
		}
	}
	if passed[one] != 10 || passed[other] != 10 {
		t.Errorf("%d and %d calls passed, want 10 each", passed[one], passed[other])
	}
	f.clock.Advance(time.Minute)
	f.allowed(t, func() answer { return get(t, f.client(t, one, via{}), "https://opt.test/pay/1.0/x") })
}

// TestRemovedRegisteredCAEndsItsLeaves: what a CA's registration admitted ends with it on every live connection, whatever
// is remembered, and comes back with it.
func TestRemovedRegisteredCAEndsItsLeaves(t *testing.T) {
	w := theWorld()
	ca := client(payAPI, "inter", w.interA, "Unlimited")
	f := newDoorFixture(t, withChains, register(ca))
	leaf := issue("leaf", w.interA, usage(x509.ExtKeyUsageClientAuth))
	tickets := tls.NewLRUClientSessionCache(10)
	callers := map[string]func() answer{}
	for name, how := range map[string]via{"HTTP/1.1": {}, "HTTP/2": {http2: true}, "TLS 1.2": {tls12: true}} {
		c := f.client(t, leaf, how)
		callers[name] = func() answer { return get(t, c, "https://opt.test/pay/1.0/x") }
	}
	callers["resumed"] = func() answer {
		return get(t, f.client(t, leaf, via{tickets: tickets}), "https://opt.test/pay/1.0/x")
	}
	balancer := f.through(t, byCert, f.balancer, false, "127.0.0.1")
	callers["the header"] = func() answer { return get(t, balancer, "https://opt.test/pay/1.0/x", certificateHeader(leaf)) }
	for range 2 {
		for _, call := range callers {
			f.allowed(t, call)
		}
	}
	was := f.clients
	f.remove(t, "inter")
	for name, call := range callers {
		t.Run(name, func(t *testing.T) { f.denied(t, 401, "900901", call) })
	}
	f.clients = was
	f.setClients(t)
	for name, call := range callers {
		t.Run(name+" again", func(t *testing.T) { f.allowed(t, call) })
	}
}

// TestIssuerOfALeafIsAskedFor: a client that shows a certificate only to who names its issuer shows one that a registered
// CA has issued, though the trust store names the root alone.
func TestIssuerOfALeafIsAskedFor(t *testing.T) {
	w := theWorld()
	f := newFixture(t, withChains, register(client(payAPI, "inter", w.interA, "Unlimited")))
	f.setProfiles(t, f.profiles(t, certPEM(f.caA), allProfiles...))
	leaf := alone(issue("leaf", w.interA, usage(x509.ExtKeyUsageClientAuth)))
	config := f.clientTLS(nil, via{})
	config.Certificates = []tls.Certificate{*leaf.tls()}
	for _, host := range []string{"opt.test", "mtls.test"} {
		transport := f.client(t, nil, via{}).Transport.(*http.Transport)
		transport.TLSClientConfig = config.Clone()
		got := f.allowed(t, func() answer { return get(t, &http.Client{Transport: transport}, "https://"+host+"/pay/1.0/x") })
		if hash := got.Header.Get("X-Client-Cert-Hash"); hash != leaf.hash() {
			t.Errorf("%s: %q, want the leaf's", host, hash)
		}
	}
}

// TestPathThatBeginsLater: a registered CA admits by a path from the time on from which that is valid, on each connection
// and in the header, though another path was good before and what was found then is remembered; and no longer than it is.
func TestPathThatBeginsLater(t *testing.T) {
	now := newClock().Now()
	one, two := issue("Root one", nil, isCA), issue("Root two", nil, isCA)
	inter := issue("Issuer", one, isCA)
	crossed := issueFor(inter.key, "Issuer", two, isCA, validity(now.Add(time.Hour), now.Add(2*time.Hour)))
	leaf := issue("leaf", inter, usage(x509.ExtKeyUsageClientAuth), validity(now.Add(-time.Hour), now.Add(5*time.Hour)))
	f := newDoorFixture(t, withChains, register(client(payAPI, "two", two, "Unlimited")))
	f.balancer = issue("load balancer", nil, validity(now.Add(-time.Hour), now.Add(5*time.Hour)))
	f.setProfiles(t, f.profiles(t, certPEM(one, two, inter, crossed), allProfiles...))
	f.config.Rules.Anchors, f.config.BalancerTrust = trusting(t, one, two, inter, crossed), trusting(t, f.balancer)
	f.setDoor(t, f.config)
	callers := map[string]func() answer{}
	for _, h2 := range []bool{false, true} {
		for _, host := range []string{lax, strict} {
			c := f.client(t, leaf, via{http2: h2})
			callers[fmt.Sprint(host, h2)] = func() answer { return get(t, c, host+"/pay/1.0/x") }
		}
		for _, listener := range []string{byCert, byAddr} {
			c := f.through(t, listener, f.balancer, h2, "127.0.0.1")
			callers[fmt.Sprint(listener, h2)] = func() answer {
				return get(t, c, scheme(listener)+"/pay/1.0/x", certificateHeader(leaf))
			}
		}
	}
	for _, at := range []struct {
		after time.Duration
		good  bool
	}{{0, false}, {59 * time.Minute, false}, {2 * time.Minute, true}, {50 * time.Minute, true}, {10 * time.Minute, false}} {
		f.clock.Advance(at.after)
		for range 2 {
			for name, call := range callers {
				if at.good {
					if got := f.allowed(t, call).Header.Get("X-Sallyport-Client"); got != "two" {
						t.Errorf("%s: as %q", name, got)
					}
				} else {
					f.denied(t, 401, "900901", call)
				}
			}
		}
	}
}
