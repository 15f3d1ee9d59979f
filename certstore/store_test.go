package certstore_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/certstore"
)

// TestStore holds every dialect to the same behaviour. A new one is a row.
func TestStore(t *testing.T) {
	for name, url := range map[string]func(*testing.T) string{
		"sqlite file":   func(t *testing.T) string { return "sqlite:" + newFile(t) },
		"sqlite memory": func(*testing.T) string { return "sqlite::memory:" },
	} {
		t.Run(name, func(t *testing.T) {
			testStore(t, func(t *testing.T, opts certstore.Options) *certstore.Store { return open(t, url(t), opts) })
		})
	}
}

func testStore(t *testing.T, openNew func(*testing.T, certstore.Options) *certstore.Store) {
	for name, test := range map[string]func(*testing.T, *certstore.Store){
		"a new store is empty":                      testEmpty,
		"add, get, list":                            testAdd,
		"what Add refuses":                          testAddRefuses,
		"an alias belongs to an API and a key type": testAliasScope,
		"texts are verbatim":                        testVerbatim,
		"update":                                    testUpdate,
		"what Update refuses":                       testUpdateRefuses,
		"remove":                                    testRemove,
		"the key type may be left out":              testWithoutKeyType,
		"50 lives of one alias":                     testTombstones,
		"list is sorted":                            testSorted,
		"version":                                   testVersion,
		"a cancelled call changes nothing":          testCancelled,
		"many goroutines":                           testGoroutines,
		"watch sees own writes":                     testWatchOwn,
		"closed":                                    testClosed,
	} {
		t.Run(name, func(t *testing.T) { test(t, openNew(t, certstore.Options{})) })
	}
	t.Run("the clock decides what has expired", func(t *testing.T) {
		past := time.Now().Add(-time.Hour)
		s := openNew(t, certstore.Options{Now: func() time.Time { return past.Add(-time.Minute) }})
		client := newClient(t, "expired")
		client.Certificate = newCertificate(t, past)
		add(t, s, client)
		expectList(t, s, client)
	})
}

func add(t testing.TB, s *certstore.Store, clients ...certstore.Client) {
	t.Helper()
	for _, c := range clients {
		if err := s.Add(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

func list(t testing.TB, s *certstore.Store) []certstore.Client {
	t.Helper()
	clients, problems, err := s.List(t.Context())
	if err != nil || len(problems) > 0 {
		t.Fatalf("list: %v, %v", problems, err)
	}
	return clients
}

// expectList compares what is in the store, in its order, with clients as they were given to Add.
func expectList(t testing.TB, s *certstore.Store, want ...certstore.Client) {
	t.Helper()
	expectSame(t, list(t, s), want)
}

func expectSame(t testing.TB, got, want []certstore.Client) {
	t.Helper()
	want = slices.Clone(want)
	for i := range want {
		want[i].Fingerprint = certstore.Fingerprint(want[i].Certificate)
		want[i].Source = "store"
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("the store differs (-want +got):\n%s", diff)
	}
}

func testEmpty(t *testing.T, s *certstore.Store) {
	expectList(t, s)
	if _, err := s.Get(t.Context(), orders, certstore.Production, "acme"); !errors.Is(err, certstore.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
}

func testAdd(t *testing.T, s *certstore.Store) {
	acme, zeta := newClient(t, "acme"), newClient(t, "zeta")
	zeta.Scopes = []string{"orders:read", "*"}
	elsewhere := acme // the same certificate and alias for another API
	elsewhere.API = certstore.API{Name: "payments", Version: "1.0.0"}
	elsewhere.Tier = "Bronze"
	add(t, s, acme, zeta, elsewhere)
	expectList(t, s, acme, zeta, elsewhere)
	got, err := s.Get(t.Context(), orders, certstore.Production, "zeta")
	if err != nil {
		t.Fatal(err)
	}
	expectSame(t, []certstore.Client{got}, []certstore.Client{zeta})
}

func testAddRefuses(t *testing.T, s *certstore.Store) {
	acme := newClient(t, "acme")
	add(t, s, acme)
	tests := []struct {
		name   string
		change func(*certstore.Client)
		want   error
		words  string
	}{
		{"the alias is taken", func(*certstore.Client) {}, certstore.ErrAliasTaken, "PRODUCTION"},
		{"the certificate is registered", func(c *certstore.Client) { c.Alias = "b"; c.Certificate = acme.Certificate }, certstore.ErrRegistered, `as "acme" (PRODUCTION)`},
		{"the certificate is registered for the other key type", func(c *certstore.Client) {
			c.KeyType, c.Certificate = certstore.Sandbox, acme.Certificate
		}, certstore.ErrRegistered, `as "acme" (PRODUCTION)`},
		{"expired", func(c *certstore.Client) {
			c.Alias = "b"
			c.Certificate = newCertificate(t, time.Now().Add(-time.Hour))
		}, certstore.ErrExpired, "on 20"},
		{"no certificate", func(c *certstore.Client) { c.Certificate = nil }, certstore.ErrInvalid, "no certificate"},
		{"no API", func(c *certstore.Client) { c.API = certstore.API{} }, certstore.ErrInvalid, "API name"},
		{"a colon in the version", func(c *certstore.Client) { c.API.Version = "1:0" }, certstore.ErrInvalid, "colon"},
		{"no alias", func(c *certstore.Client) { c.Alias = "" }, certstore.ErrInvalid, "alias is empty"},
		{"a path as alias", func(c *certstore.Client) { c.Alias = "../../x" }, certstore.ErrInvalid, "path"},
		{"46 characters", func(c *certstore.Client) { c.Alias = strings.Repeat("a", 46) }, certstore.ErrInvalid, "45"},
		{"NUL in the alias", func(c *certstore.Client) { c.Alias = "a\x00" }, certstore.ErrInvalid, "control"},
		{"no key type", func(c *certstore.Client) { c.KeyType = "" }, certstore.ErrInvalid, "key type"},
		{"an unknown key type", func(c *certstore.Client) { c.KeyType = "production" }, certstore.ErrInvalid, "key type"},
		{"no tier", func(c *certstore.Client) { c.Tier = "" }, certstore.ErrInvalid, "tier"},
		{"a long tier", func(c *certstore.Client) { c.Tier = strings.Repeat("t", 513) }, certstore.ErrInvalid, "512"},
		{"a space in a scope", func(c *certstore.Client) { c.Scopes = []string{"a b"} }, certstore.ErrInvalid, "scope"},
		{"an empty scope", func(c *certstore.Client) { c.Scopes = []string{""} }, certstore.ErrInvalid, "scope is empty"},
		{"too many scopes", func(c *certstore.Client) { c.Scopes = slices.Repeat([]string{"orders:read"}, 400) }, certstore.ErrInvalid, "4096"},
		{"another's fingerprint", func(c *certstore.Client) { c.Fingerprint = [32]byte{1} }, certstore.ErrInvalid, "fingerprint"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client := newClient(t, "acme")
			test.change(&client)
			err := s.Add(t.Context(), client)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("error is %v; want %v with %q", err, test.want, test.words)
			}
			if strings.Contains(fmt.Sprint(err), "BEGIN") || strings.Contains(fmt.Sprint(err), "\x00") {
				t.Errorf("the error says too much: %v", err)
			}
			expectList(t, s, acme)
		})
	}
}

func testAliasScope(t *testing.T, s *certstore.Store) {
	production := newClient(t, "acme")
	sandbox := newClient(t, "acme")
	sandbox.KeyType = certstore.Sandbox
	next := newClient(t, "acme")
	next.API.Version = "2.0.0"
	add(t, s, production, sandbox, next)
	expectList(t, s, production, sandbox, next)
}

func testVerbatim(t *testing.T, s *certstore.Store) {
	var want []certstore.Client
	for _, text := range oddAliases {
		c := newClient(t, text)
		c.Tier = "tier " + text
		add(t, s, c)
		want = append(want, c)
	}
	slices.SortFunc(want, func(a, b certstore.Client) int { return strings.Compare(a.Alias, b.Alias) })
	expectList(t, s, want...)
	for i, c := range want {
		got, err := s.Get(t.Context(), c.API, c.KeyType, c.Alias)
		if err != nil {
			t.Fatal(err)
		}
		expectSame(t, []certstore.Client{got}, want[i:i+1])
	}
	for i, c := range want {
		if err := s.Remove(t.Context(), c.API, c.KeyType, c.Alias); err != nil {
			t.Fatal(err)
		}
		expectList(t, s, want[i+1:]...)
	}
	want = nil
	for _, text := range []string{`it's "$1" $$ 50%`, "ORDERS", "orders", "🚪:x", "Orders"} {
		c := newClient(t, "acme")
		c.API = certstore.API{Name: text, Version: "v1'$1"}
		add(t, s, c)
		want = append(want, c)
	}
	slices.SortFunc(want, func(a, b certstore.Client) int { return strings.Compare(a.API.Name, b.API.Name) })
	expectList(t, s, want...)
}

func testUpdate(t *testing.T, s *certstore.Store) {
	ctx := t.Context()
	acme, other := newClient(t, "acme"), newClient(t, "other")
	acme.Scopes = []string{"a"}
	add(t, s, acme, other)
	update := func(cert *x509.Certificate, tier string, scopes *[]string) {
		t.Helper()
		if err := s.Update(ctx, orders, certstore.Production, "acme", cert, tier, scopes); err != nil {
			t.Fatal(err)
		}
		expectList(t, s, acme, other)
	}
	acme.Tier = "Silver"
	update(nil, "Silver", nil)
	acme.Certificate = validCertificate(t)
	update(acme.Certificate, "", nil)
	update(acme.Certificate, "", nil) // the same again
	acme.Scopes = []string{"b", "c"}
	update(nil, "", &acme.Scopes)
	acme.Scopes = nil
	update(nil, "", new([]string))
	acme.Certificate, acme.Tier, acme.Scopes = validCertificate(t), "Gold", []string{"*"}
	update(acme.Certificate, "Gold", &acme.Scopes)
}

func testUpdateRefuses(t *testing.T, s *certstore.Store) {
	acme, other := newClient(t, "acme"), newClient(t, "other")
	add(t, s, acme, other)
	bad := []string{"a b"}
	tests := []struct {
		name    string
		keyType certstore.KeyType
		alias   string
		cert    *x509.Certificate
		tier    string
		scopes  *[]string
		want    error
	}{
		{"nothing to change", certstore.Production, "acme", nil, "", nil, certstore.ErrInvalid},
		{"no such alias", certstore.Production, "ACME", nil, "Silver", nil, certstore.ErrNotFound},
		{"no such key type", certstore.Sandbox, "acme", nil, "Silver", nil, certstore.ErrNotFound},
		{"another's certificate", certstore.Production, "acme", other.Certificate, "", nil, certstore.ErrRegistered},
		{"expired", certstore.Production, "acme", newCertificate(t, time.Now().Add(-time.Hour)), "", nil, certstore.ErrExpired},
		{"an empty certificate", certstore.Production, "acme", &x509.Certificate{}, "", nil, certstore.ErrInvalid},
		{"a bad tier", certstore.Production, "acme", nil, "a\nb", nil, certstore.ErrInvalid},
		{"a bad scope", certstore.Production, "acme", nil, "", &bad, certstore.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := s.Update(t.Context(), orders, test.keyType, test.alias, test.cert, test.tier, test.scopes)
			if !errors.Is(err, test.want) {
				t.Errorf("error is %v; want %v", err, test.want)
			}
			expectList(t, s, acme, other)
		})
	}
}

func testRemove(t *testing.T, s *certstore.Store) {
	ctx := t.Context()
	acme, other := newClient(t, "acme"), newClient(t, "other")
	add(t, s, acme, other)
	if err := s.Remove(ctx, orders, certstore.Production, "acme"); err != nil {
		t.Fatal(err)
	}
	expectList(t, s, other)
	for _, alias := range []string{"acme", "nobody", "OTHER"} {
		if err := s.Remove(ctx, orders, certstore.Production, alias); !errors.Is(err, certstore.ErrNotFound) {
			t.Errorf("remove %q: %v; want ErrNotFound", alias, err)
		}
		if _, err := s.Get(ctx, orders, certstore.Production, alias); !errors.Is(err, certstore.ErrNotFound) {
			t.Errorf("get %q: %v; want ErrNotFound", alias, err)
		}
	}
	unknown := certstore.API{Name: "unknown", Version: "1"}
	if err := s.Remove(ctx, unknown, certstore.Production, "other"); !errors.Is(err, certstore.ErrNotFound) {
		t.Errorf("remove from an unknown API: %v; want ErrNotFound", err)
	}
	expectList(t, s, other)
	add(t, s, acme) // what was removed may come back
	expectList(t, s, acme, other)
}

func testWithoutKeyType(t *testing.T, s *certstore.Store) {
	ctx := t.Context()
	production, sandbox := newClient(t, "acme"), newClient(t, "acme")
	sandbox.KeyType = certstore.Sandbox
	add(t, s, production, sandbox)
	err := s.Remove(ctx, orders, "", "acme")
	if !errors.Is(err, certstore.ErrInvalid) || !strings.Contains(err.Error(), "PRODUCTION") || !strings.Contains(err.Error(), "SANDBOX") {
		t.Errorf("error is %v; want one that names both", err)
	}
	if _, err := s.Get(ctx, orders, "", "acme"); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("get: %v", err)
	}
	expectList(t, s, production, sandbox)
	if err := s.Remove(ctx, orders, certstore.Production, "acme"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, orders, "", "acme")
	if err != nil || got.KeyType != certstore.Sandbox {
		t.Errorf("got %v, %v", got, err)
	}
	if err := s.Update(ctx, orders, "", "acme", nil, "Silver", nil); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, orders, "", "acme"); err != nil {
		t.Error(err)
	}
	expectList(t, s)
}

func testTombstones(t *testing.T, s *certstore.Store) {
	first := newClient(t, "acme")
	for i := range 50 {
		c := newClient(t, "acme")
		if i%2 == 0 {
			c = first
		}
		add(t, s, c)
		if i%3 == 0 {
			c.Tier = "Silver"
			if err := s.Update(t.Context(), orders, c.KeyType, c.Alias, nil, c.Tier, nil); err != nil {
				t.Fatal(err)
			}
		}
		expectList(t, s, c)
		if err := s.Remove(t.Context(), orders, c.KeyType, c.Alias); err != nil {
			t.Fatal(err)
		}
		expectList(t, s)
	}
}

func testSorted(t *testing.T, s *certstore.Store) {
	var want []certstore.Client
	for _, api := range []string{"a:1", "a:2", "b:1"} {
		for _, alias := range []string{"B", "a", "z", "é"} {
			for _, keyType := range []certstore.KeyType{certstore.Production, certstore.Sandbox} {
				c := newClient(t, alias)
				c.API, _ = certstore.ParseAPI(api)
				c.KeyType = keyType
				want = append(want, c)
			}
		}
	}
	for _, i := range []int{5, 0, 11, 23, 8, 1, 2, 3, 4, 6, 7, 9, 10, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12} {
		add(t, s, want[i])
	}
	expectList(t, s, want...)
}

func testVersion(t *testing.T, s *certstore.Store) {
	version := func() uint64 {
		t.Helper()
		v, err := s.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	seen := []uint64{version()}
	if v := version(); v != seen[0] {
		t.Errorf("the version went from %d to %d by itself", seen[0], v)
	}
	changed := func() {
		t.Helper()
		v := version()
		if slices.Contains(seen, v) {
			t.Errorf("version %d was there before: %v", v, seen)
		}
		seen = append(seen, v)
	}
	add(t, s, newClient(t, "acme"))
	changed()
	list(t, s)
	if v := version(); v != seen[1] {
		t.Errorf("reading changed the version from %d to %d", seen[1], v)
	}
	if err := s.Update(t.Context(), orders, certstore.Production, "acme", nil, "Silver", nil); err != nil {
		t.Fatal(err)
	}
	changed()
	if err := s.Remove(t.Context(), orders, certstore.Production, "acme"); err != nil {
		t.Fatal(err)
	}
	changed()
}

func testCancelled(t *testing.T, s *certstore.Store) {
	acme := newClient(t, "acme")
	add(t, s, acme)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Add(ctx, newClient(t, "other")); !errors.Is(err, context.Canceled) {
		t.Errorf("add: %v", err)
	}
	if err := s.Remove(ctx, orders, certstore.Production, "acme"); !errors.Is(err, context.Canceled) {
		t.Errorf("remove: %v", err)
	}
	if _, _, err := s.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	if _, err := s.Version(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("version: %v", err)
	}
	expectList(t, s, acme)
	// Cancelled at whatever moment, a call either says so and did nothing, or says nothing and did it.
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		alias := fmt.Sprintf("c%d", i)
		err := s.Add(ctx, newClient(t, alias))
		_, found := s.Get(t.Context(), orders, certstore.Production, alias)
		if (err == nil) != (found == nil) {
			t.Errorf("add: %v; get: %v", err, found)
		}
	}
}

func testGoroutines(t *testing.T, s *certstore.Store) {
	const writers, rounds = 4, 5
	errs := make(chan error, writers+1)
	for w := range writers {
		clients := make([]certstore.Client, rounds)
		for i := range clients {
			clients[i] = newClient(t, fmt.Sprintf("w%d-%d", w, i))
		}
		go func() {
			var all []error
			for i, c := range clients {
				all = append(all, s.Add(t.Context(), c))
				if i%2 == 0 {
					all = append(all, s.Remove(t.Context(), c.API, c.KeyType, c.Alias))
				}
			}
			errs <- errors.Join(all...)
		}()
	}
	go func() {
		var all []error
		for range rounds {
			_, problems, err := s.List(t.Context())
			if len(problems) > 0 {
				err = fmt.Errorf("problems: %v", problems)
			}
			all = append(all, err)
		}
		errs <- errors.Join(all...)
	}()
	for range writers + 1 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := len(list(t, s)); n != writers*(rounds/2) {
		t.Errorf("%d clients are left, want %d", n, writers*(rounds/2))
	}
}

func testWatchOwn(t *testing.T, s *certstore.Store) {
	add(t, s, newClient(t, "before")) // between Open and Watch: must not be missed
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen, done := make(chan int, 100), make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, time.Hour, func() error {
			clients, problems, err := s.List(ctx)
			if err != nil || len(problems) > 0 {
				t.Errorf("list: %v, %v", problems, err)
			}
			seen <- len(clients)
			return nil
		})
	}()
	for want := 1; want <= 3; want++ {
		if want > 1 {
			add(t, s, newClient(t, fmt.Sprint("alias", want)))
		}
		for got := 0; got != want; {
			select {
			case got = <-seen:
			case err := <-done:
				t.Fatalf("watch ended: %v", err)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("watch: %v", err)
	}
}

func testClosed(t *testing.T, s *certstore.Store) {
	done := make(chan error, 1)
	go func() { done <- s.Watch(t.Context(), time.Hour, func() error { return nil }) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("watch: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	if err := s.Add(t.Context(), newClient(t, "acme")); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("add: %v", err)
	}
	if _, _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("list: %v", err)
	}
}
