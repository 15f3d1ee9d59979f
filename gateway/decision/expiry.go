package decision

import (
	"errors"
	"slices"

	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/http1"
	"sallyport/gateway/message"
)

// ExpiryHeader is a good name for the header that Settings.ExpiryHeader names.
const ExpiryHeader = "X-Client-Certificate-Expires"

// maxExpiryHeader bounds the name of the expiry header, in bytes.
const maxExpiryHeader = 64

// CheckExpiryHeader returns why clients can't be told in a header of this name when their certificate ends, or nil.
func CheckExpiryHeader(name string) error {
	if len(name) > maxExpiryHeader {
		return errors.New("has more than 64 characters: choose a shorter name")
	}
	return clientcert.CheckName(name, ExpiryHeader, answerHeaders...)
}

// answerHeaders are headers that carry an answer, or that browsers act on, beside those of requests.
var answerHeaders = []string{
	"accept-ranges", "allow", "alt-svc", "clear-site-data", "deprecation", "etag", "expires", "last-modified", "link", "nel",
	"origin-agent-cluster", "p3p", "ratelimit", "ratelimit-policy", "refresh", "report-to", "reporting-endpoints", "server-timing",
	"signature", "signature-input", "sourcemap", "speculation-rules", "strict-transport-security", "sunset", "timing-allow-origin",
	"x-content-type-options", "x-dns-prefetch-control", "x-frame-options", "x-xss-protection",
}

// isExpiryHeader reports whether a header, in whatever spelling, is the one that tells clients when their certificate
// ends. A server's own is removed from every answer, interim answers and trailers too: only the gateway knows.
func (x *Exchange) isExpiryHeader(name string) bool {
	header := x.Snapshot.Routes.expiryHeader
	if header == "" || len(name) != len(header) {
		return false
	}
	var space [maxExpiryHeader]byte
	return string(message.AppendFold(space[:0], name)) == header
}

// appendExpiry appends the header line that tells the client when its certificate ends, if that was good for the API,
// whoever settled the call.
func (x *Exchange) appendExpiry(b []byte) []byte {
	header := x.Snapshot.Routes.settings.ExpiryHeader
	if header == "" || x.registration == nil {
		return b
	}
	return http1.AppendField(b, header, x.Certificate.End())
}

// AnswerTrailers are the trailer fields of a server's answer that the client gets.
func (x *Exchange) AnswerTrailers(t *backend.Trip) []http1.Field {
	fields := t.Trailers()
	if x.Snapshot.Routes.expiryHeader == "" {
		return fields
	}
	return slices.DeleteFunc(fields, func(f http1.Field) bool { return x.isExpiryHeader(f.Name) })
}

// AnnouncedTrailers are the names of the trailer fields that a server's answer announces and the client may get.
func (x *Exchange) AnnouncedTrailers(t *backend.Trip) []string {
	return slices.DeleteFunc(t.Announced(), x.isExpiryHeader)
}
