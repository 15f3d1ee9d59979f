package certrule

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
)

// partner is a certificate that OpenSSL has made: see testdata/partner.cnf.
func partner(t testing.TB) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile("testdata/partner.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestFactsOfOpenSSL(t *testing.T) {
	f := FactsOf(partner(t))
	for _, tt := range []struct {
		what string
		got  []string
		want []string
	}{
		{"DNS", f.DNS, []string{"api.partner.test", "xn--mller-kva.test"}},
		{"URIs", f.URIs(), []string{"spiffe://partner.test/billing/Worker", "urn:partner:billing"}},
		{"email", f.Email, []string{"Billing@partner.test"}},
		{"OU", f.OU, []string{"Payments", "Billing"}},
		{"PSD2", f.PSD2, []string{"PSP_AI", "PSP_PI"}},
		{"policies", f.Policies, []string{"1.3.6.1.4.1.99999.7", "0.4.0.19495.3.1"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.what, tt.got, tt.want)
		}
	}
	if want := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::7")}; !slices.Equal(f.IP, want) {
		t.Errorf("IP: got %v, want %v", f.IP, want)
	}
	values := map[string][]string{}
	for _, e := range f.extensions {
		values[e.oid] = e.values
	}
	if len(values) != 3 || !slices.Equal(values["1.3.6.1.4.1.99999.1"], []string{"gold", "audited"}) ||
		!slices.Equal(values["1.3.6.1.4.1.99999.2"], []string{"gold"}) || !slices.Equal(values["1.3.6.1.4.1.99999.3"], []string{"silver"}) {
		t.Errorf("extensions: got %q", values)
	}
}

func TestFactsOfNothing(t *testing.T) {
	f := FactsOf(nil)
	if f == nil || len(f.DNS)+len(f.OU)+len(f.PSD2)+len(f.URIs()) > 0 {
		t.Errorf("got %+v", f)
	}
	m, err := Match{}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if m.Admits(nil) == nil || m.AdmitsFacts(f) == nil || m.AdmitsFacts(nil) == nil {
		t.Error("a certificate that isn't there is admitted")
	}
}

// issue makes a certificate with these general names, and this subject and these extensions.
func issue(t testing.TB, subject pkix.Name, names []name, extensions ...pkix.Extension) *x509.Certificate {
	t.Helper()
	cert, err := tryIssue(subject, names, extensions...)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func tryIssue(subject pkix.Name, names []name, extensions ...pkix.Extension) (*x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotAfter: time.Now().Add(time.Hour), ExtraExtensions: extensions}
	if len(names) > 0 {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: generalNames(names)})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// A name is a GeneralName: 1 an e-mail address, 2 a host name, 6 a URI, 7 an address.
type name struct {
	tag   uint8
	value string
}

func generalNames(names []name) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, n := range names {
			b.AddASN1(tags.Tag(n.tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(n.value)) })
		}
	})
	return b.BytesOrPanic()
}

// security.md 37 and 38: names that two readers could take differently are no names, and a name of one kind is none of
// another.
func TestNamesThatAreNone(t *testing.T) {
	for _, tt := range []struct {
		tag   uint8
		value string
	}{
		{2, "api.partner.test\x00.evil.test"},
		{2, "api.partner.test\n"},
		{2, "api.partner.test."},
		{2, ".partner.test"},
		{2, "api..partner.test"},
		{2, "*.partner.test"},
		{2, "-api.partner.test"},
		{2, "api.partner.test, evil.test"},
		{2, `"api.partner.test"`},
		{2, "api.partner.test:443"},
		{2, "10.1.2.3"},
		{2, "api\xe2\x80\x8f.partner.test"},
		{2, "api.partnér.test"},
		{2, strings.Repeat("a.", 4096) + "partner.test"},
		{2, strings.Repeat("a", 64) + ".partner.test"},
		{2, ""},
		{6, "api.partner.test"},
		{6, "spiffe://user@partner.test/billing"},
		{6, "spiffe://user:pw@partner.test/billing"},
		{6, "spiffe:///billing"},
		{6, "spiffe:/billing"},
		{6, "spiffe:"},
		{6, "://partner.test/billing"},
		{6, "spiffe://partner.test:/billing"},
		{6, "spiffe://partner.test:8x/billing"},
		{6, "spiffe://partner.test/a/../billing"},
		{6, "spiffe://partner.test/a/%2e%2E/billing"},
		{6, "spiffe://partner.test/./billing"},
		{6, "spiffe://partner.test/.%2e"},
		{6, "spiffe://partner.test\\@evil.test/"},
		{6, "spiffe://partner.test/bil ling"},
		{6, "spiffe://partner.test/billing\x00"},
		{6, "spiffe://partner.test/%zz"},
		{6, "spiffe://partner.test/%2"},
		{6, "spiffe://partner.test/a#b#c"},
		{6, "spiffe://pärtner.test/billing"},
		{6, "spiffe://partner.test./billing"},
		{6, "spiffe://partner.test/" + strings.Repeat("a", 8<<10)},
		{1, "partner.test"},
		{1, "a@b@partner.test"},
		{1, "@partner.test"},
		{1, "a@"},
		{1, "\"a b\"@partner.test"},
		{1, "a..b@partner.test"},
		{1, "a@partner.test\x00"},
		{1, "a\x00@partner.test"},
		{1, "a@[10.1.2.3]"},
		{7, "\x0a\x01\x02"},
		{7, "\x0a\x01\x02\x03\xff\xff\xff\x00"},                                 // with a mask, as in a constraint
		{7, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x01\x02\x03"}, // IPv4 in IPv6 form
	} {
		good := []name{{2, "good.test"}, {6, "urn:good"}, {1, "good@good.test"}, {7, "\x7f\x00\x00\x01"}}
		f := new(Facts)
		names, _ := parseAltNames(generalNames(append(good, name{tt.tag, tt.value})))
		f.addNames(names)
		if len(f.DNS) != 1 || len(f.uris) != 1 || len(f.Email) != 1 || len(f.IP) != 1 {
			t.Errorf("%d %q is a name: %q %q %q %v", tt.tag, tt.value, f.DNS, f.URIs(), f.Email, f.IP)
		}
		if want := map[int]Unread{1: {Email: true}, 2: {DNS: true}, 6: {URI: true}, 7: {IP: true}}[int(tt.tag)]; f.Unread != want {
			t.Errorf("of %d %q what is left out is told as %+v", tt.tag, tt.value, f.Unread)
		}
		// What crypto/x509 reads of it says no more.
		if cert, err := tryIssue(pkix.Name{}, []name{{tt.tag, tt.value}}); err == nil {
			if f := FactsOf(cert); len(f.DNS)+len(f.uris)+len(f.Email)+len(f.IP) > 0 {
				t.Errorf("%d %q is a certificate's name: %+v", tt.tag, tt.value, f)
			}
		}
	}
}

// A list that is cut off, or goes on behind its end, has no name at all.
func TestAltNamesNotWellFormed(t *testing.T) {
	whole := generalNames([]name{{2, "api.partner.test"}, {6, "urn:partner"}})
	for i := range whole {
		if names, ok := parseAltNames(whole[:i]); ok || names.dns != nil || names.uris != nil {
			t.Errorf("cut to %d bytes it is %+v", i, names)
		}
	}
	if names, ok := parseAltNames(append(whole, 0)); ok || names.dns != nil {
		t.Errorf("with something behind it, it is %+v", names)
	}
}

func TestTextsOfExtensions(t *testing.T) {
	der := func(tag tags.Tag, value string) []byte {
		var b cryptobyte.Builder
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
		return b.BytesOrPanic()
	}
	sequence := func(parts ...[]byte) []byte { return der(tags.SEQUENCE, string(slices.Concat(parts...))) }
	utf, ia5, printable := der(tags.UTF8String, "gold"), der(tags.IA5String, "audited"), der(tags.PrintableString, "silver")
	for _, tt := range []struct {
		name string
		der  []byte
		want []string
	}{
		{"UTF-8", utf, []string{"gold"}},
		{"a list", sequence(utf, ia5, printable), []string{"gold", "audited", "silver"}},
		{"nothing", nil, nil},
		{"an empty list", sequence(), nil},
		{"an empty text", der(tags.UTF8String, ""), nil},
		{"a list within a list", sequence(utf, sequence(utf)), nil},
		{"a number", der(tags.INTEGER, "\x07"), nil},
		{"a number in a list", sequence(utf, der(tags.INTEGER, "\x07")), nil},
		{"two texts", slices.Concat(utf, ia5), nil},
		{"something behind a list", append(sequence(utf), 0), nil},
		{"a set", der(tags.SET, string(utf)), nil},
		{"no UTF-8", der(tags.UTF8String, "g\xffold"), nil},
		{"NUL", der(tags.UTF8String, "gold\x00"), nil},
		{"a line feed", der(tags.IA5String, "gold\n"), nil},
		{"IA5String beyond ASCII", der(tags.IA5String, "göld"), nil},
		{"PrintableString with a star", der(tags.PrintableString, "gold*"), nil},
		{"T61String", der(tags.T61String, "gold"), nil},
		{"too long", der(tags.UTF8String, strings.Repeat("a", maxExtension)), nil},
		{"too many", sequence(slices.Repeat([][]byte{utf}, maxTexts+1)...), nil},
		{"a length in more octets than needed", []byte("\x0c\x81\x04gold"), nil},
		{"a length beyond the end", []byte("\x0c\x05gold"), nil},
		{"an indefinite length", []byte("\x30\x80\x0c\x04gold\x00\x00"), nil},
	} {
		if got := parseTexts(tt.der); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestUnreadSubjects: of a subject with a part that is no text, that part's kind is told to lack something, and the whole to
// be unread; of one that has no part nothing is.
func TestUnreadSubjects(t *testing.T) {
	part := func(oid string, value any) pkix.AttributeTypeAndValue {
		id := map[string]asn1.ObjectIdentifier{"CN": {2, 5, 4, 3}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "L": {2, 5, 4, 7}}[oid]
		return pkix.AttributeTypeAndValue{Type: id, Value: value}
	}
	odd := asn1.RawValue{Tag: asn1.TagOctetString, Bytes: []byte("x")}
	for _, tt := range []struct {
		name string
		rdn  []pkix.AttributeTypeAndValue
		want Unread
	}{
		{"none", nil, Unread{}},
		{"texts", []pkix.AttributeTypeAndValue{part("CN", "a"), part("CN", "b"), part("O", "c"), part("OU", "d")}, Unread{}},
		{"CN", []pkix.AttributeTypeAndValue{part("CN", "a"), part("CN", odd)}, Unread{Subject: true, CN: true}},
		{"O", []pkix.AttributeTypeAndValue{part("O", odd)}, Unread{Subject: true, O: true}},
		{"OU", []pkix.AttributeTypeAndValue{part("OU", "a"), part("OU", odd), part("OU", "b")}, Unread{Subject: true, OU: true}},
		{"another", []pkix.AttributeTypeAndValue{part("CN", "a"), part("L", odd)}, Unread{Subject: true}},
		{"control characters", []pkix.AttributeTypeAndValue{part("CN", "a\x00b")}, Unread{Subject: true, CN: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seq pkix.RDNSequence
			for _, a := range tt.rdn {
				seq = append(seq, pkix.RelativeDistinguishedNameSET{a})
			}
			raw, err := asn1.Marshal(seq)
			if err != nil {
				t.Fatal(err)
			}
			issuer, _ := asn1.Marshal(pkix.Name{CommonName: "CA"}.ToRDNSequence())
			f := FactsOf(&x509.Certificate{RawSubject: raw, RawIssuer: issuer})
			if f.Unread != tt.want {
				t.Errorf("got %+v, want %+v", f.Unread, tt.want)
			}
			if f := FactsOf(&x509.Certificate{RawSubject: issuer, RawIssuer: raw}); f.Unread != (Unread{Issuer: tt.want.Subject}) {
				t.Errorf("as the issuer's name it is told as %+v", f.Unread)
			}
		})
	}
	if f := FactsOf(&x509.Certificate{RawSubject: []byte("no name"), RawIssuer: nil}); f.Unread != (Unread{Subject: true, Issuer: true, CN: true, O: true, OU: true}) {
		t.Errorf("of what is no name it is %+v", f.Unread)
	}
}

func FuzzFacts(f *testing.F) {
	f.Add(partner(f).Raw)
	for _, e := range partner(f).Extensions {
		f.Add(e.Value)
	}
	f.Add(partner(f).RawSubject)
	f.Add(generalNames([]name{{2, "a\x00b"}, {6, "a://b/%2e%2e"}, {1, "a@b@c"}, {7, "abcd"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		facts := new(Facts)
		names, _ := parseAltNames(data)
		facts.addNames(names)
		if cert, err := x509.ParseCertificate(data); err == nil {
			facts = FactsOf(cert)
		}
		facts.PSD2 = append(facts.PSD2, parsePSD2Roles(data)...)
		facts.extensions = append(facts.extensions, extension{"1.2.3", parseTexts(data)})
		facts.subject = append(facts.subject, parseName(data)...)
		for _, s := range slices.Concat(facts.DNS, facts.Email, facts.URIs(), facts.OU, facts.PSD2, facts.extensions[len(facts.extensions)-1].values) {
			if !isPlain(s) {
				t.Errorf("%q is a fact", s)
			}
		}
		for _, host := range facts.DNS {
			if _, ok := parseHost(host); !ok || strings.ContainsAny(host, "*@:/") {
				t.Errorf("%q is a host", host)
			}
		}
		for _, role := range facts.PSD2 {
			if CheckRole("psd2Roles", role) != nil {
				t.Errorf("%q is a role", role)
			}
		}
		for _, u := range facts.uris {
			again, ok := parseURI(u.text)
			if !ok || again != u {
				t.Errorf("%+v is read again as %+v, %v", u, again, ok)
			}
		}
	})
}
