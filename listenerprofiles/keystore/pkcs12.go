package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"software.sslmate.com/src/go-pkcs12"
)

// The file sets the iteration counts of PKCS #12's key derivations. One derivation takes at most maxIterations, a file
// maxWork in all; tools write 2,048 to 100,000.
const (
	maxIterations = 1_000_000
	maxWork       = 5_000_000
)

// openPKCS12 reads what keytool and openssl write. The library decrypts, but does not bound iterations,
// so outline checks the unencrypted parts first.
func openPKCS12(data []byte, ref Ref) (*Store, error) {
	outline, err := outlinePKCS12(data)
	if err != nil {
		if _, bare := x509.ParseCertificate(data); bare == nil {
			return nil, fmt.Errorf("a bare DER certificate, use PEM: openssl x509 -inform DER -in X -out Y: %w",
				ErrFormat)
		}
		return nil, err
	}
	if len(outline.aliases) > 0 && ref.KeyPassword != "" && ref.KeyPassword != ref.Password {
		return nil, fmt.Errorf("key password: in PKCS12 it has to be the store's password: %w", ErrPassword)
	}
	password := ref.Password
	if !outline.mac {
		password = "" // without a MAC nothing is sealed
	}
	s, err := decodePKCS12(data, password, outline)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && ref.Password == "":
		return nil, fmt.Errorf("%w: no password is given", ErrPassword)
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, ErrPassword
	case strings.Contains(err.Error(), "not marked as trusted"):
		return nil, fmt.Errorf("PKCS12: a certificate is not marked as trusted, and Java ignores it too; import it: "+
			"keytool -importcert -file X.pem -alias X -keystore %s.new.jks -storetype JKS: %w", ref.Location, ErrFormat)
	}
	return nil, fmt.Errorf("PKCS12 that is not read here (%s), convert it: %s: %w",
		strings.TrimPrefix(err.Error(), "pkcs12: "), cure(ref), ErrFormat)
}

func decodePKCS12(data []byte, password string, outline *outline) (*Store, error) {
	if len(outline.aliases) == 0 {
		certs, err := pkcs12.DecodeTrustStore(data, password)
		if outline.safes == 0 && errors.As(err, new(pkcs12.NotImplementedError)) {
			return &Store{}, nil // the password is right, and the store is empty
		}
		s := &Store{}
		for n, cert := range certs {
			s.put(newEntry(strconv.Itoa(n+1), TrustedCertificate, certificate{raw: cert.Raw, parsed: cert}))
		}
		return s, err
	}
	// DecodeChain expects one key and returns neither aliases nor which certificate belongs to which key; ToPEM does,
	// but not for Ed25519 nor for unencrypted keys.
	//lint:ignore SA1019 fromBlocks knows how it writes keys
	blocks, err := pkcs12.ToPEM(data, password)
	if err == nil {
		return fromBlocks(blocks)
	}
	if strings.Contains(err.Error(), "unknown attribute") || len(outline.aliases) > 1 {
		return nil, err // keys and trusted certificates in one file: DecodeChain would take the latter for a chain
	}
	key, leaf, others, chainErr := pkcs12.DecodeChain(data, password)
	if chainErr != nil {
		return nil, chainErr
	}
	s := &Store{}
	s.put(newKeyEntry(outline.aliases[0], key, append([]*x509.Certificate{leaf}, others...)))
	return s, nil
}

// fromBlocks pairs keys with certificates. The key bag's local key id is its certificate's too, and the public keys
// must agree.
func fromBlocks(blocks []*pem.Block) (*Store, error) {
	var certs []*x509.Certificate
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w (%w)", err, ErrFormat)
		}
		certs = append(certs, cert)
	}
	s := &Store{}
	for _, block := range blocks {
		if block.Type == "CERTIFICATE" {
			continue
		}
		var key crypto.PrivateKey
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			if key, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
				return nil, errors.New("a key of an unknown kind")
			}
		}
		s.put(newKeyEntry(block.Headers["friendlyName"], key, certs))
	}
	return s, nil
}

// newKeyEntry picks key's certificate out of certs, and its issuers in order.
func newKeyEntry(alias string, key crypto.PrivateKey, certs []*x509.Certificate) entry {
	var chain []certificate
	add := func(cert *x509.Certificate) { chain = append(chain, certificate{raw: cert.Raw, parsed: cert}) }
	for _, cert := range certs {
		if matches(key, cert) {
			add(cert)
			break
		}
	}
	for len(chain) > 0 && len(chain) < MaxChain {
		issuer := issuerOf(chain[len(chain)-1].parsed, certs)
		if issuer == nil {
			break
		}
		add(issuer)
	}
	if len(chain) == 0 {
		for _, cert := range certs {
			add(cert) // so that KeyPairs says that the key does not belong to the certificate
		}
	}
	e := newEntry(alias, PrivateKey, chain...)
	e.open = func() (crypto.PrivateKey, error) { return key, nil }
	return e
}

func issuerOf(cert *x509.Certificate, certs []*x509.Certificate) *x509.Certificate {
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		return nil
	}
	for _, c := range certs {
		if bytes.Equal(c.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}

// An outline is what can be read of a PKCS #12 file without its password.
type outline struct {
	mac     bool
	safes   int      // contents in the authenticated safe
	aliases []string // of the key bags that aren't inside encrypted contents; keytool and openssl put none there
	work    int      // iterations in all
}

// The structures of RFC 7292, section 4, and RFC 8018, appendix A, as far as outlinePKCS12 needs them.
type (
	pfx struct {
		Version  int
		AuthSafe contentInfo
		MAC      macData `asn1:"optional"`
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	macData struct {
		MAC struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
	encryptedData struct {
		Version int
		Content struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Data      asn1.RawValue `asn1:"tag:0,optional"`
		}
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes []attribute   `asn1:"set,optional"`
	}
	attribute struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue `asn1:"set"`
	}
	sealedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidKeyBag        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidSealedKeyBag  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidPBES2         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBMAC1        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidFriendlyName  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
)

func outlinePKCS12(data []byte) (*outline, error) {
	if bytes.HasPrefix(data, []byte{0x30, 0x80}) {
		return nil, fmt.Errorf("PKCS12 in BER, which is not read here; rewrite it with openssl pkcs12 or keytool "+
			"-importkeystore: %w", ErrFormat)
	}
	var p pfx
	if err := unmarshal(data, &p); err != nil || p.Version != 3 || !p.AuthSafe.Type.Equal(oidData) {
		return nil, fmt.Errorf("PKCS12: damaged, cut short, or something else in DER: %w", ErrFormat)
	}
	o := &outline{mac: len(p.MAC.MAC.Algorithm.Algorithm) > 0}
	if o.mac {
		if err := o.countMAC(p.MAC); err != nil {
			return nil, err
		}
	}
	var inner []byte
	var safes []contentInfo
	if err := unmarshal(p.AuthSafe.Content.Bytes, &inner); err != nil {
		return nil, err
	}
	if err := unmarshal(inner, &safes); err != nil {
		return nil, err
	}
	o.safes = len(safes)
	for _, safe := range safes {
		if err := o.look(safe); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *outline) look(safe contentInfo) error {
	switch {
	case safe.Type.Equal(oidEncryptedData):
		var enc encryptedData
		if err := unmarshal(safe.Content.Bytes, &enc); err != nil {
			return err
		}
		return o.count(enc.Content.Algorithm)
	case safe.Type.Equal(oidData):
		var inner []byte
		var bags []safeBag
		if err := unmarshal(safe.Content.Bytes, &inner); err != nil {
			return err
		}
		if err := unmarshal(inner, &bags); err != nil {
			return err
		}
		if len(bags) > MaxEntries {
			return fmt.Errorf("PKCS12: more than %d entries: %w", MaxEntries, ErrFormat)
		}
		for _, bag := range bags {
			if bag.ID.Equal(oidSealedKeyBag) {
				var key sealedKey
				if err := unmarshal(bag.Value.Bytes, &key); err != nil {
					return err
				}
				if err := o.count(key.Algorithm); err != nil {
					return err
				}
			}
			if bag.ID.Equal(oidSealedKeyBag) || bag.ID.Equal(oidKeyBag) {
				o.aliases = append(o.aliases, bag.friendlyName())
			}
		}
	}
	return nil
}

func (b safeBag) friendlyName() string {
	for _, a := range b.Attributes {
		var name asn1.RawValue
		if !a.ID.Equal(oidFriendlyName) || unmarshal(a.Value.Bytes, &name) != nil || name.Tag != asn1.TagBMPString {
			continue
		}
		var units []uint16
		for i := 0; i+1 < len(name.Bytes); i += 2 {
			units = append(units, uint16(name.Bytes[i])<<8|uint16(name.Bytes[i+1]))
		}
		return string(utf16.Decode(units))
	}
	return ""
}

func (o *outline) countMAC(mac macData) error {
	if !mac.MAC.Algorithm.Algorithm.Equal(oidPBMAC1) {
		return o.spend(mac.Iterations)
	}
	return o.countPBKDF2(mac.MAC.Algorithm.Parameters.FullBytes)
}

func (o *outline) count(algorithm pkix.AlgorithmIdentifier) error {
	if algorithm.Algorithm.Equal(oidPBES2) {
		return o.countPBKDF2(algorithm.Parameters.FullBytes)
	}
	var params struct {
		Salt       []byte
		Iterations int
	}
	if err := unmarshal(algorithm.Parameters.FullBytes, &params); err != nil {
		return err
	}
	return o.spend(params.Iterations)
}

// countPBKDF2 reads PBES2-params and PBMAC1-params, which share their beginning.
func (o *outline) countPBKDF2(der []byte) error {
	var params struct{ KDF, Scheme pkix.AlgorithmIdentifier }
	if err := unmarshal(der, &params); err != nil {
		return err
	}
	var kdf struct {
		Salt       asn1.RawValue
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if err := unmarshal(params.KDF.Parameters.FullBytes, &kdf); err != nil {
		return err
	}
	return o.spend(kdf.Iterations)
}

func (o *outline) spend(iterations int) error {
	if iterations < 1 || iterations > maxIterations {
		return fmt.Errorf("PKCS12: a key derivation of %d iterations, at most %d are done: %w",
			iterations, maxIterations, ErrFormat)
	}
	if o.work += iterations; o.work > maxWork {
		return fmt.Errorf("PKCS12: key derivations of more than %d iterations in all: %w", maxWork, ErrFormat)
	}
	return nil
}

// unmarshal fails if der has trailing bytes.
func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err != nil || len(rest) != 0 {
		return fmt.Errorf("PKCS12: damaged or cut short: %w", ErrFormat)
	}
	return nil
}
