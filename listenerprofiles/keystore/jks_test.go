package keystore

import (
	"crypto/sha1"
	"os"
	"testing"
)

// The digest at the end of a JKS file keeps a fuzzer of Open from what lies behind it.
func FuzzJKS(f *testing.F) {
	for _, file := range []string{"keys.jks", "trust.jks", "mixed.jks"} {
		data, err := os.ReadFile("testdata/" + file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, size, err := parseJKS(data)
		if err != nil {
			return
		}
		total := 0
		if size+sha1.Size > len(data) {
			t.Errorf("%d bytes and a digest out of %d", size, len(data))
		}
		for _, e := range entries {
			total += len(e.sealed)
			for _, c := range e.certificates {
				total += len(c)
			}
			if e.sealed != nil {
				_, _ = openJKSKey(e.sealed, Ref{Password: "keypass"})
			}
		}
		if total > len(data) {
			t.Errorf("%d bytes out of %d", total, len(data))
		}
	})
}
