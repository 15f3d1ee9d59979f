//go:build !race

package revocation

import (
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
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

// TestAllocLargeList counts all that is allocated while a CRL of 50 MB is loaded with the collector off, so that the figure
// is the most that it can ever take, garbage and all.
func TestAllocLargeList(t *testing.T) {
	der, ca := large()
	leaf := ca.Issue(testpki.Leaf{})
	asPEM := pem.EncodeToMemory(&pem.Block{Type: pemLabel, Bytes: der})
	dir := t.TempDir()
	for name, data := range map[string][]byte{"DER": der, "PEM": asPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	announced := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(der)))
		_, _ = w.Write(der)
	})
	chunked := serving(t, content(asPEM))
	for name, at := range map[string]string{
		"file":             filepath.Join(dir, "DER"),
		"file, PEM":        filepath.Join(dir, "PEM"),
		"address":          announced.URL,
		"address, unknown": chunked.URL,
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, Options{Budget: time.Minute})
			runtime.GC()
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c := r.checker(Policy{CRL: []string{at}})
			if a := asked(c, path(leaf, ca)); a.Status != Good {
				t.Fatalf("%+v", a)
			}
			runtime.ReadMemStats(&after)
			taken := after.TotalAlloc - before.TotalAlloc
			runtime.GC()
			runtime.ReadMemStats(&after)
			t.Logf("%d bytes, %d entries: %d MiB allocated, %d MiB kept",
				len(der), r.State()[0].Entries, taken>>20, int64(after.HeapAlloc-before.HeapAlloc)>>20)
			if taken > 100<<20 {
				t.Errorf("%d MiB are allocated", taken>>20)
			}
		})
	}
}
