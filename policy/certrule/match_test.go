package certrule

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

func compile(t testing.TB, m Match) *Matcher {
	t.Helper()
	compiled, err := m.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func TestMatchOpenSSL(t *testing.T) {
	cert := partner(t)
	f := FactsOf(cert)
	spki, print := hex.EncodeToString(f.SPKI[:]), hex.EncodeToString(f.Fingerprint[:])
	for _, tt := range []struct {
		name  string
		match Match
		want  string // the key that it does not hold; "": it does
	}{
		{"nothing", Match{}, ""},
		{"dns", Match{DNS: []string{"api.partner.test"}}, ""},
		{"dns in another case", Match{DNS: []string{"API.partner.TEST"}}, ""},
		{"dns below", Match{DNS: []string{"*.partner.test"}}, ""},
		{"dns as an A-label", Match{DNS: []string{"xn--mller-kva.test"}}, ""},
		{"dns, the second of two", Match{DNS: []string{"other.test", "api.partner.test"}}, ""},
		{"dns two labels below", Match{DNS: []string{"*.test"}}, ""}, // xn--mller-kva.test
		{"dns, another", Match{DNS: []string{"other.test", "partner.test", "i.partner.test", "*.api.partner.test"}}, "dns"},
		{"uri", Match{URI: []string{"spiffe://partner.test/billing/Worker"}}, ""},
		{"uri, scheme and host in another case", Match{URI: []string{"SPIFFE://PARTNER.test/billing/Worker"}}, ""},
		{"uri, path in another case", Match{URI: []string{"spiffe://partner.test/billing/worker"}}, "uri"},
		{"uri below", Match{URI: []string{"spiffe://partner.test/*"}}, ""},
		{"uri directly below", Match{URI: []string{"spiffe://partner.test/billing/*"}}, ""},
		{"uri below itself", Match{URI: []string{"spiffe://partner.test/billing/Worker/*"}}, "uri"},
		{"uri below half a segment", Match{URI: []string{"spiffe://partner.test/bill/*"}}, "uri"},
		{"uri of a path alone", Match{URI: []string{"urn:partner:billing"}}, ""},
		{"email", Match{Email: []string{"Billing@PARTNER.test"}}, ""},
		{"email, before the @ in another case", Match{Email: []string{"billing@partner.test"}}, "email"},
		{"email at", Match{Email: []string{"*@partner.test"}}, ""},
		{"email below", Match{Email: []string{"*@test"}}, "email"},
		{"ip", Match{IP: []string{"10.1.2.3"}}, ""},
		{"ip in a network", Match{IP: []string{"192.0.2.0/24", "2001:db8::/32"}}, ""},
		{"ip in another network", Match{IP: []string{"10.1.3.0/24", "::/8"}}, "ip"},
		{"subject", Match{Subject: []string{`O=Partner\, Inc.,C=DE`}}, ""},
		{"subject in another order and spelling", Match{Subject: []string{`c=DE, o=Partner\2c Inc.`}}, ""},
		{"subject by object identifiers", Match{Subject: []string{`2.5.4.10=Partner\, Inc.,2.5.4.97=PSDDE-BAFIN-125314`}}, ""},
		{"subject, an attribute twice", Match{Subject: []string{`OU=Payments,OU=Billing`}}, ""},
		{"subject, one of them is another", Match{Subject: []string{`OU=Payments,OU=Sales`}}, "subject"},
		{"subject, joined", Match{Subject: []string{`CN=api.partner.test+serialNumber=42`}}, ""},
		{"subject, apart in the rule", Match{Subject: []string{`serialNumber=42,CN=api.partner.test`}}, ""},
		{"subject, apart in the certificate", Match{Subject: []string{`OU=Payments+OU=Billing`}}, "subject"},
		{"subject in DER", Match{Subject: []string{"C=#13024445"}}, ""}, // DE, a PrintableString
		{"subject in DER of another type", Match{Subject: []string{"C=#0c024445"}}, "subject"},
		{"subject, a part of a value", Match{Subject: []string{"O=Partner"}}, "subject"},
		{"subject in another case", Match{Subject: []string{"C=de"}}, "subject"},
		{"subject, a value of another type", Match{Subject: []string{"CN=Payments"}}, "subject"},
		{"subject, the second of two", Match{Subject: []string{"O=Other", "C=DE"}}, ""},
		{"spki", Match{SPKI: []string{spki}}, ""},
		{"spki in base64", Match{SPKI: []string{"sha256/" + base64.StdEncoding.EncodeToString(f.SPKI[:])}}, ""},
		{"spki, the fingerprint", Match{SPKI: []string{print}}, "spki"},
		{"policies", Match{Policies: []string{"1.2.3", "0.4.0.19495.3.1"}}, ""},
		{"policies, above one", Match{Policies: []string{"0.4.0.19495.3"}}, "policies"},
		{"fingerprint", Match{Fingerprint: []string{strings.ToUpper(print)}}, ""},
		{"fingerprint, the spki", Match{Fingerprint: []string{spki}}, "fingerprint"},
		{"two keys", Match{DNS: []string{"*.partner.test"}, IP: []string{"10.0.0.0/8"}}, ""},
		{"two keys, one does not hold", Match{DNS: []string{"*.partner.test"}, IP: []string{"127.0.0.0/8"}}, "ip"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := compile(t, tt.match).Admits(cert)
			var key NoMatch
			if errors.As(err, &key); string(key) != tt.want || (err == nil) != (tt.want == "") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// security.md 38 and 151: what looks like a name that is allowed, and isn't.
func TestMatchIsNotFooled(t *testing.T) {
	all := compile(t, Match{
		DNS: []string{"api.partner.test", "*.partner.test"}, URI: []string{"spiffe://partner.test/billing", "spiffe://partner.test/team/*"},
		Email: []string{"a@partner.test", "*@mail.test"}, IP: []string{"10.0.0.0/8"}, Subject: []string{"CN=a.b", "O=Partner,C=DE"},
	})
	one := func(keep string) *Matcher {
		m := all.Match()
		for _, k := range matchKeys {
			if k.name != keep {
				*k.entries(&m) = nil
			}
		}
		return compile(t, m)
	}
	cn := func(s string) pkix.Name { return pkix.Name{CommonName: s} }
	for _, tt := range []struct {
		key     string
		subject pkix.Name
		names   []name
	}{
		{"dns", cn("api.partner.test"), nil},
		{"dns", pkix.Name{}, []name{{6, "spiffe://api.partner.test/"}, {6, "https://api.partner.test"}}},
		{"dns", pkix.Name{}, []name{{1, "a@api.partner.test"}}},
		{"dns", pkix.Name{}, []name{{2, "partner.test"}}},
		{"dns", pkix.Name{}, []name{{2, "x.y.partner.test"}}},
		{"dns", pkix.Name{}, []name{{2, "api.partner.test.evil.test"}}},
		{"dns", pkix.Name{}, []name{{2, "apixpartner.test"}}},
		{"dns", pkix.Name{}, []name{{2, "evilpartner.test"}}},
		{"dns", pkix.Name{}, []name{{2, "*.partner.test"}}},
		{"dns", pkix.Name{}, []name{{2, "a.partner.test\x00"}}},
		{"dns", pkix.Name{}, []name{{2, "a.partner.test."}}},
		{"uri", pkix.Name{}, []name{{2, "partner.test"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/billing/"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/billing?x"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/bill%69ng"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/team"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/team/"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/team//x"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/team/../x"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/team/%2e%2e/x"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/team/a%2fb"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/teams/x"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test/team/x?y"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://partner.test:443/team/x"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://a@partner.test/team/x"}}},
		{"uri", pkix.Name{}, []name{{6, "spiffe://evil.test/spiffe://partner.test/team/x"}}},
		{"uri", pkix.Name{}, []name{{6, "https://partner.test/team/x"}}},
		{"email", pkix.Name{}, []name{{1, "b@partner.test"}}},
		{"email", pkix.Name{}, []name{{1, "A@partner.test"}}},
		{"email", pkix.Name{}, []name{{1, "a@x.mail.test"}}},
		{"email", pkix.Name{}, []name{{1, "a@mail.test@evil.test"}}},
		{"email", pkix.Name{}, []name{{2, "mail.test"}, {6, "mailto:a@mail.test"}}},
		{"ip", pkix.Name{}, []name{{2, "10.1.2.3"}}},
		{"ip", pkix.Name{}, []name{{7, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x01\x02\x03"}}},
		{"ip", pkix.Name{}, []name{{7, "\x0b\x01\x02\x03"}}},
		{"subject", cn("axb"), nil},
		{"subject", cn("a.b.evil"), nil},
		{"subject", cn("O=Partner,C=DE"), nil},
		{"subject", cn("x,O=Partner,C=DE"), nil},
		{"subject", cn("a.b\x00"), nil},
		{"subject", cn("a.b\u200f"), nil},
		{"subject", pkix.Name{Organization: []string{"Partner Evil"}, Country: []string{"DE"}}, nil},
		{"subject", pkix.Name{Organization: []string{"Partner"}, Country: []string{"FR"}}, nil},
		{"subject", pkix.Name{Organization: []string{"DE"}, Country: []string{"Partner"}}, nil},
		{"subject", pkix.Name{OrganizationalUnit: []string{"Partner"}, Country: []string{"DE"}}, nil},
	} {
		cert, err := tryIssue(tt.subject, tt.names)
		if err != nil {
			continue // crypto/x509 does not read it: it comes in by no door
		}
		if err := one(tt.key).Admits(cert); err == nil || err.Error() != NoMatch(tt.key).Error() {
			t.Errorf("%s %q %q: %v", tt.key, tt.subject.String(), tt.names, err)
		}
	}
	for key, cert := range map[string][]name{
		"dns": {{2, "b.partner.test"}}, "uri": {{6, "spiffe://partner.test/team/x"}}, "email": {{1, "b@mail.test"}}, "ip": {{7, "\x0a\x01\x02\x03"}},
	} {
		if err := one(key).Admits(issue(t, pkix.Name{}, cert)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := one("subject").Admits(issue(t, pkix.Name{Organization: []string{"Partner"}, Country: []string{"DE"}, CommonName: "x"}, nil)); err != nil {
		t.Error(err)
	}
}

// A subject's text is the same in each type of string whose characters are certain, and no text in the others.
func TestSubjectInTypesOfStrings(t *testing.T) {
	rule := compile(t, Match{Subject: []string{"O=Partner"}})
	for _, tt := range []struct {
		der  string
		want bool
	}{
		{"\x0c\x07Partner", true},
		{"\x13\x07Partner", true},
		{"\x16\x07Partner", true},
		{"\x1e\x0e\x00P\x00a\x00r\x00t\x00n\x00e\x00r", true},
		{"\x1e\x0d\x00P\x00a\x00r\x00t\x00n\x00e\x00", false},
		{"\x14\x07Partner", false}, // T61String
		{"\x04\x07Partner", false}, // OCTET STRING
		{"\x12\x07Partner", false}, // NumericString
	} {
		value := asn1.RawValue{FullBytes: []byte(tt.der)}
		raw, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: value}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := rule.AdmitsFacts(&Facts{subject: parseName(raw)}) == nil; got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.der, got, tt.want)
		}
	}
}

func TestBadMatches(t *testing.T) {
	long := strings.Repeat("a", maxName+1)
	for _, tt := range []struct{ key, entry, want string }{
		{"dns", "*", "one whole label"},
		{"dns", "*.", "it is no host name"},
		{"dns", "*.*.partner.test", "one whole label"},
		{"dns", "a*.partner.test", "one whole label"},
		{"dns", "api.*.test", "one whole label"},
		{"dns", "api.partner.test.", "final dot"},
		{"dns", "münchen.test", "in ASCII"},
		{"dns", "10.0.0.1", "no host name"},
		{"dns", "a.b|c.d", "no host name"},
		{"dns", `^api\.partner\.test$`, "no host name"},
		{"dns", "api.partner.test/x", "no host name"},
		{"dns", "", "empty"},
		{"dns", "a\nb", "control character"},
		{"dns", "a\xff", "no UTF-8"},
		{"dns", long, "too long"},
		{"uri", "partner.test/*", "no URI"},
		{"uri", "spiffe://*.partner.test/x", "at the end alone"},
		{"uri", "spiffe://partner.test*", "at the end alone"},
		{"uri", "spiffe://partner.test/a*", "at the end alone"},
		{"uri", "spiffe://partner.test/*/b", "at the end alone"},
		{"uri", "spiffe://partner.test/*/*", "at the end alone"},
		{"uri", "spiffe://partner.test//*", "can't be told"},
		{"uri", "spiffe://partner.test/a%41/*", "can't be told"},
		{"uri", "urn:partner/*", "can't be told"},
		{"uri", "spiffe://me@partner.test/x", "no URI"},
		{"uri", "spiffe://partner.test/../x", "no URI"},
		{"uri", "*", "at the end alone"},
		{"uri", "/*", "no URI"},
		{"email", "partner.test", "no address"},
		{"email", "*", "no address"},
		{"email", "a*@partner.test", "alone before the @"},
		{"email", "*@*.partner.test", "no address"},
		{"ip", "10.0.0.0/33", "no network"},
		{"ip", "10.0.0.1/8", "write 10.0.0.0/8"},
		{"ip", "10.0.0", "no address"},
		{"ip", "fe80::1%eth0", "no address"},
		{"ip", "::ffff:10.0.0.1", "no address"},
		{"ip", "::ffff:10.0.0.0/104", "no network"},
		{"subject", "Partner", "TYPE=VALUE"},
		{"subject", "X=Partner", "not known"},
		{"subject", "/C=DE/O=Partner", "not known"},
		{"subject", "O=", "empty"},
		{"subject", "O=Partner,", "TYPE=VALUE"},
		{"subject", "O=Partner,,C=DE", "not known"},
		{"subject", "O=Partner;C=DE", `write \;`},
		{"subject", `O="Partner"`, `write \"`},
		{"subject", `O=Part\ner`, "backslash"},
		{"subject", `O=Partner\`, "backslash"},
		{"subject", `O=Partner\0`, "backslash"},
		{"subject", `O=Part\00ner`, "control character"},
		{"subject", `O=Part\ffner`, "no UTF-8"},
		{"subject", "O= Partner", `\20`},
		{"subject", "O=Partner ,C=DE", `\20`},
		{"subject", "O=#13", "DER"},
		{"subject", "O=#xy", "DER"},
		{"subject", "O=#1302444500", "DER"},
		{"subject", "O=Partner,o=Partner", "twice"},
		{"subject", "2.5.4.010=x", "not known"},
		{"spki", "sha256/abc", "no SHA-256"},
		{"spki", strings.Repeat("0", 63), "no SHA-256"},
		{"spki", strings.Repeat("0", 66), "no SHA-256"},
		{"fingerprint", "sha1/" + strings.Repeat("a", 27) + "=", "no SHA-256"},
		{"policies", "1.02.3", "no object identifier"},
		{"policies", "3.1", "no object identifier"},
		{"policies", "1.2.*", "no object identifier"},
		{"policies", "anyPolicy", "no object identifier"},
		{"cn", "x", "its keys are dns, uri"},
		{"DNS", "x", "its keys are dns, uri"},
	} {
		var m Match
		if err := m.Add(tt.key, tt.entry); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: got %v, want %q", tt.key, tt.entry, err, tt.want)
		}
		if !m.IsZero() {
			t.Errorf("%s %q was added", tt.key, tt.entry)
		}
		for _, k := range matchKeys {
			if k.name == tt.key {
				*k.entries(&m) = []string{tt.entry}
				if _, err := m.Compile(); err == nil {
					t.Errorf("%s %q compiles", tt.key, tt.entry)
				}
			}
		}
	}
	if _, err := (Match{DNS: []string{"a.test", "a.test"}}).Compile(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("twice: %v", err)
	}
	var many []string
	for i := range maxEntries + 1 {
		many = append(many, strings.Repeat("a.", i)+"test")
	}
	if _, err := (Match{DNS: many}).Compile(); err == nil || !strings.Contains(err.Error(), "more than 64") {
		t.Errorf("too many: %v", err)
	}
	if _, err := (Match{Subject: []string{"O=" + strings.Repeat("a", 2000), "O=" + strings.Repeat("b", 2000), "O=" + strings.Repeat("c", 200)}}).Compile(); err == nil || !strings.Contains(err.Error(), "4096 bytes") {
		t.Errorf("too long: %v", err)
	}
}

var everyKey = Match{
	DNS: []string{"api.partner.test", "*.partner.test"}, URI: []string{"spiffe://partner.test/*"}, Email: []string{"*@partner.test"},
	IP: []string{"10.0.0.0/8"}, Subject: []string{`O=Partner\, Inc.,C=DE`}, SPKI: []string{"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},
	Policies: []string{"1.2.3"}, Fingerprint: []string{strings.Repeat("0f", 32)},
}

func TestTextOfMatch(t *testing.T) {
	m := compile(t, everyKey)
	const want = `{"dns":["api.partner.test","*.partner.test"],"uri":["spiffe://partner.test/*"],"email":["*@partner.test"],"ip":["10.0.0.0/8"],` +
		`"subject":["O=Partner\\, Inc.,C=DE"],"spki":["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],"policies":["1.2.3"],` +
		`"fingerprint":["0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"]}`
	if m.Text() != want {
		t.Errorf("got  %s\nwant %s", m.Text(), want)
	}
	again, err := Parse(m.Text())
	if err != nil || !again.Equal(m) || again.Text() != want {
		t.Errorf("read again: %v, %v", again, err)
	}
	if other, err := Parse(` { "ip" : [ "10.0.0.0/8" ], "dns": ["a.test"] } `); err != nil || other.Text() != `{"dns":["a.test"],"ip":["10.0.0.0/8"]}` {
		t.Errorf("with spaces and in another order: %v, %v", other, err)
	}
	empty := compile(t, Match{})
	if empty.Text() != "" || !empty.IsZero() || m.IsZero() || empty.Equal(m) || m.Equal(nil) || !(*Matcher)(nil).Equal(nil) {
		t.Error("an empty Match is not told apart")
	}
	if new(Matcher).IsZero() || new(Matcher).Admits(partner(t)) == nil || (*Matcher)(nil).Admits(partner(t)) == nil {
		t.Error("a Matcher that nobody compiled admits")
	}
	for _, unread := range []error{m.Admits(nil), empty.Admits(nil), m.AdmitsFacts(nil), empty.AdmitsFacts(FactsOf(nil))} {
		if unread != errSaysNothing {
			t.Errorf("of a certificate that was not read is told: %v", unread)
		}
	}
	if err := new(Matcher).AdmitsFacts(FactsOf(partner(t))); err != errNotCompiled {
		t.Errorf("of a Matcher that nobody compiled is told: %v", err)
	}
	given := []string{"a.test"}
	m = compile(t, Match{DNS: given})
	given[0] = "b.test"
	if m.Match().DNS[0] != "a.test" {
		t.Error("a Matcher changes with what it was made of")
	}
}

var badTexts = []string{
	"", " ", "null", "[]", "{}", `""`, "{", `{"dns"`, `{"dns":`, `{"dns":[}`, `{"dns":["a.test"]`, `{"dns":["a.test"]}}`, `{"dns":["a.test"]} {}`,
	`{"dns":[]}`, `{"dns":null}`, `{"dns":"a.test"}`, `{"dns":[null]}`, `{"dns":[1]}`, `{"dns":[["a.test"]]}`, `{"dns":{"a":1}}`,
	`{"dns":["a.test"],"dns":["b.test"]}`, `{"dns":["a.test"],"d\u006es":["b.test"]}`, `{"DNS":["a.test"]}`, `{"dns ":["a.test"]}`, `{"regex":[".*"]}`,
	`{"dns":["a.test","a.test"]}`, `{"dns":["a..test"]}`, `{"subject":["O=a\ud800"]}`, "{\"subject\":[\"O=\xff\"]}", `{"subject":["O=a\u0000"]}`,
	`{"ip":["10.0.0.1/8"]}`, `{dns:["a.test"]}`, `{"dns":["a.test",]}`, `{'dns':['a.test']}`, "\ufeff" + `{"dns":["a.test"]}`, `{"dns":["a.test"]}` + "\x00",
	strings.Repeat(" ", MaxMatch) + `{"dns":["a.test"]}`,
}

func TestParseRefuses(t *testing.T) {
	for _, text := range badTexts {
		if m, err := Parse(text); err == nil || m != nil {
			t.Errorf("%.60q is %v", text, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range badTexts {
		f.Add(text)
	}
	f.Add(`{"dns":["api.partner.test","*.partner.test"],"uri":["spiffe://partner.test/*"],"subject":["O=Partner\\, Inc.,C=DE"],"ip":["::/0"]}`)
	facts := FactsOf(partner(f))
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		_ = m.AdmitsFacts(facts)
		if m.IsZero() {
			t.Fatalf("%q admits every leaf", text)
		}
		again, err := Parse(m.Text())
		if err != nil || !again.Equal(m) {
			t.Fatalf("%q is written as %q, and read again as %v, %v", text, m.Text(), again, err)
		}
	})
}

func TestAdmitsDoesNotAllocate(t *testing.T) {
	cert := partner(t)
	f := FactsOf(cert)
	m := compile(t, Match{
		DNS: []string{"*.partner.test"}, URI: []string{"spiffe://partner.test/*"}, Email: []string{"*@partner.test"}, IP: []string{"10.0.0.0/8"},
		Subject: []string{"C=DE"}, Policies: []string{"1.3.6.1.4.1.99999.7"}, SPKI: []string{hex.EncodeToString(f.SPKI[:])},
	})
	if n := testing.AllocsPerRun(100, func() {
		if m.AdmitsFacts(f) != nil {
			t.Fatal("not admitted")
		}
	}); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
	empty := compile(t, Match{})
	if n := testing.AllocsPerRun(100, func() { _ = empty.Admits(cert) }); n != 0 {
		t.Errorf("without a key it allocates %v times", n)
	}
}

func TestKeysAreAllOfThem(t *testing.T) {
	if want := []string{"dns", "uri", "email", "ip", "subject", "spki", "policies", "fingerprint"}; !slices.Equal(Keys(), want) {
		t.Errorf("got %q", Keys())
	}
	for _, key := range Keys() {
		if len(everyKey.Entries(key)) == 0 {
			t.Errorf("no entry under %s", key)
		}
	}
}

// FuzzMatchNames holds entries against names by another rule than the Matcher's: label by label, and segment by segment.
func FuzzMatchNames(f *testing.F) {
	for _, entry := range []string{"*.partner.test", "api.partner.test", "spiffe://partner.test/*", "spiffe://partner.test/billing", "*@partner.test", "a@partner.test"} {
		for _, name := range []string{
			"api.partner.test", "partner.test", "x.y.partner.test", "*.partner.test", "API.PARTNER.TEST.", "spiffe://partner.test/billing", "spiffe://partner.test/a/b",
			"spiffe://partner.test/../b", "spiffe://partner.test//", "a@partner.test", "A@Partner.Test", "a@x.partner.test",
		} {
			f.Add(entry, name)
		}
	}
	f.Fuzz(func(t *testing.T, entry, name string) {
		facts := new(Facts)
		facts.addNames(altNames{dns: []string{name}, emails: []string{name}, uris: []string{name}})
		for _, key := range []string{"dns", "email", "uri"} {
			var m Match
			if m.Add(key, entry) != nil || compile(t, m).AdmitsFacts(facts) != nil {
				continue
			}
			separator := map[string]string{"dns": ".", "email": "@", "uri": "/"}[key]
			is, want := strings.Split(name, separator), strings.Split(entry, separator)
			if key == "uri" && want[len(want)-1] == "*" {
				is = append(is[:min(len(want)-1, len(is))], "*")
			}
			for i := range max(len(is), len(want)) {
				if i >= len(is) || i >= len(want) || want[i] != "*" && !strings.EqualFold(is[i], want[i]) {
					t.Fatalf("%s %q admits %q", key, entry, name)
				}
			}
		}
	})
}
