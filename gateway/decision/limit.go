package decision

import (
	"context"

	"sallyport/policy/ratelimit"
)

// limit takes one call from the allowances of the API, the resource and the certificate: from all or from none.
func limit(x *Exchange) error {
	var client ratelimit.Bucket
	if x.Client != nil {
		client = x.bucket
	}
	if !x.waited {
		x.Allowance = ratelimit.TakeAll(x.at(), x.Route.Limit, x.Resource.Limit, client)
	}
	switch {
	case x.Allowance.Allowed:
		return nil
	case x.Allowance.Pending():
		x.wait = func(ctx context.Context) {
			x.Allowance = ratelimit.Await(ctx, x.decider.cfg.Now, x.Route.Limit, x.Resource.Limit, client)
			x.waited = true
		}
		return ErrWait
	}
	reason := throttled(x.Allowance.Level)
	if x.Allowance.Uncounted && x.Allowance.Window == 0 {
		reason = LimitUnavailable
	}
	r := refuse(reason, nil)
	r.RetryAfter = x.Allowance.RetryAfter
	return r
}

func throttled(l ratelimit.Level) Reason {
	switch l {
	case ratelimit.LevelAPI:
		return APIThrottled
	case ratelimit.LevelResource:
		return ResourceThrottled
	}
	return CertificateThrottled
}
