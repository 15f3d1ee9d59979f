package decision

import (
	"errors"
	"fmt"
	"time"

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
	NoSuchResource                     // the API has no such path or method
	MissingCredentials                 // nothing was presented
	InvalidCredentials                 // what was presented is not good
	TokenExpired                       //
	ScopeMissing                       // neither the token nor the certificate's registration has a scope of the resource
	AudienceMismatch                   // the token is meant for somebody else
	Forbidden                          // the caller may not do this here
	KeyUnavailable                     // the token's key cannot be had now
	APIThrottled                       // the API's own limit
	ResourceThrottled                  // the resource's
	CertificateThrottled               // the certificate's tier
	BackendUnreachable                 //
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
	UnknownVersion                     // neither HTTP/1.0, HTTP/1.1 nor HTTP/2
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
	Internal:             {"internal", 500, "500", "Internal Server Error", "The gateway failed to handle the call. Its log says more under the request id."},
	BadRequest:           {"bad_request", 400, "400", "Bad Request", "The request is malformed, or its path is not in its plain form. Send it without dot segments, empty segments, escaped slashes and backslashes."},
	AmbiguousPath:        {"ambiguous_path", 400, "400", "Bad Request", "The path may be read as that of another resource of the API. Send it without parameters behind a semicolon, final slash and needless escapes."},
	Misdirected:          {"misdirected", 421, "421", "Misdirected Request", "The Host of the call does not belong to the TLS server name of the connection. Open a new connection for this Host."},
	NoSuchAPI:            {"no_such_api", 404, "404", "Not Found", "The requested resource is not available. Check the context and the version in the path."},
	NoSuchResource:       {"no_such_resource", 403, "900906", "No matching resource found in the API for the given request", "Check the path and the method against the API's definition."},
	MissingCredentials:   {"missing_credentials", 401, "900902", "Missing Credentials", "No credential was presented. Present a client certificate or an access token that the API accepts."},
	InvalidCredentials:   {"invalid_credentials", 401, "900901", "Invalid Credentials", "The credential that was presented is not good for this API. Check that it is the right one and that it is registered."},
	TokenExpired:         {"token_expired", 401, "900903", "Access Token Expired", "Get a new access token and try again."},
	ScopeMissing:         {"scope_missing", 403, "900910", "The caller is not allowed to access the requested resource", "The credential lacks a scope that the resource demands."},
	AudienceMismatch:     {"audience_mismatch", 403, "900914", "Access Denied", "The access token is meant for another audience."},
	Forbidden:            {"forbidden", 403, "900908", "Resource forbidden", "The credential does not open this environment of the API."},
	KeyUnavailable:       {"key_unavailable", 503, "503", "Service Unavailable", "The access token cannot be checked now. Try again later."},
	APIThrottled:         {"throttled_api", 429, "900800", "Message throttled out", "The limit of the API is exceeded. Try again after the time in Retry-After."},
	ResourceThrottled:    {"throttled_resource", 429, "900802", "Message throttled out", "The limit of the resource is exceeded. Try again after the time in Retry-After."},
	CertificateThrottled: {"throttled_certificate", 429, "900804", "Message throttled out", "You have exceeded your quota. Try again after the time in Retry-After."},
	BackendUnreachable:   {"backend_unreachable", 502, "101503", "Bad Gateway", "The API's backend cannot be reached."},
	BackendLate:          {"backend_late", 504, "101504", "Gateway Timeout", "The API's backend did not answer in time."},
	TooManyHeaders:       {"too_many_headers", 431, "431", "Request Header Fields Too Large", "The request has too many header lines."},
	BodyTooLarge:         {"body_too_large", 413, "413", "Content Too Large", "The body is larger than the API takes."},
	BodyTooSlow:          {"body_too_slow", 408, "408", "Request Timeout", "The body came too slowly."},
	BackendBusy:          {"backend_busy", 503, "503", "Service Unavailable", "The API's backend has as many calls as it may. Try again after the time in Retry-After."},
	CallerBusy:           {"caller_busy", 503, "503", "Service Unavailable", "You have as many calls under way as one caller may. Try again after the time in Retry-After."},
	Overloaded:           {"overloaded", 503, "503", "Service Unavailable", "The gateway has too much to do. Try again after the time in Retry-After."},
	Loop:                 {"loop", 508, "508", "Loop Detected", "The call has been through this gateway before: an API's upstream leads back to it."},
	UnknownExpectation:   {"unknown_expectation", 417, "417", "Expectation Failed", "The gateway meets no expectation but 100-continue."},
	UnknownCoding:        {"unknown_coding", 501, "501", "Not Implemented", "The gateway knows no Transfer-Encoding but chunked."},
	UnknownVersion:       {"unknown_version", 505, "505", "HTTP Version Not Supported", "The gateway speaks HTTP/1.0, HTTP/1.1 and, over TLS, HTTP/2."},
	Stopped:              {"stopped", 503, "503", "Service Unavailable", "The gateway is stopping. Try again after the time in Retry-After."},
	ClientGone:           {"client_gone", statusClientGone, "499", "Client Closed Request", "The client closed the connection before the answer."},
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
	RetryAfter time.Duration // for a throttled call, how long until one is allowed; 0: not stated
	Cause      error         // may be nil
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

// body is the refusal as WSO2's JSON, code as a string. The texts are constants without anything to escape.
func (r *Refusal) body() string {
	a := answers[r.Reason]
	return `{"code":"` + a.code + `","message":"` + a.message + `","description":"` + a.description + `"}` + "\n"
}

// appendChallenges names the ways in that the API has (RFC 9110 section 11.6.1). A certificate has no scheme of its
// own, since it is not sent in a header; MutualTLS says what is missing.
func appendChallenges(b []byte, route *Route, reason Reason) []byte {
	if route == nil || route.Security.Certificate != policy.Off {
		b = http1.AppendField(b, "WWW-Authenticate", `MutualTLS realm="sallyport"`)
	}
	if route != nil && route.Security.Token != policy.Off {
		bearer := `Bearer realm="sallyport"`
		if reason != MissingCredentials {
			bearer += `, error="invalid_token"` // RFC 6750 section 3.1
		}
		b = http1.AppendField(b, "WWW-Authenticate", bearer)
	}
	return b
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
	{backend.ErrBadAnswer, BackendUnreachable, ""},
}

// ErrInternal is a fault of ours, for Fail.
var ErrInternal = errors.New("a fault of the gateway")
