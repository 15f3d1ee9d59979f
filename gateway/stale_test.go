package gateway_test

import (
	"crypto/x509"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/decision"
)

// TestStaleRegistrations: once the store was not seen for longer than its MaxAge, a registration in it lets nobody in, on
// open connections and streams, too. Files' registrations, tokens and open APIs go on, and so does all when the store is
// seen again.
func TestStaleRegistrations(t *testing.T) {
	own, gone := issue("own", nil), make(chan error, 1)
	f := newFixture(t, register(client(payAPI, "own", own, "Unlimited")), func(_ *fixture, s *setup) {
		s.config.Recheck(10 * time.Millisecond)
		for i := range s.clients {
			if c := &s.clients[i]; c.Alias == "a4" || c.Alias == "own" {
				c.Source = certstore.InStore
			}
		}
	})
	f.backend.handle("/ws", echoWebSocket(gone))
	var seen atomic.Pointer[time.Time]
	look := func() {
		now := f.clock.Now()
		seen.Store(&now)
	}
	clients := f.newClients(t)
	clients.Stored = decision.Freshness{MaxAge: time.Minute, Seen: &seen}
	f.set(t, gateway.Parts{Clients: clients})
	good, expired := bearer(f.token(t, "alice", map[string]any{"exp": f.clock.Now().Add(24 * time.Hour).Unix()})), bearer(f.expiredToken(t))
	const stale = "registrations_stale"

	eachVersion(t, func(t *testing.T, h2 bool) {
		look()
		calls := []struct {
			who     *party
			target  string
			options []func(*http.Request)
			want    string // the reason of the refusal
		}{
			{f.a4, lax + "/pay/1.0/x", nil, stale},
			{f.a4, strict + "/pay/1.0/x", nil, stale},
			{own, lax + "/pay/1.0/x", nil, stale},
			{own, strict + "/pay/1.0/x", nil, stale},
			{own, strict + "/pay/1.0/open", nil, stale}, // nothing else vouches for whom the handshake let in
			{f.a4, lax + "/both/1.0/x", nil, stale},
			{f.a4, lax + "/both/1.0/x", []func(*http.Request){expired}, stale}, // the certificate alone might do
			{f.a4, lax + "/both/1.0/x", []func(*http.Request){good}, ""},
			{f.a4, lax + "/tok/1.0/x", []func(*http.Request){good}, ""},
			{f.a4, lax + "/tok/1.0/x", []func(*http.Request){expired}, "token_expired"},
			{f.a4, strict + "/pub/1.0/x", nil, ""},
			{f.a3, lax + "/both/1.0/x", nil, ""},
			{f.a3, lax + "/pay/1.0/x", nil, "invalid_credentials"},
		}
		var open []*http.Client
		for _, c := range calls {
			http := f.client(t, c.who, via{http2: h2})
			open = append(open, http)
			if a, err := do(http, "GET", c.target, nil, c.options...); err != nil || c.want == stale && a.status != 200 {
				t.Errorf("%s, fresh: status %d, %v", c.target, a.status, err)
			}
		}
		conn := f.dial(t, f.a4, "opt.test")
		if res := conn.upgrade(t, "/pay/1.0/ws", "opt.test", webSocketHead); res.StatusCode != 101 {
			t.Fatalf("status %d", res.StatusCode)
		}
		conn.exchange(t, "before")

		f.clock.Advance(time.Minute + time.Second)
		if !conn.ended() {
			t.Error("the tunnel goes on")
		}
		<-gone
		for i, c := range calls {
			for _, http := range []*http.Client{open[i], f.client(t, c.who, via{http2: h2})} {
				a, err := do(http, "GET", c.target, nil, c.options...)
				if err != nil {
					t.Fatal(err)
				}
				s := f.seen(t, a.id())
				if s.Reason != c.want || c.want == "" && a.status != 200 {
					t.Errorf("%s: status %d, reason %q, want %q", c.target, a.status, s.Reason, c.want)
				}
				if c.want == stale {
					if a.refused(t, 503, "503"); a.header.Get("Retry-After") == "" {
						t.Error("no Retry-After")
					}
				}
			}
		}
		look()
		f.allowed(t, func() answer { return get(t, open[0], calls[0].target) })
	})

	question := decision.Question{
		Listener: &f.listeners[0], Local: mustAddr("127.0.0.1"), Host: "opt.test", Method: "GET", Target: "/pay/1.0/x",
		Chain: []*x509.Certificate{f.a4.cert, f.interA.cert},
	}
	f.clock.Advance(time.Minute + time.Second)
	e := f.gateway.Explain(t.Context(), question)
	if last := e.Steps[len(e.Steps)-1].Finding; e.Allowed || e.Reason != stale || !strings.Contains(last, "not seen for longer than its maxAge") {
		t.Errorf("explained as %+v", e)
	}
}
