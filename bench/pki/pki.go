// Package pki makes the certificates, keys and tokens of a measurement.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Files in the folder of a Set.
const (
	CA     = "ca.crt"
	CRL    = "ca.crl"     // what the CA has revoked: nothing
	Server = "server.pem" // certificate and key, which server.crt and server.key hold separately
)

// life is the validity of certificates and tokens, long enough for a soak.
const life = 30 * 24 * time.Hour

// A Set holds a CA, a server certificate for localhost and 127.0.0.1, client certificates, all with P-256 keys, and two
// issuers of tokens.
type Set struct {
	Folder     string
	Roots      *x509.CertPool
	Identities []tls.Certificate // in files clients/NAME.crt and clients/NAME.key
	Issuers    []*Issuer

	ca *Authority
}

// Name returns the common name of identity i, which is also its file name without extension.
func Name(i int) string { return fmt.Sprintf("client-%04d", i) }

// Make creates a Set with n client certificates in an existing folder.
func Make(folder string, n int) (*Set, error) {
	s := &Set{Folder: folder, Roots: x509.NewCertPool()}
	var err error
	if s.ca, err = s.NewAuthority("sallybench CA"); err != nil {
		return nil, err
	}
	s.Roots.AddCert(s.ca.Certificate)
	if err := s.write(CA, s.ca.PEM()); err != nil {
		return nil, err
	}
	list, err := s.ca.CRL(1, nil)
	if err != nil {
		return nil, err
	}
	if err := s.write(CRL, list); err != nil {
		return nil, err
	}
	if err := s.NewServer("server"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(folder, "clients"), 0o700); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	for i := range n {
		identity, err := s.NewClient(Name(i))
		if err != nil {
			return nil, err
		}
		s.Identities = append(s.Identities, identity)
	}
	return s, s.makeIssuers()
}

// NewServer issues a certificate for localhost and 127.0.0.1, and writes NAME.crt, NAME.key, and both in NAME.pem.
func (s *Set) NewServer(name string) error {
	c, key, err := issue(s.ca, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		return err
	}
	text, err := keyPEM(key)
	if err != nil {
		return err
	}
	if err := s.write(name+".pem", append(certificatePEM(c), text...)); err != nil {
		return err
	}
	return s.writePair(name, c, key)
}

// NewClient issues another client certificate, and writes clients/NAME.crt and clients/NAME.key.
func (s *Set) NewClient(name string) (tls.Certificate, error) { return s.ca.NewClient(name, nil) }

// issue signs a certificate by a CA; nil: by itself.
func issue(by *Authority, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, nil, fmt.Errorf("making a serial number: %w", err)
	}
	template.SerialNumber, template.BasicConstraintsValid = serial.Add(serial, big.NewInt(1)), true
	template.NotBefore = time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(life)
	}
	if !template.IsCA {
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("signing a certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading a certificate back: %w", err)
	}
	return c, key, nil
}

func (s *Set) writePair(name string, c *x509.Certificate, key *ecdsa.PrivateKey) error {
	text, err := keyPEM(key)
	if err != nil {
		return err
	}
	if err := s.write(name+".key", text); err != nil {
		return err
	}
	return s.write(name+".crt", certificatePEM(c))
}

func (s *Set) write(name string, data []byte) error {
	if err := os.WriteFile(filepath.Join(s.Folder, name), data, 0o600); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	return nil
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func keyPEM(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// An Issuer signs tokens.
type Issuer struct {
	Name string // the algorithm in lower case: rs256, es256
	URL  string // the tokens' iss
	File string // its public key, in the Set's folder

	method jwt.SigningMethod
	key    crypto.Signer
}

func (s *Set) makeIssuers() error {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	s.Issuers = []*Issuer{
		{"rs256", "https://localhost/rs256", "rs256.pem", jwt.SigningMethodRS256, rsaKey},
		{"es256", "https://localhost/es256", "es256.pem", jwt.SigningMethodES256, ecKey},
	}
	for _, i := range s.Issuers {
		der, err := x509.MarshalPKIXPublicKey(i.key.Public())
		if err != nil {
			return fmt.Errorf("encoding a key: %w", err)
		}
		if err := s.write(i.File, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})); err != nil {
			return err
		}
	}
	return nil
}

// Tokens signs n different tokens.
func (i *Issuer) Tokens(n int) ([]string, error) {
	list := make([]string, n)
	for k := range list {
		now := time.Now()
		token := jwt.NewWithClaims(i.method, jwt.MapClaims{
			"iss":   i.URL,
			"sub":   Name(k),
			"aud":   "sallybench",
			"scope": "read write",
			"jti":   fmt.Sprintf("%s-%d", i.Name, k),
			"iat":   now.Unix(),
			"exp":   now.Add(life).Unix(),
		})
		var err error
		if list[k], err = token.SignedString(i.key); err != nil {
			return nil, fmt.Errorf("signing a token: %w", err)
		}
	}
	return list, nil
}
