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

// Fold is a field's name as names are compared that backends may confuse: letters in lower case, and "-" for everything
// that is neither letter nor digit, as CGI, WSGI and servlets have it with "_".
func Fold(name string) string { return string(AppendFold(nil, name)) }

// AppendFold appends a name's Fold.
func AppendFold(b []byte, name string) []byte {
	for i := range len(name) {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			b = append(b, c+'a'-'A')
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b = append(b, c)
		default:
			b = append(b, '-')
		}
	}
	return b
}

// Framing reports whether a name's Fold frames, routes or authenticates a message.
func Framing(folded string) bool { return framing[folded] }

var framing = map[string]bool{
	"content-length": true, "transfer-encoding": true, "host": true, "connection": true, "authorization": true,
	"upgrade": true, "te": true, "trailer": true, "keep-alive": true, "expect": true, "content-type": true, "cookie": true, "set-cookie": true,
}

// MayTrail reports whether a trailer field of that name may be passed on: it frames, routes and authenticates nothing,
// and says nothing for which a trailer comes too late (RFC 9110 section 6.5.1).
func MayTrail(name string) bool {
	return httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name) && !framing[Fold(name)]
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
