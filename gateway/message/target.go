package message

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
)

// Bounds of a request target. A path of more segments than these is nobody's resource.
const (
	MaxPath     = 8 << 10 // bytes
	MaxSegments = 128
)

// Errors of ParseTarget. All of them are answered with 400; the text is for logs.
var (
	errTargetForm  = errors.New("request target is not a path")
	errPathLength  = errors.New("path is too long")
	errSegments    = errors.New("path has too many segments")
	errEmpty       = errors.New("path has an empty segment")
	errDot         = errors.New("path has a dot segment")
	errCharacter   = errors.New("path has a character that must be escaped")
	errEscape      = errors.New("path has a malformed escape")
	errNeedless    = errors.New("path escapes a character that needs no escape")
	errDelimiter   = errors.New("path has an escaped slash, backslash or control character")
	errTwice       = errors.New("path has a doubly escaped delimiter")
	errUTF8        = errors.New("path is not UTF-8 when unescaped")
	errQueryOctets = errors.New("query has a control character, a space or a fragment")
)

// ParseTarget splits a request target in origin-form or absolute-form (RFC 9112 section 3.2) into its raw path and raw
// query (hasQuery tells "/a?" from "/a"), and refuses every path that two readers could take for different ones: dot
// segments, also behind a path parameter ("..;"), empty segments except a trailing slash, escaped slashes,
// backslashes and control characters, escapes of characters that need none (RFC 3986 section 2.3), escapes of escapes
// of delimiters, bytes that are not UTF-8. So the path that is checked can be sent on byte for byte.
func ParseTarget(target string) (path, query string, hasQuery bool, err error) {
	path = target
	if !strings.HasPrefix(path, "/") {
		scheme, rest, ok := strings.Cut(target, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return "", "", false, errTargetForm
		}
		i := strings.IndexAny(rest, "/?#")
		if i < 0 || rest[i] != '/' || !ValidAuthority(rest[:i]) {
			// http://host and http://host?query name the root (RFC 9112 section 3.2.2), which is no API's place.
			return "", "", false, errTargetForm
		}
		path = rest[i:]
	}
	path, query, hasQuery = strings.Cut(path, "?")
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c == 0x7f || c == '#' {
			return "", "", false, errQueryOctets
		}
	}
	if err := checkPath(path); err != nil {
		return "", "", false, err
	}
	return path, query, hasQuery, nil
}

// checkPath holds the rules of ParseTarget over a path that begins with a slash.
func checkPath(path string) error {
	if len(path) > MaxPath {
		return errPathLength
	}
	segments, start, escaped := 0, 1, false
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			switch c := path[i]; {
			case c == '%':
				if err := checkEscape(path[i:]); err != nil {
					return err
				}
				escaped = true
			case !pathCharacter(c):
				return errCharacter
			}
			continue
		}
		segment := path[start:i]
		if segment == "" && i < len(path) {
			return errEmpty
		}
		if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
			return errDot
		}
		if segments++; segments > MaxSegments {
			return errSegments
		}
		start = i + 1
	}
	if escaped && !unescapedIsUTF8(path) {
		return errUTF8
	}
	return nil
}

// pathCharacter tells the octets of RFC 3986's pchar that stand for themselves. A backslash is none of them.
func pathCharacter(c byte) bool {
	switch c {
	case '!', '$', '&', '\'', '(', ')', '*', '+', ',', ';', '=', ':', '@':
		return true
	}
	return unreserved(c)
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// checkEscape looks at the escape that s begins with.
func checkEscape(s string) error {
	c, ok := Unescape(s)
	if !ok {
		return errEscape
	}
	switch {
	case unreserved(c):
		return errNeedless
	case c == '/' || c == '\\' || c < ' ' || c == 0x7f:
		return errDelimiter
	case c == '%':
		// %252e: a backend that unescapes once more than it should would see the dot.
		if d, ok := Unescape("%" + s[3:min(5, len(s))]); ok && (d == '%' || d == '.' || d == '/' || d == '\\' || d < ' ' || d == 0x7f) {
			return errTwice
		}
	}
	return nil
}

// Unescape reads the octet of the escape ("%2F") that s begins with.
func Unescape(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	hi, ok1 := HexDigit(s[1])
	lo, ok2 := HexDigit(s[2])
	return hi<<4 | lo, ok1 && ok2
}

// HexDigit is the value of a hexadecimal digit.
func HexDigit(c byte) (value byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// unescapedIsUTF8 is for a path with escapes.
func unescapedIsUTF8(path string) bool {
	var space [256]byte
	text := space[:0]
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			c, _ = Unescape(path[i:])
			i += len("2F")
		}
		text = append(text, c)
	}
	return utf8.Valid(text)
}

// ValidMethod reports whether a method is a token, RFC 9110 section 5.6.2.
func ValidMethod(method string) bool { return httpguts.ValidHeaderFieldName(method) }

// ValidAuthority reports whether a Host or :authority is a name or an address with perhaps a port, and nothing else: no
// user, no list, no zone, nothing escaped (RFC 9110 section 7.2, RFC 3986 section 3.2).
func ValidAuthority(authority string) bool {
	host, port := authority, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return false
		}
		host, port = authority[1:end], authority[end+1:]
		for i := range len(host) {
			if _, ok := HexDigit(host[i]); !ok && host[i] != ':' && host[i] != '.' {
				return false
			}
		}
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			host, port = host[:i], host[i:]
		}
		for i := range len(host) {
			if !unreserved(host[i]) {
				return false
			}
		}
	}
	if host == "" {
		return false
	}
	for i := range len(port) {
		if i == 0 && port[i] == ':' {
			continue
		}
		if i == 0 || port[i] < '0' || port[i] > '9' || i > 5 {
			return false
		}
	}
	return true
}
