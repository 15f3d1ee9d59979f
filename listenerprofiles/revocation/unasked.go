package revocation

import (
	"crypto/x509"
	"errors"
	"time"
)

var errUnasked = errors.New("nothing but its registration vouches for it: its issuer, who could be asked, is in no trust store")

// Unasked is the answer about a certificate of which nobody can be asked, since its issuer is not known: Unknown, or Good
// where the policy is soft.
func (c *Checker) Unasked(cert *x509.Certificate, now time.Time) Answer {
	if c == nil || !c.policy.LooksUp() || c.policy.Soft {
		return Answer{Status: Good, Until: now.Add(forever)}
	}
	return Answer{Until: now.Add(forever), Err: &certificateError{cert: cert, err: errUnasked}}
}
