//go:build linux

package engine_test

import (
	"context"
	"sync"
	"testing"

	"sallyport/policy/token"
)

const ourAudience = "gate"

// A warden is a gate's verifier of tokens, by which a test stops or breaks a call in the middle of its decision. The word
// of a token says what becomes of the call:
//
//	good           it is forwarded
//	hold           the decision does not return until it is freed; then the call is refused with 403
//	panic          the decision panics
//	unknown        the decision has to wait, and forwards the call
//	unknown-panic  the decision has to wait, and panics then
type warden struct {
	held chan struct{} // one for each call that is held

	mu    sync.Mutex
	free  chan struct{} // closed to free the calls that are held
	freed bool          // for good
}

func (w *warden) init() { w.held, w.free = make(chan struct{}, 100), make(chan struct{}) }

// Cached implements decision.Verifier.
func (w *warden) Cached(raw string) (*token.Claims, bool) {
	switch raw {
	case "good":
		return &token.Claims{Audience: []string{ourAudience}}, true
	case "hold":
		w.mu.Lock()
		free := w.free
		w.mu.Unlock()
		w.held <- struct{}{}
		<-free
		return &token.Claims{Audience: []string{"another"}}, true
	case "panic":
		panic("in Cached")
	}
	return nil, false
}

// Verify implements decision.Verifier.
func (w *warden) Verify(_ context.Context, raw string) (*token.Claims, error) {
	if raw == "unknown-panic" {
		panic("in Verify")
	}
	return &token.Claims{Audience: []string{ourAudience}}, nil
}

// Still implements decision.Verifier.
func (w *warden) Still(raw string, _ *token.Claims) (*token.Claims, error) {
	return w.Verify(context.Background(), raw)
}

// withToken is a request for the guarded part of the API.
func withToken(token string) string {
	return request("GET", guarded, "Authorization: Bearer "+token+"\r\n", "")
}

// occupy returns while c's call holds whoever carries it: the loop, if c has settled.
func (w *warden) occupy(t testing.TB, c *caller) {
	t.Helper()
	c.say(t, withToken("hold"))
	await(t, "the held call", w.held)
}

// release frees the calls that are held.
func (w *warden) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.freed {
		close(w.free)
		w.free = make(chan struct{})
	}
}

// freeAll frees all calls, those too that come later.
func (w *warden) freeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.freed {
		w.freed = true
		close(w.free)
	}
}
