package keystore

import (
	"bytes"
	"crypto"
	"crypto/sha1" // JKS knows no other digest.
	"crypto/subtle"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// JKS is read here rather than by a library, so that lengths are checked against the file's size before anything is
// allocated, and passwords beyond ASCII are UTF-16, as in Java.
const (
	jksKey     = 1
	jksTrusted = 2
)

// openJKS reads the format of sun.security.provider.JavaKeyStore: magic, version, entries, and a SHA-1 over the
// password, a constant and everything before it. What stands behind is ignored, as Java does.
func openJKS(data []byte, ref Ref) (*Store, error) {
	entries, size, err := parseJKS(data)
	if err != nil {
		return nil, err
	}
	h := sha1.New()
	h.Write(utf16Bytes(ref.Password))
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(data[:size])
	if subtle.ConstantTimeCompare(h.Sum(nil), data[size:size+sha1.Size]) != 1 {
		return nil, wrongPassword(ref)
	}
	s := &Store{}
	for _, e := range entries {
		var chain []certificate
		for _, der := range e.certificates {
			cert, err := readCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("entry %q: %w", e.alias, err)
			}
			chain = append(chain, cert)
		}
		if e.sealed == nil {
			s.put(newEntry(e.alias, TrustedCertificate, chain...))
			continue
		}
		key := newEntry(e.alias, PrivateKey, chain...)
		key.open = func() (crypto.PrivateKey, error) { return openJKSKey(e.sealed, ref) }
		s.put(key)
	}
	return s, nil
}

// A jksEntry is one entry as it stands in the file. Its slices point into the file.
type jksEntry struct {
	alias        string
	sealed       []byte // EncryptedPrivateKeyInfo; nil in a trusted-certificate entry
	certificates [][]byte
}

// errShort is the error for a file that ends too early.
var errShort = unusable("JKS: file cut short, put it back whole")

// parseJKS reads the structure and how many bytes it takes up to the digest; it checks neither password nor
// certificates.
func parseJKS(data []byte) (entries []jksEntry, size int, err error) {
	if len(data) < 12+sha1.Size {
		return nil, 0, errShort
	}
	r := &reader{data: data[4 : len(data)-sha1.Size]}
	version := r.uint32()
	if version != 1 && version != 2 {
		return nil, 0, unusable("JKS: unknown version %d", version)
	}
	count := r.uint32()
	if count > MaxEntries {
		return nil, 0, unusable("JKS: %d entries, at most %d are read", count, MaxEntries)
	}
	certificates := 0
	for range count {
		tag := r.uint32()
		e := jksEntry{alias: javaText(r.bytes(int(r.uint16())))}
		r.bytes(8) // creation time
		n := uint32(1)
		switch {
		case r.short:
		case tag == jksKey:
			e.sealed = r.bytes(int(r.uint32()))
			n = r.uint32()
		case tag == jksTrusted:
		default:
			return nil, 0, unusable("JKS: entry %q: unknown kind %d", e.alias, tag)
		}
		for range n {
			if r.short {
				return nil, 0, errShort
			}
			if certificates++; certificates > MaxEntries {
				return nil, 0, unusable("JKS: more than %d certificates", MaxEntries)
			}
			if version == 2 {
				if kind := r.bytes(int(r.uint16())); !r.short && !isX509(kind) {
					return nil, 0, unusable("JKS: entry %q: certificate of type %q", e.alias, kind)
				}
			}
			e.certificates = append(e.certificates, r.bytes(int(r.uint32())))
		}
		entries = append(entries, e)
	}
	if r.short {
		return nil, 0, errShort
	}
	return entries, len(data) - sha1.Size - len(r.data), nil
}

// isX509 reports whether Java has a reader of X.509 by this name.
func isX509(name []byte) bool {
	return strings.EqualFold(string(name), "X.509") || strings.EqualFold(string(name), "X509")
}

// javaText decodes Java's own UTF-8, in which zero takes two bytes and a character beyond 16 bits two surrogates of
// three bytes each.
func javaText(b []byte) string {
	var units []uint16
	for n := 0; n < len(b); {
		switch {
		case b[n]&0xe0 == 0xc0 && n+1 < len(b):
			units = append(units, uint16(b[n]&0x1f)<<6|uint16(b[n+1]&0x3f))
			n += 2
		case b[n]&0xf0 == 0xe0 && n+2 < len(b):
			units = append(units, uint16(b[n]&0xf)<<12|uint16(b[n+1]&0x3f)<<6|uint16(b[n+2]&0x3f))
			n += 3
		default:
			units = append(units, uint16(b[n]))
			n++
		}
	}
	return string(utf16.Decode(units))
}

// A reader consumes fields of data. Once one is longer than the rest, short is set and all further fields are empty.
type reader struct {
	data  []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if r.short || n < 0 || n > len(r.data) {
		r.short = true
		return nil
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// oidJavaKeyProtector marks a key sealed by sun.security.provider.KeyProtector.
var oidJavaKeyProtector = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1}

// openJKSKey unseals a key: salt, the PKCS #8 key under a key stream of chained SHA-1, and a SHA-1 over password and
// key.
func openJKSKey(sealed []byte, ref Ref) (crypto.PrivateKey, error) {
	var info struct {
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Data []byte
	}
	rest, err := asn1.Unmarshal(sealed, &info)
	if err != nil || len(rest) != 0 {
		return nil, unusable("sealed key: not an EncryptedPrivateKeyInfo")
	}
	if !info.Algorithm.ID.Equal(oidJavaKeyProtector) {
		return nil, unusable("sealed key: unknown algorithm %s", info.Algorithm.ID)
	}
	if len(info.Data) < 2*sha1.Size {
		return nil, unusable("sealed key: cut short")
	}
	secret := utf16Bytes(keyPassword(ref))
	digest, covered := info.Data[:sha1.Size], info.Data[sha1.Size:len(info.Data)-sha1.Size]
	plain := make([]byte, 0, len(covered)+sha1.Size)
	for len(plain) < len(covered) {
		sum := sha1.Sum(append(bytes.Clone(secret), digest...))
		digest = sum[:]
		plain = append(plain, digest...)
	}
	plain = plain[:len(covered)]
	subtle.XORBytes(plain, plain, covered)
	check := sha1.Sum(append(bytes.Clone(secret), plain...))
	if subtle.ConstantTimeCompare(check[:], info.Data[len(info.Data)-sha1.Size:]) != 1 {
		return nil, wrongKeyPassword(ref)
	}
	key, err := parseKey(plain)
	if errors.Is(err, errNoKey) {
		return nil, unusable("sealed key: %w", err)
	}
	return key, err
}

// utf16Bytes returns a password as Java hashes it: UTF-16, high byte first.
func utf16Bytes(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.BigEndian.AppendUint16(b, u)
	}
	return b
}
