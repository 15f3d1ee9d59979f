package gateway_test

import (
	"slices"
	"testing"
	"time"
)

// TestDenialsTakeAlike: how long a refusal takes does not tell a certificate of an unknown issuer from one that is trusted and
// registered for another API, or for none: the medians of new connections are within ten times the millisecond that they
// may differ. Held: security K 147.
func TestDenialsTakeAlike(t *testing.T) {
	f := newFixture(t)
	who := map[string]*party{"unknown": issue("unknown", nil), "unregistered": f.a2, "registered elsewhere": f.a3}
	took := map[string][]time.Duration{}
	for range 41 {
		for name, p := range who {
			c := f.client(t, p, via{})
			get(t, c, "https://opt.test/pay/1.0/open") // makes the connection
			began := time.Now()
			a := get(t, c, "https://opt.test/pay/1.0/x")
			took[name] = append(took[name], time.Since(began))
			if a.status != 401 {
				t.Fatalf("%s: status %d", name, a.status)
			}
		}
	}
	var medians []time.Duration
	for name, list := range took {
		slices.Sort(list)
		medians = append(medians, list[len(list)/2])
		t.Logf("%s: %v", name, list[len(list)/2])
	}
	if apart := slices.Max(medians) - slices.Min(medians); apart > 10*time.Millisecond {
		t.Errorf("the medians are %v apart", apart)
	}
}
