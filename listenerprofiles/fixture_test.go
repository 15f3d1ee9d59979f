package listenerprofiles

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/listenerprofiles/keystore"
)

// A party is a certificate and its key.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serial atomic.Int64

// issue makes a certificate of cn, under by, or self-signed. A CA may sign; others are good for server and client.
func issue(t testing.TB, cn string, by *party, change ...func(*x509.Certificate)) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, cn, key, by, change...)
}

func issueFor(t testing.TB, cn string, key crypto.Signer, by *party, change ...func(*x509.Certificate)) *party {
	t.Helper()
	// Far around both the real clock and synctest's, which begins in 2000.
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serial.Add(1)),
		Subject:               pkix.Name{CommonName: cn},
		DNSNames:              []string{"server.test"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &party{cert, key}
}

func isCA(c *x509.Certificate) {
	c.IsCA = true
	c.KeyUsage = x509.KeyUsageCertSign
}

func newRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// pem is a key store of type PEM.
func (p *party) pem(t testing.TB) []byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return append(certPEM(p), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
}

// certPEM is a trust store of type PEM.
func certPEM(parties ...*party) []byte {
	var b bytes.Buffer
	for _, p := range parties {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
	}
	return b.Bytes()
}

func (p *party) tls() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
}

// A fixture is a folder with a CA, server keys and trust stores, all PEM.
type fixture struct {
	dir            string
	ca, other      *party // other is trusted by other.pem only
	client         *party // under ca
	server, second *party
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), ca: issue(t, "CA", nil, isCA), other: issue(t, "Other", nil, isCA)}
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

func (f *fixture) config() Config {
	return Config{
		Listener: "https",
		Own: Settings{
			KeyStore:   keystore.Ref{Location: f.path("server.pem"), Type: "PEM"},
			TrustStore: keystore.Ref{Location: f.path("trust.pem"), Type: "PEM"},
		},
		FilePath: f.path("listenerprofiles.xml"),
	}
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
