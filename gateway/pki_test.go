package gateway_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"time"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
)

// A party is a certificate, its key, and what it sends along.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
	also []*party
}

var serials atomic.Int64

// issue makes a certificate of cn, under by, or self-signed.
func issue(cn string, by *party, change ...func(*x509.Certificate)) *party {
	return issueFor(newKey(), cn, by, change...)
}

func newKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func issueFor(key crypto.Signer, cn string, by *party, change ...func(*x509.Certificate)) *party {
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serials.Add(1)),
		Subject:               pkix.Name{CommonName: cn},
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
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	p := &party{cert: cert, key: key}
	if by != nil && by.cert.Subject.String() != by.cert.Issuer.String() {
		p.also = []*party{by}
	}
	return p
}

func isCA(c *x509.Certificate) {
	c.IsCA = true
	c.KeyUsage = x509.KeyUsageCertSign
}

func serial(n *big.Int) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.SerialNumber = n }
}

func usage(list ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = list }
}

func validity(from, until time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, until }
}

func server(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.DNSNames = names
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)}
	}
}

func (p *party) tls() *tls.Certificate {
	c := &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
	for _, other := range p.also {
		c.Certificate = append(c.Certificate, other.cert.Raw)
	}
	return c
}

// hash is the fingerprint as backends see it.
func (p *party) hash() string {
	sum := sha256.Sum256(p.cert.Raw)
	return hex.EncodeToString(sum[:])
}

func certPEM(parties ...*party) []byte {
	var b bytes.Buffer
	for _, p := range parties {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}) // a Buffer takes all
	}
	return b.Bytes()
}

func keyPEM(p *party) []byte {
	return append(certPEM(p), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER(p)})...)
}

func keyDER(p *party) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		panic(err)
	}
	return der
}

const storePassword = "store-canary-7f1e"

// keyJKS is a Java keystore with the party's key.
func keyJKS(p *party) []byte {
	s := jks.New()
	err := s.SetPrivateKeyEntry("gateway", jks.PrivateKeyEntry{
		CreationTime: time.Unix(1e9, 0), PrivateKey: keyDER(p),
		CertificateChain: []jks.Certificate{{Type: "X.509", Content: p.cert.Raw}},
	}, []byte(storePassword))
	return storeJKS(s, err)
}

// trustJKS is a Java truststore of those parties.
func trustJKS(parties ...*party) []byte {
	s := jks.New()
	for i, p := range parties {
		err := s.SetTrustedCertificateEntry(string('a'+rune(i)), jks.TrustedCertificateEntry{
			CreationTime: time.Unix(1e9, 0), Certificate: jks.Certificate{Type: "X.509", Content: p.cert.Raw},
		})
		if err != nil {
			panic(err)
		}
	}
	return storeJKS(s, nil)
}

func storeJKS(s jks.KeyStore, err error) []byte {
	var b bytes.Buffer
	if err == nil {
		err = s.Store(&b, []byte(storePassword))
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// A world is the certificates that all tests share.
type world struct {
	serverCA, server   *party
	caA, interA        *party // A: a root and what issues under it
	caB                *party
	caA2               *party // another key under A's name
	a1, a2, a3, a4, s1 *party
}

// theSystemRoot is trusted by the system, and by no trust store.
var theSystemRoot = sync.OnceValue(func() *party { return issue("System Root", nil, isCA) })

var theWorld = sync.OnceValue(func() *world {
	w := &world{serverCA: issue("Server CA", nil, isCA), caA: issue("CA A", nil, isCA), caB: issue("CA B", nil, isCA)}
	w.server = issue("gateway", w.serverCA, server("open.test", "opt.test", "mtls.test", "*.wild.test"))
	w.interA = issue("Issuer A", w.caA, isCA)
	w.caA2 = issue("CA A", nil, isCA)
	client := usage(x509.ExtKeyUsageClientAuth)
	w.a1 = issue("a1", w.interA, client) // registered on pay and both, 10 a minute
	w.a2 = issue("a2", w.interA, client) // valid, registered nowhere
	w.a3 = issue("a3", w.interA, client) // registered on both only, 100 a minute
	w.a4 = issue("a4", w.interA, client) // registered on pay and both, without limit
	w.s1 = issue("s1", w.interA, client) // SANDBOX on pay and box
	return w
})
