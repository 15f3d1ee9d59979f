// Package message is what names of fields mean, and the strict reading of a request's path.
package message

import (
	"strings"

	"golang.org/x/net/http/httpguts"
)

// A Field is a header or trailer line as it stood on the wire, without the spaces and tabs around the value.
type Field struct{ Name, Value string }

// AppendFields appends the lines of a header that is kept by its names, in any order of these.
func AppendFields(list []Field, h map[string][]string) []Field {
	for name, values := range h {
		for _, v := range values {
			list = append(list, Field{name, v})
		}
	}
	return list
}

// Plain is a field's name as names are compared that backends may confuse: in lower case and with "-" for "_".
func Plain(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// Framing reports whether a Plain name frames, routes or authenticates a message.
func Framing(plain string) bool { return framing[plain] }

var framing = map[string]bool{
	"content-length": true, "transfer-encoding": true, "host": true, "connection": true, "authorization": true,
	"upgrade": true, "te": true, "trailer": true, "keep-alive": true, "expect": true, "content-type": true, "cookie": true, "set-cookie": true,
}

// MayTrail reports whether a trailer field of that name may be passed on: it frames, routes and authenticates nothing,
// and says nothing for which a trailer comes too late (RFC 9110 section 6.5.1).
func MayTrail(name string) bool {
	return httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name) && !framing[Plain(name)]
}

// HopByHop reports whether a field belongs to one connection, or frames one message (RFC 9110 section 7.6.1).
func HopByHop(name string) bool {
	switch len(name) {
	case 2:
		return strings.EqualFold(name, "Te")
	case 6:
		return strings.EqualFold(name, "Expect")
	case 7:
		return strings.EqualFold(name, "Upgrade") || strings.EqualFold(name, "Trailer")
	case 10:
		return strings.EqualFold(name, "Connection") || strings.EqualFold(name, "Keep-Alive")
	case 14:
		return strings.EqualFold(name, "Content-Length")
	case 16:
		return strings.EqualFold(name, "Proxy-Connection")
	case 17:
		return strings.EqualFold(name, "Transfer-Encoding")
	case 18:
		return strings.EqualFold(name, "Proxy-Authenticate")
	case 19:
		return strings.EqualFold(name, "Proxy-Authorization")
	}
	return false
}
