package token_test

import (
	"errors"
	"testing"

	"sallyport/policy/token"
)

// TestIDTokens: an ID token of the same issuer is no access token, unless the key manager takes any JWT.
func TestIDTokens(t *testing.T) {
	now := newClock()
	keys := file(t, "jwks.json", jwks(t, jwkOf(t, edKey(), kid("ed"))))
	wso2 := map[string]any{"aud": "client", "azp": "client", "client_id": "client", "aut": "APPLICATION", "scope": "default", "jti": "1"}
	for _, c := range []struct {
		name      string
		typ       string
		claims    map[string]any
		any, some bool // by tokenType JWT, and by none
		strict    bool // by tokenType at+jwt
	}{
		{"WSO2's, older", "JWT", wso2, true, true, false},
		{"WSO2's", "at+jwt", wso2, true, true, true},
		{"nothing speaks against it", "", nil, true, true, false},
		{"a nonce", "JWT", map[string]any{"nonce": "n"}, true, false, false},
		{"a nonce of no use", "JWT", map[string]any{"nonce": []any{}}, true, false, false},
		{"the hash of an access token", "", map[string]any{"at_hash": "h"}, true, false, false},
		{"the hash of a code", "JWT", map[string]any{"c_hash": "h"}, true, false, false},
		{"the hash of a state", "JWT", map[string]any{"s_hash": "h"}, true, false, false},
		{"a logout token without its typ", "JWT", map[string]any{"events": map[string]any{}}, true, false, false},
		{"Keycloak's ID token", "JWT", map[string]any{"typ": "ID"}, true, false, false},
		{"Keycloak's refresh token", "JWT", map[string]any{"typ": "Refresh"}, true, false, false},
		{"Keycloak's access token of old", "JWT", map[string]any{"typ": "Bearer", "nonce": "n"}, true, true, false},
		{"an access token by its typ", "at+jwt", map[string]any{"nonce": "n", "at_hash": "h"}, true, true, true},
		{"an ID token by its typ", "ID", nil, false, false, false},
	} {
		for tokenType, want := range map[string]bool{"JWT": c.any, "": c.some, "at+jwt": c.strict} {
			km := manager(keys)
			km.TokenType = tokenType
			v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{km}, Now: now.Now})
			header := kid("ed")
			if c.typ != "" {
				header["typ"] = c.typ
			}
			_, err := v.Verify(t.Context(), edToken(t, header, with(goodClaims(now.Now()), c.claims)))
			if want && err != nil || !want && !errors.Is(err, token.ErrInvalid) {
				t.Errorf("%s, tokenType %q: %v", c.name, tokenType, err)
			}
		}
	}
}
