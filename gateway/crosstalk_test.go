package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
)

// TestNoIdentityIsMixedUp: 64 clients with certificates of their own, half of them over HTTP/2, call at once and give a
// third of their calls up at random points; whatever the backend answers was told it of the one who asked.
// Held: security E 81 in small.
func TestNoIdentityIsMixedUp(t *testing.T) {
	const people, calls = 64, crosstalkCalls
	var list []certstore.Client
	parties := make([]*party, people)
	for i := range parties {
		parties[i] = issue(fmt.Sprintf("c%d", i), theWorld().interA, usage(x509.ExtKeyUsageClientAuth))
		list = append(list, client(bothAPI, fmt.Sprintf("c%d", i), parties[i], "Unlimited"))
	}
	f := newFixture(t, register(list...), func(_ *fixture, s *setup) {
		s.config.Limits.HandshakesPerSource = 4 * people // a call that is given up leaves its handshake to the next one
	})
	f.backend.handle("/who", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // it may break
		_ = json.NewEncoder(w).Encode(map[string]string{
			"client": r.Header.Get("X-Sallyport-Client"), "hash": r.Header.Get("X-Client-Cert-Hash"), "subject": r.Header.Get("X-Sallyport-Subject"), "n": r.Header.Get("X-N"),
		})
	})
	var answered, wrong, given atomic.Int64
	var wg sync.WaitGroup
	for i, who := range parties {
		c := f.client(t, who, via{http2: i%2 == 0, tickets: tls.NewLRUClientSessionCache(1)}) // each call that is given up costs a handshake
		subject := fmt.Sprintf("subject-%d", i)
		raw := f.token(t, subject, nil)
		none := f.client(t, nil, via{http2: i%4 < 2, tickets: tls.NewLRUClientSessionCache(1)})
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(i), 1))
			for n := range calls / people {
				byToken := n%5 == 4
				c, want := c, [3]string{fmt.Sprintf("c%d", i), who.hash(), ""}
				var options []func(*http.Request)
				if byToken {
					c, want = none, [3]string{"", "", subject}
					options = append(options, bearer(raw))
				}
				ctx, cancel := context.WithCancel(t.Context())
				if n%3 == 0 {
					timer := time.AfterFunc(time.Duration(dice.IntN(4000))*time.Microsecond, cancel)
					defer timer.Stop()
				}
				id := fmt.Sprintf("%d-%d", i, n)
				options = append(options, header("X-N", id), func(r *http.Request) { *r = *r.WithContext(ctx) })
				a, err := do(c, "GET", "https://opt.test/both/1.0/who", nil, options...)
				stopped := ctx.Err() != nil
				cancel()
				if err != nil || a.status == http.StatusBadGateway {
					if !stopped {
						t.Errorf("call %s: status %d, %v", id, a.status, err)
						return
					}
					given.Add(1)
					continue
				}
				var got map[string]string
				if err := json.Unmarshal([]byte(a.body), &got); err != nil {
					t.Errorf("call %s: status %d, %.100q", id, a.status, a.body)
					return
				}
				answered.Add(1)
				if [3]string{got["client"], got["hash"], got["subject"]} != want || got["n"] != id {
					wrong.Add(1)
					t.Errorf("call %s of %v was answered to %v", id, want, got)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d answered, %d given up", answered.Load(), given.Load())
	if wrong.Load() > 0 || answered.Load() < calls/2 {
		t.Errorf("%d of %d answers were somebody else's", wrong.Load(), answered.Load())
	}
	if t.Failed() {
		t.Log(f.log)
	}
}
