package decision

import (
	"cmp"
	"strings"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/policy/ratelimit"
)

// AnswerFields calls yield for each field of the answer of a server that the client gets, and reports whether Date is one.
// AppendOwnFields has what the gateway adds to a final answer.
func (x *Exchange) AnswerFields(s *backend.Server, res *http1.Response, yield func(name, value string)) (dated bool) {
	final := res.Status >= 200 || res.Status == 101 // RFC 9110 section 15.2.2: the answer to an upgrade is the last
	for i := range res.Fields {
		name := res.Fields[i].Name
		if message.HopByHop(name) || res.Named(name) || final && x.isOwnField(name) || x.isExpiryHeader(name) {
			continue
		}
		dated = dated || len(name) == len("Date") && strings.EqualFold(name, "Date")
		value := res.Fields[i].Value
		if isLocation(name) {
			value = x.location(value, s)
		}
		yield(name, value)
	}
	return dated
}

// isLocation reports whether a field refers to where something is that the server has.
func isLocation(name string) bool {
	return len(name) == len("Location") && strings.EqualFold(name, "Location") ||
		len(name) == len("Content-Location") && strings.EqualFold(name, "Content-Location")
}

// isOwnField reports whether AppendOwnFields appends a field of that name.
func (x *Exchange) isOwnField(name string) bool {
	switch len(name) {
	case len("X-Request-Id"):
		return strings.EqualFold(name, "X-Request-Id")
	case len("RateLimit"):
		return x.Allowance.Window != 0 && strings.EqualFold(name, "RateLimit")
	case len("RateLimit-Policy"):
		return x.Allowance.Window != 0 && strings.EqualFold(name, "RateLimit-Policy")
	}
	return false
}

// AppendOwnFields appends the header lines that the gateway adds to every final answer: the call's ID, the end of the
// caller's certificate, and the allowance that is nearest to its end.
func (x *Exchange) AppendOwnFields(b []byte) []byte {
	b = http1.AppendField(b, "X-Request-Id", x.ID)
	b = x.appendExpiry(b)
	if x.Allowance.Window == 0 {
		return b
	}
	b = append(b, "RateLimit-Policy: "...)
	b = ratelimit.AppendPolicy(b, x.Allowance)
	b = append(b, "\r\nRateLimit: "...)
	b = ratelimit.AppendLimit(b, x.Allowance)
	return append(b, "\r\n"...)
}

// AppendRefusalFields appends the header lines of a refusal, and returns its body, which an answer to HEAD leaves out.
func (x *Exchange) AppendRefusalFields(b []byte) (fields []byte, body string) {
	r := x.Refusal()
	body = r.body(x.wanted())
	kind := "application/json; charset=UTF-8"
	if r.Text != "" {
		kind = "text/plain"
	}
	b = http1.AppendField(b, "Content-Type", kind)
	b = http1.AppendField(b, "Cache-Control", "no-store")
	switch status := r.Status(); {
	case r.Reason == LastHop || r.Reason == NoTrace:
		b = http1.AppendField(b, "Allow", x.allow())
	case status == 401:
		b = appendChallenges(b, x.Route, r.Reason)
	case status == 403:
		b = r.appendTokenChallenge(b)
	case status == 429:
		b = http1.AppendNumber(b, "Retry-After", int64(ratelimit.RetryAfterSeconds(r.RetryAfter)))
	case status == 503:
		b = http1.AppendNumber(b, "Retry-After", int64(ratelimit.RetryAfterSeconds(cmp.Or(r.RetryAfter, retryAfter))))
	}
	b = http1.AppendNumber(b, "Content-Length", int64(len(body)))
	if r.Status() == 429 {
		return x.AppendOwnFields(b), body
	}
	b = http1.AppendField(b, "X-Request-Id", x.ID)
	if x.rightEnded() != nil { // the certificate may be bad by now
		return b, body
	}
	return x.appendExpiry(b), body
}
