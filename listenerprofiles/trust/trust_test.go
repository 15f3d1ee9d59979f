package trust_test

import (
	"crypto/dsa" //lint:ignore SA1019 the test checks that its keys are refused
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/trust"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// named is a leaf without the extension for extended key usages.
func named(commonName string) testpki.Leaf {
	return testpki.Leaf{CommonName: commonName, Usages: testpki.NoUsages}
}

// changed is named with a change to its template.
func changed(commonName string, change func(*x509.Certificate)) testpki.Leaf {
	leaf := named(commonName)
	leaf.Change = change
	return leaf
}

func chain(of ...*testpki.Identity) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, i := range of {
		certs = append(certs, i.Cert)
	}
	return certs
}

func TestVerify(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	middle := root.IssueCA("Middle")
	leaf := middle.Issue(named("client"))
	listed := testpki.SelfSigned(t, named("listed")) // self-signed, and an entry of the store itself
	unknownUsage := testpki.SelfSigned(t, changed("unknown usage", func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3, 4}} }))
	usage := func(list ...x509.ExtKeyUsage) testpki.Leaf { return testpki.Leaf{CommonName: "usage", Usages: list} }
	listedServer := testpki.SelfSigned(t, usage(x509.ExtKeyUsageServerAuth))
	listedClient := testpki.SelfSigned(t, usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth))
	past := testpki.Leaf{CommonName: "past", NotAfter: now.Add(-time.Second)}
	future := testpki.Leaf{CommonName: "future", NotBefore: now.Add(time.Second)}
	listedPast, listedFuture := testpki.SelfSigned(t, past), testpki.SelfSigned(t, future)
	signing := testpki.NewCA(t, "Signing", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })
	anchors, err := trust.New(chain(root, signing, listed, unknownUsage, listedServer, listedClient, listedPast, listedFuture))
	if err != nil {
		t.Fatal(err)
	}

	otherRoot := testpki.NewCA(t, "Root") // the same name, another key
	sameKey := testpki.SelfSigned(t, testpki.Leaf{
		CommonName: "somebody else",
		Key:        listed.Key,
		Usages:     testpki.NoUsages,
		Change:     func(c *x509.Certificate) { c.AuthorityKeyId = leaf.Cert.AuthorityKeyId },
	})
	sameNames := testpki.SelfSigned(t, changed("listed", func(c *x509.Certificate) { c.SerialNumber = listed.Cert.SerialNumber }))
	evil := testpki.NewCA(t, "Root Evil")
	byLeaf := leaf.Issue(named("by a leaf"))
	byListed := listed.Issue(named("by a listed leaf"))
	noSign := root.IssueCA("no keyCertSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	short := root.IssueCA("short", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := short.IssueCA("below short")
	old := root.IssueCA("old", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) })
	narrow := root.IssueCA("narrow", func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical = true
		c.PermittedDNSDomains = []string{"good.test"}
		c.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}}
	})
	dns := func(name string) *testpki.Identity {
		return narrow.Issue(changed(name, func(c *x509.Certificate) { c.DNSNames = []string{name} }))
	}
	weak := testpki.Leaf{CommonName: "weak", Usages: testpki.NoUsages, Key: testpki.NewRSA(t, 1024)}
	p224 := testpki.Leaf{CommonName: "p224", Usages: testpki.NoUsages, Key: testpki.NewEC(t, elliptic.P224())}
	strange := *leaf.Cert
	strange.PublicKey = &dsa.PublicKey{}
	huge, hugeMiddle := *leaf.Cert, *middle.Cert
	huge.PublicKey = &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 16383), E: 65537}
	hugeMiddle.PublicKey = huge.PublicKey
	critical := root.Issue(changed("critical", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	}))
	many := chain(leaf, middle)
	for len(many) <= keystore.MaxChain {
		many = append(many, otherRoot.Cert)
	}

	tests := []struct {
		name  string
		chain []*x509.Certificate
		good  bool
	}{
		{"chains to an entry", chain(leaf, middle), true},
		{"chains to an entry, with the root and strangers behind", chain(leaf, otherRoot, middle, root), true},
		{"without the intermediate", chain(leaf), false},
		{"is an entry", chain(listed), true},
		{"is an entry: a CA that signs certificates alone", chain(root), false},
		{"is an entry: a CA that also signs", chain(signing), true},
		{"nothing", nil, false},
		{"a nil certificate", []*x509.Certificate{nil}, false},
		{"too many certificates", many, false},

		{"C28: an entry's subject, issuer and serial with another key", chain(sameNames), false},
		{"C28: a root of the same name with another key", chain(otherRoot.Issue(named("client")), otherRoot), false},
		{"C29: an entry's key under another name", chain(sameKey), false},
		{"C31: an issuer whose name contains a trusted one", chain(evil.Issue(named("client")), evil), false},
		{"C32: a stranger first, an entry second", chain(sameNames, listed), false},
		{"C32: a stranger first, a good leaf second", chain(evil, leaf, middle), false},
		{"C32: an entry first, a stranger second", chain(listed, sameNames), true},

		{"C33: server usage only", chain(root.Issue(usage(x509.ExtKeyUsageServerAuth))), false},
		{"C33: email usage only", chain(root.Issue(usage(x509.ExtKeyUsageEmailProtection))), false},
		{"C33: client usage", chain(root.Issue(usage(x509.ExtKeyUsageClientAuth))), true},
		{"C33: any usage", chain(root.Issue(usage(x509.ExtKeyUsageAny))), true},
		{"C33: an entry with server usage only", chain(listedServer), false},
		{"C33: an entry with server and client usage", chain(listedClient), true},
		{"C33: an entry with an unknown usage only", chain(unknownUsage), false},

		{"C34: expired", chain(root.Issue(past)), false},
		{"C34: not yet valid", chain(root.Issue(future)), false},
		{"C34: an expired entry", chain(listedPast), false},
		{"C34: an entry not yet valid", chain(listedFuture), false},
		{"C34: an expired intermediate", chain(old.Issue(named("client")), old), false},

		{"C35: signed by a leaf", chain(byLeaf, leaf, middle), false},
		{"C35: signed by an entry that is a leaf", chain(byListed, listed), false},
		{"C35: path length exceeded", chain(below.Issue(named("client")), below, short), false},
		{"C35: CA without keyCertSign", chain(noSign.Issue(named("client")), noSign), false},

		{"C36: name constraints kept", chain(dns("a.good.test"), narrow), true},
		{"C36: name constraints kept in capitals", chain(dns("A.GOOD.TEST"), narrow), true},
		{"C36: outside of the permitted names", chain(dns("a.bad.test"), narrow), false},
		{"C36: a wildcard outside of the permitted names", chain(dns("*.test"), narrow), false},
		{"C36: an excluded address", chain(narrow.Issue(changed("ip", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 2, 3)} })), narrow), false},

		{"C40: RSA of 1024 bits", chain(root.Issue(weak)), false},
		{"C40: RSA of 16384 bits", []*x509.Certificate{&huge, middle.Cert}, false},
		{"C40: an intermediate with RSA of 16384 bits", []*x509.Certificate{leaf.Cert, &hugeMiddle}, false},
		{"C40: curve P-224", chain(root.Issue(p224)), false},
		{"C40: a DSA key", []*x509.Certificate{&strange, middle.Cert}, false},
		{"an unknown critical extension", chain(critical), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			anchors, err := trust.New(anchors.Certificates()) // for each chain, since it remembers chains by their bytes, and some differ only in the parsed fields
			if err != nil {
				t.Fatal(err)
			}
			v, err := verifyBy(anchors, tt.chain, now)
			if (err == nil) != tt.good {
				t.Fatalf("got %v, want good = %v", err, tt.good)
			}
			if v.Contains(now) != tt.good {
				t.Errorf("validity %v with good = %v", v, tt.good)
			}
		})
	}
	if _, err := verifyBy(nil, chain(leaf), now); trust.CauseOf(err) != trust.Untrusted {
		t.Errorf("a nil anchors: %v", err)
	}
}

// Neither an empty list nor a store without trusted certificates means "trust everybody".
func TestEmpty(t *testing.T) {
	if anchors, err := trust.New(nil); !errors.Is(err, keystore.ErrEmpty) || anchors != nil {
		t.Errorf("New(nil): got %v, %v", anchors, err)
	}
	leaf := testpki.NewCA(t, "Root").Issue(named("server"))
	for _, data := range [][]byte{nil, leaf.KeyPEM(), testpki.TrustJKS(t, "changeit")} {
		if anchors, err := trust.Open(data, keystore.Ref{Password: "changeit"}); err == nil || anchors != nil {
			t.Errorf("%.40q: got %v, %v", data, anchors, err)
		}
	}
}

func TestValidity(t *testing.T) {
	year := func(from, until int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.NotBefore = time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC)
			c.NotAfter = time.Date(until, 1, 1, 0, 0, 0, 0, time.UTC)
		}
	}
	root := testpki.NewCA(t, "Root", year(2000, 2060))
	shortly := root.IssueCA("Middle", year(2025, 2031))
	renewed := changed("Middle", func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		year(2029, 2035)(c)
	})
	renewed.Key = shortly.Key
	longer := root.Issue(renewed)
	leaf := longer.Issue(changed("leaf", year(2028, 2040)))
	anchors, err := trust.New(chain(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name        string
		chain       []*x509.Certificate
		from, until int
	}{
		{"the chain that ends last", chain(leaf, shortly, longer), 2029, 2035},
		{"the same in another order", chain(leaf, longer, shortly), 2029, 2035},
		{"the only chain", chain(leaf, shortly), 2028, 2031},
	} {
		got, err := verifyBy(anchors, tt.chain, now)
		if err != nil {
			t.Fatal(err)
		}
		if got.From.Year() != tt.from || got.Until.Year() != tt.until {
			t.Errorf("%s: got %v", tt.name, got)
		}
		for at, want := range map[time.Time]bool{
			got.From: true, got.From.Add(-1): false, got.Until: false, got.Until.Add(-1): true,
		} {
			if _, err := verifyBy(anchors, tt.chain, at); tt.name == "the only chain" && (err == nil) != want {
				t.Errorf("%s: at %v: %v", tt.name, at, err)
			}
			if got.Contains(at) != want {
				t.Errorf("%s: Contains(%v) = %v", tt.name, at, !want)
			}
		}
	}
	itself, err := trust.New(chain(leaf, root))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := verifyBy(itself, chain(leaf, shortly), now); err != nil || got.Until.Year() != 2040 {
		t.Errorf("a listed leaf has its own validity: %v, %v", got, err)
	}
}

// The system's roots are never trusted, whatever the trust store holds.
func TestSystemRootsAreNotTrusted(t *testing.T) {
	system := testpki.NewCA(t, "System")
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, system.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	leaf := system.Issue(named("client"))
	if _, err := leaf.Cert.Verify(x509.VerifyOptions{CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Skipf("this system takes its roots from elsewhere: %v", err)
	}
	anchors, err := trust.New(chain(testpki.NewCA(t, "Own")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyBy(anchors, chain(leaf, system), now); err == nil {
		t.Error("a certificate under a system root is accepted")
	}
}
