package gateway_test

import (
	"crypto/x509"
	"net"
	"slices"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/policy/certrule"
)

func matching(t testing.TB, c certstore.Client, m certrule.Match) certstore.Client {
	t.Helper()
	compiled, err := m.Compile()
	if err != nil {
		t.Fatal(err)
	}
	c.Match = compiled
	return c
}

func ofDNS(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// TestMatchOfARegisteredCA: of what a registered CA has issued those certificates count that hold its match, and no others
// whose names look like it, in the handshake and in a load balancer's header alike. Held: security C 37, 38, K 151.
func TestMatchOfARegisteredCA(t *testing.T) {
	w := theWorld()
	named := func(change ...func(*x509.Certificate)) *party {
		return issue("leaf", w.interA, append(change, usage(x509.ExtKeyUsageClientAuth))...)
	}
	cn := func(text string) *party { return issue(text, w.interA, usage(x509.ExtKeyUsageClientAuth)) }
	match := certrule.Match{DNS: []string{"*.partner.test"}}
	rows := []struct {
		name   string
		match  certrule.Match
		who    *party
		admits bool
	}{
		{"dns", match, named(ofDNS("api.partner.test")), true},
		{"dns in another case", match, named(ofDNS("API.Partner.Test")), true},
		{"dns, the second name", match, named(ofDNS("other.test", "api.partner.test")), true},
		{"dns, the domain", match, named(ofDNS("partner.test")), false},
		{"dns, two labels", match, named(ofDNS("x.y.partner.test")), false},
		{"dns, behind it", match, named(ofDNS("a.partner.test.evil.test")), false},
		{"dns, a wildcard", match, named(ofDNS("*.partner.test")), false},
		{"dns, with NUL", match, named(ofDNS("api.partner.test\x00.partner.test")), false},
		{"dns, 8 KiB", match, named(ofDNS(strings.Repeat("a", 8<<10) + ".partner.test")), false},
		{"dns as common name", match, cn("api.partner.test"), false},
		{"dns as URI", match, named(ofURI(t, "https://api.partner.test/")), false},
		{"dns as e-mail address", match, named(func(c *x509.Certificate) { c.EmailAddresses = []string{"a@api.partner.test"} }), false},
		{"uri below", certrule.Match{URI: []string{"spiffe://partner.test/*"}}, named(ofURI(t, "spiffe://partner.test/billing")), true},
		{"uri elsewhere", certrule.Match{URI: []string{"spiffe://partner.test/*"}}, named(ofURI(t, "spiffe://partner.test.evil.test/billing")), false},
		{"email", certrule.Match{Email: []string{"*@partner.test"}}, named(func(c *x509.Certificate) { c.EmailAddresses = []string{"a@partner.test"} }), true},
		{"ip", certrule.Match{IP: []string{"10.0.0.0/8"}}, named(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 2, 3)} }), true},
		{"ip elsewhere", certrule.Match{IP: []string{"10.0.0.0/8"}}, named(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(11, 1, 2, 3)} }), false},
		{"subject", certrule.Match{Subject: []string{"CN=a.b"}}, cn("a.b"), true},
		{"subject, another letter", certrule.Match{Subject: []string{"CN=a.b"}}, cn("axb"), false},
		{"subject, more", certrule.Match{Subject: []string{"CN=a.b"}}, cn("a.b.evil"), false},
		{"subject, within another", certrule.Match{Subject: []string{"CN=a.b"}}, cn("x,CN=a.b"), false},
		{"two keys", certrule.Match{DNS: []string{"api.partner.test"}, Subject: []string{"OU=Payments"}}, named(ofDNS("api.partner.test"), ofUnit("Payments")), true},
		{"two keys, one fails", certrule.Match{DNS: []string{"api.partner.test"}, Subject: []string{"OU=Payments"}}, named(ofDNS("api.partner.test"), ofUnit("Sales")), false},
		{"another CA's", match, issue("leaf", w.caB, ofDNS("api.partner.test"), usage(x509.ExtKeyUsageClientAuth)), false},
	}
	f := newDoorFixture(t, withChains)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f.clients = []certstore.Client{matching(t, client(payAPI, "inter", w.interA, "Unlimited"), row.match)}
			f.setClients(t)
			for door, call := range map[string]func() answer{
				"handshake": func() answer { return get(t, f.client(t, row.who, via{}), "https://opt.test/pay/1.0/x") },
				"HTTP/2":    func() answer { return get(t, f.client(t, row.who, via{http2: true}), "https://opt.test/pay/1.0/x") },
				"header": func() answer {
					return get(t, f.through(t, behindLB, nil, false, "127.0.0.1"), scheme(behindLB)+"/pay/1.0/x", certificateHeader(row.who))
				},
			} {
				t.Run(door, func(t *testing.T) {
					if !row.admits {
						f.denied(t, 401, "900901", call)
					} else if alias := f.allowed(t, call).Header.Get("X-Sallyport-Client"); alias != "inter" {
						t.Errorf("as %q", alias)
					}
				})
			}
		})
	}
}

// TestMatchChangesAtOnce: another match of a CA counts for the next call of a live connection.
func TestMatchChangesAtOnce(t *testing.T) {
	w := theWorld()
	leaf := issue("leaf", w.interA, ofDNS("api.partner.test"), usage(x509.ExtKeyUsageClientAuth))
	f := newFixture(t, withChains, register(client(payAPI, "inter", w.interA, "Unlimited")))
	own := f.clients
	callers := map[string]func() answer{}
	for name, how := range map[string]via{"HTTP/1.1": {}, "HTTP/2": {http2: true}, "TLS 1.2": {tls12: true}} {
		c := f.client(t, leaf, how)
		callers[name] = func() answer { return get(t, c, "https://opt.test/pay/1.0/x") }
	}
	for _, step := range []struct {
		dns    string
		admits bool
	}{{"", true}, {"*.partner.test", true}, {"other.partner.test", false}, {"api.partner.test", true}, {"*.other.test", false}, {"", true}} {
		f.clients = slices.Clone(own)
		if last := len(own) - 1; step.dns != "" {
			f.clients[last] = matching(t, own[last], certrule.Match{DNS: []string{step.dns}})
		}
		f.setClients(t)
		for name, call := range callers {
			t.Run(name+" "+step.dns, func(t *testing.T) {
				if step.admits {
					f.allowed(t, call)
				} else {
					f.denied(t, 401, "900901", call)
				}
			})
		}
	}
}
