package decision

import (
	"sallyport/policy/ratelimit"
)

// limit takes one call from the allowances of the API, the resource and the certificate: from all or from none.
func limit(x *Exchange) error {
	var client ratelimit.Bucket
	if x.Client != nil {
		client = x.Snapshot.Clients.buckets[x.Client]
	}
	x.Allowance = ratelimit.TakeAll(x.at(), x.Route.Limit, x.Resource.Limit, client)
	if x.Allowance.Allowed {
		return nil
	}
	r := refuse(throttled(x.Allowance.Level), nil)
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
