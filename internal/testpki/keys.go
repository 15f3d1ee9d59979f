package testpki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"sync"
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

//go:embed rsa8192.pem
var rsa8192 []byte

// RSA8192 is the largest RSA key that crypto/tls takes, always the same: to make one takes half a minute.
var RSA8192 = sync.OnceValue(func() *rsa.PrivateKey {
	block, _ := pem.Decode(rsa8192)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		Panic.Fatalf("read the RSA key of 8192 bits: %v", err)
	}
	return key.(*rsa.PrivateKey)
})

// NewEd25519 makes an Ed25519 key.
func NewEd25519(t T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("make an Ed25519 key: %v", err)
	}
	return key
}
