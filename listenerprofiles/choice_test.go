package listenerprofiles

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/listenerprofiles/keystore"
)

func openssl(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("openssl is missing")
		}
		t.Skip("openssl is missing")
	}
	return path
}

// TestOpenSSLGetsECDSA: a client that can both gets ECDSA from each kind of store with both kinds of keys, whatever their
// order, and one that can only RSA gets RSA. As a listener's own store and by a file of profiles.
func TestOpenSSLGetsECDSA(t *testing.T) {
	program := openssl(t)
	f := newFixture(t)
	ec, rsa := issue(t, "ec", f.ca).pem(t), issueFor(t, "rsa", newRSA(t), f.ca).pem(t)
	f.write(t, "ec-rsa.pem", slices.Concat(ec, rsa))
	f.write(t, "rsa-ec.pem", slices.Concat(rsa, ec))
	for _, name := range []string{"keys.jks", "two.p12"} {
		data, err := os.ReadFile(filepath.Join("keystore", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, name, data)
	}
	jks := keystore.Ref{Location: f.path("keys.jks"), Type: "JKS", Password: "changeit", KeyPassword: "keypass"}
	p12 := keystore.Ref{Location: f.path("two.p12"), Type: "PKCS12", Password: "changeit"}
	aliases := func(ref keystore.Ref, names ...string) keystore.Ref {
		ref.Alias = keystore.JoinAliases(names...)
		return ref
	}
	clients := map[string][]string{
		"ECDSA": {"-tls1_3", "-tls1_2", "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256"},
		"RSA": {
			"-tls1_3 -sigalgs RSA-PSS+SHA256", "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "-tls1_2 -curves X25519",
			"-tls1_2 -sigalgs RSA+SHA256",
		},
	}
	signature := regexp.MustCompile(`Peer signature type: (ECDSA|RSA)`)
	check := func(what string, cfg Options, all bool) {
		t.Helper()
		set, err := Load(cfg, nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s := serve(t, "127.0.0.1", set)
		for want, list := range clients {
			if !all {
				list = list[:1]
			}
			for _, client := range list {
				cmd := exec.CommandContext(t.Context(), program,
					append([]string{"s_client", "-connect", s.listener.Addr().String()}, strings.Fields(client)...)...)
				out, _ := cmd.CombinedOutput() // it exits with 1 for a certificate that it doesn't trust
				if found := signature.FindSubmatch(out); found == nil || string(found[1]) != want {
					t.Errorf("%s: %s gets %q, want %s\n%s", what, client, found, want, out)
				}
			}
		}
	}
	for what, ref := range map[string]keystore.Ref{
		"JKS": jks, "JKS, aliases": aliases(jks, "ec", "Gateway"), "JKS, aliases in the other order": aliases(jks, "gateway", "EC"),
		"PKCS12": p12, "PKCS12, aliases": aliases(p12, "ec", "gateway"),
		"PEM": {Location: f.path("ec-rsa.pem")}, "PEM in the other order": {Location: f.path("rsa-ec.pem")},
	} {
		check(what, Options{Own: Settings{KeyStore: ref, VerifyClient: None}}, ref.Alias == "")
		if ref.Alias != "" {
			continue // in the file it is a single name
		}
		f.write(t, "listenerprofiles.xml", fmt.Appendf(nil, `<parameter name="SSLProfiles"><profile><bindAddress>127.0.0.1</bindAddress>
			<KeyStore><Location>%s</Location><Password>changeit</Password><KeyPassword>%s</KeyPassword></KeyStore>
			<SSLVerifyClient>none</SSLVerifyClient></profile></parameter>`, ref.Location, max(ref.KeyPassword, ref.Password)))
		cfg := f.config()
		cfg.Own.VerifyClient = None
		check(what+" in XML", cfg, false)
	}
}

// servedBy calls set as a client that can only do what changes the config, and returns whose certificate it was shown.
func (f *fixture) servedBy(set *Set, name string, change ...func(*tls.Config)) (string, error) {
	cfg := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	for _, c := range change {
		c(cfg)
	}
	_, state, err := callInMemory(func() *Set { return set }, cfg)
	if err != nil {
		return "", err
	}
	return state.PeerCertificates[0].Subject.CommonName, nil
}

func onlyRSA(c *tls.Config) {
	c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
}

// TestNamesChooseAmongKeys: of several keys those come first whose certificates cover the client's server name.
func TestNamesChooseAmongKeys(t *testing.T) {
	f := newFixture(t)
	named := func(cn string, key crypto.Signer, names ...string) []byte {
		return issueFor(t, cn, key, f.ca, func(c *x509.Certificate) { c.DNSNames = names }).pem(t)
	}
	f.write(t, "server.pem", slices.Concat(
		named("rsa a", newRSA(t), "a.test", "*.d.test"),
		named("ec a", nil, "a.test", "e.d.test"),
		named("ec b", nil, "*.b.test"),
		named("rsa c", newRSA(t), "C.test"),
	))
	set := f.load(t, "127.0.0.1 verify=none")
	for _, tt := range []struct {
		name    string
		rsa     bool
		want    string // "": the handshake fails
		because string
	}{
		{"a.test", false, "ec a", "both kinds cover it"},
		{"A.Test", false, "ec a", "names compare without case"},
		{"a.test", true, "rsa a", "the client needs RSA"},
		{"x.b.test", false, "ec b", "a wildcard covers it"},
		{"x.b.test", true, "", "the only certificate of the name is none for the client"},
		{"x.y.b.test", false, "ec a", "a wildcard is one label"},
		{"c.test", false, "rsa c", "ECDSA has no certificate of the name"},
		{"e.d.test", false, "ec a", "one by name, one by wildcard"},
		{"e.d.test", true, "rsa a", "the same, and the client needs RSA"},
		{"f.d.test", false, "rsa a", "the wildcard alone"},
		{"unknown.test", false, "ec a", "none covers it: the first of the better kind"},
		{"unknown.test", true, "rsa a", "none covers it: the first that the client can"},
		{"", false, "ec a", "no name"},
		{"", true, "rsa a", "no name"},
	} {
		var change []func(*tls.Config)
		if tt.rsa {
			change = append(change, onlyRSA)
		}
		if got, err := f.servedBy(set, tt.name, change...); got != tt.want {
			t.Errorf("%q, RSA alone: %v: %q, %v, want %q: %s", tt.name, tt.rsa, got, err, tt.want, tt.because)
		}
	}
}

// hellos are what clients say of themselves: one that can all, and ones that need RSA.
var hellos = map[string]struct {
	tls.ClientHelloInfo
	rsa bool
}{
	"TLS 1.3": {tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
		SignatureSchemes:  []tls.SignatureScheme{tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256},
		SupportedPoints:   []uint8{0},
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	}, false},
	"TLS 1.3 with RSA alone": {tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes:  []tls.SignatureScheme{tls.PSSWithSHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519},
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256},
	}, true},
	"TLS 1.3 with P-384 alone": {tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384, tls.PSSWithSHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519},
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256},
	}, true},
	"TLS 1.2": {tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS12},
		SignatureSchemes:  []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.ECDSAWithP256AndSHA256},
		SupportedCurves:   []tls.CurveID{tls.CurveP256},
		SupportedPoints:   []uint8{0},
		CipherSuites: []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		},
	}, false},
	"TLS 1.2 without P-256": {tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS12},
		SignatureSchemes:  []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.ECDSAWithP256AndSHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP521},
		SupportedPoints:   []uint8{0},
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		},
	}, true},
	"TLS 1.2 without a suite of ECDSA, as Java 8 with a list of suites": {tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PKCS1WithSHA512, tls.PKCS1WithSHA256, tls.PKCS1WithSHA1},
		SupportedCurves:   []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521},
		SupportedPoints:   []uint8{0},
		CipherSuites: []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		},
	}, true},
	"TLS 1.2 with signatures of RSA alone": {tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS12},
		SignatureSchemes:  []tls.SignatureScheme{tls.PKCS1WithSHA256},
		SupportedCurves:   []tls.CurveID{tls.CurveP256},
		SupportedPoints:   []uint8{0},
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		},
	}, true},
}

// choices are a choice between ECDSA and RSA in both orders.
func choices(t testing.TB, now func() time.Time, ec, rsa tls.Certificate) []*choice {
	t.Helper()
	return []*choice{newChoice([]tls.Certificate{ec, rsa}, now), newChoice([]tls.Certificate{rsa, ec}, now)}
}

func pairOf(p *party) tls.Certificate {
	pair := p.tls()
	pair.Leaf = p.cert
	return pair
}

func TestChoice(t *testing.T) {
	ec, rsa := issue(t, "ec", nil), issueFor(t, "rsa", newRSA(t), nil)
	for i, c := range choices(t, time.Now, pairOf(ec), pairOf(rsa)) {
		for name, hello := range hellos {
			for _, server := range []string{"", "server.test", "other.test"} {
				hello.ServerName = server
				want := map[bool]*party{false: ec, true: rsa}[hello.rsa]
				got, err := c.get(&hello.ClientHelloInfo)
				if err != nil || !bytes.Equal(got.Certificate[0], want.cert.Raw) {
					t.Errorf("order %d, %s: %s for %q, %v", i, name, got.Leaf.Subject, server, err)
				}
				if hello.ServerName != server {
					t.Errorf("the hello is changed: %q", hello.ServerName)
				}
			}
		}
		got, err := c.get(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.Ed25519}})
		if err != nil || got.Leaf != ec.cert {
			t.Errorf("a client that can neither is for crypto/tls to refuse: %v", err)
		}
	}
}

// TestChoiceLeavesOutWhatHasEnded: a certificate that ends in service is offered only where there is no other.
func TestChoiceLeavesOutWhatHasEnded(t *testing.T) {
	end := time.Now().Add(time.Hour)
	ec := issue(t, "ec", nil, func(c *x509.Certificate) { c.NotAfter = end })
	rsa := issueFor(t, "rsa", newRSA(t), nil)
	now := end.Add(-time.Minute)
	hello := hellos["TLS 1.2"].ClientHelloInfo
	ecAlone := hello
	ecAlone.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	for _, c := range choices(t, func() time.Time { return now }, pairOf(ec), pairOf(rsa)) {
		for _, tt := range []struct {
			now         time.Time
			all, ecOnly *party
		}{{end.Add(-time.Minute), ec, ec}, {end.Add(time.Minute), rsa, ec}} {
			now = tt.now
			if got, err := c.get(&hello); err != nil || got.Leaf != tt.all.cert {
				t.Errorf("at %v: %s, %v", now, got.Leaf.Subject, err)
			}
			if got, err := c.get(&ecAlone); err != nil || got.Leaf != tt.ecOnly.cert {
				t.Errorf("at %v, of ECDSA alone: %s, %v", now, got.Leaf.Subject, err)
			}
		}
	}
}

// TestChoiceIsCheap: with one key nothing is looked at, and of two the first that suits is all that is.
func TestChoiceIsCheap(t *testing.T) {
	ec, rsa := pairOf(issue(t, "ec", nil)), pairOf(issueFor(t, "rsa", newRSA(t), nil))
	hello := hellos["TLS 1.3"].ClientHelloInfo
	hello.ServerName = "server.test"
	one := newChoice([]tls.Certificate{rsa}, nil) // without a clock, which it doesn't ask
	if n := testing.AllocsPerRun(100, func() { _, _ = one.get(&hello) }); n != 0 {
		t.Errorf("one key: %v allocations", n)
	}
	nameless := hello
	nameless.ServerName = ""
	least := testing.AllocsPerRun(100, func() { _ = nameless.SupportsCertificate(&ec) })
	for _, c := range choices(t, time.Now, ec, rsa) {
		if n := testing.AllocsPerRun(100, func() { _, _ = c.get(&hello) }); n > least {
			t.Errorf("two keys: %v allocations, crypto/tls makes %v", n, least)
		}
	}
}

func BenchmarkChoice(b *testing.B) {
	ec, rsa := pairOf(issue(b, "ec", nil)), pairOf(issueFor(b, "rsa", newRSA(b), nil))
	hello := hellos["TLS 1.3"].ClientHelloInfo
	hello.ServerName = "server.test"
	for name, pairs := range map[string][]tls.Certificate{"one": {ec}, "two": {rsa, ec}} {
		b.Run(name, func(b *testing.B) {
			c := newChoice(pairs, time.Now)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.get(&hello)
			}
		})
	}
}
