package trust_test

import (
	"bytes"
	"crypto/x509"
	"testing"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// verified returns a trust store with one root, and a chain of leaf and intermediate that it has verified.
func verified(t testing.TB) (*trust.Anchors, []*x509.Certificate) {
	t.Helper()
	root := testpki.NewCA(t, "root")
	leaf := root.IssueCA("intermediate", func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, 1, 0) }).Issue(testpki.Leaf{})
	anchors, err := trust.New([]*x509.Certificate{root.Cert})
	if err != nil {
		t.Fatal(err)
	}
	chain := leaf.Chain()
	if _, err := verifyBy(anchors, chain, now); err != nil {
		t.Fatal(err)
	}
	return anchors, chain
}

// TestVerifiedChains checks that a remembered verification counts for exactly that chain, and while every certificate of
// it is valid.
func TestVerifiedChains(t *testing.T) {
	anchors, chain := verified(t)
	first, _ := verifyBy(anchors, chain, now)
	if again, err := verifyBy(anchors, chain, now.AddDate(0, 0, 20)); err != nil || again != first {
		t.Errorf("again: %v, %v; before: %v", again, err, first)
	}
	if _, err := verifyBy(anchors, chain, now.AddDate(0, 2, 0)); err == nil {
		t.Error("good though its intermediate has expired")
	}
	if _, err := verifyBy(anchors, chain[:1], now); err == nil {
		t.Error("good without its intermediate")
	}
	forged := bytes.Clone(chain[0].Raw)
	forged[len(forged)-1] ^= 1 // of the signature
	cert, err := x509.ParseCertificate(forged)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyBy(anchors, []*x509.Certificate{cert, chain[1]}, now); err == nil {
		t.Error("good with another signature")
	}
	other, err := trust.New([]*x509.Certificate{testpki.NewCA(t, "other").Cert})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyBy(other, chain, now); err == nil {
		t.Error("good for another trust")
	}
}

// BenchmarkVerify measures a chain that was verified before.
func BenchmarkVerify(b *testing.B) {
	anchors, chain := verified(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verifyBy(anchors, chain, now); err != nil {
			b.Fatal(err)
		}
	}
}
