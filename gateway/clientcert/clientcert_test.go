package clientcert_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles/keystore"
)

var (
	noon = time.Date(2031, 2, 3, 12, 0, 0, 0, time.UTC)
	day  = 24 * time.Hour
)

type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (by *issuer) issue(t testing.TB, from, until time.Time, change ...func(*x509.Certificate)) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(from.Unix()), Subject: pkix.Name{CommonName: "c"}, NotBefore: from, NotAfter: until, BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{cert, key}
}

func isCA(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

func trusting(t testing.TB, list ...*issuer) *keystore.Trust {
	t.Helper()
	var certs []*x509.Certificate
	for _, i := range list {
		certs = append(certs, i.cert)
	}
	trust, err := keystore.NewTrust(certs)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// TestFromHandshake: what a certificate is worth at a later moment is known without another look at its chain.
func TestFromHandshake(t *testing.T) {
	var nobody *issuer
	root := nobody.issue(t, noon.Add(-100*day), noon.Add(100*day), isCA)
	inter := root.issue(t, noon.Add(-10*day), noon.Add(5*day), isCA)
	leaf := inter.issue(t, noon.Add(-2*day), noon.Add(10*day))
	direct := root.issue(t, noon.Add(-2*day), noon.Add(2*day))
	other := nobody.issue(t, noon.Add(-100*day), noon.Add(100*day), isCA)
	trust := trusting(t, root)

	for _, c := range []struct {
		name  string
		chain []*issuer
		trust *keystore.Trust
		made  time.Time // when the handshake was
		at    time.Duration
		good  bool
	}{
		{"direct", []*issuer{direct}, trust, noon, 0, true},
		{"in its last second", []*issuer{direct}, trust, noon, 2 * day, true},
		{"a moment later", []*issuer{direct}, trust, noon, 2*day + 1, false},
		{"by way of another", []*issuer{leaf, inter}, trust, noon, 5 * day, true},
		{"whose end is its end", []*issuer{leaf, inter}, trust, noon, 5*day + 1, false},
		{"which is missing", []*issuer{leaf}, trust, noon, 0, false},
		{"clock set back", []*issuer{direct}, trust, noon, -3 * day, false},
		{"expired in the handshake", []*issuer{direct}, trust, noon.Add(3 * day), 0, false},
		{"another root", []*issuer{direct}, trusting(t, other), noon, 0, false},
		{"itself an entry", []*issuer{direct}, trusting(t, direct), noon, 0, true},
		{"no trust store", []*issuer{direct}, nil, noon, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var chain []*x509.Certificate
			for _, i := range c.chain {
				chain = append(chain, i.cert)
			}
			got := clientcert.FromHandshake(chain, c.trust, c.made)
			if got.Leaf != chain[0] || got.Fingerprint != sha256.Sum256(chain[0].Raw) {
				t.Error("it is another certificate")
			}
			if err := got.Check(noon.Add(c.at)); (err == nil) != c.good {
				t.Errorf("Check: %v", err)
			}
		})
	}
	if got := clientcert.FromHandshake(nil, trust, noon); got != nil {
		t.Errorf("without a certificate: %v", got)
	}
}
