package token_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/policy/token"
)

// unrelated is a key manager that has nothing to do with the others.
func unrelated(t testing.TB) token.KeyManager {
	t.Helper()
	return token.KeyManager{
		Name: "unrelated", Type: "custom", Issuer: "https://unrelated.test", CertificateFile: file(t, "unrelated.pem", publicPEM(t, edKey2().Public())),
	}
}

// TestLastKeepsKeys adds a key manager while another one's issuer is unreachable.
func TestLastKeepsKeys(t *testing.T) {
	now := newClock()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("ed"))))
	cfg := token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now}
	last := newVerifier(t, cfg)
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	if _, err := last.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	s.Close()

	cfg.KeyManagers = []token.KeyManager{unrelated(t), manager(s.URL)}
	if _, err := newVerifier(t, cfg).Verify(t.Context(), raw); !errors.Is(err, token.ErrUnavailable) {
		t.Fatalf("without Last: %v", err)
	}
	cfg.Last = last
	v := newVerifier(t, cfg)
	if _, ok := v.Cached(raw); ok {
		t.Error("the cache does not begin empty")
	}
	claims, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if cached, ok := v.Cached(raw); !ok || cached != claims {
		t.Error("the token is not remembered")
	}
	if err := v.Refresh(t.Context()); err == nil {
		t.Error("the issuer is away, and Refresh has no error")
	}
	if _, ok := v.Cached(raw); !ok {
		t.Error("a fetch that failed took the keys")
	}
	cfg.KeyManagers, cfg.Last = cfg.KeyManagers[1:], v
	if _, err := newVerifier(t, cfg).Verify(t.Context(), raw); err != nil {
		t.Errorf("after another change: %v", err)
	}
}

// TestLastTakesOverTheSameOnly changes one thing at a time, with an issuer that answers once only.
func TestLastTakesOverTheSameOnly(t *testing.T) {
	now := newClock()
	keys := jwks(t, jwkOf(t, edKey(), kid("ed")))
	var away atomic.Bool
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(keys)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	base := manager(s.URL + "/jwks")
	base.CAFile = file(t, "ca.pem", ca)
	otherCA := file(t, "ca.pem", ca)
	last := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{base}, Now: now.Now})
	if err := last.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	away.Store(true)

	for name, test := range map[string]struct {
		change func(*token.Options, *token.KeyManager)
		kept   bool
	}{
		"nothing":                  {func(*token.Options, *token.KeyManager) {}, true},
		"another's keys":           {func(cfg *token.Options, _ *token.KeyManager) { cfg.KeyManagers = append(cfg.KeyManagers, unrelated(t)) }, true},
		"a default is written out": {func(cfg *token.Options, _ *token.KeyManager) { cfg.RefreshInterval = 5 * time.Minute }, true},
		"the cache's size":         {func(cfg *token.Options, _ *token.KeyManager) { cfg.CacheSize = 7 }, true},
		"the log":                  {func(cfg *token.Options, _ *token.KeyManager) { cfg.Log = slog.New(slog.DiscardHandler) }, true},
		"the leeway":               {func(cfg *token.Options, _ *token.KeyManager) { cfg.Leeway = time.Second }, true},
		"how often files are read": {func(cfg *token.Options, _ *token.KeyManager) { cfg.FilePoll = time.Second }, true},
		"its name":                 {func(_ *token.Options, km *token.KeyManager) { km.Name = "other" }, false},
		"its type":                 {func(_ *token.Options, km *token.KeyManager) { km.Type = "custom" }, false},
		"its issuer":               {func(_ *token.Options, km *token.KeyManager) { km.Issuer += "/" }, false},
		"its URL":                  {func(_ *token.Options, km *token.KeyManager) { km.JWKS += "2" }, false},
		"its CA file":              {func(_ *token.Options, km *token.KeyManager) { km.CAFile = otherCA }, false},
		"no CA file":               {func(_ *token.Options, km *token.KeyManager) { km.CAFile = "" }, false},
		"its token type":           {func(_ *token.Options, km *token.KeyManager) { km.TokenType = "at+jwt" }, false},
		"the refresh interval":     {func(cfg *token.Options, _ *token.KeyManager) { cfg.RefreshInterval = time.Minute }, false},
		"the cool-down":            {func(cfg *token.Options, _ *token.KeyManager) { cfg.CoolDown = time.Second }, false},
		"the timeout":              {func(cfg *token.Options, _ *token.KeyManager) { cfg.FetchTimeout = time.Second }, false},
		"the maximum age":          {func(cfg *token.Options, _ *token.KeyManager) { cfg.MaxAge = 48 * time.Hour }, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := token.Options{KeyManagers: []token.KeyManager{base}, Now: now.Now, Last: last}
			test.change(&cfg, &cfg.KeyManagers[0])
			raw := edToken(t, map[string]any{"kid": "ed", "typ": "at+jwt"}, with(goodClaims(now.Now()), map[string]any{"iss": cfg.KeyManagers[0].Issuer}))
			_, err := newVerifier(t, cfg).Verify(t.Context(), raw)
			if test.kept && err != nil || !test.kept && !errors.Is(err, token.ErrUnavailable) {
				t.Errorf("kept should be %v: %v", test.kept, err)
			}
		})
	}
}

// TestLastKeepsTheAge hands keys over twice: their age counts from the fetch, not from the hand-over.
func TestLastKeepsTheAge(t *testing.T) {
	now := newClock()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("ed"))))
	cfg := token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now, MaxAge: time.Hour}
	cfg.Last = newVerifier(t, cfg)
	if err := cfg.Last.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.answer(http.NotFound)
	raw := edToken(t, kid("ed"), with(goodClaims(now.Now()), map[string]any{"exp": now.Now().Add(24 * time.Hour).Unix()}))
	for range 2 {
		now.Advance(30 * time.Minute)
		cfg.Last = newVerifier(t, cfg)
		if _, err := cfg.Last.Verify(t.Context(), raw); err != nil {
			t.Fatalf("within the hour: %v", err)
		}
	}
	now.Advance(time.Second)
	if _, ok := cfg.Last.Cached(raw); ok {
		t.Error("cached after the hour")
	}
	for range 2 {
		if _, err := cfg.Last.Verify(t.Context(), raw); !errors.Is(err, token.ErrUnavailable) {
			t.Errorf("after the hour: %v", err)
		}
		cfg.Last = newVerifier(t, cfg)
	}
}

// TestLastAndNextGoTheirWays rotates the issuer's keys: Last and its successor fetch independently.
func TestLastAndNextGoTheirWays(t *testing.T) {
	now := newClock()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("old"))))
	cfg := token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now}
	last := newVerifier(t, cfg)
	old := edToken(t, kid("old"), goodClaims(now.Now()))
	fresh := sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("new"), goodClaims(now.Now()))
	cfg.Last = last
	none := newVerifier(t, cfg) // Last has no keys yet
	if err := last.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := newVerifier(t, cfg)
	s.serve(jwks(t, jwkOf(t, edKey2(), kid("new"))))
	if _, err := next.Verify(t.Context(), fresh); err != nil {
		t.Errorf("an unknown kid asks for newer keys: %v", err)
	}
	if _, err := next.Verify(t.Context(), old); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("by the key that is gone: %v", err)
	}
	if _, err := last.Verify(t.Context(), old); err != nil {
		t.Errorf("Last lost its key: %v", err)
	}
	if _, err := none.Verify(t.Context(), fresh); err != nil {
		t.Errorf("without keys from Last: %v", err)
	}
}

// TestLastWhileItRuns is for the race detector, and for a Last whose Run has ended.
func TestLastWhileItRuns(t *testing.T) {
	now := newClock()
	a := jwks(t, jwkOf(t, edKey(), kid("ed")), jwkOf(t, p256Key(), kid("a")))
	b := jwks(t, jwkOf(t, edKey(), kid("ed")), jwkOf(t, p256Key(), kid("b")))
	s := newIssuer(t, a)
	cfg := token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now, RefreshInterval: time.Millisecond}
	cfg.Last = newVerifier(t, cfg)
	if err := cfg.Last.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	for i := range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- cfg.Last.Run(ctx) }()
		s.serve([][]byte{a, b}[i%2])
		n := s.requests.Load()
		eventually(t, "Last fetches", func() bool { return s.requests.Load() > n })
		s.answer(http.NotFound)
		next := newVerifier(t, cfg)
		if _, err := next.Verify(t.Context(), raw); err != nil {
			t.Errorf("while Last runs: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		cfg.Last = newVerifier(t, cfg) // of one that has ended
		if _, err := cfg.Last.Verify(t.Context(), raw); err != nil {
			t.Errorf("after Last ended: %v", err)
		}
	}
}

// TestLastIsNotForFiles reads them anew: New says so when one cannot be read, whatever Last has.
func TestLastIsNotForFiles(t *testing.T) {
	now := newClock()
	for name, km := range map[string]token.KeyManager{
		"JWKS":        manager(file(t, "jwks.json", jwks(t, jwkOf(t, edKey(), nil)))),
		"certificate": {Name: "resident", Type: "default", Issuer: issuerURL, CertificateFile: file(t, "key.pem", publicPEM(t, edKey().Public()))},
	} {
		t.Run(name, func(t *testing.T) {
			path, content := km.JWKS, jwks(t, jwkOf(t, edKey2(), nil))
			if path == "" {
				path, content = km.CertificateFile, publicPEM(t, edKey2().Public())
			}
			cfg := token.Options{KeyManagers: []token.KeyManager{km}, Now: now.Now}
			cfg.Last = newVerifier(t, cfg)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			next := newVerifier(t, cfg)
			if _, err := next.Verify(t.Context(), edToken(t, nil, goodClaims(now.Now()))); !errors.Is(err, token.ErrInvalid) {
				t.Errorf("by the old key: %v", err)
			}
			if _, err := next.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, edKey2(), nil, goodClaims(now.Now()))); err != nil {
				t.Errorf("by the new key: %v", err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if _, err := token.New(cfg); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("without the file: %v", err)
			}
		})
	}
}

// TestLastIsNotHeld: a Verifier must not reference Last, or all earlier Verifiers would stay in memory with their caches.
func TestLastIsNotHeld(t *testing.T) {
	now := newClock()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("ed"))))
	cfg := token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now}
	last := newVerifier(t, cfg)
	if err := last.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg.Last = last
	next, gone := newVerifier(t, cfg), weak.Make(last)
	last, cfg.Last = nil, nil
	eventually(t, "Last is let go", func() bool {
		runtime.GC()
		return gone.Value() == nil
	})
	if _, err := next.Verify(t.Context(), edToken(t, kid("ed"), goodClaims(now.Now()))); err != nil {
		t.Error(err)
	}
}
