package token_test

import (
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func BenchmarkCached(b *testing.B) {
	now := newClock()
	v := edVerifier(b, now)
	raw := edToken(b, kid("ed"), goodClaims(now.Now()))
	if _, err := v.Verify(b.Context(), raw); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := v.Cached(raw); !ok {
			b.Fatal("not cached")
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	f := newFixture(b)
	for _, c := range []struct {
		method jwt.SigningMethod
		key    any
		kid    string
	}{
		{jwt.SigningMethodRS256, rsaKey(), "rsa"},
		{jwt.SigningMethodES256, p256Key(), "p256"},
		{jwt.SigningMethodEdDSA, edKey(), "ed"},
	} {
		b.Run(c.method.Alg(), func(b *testing.B) {
			raw := sign(b, c.method, c.key, kid(c.kid), with(goodClaims(f.Now()), map[string]any{"azp": "shop", "scope": "read write"}))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
