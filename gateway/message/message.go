// Package message is what a stage may know of a request, whatever carried it over the wire, and what names of fields
// mean.
package message

// A Field is a header or trailer line as it stood on the wire, without the spaces and tabs around the value.
type Field struct{ Name, Value string }

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
	// Version is that of HTTP as RFC 9110 section 7.6.3 writes it: "1.0", "1.1" or "2".
	Version() string
	// Fields are all header lines. The caller does not change or keep them.
	Fields() []Field
	// Named reports whether a Connection field names this field, which then is for the next hop only (RFC 9110 section
	// 7.6.1).
	Named(name string) bool
	// Lines is how many header lines were sent, without Host and pseudo-headers. Each line of cookies counts; where
	// only their sum is known (HTTP/2, RFC 9113 section 8.2.3), each cookie does.
	Lines() int
	// Length is how many bytes of body the request states, 0 without a body, or -1 if it does not say.
	Length() int64
	// Problem is why no request could be read that every reader reads alike; nil if one was. All else is then of no
	// use.
	Problem() error
}
