package decision

import (
	"fmt"
	"net/netip"

	"sallyport/gateway/message"
	"sallyport/internal/printable"
	"sallyport/listenerprofiles"
	"sallyport/policy"
	"sallyport/policy/rule"
)

// allow holds a call that is admitted to the rules of its API and of its resource. They narrow what authorize lets in,
// and are not asked about any other call.
func allow(x *Exchange) error {
	if x.Route.Allow == nil && x.Resource.Allow == nil {
		return nil
	}
	for _, f := range x.findings() {
		if !f.allowed {
			x.Access = policy.Decision{}
			return refuse(NotAllowed, f)
		}
	}
	return nil
}

// A finding is what a rule said of a call.
type finding struct {
	whose   string // "the API", "resource /items/{id}"
	allowed bool
	err     error // why it said nothing
}

func (f *finding) Error() string {
	if f.err != nil {
		return fmt.Sprintf("allow of %s: %s", f.whose, f.text())
	}
	return fmt.Sprintf("allow of %s: %t", f.whose, f.allowed)
}

// text is the error, which may quote the call, for people.
func (f *finding) text() string {
	const most = 256
	s := f.err.Error()
	if len(s) > most {
		s = s[:most] + "…"
	}
	return printable.Text(s)
}

// findings asks the rules of the API and of the resource, until one does not allow the call.
func (x *Exchange) findings() (list []*finding) {
	in := x.ruleInput()
	for _, r := range []struct {
		whose string
		rule  *rule.Rule
	}{{"the API", x.Route.Allow}, {"resource " + x.Resource.Path, x.Resource.Allow}} {
		if r.rule == nil {
			continue
		}
		f := &finding{whose: r.whose}
		f.allowed, f.err = x.inEachReading(r.rule, in)
		if list = append(list, f); !f.allowed {
			break
		}
	}
	return list
}

// ruleInput is the call as rules see it: of certificate and token only what was found good and counts.
func (x *Exchange) ruleInput() *rule.Input {
	in := &rule.Input{
		Method: x.Request.Method, Resource: x.Resource.Path, API: x.Route.API.String(),
		Host: listenerprofiles.NormalizeName(x.Request.Authority()), Address: x.callersAddress(), Now: x.at(),
	}
	if c := x.Client; c != nil && x.Certificate != nil && x.Certificate.Leaf != nil {
		f := x.Certificate.Facts()
		no := &f.Unread
		in.Certificate = &rule.Certificate{
			X509: x.Certificate.Leaf, Fingerprint: x.Certificate.Fingerprint, SPKI: f.SPKI,
			CN: rule.Names{All: f.CN, Unread: no.CN}, O: rule.Names{All: f.O, Unread: no.O}, OU: rule.Names{All: f.OU, Unread: no.OU},
			DNS: rule.Names{All: f.DNS, Unread: no.DNS}, Emails: rule.Names{All: f.Email, Unread: no.Email},
			URIs: rule.Names{All: f.URIs(), Unread: no.URI}, IPs: rule.Names{All: f.IPs(), Unread: no.IP},
			Policies: f.Policies, BadSubject: no.Subject, BadIssuer: no.Issuer,
			Alias: c.Alias, KeyType: string(c.KeyType), Tier: c.Tier,
		}
		if x.Route.Allow.Uses("certificate.scopes") || x.Resource.Allow.Uses("certificate.scopes") {
			in.Certificate.Scopes = x.scopesOfCertificate()
		}
	}
	if c := x.Claims; c != nil {
		in.Token = &rule.Token{
			KeyManager: c.KeyManager, Issuer: c.Issuer, Subject: c.Subject, Client: c.ClientID, ID: c.TokenID,
			Audience: c.Audience, Scopes: c.Scopes, Expires: c.Expires,
		}
	}
	return in
}

// inEachReading asks a rule. One that reads the path is asked for every reading of it, and all have to hold: else another
// spelling of what the rule is about would pass it by.
func (x *Exchange) inEachReading(r *rule.Rule, in *rule.Input) (allowed bool, err error) {
	if !r.Uses("path") {
		return r.Allows(in)
	}
	return r.AllowsEach(in, func(yield func(string) bool) {
		first := x.readPath(message.AsReceived)
		if !yield(first) {
			return
		}
		message.Readings(x.Path, x.Snapshot.Routes.worthTrying(x.Route), func(reading message.Reading) bool {
			text := x.readPath(reading)
			return text == first || yield(text)
		})
	})
}

func (x *Exchange) readPath(reading message.Reading) string {
	var space [256]byte
	meaning := message.AppendReading(space[:0], x.Path, reading)
	if x.Route.IgnoreCase {
		meaning = appendLower(nil, meaning)
	}
	return message.Text(meaning)
}

// callersAddress is the caller's address, if it is known: that of a load balancer which is not believed is not its
// clients', and a rule about addresses must not take it for theirs.
func (x *Exchange) callersAddress() netip.Addr {
	if x.identity.known && !x.Balancer {
		return netip.Addr{}
	}
	return x.source()
}
