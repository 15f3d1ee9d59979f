package gateway_test

import (
	"crypto/x509"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestExpiryHeaderBehindALoadBalancer: the end that a client is told is that of its own certificate, not of the load
// balancer's, for as long as it is good.
func TestExpiryHeaderBehindALoadBalancer(t *testing.T) {
	var brief *party
	f := newDoorFixture(t, func(f *fixture, s *setup) {
		s.settings.ExpiryHeader = expiryHeader
		now := f.clock.Now()
		brief = issue("brief", f.interA, usage(x509.ExtKeyUsageClientAuth), validity(now.Add(-time.Hour), now.Add(30*time.Minute)))
		s.clients = append(s.clients, client(payAPI, "brief", brief, "Unlimited"))
	})
	call := func(by, who *party) answer {
		return get(t, f.through(t, byCert, by, true, "127.0.0.1"), "https://opt.test/pay/1.0/x", certificateHeader(who))
	}
	for _, who := range []*party{brief, f.a4} {
		a := call(f.balancer, who)
		if v := a.header.Values(expiryHeader); !slices.Equal(v, []string{who.cert.NotAfter.UTC().Format(http.TimeFormat)}) {
			t.Errorf("%s is told %q (status %d)", who.cert.Subject, v, a.status)
		}
	}
	f.clock.Advance(31 * time.Minute)
	a := call(f.balancer, brief)
	if a.refused(t, 401, "900901"); a.header.Get(expiryHeader) != "" {
		t.Errorf("one that has ended is told %q", a.header.Get(expiryHeader))
	}
}

// TestExpiryHeaderOfAnEndedRight: a call that is refused since its certificate has ended meanwhile is told nothing.
func TestExpiryHeaderOfAnEndedRight(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.DrainTimeout, s.settings.ExpiryHeader = 50*time.Millisecond, expiryHeader
	})
	f.backend.handle("/sink", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	eachVersion(t, func(t *testing.T, h2 bool) {
		now, before := f.clock.Now(), f.backend.count("/sink")
		brief := issue("brief", f.interA, usage(x509.ExtKeyUsageClientAuth), validity(now.Add(-time.Hour), now.Add(time.Hour)))
		f.clients = append(f.clients, client(payAPI, "brief", brief, "Unlimited"))
		f.setClients(t)
		reader, writer := io.Pipe()
		defer writer.Close()
		done := make(chan answer, 1)
		go func() {
			a, err := do(f.client(t, brief, via{http2: h2}), "POST", "https://opt.test/pay/1.0/sink", reader)
			if err != nil {
				t.Error(err)
			}
			done <- a
		}()
		if _, err := writer.Write([]byte("a part")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the upload is under way", func() bool { return f.backend.count("/sink") > before })
		f.clock.Advance(2 * time.Hour)
		a := <-done
		if a.refused(t, 401, "900901"); a.header.Get(expiryHeader) != "" {
			t.Errorf("it is told %q", a.header.Get(expiryHeader))
		}
		f.remove(t, "brief")
	})
}
