// Package clientcert is the caller's certificate and its proof: from the handshake, or from a load balancer's header.
package clientcert

import (
	"context"
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

	validity       trust.Validity  // if it is not good: how long that is certain
	unchanged      trust.Validity  // if it is good: how long there are no other paths
	issuers        *trust.Issuers  // with which that was found
	registered     bool            // so was it, then
	byRegistration bool            // see ByRegistration
	standing       *trust.Standing // nil if it is not good
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
func Unregistered(fingerprint [sha256.Size]byte, known trust.Registrations) *Certificate {
	return &Certificate{Fingerprint: fingerprint, issuers: known.Issuers(), validity: trust.Always, err: errNobodys}
}

var errNobodys = errors.New("certificate is registered for no API")

// FromChain returns the certificate that a chain from a TLS handshake, or from a header, begins with, as rules judge it at
// now; nil if there is none. In a handshake, where the chain is as crypto/tls reports it, the peer has proved to hold the
// first one's key. A certificate that no API can admit is not looked into, unless demanded says that it has to be good.
func FromChain(chain []*x509.Certificate, rules *trust.Rules, known trust.Registrations, demanded bool, now time.Time) *Certificate {
	if len(chain) == 0 {
		return nil
	}
	fingerprint, issuers := sha256.Sum256(chain[0].Raw), known.Issuers()
	registered := known.Registered(fingerprint)
	if !registered && !demanded && !issuers.MayAdmit(chain, rules.Anchors) {
		return Unregistered(fingerprint, known)
	}
	c := &Certificate{Fingerprint: fingerprint, issuers: issuers, registered: registered}
	v, err := rules.Judge(chain, registered, issuers, now)
	if err != nil {
		c.validity, c.err = rules.Anchors.Unchanged(chain, issuers, now), err
		return c
	}
	c.Leaf, c.validity, c.byRegistration = chain[0], v.Validity, v.ByRegistration
	c.unchanged = rules.Anchors.Unchanged(chain, issuers, now)
	c.standing = rules.Standing(chain[0], v)
	return c
}

// Good is FromChain and Check for whoever asks once: why the certificate that chain begins with, and that is registered, is
// not good; nil if it is.
func Good(chain []*x509.Certificate, rules *trust.Rules, now time.Time) error {
	return FromChain(chain, rules, alone{}, true, now).Check(now)
}

// alone knows each certificate to be registered, and no CA.
type alone struct{}

func (alone) Registered([sha256.Size]byte) bool { return true }
func (alone) Issuers() *trust.Issuers           { return nil }

// ByRegistration reports whether the certificate is trusted because it is registered, and for no other reason: whoever
// does not know the registration has to refuse it.
func (c *Certificate) ByRegistration() bool { return c.byRegistration }

// Denied returns why the certificate is not good whatever Check says, a *trust.Fault, if a deny list names it or an issuer
// that vouches for it; else nil. It is asked for each call, by the list that is in force then: nothing of the answer is
// remembered.
func (c *Certificate) Denied(list *trust.Denials) error {
	if entry := c.standing.Denied(list); entry != nil {
		return trust.DeniedBy(entry)
	}
	return nil
}

// Describe tells by which paths a certificate that was found good is believed, and what is known of revocations on them, for
// people. Of any other Check tells.
func (c *Certificate) Describe(now time.Time) []string { return c.standing.Describe(now) }

// Certain reports whether Check is right at now, and with what is registered by now, without another look at the chain:
// one that was not trusted, since not valid yet, may be by now, and one that was may have another issuer.
func (c *Certificate) Certain(known trust.Registrations, now time.Time) bool {
	if c.issuers != known.Issuers() || !c.registered && known.Registered(c.Fingerprint) {
		return false
	}
	if c.err == nil {
		return c.unchanged.Contains(now)
	}
	return c.validity.Contains(now)
}

// Check returns nil if the certificate is good at now. It goes by what FromChain has found, by the time since, and by what
// issuers have revoked meanwhile. The error is for logs only: callers never learn what is wrong with a certificate.
func (c *Certificate) Check(now time.Time) error {
	switch {
	case c.err != nil:
		return c.err
	case now.Before(c.validity.From):
		return trust.Outside(trust.NotYetValid)
	case !now.Before(c.validity.Until):
		return trust.Outside(trust.Expired)
	}
	return c.standing.Check(now)
}

// Pending reports whether Await may find out more than Check knows.
func (c *Certificate) Pending(now time.Time) bool {
	return c.err == nil && c.validity.Contains(now) && c.standing.Pending(now)
}

// Await asks whoever may know whether the certificate is revoked, until ctx ends or the time for that is over.
func (c *Certificate) Await(ctx context.Context) { c.standing.Await(ctx) }

// Ask is Await that waits for nothing.
func (c *Certificate) Ask() { c.standing.Ask() }

// IssuedBy calls found for each CA by way of which the certificate is good at now, the nearest first, until found returns
// true. It reports whether any did.
func (c *Certificate) IssuedBy(now time.Time, found func(*trust.Issuer) bool) bool {
	return c.Check(now) == nil && c.standing.Issuers(now, found)
}

// MightBeIssuedBy is IssuedBy for a certificate of which it is not known whether it is revoked: if it turns out not to be.
func (c *Certificate) MightBeIssuedBy(now time.Time, found func(*trust.Issuer) bool) bool {
	return c.err == nil && c.validity.Contains(now) && c.standing.Unsettled(now, found)
}

// Under reports whether found reports true for a CA that the certificate leads to, whether it is good by way of it now or
// not: an issuer's word on it may be awaited yet.
func (c *Certificate) Under(found func(*trust.Issuer) bool) bool { return c.standing.Under(found) }
