package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
)

const pemBegin = "-----BEGIN "

// maxPEMKeys bounds the keys of a PEM, each of which is checked when the file is opened.
const maxPEMKeys = 1000

// openPEM reads certificates and private keys. Without a key all certificates are trusted. With keys, each certificate
// of one is the leaf of an entry, and the others are above leafs. Text between the blocks is skipped; an unreadable
// block is an error.
func openPEM(data []byte) (*Store, error) {
	f, err := readPEM(data)
	if err != nil {
		return nil, err
	}
	if len(f.keys) > 0 {
		return f.pairs()
	}
	s := &Store{}
	for _, cert := range f.certs {
		s.entries = append(s.entries, newEntry("", TrustedCertificate, cert.certificate))
	}
	return s, nil
}

// A pemFile is the blocks of a PEM, in their order.
type pemFile struct {
	certs []*pemCertificate
	keys  []*pemKey
}

type pemCertificate struct {
	certificate
	block int     // from 1
	key   *pemKey // its own; nil: it isn't there
	used  bool    // in a chain
}

type pemKey struct {
	crypto.PrivateKey
	block  int
	public string // as certificate.public
	used   bool   // by a certificate
}

func readPEM(data []byte) (f pemFile, err error) {
	begun := bytes.Count(data, []byte(pemBegin))
	for n := 1; ; n++ {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		begun--
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
			err = f.addCertificate(block, n)
		case "EC PARAMETERS": // openssl ecparam writes it before the key, which repeats it
		case "ENCRYPTED PRIVATE KEY":
			err = unusable("encrypted private keys are not read, write it plain: openssl pkey -in ENCRYPTED -out PLAIN")
		default:
			err = f.addKey(block, n)
		}
		if err != nil {
			return f, fmt.Errorf("PEM block %d: %w", n, err)
		}
	}
	if begun != 0 {
		return f, unusable("PEM: %d blocks are damaged or cut short", begun)
	}
	return f, nil
}

func (f *pemFile) addCertificate(block *pem.Block, n int) error {
	cert, err := readCertificate(block.Bytes)
	if err != nil {
		return err
	}
	if cert.err != nil {
		cert.err = fmt.Errorf("PEM block %d: %w", n, cert.err)
	}
	if len(f.certs) == MaxEntries {
		return unusable("more than %d certificates", MaxEntries)
	}
	f.certs = append(f.certs, &pemCertificate{certificate: cert, block: n})
	return nil
}

func (f *pemFile) addKey(block *pem.Block, n int) error {
	key, err := parsePEMKey(block)
	if err != nil {
		return err
	}
	public := publicKey(key)
	for _, k := range f.keys {
		if k.public == public && public != "" {
			return unusable("the private key of block %d again: keep one of them", k.block)
		}
	}
	if len(f.keys) == maxPEMKeys {
		return unusable("more than %d private keys", maxPEMKeys)
	}
	f.keys = append(f.keys, &pemKey{PrivateKey: key, block: n, public: public})
	return nil
}

// pairs puts keys and certificates together, in the order of the leafs.
func (f *pemFile) pairs() (*Store, error) {
	leafs := f.leafs()
	if len(f.keys) == 1 && len(leafs) == 0 { // what is wrong with it depends on who asks
		return &Store{entries: []entry{newPEMEntry(f.keys[0], f.certs)}}, nil
	}
	if len(leafs) > maxPEMKeys {
		return nil, unusable("PEM: more than %d certificates of the keys", maxPEMKeys)
	}
	subjects := map[string][]*pemCertificate{}
	for _, c := range f.certs {
		name := canonicalName(c.subject)
		subjects[name] = append(subjects[name], c)
	}
	s := &Store{}
	for _, leaf := range leafs {
		s.entries = append(s.entries, newPEMEntry(leaf.key, chainOf(leaf, subjects)))
	}
	return s, f.check(s)
}

// leafs returns the certificates of keys, each once.
func (f *pemFile) leafs() (leafs []*pemCertificate) {
	keys := map[string]*pemKey{}
	for _, k := range f.keys {
		keys[k.public] = k
	}
	seen := map[string]bool{}
	for _, c := range f.certs {
		c.key = keys[c.public]
		if c.key == nil {
			continue
		}
		c.used, c.key.used = true, true
		if !seen[string(c.raw)] {
			seen[string(c.raw)] = true
			leafs = append(leafs, c)
		}
	}
	return leafs
}

// chainOf returns leaf and the certificates above it, each after one that it may have issued.
func chainOf(leaf *pemCertificate, subjects map[string][]*pemCertificate) []*pemCertificate {
	chain := []*pemCertificate{leaf}
	for i := 0; i < len(chain) && !selfSigned(chain[i].certificate); i++ {
		for _, above := range subjects[canonicalName(chain[i].issuer)] {
			if !above.mayIssue(chain[i]) || len(chain) == MaxChain {
				continue
			}
			above.used = true
			if !slices.ContainsFunc(chain, func(c *pemCertificate) bool { return bytes.Equal(c.raw, above.raw) }) {
				chain = append(chain, above)
			}
		}
	}
	return chain
}

// mayIssue reports whether nothing in c, whose subject is below's issuer, speaks against it.
func (c *pemCertificate) mayIssue(below *pemCertificate) bool {
	return c.keyID == nil || below.issuerKey == nil || bytes.Equal(c.keyID, below.issuerKey)
}

// check reports a key without a certificate, and a certificate without a key that is above none. Beside a single leaf
// a CA's certificate is sent along whatever it is for.
func (f *pemFile) check(s *Store) error {
	for _, k := range f.keys {
		if !k.used {
			return unusable("PEM block %d: a private key whose certificate isn't in the file: add its chain, leaf first",
				k.block)
		}
	}
	for _, c := range f.certs {
		switch e := &s.entries[0]; {
		case c.used:
		case len(s.entries) == 1 && (c.parsed == nil || c.parsed.IsCA || c.parsed.Version < 3):
			e.Chain = append(e.Chain, c.raw)
		default:
			return unusable("PEM block %d: a certificate whose private key isn't in the file, and that is in no chain: "+
				"add the key, or take the certificate out", c.block)
		}
	}
	return nil
}

func newPEMEntry(key *pemKey, chain []*pemCertificate) entry {
	certs := make([]certificate, len(chain))
	for i, c := range chain {
		certs[i] = c.certificate
	}
	e := newEntry("", PrivateKey, certs...)
	e.block = key.block
	e.open = func() (crypto.PrivateKey, error) { return key.PrivateKey, nil }
	return e
}

// publicKey returns the public half of a key as certificate.public has it, "" if certificates don't have such keys.
func publicKey(key crypto.PrivateKey) string {
	half, ok := key.(interface{ Public() crypto.PublicKey })
	if !ok {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(half.Public())
	if err != nil {
		return ""
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	_, _ = asn1.Unmarshal(der, &info) // it has just been written
	return string(info.Bits.Bytes)
}

func parsePEMKey(block *pem.Block) (key crypto.PrivateKey, err error) {
	if block.Headers["DEK-Info"] != "" {
		return nil, unusable("encrypted private keys are not read, write it plain: openssl pkey -in ENCRYPTED -out " +
			"PLAIN")
	}
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, unusable("%q is neither a certificate nor a private key", block.Type)
	}
	if err != nil {
		return nil, unusable("%q can't be read", block.Type)
	}
	return key, nil
}
