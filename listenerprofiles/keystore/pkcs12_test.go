package keystore

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// explicit is der within [0].
func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

// A file that asks for years of hashing is refused before any is done, wherever it asks.
func TestHostileIterations(t *testing.T) {
	sha1PBE := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3}
	pbe := func(n int) pkix.AlgorithmIdentifier {
		return pkix.AlgorithmIdentifier{Algorithm: sha1PBE, Parameters: asn1.RawValue{FullBytes: marshal(t, struct {
			Salt       []byte
			Iterations int
		}{[]byte("salt"), n})}}
	}
	pbkdf2 := func(id asn1.ObjectIdentifier, n int) pkix.AlgorithmIdentifier {
		kdf := marshal(t, struct {
			Salt       []byte
			Iterations int
		}{[]byte("salt"), n})
		return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: marshal(t, struct{ KDF, Scheme pkix.AlgorithmIdentifier }{
			pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}, Parameters: asn1.RawValue{FullBytes: kdf}},
			pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}},
		})}}
	}
	encrypted := func(algorithm pkix.AlgorithmIdentifier) contentInfo {
		var e encryptedData
		e.Content.Type = oidData
		e.Content.Algorithm = algorithm
		e.Content.Data = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: make([]byte, 16)}
		return contentInfo{oidEncryptedData, explicit(marshal(t, e))}
	}
	keys := func(n int, algorithm pkix.AlgorithmIdentifier) contentInfo {
		bag := safeBag{ID: oidSealedKeyBag, Value: explicit(marshal(t, sealedKey{algorithm, make([]byte, 16)}))}
		var bags []safeBag
		for range n {
			bags = append(bags, bag)
		}
		return contentInfo{oidData, explicit(marshal(t, marshal(t, bags)))}
	}
	file := func(mac macData, safes ...contentInfo) []byte {
		return marshal(t, pfx{Version: 3, AuthSafe: contentInfo{oidData, explicit(marshal(t, marshal(t, safes)))}, MAC: mac})
	}
	mac := func(algorithm pkix.AlgorithmIdentifier, n int) (m macData) {
		m.MAC.Algorithm, m.MAC.Digest, m.Salt, m.Iterations = algorithm, make([]byte, 20), []byte("salt"), n
		return m
	}
	sha1 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}}
	few := encrypted(pbe(1))
	for name, data := range map[string][]byte{
		"MAC":                  file(mac(sha1, 1<<31), few),
		"MAC, beyond 32 bits":  file(mac(sha1, math.MaxInt64), few),
		"MAC, negative":        file(mac(sha1, -1), few),
		"MAC, zero":            file(mac(sha1, 0), few),
		"PBMAC1":               file(mac(pbkdf2(oidPBMAC1, 1<<31), 1), few),
		"encrypted data":       file(mac(sha1, 1), encrypted(pbe(1<<31))),
		"encrypted data PBES2": file(mac(sha1, 1), few, encrypted(pbkdf2(oidPBES2, 1<<31))),
		"a key":                file(mac(sha1, 1), few, keys(1, pbkdf2(oidPBES2, 1<<31))),
		"a key, old algorithm": file(mac(sha1, 1), keys(1, pbe(1<<31))),
		"many keys":            file(mac(sha1, 1), keys(1000, pbe(maxIterations))),
	} {
		_, err := Open(data, Ref{Password: "x"})
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "iterations") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(file(mac(sha1, 1000), few), Ref{Password: "x"}); !errors.Is(err, ErrPassword) {
		t.Errorf("a file with a bearable count: %v", err)
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
