package listenerprofiles

import (
	"fmt"
	"hash"
	"slices"

	"sallyport/internal/printable"
	"sallyport/listenerprofiles/revocation"
)

// verifier is the element of a profile that says its Revocation.
const verifier = "CertificateRevocationVerifier"

// laxerRevocation says in what is is laxer than was, or "". What is asked less often or remembered less is as strict.
func laxerRevocation(was, is revocation.Policy) string {
	switch {
	case !was.LooksUp():
		return ""
	case !is.LooksUp():
		return "it looks nothing up"
	case is.Soft && !was.Soft:
		return "a status that can't be known counts as good"
	case is.LeafOnly && !was.LeafOnly:
		return "it does not look issuers up"
	case was.OCSP && !is.OCSP:
		return "it asks no OCSP responders"
	case was.DistributionPoints && !is.DistributionPoints:
		return "it fetches no CRLs that certificates name"
	case was.MaxAge > 0 && (is.MaxAge == 0 || is.MaxAge > was.MaxAge):
		return "lists and answers count for longer"
	}
	for _, source := range was.CRL {
		if !slices.Contains(is.CRL, source) {
			return "it does not read the CRL " + printable.Quote(source)
		}
	}
	return ""
}

// writeRevocation writes all of a policy.
func writeRevocation(h hash.Hash, p revocation.Policy) {
	fmt.Fprintf(h, "%q %t %t %t %t %d %d %d",
		p.CRL, p.DistributionPoints, p.OCSP, p.Soft, p.LeafOnly, p.MaxAge, p.Refresh, p.CacheSize)
}
