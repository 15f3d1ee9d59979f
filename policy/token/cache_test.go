package token_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/policy/token"
)

func TestE80CachedTokensEnd(t *testing.T) {
	now := newClock()
	v := edVerifier(t, now)
	raw := edToken(t, kid("ed"), with(goodClaims(now.Now()), map[string]any{"exp": now.Now().Add(time.Minute).Unix()}))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	now.Advance(time.Minute + 59*time.Second)
	if _, ok := v.Cached(raw); !ok {
		t.Error("gone before exp and leeway")
	}
	now.Advance(time.Second)
	if _, ok := v.Cached(raw); ok {
		t.Error("still there at exp and leeway")
	}
	now.Advance(-time.Second)
	if _, ok := v.Cached(raw); ok {
		t.Error("comes back when the clock is set back")
	}
}

func TestE80CachedTokensBegin(t *testing.T) {
	now := newClock()
	v := edVerifier(t, now)
	raw := edToken(t, kid("ed"), with(goodClaims(now.Now()), map[string]any{"nbf": now.Now().Unix()}))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	now.Advance(-61 * time.Second)
	if _, ok := v.Cached(raw); ok {
		t.Error("good before its time")
	}
	now.Advance(time.Second)
	if _, ok := v.Cached(raw); !ok {
		t.Error("gone for good")
	}
}

func TestE80TheWholeTokenIsTheKey(t *testing.T) {
	now := newClock()
	v := edVerifier(t, now)
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		other := []byte(raw)
		other[i] ^= 1
		if _, ok := v.Cached(string(other)); ok {
			t.Fatalf("byte %d does not count", i)
		}
	}
	for _, other := range []string{"", raw[:len(raw)-1], raw + "=", raw + ".", " " + raw} {
		if _, ok := v.Cached(other); ok {
			t.Errorf("%d bytes for %d", len(other), len(raw))
		}
	}
}

func TestE80TheCacheIsBounded(t *testing.T) {
	now := newClock()
	v := newVerifier(t, token.Options{
		KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", jwks(t, jwkOf(t, edKey(), kid("ed")))))},
		Now:         now.Now, CacheSize: 50,
	})
	var all []string
	for i := range 1000 {
		raw := edToken(t, kid("ed"), with(goodClaims(now.Now()), map[string]any{"jti": fmt.Sprint(i)}))
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
		all = append(all, raw)
	}
	eventually(t, "at most 50 of 1000 tokens remembered", func() bool {
		n := 0
		for _, raw := range all {
			if _, ok := v.Cached(raw); ok {
				n++
			}
		}
		return n <= 50
	})
}

func TestE79RemovedKeys(t *testing.T) {
	now := newClock()
	both := jwks(t, jwkOf(t, edKey(), kid("old")), jwkOf(t, edKey2(), kid("new")))
	s := newIssuer(t, both)
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	raw := edToken(t, kid("old"), goodClaims(now.Now()))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	cached := func() bool {
		_, ok := v.Cached(raw)
		return ok
	}
	refresh := func(keys []byte) {
		t.Helper()
		s.serve(keys)
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	refresh(jwks(t, jwkOf(t, edKey2(), kid("new")), jwkOf(t, edKey(), kid("old")), jwkOf(t, p256Key(), kid("more"))))
	if !cached() {
		t.Error("forgotten although its key stayed")
	}
	noKeyID := jwkOf(t, p256Key(), nil)
	refresh(jwks(t, jwkOf(t, edKey(), kid("old")), noKeyID))
	unnamed := sign(t, jwt.SigningMethodES256, p256Key(), nil, goodClaims(now.Now()))
	if _, err := v.Verify(t.Context(), unnamed); err != nil {
		t.Fatal(err)
	}
	refresh(jwks(t, noKeyID, jwkOf(t, edKey2(), kid("new"))))
	if _, ok := v.Cached(unnamed); !ok {
		t.Error("forgotten although its key without kid stayed")
	}
	if cached() {
		t.Error("cached although its key is gone")
	}
	f := &fixture{v, now, &logBook{}}
	f.denies(t, "its key is gone", raw)

	refresh(both)
	if _, err := v.Verify(t.Context(), raw); err != nil || !cached() {
		t.Errorf("the key is back: %v", err)
	}
	for name, keys := range map[string][]byte{
		"another key with its kid":  jwks(t, jwkOf(t, edKey2(), kid("old"))),
		"the key with another kid":  jwks(t, jwkOf(t, edKey(), kid("other"))),
		"two keys with its kid":     jwks(t, jwkOf(t, edKey(), kid("old")), jwkOf(t, edKey2(), kid("old")), jwkOf(t, p256Key(), kid("p"))),
		"the key, now for use: enc": jwks(t, jwkOf(t, edKey(), map[string]any{"kid": "old", "use": "enc"}), jwkOf(t, p256Key(), kid("p"))),
	} {
		refresh(both)
		if _, err := v.Verify(t.Context(), raw); err != nil || !cached() {
			t.Fatalf("the key is back: %v", err)
		}
		refresh(keys)
		if cached() {
			t.Errorf("%s: cached", name)
		}
		f.denies(t, name, raw)
	}
}

func TestE79RemovedKeysOfFiles(t *testing.T) {
	now := newClock()
	path := file(t, "km.pem", publicPEM(t, edKey().Public()))
	km := manager("")
	km.CertificateFile = path
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{km}, Now: now.Now, FilePoll: time.Millisecond})
	run(t, v)
	raw := edToken(t, nil, goodClaims(now.Now()))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, publicPEM(t, edKey2().Public()), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "forgotten", func() bool {
		_, ok := v.Cached(raw)
		return !ok
	})
	(&fixture{v, now, &logBook{}}).denies(t, "the certificate has changed", raw)
}
