package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"sallyport/listenerprofiles/trust"
)

// strict calls the API with a certificate on a socket that demands a good one, and lax on one that only asks.
const (
	strict = "https://mtls.test"
	lax    = "https://opt.test"
)

// TestRegisteredSelfSigned: a self-signed certificate that is registered for an API is good for that API without a trust
// store, and under require a stranger's for every other one, open ones too, whatever token comes along.
func TestRegisteredSelfSigned(t *testing.T) {
	own := issue("own", nil)
	f := newFixture(t, register(client(payAPI, "own", own, "Unlimited")))
	f.setProfiles(t, f.profiles(t, nil, allProfiles...))
	good := bearer(f.token(t, "alice", nil))
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, own, via{http2: h2})
		for _, host := range []string{lax, strict} {
			if got := f.allowed(t, func() answer { return get(t, c, host+"/pay/1.0/x") }); got.Header.Get("X-Sallyport-Client") != "own" {
				t.Errorf("the backend was told of %q", got.Header.Get("X-Sallyport-Client"))
			}
			f.denied(t, 401, "900901", func() answer { return get(t, c, host+"/both/1.0/x") })
			f.denied(t, 404, "404", func() answer { return get(t, c, host+"/nowhere") })
		}
		f.allowed(t, func() answer { return get(t, c, lax+"/pub/1.0/x") })
		f.allowed(t, func() answer { return get(t, c, lax+"/both/1.0/x", good) })
		f.denied(t, 401, "900901", func() answer { return get(t, c, strict+"/pub/1.0/x") })
		f.denied(t, 401, "900901", func() answer { return get(t, c, strict+"/both/1.0/x", good) })
		f.denied(t, 401, "900901", func() answer { return get(t, c, strict+"/tok/1.0/x", good) })
		f.allowed(t, func() answer { return get(t, c, strict+"/pay/1.0/open") }) // an open resource of its own API
	})
}

// TestRegistrationVouchesForItselfOnly: what a registered self-signed certificate issued, what copies its names, its serial
// number or its key, and what only looks self-signed, are strangers'. So is one whose API another listener has.
func TestRegistrationVouchesForItselfOnly(t *testing.T) {
	own := issue("own", nil, isCA)
	sameNames := func(c *x509.Certificate) { c.RawSubject, c.SerialNumber = own.cert.RawSubject, own.cert.SerialNumber }
	issued, twin := issue("issued", own), issue("own", issue("own", nil, isCA), sameNames)
	elsewhere := issue("elsewhere", nil)
	f := newFixture(t, register(
		client(payAPI, "own", own, "Unlimited"), client(payAPI, "issued", issued, "Unlimited"), client(payAPI, "twin", twin, "Unlimited"),
		client(boxAPI, "elsewhere", elsewhere, "Unlimited"),
	), func(_ *fixture, s *setup) {
		for i := range s.routes {
			if s.routes[i].API == boxAPI {
				s.routes[i].Listeners = []string{"plain"}
			}
		}
	})
	f.allowed(t, func() answer { return get(t, f.client(t, own, via{}), strict+"/pay/1.0/x") })
	for name, who := range map[string]*party{
		"issued by it, and registered":             {cert: issued.cert, key: issued.key, also: []*party{own}},
		"issued by it, and not registered":         {cert: issue("nobody", own).cert, key: own.key, also: []*party{own}},
		"its names by another key, and registered": twin,
		"its names, self-signed by another key":    issue("own", nil, sameNames),
		"its names and key, another serial number": issueFor(own.key, "own", nil, isCA),
		"registered, with the API elsewhere":       elsewhere,
	} {
		t.Run(name, func(t *testing.T) {
			f.handshakeFails(t, f.client(t, who, via{}), strict+"/pay/1.0/x")
			if name == "issued by it, and not registered" {
				return // its key is not the certificate's
			}
			f.denied(t, 401, "900901", func() answer { return get(t, f.client(t, who, via{}), lax+"/pay/1.0/x") })
		})
	}
}

// TestRegistrationEnds: a removal is in force for the next call on open connections, for handshakes and for tickets, and so
// is another word of trustRegistered; a new registration lets in whom the handshake has turned away.
func TestRegistrationEnds(t *testing.T) {
	own := issue("own", nil)
	registration := client(payAPI, "own", own, "Unlimited")
	for _, host := range []string{lax, strict} {
		f := newFixture(t, register(registration))
		for _, end := range []struct {
			name       string
			end, begin func()
		}{
			{"removal", func() { f.remove(t, "own") }, func() { f.clients = append(f.clients, registration); f.setClients(t) }},
			{"none", func() {
				f.vouching = trust.None
				f.setProfiles(t, f.profiles(t, nil, allProfiles...))
			}, func() {
				f.vouching = trust.SelfSigned
				f.setProfiles(t, f.profiles(t, nil, allProfiles...))
			}},
		} {
			live := liveConnections(t, f, own)
			for name, c := range live {
				for range 2 {
					if a := get(t, c, host+"/pay/1.0/x"); a.status != http.StatusOK {
						t.Fatalf("%s before %s: status %d", name, end.name, a.status)
					}
				}
			}
			end.end()
			for name, c := range live {
				f.after(t, name, c, host+"/pay/1.0/x", 401, "900901")
				if !isTicket(name) && host == strict && end.name == "removal" {
					f.after(t, name, c, host+"/nowhere", 401, "900901")
				}
			}
			if host == strict {
				f.handshakeFails(t, f.client(t, own, via{}), host+"/pay/1.0/x")
			}
			end.begin()
			f.allowed(t, func() answer { return get(t, f.client(t, own, via{}), host+"/pay/1.0/x") })
		}
	}
}

// TestWordsOfTrustRegistered: all lets any registration vouch, none lets no registration.
func TestWordsOfTrustRegistered(t *testing.T) {
	own, stray := issue("own", nil), issue("stray", theWorld().caB)
	f := newFixture(t, register(client(payAPI, "own", own, "Unlimited"), client(payAPI, "stray", stray, "Unlimited")))
	for _, c := range []struct {
		word       trust.Registered
		own, stray bool
	}{{trust.SelfSigned, true, false}, {trust.All, true, true}, {trust.None, false, false}} {
		f.vouching = c.word
		f.setProfiles(t, f.profiles(t, nil, allProfiles...))
		for _, who := range []struct {
			*party
			good bool
		}{{own, c.own}, {stray, c.stray}} {
			for _, host := range []string{lax, strict} {
				client := f.client(t, who.party, via{})
				switch {
				case who.good:
					f.allowed(t, func() answer { return get(t, client, host+"/pay/1.0/x") })
				case host == strict:
					f.handshakeFails(t, client, host+"/pay/1.0/x")
				default:
					f.denied(t, 401, "900901", func() answer { return get(t, client, host+"/pay/1.0/x") })
				}
			}
		}
	}
}

// TestAskedForAnyIssuer: clients choose their certificate by the issuers that the server names. While a registered one
// needs no trust store none are named, and else those of the store.
func TestAskedForAnyIssuer(t *testing.T) {
	own := issue("own", nil)
	f := newFixture(t, register(client(payAPI, "own", own, "Unlimited")))
	named := func() (n int) {
		config := f.clientTLS(own, via{sni: "opt.test"})
		config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			n = len(r.AcceptableCAs)
			return own.tls(), nil
		}
		c, err := tls.Dial("tcp", f.address, config)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return n
	}
	choosy := func() *http.Client {
		c := f.client(t, own, via{})
		config := c.Transport.(*http.Transport).TLSClientConfig
		config.GetClientCertificate, config.Certificates = nil, []tls.Certificate{*own.tls()}
		return c
	}
	for _, host := range []string{lax, strict} {
		f.allowed(t, func() answer { return get(t, choosy(), host+"/pay/1.0/x") })
	}
	if n := named(); n != 0 {
		t.Errorf("%d issuers are named, and the registered one's is not among them", n)
	}
	f.remove(t, "own")
	if n := named(); n != 1 {
		t.Errorf("%d issuers are named, the trust store has 1", n)
	}
}
