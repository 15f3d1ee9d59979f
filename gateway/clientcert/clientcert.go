// Package clientcert is the caller's certificate and its proof: from the handshake, or from a load balancer's header.
package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"sallyport/listenerprofiles/trust"
)

// A Certificate is what a caller presented, and whether it can be trusted. Which APIs accept it is not decided here.
// It never changes, so all calls of a connection may share it.
type Certificate struct {
	Leaf        *x509.Certificate // nil if it is not trusted, or was not parsed
	Fingerprint [sha256.Size]byte // SHA-256 of the leaf's DER: the only identity there is

	validity trust.Validity // if it is not trusted: how long that is certain
	err      error
}

// Unregistered is a certificate that is not looked into, since no API knows it.
func Unregistered(fingerprint [sha256.Size]byte) *Certificate {
	return &Certificate{Fingerprint: fingerprint, validity: trust.Always, err: errNobodys}
}

var errNobodys = errors.New("certificate is registered for no API")

// errNoTrust is the result without a trust store: nothing is trusted then, rather than everything.
var errNoTrust = errors.New("no trust store is in force")

// FromChain returns the certificate that a chain from a TLS handshake, or from a header, begins with, verified against
// anchors at now; nil if there is none. The others are hints for building the path. In a handshake, where the chain is
// as crypto/tls reports it, the peer has proved to hold the first one's key.
func FromChain(chain []*x509.Certificate, anchors *trust.Anchors, now time.Time) *Certificate {
	if len(chain) == 0 {
		return nil
	}
	c := &Certificate{Fingerprint: sha256.Sum256(chain[0].Raw), validity: trust.Always, err: errNoTrust}
	if anchors == nil {
		return c
	}
	if c.validity, c.err = anchors.Verify(chain, now); c.err != nil {
		c.validity = anchors.Unchanged(chain, now)
		return c
	}
	c.Leaf = chain[0]
	return c
}

// Certain reports whether Check is right at now without another look at the chain: one that was not trusted, since not
// valid yet, may be by now.
func (c *Certificate) Certain(now time.Time) bool { return c.err == nil || c.validity.Contains(now) }

// Check returns nil if the certificate is trusted and within its validity, and that of its chain, at now.
// The error is for logs only: callers never learn what is wrong with a certificate.
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
