// Package testpki makes certificates, keys and stores for tests.
//
//	ca := testpki.NewCA(t, "CA-A")
//	client := ca.Issue(testpki.Leaf{CommonName: "client"})
//	gateway := ca.IssueServer("gateway.test", "127.0.0.1")
//	keyStore, trustStore := gateway.JKS("changeit"), testpki.TrustJKS(t, "changeit", ca.Cert)
package testpki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync/atomic"
	"time"
)

// A T is what this package needs of a testing.TB: what cannot be made fails the test.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Panic is the T of examples and package variables, which have no test to fail.
var Panic T = panics{}

type panics struct{}

func (panics) Helper() {}

func (panics) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// A Leaf describes a certificate. Its zero value is a client certificate with a new P-256 key that is valid today and in
// synctest's bubbles, whose clocks begin in 2000.
type Leaf struct {
	CommonName string
	Key        crypto.Signer // nil: a new P-256 key

	NotBefore time.Time // zero: 1999
	NotAfter  time.Time // zero: 2200

	Usages   []x509.ExtKeyUsage // nil: client authentication; NoUsages: no such extension
	DNSNames []string
	IPs      []net.IP

	Change func(*x509.Certificate) // has the last word on the template; nil: nothing to change
}

// NoUsages are the usages of a certificate without that extension, which suits clients and servers.
var NoUsages = []x509.ExtKeyUsage{}

// ServerOnly are the usages of a certificate that no client may show.
var ServerOnly = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}

// An Identity is a certificate and its key. Any Identity issues, those too that no verifier lets issue.
type Identity struct {
	Cert *x509.Certificate
	Key  crypto.Signer

	t      T
	issuer *Identity // nil: the certificate is self-signed, or was loaded
}

// NewCA makes a root. Each change is made to the template of its certificate.
func NewCA(t T, commonName string, change ...func(*x509.Certificate)) *Identity {
	t.Helper()
	return SelfSigned(t, authority(commonName, change))
}

// IssueCA makes an intermediate. Each change is made to the template of its certificate.
func (i *Identity) IssueCA(commonName string, change ...func(*x509.Certificate)) *Identity {
	i.t.Helper()
	return i.Issue(authority(commonName, change))
}

func authority(commonName string, change []func(*x509.Certificate)) Leaf {
	return Leaf{CommonName: commonName, Usages: NoUsages, Change: func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		for _, f := range change {
			f(c)
		}
	}}
}

// SelfSigned makes a certificate that its own key signs.
func SelfSigned(t T, leaf Leaf) *Identity {
	t.Helper()
	return create(t, leaf, nil)
}

// Issue makes a certificate that i signs.
func (i *Identity) Issue(leaf Leaf) *Identity {
	i.t.Helper()
	return create(i.t, leaf, i)
}

// IssueServer makes a server certificate for DNS names and IP addresses. The first one is its common name, too.
func (i *Identity) IssueServer(names ...string) *Identity {
	i.t.Helper()
	leaf := Leaf{CommonName: names[0], Usages: ServerOnly}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPs = append(leaf.IPs, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	return i.Issue(leaf)
}

// IssueDER is Issue for certificates that crypto/x509 signs and does not read. The key that it makes, if leaf has none,
// is lost.
func (i *Identity) IssueDER(leaf Leaf) []byte {
	i.t.Helper()
	der, _ := encode(i.t, leaf, i)
	return der
}

// NegativeSerial is the certificate once more, with a negative serial number and a good signature. Java reads it,
// crypto/x509 does not. The issuer's key is an ECDSA key.
func (i *Identity) NegativeSerial() []byte {
	i.t.Helper()
	signer := i.Key
	if i.issuer != nil {
		signer = i.issuer.Key
	}
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(i.Cert.Raw, &outer); err != nil {
		i.t.Fatalf("take the certificate of %s apart: %v", i.Cert.Subject, err)
	}
	serial, err := asn1.Marshal(i.Cert.SerialNumber)
	if err != nil {
		i.t.Fatalf("encode the serial number of %s: %v", i.Cert.Subject, err)
	}
	tbs := bytes.Clone(outer.TBS.FullBytes)
	version := []byte{0xa0, 3, 2, 1, 2} // which stands before the serial number
	tbs[bytes.Index(tbs, append(version, serial...))+len(version)+2] |= 0x80
	digest := sha256.Sum256(tbs)
	signature, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		i.t.Fatalf("sign the certificate of %s anew: %v", i.Cert.Subject, err)
	}
	outer.TBS = asn1.RawValue{FullBytes: tbs}
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(outer)
	if err != nil {
		i.t.Fatalf("encode the certificate of %s anew: %v", i.Cert.Subject, err)
	}
	return der
}

// Load reads a certificate and its key, a PEM block each.
func Load(t T, certPEM, keyPEM []byte) *Identity {
	t.Helper()
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatalf("load a certificate: %v", err)
	}
	return &Identity{Cert: pair.Leaf, Key: pair.PrivateKey.(crypto.Signer), t: t}
}

func create(t T, leaf Leaf, issuer *Identity) *Identity {
	t.Helper()
	der, key := encode(t, leaf, issuer)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("read the certificate of %q back: %v", leaf.CommonName, err)
	}
	return &Identity{Cert: cert, Key: key, t: t, issuer: issuer}
}

// encode signs a certificate of leaf by issuer, or by its own key if issuer is nil.
func encode(t T, leaf Leaf, issuer *Identity) (der []byte, key crypto.Signer) {
	t.Helper()
	if key = leaf.Key; key == nil {
		key = NewKey(t)
	}
	template := leaf.template()
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.Cert, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatalf("sign the certificate of %q: %v", leaf.CommonName, err)
	}
	return der, key
}

var serials atomic.Int64

func (l Leaf) template() *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serials.Add(1)),
		Subject:               pkix.Name{CommonName: l.CommonName},
		NotBefore:             l.NotBefore,
		NotAfter:              l.NotAfter,
		ExtKeyUsage:           l.Usages,
		DNSNames:              l.DNSNames,
		IPAddresses:           l.IPs,
		BasicConstraintsValid: true,
	}
	if l.NotBefore.IsZero() {
		template.NotBefore = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if l.NotAfter.IsZero() {
		template.NotAfter = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if l.Usages == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	if l.Change != nil {
		l.Change(template)
	}
	return template
}

// Chain is the certificate and the intermediates above it, as they are sent in a handshake: without the root.
func (i *Identity) Chain() []*x509.Certificate {
	chain := []*x509.Certificate{i.Cert}
	for above := i.issuer; above != nil && above.issuer != nil; above = above.issuer {
		chain = append(chain, above.Cert)
	}
	return chain
}

// TLS is the chain and the key for a tls.Config.
func (i *Identity) TLS() tls.Certificate {
	certificate := tls.Certificate{PrivateKey: i.Key, Leaf: i.Cert}
	for _, c := range i.Chain() {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	return certificate
}

// CertPEM is the certificate alone.
func (i *Identity) CertPEM() []byte { return PEM(i.Cert) }

// KeyPEM is the key alone, in the form of PKCS #8.
func (i *Identity) KeyPEM() []byte {
	i.t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: i.pkcs8()})
}

func (i *Identity) pkcs8() []byte {
	i.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		i.t.Fatalf("encode the key of %s: %v", i.Cert.Subject, err)
	}
	return der
}
