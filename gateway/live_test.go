package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"sallyport/certstore"
)

// liveConnections are the ways in which a client may still be connected, or come back, when its right has ended.
func liveConnections(t *testing.T, f *fixture, who *party) map[string]*http.Client {
	cache := func() tls.ClientSessionCache { return tls.NewLRUClientSessionCache(8) }
	return map[string]*http.Client{
		"HTTP/1.1":        f.client(t, who, via{}),
		"HTTP/2":          f.client(t, who, via{http2: true}),
		"ticket, TLS 1.3": f.client(t, who, via{tickets: cache()}),
		"ticket, TLS 1.2": f.client(t, who, via{tickets: cache(), tls12: true}),
	}
}

func isTicket(name string) bool { return name[0] == 't' }

// after makes the call that comes after the change: on the live connection, or on a new one with the ticket.
func (f *fixture) after(t *testing.T, name string, c *http.Client, target string, status int, code string) {
	t.Helper()
	if isTicket(name) {
		c.CloseIdleConnections()
	}
	before := f.backend.calls.Load()
	a, err := do(c, "GET", target, nil)
	if f.backend.calls.Load() != before {
		t.Errorf("%s: the backend was called", name)
	}
	if err != nil {
		if !isTicket(name) {
			t.Errorf("%s: %v", name, err)
		}
		return // the new connection is refused
	}
	if !isTicket(name) && !a.kept() {
		t.Errorf("%s: the call came on a new connection", name)
	}
	a.refused(t, status, code)
}

// TestRemovedRowEndsLiveConnections: the call after a certificate is removed is refused on every connection that it has,
// and on every new one. Held: security A 4.
func TestRemovedRowEndsLiveConnections(t *testing.T) {
	for _, host := range []string{"opt.test", "mtls.test"} {
		f := newFixture(t)
		live := liveConnections(t, f, f.a4)
		target := "https://" + host + "/pay/1.0/x"
		for _, c := range live {
			f.allowed(t, func() answer { return get(t, c, target) })
			f.allowed(t, func() answer { return get(t, c, target) })
		}
		f.remove(t, "a4")
		for name, c := range live {
			f.after(t, name, c, target, 401, "900901")
		}
		// It comes back, and so do they.
		f.clients = append(f.clients, client(payAPI, "a4", f.a4, "Unlimited"))
		f.setClients(t)
		for _, c := range live {
			f.allowed(t, func() answer { return get(t, c, target) })
		}
	}
}

// TestExpiryEndsLiveConnections: a certificate, and one of its chain, that expires under a connection ends it there and
// then. Held: security A 5, and A 7 for live connections.
func TestExpiryEndsLiveConnections(t *testing.T) {
	w := theWorld()
	until := newClock().Now().Add(5 * time.Second)
	soon := validity(until.Add(-time.Hour), until)
	people := map[string]*party{
		"leaf":         issue("soon", w.interA, soon, usage(x509.ExtKeyUsageClientAuth)),
		"intermediate": issue("later", issue("Short Issuer", w.caA, isCA, soon), usage(x509.ExtKeyUsageClientAuth)),
	}
	for kind, who := range people {
		for _, host := range []string{"opt.test", "mtls.test"} {
			t.Run(kind+" at "+host, func(t *testing.T) {
				f := newFixture(t, register(client(payAPI, "soon", who, "Unlimited")))
				live := liveConnections(t, f, who)
				target := "https://" + host + "/pay/1.0/x"
				for _, after := range []time.Duration{0, 2 * time.Second, 3 * time.Second} {
					f.clock.Advance(after)
					for _, c := range live {
						f.allowed(t, func() answer { return get(t, c, target) })
					}
				}
				f.clock.Advance(time.Second)
				for name, c := range live {
					f.after(t, name, c, target, 401, "900901")
				}
			})
		}
	}
}

// TestRemovedCAEndsLiveConnections: a CA that a reload takes from the trust store takes its clients along.
// Held: security A 3.
func TestRemovedCAEndsLiveConnections(t *testing.T) {
	b1 := issue("b1", theWorld().caB, usage(x509.ExtKeyUsageClientAuth))
	for _, host := range []string{"opt.test", "mtls.test"} {
		f := newFixture(t, register(client(payAPI, "b1", b1, "Unlimited")))
		f.setProfiles(t, f.profiles(t, certPEM(f.caA, f.caB), allProfiles...))
		live := liveConnections(t, f, b1)
		target := "https://" + host + "/pay/1.0/x"
		for _, c := range live {
			f.allowed(t, func() answer { return get(t, c, target) })
		}
		others := f.client(t, f.a4, via{})
		f.allowed(t, func() answer { return get(t, others, target) })
		f.setProfiles(t, f.profiles(t, certPEM(f.caA), allProfiles...))
		for name, c := range live {
			f.after(t, name, c, target, 401, "900901")
		}
		a := get(t, others, target)
		if a.status != 200 || !a.kept() {
			t.Errorf("another CA's client: status %d, on its old connection: %v", a.status, a.kept())
		}
	}
}

// TestUntrustedResumption: a certificate that nobody trusts completes an optional handshake and may resume it, and stays
// nobody's; a session of one profile is none of another. Held: security A 1, 2, 6.
func TestUntrustedResumption(t *testing.T) {
	stranger := issue("a1", theWorld().caA2)
	f := newFixture(t, register(client(payAPI, "stranger", stranger, "Unlimited")))
	for _, tls12 := range []bool{false, true} {
		tickets := tls.NewLRUClientSessionCache(8)
		for range 3 {
			f.denied(t, 401, "900901", func() answer {
				return get(t, f.client(t, stranger, via{tickets: tickets, tls12: tls12}), "https://opt.test/pay/1.0/x")
			})
		}
		// One session for all names: what open.test gave is offered to mtls.test.
		shared := sharedSession{tls.NewLRUClientSessionCache(1)}
		if a := get(t, f.client(t, nil, via{tickets: shared, tls12: tls12}), "https://open.test/pub/1.0/x"); a.status != 200 {
			t.Fatalf("status %d", a.status)
		}
		f.handshakeFails(t, f.client(t, nil, via{tickets: shared, tls12: tls12}), "https://mtls.test/pay/1.0/x")
		f.denied(t, 401, "900902", func() answer {
			return get(t, f.client(t, nil, via{tickets: shared, tls12: tls12}), "https://opt.test/pay/1.0/x")
		})
	}
}

// sharedSession offers the latest session to every server name.
type sharedSession struct{ tls.ClientSessionCache }

func (s sharedSession) Get(string) (*tls.ClientSessionState, bool) {
	return s.ClientSessionCache.Get("")
}

func (s sharedSession) Put(_ string, state *tls.ClientSessionState) {
	s.ClientSessionCache.Put("", state)
}

// TestHostBelongsToTheServerName: the policy of a connection was chosen by its server name, so that a Host of another
// profile is misdirected. Held: security B 13, 14, 15, 16, 17, 20.
func TestHostBelongsToTheServerName(t *testing.T) {
	f := newFixture(t)
	misdirected := func(t *testing.T, who *party, sni, name, target string) {
		t.Helper()
		a := f.denied(t, 421, "421", func() answer { return f.dial(t, who, sni).get(t, target, name) })
		if a.header.Get("Connection") != "close" {
			t.Errorf("%s for %s: Connection %q", sni, name, a.header.Get("Connection"))
		}
	}
	misdirected(t, nil, "open.test", "mtls.test", "/pay/1.0/x")                  // 13
	misdirected(t, f.a4, "127.0.0.1", "mtls.test", "/pay/1.0/x")                 // 14: no server name is sent
	misdirected(t, f.a4, "opt.test", "mtls.test", "/pay/1.0/x")                  //
	misdirected(t, f.a4, "mtls.test", "opt.test", "/pay/1.0/x")                  //
	misdirected(t, nil, "a.wild.test", "hard.wild.test", "/pub/1.0/x")           // 17
	misdirected(t, nil, "open.test", "open.test", "https://mtls.test/pay/1.0/x") // 20: the target's authority counts
	misdirected(t, nil, "open.test", "elsewhere.test", "/pub/1.0/x")
	f.handshakeFails(t, f.client(t, nil, via{sni: "127.0.0.1"}), "https://127.0.0.1/pay/1.0/x") // 14

	for _, name := range []string{"MTLS.Test", "mtls.test.", "mtls.test:8243", "MTLS.TEST.:443"} { // 16
		f.allowed(t, func() answer { return f.dial(t, f.a4, "mtls.test").get(t, "/pay/1.0/x", name) })
		misdirected(t, nil, "open.test", name, "/pay/1.0/x")
	}
	f.allowed(t, func() answer { return f.dial(t, f.a4, "MTLS.Test").get(t, "/pay/1.0/x", "mtls.test") })
	f.allowed(t, func() answer { return f.dial(t, nil, "a.wild.test").get(t, "/pub/1.0/x", "b.wild.test") })
	f.allowed(t, func() answer { return f.dial(t, nil, "open.test").get(t, "https://open.test/pub/1.0/x", "mtls.test") })

	// 15: the streams of one HTTP/2 connection are judged one by one.
	h := f.dialHTTP2(t, nil, "open.test")
	f.allowed(t, func() answer { return h.get(t, "/pub/1.0/x", "open.test") })
	release := make(chan struct{})
	f.backend.handle("/slow", func(w http.ResponseWriter, _ *http.Request) { <-release; w.WriteHeader(204) })
	slow := h.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/slow")
	eventually(t, "the slow call is under way", func() bool { return f.backend.count("/slow") == 1 })
	f.denied(t, 421, "421", func() answer { return h.get(t, "/pay/1.0/x", "mtls.test") })
	f.denied(t, 421, "421", func() answer { return h.get(t, "/pay/1.0/x", "mtls.test") })
	close(release)
	if a := h.receive(t, slow); a.status != 204 {
		t.Errorf("the first stream: status %d (%q)", a.status, a.body)
	}
	f.allowed(t, func() answer { return h.get(t, "/pub/1.0/x", "open.test") })
	if h.goAway {
		t.Error("one misdirected stream ended the connection of the others")
	}
}

// TestProfileChangesUnderConnections: calls on live connections are held to the profile in force, not to the one of the
// handshake.
func TestProfileChangesUnderConnections(t *testing.T) {
	f := newFixture(t)
	eachVersion(t, func(t *testing.T, h2 bool) {
		f.setProfiles(t, f.profiles(t, nil, allProfiles...))
		none, stranger := f.client(t, nil, via{http2: h2}), f.client(t, issue("x", nil), via{http2: h2})
		valid, good := f.client(t, f.a2, via{http2: h2}), f.client(t, f.a4, via{http2: h2})
		all := []*http.Client{none, stranger, valid, good}
		for _, c := range all {
			f.allowed(t, func() answer { return get(t, c, "https://opt.test/pub/1.0/x") })
		}
		f.setProfiles(t, f.profiles(t, nil, "open.test none", "opt.test require", "mtls.test require", "*.wild.test optional", "hard.wild.test require"))
		f.denied(t, 401, "900902", func() answer { return get(t, none, "https://opt.test/pub/1.0/x") })
		f.denied(t, 401, "900901", func() answer { return get(t, stranger, "https://opt.test/pub/1.0/x") })
		for _, c := range []*http.Client{valid, good} {
			if a := get(t, c, "https://opt.test/pub/1.0/x"); a.status != 200 || !a.kept() {
				t.Errorf("status %d, on the old connection: %v", a.status, a.kept())
			}
		}
		f.allowed(t, func() answer { return get(t, good, "https://opt.test/pay/1.0/x") })
		// With none, a certificate that an older handshake brought counts no more.
		f.setProfiles(t, f.profiles(t, nil, "open.test none", "opt.test none", "mtls.test require", "*.wild.test optional", "hard.wild.test require"))
		f.denied(t, 401, "900902", func() answer { return get(t, good, "https://opt.test/pay/1.0/x") })
	})
}

// TestSandboxCertificates reach the sandbox and nothing else.
func TestSandboxCertificates(t *testing.T) {
	f := newFixture(t)
	if got := f.allowed(t, func() answer { return get(t, f.client(t, f.s1, via{}), "https://mtls.test/box/1.0/x") }); got.Target != "/sandbox/x" {
		t.Errorf("a sandbox certificate reached %q", got.Target)
	}
	if got := f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://mtls.test/box/1.0/x") }); got.Target != "/x" {
		t.Errorf("a production certificate reached %q", got.Target)
	}
	f.denied(t, 403, "900908", func() answer { return get(t, f.client(t, f.s1, via{}), "https://mtls.test/pay/1.0/x") })
	// What is open is open to it, too.
	f.allowed(t, func() answer { return get(t, f.client(t, f.s1, via{}), "https://mtls.test/pub/1.0/x") })
	f.clients = append(f.clients[:len(f.clients)-1:len(f.clients)-1], certstore.Client{
		API: boxAPI, Alias: "s1", KeyType: certstore.Production, Tier: "Unlimited", Certificate: f.s1.cert, Source: "test",
	})
	f.setClients(t)
	if got := f.allowed(t, func() answer { return get(t, f.client(t, f.s1, via{}), "https://mtls.test/box/1.0/x") }); got.Target != "/x" {
		t.Errorf("registered anew, it reached %q", got.Target)
	}
}
