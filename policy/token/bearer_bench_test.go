package token_test

import (
	"strings"
	"testing"

	"sallyport/policy/token"
)

// BenchmarkBearer is an Authorization header with a token of usual length.
func BenchmarkBearer(b *testing.B) {
	header := "Bearer " + strings.Repeat("eyJhbGciOiJSUzI1NiJ9.", 40)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := token.Bearer(header); err != nil {
			b.Fatal(err)
		}
	}
}
