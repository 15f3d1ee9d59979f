package backend_test

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/backend"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// A secured is a backend over TLS that counts what it gets, and the gateway's way to it.
type secured struct {
	registry backend.Registry
	group    *backend.Group
	calls    atomic.Int64
	conns    atomic.Int64
	denied   atomic.Pointer[trust.Denials]
}

// secure starts a backend that shows a certificate, and is asked for by a host's name.
func secure(t *testing.T, host string, shown tls.Certificate, root *x509.Certificate, p backend.Protocol, version uint16) *secured {
	t.Helper()
	s := new(secured)
	s.registry.Denied = s.denied.Load
	at := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.calls.Add(1) }))
	at.Config.ErrorLog = log.New(io.Discard, "", 0)
	at.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	at.EnableHTTP2 = p == backend.HTTP2
	at.TLS = &tls.Config{Certificates: []tls.Certificate{shown}, MinVersion: version, MaxVersion: version}
	at.StartTLS()
	t.Cleanup(at.Close)
	t.Cleanup(s.registry.Close)
	_, port, err := net.SplitHostPort(at.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	u := &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	s.group = s.registry.Group("api", backend.Production, backend.Upstream{URLs: []*url.URL{u}, Protocol: p, Roots: roots, Timeout: patience})
	return s
}

// ask makes a call.
func (s *secured) ask() error {
	trip := new(backend.Trip)
	defer trip.Close()
	prepare(trip, s.group, "GET", nil)
	if err := send(trip); err != nil {
		return err
	}
	_, err := rest(trip)
	return err
}

// everyTLS runs a test for each protocol of a backend and each version of TLS.
func everyTLS(t *testing.T, test func(t *testing.T, p backend.Protocol, version uint16)) {
	for name, p := range map[string]backend.Protocol{"HTTP/1.1": backend.HTTP1, "HTTP/2": backend.HTTP2} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) { test(t, p, version) })
		}
	}
}

// TestServersProveThemselves: a backend gets no call unless its certificate is good, and the error has the cause.
func TestServersProveThemselves(t *testing.T) {
	ca, other := testpki.NewCA(t, "backends"), testpki.NewCA(t, "others")
	rsaCA := testpki.SelfSigned(t, testpki.Leaf{
		CommonName: "RSA", Key: testpki.NewRSA(t, 2048), Usages: testpki.NoUsages,
		Change: func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign },
	})
	gone := ca.IssueCA("gone", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	clients := ca.IssueCA("clients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	noCA := ca.IssueServer("127.0.0.1")
	ip := []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf := func(change func(*testpki.Leaf)) testpki.Leaf {
		l := testpki.Leaf{CommonName: "b", Usages: testpki.ServerOnly, IPs: ip}
		change(&l)
		return l
	}
	good := leaf(func(*testpki.Leaf) {})
	named := func(names ...string) testpki.Leaf {
		return leaf(func(l *testpki.Leaf) { l.CommonName, l.IPs, l.DNSNames = "localhost", nil, names })
	}
	cases := []struct {
		name, host string
		shown      *testpki.Identity
		root       *testpki.Identity
		cause      trust.Cause // "": it is good
	}{
		{"good", "127.0.0.1", ca.Issue(good), ca, ""},
		{"good by name", "localhost", ca.Issue(named("LocalHost")), ca, ""},
		{"any usage", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.Usages = testpki.NoUsages })), ca, ""},
		{"by an intermediate", "127.0.0.1", ca.IssueCA("between").Issue(good), ca, ""},
		{"RSA of 2048 bits", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.Key = testpki.NewRSA(t, 2048) })), ca, ""},
		{"P-384", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.Key = testpki.NewEC(t, elliptic.P384()) })), ca, ""},
		{"self-signed and trusted", "127.0.0.1", testpki.SelfSigned(t, good), nil, ""},

		{"expired", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.NotAfter = time.Now().Add(-time.Hour) })), ca, trust.Expired},
		{"not yet valid", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.NotBefore = time.Now().Add(time.Hour) })), ca, trust.NotYetValid},
		{"expired issuer", "127.0.0.1", gone.Issue(good), ca, trust.Expired},
		{"other CA", "127.0.0.1", other.Issue(good), ca, trust.Untrusted},
		{"self-signed", "127.0.0.1", testpki.SelfSigned(t, good), ca, trust.Untrusted},
		{"issuer is no CA", "127.0.0.1", noCA.Issue(good), ca, trust.Untrusted},
		{"other address", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.IPs = []net.IP{net.IPv4(127, 0, 0, 2)} })), ca, trust.Name},
		{"address as a DNS name", "127.0.0.1", ca.Issue(named("127.0.0.1")), ca, trust.Name},
		{"address in the CN only", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.CommonName, l.IPs = "127.0.0.1", nil })), ca, trust.Name},
		{"other name", "localhost", ca.Issue(named("other.test")), ca, trust.Name},
		{"longer name", "localhost", ca.Issue(named("localhost.evil.test")), ca, trust.Name},
		{"CN only", "localhost", ca.Issue(named()), ca, trust.Name},
		{"wildcard below", "localhost", ca.Issue(named("*.localhost")), ca, trust.Name},
		{"wildcard of everything", "localhost", ca.Issue(named("*")), ca, trust.Name},
		{"clients' usage", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.Usages = nil })), ca, trust.ExtendedKeyUsage},
		{"issuer of clients only", "127.0.0.1", clients.Issue(good), ca, trust.ExtendedKeyUsage},
		{"RSA of 1024 bits", "127.0.0.1", ca.Issue(leaf(func(l *testpki.Leaf) { l.Key = testpki.NewRSA(t, 1024) })), ca, trust.Key},
		{"SHA-1", "127.0.0.1", rsaCA.Issue(leaf(func(l *testpki.Leaf) {
			l.Change = func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }
		})), rsaCA, trust.Chain},
	}
	everyTLS(t, func(t *testing.T, p backend.Protocol, version uint16) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				root := c.shown
				if c.root != nil {
					root = c.root
				}
				s := secure(t, c.host, c.shown.TLS(), root.Cert, p, version)
				err := s.ask()
				if c.cause == "" {
					if err != nil || s.calls.Load() != 1 {
						t.Fatalf("%v, %d calls", err, s.calls.Load())
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("not believed (%s): ", c.cause)) {
					t.Errorf("%v, want the cause %s", err, c.cause)
				}
				if n := s.calls.Load(); n != 0 {
					t.Errorf("the backend got %d calls", n)
				}
				if s.conns.Load() == 0 {
					t.Error("nobody has asked the backend for its certificate")
				}
				for _, f := range s.registry.Figures() {
					if f.Failures[backend.HandshakeFault] != 1 {
						t.Errorf("failures %v, want one handshake", f.Failures)
					}
				}
			})
		}
	})
}

// TestDeniedServers: a deny list ends new connections and kept ones, with the next call; off it, the server is good again.
func TestDeniedServers(t *testing.T) {
	ca := testpki.NewCA(t, "backends")
	between := ca.IssueCA("between")
	shown, stranger := between.IssueServer("127.0.0.1"), between.IssueServer("127.0.0.1")
	denials := map[string]trust.Denial{
		"fingerprint":        {Fingerprint: sha256.Sum256(shown.Cert.Raw)},
		"issuer and serial":  {Issuer: shown.Cert.RawIssuer, Serial: shown.Cert.SerialNumber.Bytes()},
		"key":                {Key: sha256.Sum256(shown.Cert.RawSubjectPublicKeyInfo)},
		"issuer":             {Fingerprint: sha256.Sum256(between.Cert.Raw)},
		"key of its root CA": {Key: sha256.Sum256(ca.Cert.RawSubjectPublicKeyInfo)},
	}
	everyTLS(t, func(t *testing.T, p backend.Protocol, version uint16) {
		for by, denial := range denials {
			t.Run(by, func(t *testing.T) {
				s := secure(t, "127.0.0.1", shown.TLS(), ca.Cert, p, version)
				asked := int64(0)
				good := func() {
					t.Helper()
					asked++
					if err := s.ask(); err != nil || s.calls.Load() != asked {
						t.Fatalf("%v, %d calls of %d", err, s.calls.Load(), asked)
					}
				}
				good()
				s.denied.Store(trust.NewDenials([]trust.Denial{{Fingerprint: sha256.Sum256(stranger.Cert.Raw)}}))
				good()
				if n := s.conns.Load(); n != 1 {
					t.Errorf("%d connections: another's denial has ended one", n)
				}
				s.denied.Store(trust.NewDenials([]trust.Denial{denial}))
				for range 3 { // on the kept connection, then on new ones
					if err := s.ask(); err == nil || !strings.Contains(err.Error(), "not believed (denied): ") {
						t.Errorf("%v, want a denial", err)
					}
				}
				if n := s.calls.Load(); n != asked {
					t.Errorf("a denied backend got %d calls", n-asked)
				}
				s.denied.Store(nil)
				good()
			})
		}
	})
}
