package keystore

import (
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

// A pkcs12File is a file (RFC 7292) being read the way of sun.security.pkcs12.PKCS12KeyStore, so that the entries,
// their aliases and their chains are those that keytool -list shows. What differs from Java: a key that is not sealed
// is an entry, too.
type pkcs12File struct {
	ref   Ref
	work  work // left for opening the file
	mac   bool
	store *Store

	bags    int // so far, of every kind
	keyBags int
	unnamed int // entries that got a number for a name
	keys    []p12Key
	known   known
}

// A p12Key is a private key, whose chain is found once all certificates are known.
type p12Key struct {
	alias  string
	id     string  // local key id
	sealed sealing // open is nil if data is not sealed
	data   []byte
	err    error // why it can't be opened
}

func openPKCS12(data []byte, ref Ref) (*Store, error) { return readPKCS12(data, ref, maxWork) }

// readPKCS12 spends at most limit on opening the file, and on opening keys later.
func readPKCS12(data []byte, ref Ref, limit work) (*Store, error) {
	p := &pkcs12File{ref: ref, work: limit, store: &Store{work: limit}}
	err := p.read(data)
	if unknown := (errAlgorithm{}); errors.As(err, &unknown) {
		return nil, unusable("PKCS12: %w, write it anew: %s", err, rewrite(ref))
	}
	if err != nil {
		return nil, err
	}
	p.addChains()
	return p.store, nil
}

// rewrite returns the command that writes a PKCS #12 store with algorithms that everybody reads. It reads its input
// twice, so that a pipe won't do.
func rewrite(ref Ref) string {
	return fmt.Sprintf("openssl pkcs12 -in %s -nodes -out %s.pem && openssl pkcs12 -export -in %s.pem -out %s.new",
		ref.Location, ref.Location, ref.Location, ref.Location)
}

// read reads PFX.
func (p *pkcs12File) read(data []byte) error {
	der, err := toDER(data)
	if err != nil {
		return err
	}
	whole := cursor(der)
	pfx, err := whole.open(tagSequence)
	if err != nil {
		return err
	}
	first, err := pfx.next()
	if err != nil {
		return err
	}
	if first.tag != tagInteger || len(first.body) != 1 || first.body[0] != 3 {
		return p.somethingElse(der)
	}
	kind, content, err := contentInfo(&pfx)
	if err != nil {
		return err
	}
	if !kind.Equal(oidData) {
		return unusable("PKCS12 protected by a key instead of a password, write it anew: keytool -importkeystore or " +
			"openssl pkcs12 -export")
	}
	safes, err := content.want(tagOctetString)
	if err != nil {
		return err
	}
	if len(pfx) > 0 {
		if err := p.checkMAC(&pfx, safes.body); err != nil {
			return err
		}
	}
	return p.readSafes(safes.body)
}

// somethingElse says what a DER file is that is no PFX.
func (p *pkcs12File) somethingElse(der []byte) error {
	var signed struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"optional"`
	}
	if _, err := readCertificate(der); err == nil {
		return unusable("a bare DER certificate, use PEM: openssl x509 -inform DER -in %s -out %s.pem",
			p.ref.Location, p.ref.Location)
	}
	if unmarshal(der, &signed) == nil {
		return unusable("PKCS #7 or CMS, not PKCS #12, use PEM: openssl pkcs7 -inform DER -print_certs -in %s -out %s.pem",
			p.ref.Location, p.ref.Location)
	}
	return errDamaged
}

// contentInfo reads a ContentInfo and returns its type and what is in its content.
func contentInfo(in *cursor) (asn1.ObjectIdentifier, cursor, error) {
	info, err := in.open(tagSequence)
	if err != nil {
		return nil, nil, err
	}
	kind, err := info.oid()
	if err != nil {
		return nil, nil, err
	}
	content, err := info.open(tagContext0)
	return kind, content, err
}

func (c *cursor) oid() (asn1.ObjectIdentifier, error) {
	v, err := c.want(tagOID)
	if err != nil {
		return nil, err
	}
	var id asn1.ObjectIdentifier
	return id, unmarshal(v.full, &id)
}

// checkMAC reads MacData and checks it against the authenticated safe.
func (p *pkcs12File) checkMAC(in *cursor, message []byte) error {
	v, err := in.want(tagSequence)
	if err != nil {
		return err
	}
	var m struct {
		MAC struct {
			Algorithm struct {
				ID         asn1.ObjectIdentifier
				Parameters asn1.RawValue `asn1:"optional"`
			}
			Digest []byte
		}
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
	if err := unmarshal(v.full, &m); err != nil {
		return err
	}
	id := m.MAC.Algorithm.ID
	if id.Equal(oidPBMAC1) {
		return unusable("PKCS12: a MAC by PBMAC1 is not read here, nor by Java before 26, write it anew with OpenSSL 3.4 "+
			"or later: %s -macalg sha256", rewrite(p.ref))
	}
	newHash, known := digests[id.String()]
	if !known {
		return errAlgorithm{"a MAC by algorithm " + id.String()}
	}
	if err := p.work.spend(m.Iterations); err != nil {
		return err
	}
	p.mac = true
	if !checkMAC(newHash, p.ref.Password, m.Salt, m.Iterations, message, m.MAC.Digest) {
		return wrongPassword(p.ref)
	}
	return nil
}

// readSafes reads AuthenticatedSafe: contents that are sealed or not.
func (p *pkcs12File) readSafes(ber []byte) error {
	der, err := toDER(ber)
	if err != nil {
		return err
	}
	whole := cursor(der)
	safes, err := whole.open(tagSequence)
	if err != nil {
		return err
	}
	for len(safes) > 0 {
		kind, content, err := contentInfo(&safes)
		switch {
		case err != nil:
			return err
		case kind.Equal(oidData):
			var data value
			if data, err = content.want(tagOctetString); err == nil {
				err = p.readBags(data.body)
			}
		case kind.Equal(oidEncryptedData):
			err = p.readSealed(content)
		default:
			err = unusable("PKCS12: contents sealed by a key instead of a password, write it anew: keytool " +
				"-importkeystore or openssl pkcs12 -export")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readSealed reads EncryptedData.
func (p *pkcs12File) readSealed(content cursor) error {
	enc, err := content.open(tagSequence)
	if err != nil {
		return err
	}
	if _, err := enc.want(tagInteger); err != nil {
		return err
	}
	info, err := enc.open(tagSequence)
	if err != nil {
		return err
	}
	if _, err := info.oid(); err != nil {
		return err
	}
	algorithm, err := info.want(tagSequence)
	if err != nil {
		return err
	}
	data, err := info.next()
	if err != nil {
		return err
	}
	if data.tag == tagContext0 { // in pieces, which toDER can't know for octets
		data.body, err = joinOctets(data.body)
	} else if data.tag != tagContext0&^0x20 {
		err = unusable("PKCS12: sealed contents of type %#x", data.tag)
	}
	if err != nil {
		return err
	}
	s, err := sealingOf(algorithm.full)
	if err != nil {
		return err
	}
	if err := p.work.spend(s.iterations); err != nil {
		return err
	}
	plain, err := s.open(p.ref.Password, data.body)
	if err == nil {
		err = p.readBags(plain)
	}
	switch {
	case err == nil:
		return nil
	case p.mac && errors.Is(err, errSealed):
		return fmt.Errorf("PKCS12: the MAC is right, and the certificates are sealed with another password than the "+
			"store's, write it anew: keytool -importkeystore or openssl pkcs12 -export: %w", ErrPassword)
	case !p.mac && !errors.Is(err, errTooMany):
		return wrongPassword(p.ref) // what a wrong password yields may look like anything
	}
	return err
}

var errTooMany = unusable("PKCS12: more than %d entries and certificates", MaxEntries)

// readBags reads SafeContents.
func (p *pkcs12File) readBags(ber []byte) error {
	der, err := toDER(ber)
	if err != nil {
		return err
	}
	whole := cursor(der)
	bags, err := whole.open(tagSequence)
	if err != nil {
		return err
	}
	for n := 0; len(bags) > 0; n++ {
		if p.bags++; p.bags > MaxEntries {
			return errTooMany
		}
		bag, err := bags.open(tagSequence)
		if err != nil {
			return err
		}
		if err := p.readBag(bag, n == 0); err != nil {
			return err
		}
	}
	return nil
}

// implied is the local key id of a file's only key, and of the certificate that comes first in a list, where they have
// none.
const implied = "01"

func (p *pkcs12File) readBag(bag cursor, first bool) error {
	kind, err := bag.oid()
	if err != nil {
		return err
	}
	content, err := bag.open(tagContext0)
	if err != nil {
		return err
	}
	item, err := content.next()
	if err != nil {
		return err
	}
	var cert certificate
	switch {
	case kind.Equal(oidCertBag):
		if cert, err = certificateOf(item.full); err != nil {
			return err
		}
	case kind.Equal(oidKeyBag), kind.Equal(oidSealedKeyBag):
		p.keyBags++
	}
	a, err := attributesOf(bag)
	if err != nil {
		return err
	}
	switch {
	case kind.Equal(oidKeyBag), kind.Equal(oidSealedKeyBag):
		p.addKey(item.full, a, kind.Equal(oidSealedKeyBag))
	case kind.Equal(oidSecretBag):
		p.store.put(newEntry(p.alias(&a), SecretKey))
	case kind.Equal(oidCertBag):
		if !a.hasID && p.keyBags == 1 && first {
			a.id, a.hasID = implied, true
		}
		if a.trusted {
			p.store.put(newEntry(p.alias(&a), TrustedCertificate, cert))
		} else {
			p.store.unmarked++
		}
		p.known.add(cert, a)
	}
	return nil
}

// attributes are those of a bag that mean something here.
type attributes struct {
	name    string // friendly name
	named   bool
	id      string // local key id
	hasID   bool
	trusted bool // Oracle's trustedKeyUsage is there
}

// attributesOf reads what is left of a bag. Attributes of other kinds, such as those of Windows, are passed over.
func attributesOf(bag cursor) (a attributes, err error) {
	if len(bag) == 0 || bag[0] != tagSet {
		return a, nil
	}
	set, err := bag.open(tagSet)
	for err == nil && len(set) > 0 {
		err = a.read(&set)
	}
	return a, err
}

func (a *attributes) read(set *cursor) error {
	attribute, err := set.open(tagSequence)
	if err != nil {
		return err
	}
	kind, err := attribute.oid()
	if err != nil {
		return err
	}
	values, err := attribute.open(tagSet)
	if err != nil {
		return err
	}
	switch {
	case kind.Equal(oidFriendlyName):
		name, err := values.want(tagBMPString)
		a.name, a.named = bmpText(name.body), true
		return err
	case kind.Equal(oidLocalKeyID):
		id, err := values.want(tagOctetString)
		a.id, a.hasID = string(id.body), true
		return err
	case kind.Equal(oidTrustedKeyUsage):
		a.trusted = true // for whatever usage
	}
	return nil
}

func bmpText(b []byte) string {
	var units []uint16
	for n := 0; n+1 < len(b); n += 2 {
		units = append(units, uint16(b[n])<<8|uint16(b[n+1]))
	}
	return string(utf16.Decode(units))
}

// alias names an entry: by its friendly name in lower case, or by a number of its own.
func (p *pkcs12File) alias(a *attributes) string {
	if !a.named {
		p.unnamed++
		a.name, a.named = strconv.Itoa(p.unnamed), true
	}
	return strings.ToLower(a.name)
}

// certificateOf reads CertBag.
func certificateOf(der []byte) (certificate, error) {
	in := cursor(der)
	bag, err := in.open(tagSequence)
	if err != nil {
		return certificate{}, err
	}
	if _, err := bag.oid(); err != nil {
		return certificate{}, err
	}
	content, err := bag.open(tagContext0)
	if err != nil {
		return certificate{}, err
	}
	data, err := content.want(tagOctetString)
	if err != nil {
		return certificate{}, err
	}
	return readCertificate(data.body)
}

// addKey adds a private key, whose chain comes later. der is a PrivateKeyInfo, or sealed an EncryptedPrivateKeyInfo.
func (p *pkcs12File) addKey(der []byte, a attributes, sealed bool) {
	if !a.hasID {
		if p.keyBags != 1 {
			return // which Java doesn't list either
		}
		a.id = implied
	}
	key := p12Key{alias: p.alias(&a), id: a.id}
	if sealed {
		key.sealed, key.data, key.err = sealedKey(der)
	} else {
		key.data = der
	}
	p.keys = append(p.keys, key)
	p.store.put(newEntry(key.alias, PrivateKey))
}

// sealedKey reads EncryptedPrivateKeyInfo.
func sealedKey(der []byte) (s sealing, data []byte, err error) {
	in := cursor(der)
	info, err := in.open(tagSequence)
	if err != nil {
		return s, nil, err
	}
	algorithm, err := info.want(tagSequence)
	if err != nil {
		return s, nil, err
	}
	octets, err := info.want(tagOctetString)
	if err != nil {
		return s, nil, err
	}
	s, err = sealingOf(algorithm.full)
	return s, octets.body, err
}

// addChains gives every key the chain that Java gives it.
func (p *pkcs12File) addChains() {
	for _, key := range p.keys {
		e := newEntry(key.alias, PrivateKey, p.known.chain(key)...)
		e.open = func() (crypto.PrivateKey, error) { return key.open(p.ref) }
		e.work = key.sealed.iterations
		if old := p.store.entries[p.store.named[key.alias]]; old.Kind == PrivateKey {
			p.store.put(e)
		}
	}
}

// open returns the key, whose password is the store's if it has none of its own.
func (k *p12Key) open(ref Ref) (crypto.PrivateKey, error) {
	if k.err != nil {
		if unknown := (errAlgorithm{}); errors.As(k.err, &unknown) {
			return nil, unusable("%w, write it anew: %s", k.err, rewrite(ref))
		}
		return nil, k.err
	}
	plain := k.data
	if k.sealed.open != nil {
		var err error
		if plain, err = k.sealed.open(keyPassword(ref), k.data); err != nil {
			return nil, wrongKeyPassword(ref)
		}
	}
	key, err := parseKey(plain)
	if errors.Is(err, errNoKey) {
		return nil, wrongKeyPassword(ref)
	}
	return key, err
}

var (
	oidData            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEncryptedData   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidKeyBag          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidSealedKeyBag    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidCertBag         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidSecretBag       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 5}
	oidFriendlyName    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidLocalKeyID      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 21}
	oidTrustedKeyUsage = asn1.ObjectIdentifier{2, 16, 840, 1, 113894, 746875, 1, 1}
)
