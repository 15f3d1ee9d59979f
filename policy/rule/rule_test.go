package rule

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func rawName(t testing.TB, names ...pkix.AttributeTypeAndValue) []byte {
	t.Helper()
	var seq pkix.RDNSequence
	for _, n := range names {
		seq = append(seq, pkix.RelativeDistinguishedNameSET{n})
	}
	raw, err := asn1.Marshal(seq)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// whole is a call with everything.
func whole(t testing.TB) *Input {
	t.Helper()
	country, org, unit, cn := asn1.ObjectIdentifier{2, 5, 4, 6}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{2, 5, 4, 11}, asn1.ObjectIdentifier{2, 5, 4, 3}
	names := []pkix.AttributeTypeAndValue{
		{Type: country, Value: "NL"},
		{Type: org, Value: "Acme, Inc."},
		{Type: unit, Value: "Ops"},
		{Type: unit, Value: "Night"},
		{Type: cn, Value: "gold"},
	}
	cert := &x509.Certificate{
		RawSubject:   rawName(t, names...),
		RawIssuer:    rawName(t, pkix.AttributeTypeAndValue{Type: cn, Value: "Clients CA"}),
		SerialNumber: big.NewInt(0xabc),
		NotAfter:     time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	return &Input{
		Certificate: &Certificate{
			X509: cert, Fingerprint: [32]byte{1, 2, 3}, SPKI: sha256.Sum256([]byte("a key")),
			CN: Names{All: []string{"gold"}}, O: Names{All: []string{"Acme, Inc."}}, OU: Names{All: []string{"Ops", "Night"}},
			DNS: Names{All: []string{"a.example", "b.example"}}, URIs: Names{All: []string{"spiffe://acme/orders"}},
			Emails: Names{All: []string{"ops@acme.example"}}, IPs: Names{All: []string{"10.0.0.7"}},
			Policies: []string{"1.3.6.1.4.1.99999.1"},
			Alias:    "gold", KeyType: "PRODUCTION", Tier: "Gold", Scopes: []string{"orders:read"},
		},
		Token: &Token{
			KeyManager: "resident", Issuer: "https://issuer.example", Subject: "alice", Client: "app", ID: "j1",
			Audience: []string{"orders"}, Scopes: []string{"a", "b"}, Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		},
		Method: "GET", Path: "/orders/1.0.0/items/7", Resource: "/items/{id}", Host: "api.example", API: "orders:1.0.0",
		Address: netip.MustParseAddr("10.1.2.3"), Now: time.Date(2026, 12, 1, 9, 30, 0, 0, time.UTC),
	}
}

func compile(t testing.TB, source string) *Rule {
	t.Helper()
	r, err := Compile(source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return r
}

func TestRulesReadTheCall(t *testing.T) {
	for _, source := range []string{
		`certificate.present`,
		`certificate.subject == "CN=gold,OU=Night,OU=Ops,O=Acme\\, Inc.,C=NL"`,
		`certificate.issuer == "CN=Clients CA"`,
		`certificate.cn == "gold" && certificate.o == "Acme, Inc."`,
		`"Ops" in certificate.ou && certificate.ou == ["Ops", "Night"]`,
		`certificate.serial == "0abc"`,
		`certificate.sha256 == "0102030000000000000000000000000000000000000000000000000000000000"`,
		`certificate.spki == "SPKI"`,
		`certificate.dns.exists(d, d.endsWith(".example")) && certificate.dns.size() == 2`,
		`certificate.uris.exists_one(u, u.startsWith("spiffe://acme/"))`,
		`certificate.emails == ["ops@acme.example"]`,
		`certificate.ips == ["10.0.0.7"] && certificate.ips.all(i, inNetwork(i, "10.0.0.0/24"))`,
		`"1.3.6.1.4.1.99999.1" in certificate.policies`,
		`certificate.notAfter - now > duration("24h") && certificate.notAfter == timestamp("2030-01-02T03:04:05Z")`,
		`certificate.alias == "gold" && certificate.keyType == "PRODUCTION" && certificate.tier == "Gold"`,
		`certificate.scopes == ["orders:read"]`,
		`token.present && token.issuer == "https://issuer.example" && token.subject == "alice" && token.client == "app" && token.id == "j1"`,
		`"orders" in token.audience && token.scopes.exists(s, s in ["b", "c"]) && token.keyManager == "resident"`,
		`token.expires > now`,
		`method == "GET" && path.startsWith("/orders/") && resource == "/items/{id}" && host == "api.example" && api == "orders:1.0.0"`,
		`inNetwork(address, "10.0.0.0/8") && !inNetwork(address, "10.2.0.0/16") && !inNetwork(address, "2001:db8::/32")`,
		`address == "10.1.2.3"`,
		`now.getHours() >= 9 && now.getHours("+01:00") == 10 && now.getDayOfWeek("UTC") == 2`,
		`path.matches("^/orders/[0-9.]+/items/[0-9]+$")`,
		"// of those who may\ncertificate.cn == 'gold' // and no others\n",
		`certificate.tier == "Gold" ? token.subject == "alice" : false`,
	} {
		t.Run(source, func(t *testing.T) {
			source = strings.ReplaceAll(source, "SPKI", fmt.Sprintf("%x", sha256.Sum256([]byte("a key"))))
			if ok, err := compile(t, source).Allows(whole(t)); !ok {
				t.Fatalf("is false, %v", err)
			}
			if ok, _ := compile(t, "!("+source+"\n)").Allows(whole(t)); ok {
				t.Fatal("its negation is true as well")
			}
		})
	}
}

// Nothing is true of what isn't there, but that it isn't.
func TestAbsentValuesAllowNothing(t *testing.T) {
	none := &Input{Method: "GET", Now: time.Now()}
	for _, v := range variables {
		switch v.name {
		case "certificate.present", "token.present", "method", "path", "resource", "host", "api", "now":
			continue
		}
		for _, source := range []string{v.name + " == " + v.name, v.name + " != " + v.name, "!(" + v.name + " == " + v.name + ")"} {
			ok, err := compile(t, source).Allows(none)
			if ok || err == nil {
				t.Errorf("%s is %t, %v", source, ok, err)
			}
		}
	}
	for _, tt := range []struct {
		source string
		want   bool
	}{
		{`certificate.present || token.present`, false},
		{`certificate.subject == ""`, false},
		{`!(certificate.cn == "mallory")`, false},
		{`certificate.ou.all(u, u == "Ops")`, false},
		{`!("Guests" in certificate.ou)`, false},
		{`!inNetwork(address, "10.0.0.0/8")`, false},
		{`certificate.tier == "Gold" ? true : true`, false},
		{`!certificate.present || certificate.tier == "Gold"`, true},
		{`certificate.tier == "Gold" || method == "GET"`, true}, // of an "or" one side is enough
		{`certificate.tier == "Gold" && method == "GET"`, false},
	} {
		if ok, err := compile(t, tt.source).Allows(none); ok != tt.want {
			t.Errorf("%s is %t, %v", tt.source, ok, err)
		}
	}
	for _, r := range []*Rule{nil, {}} {
		if r.Uses("path") || r.Uses("certificate.") {
			t.Error("no rule reads something")
		}
		if ok, err := r.Allows(whole(t)); ok || err == nil {
			t.Error("no rule allows")
		}
	}
}

func TestNamesThatReadersTakeDifferentlyAllowNothing(t *testing.T) {
	in := whole(t)
	in.Certificate.CN.All, in.Certificate.O.All = []string{"gold", "admin"}, []string{"Acme", "Other"}
	for _, source := range []string{`certificate.cn == "admin"`, `certificate.cn != "admin"`, `certificate.o != ""`} {
		if ok, err := compile(t, source).Allows(in); ok || err == nil || !strings.Contains(err.Error(), "more than one") {
			t.Errorf("%s is %t, %v", source, ok, err)
		}
	}
	c := *in.Certificate.X509
	c.RawSubject = []byte("no name")
	in.Certificate.X509 = &c
	if ok, err := compile(t, `certificate.subject != "CN=x"`).Allows(in); ok || err == nil {
		t.Error("a subject that can't be read is one")
	}
}

// TestUnreadNamesAllowNothing: while a certificate has a name that can't be read, nothing holds of the names of that kind,
// and the others are as ever.
func TestUnreadNamesAllowNothing(t *testing.T) {
	for _, c := range []struct {
		unread  func(*Certificate)
		sources []string
	}{
		{func(c *Certificate) { c.CN.Unread = true }, []string{`certificate.cn == "gold"`, `certificate.cn != "x"`}},
		{func(c *Certificate) { c.O.Unread = true }, []string{`certificate.o != "x"`}},
		{func(c *Certificate) { c.OU.Unread = true }, []string{`"Ops" in certificate.ou`, `!("Guests" in certificate.ou)`}},
		{func(c *Certificate) { c.DNS.Unread = true }, []string{`"a.example" in certificate.dns`, `!certificate.dns.exists(d, d == "x")`}},
		{func(c *Certificate) { c.URIs.Unread = true }, []string{`certificate.uris.size() >= 0`}},
		{func(c *Certificate) { c.Emails.Unread = true }, []string{`certificate.emails.all(e, e != "x")`}},
		{func(c *Certificate) { c.IPs.Unread = true }, []string{`certificate.ips != []`}},
		{func(c *Certificate) { c.BadSubject = true }, []string{`certificate.subject != ""`}},
		{func(c *Certificate) { c.BadIssuer = true }, []string{`certificate.issuer != ""`}},
	} {
		in := whole(t)
		c.unread(in.Certificate)
		for _, source := range c.sources {
			if ok, err := compile(t, source).Allows(whole(t)); !ok {
				t.Errorf("%s is false of what can be read, %v", source, err)
			}
			if ok, err := compile(t, source).Allows(in); ok || err == nil || !strings.Contains(err.Error(), "can't be read") {
				t.Errorf("%s is %t, %v", source, ok, err)
			}
		}
		if ok, err := compile(t, `certificate.alias == "gold" && certificate.serial == "0abc"`).Allows(in); !ok {
			t.Errorf("beside %s the rest can't be read: %v", c.sources[0], err)
		}
	}
}

func TestErrorsOfRules(t *testing.T) {
	for _, tt := range []struct {
		source string
		place  string
		want   string
	}{
		{`certificate.foo == "x"`, "1:12", "there is no certificate.foo: it has alias, cn, dns,"},
		{`token.sub == "x"`, "1:6", "there is no token.sub: it has audience, client,"},
		{`certificate == token`, "1:1", "certificate is no value of its own"},
		{`has(certificate.dns)`, "1:4", "ask for certificate.present"},
		{`true && nobody == 1`, "1:9", "undeclared reference to 'nobody'"},
		{"method == \"GET\" &&\n  hots == \"x\"", "2:3", "undeclared reference to 'hots'"},
		{`request.headers["x"] == "y"`, "1:1", "undeclared reference to 'request'"},
		{`method == 7`, "1:8", "no matching overload"},
		{`method`, "1:1", "is to be true or false, and is of type string"},
		{`dyn(true)`, "1:1", "is of type dyn"},
		{`method == "GET`, "1:11", "yntax error"},
		{`path.foo == "x"`, "1:5", "does not support field selection"},
		{"  ", "1:1", "is empty"},
		{"\xff", "1:1", "no UTF-8"},
		{`true ` + strings.Repeat(" ", MaxSource), "1:1", "longer than 4096"},
		{`path.matches(method)`, "1:14", "is to be a text in quotes"},
		{`matches(path, "a" + "b")`, "1:19", "is to be a text in quotes"},
		{`path.matches("` + strings.Repeat("a", MaxPattern+1) + `")`, "1:14", "longer than 256"},
		{`path.matches("((a{30}){30})")`, "1:14", "instructions"},
		{`path.matches("(")`, "1:14", "is none"},
		{`path.matches("(x{20}){20}y")`, "1:1", "may cost"},
		{`matches(path, "(x{20}){20}y")`, "1:1", "may cost"},
		{`certificate.dns.all(d, d.matches("(x{20}){20}y"))`, "1:1", "may cost"},
		{`inNetwork(address, path)`, "1:20", "is to be a text in quotes"},
		{`inNetwork(address, "10.0.0.1/8")`, "1:20", "write 10.0.0.0/8"},
		{`inNetwork(address, "10.0.0.1")`, "1:20", "an address and a length"},
		{`inNetwork(address, "::ffff:10.0.0.0/104")`, "1:20", "as one: 10.0.0.0"},
		{`inNetwork(address)`, "1:10", "no matching overload"},
		{`now.getHours("Europe/Berlin") > 8`, "1:14", `is to be "UTC"`},
		{`now.getHours("+24:00") > 8`, "1:14", `is to be "UTC"`},
		{`now.getHours(path) > 8`, "1:14", `is to be "UTC"`},
		{`["x"].exists(path, path == "x")`, "1:13", "give the elements another name"},
		{`google.protobuf.Timestamp{seconds: 1} == now`, "1:26", "builds no messages"},
		{`duration("nonsense") == now - now`, "1:10", "duration"},
		{`certificate.dns.exists(a, certificate.dns.exists(b, certificate.dns.exists(c, a + b == c)))`, "1:1", "may cost"},
		{`certificate.uris.all(a, certificate.uris.all(b, a == b))`, "1:1", "may cost"},
		{`[1,2,3].all(a, [1,2,3].all(b, [1,2,3].all(c, [1,2,3].all(d, [1,2,3].all(e, [1,2,3].all(f, [1,2,3].all(g, [1,2,3].all(h, [1,2,3].all(i, [1,2,3].all(j, a+b+c+d+e+f+g+h+i+j > 0))))))))))`, "1:1", "may cost"},
		{strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100), "", "recursion"},
		{strings.Repeat("-", 3) + strings.Repeat("[", 100) + "1" + strings.Repeat("]", 100), "", "recursion"},
		{"true" + strings.Repeat(" || true", 500), "", ""},
	} {
		_, err := Compile(tt.source)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.60q: %v", tt.source, err)
			continue
		}
		if tt.place != "" && !strings.HasPrefix(e.Error(), tt.place+": ") || !strings.Contains(e.Problem, tt.want) {
			t.Errorf("%.60q: got %v, want %s: …%s…", tt.source, err, tt.place, tt.want)
		}
	}
}

// What is larger than the estimate took it for ends at the bound.
func TestCostsAreBoundedWhenEvaluated(t *testing.T) {
	in := whole(t)
	in.Certificate.DNS.All = slices.Repeat([]string{"x.example"}, 200_000)
	ok, err := compile(t, `certificate.dns.all(d, d.endsWith(".example"))`).Allows(in)
	if ok || err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Fatalf("is %t, %v", ok, err)
	}
}

// A pattern costs what it takes to match, and not what it takes to write it.
func TestPatternsArePricedByTheirSize(t *testing.T) {
	in := whole(t)
	for _, tt := range []struct {
		source string
		least  uint64
	}{
		{`path.matches("^/orders/[0-9]+$")`, 1000},
		{`path.matches("(x{10}){9}y")`, 80_000},
		{`matches(path, "(x{10}){9}y")`, 80_000},
	} {
		r := compile(t, "!"+tt.source)
		in.Path = strings.Repeat("x", longText)
		ok, cost, err := r.evaluate(in)
		if !ok || err != nil || cost < tt.least || cost > maxCost {
			t.Errorf("%s costs %d: %t, %v", tt.source, cost, ok, err)
		}
		in.Path = strings.Repeat("x", 4*longText)
		if ok, _, err := r.evaluate(in); ok && tt.least > 10_000 || err == nil && tt.least > 10_000 {
			t.Errorf("%s of a text beyond all bounds: %t, %v", tt.source, ok, err)
		}
	}
}

// Many paths cost together what one may.
func TestAllowsEach(t *testing.T) {
	in := whole(t)
	r := compile(t, `!path.matches("(x{10}){9}y") && path != "/no"`)
	if ok, err := r.AllowsEach(in, slices.Values([]string{"/a", "/b", "/c"})); !ok || err != nil {
		t.Errorf("three short paths: %t, %v", ok, err)
	}
	if ok, err := r.AllowsEach(in, slices.Values([]string{"/a", "/no", "/c"})); ok || err != nil {
		t.Errorf("one that is not allowed: %t, %v", ok, err)
	}
	if ok, _ := r.AllowsEach(in, slices.Values([]string{})); ok {
		t.Error("no path is allowed")
	}
	asked := 0
	ok, err := r.AllowsEach(in, func(yield func(string) bool) {
		for range 80 {
			if asked++; !yield(strings.Repeat("x", longText)) {
				return
			}
		}
	})
	if ok || !errors.Is(err, errSpent) || asked > 4 {
		t.Errorf("long ones: %t, %v after %d", ok, err, asked)
	}
}

func TestUses(t *testing.T) {
	r := compile(t, `certificate.tier == "Gold" && path != "/"`)
	for name, want := range map[string]bool{
		"path": true, "resource": false, "certificate.": true, "certificate.tier": true, "certificate.cn": false, "token.": false,
	} {
		if r.Uses(name) != want {
			t.Errorf("uses %s: %t", name, !want)
		}
	}
}

func TestRulesAreSharedByCalls(t *testing.T) {
	r, in := compile(t, typical), whole(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if ok, err := r.Allows(in); !ok {
					t.Errorf("is false, %v", err)
				}
			}
		})
	}
	wg.Wait()
}

const typical = `certificate.tier == "Gold" && "Ops" in certificate.ou && method in ["GET", "HEAD"] && inNetwork(address, "10.0.0.0/8")`

// A rule's memory is bounded: a look-up of a variable takes one allocation for its value, and little else does.
func TestAllocations(t *testing.T) {
	r, in := compile(t, typical), whole(t)
	if n := testing.AllocsPerRun(200, func() {
		if ok, err := r.Allows(in); !ok {
			t.Fatal(err)
		}
	}); n > 30 {
		t.Errorf("%.0f allocations", n)
	}
}

func BenchmarkAllows(b *testing.B) {
	for name, source := range map[string]string{
		"method":  `method == "GET"`,
		"typical": typical,
		"subject": `certificate.subject == "CN=gold"`,
		"worst":   `!path.matches("([a-z]{1,12}){4}!")`,
		"pattern": `path.matches("^/orders/[0-9.]+/items/[0-9]+$")`,
	} {
		b.Run(name, func(b *testing.B) {
			r, in := compile(b, source), whole(b)
			if name == "worst" {
				in.Path = strings.Repeat("x", longText)
			}
			b.ReportAllocs()
			for b.Loop() {
				_, _ = r.Allows(in)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		_, _ = Compile(typical)
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		typical, `certificate.dns.exists(d, d.matches("^a+$"))`, `now.getHours("+01:00") > 3`, `[1].map(x, x * 2) == [2]`,
		`{"a": 1}.a == 1`, `token.scopes.filter(s, s != "a").size() > 1 ? true : "a" in token.scopes`, "a\n.b", `b"\xff" == b""`,
	} {
		f.Add(s, "/a", "a.example")
	}
	in := whole(f)
	f.Fuzz(func(t *testing.T, source, path, dns string) {
		r, err := Compile(source)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Problem == "" {
				t.Fatalf("the error has no place: %v", err)
			}
			return
		}
		call, c, x := *in, *in.Certificate, *in.Certificate.X509
		x.DNSNames = append(strings.Split(dns, ","), "a.example")
		c.X509, call.Certificate, call.Path = &x, &c, path
		for _, in := range []*Input{&call, {}} {
			if ok, err := r.Allows(in); ok && err != nil {
				t.Fatalf("allows, in spite of %v", err)
			}
		}
	})
}
