package token_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/policy/token"
)

// TestSeveralKeysUnderOneKeyID: a kid may be that of several keys as long as alg, use, key_ops, kind or curve tell them
// apart (RFC 7517, section 4.5); where nothing does, neither verifies by that algorithm.
func TestSeveralKeysUnderOneKeyID(t *testing.T) {
	jwk := func(raw any, more ...any) map[string]any {
		members := map[string]any{"kid": "k"}
		for i := 0; i < len(more); i += 2 {
			members[more[i].(string)] = more[i+1]
		}
		return jwkOf(t, raw, members)
	}
	type signed struct {
		method jwt.SigningMethod
		key    any
	}
	rs := func(key any) signed { return signed{jwt.SigningMethodRS256, key} }
	ps := func(key any) signed { return signed{jwt.SigningMethodPS256, key} }
	es := func(key any) signed { return signed{jwt.SigningMethodES256, key} }
	for _, c := range []struct {
		name      string
		keys      []map[string]any
		good, bad []signed
		ambiguous string // what is said to be shared; "" if nothing is
	}{
		{
			"kinds and curves differ",
			[]map[string]any{jwk(rsaKey()), jwk(p256Key()), jwk(p384Key()), jwk(edKey())},
			[]signed{rs(rsaKey()), ps(rsaKey()), es(p256Key()), {jwt.SigningMethodES384, p384Key()}, {jwt.SigningMethodEdDSA, edKey()}},
			[]signed{rs(rsaKey2()), es(p256Key2())},
			"",
		},
		{
			"one is for encryption, as Keycloak has it",
			[]map[string]any{jwk(rsaKey2(), "use", "enc", "alg", "RSA-OAEP"), jwk(rsaKey(), "use", "sig", "alg", "RS256")},
			[]signed{rs(rsaKey())},
			[]signed{rs(rsaKey2()), ps(rsaKey())},
			"",
		},
		{
			"one is for wrapping keys",
			[]map[string]any{jwk(rsaKey()), jwk(rsaKey2(), "key_ops", []string{"wrapKey"})},
			[]signed{rs(rsaKey()), ps(rsaKey())},
			[]signed{rs(rsaKey2())},
			"",
		},
		{
			"their algs differ",
			[]map[string]any{jwk(rsaKey(), "alg", "RS256"), jwk(rsaKey2(), "alg", "PS256")},
			[]signed{rs(rsaKey()), ps(rsaKey2())},
			[]signed{ps(rsaKey()), rs(rsaKey2())},
			"",
		},
		{
			"the same key twice",
			[]map[string]any{jwk(rsaKey()), jwk(rsaKey())},
			[]signed{rs(rsaKey()), ps(rsaKey())},
			[]signed{rs(rsaKey2())},
			"",
		},
		{
			"the same key for two algorithms",
			[]map[string]any{jwk(rsaKey(), "alg", "RS256"), jwk(rsaKey(), "alg", "PS256", "use", "sig")},
			[]signed{rs(rsaKey()), ps(rsaKey())},
			[]signed{{jwt.SigningMethodRS512, rsaKey()}},
			"",
		},
		{
			"two keys, and nothing tells them apart",
			[]map[string]any{jwk(p256Key()), jwk(p256Key2()), jwk(edKey())},
			[]signed{{jwt.SigningMethodEdDSA, edKey()}},
			[]signed{es(p256Key()), es(p256Key2())},
			"verifies by ES256:",
		},
		{
			"two keys share one algorithm of several",
			[]map[string]any{jwk(rsaKey()), jwk(rsaKey2(), "alg", "RS256")},
			[]signed{ps(rsaKey()), {jwt.SigningMethodRS512, rsaKey()}},
			[]signed{rs(rsaKey()), rs(rsaKey2()), ps(rsaKey2())},
			"verifies by RS256:",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, log := newClock(), &logBook{}
			v := newVerifier(t, token.Options{
				KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", jwks(t, c.keys...)))}, Now: now.Now, Log: log.logger(),
			})
			for i, s := range c.good {
				if _, err := v.Verify(t.Context(), sign(t, s.method, s.key, kid("k"), goodClaims(now.Now()))); err != nil {
					t.Errorf("good %d, %s: %v", i, s.method.Alg(), err)
				}
			}
			for i, s := range c.bad {
				if _, err := v.Verify(t.Context(), sign(t, s.method, s.key, kid("k"), goodClaims(now.Now()))); !errors.Is(err, token.ErrInvalid) {
					t.Errorf("bad %d, %s: %v", i, s.method.Alg(), err)
				}
			}
			said := ""
			if told := v.Ignored("resident"); len(told) > 0 {
				said = errors.Join(told...).Error()
			}
			if (c.ambiguous == "") != (said == "") || !strings.Contains(said, c.ambiguous) || !strings.Contains(log.String(), c.ambiguous) {
				t.Errorf("said is %q, logged %s", said, log)
			}
		})
	}
}

// TestOneKeyWithoutKeyID: a token without kid is verified by the one key that fits, be it listed under two kids.
func TestOneKeyWithoutKeyID(t *testing.T) {
	now := newClock()
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", jwks(t,
		jwkOf(t, edKey(), kid("a")), jwkOf(t, edKey(), kid("b")), jwkOf(t, edKey(), nil), jwkOf(t, edKey(), nil))))}, Now: now.Now})
	if _, err := v.Verify(t.Context(), edToken(t, nil, goodClaims(now.Now()))); err != nil {
		t.Error(err)
	}
}

// TestIgnoredKeys: what of a key set can't be used is told, and not what was never meant to verify.
func TestIgnoredKeys(t *testing.T) {
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", jwks(t,
		jwkOf(t, edKey(), kid("ed")), jwkOf(t, rsaKey(), map[string]any{"kid": "enc", "use": "enc"}), jwkOf(t, shortRSA(), kid("short")))))}})
	told := v.Ignored("resident")
	if len(told) != 1 || !strings.Contains(told[0].Error(), "short") || v.Ignored("another") != nil {
		t.Errorf("told are %v", told)
	}
}
