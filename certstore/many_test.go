//go:build !race

package certstore_test

import (
	"fmt"
	"testing"

	"sallyport/certstore"
)

// TestAllocAddBesideMany: to add a client costs the same, however many an API has. Reading all its certificates for each
// new one would cost thousands of allocations more.
func TestAllocAddBesideMany(t *testing.T) {
	s := open(t, "sqlite::memory:", certstore.Options{})
	one := newClient(t, "one more")
	cost := func() float64 {
		return testing.AllocsPerRun(10, func() {
			add(t, s, one)
			if err := s.Remove(t.Context(), orders, "", one.Alias); err != nil {
				t.Fatal(err)
			}
		})
	}
	alone := cost()
	for i := range 500 {
		add(t, s, newClient(t, fmt.Sprint("alias", i)))
	}
	if beside := cost(); beside > alone+100 {
		t.Errorf("%v allocations beside 500 clients, %v alone", beside, alone)
	}
}
