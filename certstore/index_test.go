package certstore_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/certstore"
)

func TestIndexFind(t *testing.T) {
	acme := newClient(t, "acme")
	payments := acme
	payments.API = certstore.API{Name: "payments", Version: "1.0.0"}
	payments.Tier = "Bronze"
	sandbox := newClient(t, "acme")
	sandbox.KeyType = certstore.Sandbox

	x, err := certstore.NewIndex([]certstore.Client{acme, payments, sandbox})
	if err != nil {
		t.Fatal(err)
	}
	if x.Len() != 3 || len(x.Clients()) != 3 || x.Clients()[1].Tier != "Bronze" {
		t.Errorf("the index has %d clients: %v", x.Len(), x.Clients())
	}
	print := certstore.Fingerprint(acme.Certificate)
	tests := []struct {
		name        string
		api         certstore.API
		fingerprint [32]byte
		want        *certstore.Client
	}{
		{"its API", orders, print, x.Clients()[0]},
		{"its other API", payments.API, print, x.Clients()[1]},
		{"another certificate, same alias", orders, certstore.Fingerprint(sandbox.Certificate), x.Clients()[2]},
		{"another API", certstore.API{Name: "Orders", Version: "1.0.0"}, print, nil},
		{"another version", certstore.API{Name: "orders", Version: "2.0.0"}, print, nil},
		{"a stranger", orders, certstore.Fingerprint(newCertificate(t)), nil},
		{"the zero fingerprint", orders, [32]byte{}, nil},
		{"the zero API", certstore.API{}, print, nil},
	}
	for _, test := range tests {
		if got := x.Find(test.api, test.fingerprint); got != test.want {
			t.Errorf("%s: found %v, want %v", test.name, got, test.want)
		}
	}
	if got := x.Find(orders, print); got.Fingerprint != print {
		t.Errorf("the fingerprint was not computed: %x", got.Fingerprint)
	}
}

func TestNilIndexFindsNothing(t *testing.T) {
	var x *certstore.Index
	if x.Find(orders, [32]byte{}) != nil || x.Len() != 0 || x.Clients() != nil {
		t.Error("a nil index found something")
	}
}

func TestNewIndexRefuses(t *testing.T) {
	base := newClient(t, "acme")
	base.Source = "apis/orders.yaml:12"
	with := func(change func(*certstore.Client)) certstore.Client {
		c := base
		change(&c)
		return c
	}
	tests := []struct {
		name    string
		clients []certstore.Client
		want    []string
		invalid bool
	}{
		{
			"an alias twice",
			[]certstore.Client{base, with(func(c *certstore.Client) { c.Certificate = newCertificate(t); c.Source = "store" })},
			[]string{`alias "acme" (PRODUCTION) of API "orders:1.0.0" is in apis/orders.yaml:12 and in store`},
			false,
		},
		{
			"a certificate twice",
			[]certstore.Client{base, with(func(c *certstore.Client) { c.Alias = "b"; c.KeyType = certstore.Sandbox; c.Source = "store" })},
			[]string{`"acme" (PRODUCTION) in apis/orders.yaml:12`, `"b" (SANDBOX) in store`},
			false,
		},
		{"no certificate", []certstore.Client{with(func(c *certstore.Client) { c.Certificate = nil })}, []string{"no certificate", "apis/orders.yaml:12"}, true},
		{"no key type", []certstore.Client{with(func(c *certstore.Client) { c.KeyType = "" })}, []string{"key type"}, true},
		{"no tier", []certstore.Client{with(func(c *certstore.Client) { c.Tier = "" })}, []string{"tier is empty"}, true},
		{"bad alias", []certstore.Client{with(func(c *certstore.Client) { c.Alias = ".." })}, []string{"looks like a path"}, true},
		{"bad scope", []certstore.Client{with(func(c *certstore.Client) { c.Scopes = []string{"a b"} })}, []string{"RFC 6749"}, true},
		{"no API", []certstore.Client{with(func(c *certstore.Client) { c.API = certstore.API{} })}, []string{"API name is empty"}, true},
		{"another fingerprint", []certstore.Client{with(func(c *certstore.Client) { c.Fingerprint = [32]byte{1} })}, []string{"another certificate's"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			x, err := certstore.NewIndex(test.clients)
			if x != nil || err == nil {
				t.Fatalf("got %v, %v", x, err)
			}
			if errors.Is(err, certstore.ErrInvalid) != test.invalid {
				t.Errorf("matches ErrInvalid or not, wrongly: %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %q; want %q in it", err, want)
				}
			}
		})
	}
}

func BenchmarkIndexFind(b *testing.B) {
	client := newClient(b, "acme")
	x, err := certstore.NewIndex([]certstore.Client{client})
	if err != nil {
		b.Fatal(err)
	}
	print := certstore.Fingerprint(client.Certificate)
	for b.Loop() {
		x.Find(orders, print)
	}
}

// TestNextIndex: Next makes of any Index what NewIndex makes of nothing.
func TestNextIndex(t *testing.T) {
	certificates := make([]*x509.Certificate, 12)
	for i := range certificates {
		certificates[i] = newClient(t, "any").Certificate
	}
	var last *certstore.Index
	for round := range 300 {
		var clients []certstore.Client
		for i, cert := range certificates {
			if rand.IntN(8) > 0 {
				c := certstore.Client{
					API: orders, Alias: fmt.Sprint("alias", (i+rand.IntN(9)/8)%12), KeyType: certstore.Production,
					Tier: []string{"Gold", "Bronze"}[rand.IntN(9)/8], Certificate: cert, Source: "test",
				}
				if rand.IntN(4) > 0 {
					c.Fingerprint = certstore.Fingerprint(cert)
				}
				clients = append(clients, c)
			}
		}
		want, wrong := certstore.NewIndex(clients)
		got, err := last.Next(clients)
		if fmt.Sprint(err) != fmt.Sprint(wrong) {
			t.Fatalf("round %d: %v, want %v", round, err, wrong)
		}
		if err != nil {
			continue
		}
		if diff := cmp.Diff(want.Clients(), got.Clients()); diff != "" {
			t.Fatalf("round %d (-want +got):\n%s", round, diff)
		}
		for i, cert := range certificates {
			fingerprint, alias := certstore.Fingerprint(cert), fmt.Sprint("alias", i)
			if diff := cmp.Diff(want.Find(orders, fingerprint), got.Find(orders, fingerprint)); diff != "" {
				t.Fatalf("round %d, certificate %d (-want +got):\n%s", round, i, diff)
			}
			if diff := cmp.Diff(want.Named(orders, certstore.Production, alias), got.Named(orders, certstore.Production, alias)); diff != "" {
				t.Fatalf("round %d, alias %d (-want +got):\n%s", round, i, diff)
			}
		}
		last = got
	}
}
