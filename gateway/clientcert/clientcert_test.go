package clientcert_test

import (
	"crypto/sha256"
	"crypto/x509"
	"testing"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

var (
	noon = time.Date(2031, 2, 3, 12, 0, 0, 0, time.UTC)
	day  = 24 * time.Hour
)

// between is a client certificate that is valid from and until so many days from noon.
func between(from, until int) testpki.Leaf {
	return testpki.Leaf{NotBefore: noon.AddDate(0, 0, from), NotAfter: noon.AddDate(0, 0, until)}
}

// knows are registrations without a CA.
type knows func([sha256.Size]byte) bool

func (k knows) Registered(fingerprint [sha256.Size]byte) bool { return k(fingerprint) }
func (k knows) Issuers() *trust.Issuers                       { return nil }

func nobody([sha256.Size]byte) bool { return false }

func trusting(t testing.TB, list ...*testpki.Identity) *trust.Anchors {
	t.Helper()
	anchors, err := trust.New(certificatesOf(list))
	if err != nil {
		t.Fatal(err)
	}
	return anchors
}

func certificatesOf(list []*testpki.Identity) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, i := range list {
		certs = append(certs, i.Cert)
	}
	return certs
}

// TestFromChain judges a certificate at later moments, for which its chain is not verified again.
func TestFromChain(t *testing.T) {
	root, other := testpki.NewCA(t, "Root"), testpki.NewCA(t, "Other")
	inter := root.IssueCA("Intermediate", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = noon.Add(-10*day), noon.Add(5*day) })
	leaf, direct := inter.Issue(between(-2, 10)), root.Issue(between(-2, 2))
	anchors := trusting(t, root)

	for _, c := range []struct {
		name  string
		chain []*testpki.Identity
		trust *trust.Anchors
		made  time.Time // of the handshake
		at    time.Duration
		good  bool
	}{
		{"direct", []*testpki.Identity{direct}, anchors, noon, 0, true},
		{"in its last second", []*testpki.Identity{direct}, anchors, noon, 2 * day, true},
		{"a moment later", []*testpki.Identity{direct}, anchors, noon, 2*day + 1, false},
		{"by way of another", []*testpki.Identity{leaf, inter}, anchors, noon, 5 * day, true},
		{"whose end is its end", []*testpki.Identity{leaf, inter}, anchors, noon, 5*day + 1, false},
		{"which is missing", []*testpki.Identity{leaf}, anchors, noon, 0, false},
		{"clock set back", []*testpki.Identity{direct}, anchors, noon, -3 * day, false},
		{"expired in the handshake", []*testpki.Identity{direct}, anchors, noon.Add(3 * day), 0, false},
		{"another root", []*testpki.Identity{direct}, trusting(t, other), noon, 0, false},
		{"itself an entry", []*testpki.Identity{direct}, trusting(t, direct), noon, 0, true},
		{"no trust store", []*testpki.Identity{direct}, nil, noon, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain := certificatesOf(c.chain)
			got := clientcert.FromChain(chain, &trust.Rules{Anchors: c.trust, Registered: trust.None}, knows(nobody), true, c.made)
			if got.Leaf != nil && got.Leaf != chain[0] || c.good && got.Leaf == nil || got.Fingerprint != sha256.Sum256(chain[0].Raw) {
				t.Error("got another certificate")
			}
			if err := got.Check(noon.Add(c.at)); (err == nil) != c.good {
				t.Errorf("Check: %v", err)
			}
		})
	}
	if got := clientcert.FromChain(nil, &trust.Rules{Anchors: anchors}, knows(nobody), true, noon); got != nil {
		t.Errorf("without a certificate: %v", got)
	}
}
