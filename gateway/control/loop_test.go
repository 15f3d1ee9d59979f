package control

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come about that %s", what)
		}
	}
}

// swaps are the parts that were put into force since Open.
func (b *bed) swaps() []gateway.Parts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.parts[1:])
}

// A change of the configuration and one of the profiles come into force by one swap.
func TestChangesAreSwappedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(_ *bed, cfg *Options) { cfg.settle = 0 })
		b.change(func(s *Spec) { s.Fixed = map[string]any{"log": 1} })
		b.disk.write("server.pem", b.second.pem())
		b.after(t, 11*time.Second, configuration, 1, 0)
		b.counts(t, https, 1, 0)
		swaps := b.swaps()
		if len(swaps) != 1 || swaps[0].Listeners == nil || swaps[0].Routes == nil || swaps[0].Clients == nil {
			t.Errorf("%d swaps: %+v", len(swaps), swaps)
		}
		if b.log.count("takes effect with the next start only") != 1 || b.log.count("keys=log") != 1 {
			t.Error("nobody says that a change waits for the next start")
		}
	})
}

// What a swap consists of: a part that is added to gateway.Parts has to be put into force by put.
func TestEveryPartIsPut(t *testing.T) {
	b := newBed(t, nil)
	parts := reflect.ValueOf(b.parts[0])
	for i := range parts.NumField() {
		if parts.Field(i).IsZero() {
			t.Errorf("%s is not put into force", parts.Type().Field(i).Name)
		}
	}
}

// A field of an Assembly has to be followed by something, or a change of it never comes into force.
func TestEveryFieldOfAnAssemblyIsFollowed(t *testing.T) {
	followed := map[string]string{
		"Spec": "content", "read": "content", // make the configuration another one
		"Routes": "put", "Clients": "put", "sets": "put, by Listeners", "door": "put, by Listeners",
		"tokens": "follow", "issuer": "follow", "owns": "Build's own", "store": "follow", "registered": "lookAtStore, by its version",
		"skipped": "made with what is read", "storeWarnings": "made with what is read",
		"keys": "made with Routes", "opened": "made with Spec, by read", "Warnings": "made with Clients", "bystanders": "made with Clients", "index": "made with Clients", "limits": "the Loop's own", "sighting": "the Loop's own",
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Assembly]()) {
		if followed[field.Name] == "" {
			t.Errorf("nobody follows a change of %s", field.Name)
		}
	}
}

// Whatever is added to an API is part of its route, or makes it a problem.
func TestEveryFieldOfAnAPIIsBuilt(t *testing.T) {
	files := map[string][]byte{"ca.pem": certPEM(thePKI().ca), "key.pem": thePKI().server.pem()}
	spec := newSpec("/bed")
	route := func(api API) string {
		b := newLoop(Options{readFile: (&disk{files: files}).read}).builder(spec)
		r, err := b.route(api)
		r.Upstream.Roots, r.Upstream.Certificates = nil, nil // by TLSDigest
		return fmt.Sprintf("%+v %v %v", r, slices.Sorted(maps.Keys(b.read)), append(b.problems, Problem{Message: fmt.Sprint(err)}))
	}
	base := API{
		Tier: "Gold", ResourceTiers: []string{"Gold"}, CAFile: "/bed/ca.pem", KeyStore: keystore.Ref{Location: "/bed/key.pem", Type: "PEM"},
		Route: decision.Route{Resources: []decision.Resource{{Path: "/"}}},
	}
	before := route(base)
	for _, change := range []struct {
		field string
		by    func(*API)
	}{
		{"Tier", func(a *API) { a.Tier = "Unlimited" }},
		{"ResourceTiers", func(a *API) { a.ResourceTiers = []string{""} }},
		{"CAFile", func(a *API) { a.CAFile = "/bed/key.pem" }},
		{"KeyStore", func(a *API) { a.KeyStore.Location = "/bed/nowhere.pem" }},
		{"KeyStore", func(a *API) { a.KeyStore.Type = "" }},
		{"KeyStore", func(a *API) { a.KeyStore.Alias = "other" }},
		{"Route", func(a *API) { a.Context = "/other" }},
	} {
		changed := base
		change.by(&changed)
		if route(changed) == before {
			t.Errorf("another %s changes nothing", change.field)
		}
	}
	known := []string{"Place", "Keys", "Words", "Labels", "Route", "Tier", "ResourceTiers", "CAFile", "KeyStore"} // the first four are for people
	for i := range reflect.TypeFor[API]().NumField() {
		if name := reflect.TypeFor[API]().Field(i).Name; !slices.Contains(known, name) {
			t.Errorf("nobody says what %s of an API changes", name)
		}
	}
}

// A configuration that cannot be read changes nothing and is told once; other sources go on.
func TestBrokenConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Pointer[error]
		b := startBed(t, func(b *bed, cfg *Options) {
			cfg.Load = func() (*Spec, error) {
				if err := broken.Load(); err != nil {
					return nil, *err
				}
				return b.spec.Load(), nil
			}
		})
		err := errors.New("sallyport.yaml:1:2: this is none\nsallyport.yaml:2:3: neither is this")
		broken.Store(&err)
		b.after(t, time.Hour, configuration, 0, 1)
		if n := b.log.count("the configuration was not reloaded; the last good one serves on"); n != 2 {
			t.Errorf("%d lines of two problems", n)
		}
		b.disk.write("server.pem", b.second.pem())
		b.after(t, 10*time.Second, https, 1, 0)
		broken.Store(nil)
		b.after(t, 10*time.Second, configuration, 1, 1)
		if b.log.count("the configuration was reloaded") != 0 || len(b.swaps()) != 1 {
			t.Error("what is as it was was reloaded")
		}
	})
}

// Where Redis is, its password and its CAs take effect with the next start: the log says so, and nothing secret.
func TestRedisNeedsARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		redis := func(s *Spec, password string) {
			s.RateLimit.Value.Redis = ratelimit.Redis{
				Addresses: []string{"127.0.0.1:1"}, Password: password, TLS: true, CAFile: "/bed/redis-ca.pem",
			}
			s.RateLimit.Keys = Keys{"caFile": {File: "sallyport.yaml", Line: 9, Column: 3}}
			s.Fixed = map[string]any{"rateLimit": s.RateLimit.Value}
		}
		b := startBed(t, func(b *bed, cfg *Options) {
			cfg.settle, cfg.unshared = 0, true // a real connection is no part of a bubble
			b.disk.write("redis-ca.pem", certPEM(b.ca))
			redis(b.spec.Load(), "canary-1")
		})
		says := func(n int) {
			t.Helper()
			if got := b.log.count("takes effect with the next start only\" keys=rateLimit"); got != n {
				t.Errorf("the next start is named %d times, want %d", got, n)
			}
		}
		says(0)
		b.change(func(s *Spec) { redis(s, "canary-2") })
		b.after(t, 11*time.Second, configuration, 1, 0)
		says(1)
		b.change(func(s *Spec) { s.HeaderTrust.Line = 7 })
		b.after(t, 11*time.Second, configuration, 2, 0)
		says(1)
		b.disk.write("redis-ca.pem", certPEM(b.other))
		b.after(t, 11*time.Second, configuration, 3, 0)
		says(2)
		b.disk.write("redis-ca.pem", []byte("nothing"))
		b.after(t, 11*time.Second, configuration, 3, 1)
		says(2)
		want := "sallyport.yaml:9:3: redis caFile /bed/redis-ca.pem: it holds no certificate"
		if err := b.state(configuration).Broken; !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if b.log.count("canary") != 0 {
			t.Error("the log shows a password")
		}
	})
}

// What the configuration names itself is of the configuration: here the trust store for the header, written slowly.
func TestStoreOfTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(b *bed, cfg *Options) {
			cfg.settle = 0
			s := b.spec.Load()
			s.Period, s.Listeners[0].Believes = time.Second, true
			s.HeaderTrust.Value.Location = "/bed/other.pem"
		})
		door := b.InForce().door
		b.change(func(s *Spec) { s.HeaderTrust.Line, s.Fixed = 7, map[string]any{"log": 1} })
		b.after(t, 2*time.Second, configuration, 1, 0)
		if b.InForce().door != door {
			t.Error("the door is another one, and nothing about it has changed")
		}
		b.change(func(s *Spec) { s.HeaderRevocation.Value.OCSP = true })
		b.after(t, 2*time.Second, configuration, 2, 0)
		if b.InForce().door == door {
			t.Error("certificates of the header are looked up, and the door has not heard")
		}
		door = b.InForce().door
		b.disk.slowly("other.pem", certPEM(b.other, b.ca), []int{len(certPEM(b.other)) / 2, len(certPEM(b.other))})
		b.after(t, 3*time.Second, configuration, 3, 0)
		if b.InForce().door == door {
			t.Error("the new trust store is not in force")
		}
		b.disk.remove("other.pem")
		b.after(t, 2*time.Second, configuration, 3, 1)
		b.disk.write("other.pem", certPEM(b.other, b.ca))
		b.after(t, 2*time.Second, configuration, 4, 1)
	})
}

// A configuration and a store that only fit together: either may come first, and half of it is told and not in force.
func TestConfigurationAndItsKeyStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, nil)
		set := b.set()
		b.change(func(s *Spec) {
			tls := *s.Listeners[0].TLS
			tls.Own.KeyStore.Location = "/bed/new.pem"
			s.Listeners[0].TLS = &tls
		})
		b.after(t, 10*time.Second, configuration, 0, 1)
		if err := b.state(configuration).Broken; !strings.Contains(fmt.Sprint(err), "sallyport.yaml:2:5: ") || b.set() != set {
			t.Errorf("half of a change: %v", err)
		}
		b.counts(t, https, 0, 0)
		if files := b.sources[configuration].files; !slices.Contains(files, "/bed/new.pem") {
			t.Errorf("nobody waits for the other half: %v", files)
		}
		b.disk.write("new.pem", b.second.pem())
		b.mark(https) // whatever changes, what is broken is looked at
		b.after(t, time.Millisecond, configuration, 1, 1)
		b.counts(t, https, 1, 0)
		if len(b.swaps()) != 1 {
			t.Errorf("%d swaps", len(b.swaps()))
		}
	})
}

// Profiles that are broken by themselves keep no configuration from coming into force, unless it is about them.
func TestBrokenProfilesAreAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, nil)
		set := b.set()
		b.disk.write("listenerprofiles.xml", nil)
		b.mark(https)
		b.after(t, time.Millisecond, https, 0, 1)
		b.change(func(s *Spec) { s.Fixed = map[string]any{"log": 1} })
		b.after(t, 10*time.Second, configuration, 1, 0)
		if b.counts(t, https, 0, 1); b.set() != set {
			t.Error("the last good profiles do not serve")
		}
		about := func(s *Spec) {
			tls := *s.Listeners[0].TLS
			tls.Own.VerifyClient = listenerprofiles.Require
			s.Listeners[0].TLS = &tls
		}
		b.change(about)
		b.after(t, 10*time.Second, configuration, 1, 1)
		b.counts(t, https, 0, 1)
		b.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.2 verify=require")))
		b.after(t, 10*time.Second, configuration, 2, 1)
		b.counts(t, https, 1, 1)
	})
}

// A listener that cannot be opened: nothing of the configuration is in force, it is tried again, and told once.
// Profiles change meanwhile.
func TestListenerThatCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(b *bed, cfg *Options) { cfg.settle, b.spec.Load().Period = 0, 100*time.Millisecond })
		spec := b.spec.Load()
		taken := errors.New("listener new: address already in use")
		b.cfg.Set = func(p gateway.Parts) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(p.Listeners) > 1 && b.fails != nil {
				return b.fails
			}
			b.parts = append(b.parts, p)
			return nil
		}
		b.mu.Lock()
		b.fails = taken
		b.mu.Unlock()
		b.change(func(s *Spec) {
			s.Listeners = append(s.Listeners, Listener{Listener: decision.Listener{Name: "new", Address: "127.0.0.1:1"}})
		})
		b.after(t, time.Minute, configuration, 0, 1)
		b.disk.write("server.pem", b.second.pem())
		b.after(t, time.Second, https, 1, 0)
		if b.InForce().Spec != spec || len(b.swaps()) != 1 {
			t.Errorf("%+v", b.swaps())
		}
		b.counts(t, configuration, 0, 1)
		b.mu.Lock()
		b.fails = nil
		b.mu.Unlock()
		b.after(t, 11*time.Second, configuration, 1, 1)
		if len(b.InForce().Listeners()) != 2 || b.state(configuration).Broken != nil {
			t.Error("the listener is not tried again")
		}
	})
}

// Sources come and go with the configuration, and none that is gone is called broken.
func TestSourcesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, nil)
		names := func() (names []string) {
			for _, s := range b.State() {
				names = append(names, s.Name)
			}
			return names
		}
		if got := names(); !slices.Equal(got, []string{configuration, https}) {
			t.Errorf("%q", got)
		}
		b.disk.write("listenerprofiles.xml", nil)
		b.mark(https)
		b.after(t, time.Millisecond, https, 0, 1)
		b.change(func(s *Spec) {
			tls := *s.Listeners[0].TLS
			tls.FilePath = ""
			s.Listeners[0].Name, s.Listeners[0].TLS, s.Period = "other", &tls, time.Second
		})
		b.after(t, 10*time.Second, https, 1, 1)
		if got := names(); !slices.Equal(got, []string{configuration, profilesOf("other")}) {
			t.Errorf("%q", got)
		}
		b.disk.write("server.pem", b.second.pem())
		b.after(t, time.Second, profilesOf("other"), 2, 0) // by the new period
	})
}

// TestPanicOnTheControlSide: a task that panics is told of, and begins anew; so does a look. Nothing else ends. Held:
// security K 146.
func TestPanicOnTheControlSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := false
		b := startBed(t, func(b *bed, cfg *Options) {
			cfg.Load = func() (*Spec, error) {
				if panics {
					panic("a fault of the look")
				}
				return b.spec.Load(), nil
			}
		})
		panics = true
		if err := b.Reload(t.Context()); err == nil {
			t.Error("no error of a look that panicked")
		}
		b.after(t, 10*time.Second, configuration, 0, 0)
		if n := b.log.count("a fault of the look"); n != 2 {
			t.Errorf("told %d times", n)
		}
		panics = false
		b.disk.write("server.pem", b.second.pem())
		if err := b.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		b.after(t, 0, https, 1, 0)

		ctx, cancel := context.WithCancel(t.Context())
		runs := 0
		b.begin(ctx, func(ctx context.Context) error {
			if runs++; runs < 3 {
				panic("a fault of the task")
			}
			<-ctx.Done()
			return nil
		})
		time.Sleep(3 * taskPause)
		synctest.Wait()
		cancel()
		if n := b.log.count("a fault of the task"); runs != 3 || n < 2 {
			t.Errorf("it ran %d times, told %d times", runs, n)
		}
	})
}

// What has not changed is taken over by the next Assembly; what has is made anew.
func TestBuildTakesOver(t *testing.T) {
	certificate := filepath.Join(t.TempDir(), "issuer.pem")
	if err := os.WriteFile(certificate, certPEM(thePKI().ca), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBed(t, func(b *bed, _ *Options) {
		s := b.spec.Load()
		s.KeyManagers = []Placed[token.KeyManager]{{
			Place: Place{"sallyport.yaml", 9, 5},
			Value: token.KeyManager{Name: "resident", Type: "default", Issuer: "https://issuer", CertificateFile: certificate},
		}}
		s.APIs = []API{{Tier: "Gold", Route: decision.Route{
			API: certstore.API{Name: "orders", Version: "1.0.0"}, Context: "/orders", Security: policy.Security{Token: policy.Optional},
			Upstream: backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "127.0.0.1:9000"}}},
		}}}
		s.Listeners[0].Believes = true
	})
	last := b.InForce()
	counted := b.limits.Len()
	make := func(change func(*Spec)) *Assembly {
		t.Helper()
		b.change(change)
		next := b.builder(b.spec.Load(), last)
		if err := next.build(); err != nil {
			t.Fatal(err)
		}
		return next.Assembly
	}
	same := make(func(s *Spec) { s.KeyManagers = slices.Clone(s.KeyManagers); s.KeyManagers[0].Line = 12 })
	if same.tokens != last.tokens || same.sets["https"] != last.sets["https"] || same.door != last.door || b.limits.Len() != counted || counted != 1 {
		t.Error("something was made anew, and nothing of it had changed")
	}
	other := make(func(s *Spec) {
		s.KeyManagers[0].Value.Type = "custom"
		s.Header.Header = "X-Other"
		tls := *s.Listeners[0].TLS
		tls.Own.Protocols = []uint16{0x304}
		s.Listeners[0].TLS = &tls
	})
	if other.tokens == last.tokens || other.sets["https"] == last.sets["https"] || other.door == last.door {
		t.Error("something was taken over that has changed")
	}
	if slower := make(func(s *Spec) { s.Period = time.Minute }); slower.tokens == last.tokens {
		t.Error("files of keys are read by the old period")
	}
	b.change(func(s *Spec) { s.KeyManagers[0].Value.CertificateFile = "/nowhere" })
	if err := b.builder(b.spec.Load(), last).build(); !strings.Contains(fmt.Sprint(err), "sallyport.yaml:12:5: ") {
		t.Errorf("a key manager without keys: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// Keys look after themselves and report.
func TestKeysReport(t *testing.T) {
	b := newBed(t, func(b *bed, _ *Options) {
		file := filepath.Join(t.TempDir(), "issuer.pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.ca.cert.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		s := b.spec.Load()
		s.KeyManagers = []Placed[token.KeyManager]{{Value: token.KeyManager{Name: "resident", Type: "default", Issuer: "i", CertificateFile: file}}}
	})
	b.keysTold("resident", errors.New("away"))
	b.keysTold("resident", errors.New("away still"))
	b.counts(t, "keys of resident", 0, 2)
	if s := b.state("keys of resident"); s.Broken == nil || s.BrokenSince.IsZero() {
		t.Errorf("%+v", s)
	}
	b.keysTold("resident", nil)
	b.keysTold("resident", nil)
	b.counts(t, "keys of resident", 1, 2)
}

// TestPanicInALook: a panic while changes are looked at is an error of that Reload alone; the loop goes on, with the
// last good state.
func TestPanicInALook(t *testing.T) {
	var armed atomic.Bool
	counted := make(chan string, 10)
	b := startBed(t, func(b *bed, cfg *Options) {
		load := cfg.Load
		cfg.Load = func() (*Spec, error) {
			if armed.Load() {
				panic("in Load")
			}
			return load()
		}
		cfg.Panicked = func(where string) { counted <- where }
	})
	before := b.InForce()
	armed.Store(true)
	if err := b.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "panicked: in Load") {
		t.Errorf("Reload: %v", err)
	}
	if got := <-counted; got != "the control side" {
		t.Errorf("counted as %q", got)
	}
	if b.InForce() != before {
		t.Error("something else is in force")
	}
	armed.Store(false)
	b.change(func(s *Spec) { s.Period = time.Minute })
	if err := b.Reload(t.Context()); err != nil || b.InForce().Spec.Period != time.Minute {
		t.Errorf("the next Reload: %v", err)
	}
	if n := b.log.count("msg=\"the control side panicked\""); n != 1 {
		t.Errorf("the log tells %d times", n)
	}
}

// TestDoorOfAnAttempt: who looks revocations up for a door that an attempt has built, which did not come into force, is
// forgotten when something else does. A later attempt has one that is kept up to date.
func TestDoorOfAnAttempt(t *testing.T) {
	b := newBed(t, func(b *bed, _ *Options) { b.spec.Load().Listeners[0].Believes = true })
	last := b.InForce()
	b.change(func(s *Spec) { s.HeaderRevocation.Value.OCSP = true })
	attempt := b.builder(b.spec.Load(), last)
	if err := attempt.build(); err != nil {
		t.Fatal(err)
	}
	b.revoked.Keep(last.checkers())
	next := b.builder(b.spec.Load(), last, attempt.Assembly)
	if err := next.build(); err != nil {
		t.Fatal(err)
	}
	checker, err := b.revoked.Checker(b.spec.Load().HeaderRevocation.Value)
	if err != nil || next.door.Rules().Revocation != checker {
		t.Errorf("the door goes by somebody else than who is kept up to date (%v)", err)
	}
	again := b.builder(b.spec.Load(), last, next.Assembly)
	if err := again.build(); err != nil || again.door != next.door {
		t.Errorf("the door is another one, and nothing about it has changed (%v)", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
