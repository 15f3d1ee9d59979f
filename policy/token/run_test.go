package token_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"sallyport/policy/token"
)

func TestRunFetchesAndFollows(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	now := newClock()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("old"))))
	defer s.Close()
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now, RefreshInterval: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()

	eventually(t, "the first fetch without a caller", func() bool { return s.requests.Load() > 0 })
	old := edToken(t, kid("old"), goodClaims(now.Now()))
	if _, err := v.Verify(t.Context(), old); err != nil {
		t.Error(err)
	}
	s.serve(jwks(t, jwkOf(t, edKey2(), kid("new"))))
	eventually(t, "the old token gone", func() bool {
		_, ok := v.Cached(old)
		return !ok
	})
	if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("new"), goodClaims(now.Now()))); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := v.Run(t.Context()); err == nil {
		t.Error("Run runs twice")
	}

	// The keys stay, and nothing is fetched any more.
	n := s.requests.Load()
	if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("new"), goodClaims(now.Now()))); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(t.Context(), edToken(t, kid("unknown"), goodClaims(now.Now()))); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("unknown: %v", err)
	}
	if err := v.Refresh(t.Context()); err == nil {
		t.Error("Refresh after the end is no error")
	}
	if s.requests.Load() != n {
		t.Error("a request after the end")
	}
}

func TestRunRetriesSoon(t *testing.T) {
	now := newClock()
	s := newIssuer(t, nil)
	s.answer(http.NotFound)
	// Without the retry, the next fetch would be in an hour.
	v := newVerifier(t, token.Options{
		KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now, RefreshInterval: time.Hour, CoolDown: time.Millisecond,
	})
	run(t, v)
	eventually(t, "retries", func() bool { return s.requests.Load() > 2 })
	s.serve(jwks(t, jwkOf(t, edKey(), kid("ed"))))
	eventually(t, "good", func() bool {
		_, err := v.Verify(t.Context(), edToken(t, kid("ed"), goodClaims(now.Now())))
		return err == nil
	})
}

func TestRunEndsWhileAFetchHangs(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	now, g := newClock(), newGate()
	s := newIssuer(t, nil)
	defer s.Close()
	defer close(g.open)
	s.answer(g.hold(nil))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now, FetchTimeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	done, verified := make(chan error, 1), make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	<-g.entered
	go func() {
		_, err := v.Verify(context.Background(), edToken(t, kid("ed"), goodClaims(now.Now())))
		verified <- err
	}()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-verified; !errors.Is(err, token.ErrUnavailable) {
		t.Error(err)
	}
}

// TestRotationUnderLoad is for the race detector.
func TestRotationUnderLoad(t *testing.T) {
	now := newClock()
	a := jwks(t, jwkOf(t, edKey(), kid("a")), jwkOf(t, p256Key(), kid("stays")))
	b := jwks(t, jwkOf(t, edKey2(), kid("b")), jwkOf(t, p256Key(), kid("stays")))
	s := newIssuer(t, a)
	v := newVerifier(t, token.Options{
		KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now, RefreshInterval: time.Millisecond, CoolDown: time.Millisecond, CacheSize: 8,
	})
	run(t, v)
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	stays := sign(t, jwt.SigningMethodES256, p256Key(), kid("stays"), goodClaims(now.Now()))
	moves := edToken(t, kid("a"), goodClaims(now.Now()))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100 {
				if _, ok := v.Cached(stays); !ok {
					if _, err := v.Verify(context.Background(), stays); err != nil {
						t.Errorf("the key that stays: %v", err)
					}
				}
				if _, ok := v.Cached(moves); !ok {
					if _, err := v.Verify(context.Background(), moves); err != nil && !errors.Is(err, token.ErrInvalid) && !errors.Is(err, token.ErrUnavailable) {
						t.Errorf("the key that comes and goes: %v", err)
					}
				}
			}
		})
	}
	for i := range 20 {
		s.serve([][]byte{a, b}[i%2])
		if err := v.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
}
