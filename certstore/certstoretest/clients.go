package certstoretest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/policy/certrule"
)

func testEmpty(t *testing.T, s *certstore.Store) {
	ExpectList(t, s)
	if _, err := s.Get(t.Context(), Orders, certstore.Production, "acme"); !errors.Is(err, certstore.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
}

func testAdd(t *testing.T, s *certstore.Store) {
	acme, zeta := NewClient(t, "acme"), NewClient(t, "zeta")
	zeta.Scopes = []string{"orders:read", "*"}
	elsewhere := acme // the same certificate and alias for another API
	elsewhere.API = certstore.API{Name: "payments", Version: "1.0.0"}
	elsewhere.Tier = "Bronze"
	Add(t, s, acme, zeta, elsewhere)
	ExpectList(t, s, acme, zeta, elsewhere)
	got, err := s.Get(t.Context(), Orders, certstore.Production, "zeta")
	if err != nil {
		t.Fatal(err)
	}
	ExpectSame(t, []certstore.Client{got}, []certstore.Client{zeta})
}

func testAddRefuses(t *testing.T, s *certstore.Store) {
	acme := NewClient(t, "acme")
	Add(t, s, acme)
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
			c.Certificate = endingAt(t, time.Now().Add(-time.Hour))
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
			client := NewClient(t, "acme")
			test.change(&client)
			err := s.Add(t.Context(), client)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("error is %v; want %v with %q", err, test.want, test.words)
			}
			if strings.Contains(fmt.Sprint(err), "BEGIN") || strings.Contains(fmt.Sprint(err), "\x00") {
				t.Errorf("the error says too much: %v", err)
			}
			ExpectList(t, s, acme)
		})
	}
}

func testAliasScope(t *testing.T, s *certstore.Store) {
	production := NewClient(t, "acme")
	sandbox := NewClient(t, "acme")
	sandbox.KeyType = certstore.Sandbox
	next := NewClient(t, "acme")
	next.API.Version = "2.0.0"
	Add(t, s, production, sandbox, next)
	ExpectList(t, s, production, sandbox, next)
}

func testVerbatim(t *testing.T, s *certstore.Store) {
	var want []certstore.Client
	for _, text := range OddAliases {
		c := NewClient(t, text)
		c.Tier = "tier " + text
		Add(t, s, c)
		want = append(want, c)
	}
	slices.SortFunc(want, func(a, b certstore.Client) int { return strings.Compare(a.Alias, b.Alias) })
	ExpectList(t, s, want...)
	for i, c := range want {
		got, err := s.Get(t.Context(), c.API, c.KeyType, c.Alias)
		if err != nil {
			t.Fatal(err)
		}
		ExpectSame(t, []certstore.Client{got}, want[i:i+1])
	}
	for i, c := range want {
		if err := s.Remove(t.Context(), c.API, c.KeyType, c.Alias); err != nil {
			t.Fatal(err)
		}
		ExpectList(t, s, want[i+1:]...)
	}
	want = nil
	for _, text := range []string{`it's "$1" $$ 50%`, "ORDERS", "orders", "🚪:x", "Orders"} {
		c := NewClient(t, "acme")
		c.API = certstore.API{Name: text, Version: "v1'$1"}
		Add(t, s, c)
		want = append(want, c)
	}
	slices.SortFunc(want, func(a, b certstore.Client) int { return strings.Compare(a.API.Name, b.API.Name) })
	ExpectList(t, s, want...)
}

func testUpdate(t *testing.T, s *certstore.Store) {
	ctx := t.Context()
	acme, other := NewClient(t, "acme"), NewClient(t, "other")
	acme.Scopes = []string{"a"}
	Add(t, s, acme, other)
	update := func(cert *x509.Certificate, tier string, scopes *[]string) {
		t.Helper()
		if err := s.Update(ctx, Orders, certstore.Production, "acme", cert, tier, scopes); err != nil {
			t.Fatal(err)
		}
		ExpectList(t, s, acme, other)
	}
	acme.Tier = "Silver"
	update(nil, "Silver", nil)
	acme.Certificate = newCertificate(t)
	update(acme.Certificate, "", nil)
	update(acme.Certificate, "", nil) // the same again
	acme.Scopes = []string{"b", "c"}
	update(nil, "", &acme.Scopes)
	acme.Scopes = nil
	update(nil, "", new([]string))
	acme.Certificate, acme.Tier, acme.Scopes = newCertificate(t), "Gold", []string{"*"}
	update(acme.Certificate, "Gold", &acme.Scopes)
}

func testUpdateRefuses(t *testing.T, s *certstore.Store) {
	acme, other := NewClient(t, "acme"), NewClient(t, "other")
	Add(t, s, acme, other)
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
		{"expired", certstore.Production, "acme", endingAt(t, time.Now().Add(-time.Hour)), "", nil, certstore.ErrExpired},
		{"an empty certificate", certstore.Production, "acme", &x509.Certificate{}, "", nil, certstore.ErrInvalid},
		{"a bad tier", certstore.Production, "acme", nil, "a\nb", nil, certstore.ErrInvalid},
		{"a bad scope", certstore.Production, "acme", nil, "", &bad, certstore.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := s.Update(t.Context(), Orders, test.keyType, test.alias, test.cert, test.tier, test.scopes)
			if !errors.Is(err, test.want) {
				t.Errorf("error is %v; want %v", err, test.want)
			}
			ExpectList(t, s, acme, other)
		})
	}
}

// testMatch: a CA's match is kept to the letter, goes along with changes of anything else, and is for CAs alone.
func testMatch(t *testing.T, s *certstore.Store) {
	partner, all := NewCA(t, "partner", "partner.test"), NewCA(t, "all", "all.test")
	all.Match = NewMatch(t, certrule.Match{}) // as good as none
	leaf := NewClient(t, "leaf")
	leaf.Match = partner.Match
	if err := s.Add(t.Context(), leaf); !errors.Is(err, certstore.ErrInvalid) || !strings.Contains(err.Error(), "no CA's") {
		t.Errorf("a match of a certificate that is no CA's: %v", err)
	}
	leaf.Match = new(certrule.Matcher)
	if err := s.Add(t.Context(), leaf); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("a match that was not compiled: %v", err)
	}
	leaf.Match = nil
	Add(t, s, partner, all, leaf)
	all.Match = nil
	expect := func() {
		t.Helper()
		ExpectList(t, s, all, leaf, partner)
		got, err := s.Get(t.Context(), Orders, "", "partner")
		if err != nil {
			t.Fatal(err)
		}
		ExpectSame(t, []certstore.Client{got}, []certstore.Client{partner})
	}
	expect()
	change := func(change certstore.Change) {
		t.Helper()
		if err := s.Change(t.Context(), Orders, "", "partner", change); err != nil {
			t.Fatal(err)
		}
		expect()
	}
	partner.Tier = "Silver"
	change(certstore.Change{Tier: "Silver"}) // keeps the match
	partner.Certificate = NewCA(t, "partner", "partner.test").Certificate
	change(certstore.Change{Certificate: partner.Certificate})
	partner.Match = NewMatch(t, certrule.Match{
		DNS: []string{"api.partner.test"}, URI: []string{"spiffe://partner.test/*"}, Email: []string{"*@partner.test"}, IP: []string{"10.0.0.0/8"},
		Subject: []string{`O=Größe \"x\"\, 'y' 😀 \\,C=DE`}, SPKI: []string{strings.Repeat("0f", 32)}, Policies: []string{"1.2.3"},
		Fingerprint: []string{strings.Repeat("a0", 32)},
	})
	change(certstore.Change{Match: partner.Match})
	if err := s.Change(t.Context(), Orders, "", "partner", certstore.Change{Certificate: newCertificate(t)}); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("a certificate that is no CA's in the place of one with a match: %v", err)
	}
	if err := s.Change(t.Context(), Orders, "", "leaf", certstore.Change{Match: partner.Match}); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("a match for a certificate that is no CA's: %v", err)
	}
	expect()
	partner.Match = nil
	change(certstore.Change{Match: NewMatch(t, certrule.Match{})})
	partner.Match = longMatch(t)
	change(certstore.Change{Match: partner.Match})
}

// longMatch is as long as a match may be, most of it beyond ASCII.
func longMatch(t testing.TB) *certrule.Matcher {
	t.Helper()
	subjects := []string{"O=a" + strings.Repeat("é", 900), "O=b" + strings.Repeat("é", 900)}
	rest := certrule.MaxMatch - len(NewMatch(t, certrule.Match{Subject: append(subjects, "O=c")}).Text())
	return NewMatch(t, certrule.Match{Subject: append(subjects, "O=c"+strings.Repeat("c", rest))})
}

func testRemove(t *testing.T, s *certstore.Store) {
	ctx := t.Context()
	acme, other := NewClient(t, "acme"), NewClient(t, "other")
	Add(t, s, acme, other)
	if err := s.Remove(ctx, Orders, certstore.Production, "acme"); err != nil {
		t.Fatal(err)
	}
	ExpectList(t, s, other)
	for _, alias := range []string{"acme", "nobody", "OTHER"} {
		if err := s.Remove(ctx, Orders, certstore.Production, alias); !errors.Is(err, certstore.ErrNotFound) {
			t.Errorf("remove %q: %v; want ErrNotFound", alias, err)
		}
		if _, err := s.Get(ctx, Orders, certstore.Production, alias); !errors.Is(err, certstore.ErrNotFound) {
			t.Errorf("get %q: %v; want ErrNotFound", alias, err)
		}
	}
	unknown := certstore.API{Name: "unknown", Version: "1"}
	if err := s.Remove(ctx, unknown, certstore.Production, "other"); !errors.Is(err, certstore.ErrNotFound) {
		t.Errorf("remove from an unknown API: %v; want ErrNotFound", err)
	}
	ExpectList(t, s, other)
	Add(t, s, acme) // a removed alias and its certificate are free again
	ExpectList(t, s, acme, other)
}

func testWithoutKeyType(t *testing.T, s *certstore.Store) {
	ctx := t.Context()
	production, sandbox := NewClient(t, "acme"), NewClient(t, "acme")
	sandbox.KeyType = certstore.Sandbox
	Add(t, s, production, sandbox)
	err := s.Remove(ctx, Orders, "", "acme")
	if !errors.Is(err, certstore.ErrInvalid) || !strings.Contains(err.Error(), "PRODUCTION") || !strings.Contains(err.Error(), "SANDBOX") {
		t.Errorf("error is %v; want one that names both", err)
	}
	if _, err := s.Get(ctx, Orders, "", "acme"); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("get: %v", err)
	}
	ExpectList(t, s, production, sandbox)
	if err := s.Remove(ctx, Orders, certstore.Production, "acme"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, Orders, "", "acme")
	if err != nil || got.KeyType != certstore.Sandbox {
		t.Errorf("got %v, %v", got, err)
	}
	if err := s.Update(ctx, Orders, "", "acme", nil, "Silver", nil); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, Orders, "", "acme"); err != nil {
		t.Error(err)
	}
	ExpectList(t, s)
}

func testTombstones(t *testing.T, s *certstore.Store) {
	first := NewClient(t, "acme")
	for i := range 50 {
		c := NewClient(t, "acme")
		if i%2 == 0 {
			c = first
		}
		Add(t, s, c)
		if i%3 == 0 {
			c.Tier = "Silver"
			if err := s.Update(t.Context(), Orders, c.KeyType, c.Alias, nil, c.Tier, nil); err != nil {
				t.Fatal(err)
			}
		}
		ExpectList(t, s, c)
		if err := s.Remove(t.Context(), Orders, c.KeyType, c.Alias); err != nil {
			t.Fatal(err)
		}
		ExpectList(t, s)
	}
}

func testSorted(t *testing.T, s *certstore.Store) {
	var want []certstore.Client
	for _, api := range []string{"a:1", "a:2", "b:1"} {
		for _, alias := range []string{"B", "a", "z", "é"} {
			for _, keyType := range []certstore.KeyType{certstore.Production, certstore.Sandbox} {
				c := NewClient(t, alias)
				c.API, _ = certstore.ParseAPI(api)
				c.KeyType = keyType
				want = append(want, c)
			}
		}
	}
	for _, i := range []int{5, 0, 11, 23, 8, 1, 2, 3, 4, 6, 7, 9, 10, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12} {
		Add(t, s, want[i])
	}
	ExpectList(t, s, want...)
}

func testCancelled(t *testing.T, s *certstore.Store) {
	acme := NewClient(t, "acme")
	Add(t, s, acme)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Add(ctx, NewClient(t, "other")); !errors.Is(err, context.Canceled) {
		t.Errorf("add: %v", err)
	}
	if err := s.Remove(ctx, Orders, certstore.Production, "acme"); !errors.Is(err, context.Canceled) {
		t.Errorf("remove: %v", err)
	}
	if _, _, err := s.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	if _, err := s.Version(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("version: %v", err)
	}
	ExpectList(t, s, acme)
	// Whenever a call is cancelled, it either returns an error and has changed nothing, or returns nil and has succeeded.
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		alias := fmt.Sprintf("c%d", i)
		err := s.Add(ctx, NewClient(t, alias))
		_, found := s.Get(t.Context(), Orders, certstore.Production, alias)
		if (err == nil) != (found == nil) {
			t.Errorf("add: %v; get: %v", err, found)
		}
	}
}

func testClosed(t *testing.T, s *certstore.Store) {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	if err := s.Add(t.Context(), NewClient(t, "acme")); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("add: %v", err)
	}
	if _, _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("list: %v", err)
	}
}
