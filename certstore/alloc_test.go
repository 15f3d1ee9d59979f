//go:build !race

package certstore_test

import (
	"testing"

	"sallyport/certstore"
)

func TestAllocFind(t *testing.T) {
	client := newClient(t, "acme")
	x, err := certstore.NewIndex([]certstore.Client{client})
	if err != nil {
		t.Fatal(err)
	}
	known, unknown := certstore.Fingerprint(client.Certificate), [32]byte{}
	if n := testing.AllocsPerRun(100, func() { x.Find(orders, known); x.Find(orders, unknown) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
