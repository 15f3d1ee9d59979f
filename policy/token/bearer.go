package token

import "strings"

// Bearer returns the token that the lines of an Authorization header carry (RFC 6750, section 2.1).
//
// A line is a list of credentials separated by commas outside of quotes, as WSO2 reads it. One whose first word is
// Bearer, in any case, must go on with one or more spaces and a b64token and nothing else: a tab, quotes, a second
// word, or no token at all is ErrInvalid. Credentials of other schemes are not ours and are passed over, and so is a
// token elsewhere, in the query or a cookie. Without a Bearer credential raw is empty and err nil. The same token may
// come twice; two different ones are ErrInvalid, since the backend might use either. So are more than 64 elements.
func Bearer(values ...string) (raw string, err error) {
	credentials := 0
	for _, rest := range values {
		for rest != "" {
			if credentials++; credentials > maxCredentials {
				return "", errManyCredentials
			}
			var credential string
			credential, rest = cutCredential(rest)
			token, ours, ok := parseCredential(credential)
			switch {
			case !ours:
			case !ok:
				return "", errMalformedBearer
			case raw != "" && raw != token:
				return "", errTwoBearers
			default:
				raw = token
			}
		}
	}
	return raw, nil
}

// maxCredentials is how many elements of lists Bearer looks at; the parameters of other schemes are elements, too.
const maxCredentials = 64

var (
	errManyCredentials = invalid("there are more credentials than anybody needs")
	errMalformedBearer = invalid("the Bearer credential is malformed")
	errTwoBearers      = invalid("there are two different Bearer tokens")
)

// cutCredential cuts at the first comma that is not within a quoted-string (RFC 9110, section 5.6.4).
func cutCredential(s string) (credential, rest string) {
	comma := strings.IndexByte(s, ',')
	if comma < 0 {
		return s, ""
	}
	if strings.IndexByte(s[:comma], '"') < 0 {
		return s[:comma], s[comma+1:]
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// parseCredential returns the token of a credential that is ours, which is not ok if it is malformed.
func parseCredential(s string) (token string, ours, ok bool) {
	s = strings.Trim(s, " \t")
	if !isBearer(s) {
		return "", false, false
	}
	s = s[len(scheme):]
	token = strings.TrimLeft(s, " ")
	if len(token) == len(s) || !isB64Token(token) {
		return "", true, false
	}
	return token, true, true
}

const scheme = "Bearer"

// isBearer reports whether a credential has our scheme, and not one that begins alike.
func isBearer(s string) bool {
	return len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) &&
		(len(s) == len(scheme) || !isTokenChar(s[len(scheme)]))
}

// WithoutBearer returns what is left of an Authorization line for a server behind us when the credentials that Bearer
// looks at, well-formed or not, stay here: those of other schemes, with their parameters. What follows a Bearer
// credential up to the next scheme goes with it. A line without any is returned as it is; one with too many elements,
// or with a Bearer behind a quote that does not end, is not told apart and leaves nothing.
func WithoutBearer(line string) string {
	var space [8]string // or each line with other credentials would cost an allocation
	others := space[:0]
	ours, any := false, false
	elements := 0
	for rest := line; rest != ""; {
		if elements++; elements > maxCredentials {
			return ""
		}
		var element string
		element, rest = cutCredential(rest)
		if rest == "" && hidesBearer(element) {
			return ""
		}
		switch element = strings.Trim(element, " \t"); {
		case element == "":
			continue
		case isBearer(element):
			ours, any = true, true
		case namesScheme(element):
			ours = false
		}
		if !ours {
			others = append(others, element)
		}
	}
	if !any {
		return line
	}
	return strings.Join(others, ", ")
}

// hidesBearer reports whether our scheme stands behind a quote that does not end: a server that cuts at every comma
// finds a token there that nobody has looked at.
func hidesBearer(element string) bool {
	begin, quoted := strings.IndexByte(element, '"'), -1
	if begin < 0 {
		return false
	}
	for i := begin; i < len(element); i++ {
		switch c := element[i]; {
		case c == '"' && quoted < 0:
			quoted = i
		case c == '"':
			quoted = -1
		case c == '\\' && quoted >= 0:
			i++
		}
	}
	return quoted >= 0 && strings.Contains(strings.ToLower(element[quoted:]), strings.ToLower(scheme))
}

// namesScheme reports whether an element of the list begins new credentials, and is no parameter of those before
// (RFC 9110, section 11.4).
func namesScheme(element string) bool {
	n := 0
	for n < len(element) && isTokenChar(element[n]) {
		n++
	}
	rest := strings.TrimLeft(element[n:], " \t")
	return n > 0 && (n == len(element) || len(rest) < len(element)-n) && !strings.HasPrefix(rest, "=")
}

// isB64Token reports whether s is 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=".
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := 0; i < len(s); i++ {
		if !b64Token[s[i]] {
			return false
		}
	}
	return s != ""
}

// b64Token is the characters of a b64token before its padding. It is a table since tokens are long (BenchmarkBearer).
var b64Token = func() (table [256]bool) {
	for c := range table {
		table[c] = isAlphanumeric(byte(c)) || strings.IndexByte("-._~+/", byte(c)) >= 0
	}
	return table
}()

// isTokenChar reports whether c is a tchar (RFC 9110, section 5.6.2), of which the name of a scheme is made.
func isTokenChar(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
