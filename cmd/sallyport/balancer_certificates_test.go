package main_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// A specimen is a client certificate and its expected outcome, which is the same in a handshake and in a header.
type specimen struct {
	name       string // also its alias if it is registered
	der        []byte
	key        crypto.Signer
	chain      []*x509.Certificate // sent along in a handshake
	registered bool
	good       bool
	breaks     bool // whatever terminates TLS may refuse the handshake
	proofless  bool // the key is not the certificate's, which only a handshake can notice: not tried in headers
	haproxy    bool // HAProxy 2.6 ends the handshake despite its "ignore-err all"
	big        bool // perhaps too long for a load balancer to write into a header
}

// An oddKey has a public key without the private one.
type oddKey struct{ public crypto.PublicKey }

func (k oddKey) Public() crypto.PublicKey { return k.public }

func (k oddKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, 256), nil
}

// groupC returns the certificates of group C of the security catalogue, and the entries of the trust store for them.
func groupC(d *demoFolder) (list []specimen, entries []*x509.Certificate) {
	t := d.t
	root := testpki.NewCA(t, "C Root")
	entry := root.IssueCA("C Issuer") // an entry itself, so that headers without a chain can do
	stray := root.IssueCA("C Stray")  // not an entry
	named := func(name string, key crypto.Signer, change []func(*x509.Certificate)) testpki.Leaf {
		return testpki.Leaf{CommonName: name, Key: key, Change: func(c *x509.Certificate) {
			for _, f := range change {
				f(c)
			}
		}}
	}
	add := func(name string, by *testpki.Identity, registered, good bool, change ...func(*x509.Certificate)) *specimen {
		key := testpki.NewKey(t)
		list = append(list, specimen{
			name: name, der: by.IssueDER(named(name, key, change)), key: key, chain: []*x509.Certificate{by.Cert}, registered: registered, good: good,
		})
		return &list[len(list)-1]
	}
	alone := func(name string, registered bool, change ...func(*x509.Certificate)) {
		s := testpki.SelfSigned(t, named(name, nil, change))
		list = append(list, specimen{name: name, der: s.Cert.Raw, key: s.Key, registered: registered})
	}
	usage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	names := func(n ...string) func(*x509.Certificate) { return func(c *x509.Certificate) { c.DNSNames = n } }

	add("good", root, true, true)
	add("good-issuer", entry, true, true)

	// 28 to 31: names, serial numbers and keys do not identify a client.
	goldIdentity := testpki.Load(t, []byte(d.read("clients/gold.crt")), []byte(d.read("clients/gold.key")))
	gold := goldIdentity.Cert
	same := func(c *x509.Certificate) { c.RawSubject, c.SerialNumber = gold.RawSubject, gold.SerialNumber }
	alone("28-self-signed", false, same)
	add("28-trusted-root", root, false, false, same)
	twin := add("29-key-and-serial", root, false, false)
	twin.key, twin.der = goldIdentity.Key, root.IssueDER(testpki.Leaf{CommonName: "somebody", Key: goldIdentity.Key, Change: func(c *x509.Certificate) {
		c.SerialNumber, c.AuthorityKeyId = gold.SerialNumber, gold.AuthorityKeyId
	}})
	add("30-sibling", root, false, false)
	acme := root.IssueCA("Acme", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })
	acmeItself := add("31-registered-issuer", root, true, true)
	acmeItself.der, acmeItself.key = acme.Cert.Raw, acme.Key
	add("31-under-it", acme, false, false)
	add("31-under-evil", root.IssueCA("Acme Evil"), false, false)

	// 33, 34: usages and times.
	add("33-server", root, true, false, usage(x509.ExtKeyUsageServerAuth))
	add("33-email", root, true, false, usage(x509.ExtKeyUsageEmailProtection))
	add("33-none", root, true, true, usage())
	add("33-both", root, true, true, usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth))
	add("34-expired", root, true, false, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	add("34-not-yet", root, true, false, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })

	keyUsage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	add("33-signature", root, true, true, keyUsage(x509.KeyUsageDigitalSignature))
	add("33-encipherment", root, true, false, keyUsage(x509.KeyUsageKeyEncipherment))

	// 35: chains.
	leaf := root.Issue(testpki.Leaf{CommonName: "a leaf"})
	add("35-by-a-leaf", leaf, true, false) // and the leaf is an entry
	short := root.IssueCA("C Short", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	add("35-too-long", short.IssueCA("C Too Long"), true, false).chain = append(list[len(list)-1].chain, short.Cert)
	noSign := root.IssueCA("C May Not Sign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	add("35-may-not-sign", noSign, true, false)
	alone("35-alone", true) // its registration vouches for it
	list[len(list)-1].good = true
	ended := root.IssueCA("C Ended", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	add("35-issuer-expired", ended, true, false)
	namesake := testpki.NewCA(t, "C Root")
	add("35-root-of-that-name", namesake, true, false)

	// 36: name constraints.
	narrow := root.IssueCA("C Narrow", func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"good.test"}
	})
	add("36-permitted", narrow, true, true, names("a.good.test"))
	add("36-not-permitted", narrow, true, false, names("a.bad.test"))
	add("36-not-permitted-case", narrow, true, false, names("A.BAD.test"))
	add("36-permitted-and-not", narrow, true, false, names("a.good.test", "a.bad.test"))
	without := root.IssueCA("C Without", func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.ExcludedDNSDomains = true, []string{"evil.test", "one.wild.test"}
		c.ExcludedEmailAddresses, c.ExcludedURIDomains = []string{"evil.test"}, []string{"evil.test"}
	})
	add("36-excluded", without, true, false, names("a.evil.test"))
	add("36-excluded-case", without, true, false, names("A.EVIL.Test"))
	add("36-excluded-wildcard", without, true, false, names("*.wild.test"))
	add("38-excluded-email", without, true, false, func(c *x509.Certificate) { c.EmailAddresses = []string{"a@EVIL.test"} })
	add("38-excluded-uri", without, true, false, func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "evil.test", Path: "/a"}} })
	add("38-other-names", without, true, true, func(c *x509.Certificate) {
		c.EmailAddresses, c.URIs = []string{"a@fine.test"}, []*url.URL{{Scheme: "https", Host: "fine.test"}}
	})

	// 37: names that break lines, lists and comparisons. Under each there is a registered client and a stranger.
	for i, cn := range []string{"gold\x00.evil", "gold,O=x", `go"ld`, "gold\r\nX-Sallyport-Client: gold", "go_ld", "\u202edlog", "gold; DROP TABLE", "%67old", strings.Repeat("n", 8<<10)} {
		subject := func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: cn} }
		add(fmt.Sprintf("37-odd-name-%d", i), root, true, true, subject).big = len(cn) > 1000
		add(fmt.Sprintf("37-stranger-%d", i), root, false, false, subject).big = len(cn) > 1000
	}

	// 39, 40: sizes and kinds of keys.
	add("39-names", root, true, true, names(strings.Split(strings.Repeat("a.many.test,", 100)+"a.many.test", ",")...))
	many := make([]string, 2500)
	for i := range many {
		many[i] = fmt.Sprintf("a%d.many.test", i)
	}
	tooMany := add("39-too-many-names", root, false, false, names(many...))
	tooMany.big, tooMany.breaks = true, true // more than limits.certificateBytes
	long := add("39-long-chain", stray, true, false)
	for range 99 {
		long.chain = append(long.chain, stray.Cert)
	}
	long.breaks = true
	odd := func(name string, key crypto.Signer, good bool, change ...func(*x509.Certificate)) *specimen {
		list = append(list, specimen{name: name, der: root.IssueDER(named(name, key, change)), key: key, registered: true, good: good, breaks: !good})
		return &list[len(list)-1]
	}
	odd("40-ed25519", testpki.NewEd25519(t), true)
	odd("40-rsa-2048", testpki.NewRSA(t, 2048), true)
	odd("40-rsa-1024", testpki.NewRSA(t, 1024), false)
	odd("40-p224", testpki.NewEC(t, elliptic.P224()), false)
	huge := new(big.Int).Lsh(big.NewInt(1), 16383)
	odd("40-rsa-16384", oddKey{&rsa.PublicKey{N: huge.Add(huge, big.NewInt(1)), E: 65537}}, false)
	sha1 := add("40-sha1", root, true, false, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 })
	sha1.breaks = true

	// 41: malformed certificates, none of which can be registered.
	malformed := func(name string, der []byte) {
		list = append(list, specimen{name: name, der: der, key: testpki.NewKey(t), breaks: true, big: len(der) > 8<<10})
	}
	sound := root.Issue(testpki.Leaf{CommonName: "sound"}).Cert.Raw
	malformed("41-nested", bytes.Repeat([]byte{0x30, 0x80}, 5000))
	malformed("41-cut", sound[:len(sound)/2])
	malformed("41-trailing", append(bytes.Clone(sound), 0))
	malformed("41-empty-sequence", []byte{0x30, 0})
	key := testpki.NewKey(t)
	negative := root.IssueDER(testpki.Leaf{CommonName: "negative", Key: key, Change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0x5a5a5a5a) }})
	list = append(list, specimen{name: "41-negative-serial", key: key, breaks: true, der: bytes.Replace(negative, []byte{2, 4, 0x5a, 0x5a, 0x5a, 0x5a}, []byte{2, 4, 0xda, 0x5a, 0x5a, 0x5a}, 1)})
	add("41-extension-twice", root, false, false, func(c *x509.Certificate) {
		e := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}}
		c.ExtraExtensions = []pkix.Extension{e, e}
	}).breaks = true
	add("41-critical-unknown", root, true, false, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 5}, Critical: true, Value: []byte{5, 0}}}
	})

	// A critical name that is not used here does no harm if it is known (RFC 5280 4.2.1.6).
	principal := func(id ...int) func(*x509.Certificate) {
		name, err := asn1.MarshalWithParams(struct {
			ID    asn1.ObjectIdentifier
			Value string `asn1:"explicit,tag:0,utf8"`
		}{id, "ann@corp.test"}, "tag:0")
		if err != nil {
			t.Fatal(err)
		}
		value, err := asn1.Marshal([]asn1.RawValue{{FullBytes: name}})
		if err != nil {
			t.Fatal(err)
		}
		return func(c *x509.Certificate) {
			c.Subject = pkix.Name{}
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: value}}
		}
	}
	add("41-critical-principal", root, true, true, principal(1, 3, 6, 1, 4, 1, 311, 20, 2, 3))
	add("41-critical-name", root, true, false, principal(1, 3, 6, 1, 5, 5, 7, 8, 4))

	for i := range list {
		switch list[i].name {
		case "35-may-not-sign", "36-not-permitted", "36-not-permitted-case", "36-permitted-and-not", "36-excluded", "36-excluded-case",
			"36-excluded-wildcard", "38-excluded-email", "38-excluded-uri", "41-critical-unknown":
			list[i].haproxy = true
		}
	}

	// 42: a certificate without its key.
	list = append(list, specimen{name: "42-stolen", der: gold.Raw, key: testpki.NewKey(t), breaks: true, proofless: true})

	return list, []*x509.Certificate{root.Cert, entry.Cert, leaf.Cert, noSign.Cert, ended.Cert, narrow.Cert, without.Cert}
}

// writeTrustStore makes the demonstration trust these entries besides its own CA.
func (d *demoFolder) writeTrustStore(entries []*x509.Certificate) {
	d.t.Helper()
	trusted := append([]*x509.Certificate{d.certificate("ca.crt")}, entries...)
	d.write("stores/client-truststore.jks", d.trustStoreFile("client-truststore", trusted...))
}

// TestBothDoorsDecideAlike presents each certificate of group C in a handshake, in a header, through NGINX and through
// HAProxy. The decision is the same, and the backend's count of calls agrees. What terminates TLS may refuse a bad
// certificate earlier; nothing admits one. Held: security C 28–31, 33–42, D 59.
func TestBothDoorsDecideAlike(t *testing.T) {
	t.Parallel()
	d := newDemo(t)
	list, entries := groupC(d)
	d.writeTrustStore(entries)
	var registrations strings.Builder
	for _, s := range list {
		if s.registered {
			d.write("clients/"+s.name+".der", string(s.der))
			fmt.Fprintf(&registrations, "      - {alias: %q, certificate: %q, tier: Unlimited}\n", s.name, "clients/"+s.name+".der")
		}
	}
	for _, security := range []string{"    security: [mutualssl, oauth2]\n", "    security: [mutualssl]\n"} {
		d.edit("sallyport.yaml", security, security+"    clientCertificates:\n"+registrations.String())
	}
	p := d.quickstart()
	balancers := []balancer{d.nginx(), d.haproxy()}
	token := d.bearer("valid")
	var lbs []door
	for _, how := range dialects {
		lbs = append(lbs, d.byCertificateDoor(how))
	}

	for _, s := range list {
		t.Run(s.name, func(t *testing.T) {
			certificate := &tls.Certificate{Certificate: [][]byte{s.der}, PrivateKey: s.key}
			for _, c := range s.chain {
				certificate.Certificate = append(certificate.Certificate, c.Raw)
			}
			var doors []door
			header := escape(blockOf(s.der))
			for i, how := range dialects {
				at := balancer{"nothing", d.Ports.HTTPS}.as(t, certificate, how)
				at.name = "handshake, " + how.String()
				doors = append(doors, at)
				if !s.proofless && len(header) < 48<<10 {
					doors = append(doors, door{"header, " + how.String(), func(path string, headers ...string) (reply, error) {
						return lbs[i].call(path, append(headers, "X-WSO2-CLIENT-CERTIFICATE", header)...)
					}})
				}
			}
			for _, how := range []dialect{dialects[0], dialects[3]} {
				doors = append(doors, balancers[0].as(t, certificate, how), balancers[1].as(t, certificate, how))
			}
			for _, at := range doors {
				before := d.backendCount()
				payments, orders := at.verdict(t, "/payments/42"), at.verdict(t, "/orders/42", token...)
				calls := d.backendCount() - before - 1
				wantPayments, wantOrders, wantCalls := "900901", "token", 1
				if s.good {
					wantPayments, wantOrders, wantCalls = s.name, s.name, 2
				}
				switch {
				case payments == wantPayments && orders == wantOrders && calls == wantCalls:
				case (s.breaks && !strings.HasPrefix(at.name, "header") || s.haproxy && strings.HasPrefix(at.name, "behind HAProxy")) && payments == "broken" && orders == "broken" && calls == 0:
				case s.big && strings.HasPrefix(at.name, "behind") && isRefused(payments) &&
					(isRefused(orders) && calls == 0 || orders == "token" && calls == 1):
					t.Logf("%s can't hand it on: %s, %s", at.name, payments, orders)
				default:
					t.Errorf("%s: %s and %s with a token, %d calls at the backend; want %s, %s, %d", at.name, payments, orders, calls, wantPayments, wantOrders, wantCalls)
				}
			}
		})
	}
	for line := range strings.Lines(p.stdout.String()) {
		if strings.HasPrefix(line, "X-Sallyport") {
			t.Errorf("a name has broken a line of the log: %q", line)
		}
	}
	p.stop()
}

// isRefused reports whether a verdict is that of a call which nobody has let in.
func isRefused(verdict string) bool {
	return verdict == "900901" || verdict == "900902" || verdict == "broken" || strings.HasPrefix(verdict, "status ")
}

// verdict makes a call and returns its outcome: the alias of the certificate that admitted it, "token", the code of a
// refusal, or "broken" if there was no answer.
func (d door) verdict(t *testing.T, path string, headers ...string) string {
	t.Helper()
	r, err := d.call(path, headers...)
	switch {
	case err != nil:
		return "broken"
	case r.status != http.StatusOK:
		if !strings.HasPrefix(r.header.Get("Content-Type"), "application/json") {
			return fmt.Sprintf("status %d of the load balancer", r.status)
		}
		return r.code(t)
	}
	h := r.echo(t).Headers
	if h.Get("X-Sallyport-Subject") != "" {
		return "token"
	}
	return h.Get("X-Sallyport-Client")
}
