package keystore

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// keyPassword is what seals the keys: KeyPassword, or the store's if there is none.
func keyPassword(ref Ref) string {
	if ref.KeyPassword != "" {
		return ref.KeyPassword
	}
	return ref.Password
}

// wrongPassword is the error for a password that does not open the store.
func wrongPassword(ref Ref) error {
	if ref.Password == "" {
		return fmt.Errorf("%w: no password is given", ErrPassword)
	}
	return fmt.Errorf("%w: try the password with keytool -list -keystore %s", ErrPassword, ref.Location)
}

// wrongKeyPassword is the error for a password that does not open a key.
func wrongKeyPassword(ref Ref) error {
	if ref.KeyPassword == "" {
		return fmt.Errorf("key password: %w: the key has a password of its own, name it as keyPassword or KeyPassword",
			ErrPassword)
	}
	return fmt.Errorf("key password: %w: if the key has none of its own, leave keyPassword or KeyPassword out", ErrPassword)
}

// errNoKey says that bytes are no PKCS #8 key, as those that a wrong password yields.
var errNoKey = errors.New("no PKCS #8 key")

// parseKey reads PrivateKeyInfo of PKCS #8.
func parseKey(der []byte) (crypto.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err == nil {
		return key, nil
	}
	var info struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
		Rest      []asn1.RawValue `asn1:"optional,omitempty,tag:0"`
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, errNoKey
	}
	return nil, unusable("a key of algorithm %s that can't be used here, take RSA, ECDSA on P-256, P-384 or P-521, or "+
		"Ed25519", info.Algorithm.Algorithm)
}
