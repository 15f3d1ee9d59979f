package gateway_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/observe"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/revocation"
)

// TestHandshakeReasons: each kind of handshake that fails has its word, in sallyport_handshakes_refused_total and in
// the log. It also holds the words to the texts of crypto/tls, and docs/operating.md to the words.
func TestHandshakeReasons(t *testing.T) {
	metrics := observe.NewMetrics("test")
	f := newFixture(t, func(f *fixture, s *setup) {
		s.config.Handshakes = metrics.HandshakeRefused
	})
	now := f.clock.Now()
	r := newRevoker()
	r.serve(t, f, byLists)
	f.setProfiles(t, f.profiles(t, nil, append(slices.Clone(allProfiles), "issued.test require ACME")...))
	shake := func(change func(*tls.Config)) func(net.Conn) {
		return func(c net.Conn) {
			cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "mtls.test", Certificates: []tls.Certificate{*f.a1.tls()}}
			change(cfg)
			conn := tls.Client(c, cfg)
			if conn.Handshake() == nil {
				_, _ = conn.Read(make([]byte, 1)) // under TLS 1.3 the refusal comes later
			}
		}
	}
	give := func(one tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &one, nil }
	}
	shows := func(p *party) func(net.Conn) {
		return shake(func(c *tls.Config) { c.GetClientCertificate = give(*p.tls()) })
	}
	revoked := issue("revoked", r.inter)
	r.list(f.dir, revoked)
	checker, err := f.registry.Checker(f.policy)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the list is read", func() bool {
		path := []*x509.Certificate{revoked.cert, r.inter.cert, r.root.cert}
		return checker.Status(path, f.clock.Now()).Status == revocation.Revoked
	})
	denied := issue("denied", f.caA)
	f.setDenied(t, fingerprintOf(denied))
	unreadable := *f.a1.tls()
	unreadable.Certificate = [][]byte{[]byte("no certificate")}
	unreadable.Leaf = nil
	foreign := *f.a1.tls()
	foreign.PrivateKey = testpki.NewEC(t, elliptic.P256())
	// offers has the client offer one code alone in an extension, in the place of each that it knows.
	offers := func(extension, code uint16) func(net.Conn) {
		return func(c net.Conn) {
			shake(func(*tls.Config) {})(&helloConn{c, func(c net.Conn, hello []byte) error {
				fillExtension(t, hello, extension, code)
				_, err := c.Write(hello)
				return err
			}})
		}
	}
	reasons := map[string]func(net.Conn){
		"no_certificate":            shake(func(c *tls.Config) { c.Certificates = nil }),
		"certificate_unparseable":   shake(func(c *tls.Config) { c.GetClientCertificate = give(unreadable) }),
		"certificate_signature":     shake(func(c *tls.Config) { c.GetClientCertificate = give(foreign) }),
		"certificate_expired":       shows(issue("late", f.caA, validity(now.Add(-48*time.Hour), now.Add(-24*time.Hour)))),
		"certificate_not_yet_valid": shows(issue("early", f.caA, validity(now.Add(24*time.Hour), now.Add(48*time.Hour)))),
		"certificate_untrusted":     shows(issue("stranger", issue("another CA", nil, isCA))),
		"certificate_issuer_expired": shows(issue("orphan",
			issue("former CA", f.caA, isCA, validity(now.Add(-48*time.Hour), now.Add(-24*time.Hour))))),
		"certificate_chain": shows(issue("b.test",
			issue("CA of a.test", f.caA, isCA, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"a.test"} }),
			server("b.test"))),
		"certificate_extended_key_usage": shows(issue("a server", f.caA, usage(x509.ExtKeyUsageServerAuth))),
		"certificate_key_usage": shows(issue("no signer", f.caA, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyAgreement
		})),
		"certificate_denied":  shows(denied),
		"certificate_revoked": shows(revoked),
		"certificate_critical_extension": shows(issue("odd", f.caA, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		})),
		"certificate_key": shake(func(c *tls.Config) { c.GetClientCertificate = give(keyAgreement(t, f.caA)) }),
		"certificate_too_large": shake(func(c *tls.Config) {
			long := *f.a1.tls()
			for range 40 {
				long.Certificate = append(long.Certificate, f.caA.cert.Raw)
			}
			c.GetClientCertificate = give(long)
		}),
		"no_server_certificate": shake(func(c *tls.Config) { c.ServerName = "issued.test" }),
		"protocol_version":      shake(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }),
		"no_shared_cipher": shake(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}),
		"no_shared_group":                offers(10, 0x0100), // ffdhe2048
		"no_shared_signature":            offers(13, 0x0807), // Ed25519
		"no_shared_application_protocol": shake(func(c *tls.Config) { c.NextProtos = []string{"smtp"} }),
		"refused_by_client":              shake(func(c *tls.Config) { c.InsecureSkipVerify, c.RootCAs = false, x509.NewCertPool() }),
		"not_tls":                        func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-OpenSSH_9.9\r\n"); _, _ = io.Copy(io.Discard, c) },
		"malformed": func(c net.Conn) {
			_, _ = c.Write([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0}) // a ClientHello of no bytes
			_, _ = io.Copy(io.Discard, c)
		},
		"gone": func(net.Conn) {},
	}
	order := slices.Sorted(maps.Keys(reasons))
	for _, reason := range order {
		t.Run(reason, func(t *testing.T) {
			want := refusedHandshakes(t, metrics)
			want[reason]++
			c, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			reasons[reason](c)
			c.Close()
			counted := func() bool { return maps.Equal(refusedHandshakes(t, metrics), want) }
			eventually(t, "the handshake is counted as "+reason+" and as nothing else", counted)
		})
	}
	if !strings.Contains(f.log.String(), `"reason":"`+order[0]+`"`) { // of the others there may be too many
		t.Error("the log has no reason")
	}
	known := append(order, "stopping", "timeout") // TestHandshakesWhenStopping, TestLateHandshakes
	slices.Sort(known)
	if words := reasonsOfCode(t); !slices.Equal(words, known) {
		t.Errorf("the code has the words\n%q, and made to happen are\n%q", words, known)
	}
	if words := reasonsOfDocs(t); !slices.Equal(words, known) {
		t.Errorf("docs/operating.md has the words\n%q, and the code\n%q", words, known)
	}
}

// TestHandshakesWhenStopping: the handshakes that a stop ends have a word of their own.
func TestHandshakesWhenStopping(t *testing.T) {
	metrics := observe.NewMetrics("test")
	f := newFixture(t, func(f *fixture, s *setup) { s.config.Handshakes = metrics.HandshakeRefused })
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "the handshake is under way", func() bool { n, _ := f.gateway.Handshakes(); return n == 1 })
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if got := refusedHandshakes(t, metrics); !maps.Equal(got, map[string]int{"stopping": 1}) {
		t.Errorf("counted are %v", got)
	}
}

// TestLateHandshakes: the handshake of a client that says nothing has a word of its own.
func TestLateHandshakes(t *testing.T) {
	metrics := observe.NewMetrics("test")
	f := newFixture(t, func(f *fixture, s *setup) {
		s.config.Limits.HeaderTimeout = 100 * time.Millisecond
		s.config.Handshakes = metrics.HandshakeRefused
	})
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.Copy(io.Discard, c)
	eventually(t, "the handshake is counted", func() bool {
		return maps.Equal(refusedHandshakes(t, metrics), map[string]int{"timeout": 1})
	})
}

// refusedHandshakes is sallyport_handshakes_refused_total by reason.
func refusedHandshakes(t *testing.T, m *observe.Metrics) map[string]int {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	counts := map[string]int{}
	series := regexp.MustCompile(`(?m)^sallyport_handshakes_refused_total\{reason="(.*)"\} (\d+)$`)
	for _, found := range series.FindAllStringSubmatch(w.Body.String(), -1) {
		n, err := strconv.Atoi(found[2])
		if err != nil {
			t.Fatal(err)
		}
		counts[found[1]] = n
	}
	return counts
}

// keyAgreement is a certificate by an issuer for an X25519 key, which can't sign (RFC 8410), together with a key that
// can. The key is looked at before the issuer's signature, which is not good.
func keyAgreement(t *testing.T, by *party) tls.Certificate {
	t.Helper()
	signing, agreeing := []byte{6, 3, 0x2b, 0x65, 0x70}, []byte{6, 3, 0x2b, 0x65, 0x6e}
	der := issueFor(testpki.NewEd25519(t), "X25519", by).cert.Raw
	if n := bytes.Count(der, signing); n != 1 {
		t.Fatalf("Ed25519 is named %d times", n)
	}
	return tls.Certificate{Certificate: [][]byte{bytes.Replace(der, signing, agreeing, 1)}, PrivateKey: testpki.NewKey(t)}
}

// fillExtension puts code in the place of every code in the list of an extension of a ClientHello (RFC 8446 section
// 4.1.2), which comes in one record.
func fillExtension(t *testing.T, hello []byte, extension, code uint16) {
	t.Helper()
	rest := hello[5+4+2+32:]                           // behind record, message, version and random
	rest = rest[1+int(rest[0]):]                       // behind the session
	rest = rest[2+int(binary.BigEndian.Uint16(rest)):] // behind the cipher suites
	rest = rest[1+int(rest[0]):]                       // behind the compressions
	for rest = rest[2:]; len(rest) >= 4; {
		kind, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if kind == extension {
			for list := rest[4+2 : 4+size]; len(list) > 0; list = list[2:] {
				binary.BigEndian.PutUint16(list, code)
			}
			return
		}
		rest = rest[4+size:]
	}
	t.Errorf("the ClientHello has no extension %d", extension)
}

// reasonsOfCode are the words of handshake.go, sorted; those for certificates that trust judges are trust's Causes.
func reasonsOfCode(t *testing.T) (words []string) {
	t.Helper()
	find := func(file, pattern, prefix string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			words = append(words, prefix+found[1])
		}
	}
	find("handshake.go", `return "([a-z_]+[a-z])"`, "")
	find("handshake.go", `", "([a-z_]+)"\}`, "")
	find("../listenerprofiles/trust/judge.go", `Cause = "([a-z_]+)"`, "certificate_")
	// Of a header's certificate. crypto/tls ends the handshake of one: certificate_unparseable. And of one that ends no
	// handshake: its calls wait for its status. A name is a backend's.
	words = slices.DeleteFunc(words, func(w string) bool {
		return w == "certificate_malformed" || w == "certificate_unexamined" || w == "certificate_status_unknown" || w == "certificate_name"
	})
	slices.Sort(words)
	return slices.Compact(words)
}

// reasonsOfDocs are the words of the paragraph in docs/operating.md, sorted.
func reasonsOfDocs(t *testing.T) (words []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, paragraph, found := strings.Cut(string(text), "\nReasons of handshakes: ")
	paragraph, _, ends := strings.Cut(paragraph, ". ")
	if !found || !ends {
		t.Fatal("docs/operating.md has no paragraph on the reasons of handshakes")
	}
	paragraph = regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(paragraph, "")
	for part := range strings.SplitSeq(paragraph, ";") {
		prefix, list, several := strings.Cut(part, "` with ")
		if !several {
			prefix, list = "`", part
		}
		for _, word := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
			words = append(words, strings.TrimLeft(prefix, " `")+word[1])
		}
	}
	slices.Sort(words)
	return words
}
