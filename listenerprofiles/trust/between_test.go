package trust

import (
	"crypto/x509"
	"testing"

	"sallyport/internal/testpki"
)

// TestIntermediatesAreFoundOnce: what may stand between is found once with registered CAs and once without, though the two
// are asked for by turns.
func TestIntermediatesAreFoundOnce(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	a, err := New([]*x509.Certificate{root.Cert})
	if err != nil {
		t.Fatal(err)
	}
	registered := NewIssuers([]*x509.Certificate{root.IssueCA("Issuer").Cert})
	none, some := a.intermediates(nil), a.intermediates(registered)
	for range 3 {
		if a.intermediates(nil) != none || a.intermediates(registered) != some {
			t.Fatal("they are found anew")
		}
	}
	if other := a.intermediates(NewIssuers(registered.certs)); other == some || a.intermediates(registered) == other {
		t.Error("one set of registered CAs is taken for another")
	}
	if len(none.certs) != 0 || len(some.certs) != 1 {
		t.Errorf("%d and %d", len(none.certs), len(some.certs))
	}
}
