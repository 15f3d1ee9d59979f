package fileset

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// Secret returns an error that names the first file that may hold a secret, nil if none does. What is known to hold none
// is text in .yaml, .yml and .xml without a private key, certificates and public keys in PEM, a certificate in DER, and
// JSON Web Keys without a private part. A key store in JKS or PKCS #12, and anything that is not known, may hold one.
func (s Set) Secret() error {
	for _, f := range s {
		if !public(f) {
			return fmt.Errorf("%s: it may hold a secret, as a private key, and would be readable in the store: "+
				"have sallyport config key make a key, and name it as gateway.config.keyFile", f.Path)
		}
	}
	return nil
}

func public(f File) bool {
	if bytes.Contains(f.Content, []byte("PRIVATE KEY")) || bytes.Contains(f.Content, []byte("AGE-SECRET-KEY")) {
		return false
	}
	switch strings.ToLower(path.Ext(f.Path)) {
	case ".yaml", ".yml", ".xml":
		return utf8.Valid(f.Content) && !bytes.ContainsRune(f.Content, 0)
	}
	if _, err := x509.ParseCertificate(f.Content); err == nil {
		return true
	}
	return publicPEM(f.Content) || publicJWKS(f.Content)
}

func publicPEM(data []byte) bool {
	found := false
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return found
		}
		switch block.Type {
		case "CERTIFICATE", "TRUSTED CERTIFICATE", "PUBLIC KEY", "RSA PUBLIC KEY", "X509 CRL":
			found = true
		default:
			return false
		}
		data = rest
	}
}

func publicJWKS(data []byte) bool {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if json.Unmarshal(data, &set) != nil || len(set.Keys) == 0 {
		return false
	}
	for _, key := range set.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
			if _, has := key[private]; has {
				return false
			}
		}
	}
	return true
}
