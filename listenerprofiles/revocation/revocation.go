// Package revocation answers whether issuers have revoked certificates, by CRLs (RFC 5280) and OCSP (RFC 6960).
package revocation

import (
	"context"
	"crypto/x509"
	"time"
)

// A Policy is how certificates are looked up: `revocation` of a listener or of mutualSSL, or the element
// CertificateRevocationVerifier of a profile. Its zero value looks nothing up.
type Policy struct {
	CRL                []string      // files, by absolute path, and http or https URLs
	DistributionPoints bool          // fetch the CRLs that certificates name (crlDistributionPoints)
	OCSP               bool          // ask the responders that certificates name
	Soft               bool          // a status that can't be known counts as good; false: as unknown (fail: hard)
	LeafOnly           bool          // issuers are not looked up (FullChainValidation false)
	MaxAge             time.Duration // how long a list or answer counts since it was last had from its source; 0: until its nextUpdate
	Refresh            time.Duration // how often addresses are asked anew, at the latest; 0: 5 minutes
	CacheSize          int           // OCSP answers that are remembered; 0: 10,000
}

// A Status is what is known of a certificate. Its zero value is Unknown.
type Status uint8

// The statuses.
const (
	Unknown Status = iota
	Good
	Revoked
)

// An Answer is the status of a whole path. It holds until Until, and only as long as Checker.Generation stays.
type Answer struct {
	Status  Status
	Until   time.Time
	Pending bool  // Unknown, and Await may find out
	Err     error // why it is Revoked or Unknown, for logs and operators; names the certificate and the source
}

// A Checker looks certificates up by one Policy. A nil Checker finds all Good.
type Checker struct{}

// Status returns what is known now of path: the certificate first, then its issuers, with an entry of a trust store at
// the end, which is not looked up. It reads memory only, and is safe for concurrent use.
func (c *Checker) Status(path []*x509.Certificate, now time.Time) Answer { panic("to be built") }

// Await asks whoever has to be asked about path, until all have answered, ctx ends or the budget is over.
func (c *Checker) Await(ctx context.Context, path []*x509.Certificate) { panic("to be built") }

// Generation changes whenever an answer to Status may have.
func (c *Checker) Generation() uint64 {
	if c == nil {
		return 0
	}
	panic("to be built")
}

// Unasked is the answer about a certificate of which nobody can be asked, since its issuer is not known: Unknown, or Good
// where the policy is soft.
func (c *Checker) Unasked(cert *x509.Certificate) Answer { panic("to be built") }
