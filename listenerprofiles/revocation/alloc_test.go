//go:build !race

package revocation

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

func TestAllocStatus(t *testing.T) {
	for name, make := range warm(t) {
		t.Run(name, func(t *testing.T) {
			c, ids := make()
			p := path(ids[0], ids[1:]...)
			if a := asked(c, p); a.Status != Good {
				t.Fatalf("%+v", a)
			}
			now := time.Now()
			if n := testing.AllocsPerRun(1000, func() { c.Status(p, now) }); n > 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// TestAllocLargeList counts all that is allocated while a CRL of 50 MB is loaded with the collector off,
// so that the figure is the most that it can ever take, garbage and all.
func TestAllocLargeList(t *testing.T) {
	der, ca := large()
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"DER": der,
		"PEM": pem.EncodeToMemory(&pem.Block{Type: pemLabel, Bytes: der}),
	} {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"DER", "PEM"} {
		t.Run(name, func(t *testing.T) {
			runtime.GC()
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := New(Options{})
			c, err := r.Checker(Policy{CRL: []string{filepath.Join(dir, name)}})
			if err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			taken := after.TotalAlloc - before.TotalAlloc
			runtime.GC()
			runtime.ReadMemStats(&after)
			t.Logf("%d bytes, %d entries: %d MiB allocated, %d MiB kept", len(der), r.State()[0].Entries, taken>>20, (after.HeapAlloc-before.HeapAlloc)>>20)
			if taken > 100<<20 {
				t.Errorf("%d MiB are allocated", taken>>20)
			}
			leaf := ca.Issue(testpki.Leaf{})
			if a := c.Status(path(leaf, ca), time.Now()); a.Status != Good {
				t.Errorf("%+v", a)
			}
		})
	}
}
