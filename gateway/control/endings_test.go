package control

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles/keystore"
	"sallyport/policy/token"
)

func until(at time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotAfter = at }
}

// endingBed is a bed whose certificates of each kind end at the times; the clock is the test's.
func endingBed(t *testing.T, now *atomic.Int64, ends map[string]time.Time) *bed {
	t.Helper()
	p := thePKI()
	client := issue(t, "client", p.ca, until(ends[KindClient]))
	manager, signs := filepath.Join(t.TempDir(), "manager.pem"), certPEM(issue(t, "signs", nil, until(ends[KindKeyManager])))
	if err := os.WriteFile(manager, signs, 0o600); err != nil { // the verifier reads it by itself
		t.Fatal(err)
	}
	return startBed(t, func(b *bed, o *Options) {
		o.Now = func() time.Time { return time.Unix(now.Load(), 0) }
		b.disk.write("server.pem", issue(t, "own", p.ca, until(ends[KindServer])).pem())
		b.disk.write("trust.pem", certPEM(issue(t, "anchor", nil, isCA, until(ends[KindTrustStore]))))
		b.disk.write("upstream.pem", issue(t, "shown", p.ca, until(ends[KindUpstream])).pem())
		b.disk.write("manager.pem", signs)
		s := b.spec.Load()
		s.Clients = []certstore.Client{{
			API: orders, Alias: "acme", KeyType: certstore.Production, Tier: "Gold", Certificate: client.cert, Source: "apis.yaml:3:5",
		}}
		at, _ := url.Parse("https://127.0.0.1:1")
		s.APIs = []API{{
			Route: decision.Route{API: orders, Context: "/orders", Upstream: backend.Upstream{URLs: []*url.URL{at}}},
			Tier:  "Unlimited", KeyStore: keystore.Ref{Location: "/bed/upstream.pem"},
		}}
		s.KeyManagers = []Placed[token.KeyManager]{{
			Value: token.KeyManager{Name: "km", Type: "default", Issuer: "i", CertificateFile: manager},
		}}
	})
}

// TestEndingsAreTold: each certificate that ends soon is named at the start, once a day, and once when it is new; those
// that ended long ago are not.
func TestEndingsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now atomic.Int64
		start := time.Now()
		now.Store(start.Unix())
		far := start.Add(1000 * day)
		b := endingBed(t, &now, map[string]time.Time{
			KindClient: start.Add(6 * day), KindServer: start.Add(20 * time.Hour), KindTrustStore: start.Add(29 * day),
			KindUpstream: start.Add(31 * day), KindKeyManager: far,
		})
		lines := func(kind string) int { return b.log.count("ends soon\" kind=" + kind) }
		check := func(when string, client, server, trusted int) {
			t.Helper()
			if c, s, a := lines(KindClient), lines(KindServer), lines(KindTrustStore); c != client || s != server || a != trusted {
				t.Errorf("%s: told of the client's %d times, of the server's %d, of the entry %d; want %d, %d, %d", when, c, s, a, client, server, trusted)
			}
		}
		check("at the start", 1, 1, 1)
		if b.log.count("kind=upstream")+b.log.count("kind=key_manager") != 0 {
			t.Error("told of one that ends later")
		}
		for _, want := range []string{
			`name="orders:1.0.0 acme (PRODUCTION)"`, `within_days=7`, `name="listener https, /bed/server.pem: CN=own"`, `within_days=1`,
			`name="/bed/trust.pem: CN=anchor"`, `within_days=30`,
		} {
			if b.log.count(want) == 0 {
				t.Errorf("no %s in the log", want)
			}
		}
		pass := func(d time.Duration) {
			now.Add(int64(d.Seconds()))
			time.Sleep(2 * upkeepInterval)
			synctest.Wait()
		}
		pass(23 * time.Hour)
		check("on the same day", 1, 1, 1)
		pass(time.Hour)
		check("a day later", 2, 1, 2)
		if n := b.log.count("has ended\" kind=server"); n != 1 {
			t.Errorf("told %d times of the server's that has ended", n)
		}
		b.disk.write("second.pem", issue(t, "next", b.ca, until(start.Add(3*day))).pem())
		b.change(func(s *Spec) { s.Listeners[0].TLS.Own.KeyStore.Location = "/bed/second.pem" })
		if err := b.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("a new one after a reload", 2, 2, 2)
		pass(2 * day)
		if n := b.log.count("kind=upstream"); n != 2 {
			t.Errorf("told %d times of the one for the server, which has come into the 30 days since", n)
		}
	})
}

// TestCertificates: one of each kind is found, whoever opens it.
func TestCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now atomic.Int64
		now.Store(time.Now().Unix())
		at, ends := time.Now().Add(100*day), map[string]time.Time{}
		for i, kind := range []string{KindClient, KindServer, KindTrustStore, KindUpstream, KindKeyManager} {
			ends[kind] = at.Add(time.Duration(i) * time.Hour)
		}
		b := endingBed(t, &now, ends)
		var got []string
		for _, c := range b.InForce().Certificates(10) {
			name := strings.Replace(c.Name, filepath.Dir(b.spec.Load().KeyManagers[0].Value.CertificateFile)+"/", "", 1)
			got = append(got, fmt.Sprintf("%s %s %d", c.Kind, name, int(c.NotAfter.Sub(at).Round(time.Hour).Hours())))
		}
		want := []string{
			"client orders:1.0.0 acme (PRODUCTION) 0", "server listener https, /bed/server.pem: CN=own 1", "trust_store /bed/trust.pem: CN=anchor 2",
			"upstream orders:1.0.0, /bed/upstream.pem: CN=shown 3", "key_manager km, manager.pem: CN=signs 4",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}
