package gateway_test

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestDenialsTakeAlike: how long a refusal takes does not tell a certificate of an unknown issuer from one that is trusted and
// registered for another API, or for none: the medians of new connections are within ten times the millisecond that they
// may differ. Held: security K 147.
func TestDenialsTakeAlike(t *testing.T) {
	for name, c := range map[string]struct {
		how    via
		header bool
	}{
		"HTTP/1.1": {}, "TLS 1.2": {how: via{tls12: true}}, "HTTP/2": {how: via{http2: true}}, "header": {header: true},
	} {
		t.Run(name, func(t *testing.T) { denialsTakeAlike(t, c.how, c.header) })
	}
}

func denialsTakeAlike(t *testing.T, how via, byHeader bool) {
	f := newDoorFixture(t)
	who := map[string]*party{"unknown": issue("unknown", nil), "unregistered": f.a2, "registered elsewhere": f.a3}
	took := map[string][]time.Duration{}
	for range 41 {
		for name, p := range who {
			c := f.client(t, p, how)
			var lines []func(*http.Request)
			if byHeader {
				c, lines = f.through(t, byCert, f.balancer, false, "127.0.0.1"), append(lines, certificateHeader(p))
			}
			get(t, c, "https://opt.test/pay/1.0/open", lines...) // makes the connection
			began := time.Now()
			a := get(t, c, "https://opt.test/pay/1.0/x", lines...)
			took[name] = append(took[name], time.Since(began))
			if a.status != 401 {
				t.Fatalf("%s: status %d", name, a.status)
			}
		}
	}
	var medians []time.Duration
	for name, list := range took {
		slices.Sort(list)
		medians = append(medians, list[len(list)/2])
		t.Logf("%s: %v", name, list[len(list)/2])
	}
	if apart := slices.Max(medians) - slices.Min(medians); apart > 10*time.Millisecond {
		t.Errorf("the medians are %v apart", apart)
	}
}
