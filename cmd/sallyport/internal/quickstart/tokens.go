package quickstart

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// What the tokens say. The issuer is a name that never changes: the tokens stay good whatever the ports are.
const (
	issuerName   = "https://localhost:9444/oauth2/token"
	issuerClient = "quickstart"
	defaultScope = "orders:read orders:write"
)

// fillTokens makes the issuer's key and secret, its JWKS, and the three tokens.
func fillTokens(f *folder, now time.Time) error {
	key, err := newTokenKey()
	if err != nil {
		return err
	}
	data, err := keyPEM(key.private)
	if err != nil {
		return err
	}
	if err := f.write(fileIssuerKey, data); err != nil {
		return err
	}
	if err := f.write(fileJWKS, key.jwks()); err != nil {
		return err
	}
	if err := f.write(fileIssuerSecret, []byte(newSecret()+"\n")); err != nil {
		return err
	}

	other, err := newTokenKey()
	if err != nil {
		return err
	}
	other.id = key.id // it claims to be the issuer's key
	year := now.AddDate(tokenYears, 0, 0)
	for _, t := range []struct {
		file     string
		key      *tokenKey
		from, to time.Time
	}{
		{tokenValid, key, now, year},
		{tokenExpired, key, now.AddDate(0, 0, -2), now.AddDate(0, 0, -1)},
		{tokenForged, other, now, year},
	} {
		token, err := t.key.sign(defaultScope, t.from, t.to)
		if err != nil {
			return err
		}
		if err := f.write(t.file, []byte(token+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// A tokenKey signs access tokens with RS256, as WSO2's key manager does.
type tokenKey struct {
	id      string // the key's RFC 7638 thumbprint
	private *rsa.PrivateKey
}

func newTokenKey() (*tokenKey, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making the issuer's key: %w", err)
	}
	return &tokenKey{id: thumbprint(&private.PublicKey), private: private}, nil
}

func parseTokenKey(data []byte) (*tokenKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	return &tokenKey{id: thumbprint(&private.PublicKey), private: private}, nil
}

// sign returns an RFC 9068 access token for the demo's client.
func (k *tokenKey) sign(scope string, from, to time.Time) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss":       issuerName,
		"sub":       issuerClient,
		"aud":       issuerClient,
		"azp":       issuerClient,
		"client_id": issuerClient,
		"scope":     scope,
		"iat":       from.Unix(),
		"nbf":       from.Unix(),
		"exp":       to.Unix(),
		"jti":       newSecret(),
	})
	token.Header["typ"] = "at+jwt"
	token.Header["kid"] = k.id
	signed, err := token.SignedString(k.private)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return signed, nil
}

// A publicKey is an RSA key as RFC 7517 writes it. The fields that RFC 7638 hashes come in its order.
type publicKey struct {
	E   string `json:"e"`
	Kty string `json:"kty"`
	N   string `json:"n"`
	Alg string `json:"alg,omitempty"`
	Kid string `json:"kid,omitempty"`
	Use string `json:"use,omitempty"`
}

func publicKeyOf(key *rsa.PublicKey) publicKey {
	return publicKey{
		E:   base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		Kty: "RSA",
		N:   base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
	}
}

func thumbprint(key *rsa.PublicKey) string {
	sum := sha256.Sum256(encode(publicKeyOf(key)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// jwks is the issuer's key set, RFC 7517 §5: public parts only.
func (k *tokenKey) jwks() []byte {
	key := publicKeyOf(&k.private.PublicKey)
	key.Alg, key.Kid, key.Use = "RS256", k.id, "sig"
	return append(encode(map[string][]publicKey{"keys": {key}}), '\n')
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // unreachable: plain strings
	}
	return data
}
