package control

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles"
	"sallyport/policy"
)

// OutOfReach names the resources that nobody can call: they demand a certificate, and at none of the API's listeners
// can one come in.
func (a *Assembly) OutOfReach() (warnings []string) {
	listeners := a.Listeners()
	for _, r := range a.Routes.Routes() {
		var names []string
		reached := false
		for i := range listeners {
			if a.Routes.Serves(r.API, &listeners[i]) {
				names = append(names, listeners[i].Name)
				reached = reached || len(doors(&listeners[i])) > 0
			}
		}
		if reached {
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
				r.API, res.Path, strings.Join(names, ", ")))
		}
	}
	return warnings
}

// A door is a way in for clients' certificates. It says why a registered one, with its chain, is not good there.
type door func(chain []*x509.Certificate, now time.Time) error

// doors are the ways in at a listener: handshakes of its profiles, and its header.
func doors(l *decision.Listener) (list []door) {
	if l.Profiles != nil {
		for _, p := range l.Profiles.Profiles() {
			if p.VerifyClient != listenerprofiles.None {
				list = append(list, func(chain []*x509.Certificate, now time.Time) error {
					return clientcert.Good(chain, p.Rules(), now)
				})
			}
		}
	}
	if l.Door != nil {
		list = append(list, l.Door.Judge)
	}
	return list
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
