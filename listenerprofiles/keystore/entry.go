package keystore

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// A Kind is what an entry holds, in keytool's words.
type Kind string

// The kinds of entries.
const (
	PrivateKey         Kind = "PrivateKeyEntry"
	TrustedCertificate Kind = "trustedCertEntry"
	SecretKey          Kind = "SecretKeyEntry" // of no use here
)

// An Entry is one entry of a store, as keytool -list shows it.
type Entry struct {
	Alias string // as it stands in a JKS, in lower case from a PKCS12, empty from a PEM
	Kind  Kind
	Chain [][]byte          // certificates in DER, leaf first: one of a TrustedCertificate, none or more of a PrivateKey
	Leaf  *x509.Certificate // Chain[0]; nil in a SecretKey, and when Err isn't
	Err   error             // why it can't be used, such as a negative serial number or a Brainpool key; nil if it can
}

// Entries returns every entry in the order of the file.
func (s *Store) Entries() []Entry {
	entries := make([]Entry, len(s.entries))
	for n, e := range s.entries {
		entries[n] = e.Entry
		entries[n].Chain = slices.Clone(e.Chain)
	}
	return entries
}

// Skipped returns the entries whose Err says why Trusted, and KeyPairs without alias, leave them out. Secret keys are
// not among them.
func (s *Store) Skipped() []Entry {
	return slices.DeleteFunc(s.Entries(), func(e Entry) bool { return e.Err == nil })
}

// A certificate is one of a store, whether Go can use it or not.
type certificate struct {
	raw              []byte
	parsed           *x509.Certificate // nil when err isn't
	err              error
	subject, issuer  []byte // names in DER
	public           string // the bits of its key
	keyID, issuerKey []byte // subject and authority key identifiers; nil without
}

// readCertificate reads one certificate. What is none at all is an error, and the file damaged. What Java reads and Go
// can't has its err set.
func readCertificate(der []byte) (certificate, error) {
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	var tbs struct {
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		Validity  asn1.RawValue
		Subject   asn1.RawValue
		Key       struct {
			Algorithm pkix.AlgorithmIdentifier
			Bits      asn1.BitString
		}
		IssuerID   asn1.BitString   `asn1:"optional,tag:1"`
		SubjectID  asn1.BitString   `asn1:"optional,tag:2"`
		Extensions []pkix.Extension `asn1:"optional,explicit,tag:3"`
	}
	rest, err := asn1.Unmarshal(der, &outer)
	if err == nil {
		_, err = asn1.Unmarshal(outer.TBS.FullBytes, &tbs)
	}
	if err != nil || tbs.Serial.Tag != asn1.TagInteger || !isSequence(tbs.Issuer) || !isSequence(tbs.Validity) ||
		!isSequence(tbs.Subject) {
		return certificate{}, unusable("not an X.509 certificate")
	}
	c := certificate{
		raw:     der[:len(der)-len(rest)],
		subject: tbs.Subject.FullBytes,
		issuer:  tbs.Issuer.FullBytes,
		public:  string(tbs.Key.Bits.Bytes),
	}
	for _, ext := range tbs.Extensions {
		switch {
		case ext.Id.Equal(oidSubjectKeyID):
			_, _ = asn1.Unmarshal(ext.Value, &c.keyID) // without it, names decide
		case ext.Id.Equal(oidAuthorityKeyID):
			var id struct {
				Key []byte `asn1:"optional,tag:0"`
			}
			_, _ = asn1.Unmarshal(ext.Value, &id)
			c.issuerKey = id.Key
		}
	}
	if c.parsed, err = x509.ParseCertificate(c.raw); err != nil {
		c.err = fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return c, nil
}

// errUnreadable is of a certificate that Java reads and Go doesn't.
var errUnreadable = errors.New("certificate that can't be used here")

var (
	oidSubjectKeyID   = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}
)

func isSequence(v asn1.RawValue) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == asn1.TagSequence && v.IsCompound
}

// newEntry is an entry of certificates, leaf first. Only the leaf has to be readable for Go: what stands above it is
// sent as it is.
func newEntry(alias string, kind Kind, chain ...certificate) entry {
	e := entry{Entry: Entry{Alias: alias, Kind: kind}}
	for _, c := range chain {
		e.Chain = append(e.Chain, c.raw)
	}
	if len(chain) > 0 {
		e.Leaf, e.Err = chain[0].parsed, chain[0].err
	}
	switch {
	case kind != PrivateKey || e.Err != nil:
	case e.Leaf == nil:
		e.Err = errors.New("a key without certificate, import its chain")
	default:
		switch e.Leaf.PublicKey.(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		default:
			kind := "unknown"
			if known := e.Leaf.PublicKeyAlgorithm; known != x509.UnknownPublicKeyAlgorithm {
				kind = known.String()
			}
			e.Err = fmt.Errorf("a key of a kind that can't be used here (%s), take RSA, ECDSA or Ed25519", kind)
			e.Leaf = nil
		}
	}
	return e
}

// put adds e, or replaces the entry of the same alias, as Java does.
func (s *Store) put(e entry) {
	if n, ok := s.named[e.Alias]; ok {
		s.entries[n] = e
		return
	}
	if s.named == nil {
		s.named = map[string]int{}
	}
	s.named[e.Alias] = len(s.entries)
	s.entries = append(s.entries, e)
}
