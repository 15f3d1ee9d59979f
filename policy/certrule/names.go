package certrule

import (
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxName bounds a name or a text that is compared, in bytes.
const maxName = 2 << 10

// isPlain reports whether a text can be compared: valid UTF-8, not empty, without control characters, and not very long.
// Nor has it the character that takes the place of what can't be read, as JSON has it for half a surrogate.
func isPlain(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}

func isDigit(r rune) bool { return '0' <= r && r <= '9' }

func isLetter(r rune) bool { return 'a' <= r|0x20 && r|0x20 <= 'z' && r < 0x80 }

// isPrintable reports whether a PrintableString may have that character.
func isPrintable(r rune) bool {
	return isLetter(r) || isDigit(r) || r < 0x80 && strings.ContainsRune(" '()+,-./:=?", r)
}

// fromBMP reads UTF-16, big endian, without surrogates, which a BMPString has not.
func fromBMP(b []byte) (string, bool) {
	if len(b)%2 != 0 {
		return "", false
	}
	units := make([]uint16, 0, len(b)/2)
	for i := 0; i < len(b); i += 2 {
		u := uint16(b[i])<<8 | uint16(b[i+1])
		if utf16.IsSurrogate(rune(u)) {
			return "", false
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), true
}

// lower folds ASCII letters only: other alphabets have several ideas of what lower case is.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// parseHost reads a host name: labels of letters, digits, "-" and "_" (RFC 1123, with what Go's and others' resolvers
// allow), international ones as A-labels. It returns it in lower case. An address, a wildcard, and a name with a final dot
// are none.
func parseHost(s string) (string, bool) {
	if len(s) == 0 || len(s) > 253 {
		return "", false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool { return !isLetter(r) && !isDigit(r) && r != '-' && r != '_' }) {
			return "", false
		}
	}
	if !strings.ContainsFunc(labels[len(labels)-1], func(r rune) bool { return !isDigit(r) }) {
		return "", false // 10.0.0.1, which a reader might take for an address
	}
	return lower(s), true
}

// parseEmail reads an address without quotation marks and comments (RFC 5321, Dot-string "@" Domain). Which of two local
// parts are the same only their own server knows: it stays as it is. The domain is in lower case.
func parseEmail(s string) (local, domain string, ok bool) {
	local, domain, ok = strings.Cut(s, "@")
	if !ok || len(local) > 64 {
		return "", "", false
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool {
			return !isLetter(r) && !isDigit(r) && (r >= 0x80 || !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r))
		}) {
			return "", "", false
		}
	}
	domain, ok = parseHost(domain)
	return local, domain, ok
}

// A uri is one whose text has one meaning.
type uri struct {
	text string // as it is written, but scheme and host in lower case
	// plain says that it is scheme, host and path alone, in which no segment is empty, "." or "..", and nothing is escaped:
	// what is below another one can be told by its text.
	plain bool
}

// parseURI reads a URI (RFC 3986) that has a scheme and a host, as spiffe://partner.test/billing, or a scheme and a path
// alone, as urn:partner:billing. With user information, a host in non-ASCII, or a segment "." or ".." it is none.
func parseURI(s string) (uri, bool) {
	if len(s) > maxName {
		return uri{}, false
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme == "" || !isLetter(rune(scheme[0])) || strings.ContainsFunc(scheme, func(r rune) bool {
		return !isLetter(r) && !isDigit(r) && !strings.ContainsRune("+-.", r)
	}) {
		return uri{}, false
	}
	authority, hasAuthority := "", false
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		end := strings.IndexAny(after, "/?#")
		if end < 0 {
			end = len(after)
		}
		authority, rest, hasAuthority = after[:end], after[end:], true
		host, port, _ := strings.Cut(authority, ":")
		if host, ok = parseHostOrAddress(host); !ok || strings.ContainsFunc(port, func(r rune) bool { return !isDigit(r) }) ||
			strings.HasSuffix(authority, ":") || len(port) > 5 {
			return uri{}, false
		}
		authority = "//" + host + authority[len(host):]
	} else if rest == "" || rest[0] == '/' {
		return uri{}, false // no host where there should be one, as in spiffe:/x
	}
	if !isURIText(rest) {
		return uri{}, false
	}
	path := rest
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		path = rest[:i]
	}
	plain := hasAuthority && path == rest && !strings.Contains(path, "%")
	for i, segment := range strings.Split(path, "/") {
		if dots := strings.ReplaceAll(lower(segment), "%2e", "."); dots == "." || dots == ".." {
			return uri{}, false
		}
		plain = plain && (segment == "") == (i == 0) // what is before the first slash
	}
	return uri{lower(scheme) + ":" + authority + rest, plain}, true
}

// parseHostOrAddress is parseHost that takes an IPv4 address, too.
func parseHostOrAddress(s string) (string, bool) {
	if host, ok := parseHost(s); ok {
		return host, true
	}
	ip, err := parseAddress(s)
	return s, err == nil && ip.Is4()
}

// isURIText reports whether path, query and fragment have only characters that may be in them, and whole escapes.
func isURIText(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := rune(s[i]); {
		case isLetter(c), isDigit(c):
		case c == '%':
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return false
			}
		case c >= 0x80 || !strings.ContainsRune("-._~!$&'()*+,;=:@/?#", c):
			return false
		}
	}
	return strings.Count(s, "#") <= 1
}

func isHex(c byte) bool { return isDigit(rune(c)) || 'a' <= c|0x20 && c|0x20 <= 'f' }
