package gateway_test

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"net"
	"sync"
	"time"

	"sallyport/internal/testpki"
)

// A party is a certificate, its key, and the certificates that it sends with it.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
	also []*party

	identity *testpki.Identity // of one that issues, or is kept in a store
}

// issue makes a certificate of cn, under by, or self-signed.
func issue(cn string, by *party, change ...func(*x509.Certificate)) *party {
	return issueFor(nil, cn, by, change...)
}

// issueFor is issue for a key, or for a new one if it is nil.
func issueFor(key crypto.Signer, cn string, by *party, change ...func(*x509.Certificate)) *party {
	leaf := testpki.Leaf{CommonName: cn, Key: key, Usages: testpki.NoUsages, Change: func(c *x509.Certificate) {
		for _, f := range change {
			f(c)
		}
	}}
	var i *testpki.Identity
	if by == nil {
		i = testpki.SelfSigned(testpki.Panic, leaf)
	} else {
		i = by.identity.Issue(leaf)
	}
	p := &party{cert: i.Cert, key: i.Key, identity: i}
	if by != nil && by.cert.Subject.String() != by.cert.Issuer.String() {
		p.also = []*party{by}
	}
	return p
}

func isCA(c *x509.Certificate) {
	c.IsCA = true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature // so that it may call, too
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

func certPEM(parties ...*party) []byte { return testpki.PEM(certificates(parties)...) }

func certificates(parties []*party) (list []*x509.Certificate) {
	for _, p := range parties {
		list = append(list, p.cert)
	}
	return list
}

func keyPEM(p *party) []byte { return append(certPEM(p), p.identity.KeyPEM()...) }

const storePassword = "store-canary-7f1e"

// keyJKS is a Java key store with the party's key.
func keyJKS(p *party) []byte { return p.identity.JKS(storePassword) }

// trustJKS is a Java trust store of those parties.
func trustJKS(parties ...*party) []byte {
	return testpki.TrustJKS(testpki.Panic, storePassword, certificates(parties)...)
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
