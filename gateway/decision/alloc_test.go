//go:build !race

package decision

import "testing"

// TestAllocDecide: to decide an allowed mTLS call, with a scope and three limits, takes no memory.
func TestAllocDecide(t *testing.T) {
	tab := newTable(t)
	fresh := *tab.exchange
	n := testing.AllocsPerRun(1000, func() {
		if err := tab.decide(&fresh); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if x := tab.exchange; x.Client == nil || x.Client.Alias != "acme" || x.Allowance.Window == 0 {
		t.Errorf("decided as %+v", x)
	}
}
