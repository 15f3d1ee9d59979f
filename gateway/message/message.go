// Package message is what a stage may know of a request, whatever carried it over the wire.
package message

// A Request is one call as it was received. Its strings are as they stood on the wire; none is decoded or cleaned.
// They stay valid until the call is finished.
type Request interface {
	// Method is the request method, RFC 9110 section 9.
	Method() string
	// Target is the request target as received: origin-form or absolute-form, RFC 9112 section 3.2.
	Target() string
	// Authority is the host, and the port if one was named, that the request is for: the target's in absolute-form,
	// HTTP/2's :authority, else the Host header.
	Authority() string
	// Values are the values of the header lines of that name, in order. Name is in canonical form (Content-Type).
	// The caller does not change or keep them.
	Values(name string) []string
}
