package clientcert

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// DefaultHeader is WSO2's name of the certificate header.
const DefaultHeader = "X-WSO2-CLIENT-CERTIFICATE"

// chainHeader holds the rest of the chain beside the leaf in RFC9440's own header.
const chainHeader = "Client-Cert-Chain"

// formats are the words of the formats and the headers that belong to them. Auto is read from whatever name is
// configured.
var formats = [...]struct{ word, header string }{
	Auto:    {"auto", ""},
	RFC9440: {"rfc9440", "Client-Cert"},
	XFCC:    {"xfcc", "X-Forwarded-Client-Cert"},
	ALB:     {"alb", "X-Amzn-Mtls-Clientcert"},
}

// ParseFormat reads a word of mutualSSL.headerFormat: auto, rfc9440, xfcc or alb.
func ParseFormat(word string) (Format, error) {
	var words []string
	for f, known := range formats {
		if word == known.word {
			return Format(f), nil
		}
		words = append(words, known.word)
	}
	return 0, fmt.Errorf("%.60q is none of %s", word, strings.Join(words, ", "))
}

// String is the word of the configuration.
func (f Format) String() string { return formats[f].word }

// Header is the one header that the format is read from; Auto has none of its own.
func (f Format) Header() string { return formats[f].header }

// carriers are the headers that load balancers write certificates into, in canonical form. A second one beside the one
// that is read, in whatever spelling, may come from the client itself.
var carriers = func() []string {
	list := []string{
		http.CanonicalHeaderKey(DefaultHeader), "X-Amzn-Mtls-Clientcert-Leaf", "X-Client-Cert", "X-Ssl-Client-Cert",
		"X-Ssl-Cert", "Ssl-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Arr-Clientcert", "Cf-Client-Cert-Der-Base64",
	}
	for _, f := range formats {
		if f.header != "" {
			list = append(list, f.header)
		}
	}
	return list
}()

// families are the prefixes of headers in which proxies describe a client's certificate: the certificate itself, its
// chain, its names, the result of its verification.
var families = []string{"client-cert", "x-amzn-mtls-", "x-ssl-", "ssl-client-", "x-client-cert", "x-forwarded-tls-client-cert", "cf-client-cert-"}

// Headers returns the request headers that describe a client's certificate, those of every format included, in lower
// case; a "*" at the end matches any rest. They are removed from every call.
func Headers() []string {
	var list []string
	for _, prefix := range families {
		list = append(list, prefix+"*")
	}
	for _, name := range carriers {
		name = strings.ToLower(name)
		if !slices.ContainsFunc(families, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			list = append(list, name)
		}
	}
	return list
}

// CheckHeader returns why certificates cannot be read from a header of this name, or nil.
func CheckHeader(name string) error { return CheckName(name, DefaultHeader) }

// CheckName returns why an operator can't choose that name for a header, or nil: names that have a meaning of their own,
// those of more, in lower case, among them. like is one that is good.
func CheckName(name, like string, more ...string) error {
	lower := strings.ToLower(name)
	begins := func(prefix string) bool { return strings.HasPrefix(lower, prefix) }
	switch {
	case name == "" || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return errors.New("is no header name: use letters, digits and \"-\"")
	case slices.Contains(taken, lower), slices.Contains(more, lower), slices.ContainsFunc(takenPrefixes, begins):
		return errors.New("has a meaning of its own: choose a name like " + like)
	}
	return nil
}

// taken are the headers that carry a message, and those that the gateway sets for the backend.
var (
	taken = []string{
		"accept", "accept-encoding", "age", "authorization", "cache-control", "connection", "cookie", "date", "expect",
		"forwarded", "from", "host", "http2-settings", "if-match", "if-modified-since", "if-none-match", "if-range",
		"if-unmodified-since", "keep-alive", "location", "max-forwards", "origin", "pragma", "range", "referer", "retry-after",
		"server", "set-cookie", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "user-agent",
		"vary", "via", "warning", "www-authenticate", "x-client-cert-hash", "x-forwarded-for", "x-forwarded-host",
		"x-forwarded-proto", "x-jwt-assertion", "x-request-id", strings.ToLower(chainHeader),
	}
	takenPrefixes = []string{"x-sallyport-", "proxy-", "sec-", "content-", "access-control-"}
)
