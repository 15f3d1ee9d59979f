package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"sallyport/gateway/clientcert"
)

// managed are the request headers that only the gateway, or nobody, may set towards a backend, in lower case and with
// "-" for "_": many backends read the two alike. A "*" at the end stands for any rest.
var managed = append(clientcert.Headers(),
	"x-sallyport-*", "x-jwt-assertion", // who calls
	"x-forwarded-*", "forwarded", "x-real-ip", "x-request-id", "traceparent", "tracestate", // from where, and which call
	"proxy-*", "x-original-uri", "x-original-url", "x-rewrite-url", // what other proxies believe
)

// framing are the headers whose "_" spelling could be read as the real one by a backend. The real ones are net/http's.
var framing = map[string]bool{
	"content-length": true, "transfer-encoding": true, "host": true, "connection": true, "authorization": true,
	"upgrade": true, "te": true, "trailer": true, "keep-alive": true, "expect": true, "content-type": true, "cookie": true,
}

// stripManaged removes every managed header in every spelling, and also the certificate header that is configured,
// believed or not. That one is given as plainName has it.
func stripManaged(h http.Header, certificateHeader string) {
	for name := range h {
		if isManaged(name, certificateHeader) {
			delete(h, name)
		}
	}
}

func isManaged(name, certificateHeader string) bool {
	var space [64]byte
	plain := space[:0]
	underscore := false
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '_':
			c, underscore = '-', true
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		plain = append(plain, c)
	}
	if underscore && framing[string(plain)] || string(plain) == certificateHeader {
		return true
	}
	if len(plain) == 0 {
		return false
	}
	for _, m := range managedByLetter[plain[0]] {
		prefix, wild := strings.CutSuffix(m, "*")
		if wild && strings.HasPrefix(string(plain), prefix) || string(plain) == m {
			return true
		}
	}
	return false
}

// managedByLetter are the names of managed by their first letter: no header is compared with all of them.
var managedByLetter = func() (list [256][]string) {
	for _, m := range managed {
		list[m[0]] = append(list[m[0]], m)
	}
	return list
}()

// plainName is a header's name as managed has it.
func plainName(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// headerText is a name from outside as a header value: as it is if it is plain visible ASCII, else percent-encoded
// (RFC 3986 section 2.1), so that it can neither break the line nor be taken for another name.
func headerText(s string) string {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' || c == ',' || c == '"' {
			return url.PathEscape(s)
		}
	}
	return s
}
