package gateway_test

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// TestHandshakeReasons: each kind of handshake that fails has its word, in the count and in the log. It also holds the
// words to the texts of crypto/tls.
func TestHandshakeReasons(t *testing.T) {
	var mu sync.Mutex
	counts := map[string]int{}
	f := newFixture(t, func(f *fixture, s *setup) {
		s.config.Limits.HeaderTimeout = time.Second
		s.config.Handshakes = func(why string) {
			mu.Lock()
			defer mu.Unlock()
			counts[why]++
		}
	})
	count := func(reason string) int {
		mu.Lock()
		defer mu.Unlock()
		return counts[reason]
	}
	now := f.clock.Now()
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
	unreadable := *f.a1.tls()
	unreadable.Certificate = [][]byte{[]byte("no certificate")}
	unreadable.Leaf = nil
	foreign := *f.a1.tls()
	foreign.PrivateKey = testpki.NewEC(t, elliptic.P256())
	for reason, come := range map[string]func(net.Conn){
		"no_certificate":            shake(func(c *tls.Config) { c.Certificates = nil }),
		"certificate_unparseable":   shake(func(c *tls.Config) { c.GetClientCertificate = give(unreadable) }),
		"certificate_signature":     shake(func(c *tls.Config) { c.GetClientCertificate = give(foreign) }),
		"certificate_expired":       shows(issue("late", f.caA, validity(now.Add(-48*time.Hour), now.Add(-24*time.Hour)))),
		"certificate_not_yet_valid": shows(issue("early", f.caA, validity(now.Add(24*time.Hour), now.Add(48*time.Hour)))),
		"certificate_untrusted":     shows(issue("stranger", issue("another CA", nil, isCA))),
		"certificate_too_large": shake(func(c *tls.Config) {
			long := *f.a1.tls()
			for range 40 {
				long.Certificate = append(long.Certificate, f.caA.cert.Raw)
			}
			c.GetClientCertificate = give(long)
		}),
		"protocol_version": shake(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }),
		"no_shared_cipher": shake(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}),
		"no_shared_application_protocol": shake(func(c *tls.Config) { c.NextProtos = []string{"smtp"} }),
		"refused_by_client":              shake(func(c *tls.Config) { c.InsecureSkipVerify, c.RootCAs = false, x509.NewCertPool() }),
		"not_tls":                        func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-OpenSSH_9.9\r\n"); _, _ = io.Copy(io.Discard, c) },
		"timeout":                        func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"gone":                           func(net.Conn) {},
	} {
		t.Run(reason, func(t *testing.T) {
			c, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			come(c)
			c.Close()
			eventually(t, "the handshake is counted as "+reason, func() bool { return count(reason) > 0 })
		})
	}
	if !strings.Contains(f.log.String(), `"reason":"certificate_untrusted"`) {
		t.Error("the log has no reason")
	}
}
