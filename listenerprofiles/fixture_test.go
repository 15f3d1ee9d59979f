package listenerprofiles

import (
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
)

// A party is a certificate and its key.
type party struct {
	*testpki.Identity
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate that by signs, or that is self-signed if by is nil. It suits servers and clients, and with isCA
// as a change it is a CA's.
func issue(t testing.TB, cn string, by *party, change ...func(*x509.Certificate)) *party {
	t.Helper()
	return issueFor(t, cn, nil, by, change...)
}

// issueFor is issue for a given key; nil means a new one.
func issueFor(t testing.TB, cn string, key crypto.Signer, by *party, change ...func(*x509.Certificate)) *party {
	t.Helper()
	leaf := testpki.Leaf{
		CommonName: cn,
		Key:        key,
		Usages:     testpki.NoUsages,
		DNSNames:   []string{"server.test"},
		IPs:        []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		Change: func(c *x509.Certificate) {
			for _, f := range change {
				f(c)
			}
		},
	}
	var made *testpki.Identity
	if by == nil {
		made = testpki.SelfSigned(t, leaf)
	} else {
		made = by.Issue(leaf)
	}
	return &party{made, made.Cert, made.Key}
}

func isCA(c *x509.Certificate) {
	c.IsCA = true
	c.KeyUsage = x509.KeyUsageCertSign
}

func newRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	return testpki.NewRSA(t, 2048)
}

// pem returns a key store of type PEM.
func (p *party) pem(t testing.TB) []byte {
	t.Helper()
	return p.PEM()
}

// certPEM returns a trust store of type PEM.
func certPEM(parties ...*party) []byte {
	var certs []*x509.Certificate
	for _, p := range parties {
		certs = append(certs, p.cert)
	}
	return testpki.PEM(certs...)
}

func (p *party) tls() tls.Certificate { return p.TLS() }

// A fixture is a folder with a CA, server keys and trust stores, all PEM.
type fixture struct {
	dir            string
	ca, other      *party // other is trusted by other.pem only
	client         *party // under ca
	server, second *party
	revoked        *revocation.Registry
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), revoked: revocation.New(revocation.Options{}), ca: issue(t, "CA", nil, isCA), other: issue(t, "Other", nil, isCA)}
	f.client = issue(t, "client", f.ca)
	f.server = issue(t, "server", f.ca)
	f.second = issue(t, "second", f.ca)
	f.write(t, "server.pem", f.server.pem(t))
	f.write(t, "second.pem", f.second.pem(t))
	f.write(t, "trust.pem", certPEM(f.ca))
	f.write(t, "other.pem", certPEM(f.other))
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// xml writes listenerprofiles.xml; each profile is "address [name=N] [verify=V] [key=K] [trust=T] [extra elements]".
func (f *fixture) xml(t testing.TB, profiles ...string) {
	t.Helper()
	f.write(t, "listenerprofiles.xml", []byte(profilesXML(profiles...)))
}

func profilesXML(profiles ...string) string {
	var b strings.Builder
	b.WriteString("<parameter name=\"SSLProfiles\">\n")
	for _, p := range profiles {
		words := strings.Fields(p)
		has := map[string]string{"key": "server.pem", "trust": "trust.pem"}
		extra := ""
		for _, w := range words[1:] {
			if name, value, ok := strings.Cut(w, "="); ok {
				has[name] = value
			} else {
				extra += w
			}
		}
		fmt.Fprintf(&b, "<profile><bindAddress>%s</bindAddress>", words[0])
		if has["name"] != "" {
			fmt.Fprintf(&b, "<ServerName>%s</ServerName>", has["name"])
		}
		fmt.Fprintf(&b, "<KeyStore><Location>%s</Location><Type>PEM</Type></KeyStore>", has["key"])
		if has["trust"] != "-" {
			fmt.Fprintf(&b, "<TrustStore><Location>%s</Location><Type>PEM</Type></TrustStore>", has["trust"])
		}
		if has["verify"] != "" {
			fmt.Fprintf(&b, "<SSLVerifyClient>%s</SSLVerifyClient>", has["verify"])
		}
		b.WriteString(extra + "</profile>\n")
	}
	b.WriteString("</parameter>\n")
	return b.String()
}

func (f *fixture) config() Options {
	return Options{
		Listener: "https",
		Own: Settings{
			KeyStore:   keystore.Ref{Location: f.path("server.pem"), Type: "PEM"},
			TrustStore: keystore.Ref{Location: f.path("trust.pem"), Type: "PEM"},
		},
		FilePath: f.path("listenerprofiles.xml"),
		Checker:  f.checker,
	}
}

// checker looks nothing up that a policy names: the same for each policy.
func (f *fixture) checker(revocation.Policy) (*revocation.Checker, error) {
	return f.revoked.Checker(revocation.Policy{OCSP: true})
}

func (f *fixture) load(t testing.TB, profiles ...string) *Set {
	t.Helper()
	f.xml(t, profiles...)
	set, err := Load(f.config(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return set
}
