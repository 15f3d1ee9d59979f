package decision

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/maypok86/otter/v2"

	"sallyport/certstore"
	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy/ratelimit"
)

// maxAdmitted is how many certificates that registered CAs have issued keep their bucket at hand. Of the others it is
// fetched from the Limiter, which forgets none that isn't full again.
const maxAdmitted = 1 << 16

// admitted is a certificate that a registered CA has issued, under its registration.
type admitted struct {
	by   *certstore.Client
	leaf [sha256.Size]byte
}

// An admission is under which registration a certificate may call, and what it takes from then.
type admission struct {
	client *certstore.Client
	bucket ratelimit.Bucket // nil: unlimited
}

// signs reports whether a certificate is a CA's.
func signs(cert *x509.Certificate) bool {
	return cert.BasicConstraintsValid && cert.IsCA && (cert.KeyUsage == 0 || cert.KeyUsage&x509.KeyUsageCertSign != 0)
}

// Issuers are the registered CAs that admit what they have issued; nil: none does.
func (c *Clients) Issuers() *trust.Issuers {
	if !c.ChainValidation {
		return nil
	}
	return c.issuers
}

// adoptIssuers takes over from before what is the same.
func (c *Clients) adoptIssuers(before *Clients) {
	switch {
	case before != nil && slices.Equal(c.cas, before.cas):
		c.issuers = before.issuers
	case len(c.cas) > 0:
		var certs []*x509.Certificate
		for _, ca := range c.cas {
			certs = append(certs, ca.Certificate)
		}
		c.issuers = trust.NewIssuers(certs)
	}
	if before != nil && before.tiers == c.tiers && before.limits == c.limits {
		c.admitted = before.admitted
	}
	if c.admitted == nil && c.issuers != nil {
		c.admitted = otter.Must(&otter.Options[admitted, *admission]{MaximumSize: maxAdmitted})
	}
}

// issued reports whether a registered CA has issued the certificate, which may not be good yet: its connection keeps it.
func (c *Clients) issued(cert *clientcert.Certificate) bool {
	return c.Issuers() != nil && cert.Under(func(by *trust.Issuer) bool {
		registered := c.prints[by.Fingerprint]
		return registered != nil && signs(registered.Certificate)
	})
}

// admit finds the registration that admits a certificate to an API at now: its own, whatever that says, or else that of
// a CA by way of which it is good: of the path that lasts longest first, and there of the nearest. The error says why there
// is none. That the certificate's status is unknown it says only of one that would be admitted if it were good.
func (c *Clients) admit(api certstore.API, cert *clientcert.Certificate, now time.Time) (admission, error) {
	err := cert.Check(now)
	own, unfound := c.find(api, cert.Fingerprint, now)
	switch {
	case unfound == nil && err == nil:
		return admission{own, c.buckets[own]}, nil
	case unfound == nil:
		return admission{}, err
	case unfound != errUnregistered || c.Issuers() == nil:
		return admission{}, unfound
	}
	unknown := trust.CauseOf(err) == trust.StatusUnknown
	if err != nil && !unknown {
		return admission{}, err
	}
	var by admission
	why := error(errUnregistered)
	admits := func(issuer *trust.Issuer) bool {
		ca, err := c.find(api, issuer.Fingerprint, now)
		if err == nil && !signs(ca.Certificate) {
			err = errUnregistered
		}
		if err == nil {
			by, err = c.under(ca, cert)
		}
		if err != errUnregistered && why == error(errUnregistered) {
			why = err
		}
		return err == nil
	}
	if unknown {
		cert.MightBeIssuedBy(now, admits)
	} else {
		cert.IssuedBy(now, admits)
	}
	switch {
	case by.client == nil:
		return admission{}, why
	case err != nil:
		return admission{}, err
	}
	return by, nil
}

// under is the admission of a certificate that the CA of a registration has issued: with a bucket of its own.
func (c *Clients) under(ca *certstore.Client, cert *clientcert.Certificate) (admission, error) {
	key := admitted{ca, cert.Fingerprint}
	if known, ok := c.admitted.GetIfPresent(key); ok {
		return *known, nil
	}
	if err := ca.Matcher().AdmitsFacts(cert.Facts()); err != nil {
		return admission{}, fmt.Errorf("of the certificates that %s has issued, its registration does not admit this one: %w", ca.Alias, err)
	}
	now := &admission{client: ca}
	if tier, ok := c.tiers.Find(ca.Tier); ok {
		bucket := clientKey(ca)
		bucket.Name += "/" + hex.EncodeToString(cert.Fingerprint[:]) // no alias has a slash
		now.bucket = c.limits.Bucket(bucket, tier)
	}
	c.admitted.Set(key, now)
	return *now, nil
}

// holdsIssued reports whether the limit of a certificate that a CA has issued, named by its SHA-256 in hexadecimal, is at hand.
func (c *Clients) holdsIssued(ca *certstore.Client, leaf string) bool {
	key := admitted{by: ca}
	if n, err := hex.Decode(key.leaf[:], []byte(leaf)); err != nil || n != len(key.leaf) || ca == nil || c.admitted == nil {
		return false
	}
	_, ok := c.admitted.GetEntryQuietly(key)
	return ok
}
