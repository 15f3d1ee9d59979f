//go:build !race

package clientcert_test

import (
	"testing"

	"sallyport/gateway/clientcert"
)

// TestAllocDoorSeenBefore checks that reading a remembered header allocates nothing.
func TestAllocDoorSeenBefore(t *testing.T) {
	door, r, registered := seenBefore(t)
	var request clientcert.Request = r
	n := testing.AllocsPerRun(1000, func() {
		if got, err := door.Read(request, knows(registered), noon); err != nil || got.Check(noon) != nil {
			t.Fatal(got, err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
