package clientcert

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
)

// A Format is how a load balancer writes a client's certificate into a header. Its zero value is Auto.
type Format uint8

const (
	// Auto recognises, under one header name: PEM, URL-escaped or with spaces for its line ends; base64 or base64url,
	// of PEM or of DER; RFC 9440's byte sequence.
	Auto    Format = iota
	RFC9440        // Client-Cert, and Client-Cert-Chain for the rest of the chain: RFC 9440
	XFCC           // X-Forwarded-Client-Cert, Envoy's list of elements: exactly one, with Cert
	ALB            // X-Amzn-Mtls-Clientcert, AWS ALB's passthrough: the URL-escaped PEM of the whole chain, leaf first
)

// Bounds of a certificate header.
const (
	maxHeader = 64 << 10 // bytes of a value
	maxChain  = 8        // certificates
)

// parse returns the DER of the certificates in a header's value, leaf first. The DER is not parsed: it may not be a
// certificate at all.
func (f Format) parse(value string) ([][]byte, error) {
	if len(value) > maxHeader {
		return nil, errors.New("certificate header is too long")
	}
	value = strings.Trim(value, " \t") // RFC 9110 section 5.5
	switch f {
	case Auto:
		return parseAuto(value)
	case RFC9440:
		return parseByteSequence(value)
	case XFCC:
		return parseXFCC(value)
	case ALB:
		if strings.ContainsAny(value, " \t") {
			return nil, errors.New("certificate header has white space, which is escaped there")
		}
		text, err := unescape(value)
		if err != nil {
			return nil, err
		}
		return parsePEM(text, maxChain)
	}
	return nil, errors.New("unknown header format")
}

// parseAuto distinguishes the formats by what only one of them can begin with or contain.
func parseAuto(value string) ([][]byte, error) {
	switch {
	case strings.HasPrefix(value, ":"):
		return parseByteSequence(value)
	case strings.ContainsRune(value, '%'):
		text, err := unescape(value)
		if err != nil {
			return nil, err
		}
		return parsePEM(text, 1)
	case strings.HasPrefix(value, "-----"):
		return parsePEM(value, 1)
	}
	decoded, err := decodeBase64(value)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(decoded, []byte("-----")) {
		return parsePEM(string(decoded), 1)
	}
	return [][]byte{decoded}, nil
}

// parsePEM reads one to most CERTIFICATE blocks and nothing else. Their line ends may be any white space, since a
// header cannot hold line ends.
func parsePEM(text string, most int) ([][]byte, error) {
	const begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
	var certificates [][]byte
	for rest := strings.Trim(text, " \t\r\n"); rest != ""; rest = strings.TrimLeft(rest, " \t\r\n") {
		inner, ok := strings.CutPrefix(rest, begin)
		if !ok {
			return nil, errors.New("certificate header holds something that is no PEM certificate")
		}
		if inner, rest, ok = strings.Cut(inner, end); !ok {
			return nil, errors.New("certificate header holds half a PEM certificate")
		}
		if len(certificates) == most {
			return nil, errors.New("certificate header holds too many certificates")
		}
		der, err := decodeBase64(strings.Join(strings.Fields(inner), ""))
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, der)
	}
	if len(certificates) == 0 {
		return nil, errors.New("certificate header is empty")
	}
	return certificates, nil
}

// parseByteSequence reads RFC 9440's ":base64:" (RFC 8941 section 3.3.5), without parameters.
func parseByteSequence(value string) ([][]byte, error) {
	if len(value) < 3 || value[0] != ':' || value[len(value)-1] != ':' {
		return nil, errors.New("certificate header is no byte sequence")
	}
	if strings.ContainsAny(value, "\r\n") { // which encoding/base64 overlooks
		return nil, errBase64
	}
	der, err := base64.StdEncoding.Strict().DecodeString(value[1 : len(value)-1])
	if err != nil {
		return nil, errBase64
	}
	return [][]byte{der}, nil
}

// parseByteSequences reads Client-Cert-Chain: a list of byte sequences.
func parseByteSequences(value string) ([][]byte, error) {
	var list [][]byte
	for _, member := range strings.Split(value, ",") {
		if len(list) == maxChain {
			return nil, errors.New("certificate chain header holds too many certificates")
		}
		der, err := parseByteSequence(strings.Trim(member, " \t"))
		if err != nil {
			return nil, err
		}
		list = append(list, der...)
	}
	return list, nil
}

var (
	errBase64 = errors.New("certificate header is not base64")
	errXFCC   = errors.New("X-Forwarded-Client-Cert is malformed")
)

// decodeBase64 reads either alphabet, padded or not, and nothing besides: spare bits and line ends are refused.
func decodeBase64(text string) ([]byte, error) {
	text = strings.TrimRight(text, "=")
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.RawURLEncoding
	}
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return nil, errBase64
	}
	data, err := encoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errBase64
	}
	return data, nil
}

// unescape undoes URL escapes, once. A "+" is itself: PEM has many, and AWS ALB does not escape them.
func unescape(s string) (string, error) {
	text, err := url.PathUnescape(s)
	if err != nil {
		return "", errors.New("certificate header has a malformed escape") // without a part of it
	}
	return text, nil
}

// parseXFCC reads Envoy's X-Forwarded-Client-Cert: elements of key=value pairs. More than one element means that the
// chain of proxies is longer than the trust in it. Cert is needed; Chain is the rest of it; Hash, if given, has to fit.
func parseXFCC(value string) ([][]byte, error) {
	fields, err := xfccFields(value)
	if err != nil {
		return nil, err
	}
	text, err := unescape(fields["cert"])
	if err != nil {
		return nil, err
	}
	certificates, err := parsePEM(text, 1)
	if err != nil {
		return nil, err
	}
	if hash, ok := fields["hash"]; ok {
		sum := sha256.Sum256(certificates[0])
		if !strings.EqualFold(hash, hex.EncodeToString(sum[:])) {
			return nil, errors.New("X-Forwarded-Client-Cert names the hash of another certificate")
		}
	}
	if chain, ok := fields["chain"]; ok {
		text, err := unescape(chain)
		if err != nil {
			return nil, err
		}
		all, err := parsePEM(text, maxChain)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(all[0], certificates[0]) {
			all = all[1:] // Envoy's chain begins with the leaf
		}
		certificates = append(certificates, all...)
	}
	return certificates, nil
}

// xfccFields splits one element. Keys compare without case; By, URI and DNS may be repeated, and tell us nothing.
func xfccFields(s string) (map[string]string, error) {
	fields := map[string]string{}
	for {
		key, rest, ok := strings.Cut(s, "=")
		if !ok || key == "" || strings.ContainsAny(key, `",; `) {
			return nil, errXFCC
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			if value, rest, ok = quoted(rest[1:]); !ok {
				return nil, errXFCC
			}
		} else {
			end := strings.IndexAny(rest, ";,")
			if end < 0 {
				end = len(rest)
			}
			value, rest = rest[:end], rest[end:]
		}
		key = strings.ToLower(key)
		switch key {
		case "cert", "chain", "hash":
			if _, twice := fields[key]; twice {
				return nil, errXFCC
			}
			fields[key] = value
		case "by", "uri", "dns", "subject", "issuer":
		default:
			return nil, errXFCC
		}
		switch {
		case rest == "":
			return fields, nil
		case rest[0] != ';':
			return nil, errors.New("X-Forwarded-Client-Cert has more than one element")
		}
		s = rest[1:]
	}
}

// quoted reads up to the closing quote; a backslash makes the next character itself.
func quoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
