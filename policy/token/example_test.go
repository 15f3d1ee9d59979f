package token_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/policy/token"
)

func Example() {
	// What an issuer has: a key, the JWKS that shows its public half, and a token.
	key := ed25519.NewKeyFromSeed([]byte("thirty-two bytes, no secret, yes"))
	x := base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	jwks := filepath.Join(dir, "jwks.json")
	_ = os.WriteFile(jwks, []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"`+x+`"}]}`), 0o600)
	issued := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": "https://issuer.test", "sub": "alice", "scope": "orders:read", "exp": time.Now().Add(time.Hour).Unix(),
	})
	issued.Header["kid"] = "k1"
	raw, _ := issued.SignedString(key)

	v, err := token.New(token.Options{KeyManagers: []token.KeyManager{
		{Name: "resident", Type: "default", Issuer: "https://issuer.test", JWKS: jwks},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, err := v.Verify(context.Background(), raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(claims.Subject, claims.Scopes)

	_, known := v.Cached(raw)
	fmt.Println("cached:", known)

	_, err = v.Verify(context.Background(), raw+"x")
	fmt.Println("changed:", errors.Is(err, token.ErrInvalid))
	// Output:
	// alice [orders:read]
	// cached: true
	// changed: true
}
