package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Bounds on what is parsed, in bytes of the encoded token. They leave room for a certificate chain in the header.
const (
	maxToken  = 16 << 10
	maxHeader = 8 << 10
)

// A parsedToken is what a token says of itself before anything is verified: enough to find the key.
type parsedToken struct {
	jws
	claims payload
}

// A jws is a JSON Web Signature in compact serialisation (RFC 7515, section 7.1), taken apart.
type jws struct {
	header    header
	payload   []byte
	signed    string // what the signature is of
	signature []byte
}

// A header is the part of the JOSE header (RFC 7515, section 4) that matters here. Keys and addresses of keys in it
// (jwk, jku, x5u, x5c) are the sender's word, and not even read.
type header struct {
	algorithm    string
	keyID        string
	hasKeyID     bool
	tokenType    string
	hasTokenType bool
}

// parse reads an access token strictly. Cheap checks come first.
func parse(raw string) (parsedToken, error) {
	var t parsedToken
	var err error
	if t.jws, err = parseJWS(raw); err != nil {
		return t, err
	}
	if err := t.claims.UnmarshalJSON(t.payload); err != nil {
		return t, fmt.Errorf("%w: payload: %w", ErrInvalid, err)
	}
	return t, nil
}

func parseJWS(raw string) (jws, error) {
	var s jws
	if len(raw) > maxToken {
		return s, invalid("it is too long")
	}
	head, rest, _ := strings.Cut(raw, ".")
	body, signature, two := strings.Cut(rest, ".")
	if !two || strings.Contains(signature, ".") {
		return s, invalid("it has not three parts") // a JWE has five
	}
	if head == "" || body == "" || signature == "" {
		return s, invalid("a part is empty")
	}
	if len(head) > maxHeader {
		return s, invalid("its header is too long")
	}
	var err error
	if s.signature, err = decode(signature); err != nil {
		return s, invalid("its signature is not base64url")
	}
	headBytes, err := decode(head)
	if err != nil {
		return s, invalid("its header is not base64url")
	}
	if s.header, err = parseHeader(headBytes); err != nil {
		return s, fmt.Errorf("%w: header: %w", ErrInvalid, err)
	}
	if s.payload, err = decode(body); err != nil {
		return s, invalid("its payload is not base64url")
	}
	s.signed = raw[:len(head)+1+len(body)]
	return s, nil
}

// decode takes unpadded base64url in its canonical form only: Go's decoder skips line ends and, unless strict, spare
// bits, so that one token would have many spellings.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("it has line ends")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

func parseHeader(b []byte) (header, error) {
	var h header
	members, err := parseObject(b)
	if err != nil {
		return h, err
	}
	// An extension that must be understood (RFC 7515, section 4.1.11) isn't; the others change what is signed.
	for _, name := range []string{"crit", "b64", "zip", "enc"} {
		if _, has := members[name]; has {
			return h, fmt.Errorf("%s is not supported", name)
		}
	}
	var hasAlgorithm bool
	for _, field := range []struct {
		name  string
		value *string
		has   *bool
	}{
		{"alg", &h.algorithm, &hasAlgorithm},
		{"kid", &h.keyID, &h.hasKeyID},
		{"typ", &h.tokenType, &h.hasTokenType},
	} {
		if *field.has, err = members.text(field.name, field.value); err != nil {
			return h, err
		}
		if *field.has && *field.value == "" {
			return h, fmt.Errorf("%s is empty", field.name)
		}
	}
	if !hasAlgorithm {
		return h, errors.New("alg is missing")
	}
	return h, nil
}

// accepts reports whether t is an access token of i: one whose typ says so or, unless only those are asked for, one that
// has no mark of another kind. An ID token of the same issuer must not pass for one.
func (i *issuer) accepts(t *parsedToken) bool {
	const prefix = "application/"
	typ := t.header.tokenType
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	if strings.EqualFold(typ, accessToken) {
		return true
	}
	if i.TokenType == accessToken || t.header.hasTokenType && !strings.EqualFold(typ, anyJWT) {
		return false
	}
	return i.TokenType == anyJWT || !t.claims.notAccess
}
