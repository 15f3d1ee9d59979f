package decision

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/gateway/http1"
	"sallyport/listenerprofiles"
	"sallyport/policy"
)

// A Question is a call that nobody makes: what would the gateway decide about it?
type Question struct {
	Listener      *Listener
	Local         netip.Addr          // the address it would come in at
	Host          string              // of the call, and the TLS server name
	Method        string              //
	Target        string              // path and query
	Chain         []*x509.Certificate // of the handshake, leaf first; none: no certificate
	Authorization string              // the header; "": none
	Address       netip.Addr          // the client's, for rules; zero: not known
}

// An Explanation is a decision with the steps that led to it.
type Explanation struct {
	Allowed bool
	Status  int    // of the refusal; 0 if Allowed
	Code    string // WSO2's, of the refusal
	Reason  string
	By      string // whose identity the call has
	Steps   []Step
}

// A Step is what one stage found.
type Step struct {
	Stage, Finding string
}

// Explain takes the question through the very stages that calls go through, on the snapshot in force. It takes from the
// allowances that this process counts, and forwards nothing.
func (d *Decider) Explain(ctx context.Context, q Question) Explanation {
	x := new(Exchange)
	c := NewConnection(new(Endpoint), netip.AddrPort{}, q.Local)
	c.Claimed = q.Address
	c.Endpoint.SetSettings(q.Listener)
	if q.Listener.Profiles != nil {
		d.Learn(c, q.Host, slices.Clone(q.Chain))
	}
	d.Begin(x, q.request(), NewID(), c, time.Time{})
	defer d.underWay.Add(-1) // it is no call: nobody observes it
	err := Await(ctx, x)
	x.place.Leave()
	e := Explanation{Allowed: err == nil, By: x.Access.By.String(), Steps: x.steps(q)}
	var r *Refusal
	if errors.As(err, &r) {
		e.Status, e.Code, e.Reason = r.Status(), r.Code(), r.Reason.String()
	}
	return e
}

// steps tells the story of an Exchange that decide is through with.
func (x *Exchange) steps(q Question) []Step {
	var steps []Step
	say := func(stage, format string, args ...any) {
		steps = append(steps, Step{stage, fmt.Sprintf(format, args...)})
	}
	last := func(s stage) bool {
		if x.stage == s {
			say(stages[s].name, "refused: %v", x.Err)
		}
		return x.stage == s
	}

	if last(stageScreen) {
		return steps
	}

	if set := q.Listener.Profiles; set != nil {
		p := set.Find(q.Local, listenerprofiles.NormalizeName(q.Host))
		settings := p.Name
		if !p.BindAddress.IsValid() {
			settings = "its own settings"
		}
		say("identify", "listener %s, %s, sslVerifyClient %s", q.Listener.Name, settings, p.VerifyClient)
	} else {
		say("identify", "listener %s, plain HTTP", q.Listener.Name)
	}
	if c := x.Certificate; c != nil {
		say("identify", "certificate %q, SHA-256 %s", q.Chain[0].Subject.String(), hex.EncodeToString(c.Fingerprint[:]))
	} else {
		say("identify", "no certificate")
	}
	if last(stageIdentify) {
		return steps
	}

	if last(stageMatch) {
		return steps
	}
	say("match", "API %s, resource %s, as %s to the backend", x.Route.API, x.Resource.Path, cmp.Or(x.ResourcePath, "/"))

	s := x.Resource.Security
	if s.Open {
		say("authorize", "the resource needs no credential")
	} else {
		say("authorize", "certificate %s, token %s, the %s first", s.Certificate, s.Token, s.Precedence)
	}
	x.explainProof(say, "certificate", x.evidence.Certificate, x.certificateErr)
	if x.evidence.Certificate != policy.Unexamined && x.Certificate != nil {
		for _, line := range x.Certificate.Describe(x.at()) {
			say("authorize", "%s", line)
		}
	}
	if x.registration != nil {
		c := x.registration
		if c.Fingerprint == x.Certificate.Fingerprint {
			say("authorize", "it is registered as %s, tier %s, %s (%s)", c.Alias, c.Tier, c.KeyType, c.Source)
		} else {
			say("authorize", "by %s, a registered CA that has issued it: tier %s, %s (%s)", c.Alias, c.Tier, c.KeyType, c.Source)
			if c.Match != nil {
				say("authorize", "that registration's match admits it")
			}
		}
		x.explainScopes(say)
	}
	x.explainProof(say, "token", x.evidence.Token, x.tokenErr)
	if x.Claims != nil {
		say("authorize", "it is %s's, of key manager %s, scopes [%s]", x.Claims.Subject, x.Claims.KeyManager, strings.Join(x.Claims.Scopes, " "))
	}
	if r := (*Refusal)(nil); x.stage > stageAuthorize || errors.As(x.Err, &r) && r.Reason == NotAllowed {
		for _, f := range x.findings() {
			say("authorize", "%v", f)
		}
	}
	if last(stageAuthorize) {
		return steps
	}
	if x.Access.By != policy.Nothing {
		say("authorize", "admitted as the %s", x.Access.By)
	}

	if last(stageLimit) {
		return steps
	}
	switch v := x.Allowance; {
	case v.Window == 0:
		say("limit", "no limit applies")
	default:
		say("limit", "the %s's tier %s allows %d calls in %s; what the running gateway has counted is not known here", v.Level, v.Tier, v.Limit, v.Window)
	}
	if !last(stageDispatch) {
		u := &x.Route.Upstream
		urls := u.URLs
		if x.sandboxed() {
			urls = u.SandboxURLs
		}
		say("dispatch", "at most %d calls may be under way there, %d of one caller", x.Group.MaxCalls, x.Group.MaxCallsPerCaller)
		say("forward", "to %s", urls[0])
	}
	return steps
}

// explainScopes tells of scopes where the resource asks for some: the registration's, and which role stands for which.
func (x *Exchange) explainScopes(say func(stage, format string, args ...any)) {
	if len(x.Resource.Scopes) == 0 {
		return
	}
	say("authorize", "the resource asks for one of the scopes [%s]; the registration lists [%s]",
		strings.Join(x.Resource.Scopes, " "), strings.Join(x.registration.Scopes, " "))
	if x.Route.ScopesFrom == nil {
		return
	}
	roles := x.Route.ScopesFrom.Of(x.facts())
	for _, r := range roles {
		say("authorize", "by scopesFrom its %s %q stands for the scopes [%s]", r.Kind, r.Value, strings.Join(r.Scopes, " "))
	}
	if len(roles) == 0 {
		say("authorize", "by scopesFrom nothing in it stands for a scope")
	}
}

func (x *Exchange) explainProof(say func(stage, format string, args ...any), kind string, p policy.Proof, problem error) {
	switch {
	case p == policy.Unexamined:
		say("authorize", "the %s is not looked at", kind)
	case problem != nil:
		say("authorize", "the %s is %s: %v", kind, p, problem)
	default:
		say("authorize", "the %s is %s", kind, p)
	}
}

// request is the call as the stages see it.
func (q Question) request() *http1.Request {
	r := &http1.Request{Method: q.Method, Target: q.Target, Version: "1.1", Minor: 1, Host: q.Host}
	if q.Authorization != "" {
		r.Fields = append(r.Fields, http1.Field{Name: "Authorization", Value: q.Authorization})
	}
	return r
}
