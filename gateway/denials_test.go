package gateway_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"sallyport/gateway"
	"sallyport/listenerprofiles/trust"
)

func fingerprintOf(p *party) trust.Denial {
	return trust.Denial{Fingerprint: sha256.Sum256(p.cert.Raw)}
}

func serialOf(p *party) trust.Denial {
	return trust.Denial{Issuer: p.cert.RawIssuer, Serial: p.cert.SerialNumber.Bytes()}
}

func keyOf(p *party) trust.Denial {
	return trust.Denial{Key: sha256.Sum256(p.cert.RawSubjectPublicKeyInfo)}
}

// setDenied puts a deny list into force, and nothing else.
func (f *fixture) setDenied(t testing.TB, list ...trust.Denial) {
	t.Helper()
	denied := trust.NewDenials(list)
	f.deny.Store(denied)
	f.set(t, gateway.Parts{Denied: denied})
}

// denying is the loss of a right by the deny list.
func denying(by func(*party) trust.Denial) func(*testing.T, *fixture, int) {
	return func(t *testing.T, f *fixture, i int) { f.setDenied(t, by([]*party{f.a4, f.a2}[i])) }
}

// TestDenied: what the deny list names is a bad certificate with the next call on each connection, and is good again once
// it is off the list. A good token admits as itself; an open resource is open, but not under require, where no new
// handshake succeeds either. Others of the same issuer go on.
func TestDenied(t *testing.T) {
	f := newFixture(t, register(client(payAPI, "a2", theWorld().a2, "Unlimited")))
	good := bearer(f.token(t, "alice", nil))
	for name, by := range map[string]func(*party) trust.Denial{"fingerprint": fingerprintOf, "serial": serialOf, "key": keyOf} {
		eachVersion(t, func(t *testing.T, h2 bool) {
			a, b, other := f.client(t, f.a4, via{http2: h2}), f.client(t, f.a4, via{http2: h2}), f.client(t, f.a2, via{http2: h2})
			call := func(c *http.Client, target string, options ...func(*http.Request)) func() answer {
				return func() answer { return get(t, c, target, options...) }
			}
			for range 2 {
				f.allowed(t, call(a, lax+"/pay/1.0/x"))
				f.allowed(t, call(b, strict+"/pay/1.0/x"))
				f.allowed(t, call(other, lax+"/pay/1.0/x"))
				entry := by(f.a4)
				entry.Comment = "stolen from " + name
				f.setDenied(t, entry)
				for _, c := range []func() answer{
					call(a, lax+"/pay/1.0/x"), call(a, lax+"/both/1.0/x"), call(b, strict+"/pay/1.0/x"), call(b, strict+"/both/1.0/x", good),
					call(b, strict+"/pay/1.0/open"), call(b, strict+"/pub/1.0/x"),
				} {
					answer := f.denied(t, 401, "900901", c)
					if !answer.kept() || strings.Contains(answer.body, "deny") || strings.Contains(answer.body, "stolen") {
						t.Errorf("%s: it is another connection, or the caller learns why: %s", name, answer.body)
					}
					if x := f.seen(t, answer.id()); x.Err == nil || trust.CauseOf(x.Err) != trust.Denied || !strings.Contains(x.Err.Error(), entry.Comment) {
						t.Errorf("%s: the log has %v", name, x.Err)
					}
				}
				f.allowed(t, call(a, lax+"/both/1.0/x", good))
				f.allowed(t, call(a, lax+"/pub/1.0/x"))
				f.allowed(t, call(other, lax+"/pay/1.0/x"))
				f.allowed(t, call(f.client(t, f.a2, via{http2: h2}), strict+"/pay/1.0/x"))
				f.handshakeFails(t, f.client(t, f.a4, via{http2: h2}), strict+"/pay/1.0/x")
				f.denied(t, 401, "900901", call(f.client(t, f.a4, via{http2: h2}), lax+"/pay/1.0/x"))
				f.setDenied(t)
			}
			f.allowed(t, call(b, strict+"/pay/1.0/x"))
			f.allowed(t, call(f.client(t, f.a4, via{http2: h2}), strict+"/pay/1.0/x"))
		})
	}
}

// TestDeniedOnResumption: a session that was begun before does not outlive the denial.
func TestDeniedOnResumption(t *testing.T) {
	f := newFixture(t)
	for _, tls12 := range []bool{false, true} {
		f.setDenied(t)
		how := via{tls12: tls12, tickets: tls.NewLRUClientSessionCache(8)}
		f.allowed(t, func() answer { return get(t, f.client(t, f.a4, how), strict+"/pay/1.0/x") })
		f.setDenied(t, keyOf(f.a4))
		f.handshakeFails(t, f.client(t, f.a4, how), strict+"/pay/1.0/x")
	}
}

// TestDeniedUnregistered: under require, a certificate that no API knows comes with a token, and is held to the list, too.
func TestDeniedUnregistered(t *testing.T) {
	f := newFixture(t)
	unknown := issue("unknown", f.caA)
	good := bearer(f.token(t, "alice", nil))
	for name, by := range map[string]func(*party) trust.Denial{"fingerprint": fingerprintOf, "serial": serialOf, "key": keyOf} {
		c := f.client(t, unknown, via{http2: true})
		call := func() answer { return get(t, c, strict+"/tok/1.0/x", good) }
		f.allowed(t, call)
		f.setDenied(t, by(unknown))
		if a := f.denied(t, 401, "900901", call); !a.kept() {
			t.Errorf("%s: it is another connection", name)
		}
		f.setDenied(t)
		f.allowed(t, call)
	}
}

// TestDeniedIsThatOne: by its fingerprint one certificate is denied, by its key each that has it, by issuer and serial
// number each that has both: two CAs with one name that give one number are told apart by fingerprint only.
func TestDeniedIsThatOne(t *testing.T) {
	number := func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0x0a01) }
	caOne, caTwo := issue("Namesake", nil, isCA), issue("Namesake", nil, isCA)
	one, two := issue("one", caOne, number), issue("two", caTwo, number)
	again := issueFor(one.key, "again", caOne)
	if !bytes.Equal(one.cert.RawIssuer, two.cert.RawIssuer) {
		t.Fatal("the CAs have two names")
	}
	f := newFixture(t, register(client(payAPI, "one", one, "Unlimited"), client(payAPI, "two", two, "Unlimited"), client(payAPI, "again", again, "Unlimited")))
	f.setProfiles(t, f.profiles(t, certPEM(f.caA, caOne, caTwo), allProfiles...))
	clients := map[string]*http.Client{"one": f.client(t, one, via{}), "two": f.client(t, two, via{}), "again": f.client(t, again, via{})}
	for _, c := range []struct {
		entry  trust.Denial
		denied string
	}{
		{fingerprintOf(one), "one"},
		{keyOf(one), "one again"},
		{serialOf(one), "one two"},
		{trust.Denial{Issuer: one.cert.RawIssuer, Serial: []byte{0, 0x0a, 0x01}}, "one two"},
		{trust.Denial{Issuer: one.cert.RawIssuer, Serial: []byte{0x0a}}, ""},
		{trust.Denial{Issuer: bytes.ToLower(one.cert.RawIssuer), Serial: []byte{0x0a, 0x01}}, ""},
	} {
		f.setDenied(t, c.entry)
		for name, client := range clients {
			call := func() answer { return get(t, client, lax+"/pay/1.0/x") }
			if strings.Contains(" "+c.denied+" ", " "+name+" ") {
				f.denied(t, 401, "900901", call)
			} else {
				f.allowed(t, call)
			}
		}
	}
}

// TestDeniedIssuer: who is issued by a CA that is denied, however it is named, has a bad certificate, though it is
// registered itself. Those of another CA go on.
func TestDeniedIssuer(t *testing.T) {
	f := newFixture(t, register(client(payAPI, "a2", theWorld().a2, "Unlimited")))
	for name, issuer := range map[string]*party{"the entry of the trust store": f.caA, "an intermediate": f.interA} {
		for way, by := range map[string]func(*party) trust.Denial{"fingerprint": fingerprintOf, "serial": serialOf, "key": keyOf} {
			a4, a2 := f.client(t, f.a4, via{http2: true}), f.client(t, f.a4, via{http2: true})
			call := func(c *http.Client, target string) func() answer {
				return func() answer { return get(t, c, target) }
			}
			f.setDenied(t)
			f.allowed(t, call(a4, lax+"/pay/1.0/x"))
			f.allowed(t, call(a2, strict+"/pay/1.0/x"))
			f.setDenied(t, by(issuer))
			a := f.denied(t, 401, "900901", call(a4, lax+"/pay/1.0/x"))
			if x := f.seen(t, a.id()); trust.CauseOf(x.Err) != trust.Denied {
				t.Errorf("%s by %s: the log has %v", name, way, x.Err)
			}
			f.denied(t, 401, "900901", call(a2, strict+"/pay/1.0/x"))
			f.handshakeFails(t, f.client(t, f.a4, via{}), strict+"/pay/1.0/x")
		}
	}
	own := issue("own", nil)
	f.clients = append(f.clients, client(payAPI, "own", own, "Unlimited"))
	f.setClients(t)
	f.allowed(t, func() answer { return get(t, f.client(t, own, via{}), lax+"/pay/1.0/x") })
}

// TestDeniedSigner: who is issued by a CA that is denied has a bad certificate though only its registration vouches for it,
// wherever that CA is known from: shown in the handshake, or registered. Those of another CA go on.
func TestDeniedSigner(t *testing.T) {
	root := issue("Kept Root", nil, isCA)
	shown, other := issue("Kept Issuer", root, isCA), issue("Other Issuer", root, isCA)
	own, bystander := issue("own", shown), issue("bystander", other)
	f := newDoorFixture(t, withChains, func(f *fixture, _ *setup) { f.vouching = trust.All }, register(
		client(payAPI, "own", own, "Unlimited"), client(payAPI, "bystander", bystander, "Unlimited"), client(boxAPI, "ca", root, "Unlimited"),
		client(boxAPI, "inter", shown, "Unlimited"),
	))
	f.config.Rules.Registered = trust.All
	f.setDoor(t, f.config)
	type caller struct {
		listener string
		h2       bool
		client   *http.Client
	}
	for name, who := range map[string]*party{"shown": own, "not shown": alone(own)} {
		var callers []caller
		for _, h2 := range []bool{false, true} {
			callers = append(callers, caller{"strict", h2, f.client(t, who, via{http2: h2})}, caller{"lax", h2, f.client(t, who, via{http2: h2})})
			for _, listener := range []string{byCert, byAddr, behindLB} {
				if !h2 || listener != behindLB {
					callers = append(callers, caller{listener, h2, f.through(t, listener, f.balancer, h2, "127.0.0.1")})
				}
			}
		}
		for way, by := range map[string]func(*party) trust.Denial{"fingerprint": fingerprintOf, "serial": serialOf, "key": keyOf} {
			for whose, ca := range map[string]*party{"its issuer": shown, "that one's": root} {
				for _, c := range callers {
					call := func() answer {
						switch c.listener {
						case "strict":
							return get(t, c.client, strict+"/pay/1.0/x")
						case "lax":
							return get(t, c.client, lax+"/pay/1.0/x")
						}
						return get(t, c.client, scheme(c.listener)+"/pay/1.0/x", certificateHeader(who))
					}
					f.setDenied(t)
					f.allowed(t, call)
					f.allowed(t, call) // from a loop, which has the connection by now
					f.setDenied(t, by(ca))
					a := f.denied(t, 401, "900901", call)
					if x := f.seen(t, a.id()); trust.CauseOf(x.Err) != trust.Denied {
						t.Errorf("%s, %s by %s, %+v: the log has %v", name, whose, way, c, x.Err)
					}
				}
				if ca == shown {
					f.allowed(t, func() answer { return get(t, f.client(t, bystander, via{}), strict+"/pay/1.0/x") })
				}
				f.handshakeFails(t, f.client(t, who, via{}), strict+"/pay/1.0/x")
			}
		}
	}
}

// TestDeniedBehindABalancer: a certificate that a load balancer has vouched for, and that the door remembers as good, does
// not outlive a denial. A load balancer that is denied itself speaks for nobody, and is a bad certificate.
func TestDeniedBehindABalancer(t *testing.T) {
	f := newDoorFixture(t)
	good := bearer(f.token(t, "alice", nil))
	for _, listener := range []string{byCert, byAddr, behindLB} {
		for _, h2 := range []bool{false, true} {
			if h2 && listener == behindLB {
				continue
			}
			c := f.through(t, listener, f.balancer, h2, "127.0.0.1")
			target := scheme(listener)
			call := func(path string, options ...func(*http.Request)) func() answer {
				return func() answer { return get(t, c, target+path, append(options, certificateHeader(f.a4))...) }
			}
			f.setDenied(t)
			f.allowed(t, call("/pay/1.0/x"))
			for _, by := range []func(*party) trust.Denial{fingerprintOf, serialOf, keyOf} {
				f.setDenied(t, by(f.a4))
				a := f.denied(t, 401, "900901", call("/pay/1.0/x"))
				if x := f.seen(t, a.id()); trust.CauseOf(x.Err) != trust.Denied {
					t.Errorf("%s: the log has %v", listener, x.Err)
				}
				f.allowed(t, call("/both/1.0/x", good))
				f.setDenied(t)
				f.allowed(t, call("/pay/1.0/x"))
				if listener == behindLB {
					continue // it shows none
				}
				f.setDenied(t, by(f.balancer))
				a = f.denied(t, 401, "900901", call("/pay/1.0/x"))
				if x := f.seen(t, a.id()); trust.CauseOf(x.Err) != trust.Denied {
					t.Errorf("%s: of the load balancer's the log has %v", listener, x.Err)
				}
				if got := f.allowed(t, call("/both/1.0/x", good)); got.Header.Get("X-Sallyport-Client") != "" {
					t.Errorf("%s: a denied load balancer speaks for %q", listener, got.Header.Get("X-Sallyport-Client"))
				}
				f.setDenied(t)
				f.allowed(t, call("/pay/1.0/x"))
			}
		}
	}
}
