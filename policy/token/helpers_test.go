package token_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"

	"sallyport/internal/testpki"
	"sallyport/policy/token"
)

const issuerURL = "https://issuer.test/oauth2/token"

// Keys are made once, since RSA keys take a while.
var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return testpki.NewRSA(testpki.Panic, 2048) })
	rsaKey2  = sync.OnceValue(func() *rsa.PrivateKey { return testpki.NewRSA(testpki.Panic, 2048) })
	shortRSA = sync.OnceValue(func() *rsa.PrivateKey { return testpki.NewRSA(testpki.Panic, 1024) })
	p256Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return testpki.NewKey(testpki.Panic) })
	p256Key2 = sync.OnceValue(func() *ecdsa.PrivateKey { return testpki.NewKey(testpki.Panic) })
	p384Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return testpki.NewEC(testpki.Panic, elliptic.P384()) })
	edKey    = sync.OnceValue(func() ed25519.PrivateKey { return testpki.NewEd25519(testpki.Panic) })
	edKey2   = sync.OnceValue(func() ed25519.PrivateKey { return testpki.NewEd25519(testpki.Panic) })
)

// jwkOf returns the JWK of a key with further members.
func jwkOf(t testing.TB, raw any, members map[string]any) map[string]any {
	t.Helper()
	if s, ok := raw.(crypto.Signer); ok && members["d"] == nil {
		raw = s.Public()
	}
	m := map[string]any{}
	if r, ok := raw.(*rsa.PublicKey); ok {
		// By hand, since the library refuses short keys.
		m["kty"], m["n"], m["e"] = "RSA", b64(string(r.N.Bytes())), "AQAB"
	} else {
		k, err := jwk.Import(raw)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range members {
		if name != "d" {
			m[name] = value
		}
	}
	return m
}

func jwks(t testing.TB, keys ...map[string]any) []byte {
	t.Helper()
	if keys == nil {
		keys = []map[string]any{}
	}
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func kid(id string) map[string]any { return map[string]any{"kid": id} }

func file(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func publicPEM(t testing.TB, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// goodClaims is the payload of a token that is valid for an hour from now.
func goodClaims(now time.Time) jwt.MapClaims {
	return jwt.MapClaims{"iss": issuerURL, "sub": "alice", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix()}
}

func with(base map[string]any, more map[string]any) map[string]any {
	m := maps.Clone(base)
	for name, value := range more {
		if value == nil {
			delete(m, name)
		} else {
			m[name] = value
		}
	}
	return m
}

// sign makes a token. Its alg is the method's unless header has another.
func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims map[string]any) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	delete(tok.Header, "typ")
	for name, value := range header {
		tok.Header[name] = value
	}
	raw, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// signedAs is a method by another name.
type signedAs struct {
	jwt.SigningMethod
	name string
}

func (m signedAs) Alg() string { return m.name }

// signText makes a token from a header and a payload that need not be JSON.
func signText(t testing.TB, method jwt.SigningMethod, key any, header, payload string) string {
	t.Helper()
	text := b64(header) + "." + b64(payload)
	signature, err := method.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(string(signature))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// A clock stands still until it is moved.
type clock struct{ nano atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nano.Store(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nano.Load()) }
func (c *clock) Advance(d time.Duration) { c.nano.Add(int64(d)) }

// An issuerServer serves a JWKS, or whatever else answer sets, and counts the requests.
type issuerServer struct {
	*httptest.Server
	requests atomic.Int64
	handler  atomic.Pointer[http.HandlerFunc]
}

func newIssuer(t testing.TB, jwks []byte) *issuerServer {
	t.Helper()
	s := &issuerServer{}
	s.serve(jwks)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		(*s.handler.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *issuerServer) serve(jwks []byte) {
	s.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(jwks) })
}

func (s *issuerServer) answer(h http.HandlerFunc) { s.handler.Store(&h) }

func manager(jwks string) token.KeyManager {
	return token.KeyManager{Name: "resident", Type: "default", Issuer: issuerURL, JWKS: jwks}
}

// patience is how long a test waits for a state, and a Verifier for an issuer's answer.
const patience = 2 * time.Minute

func newVerifier(t testing.TB, cfg token.Options) *token.Verifier {
	t.Helper()
	if cfg.FetchTimeout == 0 {
		cfg.FetchTimeout = patience
	}
	v, err := token.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// run runs v until the test ends.
func run(t testing.TB, v *token.Verifier) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// A logBook collects the output of a slog.Logger for the test to read.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
