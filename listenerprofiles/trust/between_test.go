package trust

import (
	"crypto/x509"
	"testing"

	"sallyport/internal/testpki"
)

// TestIntermediatesAreFoundOnce: what may stand between is found once without registered CAs, once with them, and once with
// those before, though all are asked for by turns.
func TestIntermediatesAreFoundOnce(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	a, err := New([]*x509.Certificate{root.Cert})
	if err != nil {
		t.Fatal(err)
	}
	registered := NewIssuers([]*x509.Certificate{root.IssueCA("Issuer").Cert})
	next := NewIssuers(registered.certs)
	none, some, more := a.intermediates(nil), a.intermediates(registered), a.intermediates(next)
	for range 3 {
		if a.intermediates(nil) != none || a.intermediates(registered) != some || a.intermediates(next) != more {
			t.Fatal("they are found anew")
		}
	}
	for range 3 {
		third := a.intermediates(NewIssuers(registered.certs))
		if third == some || third == more || a.intermediates(registered) == third || a.intermediates(next) == third || a.intermediates(nil) != none {
			t.Error("one set of registered CAs is taken for another")
		}
	}
	if len(none.certs) != 0 || len(some.certs) != 1 {
		t.Errorf("%d and %d", len(none.certs), len(some.certs))
	}
}
