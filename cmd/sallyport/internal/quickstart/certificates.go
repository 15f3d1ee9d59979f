package quickstart

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"time"

	"sallyport/certstore"
)

// organization stands in every subject, so that nobody takes these certificates for real ones.
const organization = "Sallyport quickstart"

// A client is one caller of the demonstration.
type client struct {
	name    string
	tier    string // of its registrations; "" means that no API knows it
	expired bool   // its certificate has ended
	forge   string // the client whose subject and serial number it claims, in a certificate of its own making
	alone   bool   // signed by itself, not by the CA
}

// clients are the callers, those that others forge first.
var clients = []client{
	{name: "gold", tier: "Gold"},
	{name: "bronze", tier: "Bronze"},
	{name: "trial", tier: "Trial"},
	{name: "trial2", tier: "Trial"},
	{name: "unregistered"},
	{name: "expired", tier: "Bronze", expired: true},
	{name: "rogue", forge: "gold", alone: true},
	{name: "loadbalancer", alone: true},
}

// clientAPIs are the APIs for which clients with a tier are registered.
var clientAPIs = []certstore.API{{Name: "orders", Version: "1.0.0"}, {Name: "payments", Version: "1.0.0"}}

func (c client) certificateFile() string { return "clients/" + c.name + ".crt" }
func (c client) keyFile() string         { return "clients/" + c.name + ".key" }

// fillCertificates makes the authority, the gateway's and the clients' certificates and the keystores,
// and returns what the store is to hold.
func fillCertificates(f *folder, now time.Time) ([]certstore.Client, error) {
	ca, err := newAuthority(now)
	if err != nil {
		return nil, err
	}
	if err := f.writePair(fileCA, fileCAKey, ca); err != nil {
		return nil, err
	}
	gateway, err := sign(serverTemplate(now), ca)
	if err != nil {
		return nil, err
	}
	if err := f.writeKeyStore(fileGateway, passGateway, gateway, now); err != nil {
		return nil, err
	}
	if err := f.writeTrustStore(fileClientTrust, passClientTrust, "quickstart-ca", ca.certificate, now); err != nil {
		return nil, err
	}

	pairs := map[string]*pair{}
	var registrations []certstore.Client
	for _, c := range clients {
		template := clientTemplate(c, now)
		if c.forge != "" {
			template.Subject, template.SerialNumber = pairs[c.forge].certificate.Subject, pairs[c.forge].certificate.SerialNumber
		}
		issuer := ca
		if c.alone {
			issuer = nil
		}
		p, err := sign(template, issuer)
		if err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", c.name, err)
		}
		pairs[c.name] = p
		if err := f.writePair(c.certificateFile(), c.keyFile(), p); err != nil {
			return nil, err
		}
		if c.tier == "" {
			continue
		}
		for _, api := range clientAPIs {
			registrations = append(registrations, certstore.Client{
				API: api, Alias: c.name, KeyType: certstore.Production, Tier: c.tier, Certificate: p.certificate,
			})
		}
	}
	balancer := pairs["loadbalancer"].certificate
	if err := f.writeTrustStore(fileLBTrust, passLBTrust, "loadbalancer", balancer, now); err != nil {
		return nil, err
	}
	return registrations, nil
}

// A pair is a certificate and its key.
type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(now time.Time) (*pair, error) {
	return sign(&x509.Certificate{
		Subject: pkix.Name{Organization: []string{organization}, CommonName: "Sallyport quickstart CA"},
		// Early enough for the expired client, whose certificate was good within its time.
		NotBefore:             now.AddDate(0, 0, -31),
		NotAfter:              now.AddDate(authorityYears, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil)
}

func serverTemplate(now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{organization}, CommonName: "localhost"},
		NotBefore:   now.Add(-time.Hour),
		NotAfter:    now.AddDate(certificateYears, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
}

func clientTemplate(c client, now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{organization}, CommonName: c.name},
		NotBefore:   now.Add(-time.Hour),
		NotAfter:    now.AddDate(certificateYears, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if c.expired {
		t.NotBefore, t.NotAfter = now.AddDate(0, 0, -30), now.AddDate(0, 0, -1)
	}
	return t
}

// sign makes a P-256 key and its certificate, signed by issuer, or by the key itself if issuer is nil.
func sign(template *x509.Certificate, issuer *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	template.BasicConstraintsValid = true
	parent, signer := template, crypto.Signer(key)
	if issuer != nil {
		parent, signer = issuer.certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate back: %w", err)
	}
	return &pair{certificate: certificate, key: key}, nil
}

func (p *pair) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.certificate.Raw})
}

func (f *folder) writePair(certificateFile, keyFile string, p *pair) error {
	key, err := keyPEM(p.key)
	if err != nil {
		return err
	}
	if err := f.write(keyFile, key); err != nil {
		return err
	}
	return f.write(certificateFile, p.pem())
}

// keyPEM is the PKCS #8 form, which every tool reads.
func keyPEM(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
