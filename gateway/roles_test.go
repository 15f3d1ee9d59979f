package gateway_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"net/url"
	"testing"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/policy"
	"sallyport/policy/certrule"
)

func rolesOf(t testing.TB, s certrule.ScopesFrom) *certrule.Roles {
	t.Helper()
	r, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ofUnit(units ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject.OrganizationalUnit = units }
}

func ofURI(t testing.TB, text string) func(*x509.Certificate) {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) { c.URIs = []*url.URL{u} }
}

func withExtension(t testing.TB, oid asn1.ObjectIdentifier, value any) func(*x509.Certificate) {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid, Value: der})
	}
}

// psd2 is the extension with a PSD2 statement of one role.
func psd2(t testing.TB, role int, name string) func(*x509.Certificate) {
	t.Helper()
	type roleOfPSP struct {
		ID   asn1.ObjectIdentifier
		Name string `asn1:"utf8"`
	}
	type psd2Type struct {
		Roles   []roleOfPSP
		NCAName string `asn1:"utf8"`
		NCAID   string `asn1:"utf8"`
	}
	type statement struct {
		ID   asn1.ObjectIdentifier
		Info psd2Type
	}
	roles := []roleOfPSP{{asn1.ObjectIdentifier{0, 4, 0, 19495, 1, role}, name}}
	return withExtension(t, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3},
		[]statement{{asn1.ObjectIdentifier{0, 4, 0, 19495, 2}, psd2Type{roles, "BaFin", "DE-BAFIN"}}})
}

var gold = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}

// TestRolesStandForScopes: what a certificate says stands for scopes, in the handshake and in a load balancer's header alike,
// beside those of its registration, and for no other API.
func TestRolesStandForScopes(t *testing.T) {
	from := certrule.ScopesFrom{
		SubjectOU: map[string][]string{"Payments": {"pay:read"}, "Sales": {"pay:sell"}},
		SANURI:    map[string][]string{"spiffe://partner.test/billing": {"pay:read"}},
		Extension: certrule.ExtensionScopes{OID: gold.String(), Values: map[string][]string{"gold": {"pay:write", "pay:read"}, "all": {"*"}}},
		PSD2Roles: map[string][]string{"PSP_AI": {"pay:read"}},
	}
	rows := []struct {
		name   string
		change []func(*x509.Certificate)
		scopes []string // of the registration
		admits bool
	}{
		{"nothing", nil, nil, false},
		{"OU", []func(*x509.Certificate){ofUnit("Payments")}, nil, true},
		{"second OU", []func(*x509.Certificate){ofUnit("Other", "Payments")}, nil, true},
		{"OU, another's scope", []func(*x509.Certificate){ofUnit("Sales")}, nil, false},
		{"OU, another's scope beside the registration's", []func(*x509.Certificate){ofUnit("Sales")}, []string{"pay:read"}, true},
		{"OU in another case", []func(*x509.Certificate){ofUnit("payments")}, nil, false},
		{"OU beside a registration of another scope", []func(*x509.Certificate){ofUnit("Payments")}, []string{"x"}, true},
		{"URI", []func(*x509.Certificate){ofURI(t, "spiffe://partner.test/billing")}, nil, true},
		{"URI below", []func(*x509.Certificate){ofURI(t, "spiffe://partner.test/billing/x")}, nil, false},
		{"extension", []func(*x509.Certificate){withExtension(t, gold, "gold")}, nil, true},
		{"extension, another value", []func(*x509.Certificate){withExtension(t, gold, "silver")}, nil, false},
		{"extension, every scope", []func(*x509.Certificate){withExtension(t, gold, []string{"none", "all"})}, nil, true},
		{"extension, another", []func(*x509.Certificate){withExtension(t, append(gold[:7:7], 2), "gold")}, nil, false},
		{"PSD2", []func(*x509.Certificate){psd2(t, 3, "PSP_AI")}, nil, true},
		{"PSD2, another role", []func(*x509.Certificate){psd2(t, 2, "PSP_PI")}, nil, false},
		{"PSD2, another role's name", []func(*x509.Certificate){psd2(t, 2, "PSP_AI")}, nil, false},
	}
	parties := make([]*party, len(rows))
	f := newDoorFixture(t, func(f *fixture, s *setup) {
		s.routes[0].ScopesFrom = rolesOf(t, from)
		for i, row := range rows {
			parties[i] = issue(row.name, f.interA, row.change...)
			s.clients = append(s.clients, client(payAPI, row.name, parties[i], "Unlimited", row.scopes...), client(bothAPI, row.name, parties[i], "Unlimited"))
		}
	})
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			who := parties[i]
			for door, call := range map[string]func(path string) answer{
				"handshake": func(path string) answer { return get(t, f.client(t, who, via{}), "https://opt.test"+path) },
				"HTTP/2":    func(path string) answer { return get(t, f.client(t, who, via{http2: true}), "https://opt.test"+path) },
				"header": func(path string) answer {
					return get(t, f.through(t, behindLB, nil, false, "127.0.0.1"), scheme(behindLB)+path, certificateHeader(who))
				},
			} {
				t.Run(door, func(t *testing.T) {
					f.denied(t, 403, "900910", func() answer { return call("/both/1.0/scoped") })
					if row.admits {
						f.allowed(t, func() answer { return call("/pay/1.0/scoped") })
						return
					}
					f.denied(t, 403, "900910", func() answer { return call("/pay/1.0/scoped") })
				})
			}
		})
	}
}

// TestRolesBesideTokens: where both proofs are mandatory the token has to have a scope, and the certificate's restrict only
// if it has any, be it by a role.
func TestRolesBesideTokens(t *testing.T) {
	duo := certstore.API{Name: "duo", Version: "1.0"}
	both := policy.Security{Certificate: policy.Mandatory, Token: policy.Mandatory}
	parties := map[string]*party{}
	f := newFixture(t, func(f *fixture, s *setup) {
		s.routes = append(s.routes, decision.Route{
			API: duo, Context: "/duo", Security: both, Upstream: s.routes[0].Upstream,
			ScopesFrom: rolesOf(t, certrule.ScopesFrom{SubjectOU: map[string][]string{"Payments": {"pay:read"}, "Sales": {"pay:sell"}}}),
			Resources:  []decision.Resource{{Path: "/*", Security: both, Scopes: []string{"pay:read"}}},
		})
		for _, unit := range []string{"Payments", "Sales", "Other"} {
			parties[unit] = issue(unit, f.interA, ofUnit(unit))
			s.clients = append(s.clients, client(duo, unit, parties[unit], "Unlimited"))
		}
	})
	for _, tt := range []struct {
		unit, scope string
		admits      bool
	}{
		{"Payments", "pay:read", true},
		{"Payments", "pay:sell", false}, // a role is the certificate's, not the token's
		{"Payments", "", false},
		{"Sales", "pay:read", false}, // its role restricts it
		{"Other", "pay:read", true},
	} {
		call := func() answer {
			return get(t, f.client(t, parties[tt.unit], via{}), "https://opt.test/duo/1.0/x", bearer(f.token(t, "alice", map[string]any{"scope": tt.scope})))
		}
		if tt.admits {
			f.allowed(t, call)
		} else {
			f.denied(t, http.StatusForbidden, "900910", call)
		}
	}
}
