package trust_test

import (
	"crypto/x509"
	"time"

	"sallyport/listenerprofiles/trust"
)

// verifyBy is Verify without registered CAs, and how long its answer holds.
func verifyBy(a *trust.Anchors, chain []*x509.Certificate, now time.Time) (trust.Validity, error) {
	paths, err := a.Verify(chain, nil, now)
	if err != nil {
		return trust.Validity{}, err
	}
	return paths[0].Validity, nil
}

// judgeBy is Judge without registered CAs and without revocation.
func judgeBy(chain []*x509.Certificate, a *trust.Anchors, registered bool, by trust.Registered, now time.Time) (trust.Verdict, error) {
	rules := trust.Rules{Anchors: a, Registered: by}
	return rules.Judge(chain, registered, nil, now)
}
