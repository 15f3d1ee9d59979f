package message

import (
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Errors of ParseTarget. All of them are answered with 400; the text is for logs.
var (
	errTargetForm  = errors.New("request target is not a path")
	errQueryOctets = errors.New("query has a control character, a space or a fragment")
)

// ParseTarget splits a request target in origin-form or absolute-form (RFC 9112 section 3.2) into its raw path, which
// CheckPath lets pass, and its raw query; hasQuery tells "/a?" from "/a". The path is sent on byte for byte.
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
	if err := CheckPath(path); err != nil {
		return "", "", false, err
	}
	return path, query, hasQuery, nil
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
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

// ValidMethod reports whether a method is a token, RFC 9110 section 5.6.2.
func ValidMethod(method string) bool { return httpguts.ValidHeaderFieldName(method) }

// ValidAuthority reports whether a Host or :authority is a name, an IPv4 address or an IPv6 address in brackets, with
// perhaps a port, and nothing else: no user, no list, no zone, nothing escaped (RFC 9110 section 7.2, RFC 3986 section 3.2).
func ValidAuthority(authority string) bool {
	host, port := authority, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return false
		}
		host, port = authority[1:end], authority[end+1:]
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || a.Zone() != "" {
			return false
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
