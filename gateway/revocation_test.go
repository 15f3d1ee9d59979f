package gateway_test

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy/certrule"
)

var byLists = revocation.Policy{CRL: []string{"root.crl", "inter.crl"}}

// revocationFixture has two registered clients of a revoker, whose root the profiles trust.
func revocationFixture(t *testing.T, policy revocation.Policy) (r *revoker, lost, kept *party) {
	t.Helper()
	r = newRevoker()
	names := []func(*x509.Certificate){usage(x509.ExtKeyUsageClientAuth)}
	if policy.OCSP {
		address := r.responder(t).URL
		names = append(names, func(c *x509.Certificate) { c.OCSPServer = []string{address} })
	}
	lost, kept = issue("lost", r.inter, names...), issue("kept", r.inter, names...)
	r.serve(t, newFixture(t, register(
		client(payAPI, "lost", lost, "Unlimited"), client(payAPI, "kept", kept, "Unlimited"), client(bothAPI, "lost", lost, "Unlimited"),
	)), policy)
	return r, lost, kept
}

// TestRevocationEndsLiveConnections: a certificate that a list of its issuer names is refused with its next call on every
// connection, resumed ones too, and so is all that a revoked intermediate has issued; others go on, and what is on the list
// no more comes back. Held: security A 4, C 43; R15.
func TestRevocationEndsLiveConnections(t *testing.T) {
	for _, host := range []string{"opt.test", "mtls.test"} {
		t.Run(host, func(t *testing.T) {
			r, lost, kept := revocationFixture(t, byLists)
			target := "https://" + host + "/pay/1.0/x"
			live, other := liveConnections(t, r.fixture, lost), r.client(t, kept, via{})
			callAll := func() {
				t.Helper()
				for _, c := range live {
					r.allowed(t, func() answer { return get(t, c, target) })
				}
				r.allowed(t, func() answer { return get(t, other, target) })
			}
			callAll()
			refused := func(revoked *party, what string) {
				r.list(r.dir, revoked)
				probe := r.client(t, lost, via{})
				eventually(t, what+" is known to be revoked", func() bool {
					a, err := do(probe, "GET", target, nil)
					return err != nil || a.status == 401
				})
				for name, c := range live {
					r.after(t, name, c, target, 401, "900901")
				}
			}
			refused(lost, "the certificate")
			a := get(t, other, target)
			if a.status != 200 || !a.kept() {
				t.Errorf("another's: status %d, on its old connection: %v", a.status, a.kept())
			}
			r.list(r.dir)
			probe := r.client(t, lost, via{})
			eventually(t, "nothing is revoked any more", func() bool {
				a, err := do(probe, "GET", target, nil)
				return err == nil && a.status == 200
			})
			callAll()
			refused(r.inter, "its issuer")
		})
	}
}

// TestRevokedHandshake: require turns a revoked client away in the handshake, and says which reason in the log alone.
func TestRevokedHandshake(t *testing.T) {
	r, lost, kept := revocationFixture(t, byLists)
	r.list(r.dir, lost)
	eventually(t, "the handshake is refused", func() bool {
		_, err := do(r.client(t, lost, via{tls12: true}), "GET", "https://mtls.test/pay/1.0/x", nil)
		return err != nil
	})
	r.allowed(t, func() answer { return get(t, r.client(t, kept, via{tls12: true}), "https://mtls.test/pay/1.0/x") })
}

// TestStatusThatCannotBeKnown: with hard failing it is 503 with Retry-After on every way in, not 401 and never a pass; a
// token admits as itself, and open resources are open. With soft failing the certificate is good.
func TestStatusThatCannotBeKnown(t *testing.T) {
	for _, soft := range []bool{false, true} {
		t.Run(fmt.Sprint("soft ", soft), func(t *testing.T) {
			policy := byLists
			policy.Soft = soft
			r, lost, _ := revocationFixture(t, policy)
			r.clock.Advance(2 * time.Hour) // the lists are stale
			for _, how := range []via{{}, {http2: true}, {tls12: true}} {
				for _, host := range []string{"opt.test", "mtls.test"} {
					call := func() answer { return get(t, r.client(t, lost, how), "https://"+host+"/pay/1.0/x") }
					if soft {
						r.allowed(t, call)
						continue
					}
					if a := r.denied(t, 503, "503", call); a.header.Get("Retry-After") == "" {
						t.Errorf("%+v %s: no Retry-After", how, host)
					}
				}
				caller := r.client(t, lost, how)
				r.allowed(t, func() answer { return get(t, caller, "https://opt.test/pay/1.0/open") })
				got := r.allowed(t, func() answer {
					return get(t, caller, "https://opt.test/both/1.0/x", bearer(r.token(t, "alice", nil)))
				})
				want := map[bool]string{true: "lost"}[soft]
				if got.Header.Get("X-Sallyport-Client") != want {
					t.Errorf("with a token the caller is %q, want %q", got.Header.Get("X-Sallyport-Client"), want)
				}
			}
			if !soft { // an unregistered one is refused whatever its status
				stranger := issue("stranger", r.inter, usage(x509.ExtKeyUsageClientAuth))
				r.denied(t, 401, "900901", func() answer { return get(t, r.client(t, stranger, via{}), "https://opt.test/pay/1.0/x") })
			}
		})
	}
}

// TestResponderIsAskedOnce: the first call of a certificate waits for the responder, and calls beside it go on; the others
// find the answer in memory. A responder that doesn't answer costs the call its budget and is 503.
func TestResponderIsAskedOnce(t *testing.T) {
	policy := revocation.Policy{OCSP: true, LeafOnly: true, Refresh: 200 * time.Millisecond}
	r, lost, kept := revocationFixture(t, policy)
	r.clock.run(t)
	for _, how := range []via{{}, {http2: true}} {
		for _, host := range []string{"opt.test", "mtls.test"} {
			r.allowed(t, func() answer { return get(t, r.client(t, lost, how), "https://"+host+"/pay/1.0/x") })
		}
	}
	r.tell(nil, true)
	unasked := r.client(t, kept, via{})
	if a := r.denied(t, 503, "503", func() answer { return get(t, unasked, "https://opt.test/pay/1.0/x") }); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.allowed(t, func() answer { return get(t, r.client(t, lost, via{}), "https://opt.test/pay/1.0/x") }) // it is remembered
	r.tell(lost, false)
	caller := r.client(t, lost, via{})
	becomes := func(what string, c *http.Client, status int) {
		t.Helper()
		eventually(t, what, func() bool { return get(t, c, "https://opt.test/pay/1.0/x").status == status })
	}
	becomes("the responder's answer is renewed", caller, 401)
	becomes("the other is asked for again", unasked, 200)
}

// TestRevokedInTheHeader: the header's certificates are looked up by its own policy, remembered or not.
func TestRevokedInTheHeader(t *testing.T) {
	r, lost, kept := revocationFixture(t, byLists)
	checker, err := r.registry.Checker(r.policy)
	if err != nil {
		t.Fatal(err)
	}
	f := &doorFixture{fixture: r.fixture}
	f.balancer = issue("load balancer", nil, usage(x509.ExtKeyUsageClientAuth))
	f.setDoor(t, clientcert.DoorConfig{
		Header: "X-WSO2-CLIENT-CERTIFICATE", Rules: trust.Rules{Anchors: trusting(t, r.root, r.inter), Revocation: checker},
		BalancerTrust: trusting(t, f.balancer), Balancers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	lb := f.through(t, byAddr, nil, false, "127.0.0.1")
	call := func(who *party) answer { return get(t, lb, "https://opt.test/pay/1.0/x", certificateHeader(who)) }
	for range 2 {
		f.allowed(t, func() answer { return call(lost) })
		f.allowed(t, func() answer { return call(kept) })
	}
	r.list(r.dir, lost)
	eventually(t, "the certificate is known to be revoked", func() bool { return call(lost).status == 401 })
	f.denied(t, 401, "900901", func() answer { return call(lost) })
	f.allowed(t, func() answer { return call(kept) })
	r.list(r.dir)
	eventually(t, "it is revoked no more", func() bool { return call(lost).status == 200 })
}

// TestResponderIsAskedAboutALeafOfARegisteredCA: a certificate that a registered CA has issued, and of which nothing is
// known yet when it is shown, is held to the registration's match with the first call, and goes on as itself.
func TestResponderIsAskedAboutALeafOfARegisteredCA(t *testing.T) {
	for _, host := range []string{"opt.test", "mtls.test"} {
		for _, how := range []via{{}, {http2: true}, {tls12: true}} {
			r := newRevoker()
			address := r.responder(t).URL
			names := func(name string) *party {
				return issue(name, r.inter, usage(x509.ExtKeyUsageClientAuth), func(c *x509.Certificate) {
					c.OCSPServer, c.DNSNames = []string{address}, []string{name + ".partner.test"}
				})
			}
			ca := matching(t, client(payAPI, "inter", r.inter, "Unlimited"), certrule.Match{DNS: []string{"*.partner.test"}})
			r.serve(t, newFixture(t, withChains, register(ca)), revocation.Policy{OCSP: true, LeafOnly: true})
			caller := r.client(t, names("leaf"), how)
			for range 2 {
				r.allowed(t, func() answer { return get(t, caller, "https://"+host+"/pay/1.0/x") })
			}
		}
	}
}

// behindBalancers are the listeners that speak TLS with load balancers whose certificates a revoker's intermediate issues, and
// whose clients it issues, too. Both are looked up by the policy.
func behindBalancers(t *testing.T, r *revoker, policy revocation.Policy, balancer *party, change ...func(*fixture, *setup)) *doorFixture {
	t.Helper()
	f := &doorFixture{fixture: newFixture(t, change...), balancer: balancer}
	r.serve(t, f.fixture, policy)
	checker, err := f.registry.Checker(f.policy)
	if err != nil {
		t.Fatal(err)
	}
	f.setDoor(t, clientcert.DoorConfig{
		Header: "X-WSO2-CLIENT-CERTIFICATE", Rules: trust.Rules{Anchors: trusting(t, r.root, r.inter), Revocation: checker},
		BalancerTrust: trusting(t, r.root), Balancers: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	})
	return f
}

// TestRevokedBalancer: a load balancer that an issuer has revoked ends as one that is denied does, whether it would be known
// by its certificate or its address is enough: it speaks for nobody, and is a bad certificate.
func TestRevokedBalancer(t *testing.T) {
	r := newRevoker()
	who := issue("who", r.inter, usage(x509.ExtKeyUsageClientAuth))
	balancer := issue("load balancer", r.inter, usage(x509.ExtKeyUsageClientAuth))
	f := behindBalancers(t, r, byLists, balancer, register(client(payAPI, "who", who, "Unlimited"), client(bothAPI, "who", who, "Unlimited")))
	good := bearer(f.token(t, "alice", nil))
	for _, listener := range []string{byCert, byAddr} {
		eachVersion(t, func(t *testing.T, h2 bool) {
			c := f.through(t, listener, balancer, h2, "127.0.0.1")
			call := func(path string, options ...func(*http.Request)) func() answer {
				return func() answer { return get(t, c, lax+path, append(options, certificateHeader(who))...) }
			}
			for _, way := range []struct {
				cause      trust.Cause
				end, begin func()
			}{
				{trust.Denied, func() { f.setDenied(t, keyOf(balancer)) }, func() { f.setDenied(t) }},
				{trust.Revoked, func() { r.list(r.dir, balancer) }, func() { r.list(r.dir) }},
			} {
				eventually(t, "it is believed", func() bool { return call("/pay/1.0/x")().status == 200 })
				f.allowed(t, call("/pay/1.0/x"))
				way.end()
				eventually(t, "it is believed no more", func() bool { return call("/pay/1.0/x")().status != 200 })
				for range 2 {
					a := f.denied(t, 401, "900901", call("/pay/1.0/x"))
					if x := f.seen(t, a.id()); trust.CauseOf(x.Err) != way.cause {
						t.Errorf("%s, %s: the log has %v", listener, way.cause, x.Err)
					}
					f.denied(t, 401, "900901", call("/both/1.0/x"))
					got := f.allowed(t, call("/both/1.0/x", good, header("X-Forwarded-For", "203.0.113.7")))
					if h := got.Header; h.Get("X-Sallyport-Client") != "" || h.Get("X-Client-Cert-Hash") != "" || h.Get("X-Forwarded-For") != "127.0.0.1" {
						t.Errorf("%s, %s: it is believed: %v", listener, way.cause, h)
					}
					f.allowed(t, call("/pub/1.0/x"))
				}
				way.begin()
			}
			eventually(t, "it is believed again", func() bool { return call("/pay/1.0/x")().status == 200 })
		})
	}
}

// TestBalancerOfUnknownStatus: while it is not known whether a load balancer is revoked, a call that only a certificate of
// which it speaks could open is 503, and each other call is what it would be if the balancer were believed.
func TestBalancerOfUnknownStatus(t *testing.T) {
	r := newRevoker()
	clientAuth := usage(x509.ExtKeyUsageClientAuth)
	who, unknown := issue("who", r.inter, clientAuth), issue("unknown", r.inter, clientAuth)
	silent := issue("silent", r.root, isCA) // of which there is no list
	balancer := issue("load balancer", silent, clientAuth)
	f := behindBalancers(t, r, byLists, balancer, register(client(payAPI, "who", who, "Unlimited"), client(bothAPI, "who", who, "Unlimited")))
	f.config.BalancerTrust = trusting(t, r.root, silent)
	f.setDoor(t, f.config)
	good, bad := bearer(f.token(t, "alice", nil)), bearer(f.forgedToken(t))
	says := certificateHeader
	for _, row := range []struct {
		name    string
		path    string
		options []func(*http.Request)
		status  int
		code    string
	}{
		{"a registered client", "/pay/1.0/x", []func(*http.Request){says(who)}, 503, "503"},
		{"a registered client, where a token would do", "/both/1.0/x", []func(*http.Request){says(who)}, 503, "503"},
		{"a registered client with a bad token", "/both/1.0/x", []func(*http.Request){says(who), bad}, 503, "503"},
		{"a registered client with a good token", "/both/1.0/x", []func(*http.Request){says(who), good}, 200, ""},
		{"a registered client of an open API", "/pub/1.0/x", []func(*http.Request){says(who)}, 200, ""},
		{"an unregistered client", "/pay/1.0/x", []func(*http.Request){says(unknown)}, 401, "900901"},
		{"its own certificate", "/pay/1.0/x", []func(*http.Request){says(balancer)}, 401, "900901"},
		{"nobody", "/pay/1.0/x", nil, 401, "900902"},
		{"two clients", "/pub/1.0/x", []func(*http.Request){says(who), header("Client-Cert", "x")}, 400, "400"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, listener := range []string{byCert, byAddr} {
				for _, h2 := range []bool{false, true} {
					c := f.through(t, listener, balancer, h2, "127.0.0.1")
					call := func() answer { return get(t, c, lax+row.path, row.options...) }
					for range 2 {
						if row.code == "" {
							if got := f.allowed(t, call); got.Header.Get("X-Sallyport-Client") != "" || got.Header.Get("X-Client-Cert-Hash") != "" {
								t.Errorf("%s: it is believed: %v", listener, got.Header)
							}
							continue
						}
						if a := f.denied(t, row.status, row.code, call); row.status == 503 && a.header.Get("Retry-After") == "" {
							t.Errorf("%s: no Retry-After", listener)
						}
					}
				}
			}
		})
	}
	// From an address that is no load balancer's it is nobody, whatever its status.
	f.denied(t, 401, "900902", func() answer {
		return get(t, f.through(t, byCert, balancer, false, stranger), lax+"/pay/1.0/x", says(who))
	})
}

// TestNobodyIsAskedAboutWhomNoneAdmits: of a certificate that no registration could admit to the API, be it revoked or not, the
// responder is not asked, and the answer is that for a good one, in the handshake and in the header; for an API whose CA
// would admit it, it is asked, and 503 while that is silent.
func TestNobodyIsAskedAboutWhomNoneAdmits(t *testing.T) {
	r := newRevoker()
	address := r.responder(t).URL
	r.tell(nil, true)
	names := func(name string) *party {
		return issue(name, r.inter, usage(x509.ExtKeyUsageClientAuth), func(c *x509.Certificate) {
			c.OCSPServer, c.DNSNames = []string{address}, []string{name + ".partner.test"}
		})
	}
	balancer := issue("load balancer", nil)
	ca := matching(t, client(bothAPI, "inter", r.inter, "Unlimited"), certrule.Match{DNS: []string{"leaf.partner.test"}})
	f := behindBalancers(t, r, revocation.Policy{OCSP: true, LeafOnly: true}, balancer, withChains, register(ca))
	f.config.BalancerTrust = trusting(t, balancer)
	f.setDoor(t, f.config)
	for _, h2 := range []bool{false, true} {
		leaf, other := names("leaf"), names("other")
		for _, row := range []struct {
			who    *party
			path   string
			status int
			code   string
			asked  bool
		}{
			{leaf, "/pay/1.0/x", 401, "900901", false},
			{other, "/both/1.0/x", 401, "900901", false}, // its CA's registration does not match it
			{leaf, "/both/1.0/x", 503, "503", true},
		} {
			handshake, header := f.client(t, row.who, via{http2: h2}), f.through(t, byCert, balancer, h2, "127.0.0.1")
			for name, call := range map[string]func() answer{
				"handshake": func() answer { return get(t, handshake, lax+row.path) },
				"header":    func() answer { return get(t, header, lax+row.path, certificateHeader(row.who)) },
			} {
				f.denied(t, row.status, row.code, call)
				f.denied(t, row.status, row.code, call)
				if asked := r.wasAsked(row.who); asked != row.asked {
					t.Errorf("%s, %s of %s: asked: %t", name, row.path, row.who.cert.Subject, asked)
				}
			}
		}
	}
}

// TestStreamsWhileAResponderIsAsked: a stream of whose certificate nothing is known yet, since look-ups have just been
// switched on, goes on if the responder says that it is good, and ends if that says otherwise or nothing.
func TestStreamsWhileAResponderIsAsked(t *testing.T) {
	for _, host := range []string{"opt.test", "mtls.test"} {
		for says, goesOn := range map[string]bool{"good": true, "revoked": false, "nothing": false} {
			t.Run(host+" "+says, func(t *testing.T) {
				t.Parallel()
				r := newRevoker()
				address := r.responder(t).URL
				who := issue("who", r.inter, usage(x509.ExtKeyUsageClientAuth), func(c *x509.Certificate) { c.OCSPServer = []string{address} })
				f := newFixture(t, register(client(payAPI, "who", who, "Unlimited")))
				r.serve(t, f, revocation.Policy{})
				gone := make(chan error, 1)
				f.backend.handle("/ws", echoWebSocket(gone))
				conn := f.dial(t, who, host)
				if res := conn.upgrade(t, "/pay/1.0/ws", host, webSocketHead); res.StatusCode != 101 {
					t.Fatalf("status %d", res.StatusCode)
				}
				conn.exchange(t, "before")
				if r.tell(nil, says == "nothing"); says == "revoked" {
					r.tell(who, false)
				}
				f.policy = revocation.Policy{OCSP: true, LeafOnly: true}
				f.setProfiles(t, f.profiles(t, nil, allProfiles...))
				if !goesOn {
					if !conn.ended() {
						t.Error("it goes on")
					}
					<-gone
					return
				}
				for range 20 { // rounds
					f.gateway.Recheck()
					conn.exchange(t, "still here")
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
	}
}
