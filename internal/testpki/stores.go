package testpki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"
)

// Alias is the alias of a key in the stores that have aliases.
const Alias = "gateway"

// PEM is a trust store of type PEM: certificates one after the other.
func PEM(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer takes all
	}
	return out.Bytes()
}

// PEM is a key store of type PEM: the chain and the key.
func (i *Identity) PEM() []byte {
	i.t.Helper()
	return append(PEM(i.Chain()...), i.KeyPEM()...)
}

// TrustJKS is a trust store of type JKS. The aliases are trusted0, trusted1 and so on.
func TrustJKS(t T, password string, certs ...*x509.Certificate) []byte {
	t.Helper()
	var ders [][]byte
	for _, c := range certs {
		ders = append(ders, c.Raw)
	}
	return TrustJKSDER(t, password, ders...)
}

// TrustJKSDER is TrustJKS for certificates that crypto/x509 does not read.
func TrustJKSDER(t T, password string, ders ...[]byte) []byte {
	t.Helper()
	store := jks.New()
	for n, der := range ders {
		if err := store.SetTrustedCertificateEntry(fmt.Sprint("trusted", n), jks.TrustedCertificateEntry{
			CreationTime: time.Unix(1e9, 0),
			Certificate:  jks.Certificate{Type: "X.509", Content: der},
		}); err != nil {
			t.Fatalf("put certificate %d into a JKS: %v", n, err)
		}
	}
	return writeJKS(t, store, password)
}

// JKS is a key store of type JKS with the chain and the key. The password is the store's and the key's.
func (i *Identity) JKS(password string) []byte {
	i.t.Helper()
	entry := jks.PrivateKeyEntry{CreationTime: time.Unix(1e9, 0), PrivateKey: i.pkcs8()}
	for _, c := range i.Chain() {
		entry.CertificateChain = append(entry.CertificateChain, jks.Certificate{Type: "X.509", Content: c.Raw})
	}
	store := jks.New()
	if err := store.SetPrivateKeyEntry(Alias, entry, []byte(password)); err != nil {
		i.t.Fatalf("put the key of %s into a JKS: %v", i.Cert.Subject, err)
	}
	return writeJKS(i.t, store, password)
}

func writeJKS(t T, store jks.KeyStore, password string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := store.Store(&out, []byte(password)); err != nil {
		t.Fatalf("write a JKS: %v", err)
	}
	return out.Bytes()
}

// TrustPKCS12 is a trust store of type PKCS12, as keytool writes it.
func TrustPKCS12(t T, password string, certs ...*x509.Certificate) []byte {
	t.Helper()
	data, err := pkcs12.Modern.EncodeTrustStore(certs, password)
	if err != nil {
		t.Fatalf("write a PKCS12 trust store: %v", err)
	}
	return data
}

// PKCS12 is a key store of type PKCS12 with the chain and the key.
func (i *Identity) PKCS12(password string) []byte {
	i.t.Helper()
	data, err := pkcs12.Modern.Encode(i.Key, i.Cert, i.Chain()[1:], password)
	if err != nil {
		i.t.Fatalf("write a PKCS12 key store for %s: %v", i.Cert.Subject, err)
	}
	return data
}
