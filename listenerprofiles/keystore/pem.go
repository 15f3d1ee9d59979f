package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

const pemBegin = "-----BEGIN "

// openPEM reads certificates and at most one private key. With a key, the certificates are its chain, leaf first;
// without one they are trusted. Text between the blocks is skipped; an unreadable block is an error.
func openPEM(data []byte) (*Store, error) {
	var certs []certificate
	var key crypto.PrivateKey
	begun := bytes.Count(data, []byte(pemBegin))
	for n := 1; ; n++ {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		begun--
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
			cert, err := readCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("PEM block %d: %w", n, err)
			}
			if cert.err != nil {
				cert.err = fmt.Errorf("PEM block %d: %w", n, cert.err)
			}
			if len(certs) == MaxEntries {
				return nil, unusable("PEM: more than %d certificates", MaxEntries)
			}
			certs = append(certs, cert)
		case "EC PARAMETERS": // openssl ecparam writes it before the key, which repeats it
		case "ENCRYPTED PRIVATE KEY":
			return nil, unusable("PEM block %d: encrypted private keys are not read, write it plain: openssl pkey "+
				"-in ENCRYPTED -out PLAIN", n)
		default:
			k, err := parsePEMKey(block)
			if err != nil {
				return nil, fmt.Errorf("PEM block %d: %w", n, err)
			}
			if key != nil {
				return nil, unusable("PEM block %d: a second private key", n)
			}
			key = k
		}
	}
	if begun != 0 {
		return nil, unusable("PEM: %d blocks are damaged or cut short", begun)
	}
	s := &Store{}
	if key == nil {
		for _, cert := range certs {
			s.entries = append(s.entries, newEntry("", TrustedCertificate, cert))
		}
		return s, nil
	}
	e := newEntry("", PrivateKey, certs...)
	e.open = func() (crypto.PrivateKey, error) { return key, nil }
	s.entries = []entry{e}
	return s, nil
}

func parsePEMKey(block *pem.Block) (key crypto.PrivateKey, err error) {
	if block.Headers["DEK-Info"] != "" {
		return nil, unusable("encrypted private keys are not read, write it plain: openssl pkey -in ENCRYPTED -out " +
			"PLAIN")
	}
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, unusable("%q is neither a certificate nor a private key", block.Type)
	}
	if err != nil {
		return nil, unusable("%q can't be read", block.Type)
	}
	return key, nil
}
