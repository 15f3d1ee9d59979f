package token_test

import (
	"errors"
	"testing"
	"time"

	"sallyport/policy/token"
)

// TestStill: a token that was good is judged anew by the keys that were read last, and no issuer is asked.
func TestStill(t *testing.T) {
	both := jwks(t, jwkOf(t, edKey(), kid("ed")), jwkOf(t, p256Key(), kid("p")))
	renamed := func(url string) token.KeyManager {
		m := manager(url)
		m.Name = "another"
		return m
	}
	for _, c := range []struct {
		name    string
		manager func(url string) token.KeyManager
		read    []byte        // what is read before; nil: nothing can be
		wait    time.Duration // after that
		unseen  bool          // the token was not looked at before
		want    error
	}{
		{"its key is there", manager, both, 0, false, nil},
		{"its key is there, and it was not looked at", manager, both, 0, true, nil},
		{"its key is gone", manager, jwks(t, jwkOf(t, p256Key(), kid("p"))), 0, false, token.ErrInvalid},
		{"another key has its kid", manager, jwks(t, jwkOf(t, edKey2(), kid("ed"))), 0, false, token.ErrInvalid},
		{"it has expired", manager, both, time.Hour + time.Minute, false, token.ErrExpired},
		{"its keys are too old", manager, both, 25 * time.Hour, false, token.ErrUnavailable},
		{"no keys were read yet", manager, nil, 0, false, nil},
		{"no keys were read yet, almost expired", manager, nil, time.Hour + 59*time.Second, false, nil},
		{"no keys were read yet, expired", manager, nil, time.Hour + time.Minute, false, token.ErrExpired},
		{"no keys were read for too long", manager, nil, 25 * time.Hour, false, token.ErrUnavailable},
		{"no keys were read yet, and it was not looked at", manager, nil, 0, true, token.ErrUnavailable},
		{"no keys were read yet of another of that issuer", renamed, nil, 0, false, token.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := newClock()
			s := newIssuer(t, both)
			v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
			raw := edToken(t, kid("ed"), with(goodClaims(now.Now()), map[string]any{"exp": now.Now().Add(time.Hour).Unix()}))
			if c.want == token.ErrUnavailable {
				raw = edToken(t, kid("ed"), with(goodClaims(now.Now()), map[string]any{"exp": now.Now().Add(50 * time.Hour).Unix()}))
			}
			was, err := v.Verify(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			if c.unseen {
				was = nil
			}
			next := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{c.manager(s.URL)}, Now: now.Now})
			if c.read != nil {
				s.serve(c.read)
				if err := next.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			now.Advance(c.wait)
			asked := s.requests.Load()
			claims, err := next.Still(raw, was)
			if !errors.Is(err, c.want) || (err == nil) != (claims != nil) || claims != nil && claims.Subject != "alice" {
				t.Errorf("got %+v, %v", claims, err)
			}
			if s.requests.Load() != asked {
				t.Error("the issuer was asked")
			}
		})
	}
}

// TestStillAfterOthers: a token of an issuer that is no more is not good, and whatever is no token is none.
func TestStillAfterOthers(t *testing.T) {
	now := newClock()
	v := edVerifier(t, now)
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	was, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	other := manager(file(t, "other.json", jwks(t, jwkOf(t, edKey(), kid("ed")))))
	other.Issuer = "https://other.test"
	next := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{other}, Now: now.Now})
	for _, raw := range []string{raw, "", "a.b.c", raw + "x"} {
		if claims, err := next.Still(raw, was); !errors.Is(err, token.ErrInvalid) || claims != nil {
			t.Errorf("got %+v, %v", claims, err)
		}
	}
}
