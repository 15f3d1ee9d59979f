// Package clientcert is the caller's certificate and its proof: from the handshake, or from a load balancer's header.
package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"sallyport/listenerprofiles/trust"
	"sallyport/policy/certrule"
)

// A Certificate is what a caller presented, and whether it can be trusted. Which APIs accept it is not decided here.
// It never changes, so all calls of a connection may share it.
type Certificate struct {
	Leaf        *x509.Certificate // nil if it is not trusted, or was not parsed
	Fingerprint [sha256.Size]byte // SHA-256 of the leaf's DER: the only identity there is

	validity       trust.Validity // if it is not good: how long that is certain
	byRegistration bool           // see ByRegistration
	err            error

	end   atomic.Pointer[string]         // see End; nil: nobody has asked
	facts atomic.Pointer[certrule.Facts] // see Facts; nil: nobody has asked
}

// End is when the certificate ends, as headers tell it (HTTP-date, RFC 9110 section 5.6.7); "" if it was not parsed. It
// is rendered once.
func (c *Certificate) End() string {
	end := c.end.Load()
	if end == nil {
		end = new(string)
		if c.Leaf != nil {
			*end = c.Leaf.NotAfter.UTC().Format(http.TimeFormat)
		}
		c.end.Store(end)
	}
	return *end
}

// Facts are what the certificate says, nothing if it was not parsed. They are read once.
func (c *Certificate) Facts() *certrule.Facts {
	facts := c.facts.Load()
	if facts == nil {
		facts = certrule.FactsOf(c.Leaf)
		c.facts.Store(facts)
	}
	return facts
}

// Unregistered is a certificate that is not looked into, since no API knows it.
func Unregistered(fingerprint [sha256.Size]byte) *Certificate {
	return &Certificate{Fingerprint: fingerprint, validity: trust.Always, err: errNobodys}
}

var errNobodys = errors.New("certificate is registered for no API")

// FromChain returns the certificate that a chain from a TLS handshake, or from a header, begins with, as trust.Judge
// judges it at now by anchors and, if it is registered for an API, by what its registration counts for; nil if there is
// none. In a handshake, where the chain is as crypto/tls reports it, the peer has proved to hold the first one's key.
func FromChain(chain []*x509.Certificate, anchors *trust.Anchors, registered bool, by trust.Registered, now time.Time) *Certificate {
	if len(chain) == 0 {
		return nil
	}
	c := &Certificate{Fingerprint: sha256.Sum256(chain[0].Raw)}
	v, err := trust.Judge(chain, anchors, registered, by, now)
	if err != nil {
		c.validity, c.err = anchors.Unchanged(chain, now), err
		return c
	}
	c.Leaf, c.validity, c.byRegistration = chain[0], v.Validity, v.ByRegistration
	return c
}

// ByRegistration reports whether the certificate is trusted because it is registered, and for no other reason: whoever
// does not know the registration has to refuse it.
func (c *Certificate) ByRegistration() bool { return c.byRegistration }

// Certain reports whether Check is right at now without another look at the chain: one that was not trusted, since not
// valid yet, may be by now.
func (c *Certificate) Certain(now time.Time) bool { return c.err == nil || c.validity.Contains(now) }

// Check returns nil if the certificate is good at now. It goes by what FromChain has found, and by the time since.
// The error is for logs only: callers never learn what is wrong with a certificate.
func (c *Certificate) Check(now time.Time) error {
	switch {
	case c.err != nil:
		return c.err
	case now.Before(c.validity.From):
		return trust.Outside(trust.NotYetValid)
	case !now.Before(c.validity.Until):
		return trust.Outside(trust.Expired)
	}
	return nil
}
