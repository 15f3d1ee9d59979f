package token_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/policy/token"
)

// TestAKeyThatCameAfterABadKid: a stranger's kid doesn't keep a new key out, and where the issuer may not be asked yet
// a token is not refused for good.
func TestAKeyThatCameAfterABadKid(t *testing.T) {
	now := newClock()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("old"))))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	now.Advance(time.Minute)
	bad := func(id string) string { return edToken(t, kid(id), goodClaims(now.Now())) }
	expect := func(what, raw string, want error, later time.Duration, requests int64) {
		t.Helper()
		before := s.requests.Load()
		_, err := v.Verify(t.Context(), raw)
		if !errors.Is(err, want) || token.RetryAfter(err) != later {
			t.Errorf("%s: %v, to be tried again after %v", what, err, token.RetryAfter(err))
		}
		if n := s.requests.Load() - before; n != requests {
			t.Errorf("%s: %d requests", what, n)
		}
	}

	expect("a stranger's kid", bad("x"), token.ErrInvalid, 0, 1)
	now.Advance(time.Second)
	s.serve(jwks(t, jwkOf(t, edKey(), kid("old")), jwkOf(t, edKey2(), kid("new"))))
	expect("a key that came since", sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("new"), goodClaims(now.Now())), nil, 0, 1)
	now.Advance(time.Second)
	expect("the stranger's kid again", bad("x"), token.ErrInvalid, 0, 0)
	expect("another of a stranger's", bad("y"), token.ErrUnavailable, 28*time.Second, 0)
	s.serve(jwks(t, jwkOf(t, p256Key(), kid("newest"))))
	newest := sign(t, jwt.SigningMethodES256, p256Key(), kid("newest"), goodClaims(now.Now()))
	expect("a key that came since, once more", newest, token.ErrUnavailable, 28*time.Second, 0)
	now.Advance(28*time.Second - 1)
	expect("a moment too early", newest, token.ErrUnavailable, 1, 0)
	expect("the stranger's kid, within its cool-down", bad("x"), token.ErrInvalid, 0, 0)
	now.Advance(1)
	expect("in time", newest, nil, 0, 1)
	expect("the stranger's kid, after its cool-down", bad("x"), token.ErrUnavailable, time.Second, 0)
	now.Advance(time.Second)
	expect("the stranger's kid, when the issuer may be asked", bad("x"), token.ErrInvalid, 0, 1)
}

// TestNoKeyForAnAlgorithm: an algorithm by which no key verifies is no reason to ask the issuer, whatever the kid, nor to
// try again.
func TestNoKeyForAnAlgorithm(t *testing.T) {
	now := newClock()
	s := newIssuer(t, nil)
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodNone, jwt.SigningMethodHS256} {
		var secret any = []byte("secret")
		if method == jwt.SigningMethodNone {
			secret = jwt.UnsafeAllowNoneSignatureType
		}
		raw := sign(t, method, secret, kid("x"), goodClaims(now.Now()))
		if method == jwt.SigningMethodNone {
			raw += "AA" // or a part is empty
		}
		if _, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrInvalid) || s.requests.Load() != 0 {
			t.Errorf("%s: %v after %d requests", method.Alg(), err, s.requests.Load())
		}
	}
}

// TestARetryAfterAFailure: an issuer that is away is a reason to try again, by a key that is not known.
func TestARetryAfterAFailure(t *testing.T) {
	now := newClock()
	s := newIssuer(t, nil)
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	for i, c := range []struct {
		wait     time.Duration
		requests int64
		later    time.Duration
	}{
		{0, 1, time.Second},
		{0, 0, time.Second},
		{time.Second / 2, 0, time.Second / 2},
		{time.Second / 2, 1, 2 * time.Second},
		{2 * time.Second, 1, 4 * time.Second},
	} {
		now.Advance(c.wait)
		before := s.requests.Load()
		_, err := v.Verify(t.Context(), raw)
		if n := s.requests.Load() - before; !errors.Is(err, token.ErrUnavailable) || token.RetryAfter(err) != c.later || n != c.requests {
			t.Errorf("%d: %v, to be tried again after %v, %d requests", i, err, token.RetryAfter(err), n)
		}
	}
}

// TestAReadThatBeganBefore: what a read under way brings is no proof that a key is missing, if it began before.
func TestAReadThatBeganBefore(t *testing.T) {
	old, fresh := jwks(t, jwkOf(t, edKey(), kid("old"))), jwks(t, jwkOf(t, edKey2(), kid("new")))
	path := file(t, "jwks.json", old)
	synctest.Test(t, func(t *testing.T) {
		now := newClock()
		v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(path)}, Now: now.Now})
		open, content := make(chan struct{}), old
		v.SetSource(func(context.Context) ([]byte, error) {
			read := content
			<-open
			return read, nil
		})
		first, second := make(chan error, 1), make(chan error, 1)
		verify := func(raw string, done chan<- error) {
			_, err := v.Verify(context.Background(), raw)
			done <- err
		}
		go verify(edToken(t, kid("x"), goodClaims(now.Now())), first)
		synctest.Wait() // the read has begun
		content = fresh
		go verify(sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("new"), goodClaims(now.Now())), second)
		synctest.Wait() // and the second token waits for it
		close(open)
		if err := <-first; !errors.Is(err, token.ErrInvalid) {
			t.Errorf("the stranger's: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("by the key that came during the read: %v", err)
		}
	})
}

// TestAbsentKidsAreBounded: whoever makes up kids fills no memory, and a file is read for each as it is.
func TestAbsentKidsAreBounded(t *testing.T) {
	f := newFixture(t)
	for i := range 10_000 {
		if _, err := f.Verify(t.Context(), edToken(t, kid(fmt.Sprint("x", i)), goodClaims(f.Now()))); !errors.Is(err, token.ErrInvalid) {
			t.Fatal(err)
		}
	}
	if n := f.Absent(); n != 4096 {
		t.Errorf("%d kids are remembered", n)
	}
	f.Advance(time.Minute)
	f.denies(t, "much later", edToken(t, kid("x"), goodClaims(f.Now())))
	f.Advance(time.Minute)
	f.denies(t, "later still", edToken(t, kid("x"), goodClaims(f.Now())))
	if n := f.Absent(); n != 2 {
		t.Errorf("%d kids are remembered still", n)
	}
}
