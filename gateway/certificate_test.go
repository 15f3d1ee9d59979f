package gateway_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"sallyport/certstore"
)

// TestSystemRootsAreNotTrusted: a certificate under a root of the system is nobody's, even if it is registered.
// Held: security C 26 (that nothing loads without a trust store is listenerprofiles' to show).
func TestSystemRootsAreNotTrusted(t *testing.T) {
	stranger := issue("stranger", theSystemRoot(), usage(x509.ExtKeyUsageClientAuth))
	roots, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Fatalf("the test's root is not the system's: %v", err)
	}
	f := newFixture(t, register(client(payAPI, "stranger", stranger, "Unlimited")))
	f.denied(t, 401, "900901", func() answer {
		return get(t, f.client(t, stranger, via{}), "https://opt.test/pay/1.0/x")
	})
	f.handshakeFails(t, f.client(t, stranger, via{}), "https://mtls.test/pay/1.0/x")

	// A reload whose trust store is missing, empty or garbage leaves the one before it in force.
	for name, content := range map[string]string{"empty": "", "garbage": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if _, err := f.loadProfiles(t, []byte(content), allProfiles...); err == nil {
			t.Errorf("%s: a trust store without certificates is loaded", name)
		}
	}
	f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://mtls.test/pay/1.0/x") })
}

// TestIdentityIsTheWholeCertificate: whoever shares a name, a serial number or a key with a registered certificate is
// somebody else. Held: security C 28, 29.
func TestIdentityIsTheWholeCertificate(t *testing.T) {
	f := newFixture(t)
	victim := f.a1
	sameNames := func(c *x509.Certificate) {
		c.RawSubject = victim.cert.RawSubject
		c.SerialNumber = victim.cert.SerialNumber
	}
	// Issued under A's own name by another key: subject, issuer and serial number are the victim's.
	falseIssuer := issue("Issuer A", f.caA2, isCA)
	for name, impostor := range map[string]*party{
		"C 28: self-signed, subject and serial":                issue("a1", nil, sameNames),
		"C 28: subject, issuer and serial, another key":        issue("a1", falseIssuer, sameNames),
		"C 28: the same, under the trusted root":               issue("a1", issue("Issuer A", f.caA, isCA), sameNames),
		"C 29: the victim's key and serial, another name":      issueFor(victim.key, "somebody", nil, serial(victim.cert.SerialNumber)),
		"C 29: the same with its AKID, self-issued":            issueFor(victim.key, "somebody", nil, serial(victim.cert.SerialNumber), akid(victim)),
		"C 29: the victim's key and serial, issued under A":    issueFor(victim.key, "somebody", f.interA, serial(victim.cert.SerialNumber)),
		"C 29: everything but one extension, under the issuer": issueFor(victim.key, "a1", f.interA, sameNames),
	} {
		t.Run(name, func(t *testing.T) {
			f.denied(t, 401, "900901", func() answer {
				return get(t, f.client(t, impostor, via{}), "https://opt.test/pay/1.0/x")
			})
		})
	}
}

func akid(of *party) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.AuthorityKeyId, c.SubjectKeyId = of.cert.AuthorityKeyId, of.cert.AuthorityKeyId
	}
}

// TestRegisteredForAnotherAPI: a sibling under the same CA, and a certificate of another API, are not good here.
// Held: security C 30.
func TestRegisteredForAnotherAPI(t *testing.T) {
	f := newFixture(t)
	eachVersion(t, func(t *testing.T, h2 bool) {
		for name, who := range map[string]*party{"registered nowhere": f.a2, "registered elsewhere": f.a3} {
			for _, host := range []string{"opt.test", "mtls.test"} {
				a := f.denied(t, 401, "900901", func() answer {
					return get(t, f.client(t, who, via{http2: h2}), "https://"+host+"/pay/1.0/x")
				})
				if s := f.seen(t, a.id()); s.Reason != "invalid_credentials" || s.Alias != "" {
					t.Errorf("%s: observed %+v", name, s)
				}
			}
		}
		if got := f.allowed(t, func() answer { return get(t, f.client(t, f.a3, via{http2: h2}), "https://opt.test/both/1.0/x") }); got.Header.Get("X-Sallyport-Client") != "a3" {
			t.Errorf("the backend was told of %q", got.Header.Get("X-Sallyport-Client"))
		}
	})
}

// TestRegisteredIssuerAdmitsItselfOnly: a CA certificate that is registered admits no certificate under it, and none of
// an issuer whose name contains its name. Held: security C 31.
func TestRegisteredIssuerAdmitsItselfOnly(t *testing.T) {
	acme := issue("Acme", nil, isCA)
	evil, other := issue("Acme Evil", nil, isCA), issue("XCN=Acme", nil, isCA)
	f := newFixture(t, register(client(payAPI, "acme", acme, "Unlimited")))
	f.setProfiles(t, f.profiles(t, certPEM(f.caA, acme, evil, other), allProfiles...))
	for name, issuer := range map[string]*party{"Acme": acme, "Acme Evil": evil, "XCN=Acme": other} {
		t.Run(name, func(t *testing.T) {
			leaf := issue("client", issuer, usage(x509.ExtKeyUsageClientAuth))
			f.denied(t, 401, "900901", func() answer { return get(t, f.client(t, leaf, via{}), "https://mtls.test/pay/1.0/x") })
		})
	}
	itself := f.allowed(t, func() answer { return get(t, f.client(t, acme, via{}), "https://mtls.test/pay/1.0/x") })
	if got := itself.Header.Get("X-Client-Cert-Hash"); got != acme.hash() {
		t.Errorf("the certificate itself comes in as %q", got)
	}
}

// TestSecondCertificateIsNoIdentity: of a chain only the first certificate, whose key signed the handshake, is the caller.
// Held: security C 32.
func TestSecondCertificateIsNoIdentity(t *testing.T) {
	f := newFixture(t)
	for _, tls12 := range []bool{false, true} {
		mine := &party{cert: f.a2.cert, key: f.a2.key, also: []*party{f.a1, f.interA}}
		for _, host := range []string{"opt.test", "mtls.test"} {
			f.denied(t, 401, "900901", func() answer {
				return get(t, f.client(t, mine, via{tls12: tls12}), "https://"+host+"/pay/1.0/x")
			})
		}
		stolen := &party{cert: f.a1.cert, key: f.a2.key, also: []*party{f.a2, f.interA}}
		f.handshakeFails(t, f.client(t, stolen, via{tls12: tls12}), "https://opt.test/pay/1.0/x")

		long := &party{cert: f.a1.cert, key: f.a1.key, also: []*party{f.a2, f.interA, f.a3}}
		got := f.allowed(t, func() answer { return get(t, f.client(t, long, via{tls12: tls12}), "https://mtls.test/pay/1.0/x") })
		if got.Header.Get("X-Client-Cert-Hash") != f.a1.hash() {
			t.Errorf("the caller is %q, not the certificate whose key signed", got.Header.Get("X-Sallyport-Client"))
		}
	}
}

// TestExtendedKeyUsage: a certificate that is made for something else is not good, though it is registered; one without
// the extension is. Held: security C 33.
func TestExtendedKeyUsage(t *testing.T) {
	ca := theWorld().interA
	bad := map[string]*party{
		"serverAuth":      issue("eku", ca, usage(x509.ExtKeyUsageServerAuth)),
		"emailProtection": issue("eku", ca, usage(x509.ExtKeyUsageEmailProtection)),
	}
	good := map[string]*party{
		"none":                      issue("eku", ca),
		"clientAuth":                issue("eku", ca, usage(x509.ExtKeyUsageClientAuth)),
		"serverAuth and clientAuth": issue("eku", ca, usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)),
		"any":                       issue("eku", ca, usage(x509.ExtKeyUsageAny)),
	}
	var list []certstore.Client
	for _, group := range []map[string]*party{bad, good} {
		for name, p := range group {
			list = append(list, client(payAPI, name, p, "Unlimited"))
		}
	}
	f := newFixture(t, register(list...))
	for name, p := range bad {
		t.Run(name, func(t *testing.T) {
			f.denied(t, 401, "900901", func() answer { return get(t, f.client(t, p, via{}), "https://opt.test/pay/1.0/x") })
			f.handshakeFails(t, f.client(t, p, via{}), "https://mtls.test/pay/1.0/x")
		})
	}
	for name, p := range good {
		t.Run(name, func(t *testing.T) {
			for _, host := range []string{"opt.test", "mtls.test"} {
				got := f.allowed(t, func() answer { return get(t, f.client(t, p, via{}), "https://"+host+"/pay/1.0/x") })
				if alias := got.Header.Get("X-Sallyport-Client"); got.Header.Get("X-Client-Cert-Hash") != p.hash() || alias == "" {
					t.Errorf("the backend was told of %q", alias)
				}
			}
		})
	}
}

// TestOutsideValidity: an expired certificate, and one that is not valid yet, is not good; a good token then decides,
// with its own identity and limits. Held: security C 34.
func TestOutsideValidity(t *testing.T) {
	now := newClock().Now()
	for name, window := range map[string]func(*x509.Certificate){
		"expired":       validity(now.Add(-time.Hour), now.Add(-time.Second)),
		"not valid yet": validity(now.Add(time.Minute), now.Add(time.Hour)),
	} {
		t.Run(name, func(t *testing.T) {
			old := issue("old", theWorld().interA, usage(x509.ExtKeyUsageClientAuth), window)
			f := newFixture(t, register(client(payAPI, "old", old, "Three"), client(bothAPI, "old", old, "Three")))
			c := f.client(t, old, via{})
			f.denied(t, 401, "900901", func() answer { return get(t, c, "https://opt.test/pay/1.0/x") })
			f.denied(t, 401, "900901", func() answer { return get(t, c, "https://opt.test/both/1.0/x") })
			f.handshakeFails(t, f.client(t, old, via{}), "https://mtls.test/pay/1.0/x")
			raw := f.token(t, "alice", nil)
			for range 5 { // more than the certificate's tier allows
				got := f.allowed(t, func() answer { return get(t, c, "https://opt.test/both/1.0/x", bearer(raw)) })
				if got.Header.Get("X-Sallyport-Subject") != "alice" || got.Header.Get("X-Sallyport-Client") != "" || got.Header.Get("X-Client-Cert-Hash") != "" {
					t.Errorf("the backend was told %v", got.Header)
				}
			}
		})
	}
}

// TestCallerIsNotToldWhatIsWrong: whatever is wrong with a certificate, the answer is the same, byte for byte.
func TestCallerIsNotToldWhatIsWrong(t *testing.T) {
	now := newClock().Now()
	expired := issue("old", theWorld().interA, validity(now.Add(-time.Hour), now.Add(-time.Second)))
	email := issue("email", theWorld().interA, usage(x509.ExtKeyUsageEmailProtection))
	f := newDoorFixture(t, register(client(payAPI, "old", expired, "Ten"), client(payAPI, "email", email, "Ten")))
	var bodies []string
	note := func(call func() answer) {
		a := f.denied(t, 401, "900901", call)
		bodies = append(bodies, a.body+a.header.Get("WWW-Authenticate"))
	}
	for _, who := range []*party{expired, email, f.a2, f.a3, issue("a1", nil, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "a1"} })} {
		for _, how := range []via{{}, {http2: true}, {tls12: true}, {tls12: true, http2: true}} {
			note(func() answer { return get(t, f.client(t, who, how), "https://opt.test/pay/1.0/x") })
		}
		for _, listener := range []string{byCert, byAddr, behindLB} {
			for _, http2 := range []bool{false, listener != behindLB} {
				c := f.through(t, listener, f.balancer, http2, "127.0.0.1")
				note(func() answer { return get(t, c, scheme(listener)+"/pay/1.0/x", certificateHeader(who)) })
			}
		}
	}
	for _, b := range bodies {
		if b != bodies[0] {
			t.Errorf("%q differs from %q", b, bodies[0])
		}
	}
}
