package control

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy"
)

// Examine says why a certificate, shown without intermediates, would not be good for the API that client registers it
// for, as calls are judged: nil if it is good at one of the API's doors. An error that trust.CauseOf knows is the
// certificate's; any other says that the registration has no effect.
func (a *Assembly) Examine(client certstore.Client, now time.Time) error {
	if err := a.Spec.ExamineAlone(client.Certificate, now); trust.CauseOf(err).Never() {
		return err
	}
	if entry := a.Denied().Find([]*x509.Certificate{client.Certificate}); entry != nil {
		return trust.DeniedBy(entry)
	}
	route := a.Routes.Of(client.API)
	if route == nil && slices.ContainsFunc(a.Spec.LeftOut, func(api API) bool { return api.API == client.API }) {
		return nil // others judge it
	}
	if route == nil {
		return fmt.Errorf("no API %s is served here", client.API)
	}
	if !asksForCertificates(route) {
		return fmt.Errorf("%s accepts no client certificate: its security has neither mutualssl nor mutualssl_mandatory", client.API)
	}
	var worst error
	for _, l := range a.Listeners() {
		if !a.Routes.Serves(client.API, &l) {
			continue
		}
		for _, judge := range doors(&l) {
			err := judge([]*x509.Certificate{client.Certificate}, now)
			if err == nil {
				return nil
			}
			if worst == nil || trust.CauseOf(worst).Never() { // rather what may be mended
				worst = err
			}
		}
	}
	if worst == nil {
		return errors.New("none of the API's listeners asks for a client certificate")
	}
	return worst
}

func asksForCertificates(r *decision.Route) bool {
	return r.Security.Certificate != policy.Off ||
		slices.ContainsFunc(r.Resources, func(res decision.Resource) bool { return res.Security.Certificate != policy.Off })
}

// ExamineAlone is Examine by nothing but the certificate itself, for a configuration that does not load.
func (s *Spec) ExamineAlone(certificate *x509.Certificate, now time.Time) error {
	return clientcert.Good([]*x509.Certificate{certificate}, &trust.Rules{Registered: trust.All}, now)
}

// Prospects names the registrations that admit nobody now, and why: a warning each, and one for all of an API that is
// not served here.
func (a *Assembly) Prospects(now time.Time) (warnings []error) {
	strange := map[certstore.API][]string{} // where they are registered
	for _, c := range a.Clients.All() {
		if a.Routes.Of(c.API) == nil {
			strange[c.API] = append(strange[c.API], c.Source)
			continue
		}
		if err := a.Examine(*c, now); err != nil {
			warnings = append(warnings, fmt.Errorf("client certificate %s of %s (%s) admits nobody: %w", c.Alias, c.API, c.Source, err))
		}
	}
	apis := make([]certstore.API, 0, len(strange))
	for api := range strange {
		apis = append(apis, api)
	}
	slices.SortFunc(apis, func(x, y certstore.API) int { return strings.Compare(x.String(), y.String()) })
	for _, api := range apis {
		where := slices.Sorted(slices.Values(strange[api]))
		warnings = append(warnings, fmt.Errorf("certificates are registered for %s (%s), which is no API here: they admit nobody (%d)",
			api, strings.Join(slices.Compact(where), ", "), len(where)))
	}
	return warnings
}
