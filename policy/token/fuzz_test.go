package token_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/policy/token"
)

// FuzzVerify signs what it makes up, so that the checks behind the signature are reached, too.
func FuzzVerify(f *testing.F) {
	// One seed key, so that inputs that were kept mean the same the next time.
	key := ed25519.NewKeyFromSeed([]byte("thirty-two bytes, no secret, yes"))
	now := newClock()
	v := newVerifier(f, token.Options{
		KeyManagers: []token.KeyManager{manager(file(f, "jwks.json", jwks(f, jwkOf(f, key, kid("ed")))))}, Now: now.Now,
	})
	const head = `{"alg":"EdDSA","kid":"ed"}`
	for _, payload := range []string{
		`{"iss":"` + issuerURL + `","exp":4102444800}`,
		`{"iss":"` + issuerURL + `","exp":1,"nbf":2,"iat":3,"aud":["a"],"scope":"a b","sub":"s","azp":"c","jti":"j"}`,
		`{"iss":"` + issuerURL + `","exp":4102444800.5,"nbf":1.7E9,"iat":9e9}`,
		`{"iss":"` + issuerURL + `","exp":1e308}`, `{"exp":1,"exp":2}`, `[]`, `null`, ``, `{"a":[{"b":{}}]}`,
	} {
		f.Add(head, payload, "")
		f.Add(`{"alg":"none"}`, payload, "x")
	}
	f.Add(`{"alg":"EdDSA","typ":"at+jwt","crit":["x"]}`, `{}`, "..")
	f.Fuzz(func(t *testing.T, header, payload, other string) {
		if _, err := v.Verify(t.Context(), other); !errors.Is(err, token.ErrInvalid) {
			t.Fatalf("not signed: %v", err)
		}
		raw := signText(t, jwt.SigningMethodEdDSA, key, header, payload)
		claims, err := v.Verify(t.Context(), raw)
		cached, ok := v.Cached(raw)
		if err != nil {
			if claims != nil || ok || !errors.Is(err, token.ErrInvalid) {
				t.Fatalf("Verify = %v, %v; Cached = %v", claims, err, ok)
			}
			return
		}
		if !ok || cached != claims {
			t.Fatal("a good token is not remembered")
		}
		if claims.Issuer != issuerURL || now.Now().After(claims.Expires.Add(60e9)) {
			t.Fatalf("claims = %+v", claims)
		}
		// Unsigned by the key, the same text is nothing.
		forged := raw[:strings.LastIndexByte(raw, '.')+1] + b64(strings.Repeat("\x00", ed25519.SignatureSize))
		if _, err := v.Verify(t.Context(), forged); !errors.Is(err, token.ErrInvalid) || errors.Is(err, token.ErrExpired) {
			t.Fatalf("forged: %v", err)
		}
	})
}

// FuzzJWKS reads a key set as an issuer might send it.
func FuzzJWKS(f *testing.F) {
	f.Add(jwks(f, jwkOf(f, rsaKey(), kid("a")), jwkOf(f, p256Key(), kid("b")), jwkOf(f, edKey(), kid("c"))))
	f.Add(jwks(f, jwkOf(f, []byte("secret"), kid("a"))))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},null,1,{}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":""},{"kty":"OKP","crv":"X25519","x":"AA"}]}`))
	f.Add([]byte(`<html>`))
	f.Add(publicPEM(f, edKey().Public()))
	f.Fuzz(func(_ *testing.T, content []byte) { token.ParseSources(content) })
}

// FuzzNumericDate compares with arithmetic that never rounds.
func FuzzNumericDate(f *testing.F) {
	for _, s := range []string{"0", "1.5", "1.7E9", "4102444800.999999999", "17000000000000e-4", "253402300799.9", "253402300800", "1e308", "0.0000000001e3", "-1", "NaN", "0e999", "1e+2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, number string) {
		if !json.Valid([]byte(number)) || strings.TrimSpace(number) != number || len(number) > 100 {
			return // the parser of the claims has refused or trimmed it
		}
		got, err := token.Seconds(number)
		if _, exponent, _ := strings.Cut(strings.ToLower(number), "e"); len(exponent) > 3 {
			return // refused, or the comparison would not end
		}
		exact, isNumber := new(big.Rat).SetString(number)
		most := new(big.Rat).SetInt64(253402300800)
		if !isNumber || strings.HasPrefix(number, "-") || exact.Cmp(most) >= 0 {
			if err == nil {
				t.Fatalf("%s is %v", number, got)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", number, err)
		}
		nanoseconds := new(big.Int).Quo(new(big.Int).Mul(exact.Num(), big.NewInt(1e9)), exact.Denom())
		if want := new(big.Int).Add(new(big.Int).Mul(big.NewInt(got.Unix()), big.NewInt(1e9)), big.NewInt(int64(got.Nanosecond()))); want.Cmp(nanoseconds) != 0 {
			t.Fatalf("%s is %v, %v nanoseconds", number, got, nanoseconds)
		}
	})
}
