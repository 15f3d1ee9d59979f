package token_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"sallyport/internal/testpki"
	"sallyport/policy/token"
)

func TestVerifyGoodTokens(t *testing.T) {
	now := newClock()
	keys := jwks(t,
		jwkOf(t, rsaKey(), kid("rsa")),
		jwkOf(t, rsaKey2(), map[string]any{"kid": "pss", "alg": "PS256", "use": "sig"}),
		jwkOf(t, p256Key(), map[string]any{"kid": "p256", "key_ops": []string{"verify"}}),
		jwkOf(t, p384Key(), kid("p384")),
		jwkOf(t, edKey(), kid("ed")),
		jwkOf(t, edKey2(), map[string]any{"kid": "9864", "alg": "Ed25519"}),
		jwkOf(t, edKey2(), map[string]any{"kid": "8037", "alg": "EdDSA"}),
	)
	ed25519 := signedAs{jwt.SigningMethodEdDSA, "Ed25519"}
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", keys))}, Now: now.Now})
	for _, c := range []struct {
		name   string
		method jwt.SigningMethod
		key    any
		header map[string]any
	}{
		{"RS256", jwt.SigningMethodRS256, rsaKey(), kid("rsa")},
		{"RS384", jwt.SigningMethodRS384, rsaKey(), kid("rsa")},
		{"RS512", jwt.SigningMethodRS512, rsaKey(), kid("rsa")},
		{"PS256 where the key says so", jwt.SigningMethodPS256, rsaKey2(), kid("pss")},
		{"PS256 where the key says nothing", jwt.SigningMethodPS256, rsaKey(), kid("rsa")},
		{"PS384", jwt.SigningMethodPS384, rsaKey(), kid("rsa")},
		{"PS512", jwt.SigningMethodPS512, rsaKey(), kid("rsa")},
		{"ES256", jwt.SigningMethodES256, p256Key(), kid("p256")},
		{"ES384", jwt.SigningMethodES384, p384Key(), kid("p384")},
		{"EdDSA", jwt.SigningMethodEdDSA, edKey(), kid("ed")},
		{"Ed25519", ed25519, edKey(), kid("ed")},
		{"Ed25519 where the key says so", ed25519, edKey2(), kid("9864")},
		{"EdDSA where the key says Ed25519", jwt.SigningMethodEdDSA, edKey2(), kid("9864")},
		{"Ed25519 where the key says EdDSA", ed25519, edKey2(), kid("8037")},
		{"no kid, one key fits", jwt.SigningMethodES384, p384Key(), nil},
		{"typ JWT", jwt.SigningMethodEdDSA, edKey(), map[string]any{"kid": "ed", "typ": "JWT"}},
		{"typ at+jwt", jwt.SigningMethodEdDSA, edKey(), map[string]any{"kid": "ed", "typ": "application/at+JWT"}},
		{"an unused address of keys", jwt.SigningMethodEdDSA, edKey(), map[string]any{"kid": "ed", "x5t": "AAAA"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := sign(t, c.method, c.key, c.header, with(goodClaims(now.Now()), map[string]any{
				"azp": "shop", "client_id": "other", "jti": "7", "scope": "read  write", "aud": []string{"a", "b"},
			}))
			if _, ok := v.Cached(raw); ok {
				t.Fatal("known before it was verified")
			}
			got, err := v.Verify(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			want := &token.Claims{
				KeyManager: "resident", Issuer: issuerURL, Subject: "alice", ClientID: "shop", TokenID: "7",
				Scopes: []string{"read", "write"}, Audience: []string{"a", "b"}, Expires: now.Now().Add(time.Hour),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if cached, ok := v.Cached(raw); !ok || cached != got {
				t.Errorf("Cached = %v, %v", cached, ok)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	now := newClock()
	v := edVerifier(t, now)
	for _, c := range []struct {
		name string
		set  map[string]any
		want func(*token.Claims)
	}{
		{"nothing more", nil, func(*token.Claims) {}},
		{"client_id", map[string]any{"client_id": "c"}, func(c *token.Claims) { c.ClientID = "c" }},
		{"consumerKey", map[string]any{"consumerKey": "c"}, func(c *token.Claims) { c.ClientID = "c" }},
		{"aud as string", map[string]any{"aud": "a b"}, func(c *token.Claims) { c.Audience = []string{"a b"} }},
		{"aud empty", map[string]any{"aud": []string{}}, func(c *token.Claims) { c.Audience = []string{} }},
		{"scope as list", map[string]any{"scope": []string{"a", "b"}}, func(c *token.Claims) { c.Scopes = []string{"a", "b"} }},
		{"scp as list", map[string]any{"scp": []string{"a"}}, func(c *token.Claims) { c.Scopes = []string{"a"} }},
		{"scp as string", map[string]any{"scp": "a b"}, func(c *token.Claims) { c.Scopes = []string{"a", "b"} }},
		{"scope before scp", map[string]any{"scp": "a", "scope": ""}, func(c *token.Claims) { c.Scopes = []string{} }},
		{"other case is another claim", map[string]any{"SUB": "bob", "Scope": "x"}, func(*token.Claims) {}},
		{"no sub", map[string]any{"sub": nil}, func(c *token.Claims) { c.Subject = "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), edToken(t, nil, with(goodClaims(now.Now()), c.set)))
			if err != nil {
				t.Fatal(err)
			}
			want := &token.Claims{KeyManager: "resident", Issuer: issuerURL, Subject: "alice", Expires: now.Now().Add(time.Hour)}
			c.want(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClaimsOfWrongType(t *testing.T) {
	now := newClock()
	v := edVerifier(t, now)
	for _, name := range []string{"iss", "sub", "jti", "azp", "client_id", "consumerKey", "aud", "scope", "scp", "nbf", "iat", "exp"} {
		for _, value := range []string{`null`, `true`, `{}`, `[1]`, `[null]`, `-1`, `-1.5`} {
			payload := `{"iss":"` + issuerURL + `","exp":4102444800}`
			switch name {
			case "iss":
				payload = `{"exp":4102444800,"iss":` + value + `}`
			case "exp":
				payload = `{"iss":"` + issuerURL + `","exp":` + value + `}`
			default:
				payload = payload[:len(payload)-1] + `,"` + name + `":` + value + `}`
			}
			if _, err := v.Verify(t.Context(), signText(t, jwt.SigningMethodEdDSA, edKey(), `{"alg":"EdDSA"}`, payload)); !errors.Is(err, token.ErrInvalid) || errors.Is(err, token.ErrExpired) {
				t.Errorf("%s: %s: %v", name, value, err)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := file(t, "jwks.json", jwks(t, jwkOf(t, edKey(), kid("ed"))))
	for _, c := range []struct {
		name   string
		change func(*token.Options)
	}{
		{"no name", func(c *token.Options) { c.KeyManagers[0].Name = "" }},
		{"no issuer", func(c *token.Options) { c.KeyManagers[0].Issuer = "" }},
		{"no type", func(c *token.Options) { c.KeyManagers[0].Type = "" }},
		{"an unknown type", func(c *token.Options) { c.KeyManagers[0].Type = "keycloak" }},
		{"an unknown token type", func(c *token.Options) { c.KeyManagers[0].TokenType = "ID" }},
		{"neither JWKS nor certificate", func(c *token.Options) { c.KeyManagers[0].JWKS = "" }},
		{"both", func(c *token.Options) { c.KeyManagers[0].CertificateFile = good }},
		{"two with one issuer", func(c *token.Options) {
			c.KeyManagers = append(c.KeyManagers, c.KeyManagers[0])
			c.KeyManagers[1].Name = "other"
		}},
		{"two with one name", func(c *token.Options) {
			c.KeyManagers = append(c.KeyManagers, c.KeyManagers[0])
			c.KeyManagers[1].Issuer = "other"
		}},
		{"a missing file", func(c *token.Options) { c.KeyManagers[0].JWKS = good + ".not" }},
		{"a file that is no JWKS", func(c *token.Options) { c.KeyManagers[0].JWKS = file(t, "x", []byte("<html>")) }},
		{"a bare key", func(c *token.Options) { c.KeyManagers[0].JWKS = file(t, "x", []byte(`{"kty":"OKP"}`)) }},
		{"a JWKS without keys", func(c *token.Options) { c.KeyManagers[0].JWKS = file(t, "x", jwks(t)) }},
		{"a certificate that is none", func(c *token.Options) {
			c.KeyManagers[0].JWKS, c.KeyManagers[0].CertificateFile = "", good
		}},
		{"a private key", func(c *token.Options) {
			c.KeyManagers[0].JWKS, c.KeyManagers[0].CertificateFile = "", file(t, "x", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
		}},
		{"two public keys", func(c *token.Options) {
			two := append(publicPEM(t, edKey().Public()), publicPEM(t, p256Key().Public())...)
			c.KeyManagers[0].JWKS, c.KeyManagers[0].CertificateFile = "", file(t, "x", two)
		}},
		{"an RSA key of 1024 bits", func(c *token.Options) {
			c.KeyManagers[0].JWKS, c.KeyManagers[0].CertificateFile = "", file(t, "x", publicPEM(t, shortRSA().Public()))
		}},
		{"a CA file without a URL", func(c *token.Options) { c.KeyManagers[0].CAFile = good }},
		{"a CA file without TLS", func(c *token.Options) {
			c.KeyManagers[0].JWKS, c.KeyManagers[0].CAFile = "http://127.0.0.1:1/jwks", good
		}},
		{"a CA file without certificates", func(c *token.Options) {
			c.KeyManagers[0].JWKS, c.KeyManagers[0].CAFile = "https://127.0.0.1:1/jwks", good
		}},
		{"another scheme", func(c *token.Options) { c.KeyManagers[0].JWKS = "ftp://127.0.0.1/jwks" }},
		{"no host", func(c *token.Options) { c.KeyManagers[0].JWKS = "https:///jwks" }},
		{"a password in the URL", func(c *token.Options) { c.KeyManagers[0].JWKS = "https://u:hunter2@127.0.0.1/jwks" }},
		{"a leeway of more than a minute", func(c *token.Options) { c.Leeway = time.Minute + 1 }},
		{"a negative interval", func(c *token.Options) { c.RefreshInterval = -1 }},
		{"a negative cache", func(c *token.Options) { c.CacheSize = -1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := token.Options{KeyManagers: []token.KeyManager{manager(good)}}
			if _, err := token.New(cfg); err != nil {
				t.Fatalf("without the change: %v", err)
			}
			c.change(&cfg)
			_, err := token.New(cfg)
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
		})
	}
}

func TestNewTakesURLThatIsDown(t *testing.T) {
	s := newIssuer(t, nil)
	s.Close()
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}})
	if _, err := v.Verify(t.Context(), edToken(t, kid("ed"), goodClaims(time.Now()))); !errors.Is(err, token.ErrUnavailable) || errors.Is(err, token.ErrInvalid) {
		t.Errorf("err = %v", err)
	}
}

func TestNoKeyManagers(t *testing.T) {
	v := newVerifier(t, token.Options{})
	if _, err := v.Verify(t.Context(), edToken(t, nil, goodClaims(time.Now()))); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("err = %v", err)
	}
}

func TestCertificateFile(t *testing.T) {
	now := newClock()
	km := manager("")
	km.CertificateFile = file(t, "km.pem", publicPEM(t, rsaKey().Public()))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{km}, Now: now.Now})
	for _, c := range []struct {
		name   string
		method jwt.SigningMethod
		key    any
		header map[string]any
		want   error
	}{
		{"no kid", jwt.SigningMethodRS256, rsaKey(), nil, nil},
		{"any kid", jwt.SigningMethodRS512, rsaKey(), kid("whatever"), nil},
		{"PSS", jwt.SigningMethodPS384, rsaKey(), nil, nil},
		{"another algorithm", jwt.SigningMethodES256, p256Key(), nil, token.ErrInvalid},
		{"another key", jwt.SigningMethodRS256, rsaKey2(), nil, token.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := v.Verify(t.Context(), sign(t, c.method, c.key, c.header, goodClaims(now.Now()))); !errors.Is(err, c.want) {
				t.Errorf("err = %v, want %v", err, c.want)
			}
		})
	}
}

// edVerifier returns a verifier with one Ed25519 key from a file.
func edVerifier(t testing.TB, now *clock) *token.Verifier {
	t.Helper()
	return newVerifier(t, token.Options{
		KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", jwks(t, jwkOf(t, edKey(), kid("ed")))))},
		Now:         now.Now,
	})
}

func edToken(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	return sign(t, jwt.SigningMethodEdDSA, edKey(), header, claims)
}

func TestCertificateFileKinds(t *testing.T) {
	now := newClock()
	p521 := testpki.NewEC(t, elliptic.P521())
	certificate := testpki.SelfSigned(t, testpki.Leaf{Key: p521, NotAfter: now.Now()}).Cert.Raw
	for name, c := range map[string]struct {
		block  pem.Block
		method jwt.SigningMethod
		key    any
	}{
		"a certificate":           {pem.Block{Type: "CERTIFICATE", Bytes: certificate}, jwt.SigningMethodES512, p521},
		"an RSA key, PKCS1":       {pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)}, jwt.SigningMethodRS256, rsaKey()},
		"a broken certificate":    {pem.Block{Type: "CERTIFICATE", Bytes: certificate[1:]}, nil, nil},
		"a broken key":            {pem.Block{Type: "PUBLIC KEY", Bytes: certificate}, nil, nil},
		"a broken RSA key, PKCS1": {pem.Block{Type: "RSA PUBLIC KEY", Bytes: certificate}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			km := manager("")
			km.CertificateFile = file(t, "km.pem", append([]byte("subject=x\n"), pem.EncodeToMemory(&c.block)...))
			v, err := token.New(token.Options{KeyManagers: []token.KeyManager{km}, Now: now.Now})
			if c.key == nil {
				if err == nil {
					t.Error("no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(t.Context(), sign(t, c.method, c.key, nil, goodClaims(now.Now()))); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for err, want := range map[error]bool{token.ErrInvalid: true, token.ErrExpired: true, token.ErrUnavailable: false} {
		if err.Error() == "" || errors.Is(err, token.ErrInvalid) != want {
			t.Errorf("%v: ErrInvalid = %v", err, !want)
		}
	}
	if errors.Is(token.ErrInvalid, token.ErrExpired) || errors.Is(token.ErrUnavailable, token.ErrExpired) {
		t.Error("not all that is invalid has expired")
	}
}
