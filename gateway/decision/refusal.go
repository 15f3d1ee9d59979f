package decision

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
	"sallyport/policy"
)

// A Reason says why a call was not answered by its backend. Its zero value is an internal fault.
type Reason uint8

const (
	Internal             Reason = iota // a fault of ours
	BadRequest                         // a message that two readers could read differently, or nobody can
	AmbiguousPath                      // a path that servers read as those of resources that ask for different things
	Misdirected                        // TLS server name and Host lead to different profiles
	NoSuchAPI                          //
	APIFenced                          // there would be such an API, and its definition is not good
	NoSuchResource                     // the API has no such path or method
	MissingCredentials                 // nothing was presented
	InvalidCredentials                 // what was presented is not good
	TokenExpired                       //
	ScopeMissing                       // neither the token nor the certificate's registration has a scope of the resource
	AudienceMismatch                   // the token is meant for somebody else
	Forbidden                          // the caller may not do this here
	NotAllowed                         // a rule of the API or of the resource does not hold
	KeyUnavailable                     // the token's key cannot be had now
	StatusUnknown                      // whether the certificate is revoked, or good at all, can't be known now
	RegistrationsStale                 // the certificate's registration is in a store that was not seen for store.maxAge
	APIThrottled                       // the API's own limit
	ResourceThrottled                  // the resource's
	CertificateThrottled               // the certificate's tier
	LimitUnavailable                   // Redis, where the limits are counted, doesn't answer, and whenRedisFails is deny
	BackendUnreachable                 //
	BackendUnreadable                  // what it answers is no HTTP
	BackendLate                        // no answer within the API's timeout
	ClientGone                         // the client left before the answer; nobody is answered
	TooManyHeaders                     // more header lines than limits.headerCount
	BodyTooLarge                       // more than the API's maxBodySize
	BodyTooSlow                        // less than limits.bodyRate
	BackendBusy                        // as many calls under way as upstream.maxCalls allows
	CallerBusy                         // as many calls of one caller under way as upstream.maxCallsPerCaller allows
	Overloaded                         // the gateway is short of memory
	Loop                               // the call has been through this gateway already
	UnknownExpectation                 // an Expect that is not 100-continue
	UnknownCoding                      // a Transfer-Encoding that is not chunked
	UnknownVersion                     // neither HTTP/1 nor HTTP/2
	LastHop                            // OPTIONS that is to go no further: answered here, and no fault of anybody
	NoTrace                            // TRACE that is to go no further
	Validated                          // a CA's validation of a name: answered here, and no fault of anybody
	Stopped                            // the gateway stops, or the listener closes, and does not wait for the call any longer
	reasons
)

// An answer is what the client gets for a Reason: WSO2's code, message and description, and the status.
type answer struct {
	name        string // for logs and metrics; operators alert on it
	status      int
	code        string
	message     string
	description string
}

// statusClientGone is never sent.
const statusClientGone = 499

// answers is the one table from reason to answer. docs/refusals.md shows it to users; a test holds the two together.
var answers = [reasons]answer{
	Internal: {
		name:        "internal",
		status:      500,
		code:        "500",
		message:     "Internal Server Error",
		description: "The gateway failed to handle the call. Its log says more under the request id.",
	},
	BadRequest: {
		name:    "bad_request",
		status:  400,
		code:    "400",
		message: "Bad Request",
		description: "The request is malformed, or its path is not in its plain form. Send it without dot segments, " +
			"empty segments, escaped slashes and backslashes.",
	},
	AmbiguousPath: {
		name:    "ambiguous_path",
		status:  400,
		code:    "400",
		message: "Bad Request",
		description: "The path may be read as that of another resource of the API. Send it without parameters " +
			"behind a semicolon, final slash and needless escapes.",
	},
	Misdirected: {
		name:    "misdirected",
		status:  421,
		code:    "421",
		message: "Misdirected Request",
		description: "The Host of the call does not belong to the TLS server name of the connection. Open a new " +
			"connection for this Host.",
	},
	NoSuchAPI: {
		name:        "no_such_api",
		status:      404,
		code:        "404",
		message:     "Not Found",
		description: "The requested resource is not available. Check the context and the version in the path.",
	},
	APIFenced: {
		name:        "api_fenced",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "The API is not served at present. Try again later.",
	},
	NoSuchResource: {
		name:        "no_such_resource",
		status:      403,
		code:        "900906",
		message:     "No matching resource found in the API for the given request",
		description: "Check the path and the method against the API's definition.",
	},
	MissingCredentials: {
		name:        "missing_credentials",
		status:      401,
		code:        "900902",
		message:     "Missing Credentials",
		description: "No credential was presented.", // and toPresent
	},
	InvalidCredentials: {
		name:    "invalid_credentials",
		status:  401,
		code:    "900901",
		message: "Invalid Credentials",
		description: "The credential that was presented is not good for this API. Check that it is the right one " +
			"and that it is registered.",
	},
	TokenExpired: {
		name:        "token_expired",
		status:      401,
		code:        "900903",
		message:     "Access Token Expired",
		description: "Get a new access token and try again.",
	},
	ScopeMissing: {
		name:        "scope_missing",
		status:      403,
		code:        "900910",
		message:     "The caller is not allowed to access the requested resource",
		description: "The credential lacks a scope that the resource demands.",
	},
	AudienceMismatch: {
		name:        "audience_mismatch",
		status:      403,
		code:        "900914",
		message:     "Access Denied",
		description: "The access token is meant for another audience.",
	},
	Forbidden: {
		name:        "forbidden",
		status:      403,
		code:        "900908",
		message:     "Resource forbidden",
		description: "The credential does not open this environment of the API.",
	},
	NotAllowed: {
		name:        "rule",
		status:      403,
		code:        "900908",
		message:     "Resource forbidden",
		description: "A rule of the API does not allow this call.",
	},
	KeyUnavailable: {
		name:        "key_unavailable",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "The access token cannot be checked now. Try again later.",
	},
	StatusUnknown: {
		name:        "status_unknown",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "The client certificate cannot be checked now. Try again later.",
	},
	RegistrationsStale: {
		name:        "registrations_stale",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "The client certificate cannot be checked now. Try again later.",
	},
	APIThrottled: {
		name:        "throttled_api",
		status:      429,
		code:        "900800",
		message:     "Message throttled out",
		description: "The limit of the API is exceeded. Try again after the time in Retry-After.",
	},
	ResourceThrottled: {
		name:        "throttled_resource",
		status:      429,
		code:        "900802",
		message:     "Message throttled out",
		description: "The limit of the resource is exceeded. Try again after the time in Retry-After.",
	},
	CertificateThrottled: {
		name:        "throttled_certificate",
		status:      429,
		code:        "900804",
		message:     "Message throttled out",
		description: "You have exceeded your quota. Try again after the time in Retry-After.",
	},
	LimitUnavailable: {
		name:        "limit_unavailable",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "The limits of the call cannot be checked now. Try again later.",
	},
	BackendUnreachable: {
		name:        "backend_unreachable",
		status:      502,
		code:        "101503",
		message:     "Bad Gateway",
		description: "The API's backend cannot be reached.",
	},
	BackendUnreadable: {
		name:        "backend_unreadable",
		status:      502,
		code:        "101506",
		message:     "Bad Gateway",
		description: "What the API's backend answered cannot be read as HTTP.",
	},
	BackendLate: {
		name:        "backend_late",
		status:      504,
		code:        "101504",
		message:     "Gateway Timeout",
		description: "The API's backend did not answer in time.",
	},
	TooManyHeaders: {
		name:        "too_many_headers",
		status:      431,
		code:        "431",
		message:     "Request Header Fields Too Large",
		description: "The request has too many header lines.",
	},
	BodyTooLarge: {
		name:        "body_too_large",
		status:      413,
		code:        "413",
		message:     "Content Too Large",
		description: "The body is larger than the API takes.",
	},
	BodyTooSlow: {
		name:        "body_too_slow",
		status:      408,
		code:        "408",
		message:     "Request Timeout",
		description: "The body came too slowly.",
	},
	BackendBusy: {
		name:        "backend_busy",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "The API's backend has as many calls as it may. Try again after the time in Retry-After.",
	},
	CallerBusy: {
		name:        "caller_busy",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "You have as many calls under way as one caller may. Try again after the time in Retry-After.",
	},
	Overloaded: {
		name:        "overloaded",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "The gateway has too much to do. Try again after the time in Retry-After.",
	},
	Loop: {
		name:        "loop",
		status:      508,
		code:        "508",
		message:     "Loop Detected",
		description: "The call has been through this gateway before: an API's upstream leads back to it.",
	},
	UnknownExpectation: {
		name:        "unknown_expectation",
		status:      417,
		code:        "417",
		message:     "Expectation Failed",
		description: "The gateway meets no expectation but 100-continue.",
	},
	UnknownCoding: {
		name:        "unknown_coding",
		status:      501,
		code:        "501",
		message:     "Not Implemented",
		description: "The gateway knows no Transfer-Encoding but chunked.",
	},
	UnknownVersion: {
		name:        "unknown_version",
		status:      505,
		code:        "505",
		message:     "HTTP Version Not Supported",
		description: "The gateway speaks HTTP/1.0, HTTP/1.1 and, over TLS, HTTP/2.",
	},
	LastHop: {
		name:        "last_hop",
		status:      200,
		code:        "200",
		message:     "OK",
		description: "The call goes no further, as its Max-Forwards says. Allow has the methods of the resource.",
	},
	NoTrace: {
		name:        "no_trace",
		status:      405,
		code:        "405",
		message:     "Method Not Allowed",
		description: "The gateway sends no request back. Send another method, or a larger Max-Forwards.",
	},
	Validated: {
		name:        "acme_validation",
		status:      200,
		code:        "200",
		message:     "OK",
		description: "A CA validates a name of the gateway.", // and gets Text instead
	},
	Stopped: {
		name:        "stopped",
		status:      503,
		code:        "503",
		message:     "Service Unavailable",
		description: "The gateway is stopping. Try again after the time in Retry-After.",
	},
	ClientGone: {
		name:        "client_gone",
		status:      statusClientGone,
		code:        "499",
		message:     "Client Closed Request",
		description: "The client closed the connection before the answer.",
	},
}

// String is the reason's name in logs and metrics.
func (r Reason) String() string {
	if r >= reasons {
		r = Internal
	}
	return answers[r].name
}

// A Refusal is a call's end at the gateway. What the client gets comes from the Reason alone; the Cause is for logs.
type Refusal struct {
	Reason     Reason
	RetryAfter time.Duration // for a throttled call, or a token that can't be judged, how long until one may be; 0: not stated
	Scopes     []string      // one of which the token would need; none if it isn't the token that lacks them
	Cause      error         // may be nil
	Text       string        // the body of the answer, in plain text; "": WSO2's JSON
}

// Error is for logs; it is never sent to a client.
func (r *Refusal) Error() string {
	if r.Cause == nil {
		return r.Reason.String()
	}
	return r.Reason.String() + ": " + r.Cause.Error()
}

func (r *Refusal) Unwrap() error { return r.Cause }

// Status is the HTTP status that the refusal is answered with; 499, which is never sent, if the client has gone.
func (r *Refusal) Status() int { return answers[r.Reason].status }

// Code is WSO2's code for the refusal, or the status.
func (r *Refusal) Code() string { return answers[r.Reason].code }

func refuse(r Reason, cause error) *Refusal { return &Refusal{Reason: r, Cause: cause} }

// reasonOf is the gateway's word for the policy's.
func reasonOf(r policy.Reason) Reason {
	switch r {
	case policy.MissingCredentials:
		return MissingCredentials
	case policy.TokenExpired:
		return TokenExpired
	case policy.AudienceMismatch:
		return AudienceMismatch
	case policy.KeyUnavailable:
		return KeyUnavailable
	}
	return InvalidCredentials
}

// retryAfter is when a client that could not be served now may try again.
const retryAfter = 5 * time.Second

// body is the refusal's Text or, without one, WSO2's JSON, code as a string. The texts are constants without anything to escape.
func (r *Refusal) body(want policy.Security) string {
	a := answers[r.Reason]
	if r.Text != "" {
		return r.Text
	}
	if r.Reason == MissingCredentials {
		a.description = "No credential was presented. " + toPresent(want)
	}
	return `{"code":"` + a.code + `","message":"` + a.message + `","description":"` + a.description + `"}` + "\n"
}

// toPresent says what a caller who presented nothing has to present.
func toPresent(want policy.Security) string {
	switch {
	case want.Certificate == policy.Mandatory && want.Token == policy.Mandatory:
		return "Present a client certificate and an access token that the API accepts."
	case want.Certificate == policy.Mandatory || want.Token == policy.Off:
		return "Present a client certificate that is registered for the API."
	case want.Token == policy.Mandatory || want.Certificate == policy.Off:
		return "Present an access token that the API accepts."
	}
	return "Present a client certificate or an access token that the API accepts."
}

// wanted is what the call's resource demands; the zero Security if it was refused before that was known.
func (x *Exchange) wanted() policy.Security {
	if x.Resource == nil {
		return policy.Security{}
	}
	return x.Resource.Security
}

// appendChallenges names the ways in that the API has (RFC 9110 section 11.6.1), after a 401. A certificate has no scheme
// of its own, since it is not sent in a header; MutualTLS says what is missing.
func appendChallenges(b []byte, route *Route, reason Reason) []byte {
	if route == nil || route.Security.Certificate != policy.Off || route.Security.Token == policy.Off { // an open API's, under require
		b = http1.AppendField(b, "WWW-Authenticate", `MutualTLS realm="sallyport"`)
	}
	if route != nil && route.Security.Token != policy.Off {
		bearer := bearerChallenge
		if reason != MissingCredentials {
			bearer += `, error="invalid_token"` // RFC 6750 section 3.1
		}
		b = http1.AppendField(b, "WWW-Authenticate", bearer)
	}
	return b
}

const bearerChallenge = `Bearer realm="sallyport"`

// appendTokenChallenge says what is wrong with a token that a 403 is for, and nothing where it is for something else. A
// token for another audience is invalid_token, as RFC 9068 section 4 has it for every check that fails: more scopes for
// it would not help, another token would.
func (r *Refusal) appendTokenChallenge(b []byte) []byte {
	switch {
	case r.Reason == AudienceMismatch:
		return http1.AppendField(b, "WWW-Authenticate", bearerChallenge+`, error="invalid_token"`)
	case r.Reason == ScopeMissing && len(r.Scopes) > 0:
		return http1.AppendField(b, "WWW-Authenticate", bearerChallenge+`, error="insufficient_scope"`+scopeParameter(r.Scopes))
	}
	return b
}

// scopeParameter is a list of scopes as a challenge's parameter. What is no scope-token of RFC 6749 section 3.3 is left
// out: no token could have it, and it could end the quotes.
func scopeParameter(scopes []string) string {
	scopes = slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return certstore.CheckScope(s) != nil })
	if len(scopes) == 0 {
		return ""
	}
	return `, scope="` + strings.Join(scopes, " ") + `"`
}

// Refusal is the refusal that x.Err is. Any other error is a fault of ours.
func (x *Exchange) Refusal() *Refusal {
	var r *Refusal
	if errors.As(x.Err, &r) {
		return r
	}
	return refuse(Internal, x.Err)
}

// EndsConnection reports whether a refusal ends the connection of a client that speaks HTTP/1.1: two readers may not
// agree where the next call begins, or for whom the connection is. Over HTTP/2 other calls on it are in order.
func (r *Refusal) EndsConnection() bool { return r.Reason == BadRequest || r.Reason == Misdirected }

// Reasons of calls that have begun to be answered, and could not be refused any more.
var (
	errBrokenOff  = errors.New("the answer was broken off")
	errRightEnded = errors.New("the right that let the call in ended during the call, which was broken off")
)

// Fail says why a call that was forwarded, or its answer, came to no end; begun, if a part of the answer was sent. It
// returns true if the call can still be answered, with x.Refusal.
func (x *Exchange) Fail(cause error, begun bool) (answer bool) {
	reason, limit := ofFailure(cause)
	ended, stop := x.rightEnded(), x.connection.stopped()
	if stop != nil && reason != Internal { // whatever it looks like: both sides are cut
		ended, reason, limit, cause = nil, Stopped, stop.Limit, errors.Join(stop.Cause, cause)
	}
	switch {
	case ended != nil && (begun || x.Status != 0 && reason == ClientGone):
		x.Err = errRightEnded // the client may not have taken what it was sent before the last deadline
	case ended != nil:
		x.Err = refuse(reasonOfEnd(ended), errors.Join(ended, cause))
		return true
	case reason == ClientGone:
		x.Err, x.Status, x.Limit = refuse(ClientGone, cause), statusClientGone, limit
	case begun:
		x.Err, x.Limit = fmt.Errorf("%w: %w", errBrokenOff, cause), limit
	default:
		x.Err, x.Limit = refuse(reason, cause), limit
		return true
	}
	return false
}

// reasonOfEnd is what the end of a call's right is called: what a new call would be answered.
func reasonOfEnd(ended error) Reason {
	var r *Refusal
	switch {
	case errors.As(ended, &r):
		return r.Reason
	case errors.Is(ended, ErrInternal):
		return Internal
	}
	return InvalidCredentials
}

// ofFailure is what a failure between client and server is called, and the limit that it comes from, if there is one.
func ofFailure(cause error) (Reason, Limit) {
	for _, f := range failures {
		if errors.Is(cause, f.cause) {
			return f.reason, f.limit
		}
	}
	return BackendUnreachable, ""
}

// A Limit is a limit that has ended a call, by its word in logs, which is that of its key. Its zero value is none.
type Limit string

// DrainTimeout is the Limit of a Stop at its end.
const DrainTimeout Limit = "drain_timeout"

// limits are those that have reasons of their own.
var limits = [reasons]Limit{
	TooManyHeaders: "header_count", BodyTooLarge: "max_body_size", BackendBusy: "max_calls", CallerBusy: "max_calls_per_caller",
}

var failures = []struct {
	cause  error
	reason Reason
	limit  Limit
}{
	{ErrInternal, Internal, ""},
	{backend.ErrNotTaken, ClientGone, "body_rate"},
	{backend.ErrClientGone, ClientGone, ""},
	{backend.ErrBadBody, BadRequest, ""},
	{backend.ErrTooLarge, BodyTooLarge, limits[BodyTooLarge]},
	{backend.ErrTooSlow, BodyTooSlow, "body_rate"},
	{backend.ErrConnect, BackendUnreachable, "connect_timeout"},
	{backend.ErrIdle, BackendLate, "stream_idle_timeout"},
	{backend.ErrLate, BackendLate, "timeout"},
	{backend.ErrBadAnswer, BackendUnreadable, ""},
}

// ErrInternal is a fault of ours, for Fail.
var ErrInternal = errors.New("a fault of the gateway")
