package decision

import (
	"context"
	"errors"
	"slices"

	"sallyport/certstore"
	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy"
	"sallyport/policy/certrule"
	"sallyport/policy/token"
)

// authorize fetches the proofs that policy.Decide asks for, one after the other, until it has decided. Rules have the
// last word.
func authorize(x *Exchange) error {
	if err := holdRegistration(x); err != nil {
		return err
	}
	for {
		d := policy.Decide(x.Resource.Security, x.evidence)
		switch d.Need {
		case policy.Certificate:
			proof, err := examineCertificate(x)
			if err != nil {
				return err
			}
			x.evidence.Certificate = proof
		case policy.Token:
			proof, err := examineToken(x)
			if err != nil {
				return err
			}
			x.evidence.Token = proof
		default:
			if err := admit(x, d); err != nil {
				return err
			}
			return allow(x)
		}
	}
}

// examineCertificate reports whether the caller's certificate is good for the API: registered for it, byte for byte, or
// issued by a CA that is, with a tier that is known, in a store that was seen not long ago; and trusted, within its
// validity, not denied and not revoked. It returns ErrWait when somebody has to be asked first whether it is.
func examineCertificate(x *Exchange) (policy.Proof, error) {
	c := x.Certificate
	switch {
	case c == nil:
		return policy.Absent, nil
	case x.unbelieved != nil:
		x.certificateErr = x.unbelieved
		if x.said != nil {
			if _, err := x.admission(x.said); err != nil {
				if _, unknown := passing(err); !unknown { // whoever says it
					x.certificateErr = err
				}
			}
		}
		return policy.Bad, nil
	}
	admission, err := x.admission(c)
	if trust.CauseOf(err) == trust.StatusUnknown && x.mayLearn(c) {
		return policy.Unexamined, ErrWait
	}
	if x.certificateErr = err; err != nil {
		return policy.Bad, nil
	}
	x.registration, x.bucket = admission.client, admission.bucket
	return policy.Good, nil
}

// admission is under which registration a certificate may call the API, or why under none.
func (x *Exchange) admission(c *clientcert.Certificate) (admission, error) {
	if err := x.denied(c); err != nil {
		return admission{}, err
	}
	return x.Snapshot.Clients.admit(x.Route.API, c, x.at())
}

// mayLearn reports whether the call has to wait for what others know of a certificate, which it does once at most. A call
// that is judged again does with what is known.
func (x *Exchange) mayLearn(c *clientcert.Certificate) bool {
	const most = 2 // the load balancer's own, and the client's
	if c == nil || x.before != nil || x.asked == c || x.waits == most || !c.Pending(x.at()) {
		return false
	}
	x.wait = func(ctx context.Context) { // a carrier may decide once more before it waits
		c.Await(ctx)
		x.asked = c
		x.waits++
	}
	return true
}

// passing returns the reason of a refusal for a certificate with which nothing may be wrong: what there is to know of it
// can't be known now.
func passing(err error) (reason Reason, ok bool) {
	switch {
	case err == errStale:
		return RegistrationsStale, true
	case trust.CauseOf(err) == trust.StatusUnknown, trust.CauseOf(err) == trust.Unexamined:
		return StatusUnknown, true
	}
	return 0, false
}

// denied returns why a certificate is not good whatever else vouches for it: the deny list in force names it, or an issuer
// of it; else nil.
func (x *Exchange) denied(c *clientcert.Certificate) error {
	if c == nil {
		return nil
	}
	return c.Denied(x.Snapshot.Denied)
}

var (
	errUnregistered = errors.New("certificate is not registered for this API")
	errStale        = errors.New("certificate is registered in the store, which was not seen for longer than its maxAge")
	errUnknownTier  = errors.New("certificate is registered with a tier that does not exist")
	errKeyManager   = errors.New("the token's key manager is not among the API's")
	errAudience     = errors.New("the token is meant for another audience")
	errNoTokens     = errors.New("no key manager is configured")
	errNoClaims     = errors.New("the token was verified without an outcome")
)

// examineToken reports whether the caller's token is good for the API. It returns ErrWait when the token is not in the
// cache: verifying it takes time, and perhaps a key. A call that is judged again does with the keys that are known.
func examineToken(x *Exchange) (policy.Proof, error) {
	if x.Claims == nil && x.tokenErr == nil {
		raw, err := token.Bearer(x.Request.Values("Authorization")...)
		switch tokens := x.Snapshot.Routes.settings.Tokens; {
		case err != nil:
			x.tokenErr = err
		case raw == "":
			return policy.Absent, nil
		case tokens == nil:
			x.tokenErr = errNoTokens
		default:
			claims, ok := tokens.Cached(raw)
			switch {
			case ok:
				x.Claims = claims
			case x.before != nil:
				x.takeClaims(tokens.Still(raw, x.before.Claims))
			default:
				x.wait = func(ctx context.Context) { x.takeClaims(tokens.Verify(ctx, raw)) }
				return policy.Unexamined, ErrWait
			}
		}
	}
	return judgeToken(x), nil
}

// takeClaims takes a Verifier's answer.
func (x *Exchange) takeClaims(claims *token.Claims, err error) {
	if claims == nil && err == nil {
		err = errNoClaims // or it would be asked for again and again
	}
	x.Claims, x.tokenErr = claims, err
}

func judgeToken(x *Exchange) policy.Proof {
	if x.tokenErr == nil {
		switch {
		case x.Route.KeyManagers != nil && !slices.Contains(x.Route.KeyManagers, x.Claims.KeyManager):
			x.tokenErr = errKeyManager
		case x.Route.Audiences != nil && !overlap(x.Route.Audiences, x.Claims.Audience):
			x.tokenErr = errAudience
			x.Claims = nil
			return policy.WrongAudience
		default:
			return policy.Good
		}
	}
	x.Claims = nil
	switch {
	case errors.Is(x.tokenErr, token.ErrExpired):
		return policy.Expired
	case errors.Is(x.tokenErr, token.ErrUnavailable):
		return policy.Unavailable
	}
	return policy.Bad
}

// admit acts on the decision: it settles whose call it is, and holds the scopes and the key type of each proof that
// counts. A proof counts if the call has its identity, or if the resource demands it, whatever the precedence.
func admit(x *Exchange, d policy.Decision) error {
	x.Access = d
	if !d.Allowed {
		x.Claims = nil
		reason := reasonOf(d.Reason)
		if passing, ok := passing(x.certificateErr); ok && x.mightBeGood() {
			reason = passing
		}
		r := refuse(reason, errors.Join(x.certificateErr, x.tokenErr))
		r.RetryAfter = token.RetryAfter(x.tokenErr)
		return r
	}
	s := x.Resource.Security
	if s.Open {
		return nil
	}
	if d.By == policy.Certificate || s.Certificate == policy.Mandatory {
		x.Client = x.registration
		if x.Client.KeyType == certstore.Sandbox && len(x.Route.Upstream.SandboxURLs) == 0 {
			return refuse(Forbidden, errors.New("a SANDBOX certificate, and the API has no sandboxUrls"))
		}
	}
	tokenCounts := d.By == policy.Token || s.Token == policy.Mandatory
	if tokenCounts && !x.tokenHasScope() {
		x.Access = policy.Decision{}
		return &Refusal{Reason: ScopeMissing, Scopes: x.Resource.Scopes}
	}
	if !x.certificateHasScope(tokenCounts) {
		x.Access = policy.Decision{}
		return refuse(ScopeMissing, nil)
	}
	return nil
}

// mightBeGood reports whether the call might be let in if its certificate were good.
func (x *Exchange) mightBeGood() bool {
	fresh := x.evidence
	fresh.Certificate = policy.Good
	d := policy.Decide(x.Resource.Security, fresh)
	return d.Allowed || d.Need != policy.Nothing
}

// tokenHasScope reports whether the token has a scope of the resource.
func (x *Exchange) tokenHasScope() bool {
	return len(x.Resource.Scopes) == 0 || overlap(x.Resource.Scopes, x.Claims.Scopes)
}

// certificateHasScope reports whether the certificate, if it counts, has a scope of the resource: its registration lists
// one, or one of its roles for the API stands for one. Where the token has one, the certificate's scopes restrict only if it
// has any.
func (x *Exchange) certificateHasScope(tokenHas bool) bool {
	wanted := x.Resource.Scopes
	if len(wanted) == 0 {
		return true
	}
	if x.Client == nil || tokenHas && len(x.Client.Scopes) == 0 && !x.Route.ScopesFrom.Any(x.facts()) {
		return tokenHas
	}
	return overlap(wanted, x.Client.Scopes) || slices.Contains(x.Client.Scopes, "*") || x.Route.ScopesFrom.Give(x.facts(), wanted)
}

// scopesOfCertificate are the scopes that the call has by its certificate: its registration's, and those that its roles for
// the API stand for.
func (x *Exchange) scopesOfCertificate() []string {
	more := x.Route.ScopesFrom.Scopes(x.facts())
	more = slices.DeleteFunc(more, func(scope string) bool { return slices.Contains(x.Client.Scopes, scope) })
	if len(more) == 0 {
		return x.Client.Scopes
	}
	return slices.Concat(x.Client.Scopes, more)
}

// facts are what the certificate says, if the API asks for it.
func (x *Exchange) facts() *certrule.Facts {
	if x.Route.ScopesFrom == nil || x.Certificate == nil {
		return nil
	}
	return x.Certificate.Facts()
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
