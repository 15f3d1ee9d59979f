// Package keystore opens JKS, PKCS #12 and PEM keystores.
package keystore

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of what Open reads. A store that real tools write is far below each of them.
const (
	MaxSize    = 16 << 20 // bytes in a file
	MaxEntries = 10_000   // entries in a store, and certificates in all
	MaxChain   = 16       // certificates in a chain, also in one that a client presents
)

// The reasons that callers may ask for with errors.Is. Every other error of this package wraps ErrFormat.
var (
	ErrPassword = errors.New("wrong password, or the file was altered")
	ErrNoEntry  = errors.New("no such key entry")
	ErrEmpty    = errors.New("no trusted certificate")
	ErrExpired  = errors.New("certificate expired")
	ErrFormat   = errors.New("not a usable keystore")
)

// unusable returns an error that matches ErrFormat, whose text says what is wrong instead.
func unusable(format string, args ...any) error { return formatError{fmt.Errorf(format, args...)} }

type formatError struct{ error }

func (formatError) Is(target error) bool { return target == ErrFormat }
func (e formatError) Unwrap() error      { return e.error }

// A Ref is a keystore's location and how to open it, as in WSO2's KeyStore and TrustStore elements. Its passwords are
// never printed, logged or marshalled.
type Ref struct {
	Location    string  // the file, for messages only: this package reads no files
	Type        string  // as ParseType accepts it; "" means by content. JKS and PKCS12 are interchangeable, as in Java
	Password    string  // of the store; PEM needs none
	KeyPassword string  // of the keys; "" means Password
	Alias       Aliases // the key entries to serve (ServerCertificateAlias); "" means all of them
}

// Aliases are names of key entries as one value that compares: a single name is itself, several are as JoinAliases
// makes them, none is "".
type Aliases string

// aliasEnd is between names. No tool writes an alias with a zero byte.
const aliasEnd = "\x00"

// JoinAliases returns names as Aliases.
func JoinAliases(names ...string) Aliases { return Aliases(strings.Join(names, aliasEnd)) }

// Names returns each, in order.
func (a Aliases) Names() []string {
	if a == "" {
		return nil
	}
	return strings.Split(string(a), aliasEnd)
}

// String returns the names with commas between them.
func (a Aliases) String() string { return strings.Join(a.Names(), ", ") }

// String returns the location, type and alias.
func (r Ref) String() string {
	s := r.Location
	if r.Type != "" {
		s += " (" + r.Type + ")"
	}
	if r.Alias != "" {
		s += " alias " + r.Alias.String()
	}
	return s
}

// Format writes String for every verb, %#v included.
func (r Ref) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(r.String())) }

// MarshalText writes String, in JSON and in logs as well.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// A Store is an opened keystore. It never changes.
type Store struct {
	location string
	entries  []entry
	named    map[string]int // place in entries by alias; PEM has none
	work     work           // that KeyPairs may do
	unmarked int            // certificates of a PKCS #12 file that it does not mark as trusted
}

// An entry has a private key behind open, which may still be sealed with a password of its own, if its kind is
// PrivateKey.
type entry struct {
	Entry
	open  func() (crypto.PrivateKey, error)
	work  int // iterations that open takes; 0 if the file does not choose
	block int // the key's in a PEM, from 1; 0: it is none
}

// name is what an entry is called in messages.
func (e entry) name() string {
	if e.block > 0 {
		return fmt.Sprintf("PEM block %d", e.block)
	}
	return fmt.Sprintf("key entry %.60q", e.Alias)
}

// Open reads the keystore in data, which is the content of the file ref.Location. The format is detected from the
// content; ref.Type only distinguishes PEM from the others. Store password and integrity are checked here, for JKS and
// PKCS #12; the passwords of keys are checked by KeyPairs.
//
// JKS and PKCS #12 stores hold the entries that keytool -list shows. A JCEKS or BKS store, and a PKCS #12 store of
// algorithms that Java doesn't know, are errors that name a command to convert it.
func Open(data []byte, ref Ref) (*Store, error) {
	s, err := open(data, ref)
	if err != nil {
		return nil, fmt.Errorf("keystore %s: %w", ref.Location, err)
	}
	s.location = ref.Location
	return s, nil
}

func open(data []byte, ref Ref) (*Store, error) {
	if len(data) > MaxSize {
		return nil, unusable("larger than %d bytes", MaxSize)
	}
	declared := ""
	if ref.Type != "" {
		var err error
		if declared, err = ParseType(ref.Type); err != nil {
			return nil, unusable("type %w", err)
		}
	}
	found := detect(data)
	if found == javaJCEKS || found == bouncyBKS {
		return nil, unusable("%s is not read here, convert it: %s", found, convert(found, ref))
	}
	if found != unknown && declared != "" && (declared == "PEM") != (found == textPEM) {
		return nil, unusable("declared as %s, but the content is %s, set the type to %s",
			declared, found, found)
	}
	switch found {
	case javaJKS:
		return openJKS(data, ref)
	case derPKCS12:
		return openPKCS12(data, ref)
	case textPEM:
		return openPEM(data)
	}
	if len(data) == 0 {
		return nil, unusable("empty file, put the store back")
	}
	return nil, unusable("neither JKS, PKCS12 nor PEM; what it is says: file %s", ref.Location)
}

// ParseType reads a Ref's Type, JKS, PKCS12 or PEM, without case.
func ParseType(word string) (string, error) {
	switch kind := strings.ToUpper(word); kind {
	case "JKS", "PKCS12", "PEM":
		return kind, nil
	case "ACME":
		return "", errors.New("ACME is a type of listeners' key stores alone: name a JKS, PKCS12 or PEM file")
	}
	switch kind := format(strings.ToUpper(word)); kind {
	case javaJCEKS, bouncyBKS:
		return "", fmt.Errorf("%s is not read here, convert the store: %s", kind, convert(kind, Ref{Location: "STORE"}))
	}
	return "", fmt.Errorf("%.60q is none of JKS, PKCS12, PEM", word)
}

// A format is what a file's content shows it to be.
type format string

const (
	unknown   format = "unknown"
	javaJKS   format = "JKS"
	javaJCEKS format = "JCEKS"
	bouncyBKS format = "BKS"
	derPKCS12 format = "PKCS12"
	textPEM   format = "PEM"
)

func detect(data []byte) format {
	switch {
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return javaJKS
	case bytes.HasPrefix(data, []byte{0xce, 0xce, 0xce, 0xce}):
		return javaJCEKS
	case bytes.HasPrefix(data, []byte("\x00\x00\x00\x01\x00\x00\x00\x14")),
		bytes.HasPrefix(data, []byte("\x00\x00\x00\x02\x00\x00\x00\x14")): // version, and a salt of 20 bytes
		return bouncyBKS
	case bytes.HasPrefix(data, []byte{0x30}) && !isText(data): // a DER SEQUENCE
		return derPKCS12
	case isText(data):
		return textPEM
	}
	return unknown
}

func isText(data []byte) bool {
	return bytes.IndexByte(data, 0) < 0 && bytes.Contains(data, []byte(pemBegin))
}

// convert returns the command that converts a store of another kind.
func convert(from format, ref Ref) string {
	provider := ""
	if from == bouncyBKS {
		provider = " -provider org.bouncycastle.jce.provider.BouncyCastleProvider -providerpath bcprov.jar"
	}
	return fmt.Sprintf("keytool -importkeystore -srckeystore %s -srcstoretype %s%s -destkeystore %s.new.jks "+
		"-deststoretype JKS", ref.Location, from, provider, ref.Location)
}

// KeyPairs returns the key entries in the order of the file or, when there are aliases, exactly those, in their order.
// Aliases compare without case, as in Java. Each pair has its Leaf set, and the key belongs to the leaf. Without
// aliases, entries that Go can't use are left out; Skipped has them.
//
// The error wraps ErrNoEntry when there is no key, or none of an alias, ErrPassword when a key's own password is wrong,
// and ErrExpired when a leaf's NotAfter is before now.
func (s *Store) KeyPairs(aliases Aliases, now time.Time) ([]tls.Certificate, error) {
	entries, err := s.find(aliases)
	if err != nil {
		return nil, fmt.Errorf("keystore %s: %w", s.location, err)
	}
	pairs := make([]tls.Certificate, 0, len(entries))
	left := s.work
	for _, entry := range entries {
		pair, err := entry.pair(now, &left)
		if err != nil {
			return nil, fmt.Errorf("keystore %s: %s: %w", s.location, entry.name(), err)
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

func (s *Store) find(aliases Aliases) ([]entry, error) {
	var keys, usable, found []entry
	for _, e := range s.entries {
		if e.Kind != PrivateKey {
			continue
		}
		keys = append(keys, e)
		if e.Err == nil {
			usable = append(usable, e)
		}
	}
	switch {
	case len(keys) == 0 && aliases == "":
		return nil, fmt.Errorf("it holds no private key: %w", ErrNoEntry)
	case aliases == "" && len(usable) == 0:
		return keys[:1], nil // whose error says why
	case aliases == "":
		return usable, nil
	}
	for _, alias := range aliases.Names() {
		e, err := s.findKey(keys, alias)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(found, func(f entry) bool { return f.Alias == e.Alias }) {
			return nil, unusable("alias %q names a key entry that another alias names: keep one", alias)
		}
		found = append(found, e)
	}
	return found, nil
}

// findKey returns the one of keys that has the alias, or else has it in another case.
func (s *Store) findKey(keys []entry, alias string) (entry, error) {
	other := slices.IndexFunc(s.entries, func(e entry) bool {
		return e.Kind != PrivateKey && strings.EqualFold(e.Alias, alias)
	})
	switch {
	case len(keys) == 0 && other >= 0:
		return entry{}, fmt.Errorf("alias %q is no key but a %s: %w", alias, s.entries[other].Kind, ErrNoEntry)
	case len(keys) == 0:
		return entry{}, fmt.Errorf("it holds no private key: %w", ErrNoEntry)
	case keys[0].block > 0:
		return entry{}, fmt.Errorf("alias %q: %w; keys in a PEM have no names, all of them are served", alias, ErrNoEntry)
	}
	named := func(same func(string) bool) []entry {
		return slices.DeleteFunc(slices.Clone(keys), func(e entry) bool { return !same(e.Alias) })
	}
	found := named(func(a string) bool { return a == alias })
	if len(found) == 0 {
		found = named(func(a string) bool { return strings.EqualFold(a, alias) })
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return entry{}, fmt.Errorf("alias %q: %w; it has %s", alias, ErrNoEntry, namesOf(keys))
	}
	return entry{}, unusable("alias %q names %d key entries", alias, len(found))
}

// namesOf lists the aliases of keys, the first ten.
func namesOf(keys []entry) string {
	const shown = 10
	var names []string
	for _, e := range keys[:min(len(keys), shown)] {
		names = append(names, fmt.Sprintf("%.60q", e.Alias))
	}
	if len(keys) > shown {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

func (e entry) pair(now time.Time, left *work) (tls.Certificate, error) {
	if e.Err != nil {
		return tls.Certificate{}, unusable("%w", e.Err)
	}
	if e.work != 0 {
		if err := left.spend(e.work); err != nil {
			return tls.Certificate{}, err
		}
	}
	key, err := e.open()
	if err != nil {
		return tls.Certificate{}, err
	}
	if !matches(key, e.Leaf) {
		return tls.Certificate{}, unusable("the key does not belong to the certificate %q",
			e.Leaf.Subject)
	}
	if now.After(e.Leaf.NotAfter) {
		return tls.Certificate{}, fmt.Errorf("%w on %s", ErrExpired, e.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return tls.Certificate{Certificate: slices.Clone(e.Chain), PrivateKey: key, Leaf: e.Leaf}, nil
}

// matches reports whether cert certifies key's public half.
func matches(key crypto.PrivateKey, cert *x509.Certificate) bool {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return false
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// Trusted returns the trusted certificates: the trusted-certificate entries of a JKS or PKCS #12 store, every
// certificate of a PEM file without a private key. The certificates of key entries are not trusted, which is stricter
// than Java. Entries that Go can't use are left out; Skipped has them. The error wraps ErrEmpty when there is none.
func (s *Store) Trusted() ([]*x509.Certificate, error) {
	var trusted []*x509.Certificate
	var skipped *Entry
	keys := false
	for _, e := range s.entries {
		switch {
		case e.Kind == PrivateKey:
			keys = true
		case e.Kind == TrustedCertificate && e.Err == nil:
			trusted = append(trusted, e.Leaf)
		case e.Kind == TrustedCertificate && skipped == nil:
			skipped = &e.Entry
		}
	}
	switch {
	case len(trusted) > 0:
		return trusted, nil
	case skipped != nil:
		return nil, fmt.Errorf("keystore %s: %w: entry %.60q: %w", s.location, ErrEmpty, skipped.Alias, skipped.Err)
	case s.unmarked > 0 && !keys:
		return nil, fmt.Errorf("keystore %s: %w: it marks none of its %d certificates as trusted, and Java ignores such; "+
			"import each: keytool -importcert -file X.pem -alias X -keystore %s.new -storetype PKCS12",
			s.location, ErrEmpty, s.unmarked, s.location)
	case keys:
		return nil, fmt.Errorf("keystore %s: %w: it holds private keys only", s.location, ErrEmpty)
	}
	return nil, fmt.Errorf("keystore %s: %w", s.location, ErrEmpty)
}
