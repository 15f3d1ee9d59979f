// Package clientcert is the caller's certificate and its proof: from the handshake, or from a load balancer's header.
package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"sallyport/listenerprofiles/keystore"
)

// A Certificate is what a caller presented, and whether it can be trusted; for which API it is good is not known here.
// It never changes, so that every call of a connection may share it.
type Certificate struct {
	Leaf        *x509.Certificate // nil if it came in a header and could not, or need not, be looked into
	Fingerprint [sha256.Size]byte // SHA-256 of the leaf's DER: the only identity there is

	validity keystore.Validity
	err      error
}

// errNoTrust is the answer where no trust store is in force: nothing is then trusted, rather than everything.
var errNoTrust = errors.New("no trust store is in force")

// FromHandshake is the certificate that the peer proved to hold in a TLS handshake, held against trust at now; nil if
// it presented none. The chain is as crypto/tls gives it: its first certificate is the one whose key signed, and the
// others are hints that may help to build the path.
func FromHandshake(chain []*x509.Certificate, trust *keystore.Trust, now time.Time) *Certificate {
	if len(chain) == 0 {
		return nil
	}
	return fromChain(chain, trust, now)
}

// fromChain is the one verifier of both doors.
func fromChain(chain []*x509.Certificate, trust *keystore.Trust, now time.Time) *Certificate {
	c := &Certificate{Leaf: chain[0], Fingerprint: sha256.Sum256(chain[0].Raw)}
	if trust == nil {
		c.err = errNoTrust
		return c
	}
	c.validity, c.err = trust.Verify(chain, now)
	return c
}

// Check returns nil if the certificate is trusted and within its validity, and that of its chain, at now.
// The error is for logs: a caller never learns what is wrong with its certificate.
func (c *Certificate) Check(now time.Time) error {
	switch {
	case c.err != nil:
		return c.err
	case now.Before(c.validity.From):
		return errors.New("certificate is not valid yet")
	case !now.Before(c.validity.Until):
		return errors.New("certificate has expired, or its chain has")
	}
	return nil
}
