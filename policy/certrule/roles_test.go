package certrule

import (
	"crypto/x509/pkix"
	"slices"
	"strings"
	"testing"
)

func roles(t testing.TB, s ScopesFrom) *Roles {
	t.Helper()
	r, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRolesOfOpenSSL(t *testing.T) {
	f := FactsOf(partner(t))
	scopes := func(role string, scopes ...string) map[string][]string { return map[string][]string{role: scopes} }
	extension := func(oid, value string) ScopesFrom {
		return ScopesFrom{Extension: ExtensionScopes{oid, scopes(value, "a")}}
	}
	for _, tt := range []struct {
		name string
		from ScopesFrom
		want []string
	}{
		{"none", ScopesFrom{}, nil},
		{"subjectOU", ScopesFrom{SubjectOU: scopes("Payments", "pay:write", "pay:read")}, []string{"pay:write", "pay:read"}},
		{"subjectOU in another case", ScopesFrom{SubjectOU: scopes("payments", "a")}, nil},
		{"subjectOU, a part", ScopesFrom{SubjectOU: scopes("Pay", "a")}, nil},
		{"subjectOU that is the O", ScopesFrom{SubjectOU: scopes("Partner, Inc.", "a")}, nil},
		{"both OUs", ScopesFrom{SubjectOU: map[string][]string{"Billing": {"b", "c"}, "Payments": {"a", "b"}}}, []string{"a", "b", "c"}},
		{"sanURI", ScopesFrom{SANURI: scopes("spiffe://partner.test/billing/Worker", "a")}, []string{"a"}},
		{"sanURI in another case", ScopesFrom{SANURI: scopes("SPIFFE://PARTNER.TEST/billing/Worker", "a")}, []string{"a"}},
		{"sanURI above", ScopesFrom{SANURI: scopes("spiffe://partner.test/billing", "a")}, nil},
		{"sanURI that is the host", ScopesFrom{SANURI: scopes("urn:api.partner.test", "a")}, nil},
		{"extension, a list", extension("1.3.6.1.4.1.99999.1", "audited"), []string{"a"}},
		{"extension, a text", extension("1.3.6.1.4.1.99999.2", "gold"), []string{"a"}},
		{"extension, another value", extension("1.3.6.1.4.1.99999.2", "audited"), nil},
		{"extension, another", extension("1.3.6.1.4.1.99999.9", "gold"), nil},
		{"extension, a number", extension("1.3.6.1.4.1.99999.4", "7"), nil},
		{"psd2Roles", ScopesFrom{PSD2Roles: map[string][]string{"PSP_AI": {"accounts"}, "PSP_AS": {"x"}, "PSP_PI": {"payments"}}}, []string{"accounts", "payments"}},
		{"psd2Roles, another", ScopesFrom{PSD2Roles: scopes("PSP_IC", "a")}, nil},
		{"all", ScopesFrom{
			SubjectOU: scopes("Payments", "a"), SANURI: scopes("urn:partner:billing", "b"),
			Extension: ExtensionScopes{"1.3.6.1.4.1.99999.3", scopes("silver", "c")}, PSD2Roles: scopes("PSP_AI", "d"),
		}, []string{"a", "b", "c", "d"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := roles(t, tt.from)
			if got := r.Scopes(f); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if r.Any(f) != (tt.want != nil) || (len(r.Of(f)) > 0) != (tt.want != nil) {
				t.Error("whether it has a role is another answer")
			}
			for _, scope := range tt.want {
				if !r.Give(f, []string{"x:y", scope}) {
					t.Errorf("%s is not given", scope)
				}
			}
			if r.Give(f, []string{"x:y"}) || r.Give(f, nil) || r.Give(nil, tt.want) || r.Give(FactsOf(nil), tt.want) {
				t.Error("a scope is given that the roles don't stand for")
			}
		})
	}
	if r := roles(t, ScopesFrom{SubjectOU: scopes("Payments", "*")}); !r.Give(f, []string{"any"}) {
		t.Error(`"*" is not every scope`)
	}
	want := []Role{{"subjectOU", "Billing", []string{"a"}}, {"psd2Roles", "PSP_PI", []string{"b"}}}
	got := roles(t, ScopesFrom{SubjectOU: scopes("Billing", "a"), PSD2Roles: scopes("PSP_PI", "b")}).Of(f)
	if !slices.EqualFunc(got, want, func(a, b Role) bool {
		return a.Kind == b.Kind && a.Value == b.Value && slices.Equal(a.Scopes, b.Scopes)
	}) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// security.md 37 and 38: what is not certain to be a name stands for nothing, nor does a name of another kind.
func TestRolesAreNotFooled(t *testing.T) {
	r := roles(t, ScopesFrom{
		SubjectOU: map[string][]string{"Payments": {"a"}}, SANURI: map[string][]string{"spiffe://partner.test/billing": {"a"}},
	})
	ou := func(s string) pkix.Name { return pkix.Name{OrganizationalUnit: []string{s}} }
	for _, tt := range []struct {
		subject pkix.Name
		names   []name
	}{
		{ou("Payments\x00"), nil},
		{ou("Payments "), nil},
		{ou("Payments\u200f"), nil},
		{ou("PAYMENTS"), nil},
		{ou("Payments,OU=Payments"), nil},
		{pkix.Name{Organization: []string{"Payments"}, CommonName: "OU=Payments"}, nil},
		{ou(strings.Repeat("Payments", 1<<10)), nil},
		{pkix.Name{}, []name{{2, "partner.test"}, {1, "billing@partner.test"}}},
		{pkix.Name{}, []name{{6, "spiffe://partner.test/billing/"}, {6, "spiffe://partner.test/billing#"}}},
		{pkix.Name{}, []name{{6, "spiffe://partner.test/billing%00"}, {6, "spiffe://partner.test/x/../billing"}}},
	} {
		cert, err := tryIssue(tt.subject, tt.names)
		if err != nil {
			continue // crypto/x509 does not read it
		}
		if f := FactsOf(cert); r.Any(f) || r.Give(f, []string{"a"}) {
			t.Errorf("%q %q has a role", tt.subject.String(), tt.names)
		}
	}
	if f := FactsOf(issue(t, ou("Payments"), nil)); !r.Give(f, []string{"a"}) {
		t.Error("the good one has none")
	}
}

func TestBadScopesFrom(t *testing.T) {
	a := []string{"a"}
	for _, tt := range []struct {
		from ScopesFrom
		want string
	}{
		{ScopesFrom{SubjectOU: map[string][]string{"": a}}, "subjectOU"},
		{ScopesFrom{SubjectOU: map[string][]string{"a\nb": a}}, "control character"},
		{ScopesFrom{SubjectOU: map[string][]string{"Payments": nil}}, "stands for no scope"},
		{ScopesFrom{SANURI: map[string][]string{"partner.test": a}}, "no URI"},
		{ScopesFrom{SANURI: map[string][]string{"spiffe://partner.test/*": a}}, "compared whole"},
		{ScopesFrom{SANURI: map[string][]string{"spiffe://a@partner.test/": a}}, "no URI"},
		{ScopesFrom{Extension: ExtensionScopes{"", map[string][]string{"gold": a}}}, "no object identifier"},
		{ScopesFrom{Extension: ExtensionScopes{"1.02", map[string][]string{"gold": a}}}, "no object identifier"},
		{ScopesFrom{Extension: ExtensionScopes{"2.5.29.17", map[string][]string{"gold": a}}}, "sanURI"},
		{ScopesFrom{PSD2Roles: map[string][]string{"PSP_XX": a}}, "none of PSP_AS, PSP_PI, PSP_AI, PSP_IC"},
		{ScopesFrom{PSD2Roles: map[string][]string{"psp_ai": a}}, "none of PSP_AS"},
	} {
		if r, err := tt.from.Compile(); err == nil || r != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.from, err, tt.want)
		}
	}
}

func TestRolesAllocate(t *testing.T) {
	f := FactsOf(partner(t))
	r := roles(t, ScopesFrom{
		SubjectOU: map[string][]string{"Billing": {"a"}}, SANURI: map[string][]string{"urn:other": {"b"}},
		Extension: ExtensionScopes{"1.3.6.1.4.1.99999.1", map[string][]string{"audited": {"c"}}}, PSD2Roles: map[string][]string{"PSP_PI": {"d"}},
	})
	none := roles(t, ScopesFrom{SubjectOU: map[string][]string{"Sales": {"a"}}})
	wanted := []string{"x", "d"}
	for name, f := range map[string]func(){
		"Give": func() {
			if !r.Give(f, wanted) {
				t.Fatal("not given")
			}
		},
		"Any":    func() { _ = r.Any(f) },
		"Scopes": func() { _ = none.Scopes(f) },
		"Of":     func() { _ = none.Of(f) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestRolesAreEqual(t *testing.T) {
	make := func(scope string) *Roles {
		return roles(t, ScopesFrom{SubjectOU: map[string][]string{"Payments": {scope}}, PSD2Roles: map[string][]string{"PSP_AI": {"b"}}})
	}
	if !make("a").Equal(make("a")) || make("a").Equal(make("b")) || make("a").Equal(nil) || !(*Roles)(nil).Equal(nil) {
		t.Error("equal Roles are not told from others")
	}
}

func BenchmarkGive(b *testing.B) {
	f := FactsOf(partner(b))
	r := roles(b, ScopesFrom{SubjectOU: map[string][]string{"Billing": {"a"}}, PSD2Roles: map[string][]string{"PSP_PI": {"d"}}})
	wanted := []string{"d"}
	for b.Loop() {
		r.Give(f, wanted)
	}
}
