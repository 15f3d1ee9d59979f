package keystore_test

import (
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 its keys are to be refused
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/listenerprofiles/keystore"
)

// An authority is a certificate and its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate out of template, valid for a year around now unless it says otherwise; by == nil is self-signed.
func issue(t testing.TB, template x509.Certificate, key crypto.Signer, by *authority) *authority {
	t.Helper()
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(4711)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = now.AddDate(0, -6, 0)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = now.AddDate(0, 6, 0)
	}
	parent, signer := &template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func named(cn string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: cn}, BasicConstraintsValid: true}
}

func ca(cn string) x509.Certificate {
	c := named(cn)
	c.IsCA = true
	c.KeyUsage = x509.KeyUsageCertSign
	return c
}

func with(c x509.Certificate, change func(*x509.Certificate)) x509.Certificate {
	change(&c)
	return c
}

func chain(of ...*authority) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, a := range of {
		certs = append(certs, a.cert)
	}
	return certs
}

func TestVerify(t *testing.T) {
	root := issue(t, ca("Root"), newKey(t), nil)
	middle := issue(t, ca("Middle"), newKey(t), root)
	leaf := issue(t, named("client"), newKey(t), middle)
	listed := issue(t, named("listed"), newKey(t), nil) // self-signed, itself in the store
	usage := func(name string, by *authority, usages ...x509.ExtKeyUsage) *authority {
		return issue(t, with(named(name), func(c *x509.Certificate) { c.ExtKeyUsage = usages }), newKey(t), by)
	}
	unknownUsage := issue(t, with(named("unknown usage"), func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3, 4}} }), newKey(t), nil)
	listedServer := usage("listed server", nil, x509.ExtKeyUsageServerAuth)
	listedClient := usage("listed client", nil, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	past := func(by *authority) *authority {
		return issue(t, with(named("past"), func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), newKey(t), by)
	}
	future := func(by *authority) *authority {
		return issue(t, with(named("future"), func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }), newKey(t), by)
	}
	listedPast, listedFuture := past(nil), future(nil)
	trust, err := keystore.NewTrust(chain(root, listed, unknownUsage, listedServer, listedClient, listedPast, listedFuture))
	if err != nil {
		t.Fatal(err)
	}

	otherRoot := issue(t, ca("Root"), newKey(t), nil) // the same name, another key
	sameKey := issue(t, with(named("somebody else"), func(c *x509.Certificate) { c.AuthorityKeyId = leaf.cert.AuthorityKeyId }), listed.key, nil)
	sameNames := issue(t, with(named("listed"), func(c *x509.Certificate) { c.SerialNumber = listed.cert.SerialNumber }), newKey(t), nil)
	evil := issue(t, ca("Root Evil"), newKey(t), nil)
	byLeaf := issue(t, named("by a leaf"), newKey(t), leaf)
	byListed := issue(t, named("by a listed leaf"), newKey(t), listed)
	noSign := issue(t, with(ca("no keyCertSign"), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), newKey(t), root)
	short := issue(t, with(ca("short"), func(c *x509.Certificate) { c.MaxPathLenZero = true }), newKey(t), root)
	below := issue(t, ca("below short"), newKey(t), short)
	old := issue(t, with(ca("old"), func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), newKey(t), root)
	narrow := issue(t, with(ca("narrow"), func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical = true
		c.PermittedDNSDomains = []string{"good.test"}
		c.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}}
	}), newKey(t), root)
	dns := func(name string) *authority {
		return issue(t, with(named(name), func(c *x509.Certificate) { c.DNSNames = []string{name} }), newKey(t), narrow)
	}
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strange := *leaf.cert
	strange.PublicKey = &dsa.PublicKey{}
	huge, hugeMiddle := *leaf.cert, *middle.cert
	huge.PublicKey = &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 16383), E: 65537}
	hugeMiddle.PublicKey = huge.PublicKey
	critical := issue(t, with(named("critical"), func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	}), newKey(t), root)
	many := chain(leaf, middle)
	for len(many) <= keystore.MaxChain {
		many = append(many, otherRoot.cert)
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
		{"is an entry: the CA itself", chain(root), true},
		{"nothing", nil, false},
		{"a nil certificate", []*x509.Certificate{nil}, false},
		{"too many certificates", many, false},

		{"C28: an entry's subject, issuer and serial with another key", chain(sameNames), false},
		{"C28: a root of the same name with another key", chain(issue(t, named("client"), newKey(t), otherRoot), otherRoot), false},
		{"C29: an entry's key under another name", chain(sameKey), false},
		{"C31: an issuer whose name contains a trusted one", chain(issue(t, named("client"), newKey(t), evil), evil), false},
		{"C32: a stranger first, an entry second", chain(sameNames, listed), false},
		{"C32: a stranger first, a good leaf second", chain(evil, leaf, middle), false},
		{"C32: an entry first, a stranger second", chain(listed, sameNames), true},

		{"C33: server usage only", chain(usage("s", root, x509.ExtKeyUsageServerAuth)), false},
		{"C33: email usage only", chain(usage("e", root, x509.ExtKeyUsageEmailProtection)), false},
		{"C33: client usage", chain(usage("c", root, x509.ExtKeyUsageClientAuth)), true},
		{"C33: any usage", chain(usage("a", root, x509.ExtKeyUsageAny)), true},
		{"C33: an entry with server usage only", chain(listedServer), false},
		{"C33: an entry with server and client usage", chain(listedClient), true},
		{"C33: an entry with an unknown usage only", chain(unknownUsage), false},

		{"C34: expired", chain(past(root)), false},
		{"C34: not yet valid", chain(future(root)), false},
		{"C34: an expired entry", chain(listedPast), false},
		{"C34: an entry not yet valid", chain(listedFuture), false},
		{"C34: an expired intermediate", chain(issue(t, named("client"), newKey(t), old), old), false},

		{"C35: signed by a leaf", chain(byLeaf, leaf, middle), false},
		{"C35: signed by an entry that is a leaf", chain(byListed, listed), false},
		{"C35: path length exceeded", chain(issue(t, named("client"), newKey(t), below), below, short), false},
		{"C35: CA without keyCertSign", chain(issue(t, named("client"), newKey(t), noSign), noSign), false},

		{"C36: name constraints kept", chain(dns("a.good.test"), narrow), true},
		{"C36: name constraints kept in capitals", chain(dns("A.GOOD.TEST"), narrow), true},
		{"C36: outside of the permitted names", chain(dns("a.bad.test"), narrow), false},
		{"C36: a wildcard outside of the permitted names", chain(dns("*.test"), narrow), false},
		{"C36: an excluded address", chain(issue(t, with(named("ip"), func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 2, 3)} }), newKey(t), narrow), narrow), false},

		{"C40: RSA of 1024 bits", chain(issue(t, named("weak"), weakKey, root)), false},
		{"C40: RSA of 16384 bits", []*x509.Certificate{&huge, middle.cert}, false},
		{"C40: an intermediate with RSA of 16384 bits", []*x509.Certificate{leaf.cert, &hugeMiddle}, false},
		{"C40: curve P-224", chain(issue(t, named("p224"), p224, root)), false},
		{"C40: a DSA key", []*x509.Certificate{&strange, middle.cert}, false},
		{"an unknown critical extension", chain(critical), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			trust, err := keystore.NewTrust(trust.Certificates()) // of its own: some chains differ in what was parsed alone
			if err != nil {
				t.Fatal(err)
			}
			v, err := trust.Verify(tt.chain, now)
			if (err == nil) != tt.good {
				t.Fatalf("got %v, want good = %v", err, tt.good)
			}
			if v.Contains(now) != tt.good {
				t.Errorf("validity %v with good = %v", v, tt.good)
			}
		})
	}
	if _, err := (*keystore.Trust)(nil).Verify(chain(leaf), now); !errors.Is(err, keystore.ErrEmpty) {
		t.Errorf("a nil trust: %v", err)
	}
}

func TestValidity(t *testing.T) {
	year := func(from, until int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.NotBefore = time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC)
			c.NotAfter = time.Date(until, 1, 1, 0, 0, 0, 0, time.UTC)
		}
	}
	rootKey, middleKey := newKey(t), newKey(t)
	root := issue(t, with(ca("Root"), year(2000, 2060)), rootKey, nil)
	shortly := issue(t, with(ca("Middle"), year(2025, 2031)), middleKey, root)
	longer := issue(t, with(ca("Middle"), year(2029, 2035)), middleKey, root) // the same name and key, renewed
	leaf := issue(t, with(named("leaf"), year(2028, 2040)), newKey(t), longer)
	trust, err := keystore.NewTrust(chain(root))
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
		got, err := trust.Verify(tt.chain, now)
		if err != nil {
			t.Fatal(err)
		}
		if got.From.Year() != tt.from || got.Until.Year() != tt.until {
			t.Errorf("%s: got %v", tt.name, got)
		}
		for at, want := range map[time.Time]bool{
			got.From: true, got.From.Add(-1): false, got.Until: false, got.Until.Add(-1): true,
		} {
			if _, err := trust.Verify(tt.chain, at); tt.name == "the only chain" && (err == nil) != want {
				t.Errorf("%s: at %v: %v", tt.name, at, err)
			}
			if got.Contains(at) != want {
				t.Errorf("%s: Contains(%v) = %v", tt.name, at, !want)
			}
		}
	}
	itself, err := keystore.NewTrust(chain(leaf, root))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := itself.Verify(chain(leaf, shortly), now); err != nil || got.Until.Year() != 2040 {
		t.Errorf("a listed leaf has its own validity: %v, %v", got, err)
	}
}

// The system's roots are no part of a trust store, whatever it holds.
func TestSystemRootsAreNotTrusted(t *testing.T) {
	system := issue(t, ca("System"), newKey(t), nil)
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: system.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	leaf := issue(t, named("client"), newKey(t), system)
	if _, err := leaf.cert.Verify(x509.VerifyOptions{CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Skipf("this system takes its roots from elsewhere: %v", err)
	}
	trust, err := keystore.NewTrust(chain(issue(t, ca("Own"), newKey(t), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Verify(chain(leaf, system), now); err == nil {
		t.Error("a certificate under a system root is accepted")
	}
}
