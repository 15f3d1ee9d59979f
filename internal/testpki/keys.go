package testpki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
)

// NewKey makes a P-256 key, the kind that is made fastest.
func NewKey(t T) *ecdsa.PrivateKey {
	t.Helper()
	return NewEC(t, elliptic.P256())
}

// NewEC makes a key on a curve.
func NewEC(t T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatalf("make a key on %s: %v", curve.Params().Name, err)
	}
	return key
}

// NewRSA makes an RSA key, which takes a thousand times as long as an elliptic one.
func NewRSA(t T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatalf("make an RSA key of %d bits: %v", bits, err)
	}
	return key
}

// NewEd25519 makes an Ed25519 key.
func NewEd25519(t T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("make an Ed25519 key: %v", err)
	}
	return key
}
