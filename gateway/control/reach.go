package control

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/gateway/decision"
	"sallyport/listenerprofiles"
	"sallyport/policy"
)

// OutOfReach names the resources that nobody can call: they demand a certificate, and at none of the API's listeners can
// one come in.
func (a *Assembly) OutOfReach() (warnings []string) {
	brings := map[string]bool{} // by listener
	for _, l := range a.Listeners() {
		brings[l.Name] = bringsCertificates(&l)
	}
	for _, r := range a.Routes.Routes() {
		if slices.ContainsFunc(r.Listeners, func(name string) bool { return brings[name] }) {
			continue
		}
		resources := r.Resources
		if len(resources) == 0 {
			resources = []decision.Resource{{Path: "/*", Security: r.Security}}
		}
		for _, res := range resources {
			if s := res.Security; s.Open || s.Certificate != policy.Mandatory && s.Token != policy.Off {
				continue
			}
			warnings = append(warnings, fmt.Sprintf("nobody can call %s %s: it demands a client certificate, "+
				"and none of its listeners (%s) asks for one: set sslVerifyClient to optional there, or let oauth2 in",
				r.API, res.Path, strings.Join(r.Listeners, ", ")))
		}
	}
	return warnings
}

// bringsCertificates reports whether calls at a listener may have a certificate, from the handshake or from a header.
func bringsCertificates(l *decision.Listener) bool {
	if l.Door != nil {
		return true
	}
	return l.Profiles != nil && slices.ContainsFunc(l.Profiles.Profiles(), func(p *listenerprofiles.Profile) bool {
		return p.VerifyClient != listenerprofiles.None
	})
}

// tellReach logs what has come out of reach with the Assembly in force, since last, which may be nil.
func (l *Loop) tellReach(last *Assembly) {
	var before []string
	if last != nil {
		before = last.OutOfReach()
	}
	for _, w := range l.inForce.Load().OutOfReach() {
		if !slices.Contains(before, w) {
			l.log.Warn("an API is out of reach", "problem", w)
		}
	}
}
