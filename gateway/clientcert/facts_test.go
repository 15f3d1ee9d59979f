package clientcert

import (
	"crypto/x509"
	"slices"
	"sync"
	"testing"

	"sallyport/internal/testpki"
)

// TestFacts: a certificate is read once, whoever asks; one that was not parsed says nothing.
func TestFacts(t *testing.T) {
	leaf := testpki.SelfSigned(t, testpki.Leaf{Change: func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"Payments"} }}).Cert
	c := &Certificate{Leaf: leaf}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if !slices.Equal(c.Facts().OU, []string{"Payments"}) {
				t.Errorf("got %+v", c.Facts())
			}
		})
	}
	all.Wait()
	if first, again := c.Facts(), c.Facts(); first != again {
		t.Error("it is read again")
	}
	if f := Unregistered([32]byte{1}, alone{}).Facts(); f == nil || len(f.OU) > 0 {
		t.Errorf("one that nobody knows says %+v", f)
	}
}
