package control

import (
	"fmt"
	"path/filepath"
	"testing"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
)

// BenchmarkChange is one registration that comes and goes beside 100,000 for 1,000 APIs.
func BenchmarkChange(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store.db")
	url := "sqlite:" + path
	other, err := certstore.Open(b.Context(), url, certstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer other.Close()
	var apis []certstore.API
	for i := range 1000 {
		apis = append(apis, certstore.API{Name: fmt.Sprint("many", i), Version: "1.0.0"})
	}
	certstoretest.Fill(b, path, 100_000, apis...)
	bed := newBed(b, func(b *bed, _ *Options) { b.spec.Load().Store.Value.URL = url })
	one := client("one", bed.second)
	for b.Loop() {
		if err := other.Add(b.Context(), one); err != nil {
			b.Fatal(err)
		}
		bed.lookAtStore(b.Context(), false)
		if err := other.Remove(b.Context(), one.API, one.KeyType, one.Alias); err != nil {
			b.Fatal(err)
		}
		bed.lookAtStore(b.Context(), false)
	}
	defer bed.Close()
	if n := len(bed.InForce().Clients.All()); n != 100_000 {
		b.Errorf("%d registrations are in force", n)
	}
}
