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

// TestEndingsAreTold: each certificate that ends soon is named at the start, once a day, once when it is new, and once when
// it has ended; those that ended long ago are not.
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
		if n := b.log.count("has ended\" kind=server"); n != 1 {
			t.Errorf("told %d times of the server's that has ended on the same day", n)
		}
		pass(time.Hour)
		check("a day later", 2, 1, 2)
		if n := b.log.count("has ended\" kind=server"); n != 2 {
			t.Errorf("told %d times of the server's that has ended, a day later", n)
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
		for _, c := range b.InForce().Certificates(time.Now(), 10) {
			name := strings.Replace(c.Name(), filepath.Dir(b.spec.Load().KeyManagers[0].Value.CertificateFile)+"/", "", 1)
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

// TestEveryCertificateIsListed: whatever a file or the store has is in the list, used or not, each once, with what it is
// for, where it is from and what is to be known of it.
func TestEveryCertificateIsListed(t *testing.T) {
	dir, p := t.TempDir(), thePKI()
	at := func(name string) string { return filepath.Join(dir, name) }
	n := 0
	made := func(cn string, change ...func(*x509.Certificate)) *party {
		n++
		return issue(t, cn, p.ca, append(change, until(time.Now().Add(time.Duration(100+n)*day)))...)
	}
	chain := func(cn string) []byte { return append(made(cn).pem(), certPEM(made(cn+"'s intermediate", isCA))...) }
	for name, data := range map[string][]byte{
		"listenerprofiles.xml": []byte(profilesXML("10.0.0.1 key=second.pem trust=second-trust.pem")),
		"server.pem":           chain("server"),
		"trust.pem":            certPEM(made("trusted", isCA), made("trusted too")),
		"second.pem":           made("second").pem(),
		"second-trust.pem":     certPEM(made("trusted there", isCA)),
		"header.pem":           certPEM(made("trusted in the header", isCA)),
		"balancers.pem":        certPEM(made("load balancer")),
		"redis.pem":            certPEM(made("redis", isCA)),
		"db.pem":               certPEM(made("database", isCA)),
		"jwks-ca.pem":          certPEM(made("key server", isCA)),
		"issuer.pem":           certPEM(made("issuer")),
		"upstream-ca.pem":      certPEM(made("backend", isCA)),
		"upstream.pem":         chain("upstream"),
	} {
		if err := os.WriteFile(at(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newSpec(dir)
	ref := func(name string) Placed[keystore.Ref] {
		return Placed[keystore.Ref]{Value: keystore.Ref{Location: at(name)}}
	}
	s.HeaderTrust, s.Balancers = ref("header.pem"), ref("balancers.pem")
	s.RateLimit.Value.Redis.CAFile = at("redis.pem")
	s.KeyManagers = []Placed[token.KeyManager]{
		{Value: token.KeyManager{Name: "by file", Type: "default", Issuer: "i", CertificateFile: at("issuer.pem")}},
		{Value: token.KeyManager{Name: "by address", Type: "default", Issuer: "j", JWKS: "https://127.0.0.1:1/jwks", CAFile: at("jwks-ca.pem")}},
	}
	backends, _ := url.Parse("https://127.0.0.1:1")
	s.APIs = []API{{
		Route: decision.Route{API: orders, Context: "/orders", Upstream: backend.Upstream{URLs: []*url.URL{backends}}},
		Tier:  "Unlimited", CAFile: at("upstream-ca.pem"), KeyStore: keystore.Ref{Location: at("upstream.pem")},
	}}
	register := func(api certstore.API, alias, tier string, who *party) certstore.Client {
		return certstore.Client{API: api, Alias: alias, KeyType: certstore.Production, Tier: tier, Certificate: who.cert, Source: "apis.yaml:" + alias}
	}
	other, nowhere := certstore.API{Name: "other", Version: "1"}, certstore.API{Name: "nowhere", Version: "1"}
	twice := made("twice")
	s.Clients = []certstore.Client{
		register(orders, "good", "Gold", made("good")), register(orders, "ended", "Gold", issue(t, "ended", p.ca, until(time.Now().Add(-5*day)))),
		register(orders, "tier", "None", made("tier")), register(nowhere, "lost", "Gold", made("lost")), register(orders, "in-file", "Gold", twice),
	}
	s.LeftOut = []API{{Route: decision.Route{API: other}, Labels: []string{"eu", "us"}}}
	s.Elsewhere = []certstore.Client{register(other, "file", "Gold", made("elsewhere"))}
	s.Store.Value.URL = "sqlite:" + at("store.db")
	store, err := s.Store.Value.Open(t.Context(), certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []certstore.Client{
		register(orders, "stored", "Gold", made("stored")), register(other, "stored", "Gold", made("stored elsewhere")), register(orders, "in-store", "Gold", twice),
	} {
		if err := store.Add(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), s); err == nil || !strings.Contains(err.Error(), "neither is admitted") {
		t.Errorf("a registration in two places: %v", err)
	}
	a, err := Survey(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	onServer := *s
	onServer.Store.Value = certstore.Source{URL: "postgres://gateway@db.example.com/sallyport", CAFile: at("db.pem")}
	b := newLoop(Options{}).builder(&onServer)
	if err := b.build(); err != nil || !slices.ContainsFunc(b.opened, func(c Certificate) bool { return c.Name() == at("db.pem")+": CN=database" }) {
		t.Errorf("of a store on a server: %v, %v", b.opened, err)
	}
	list := a.Certificates(time.Now(), 1000)
	var got []string
	for _, c := range list {
		from := strings.TrimPrefix(c.From, dir+"/")
		got = append(got, strings.TrimSuffix(fmt.Sprintf("%s | %s | %s | %s", c.Kind, c.Label(), from, c.Note), " | "))
	}
	slices.Sort(got)
	want := []string{
		`balancer | CN=load balancer | balancers.pem`,
		`client | nowhere:1 lost (PRODUCTION) | apis.yaml:lost | no such API is served here`,
		`client | orders:1.0.0 ended (PRODUCTION) | apis.yaml:ended`,
		`client | orders:1.0.0 good (PRODUCTION) | apis.yaml:good`,
		`client | orders:1.0.0 in-file (PRODUCTION) | apis.yaml:in-file | registered in the store and in a file: neither admits it`,
		`client | orders:1.0.0 in-store (PRODUCTION) | store | registered in the store and in a file: neither admits it`,
		`client | orders:1.0.0 stored (PRODUCTION) | store`,
		`client | orders:1.0.0 tier (PRODUCTION) | apis.yaml:tier | its tier "None" doesn't exist: it admits nobody`,
		`client | other:1 file (PRODUCTION) | apis.yaml:file | not served here, but by gateways labelled eu, us`,
		`client | other:1 stored (PRODUCTION) | store | not served here, but by gateways labelled eu, us`,
		`key_manager | by file: CN=issuer | issuer.pem`,
		`server | listener https: CN=second | second.pem`,
		`server | listener https: CN=server | server.pem`,
		`server | listener https: CN=server's intermediate | server.pem`,
		`trust_store | CN=backend | upstream-ca.pem`,
		`trust_store | CN=key server | jwks-ca.pem`,
		`trust_store | CN=redis | redis.pem`,
		`trust_store | CN=trusted in the header | header.pem`,
		`trust_store | CN=trusted there | second-trust.pem`,
		`trust_store | CN=trusted too | trust.pem`,
		`trust_store | CN=trusted | trust.pem`,
		`upstream | orders:1.0.0: CN=upstream | upstream.pem`,
		`upstream | orders:1.0.0: CN=upstream's intermediate | upstream.pem`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.IsSortedFunc(list, Certificate.compare) || list[0].Label() != "orders:1.0.0 ended (PRODUCTION)" {
		t.Errorf("the first is %+v", list[0])
	}
	if few := a.Certificates(time.Now(), 1); len(few) != len(list)-7 { // of each of the two sorts of registrations
		t.Errorf("%d of %d with one registration of each sort", len(few), len(list))
	}
}

// TestEndIsToldAtOnce: nobody waits for the next round to tell that a certificate has ended, also one that has come since
// the last.
func TestEndIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(b *bed, _ *Options) {
			b.disk.write("server.pem", issue(t, "first", b.ca, until(time.Now().Add(10*time.Second))).pem())
		})
		ended := func() int { return b.log.count("has ended\" kind=server") }
		time.Sleep(9 * time.Second)
		if n := ended(); n != 0 {
			t.Errorf("told %d times before", n)
		}
		time.Sleep(3 * time.Second)
		if n := ended(); n != 1 {
			t.Errorf("told %d times after 12 s", n)
		}
		b.disk.write("server.pem", issue(t, "second", b.ca, until(time.Now().Add(20*time.Second))).pem())
		if err := b.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(22 * time.Second)
		if n := ended(); n != 2 {
			t.Errorf("told %d times of two", n)
		}
	})
}
