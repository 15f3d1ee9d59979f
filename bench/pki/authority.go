package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/ocsp"
)

// An Authority is a CA, which also tells which of its certificates it has revoked.
type Authority struct {
	Certificate *x509.Certificate

	set *Set
	key *ecdsa.PrivateKey
}

// NewAuthority makes another CA, whose clients' files are in the folder of the Set.
func (s *Set) NewAuthority(name string) (*Authority, error) {
	c, key, err := issue(nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
	if err != nil {
		return nil, err
	}
	return &Authority{Certificate: c, set: s, key: key}, nil
}

// PEM returns the CA's certificate.
func (a *Authority) PEM() []byte { return certificatePEM(a.Certificate) }

// NewClient issues a client certificate, and writes clients/NAME.crt and clients/NAME.key. change may set its end and
// its responders; nil: neither.
func (a *Authority) NewClient(name string, change func(*x509.Certificate)) (tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"sallybench"}, CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	c, key, err := issue(a, template)
	if err != nil {
		return tls.Certificate{}, err
	}
	identity := tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
	return identity, a.set.writePair("clients/"+name, c, key)
}

// CRL signs the list with this number, in PEM.
func (a *Authority) CRL(number int64, revoked []*x509.Certificate) ([]byte, error) {
	now := time.Now()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.Add(life)}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.Certificate, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing a CRL: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// OCSP signs what a responder answers about the certificate with this serial number.
func (a *Authority) OCSP(serial *big.Int, revoked bool) ([]byte, error) {
	now := time.Now()
	answer := ocsp.Response{SerialNumber: serial, ThisUpdate: now, NextUpdate: now.Add(life)}
	if revoked {
		answer.Status, answer.RevokedAt = ocsp.Revoked, now
	}
	data, err := ocsp.CreateResponse(a.Certificate, a.Certificate, answer, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing an OCSP response: %w", err)
	}
	return data, nil
}
