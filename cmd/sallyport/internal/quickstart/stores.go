package quickstart

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
)

// keyAlias names the gateway's key in its keystore.
const keyAlias = "gateway"

// writeKeyStore writes p as the one key entry of a JKS file. Key and file share the password, as most of Java's tools want it.
func (f *folder) writeKeyStore(name, passwordFile string, p *pair, now time.Time) error {
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return fmt.Errorf("encoding a key: %w", err)
	}
	return f.writeJKS(name, passwordFile, func(store keystore.KeyStore, password []byte) error {
		return store.SetPrivateKeyEntry(keyAlias, keystore.PrivateKeyEntry{
			CreationTime:     now,
			PrivateKey:       key,
			CertificateChain: []keystore.Certificate{{Type: "X.509", Content: p.certificate.Raw}},
		}, password)
	})
}

// writeTrustStore writes a JKS file that trusts certificate alone.
func (f *folder) writeTrustStore(name, passwordFile, alias string, certificate *x509.Certificate, now time.Time) error {
	return f.writeJKS(name, passwordFile, func(store keystore.KeyStore, _ []byte) error {
		return store.SetTrustedCertificateEntry(alias, keystore.TrustedCertificateEntry{
			CreationTime: now,
			Certificate:  keystore.Certificate{Type: "X.509", Content: certificate.Raw},
		})
	})
}

// writeJKS writes a JKS file with a password of its own, and the password beside it.
func (f *folder) writeJKS(name, passwordFile string, add func(keystore.KeyStore, []byte) error) error {
	password := []byte(newSecret())
	store := keystore.New()
	if err := add(store, password); err != nil {
		return fmt.Errorf("keystore %s: %w", name, err)
	}
	var data bytes.Buffer
	if err := store.Store(&data, password); err != nil {
		return fmt.Errorf("keystore %s: %w", name, err)
	}
	if err := f.write(passwordFile, append(password, '\n')); err != nil {
		return err
	}
	return f.write(name, data.Bytes())
}
