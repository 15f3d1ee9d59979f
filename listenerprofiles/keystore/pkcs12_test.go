package keystore

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// tlv is a value of DER that holds parts.
func tlv(tag byte, parts ...[]byte) []byte { return appendValue(nil, tag, bytes.Join(parts, nil)) }

// A file that asks for years of hashing is refused before any is done, wherever it asks.
func TestHostileIterations(t *testing.T) {
	oid := func(id ...int) []byte { return marshal(t, asn1.ObjectIdentifier(id)) }
	salt := tlv(tagOctetString, []byte("salt"))
	sha1PBE := func(n int) []byte {
		return tlv(tagSequence, oid(1, 2, 840, 113549, 1, 12, 1, 3), tlv(tagSequence, salt, marshal(t, n)))
	}
	aes := func(n int) []byte {
		kdf := tlv(tagSequence, marshal(t, oidPBKDF2), tlv(tagSequence, salt, marshal(t, n)))
		return tlv(tagSequence, marshal(t, oidPBES2), tlv(tagSequence, kdf,
			tlv(tagSequence, marshal(t, oidAES256CBC), tlv(tagOctetString, make([]byte, 16)))))
	}
	encrypted := func(algorithm []byte) []byte {
		info := tlv(tagSequence, marshal(t, oidData), algorithm, tlv(0x80, make([]byte, 16)))
		return tlv(tagSequence, marshal(t, oidEncryptedData), tlv(tagContext0, tlv(tagSequence, marshal(t, 0), info)))
	}
	safe := func(bags ...[]byte) []byte {
		return tlv(tagSequence, marshal(t, oidData), tlv(tagContext0, tlv(tagOctetString, tlv(tagSequence, bags...))))
	}
	certificate, err := os.ReadFile("testdata/leaf.der")
	if err != nil {
		t.Fatal(err)
	}
	id := tlv(tagSet, tlv(tagSequence, marshal(t, oidLocalKeyID), tlv(tagSet, tlv(tagOctetString, []byte("id")))))
	cert := tlv(tagSequence, marshal(t, oidCertBag), tlv(tagContext0, tlv(tagSequence, marshal(t, oidCertBag),
		tlv(tagContext0, tlv(tagOctetString, certificate)))), id)
	key := func(algorithm []byte) []byte {
		sealed := tlv(tagSequence, algorithm, tlv(tagOctetString, make([]byte, 16)))
		return tlv(tagSequence, marshal(t, oidSealedKeyBag), tlv(tagContext0, sealed), id)
	}
	file := func(mac []byte, safes ...[]byte) []byte {
		content := tlv(tagContext0, tlv(tagOctetString, tlv(tagSequence, safes...)))
		return tlv(tagSequence, marshal(t, 3), tlv(tagSequence, marshal(t, oidData), content), mac)
	}
	mac := func(n int) []byte {
		sha1 := tlv(tagSequence, oid(1, 3, 14, 3, 2, 26))
		return tlv(tagSequence, tlv(tagSequence, sha1, tlv(tagOctetString, make([]byte, 20))), salt, marshal(t, n))
	}
	few := encrypted(sha1PBE(1))
	for name, data := range map[string][]byte{
		"MAC":                  file(mac(1<<31), few),
		"MAC, beyond 32 bits":  file(mac(math.MaxInt64), few),
		"MAC, negative":        file(mac(-1), few),
		"MAC, zero":            file(mac(0), few),
		"encrypted data":       file(nil, encrypted(sha1PBE(1<<31))),
		"encrypted data PBES2": file(nil, encrypted(aes(1<<31))),
		"a key":                file(nil, safe(cert, key(aes(1<<31)))),
		"a key, old algorithm": file(nil, safe(cert, key(sha1PBE(1<<31)))),
	} {
		s, err := Open(data, Ref{Password: "x"})
		if err == nil {
			_, err = s.KeyPairs("", time.Unix(0, 0))
		}
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "iterations") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(file(mac(1000), few), Ref{Password: "x"}); !errors.Is(err, ErrPassword) {
		t.Errorf("a file with a bearable count: %v", err)
	}
	if _, err := readPKCS12(file(mac(1000), few), Ref{Password: "x"}, 999); !errors.Is(err, ErrFormat) {
		t.Errorf("a file beyond what may be done in all: %v", err)
	}
}

// Lengths within the DER, set to anything, lead to an error and to no allocation of that size.
func TestHostileDER(t *testing.T) {
	data, err := os.ReadFile("testdata/openssl-nopassword.p12")
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		for _, hostile := range []string{"\x84\x7f\xff\xff\xff", "\x84\xff\xff\xff\xff", "\x80", "\xff", "\x00"} {
			changed := bytes.Clone(data)
			copy(changed[n:], hostile)
			if s, err := Open(changed, Ref{}); err == nil {
				_, _ = s.KeyPairs("", time.Now())
			}
		}
	}
}
