package keystore

import (
	"bytes"
	"crypto/cipher"
	"crypto/des"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"testing"
)

// TestEmptyPasswordsOfBothKinds: what is sealed under the empty password without the final zero opens, whatever the salt:
// one in 256 opens with the zero, too, as far as its padding tells.
func TestEmptyPasswordsOfBothKinds(t *testing.T) {
	key := appendValue(nil, tagSequence, bytes.Repeat([]byte{7}, 29)) // and one byte of padding
	padded := append(bytes.Clone(key), 1)
	for n := range uint64(4096) {
		salt := binary.BigEndian.AppendUint64(nil, n)
		block, err := des.NewTripleDESCipher(deriveSHA1(useKey, nil, salt, 1, 24))
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, len(padded))
		cipher.NewCBCEncrypter(block, deriveSHA1(useIV, nil, salt, 1, 8)).CryptBlocks(data, padded)
		params, err := asn1.Marshal(struct {
			Salt       []byte
			Iterations int
		}{salt, 1})
		if err != nil {
			t.Fatal(err)
		}
		der, err := asn1.Marshal(pkix.AlgorithmIdentifier{
			Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3}, Parameters: asn1.RawValue{FullBytes: params},
		})
		if err != nil {
			t.Fatal(err)
		}
		s, err := sealingOf(der)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := s.open("", data); err != nil || !bytes.Equal(plain, key) {
			t.Fatalf("salt %d: %x, %v", n, plain, err)
		}
	}
}
