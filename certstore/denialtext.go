package certstore

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"

	"sallyport/internal/printable"
)

// maxDenialText bounds what is read as a digest, a serial number or a name, in bytes.
const maxDenialText = 4 << 10

// ParseDigest reads a SHA-256 as people copy it: 64 hex digits in either case, with or without colons, or base64; after
// sha256/, sha256: or what openssl x509 -fingerprint -sha256 writes before it. The errors match ErrInvalid.
func ParseDigest(text string) (digest [sha256.Size]byte, err error) {
	if len(text) > maxDenialText {
		return digest, invalid("it has more than %d bytes", maxDenialText)
	}
	s := strings.TrimSpace(text)
	for _, before := range []string{"sha256 fingerprint=", "sha256/", "sha256:", "sha-256:"} {
		if len(s) > len(before) && strings.EqualFold(s[:len(before)], before) {
			s = strings.TrimSpace(s[len(before):])
			break
		}
	}
	if digits := undivided(s); len(digits) == 2*sha256.Size {
		if b, err := hex.DecodeString(digits); err == nil {
			return digestOf(b)
		}
	} else if _, err := hex.DecodeString(digits); err == nil && len(digits) == 40 {
		return digest, invalid("%s has the length of a SHA-1: a SHA-256 has 64 hex digits, as openssl x509 -noout -fingerprint -sha256 prints it", printable.Quote(text))
	}
	if bare := strings.TrimRight(s, "="); len(bare) == 43 && len(s) <= 44 {
		bare = strings.NewReplacer("-", "+", "_", "/").Replace(bare)
		if b, err := base64.RawStdEncoding.Strict().DecodeString(bare); err == nil {
			return digestOf(b)
		}
	}
	return digest, invalid("%s is no SHA-256: it has 64 hex digits, with or without colons, or 44 characters of base64", printable.Quote(text))
}

func digestOf(b []byte) (digest [sha256.Size]byte, err error) {
	if digest = [sha256.Size]byte(b); digest == ([sha256.Size]byte{}) {
		return digest, invalid("nothing has a SHA-256 of zeros alone")
	}
	return digest, nil
}

// undivided is text without the colons and spaces that divide hex digits.
func undivided(text string) string { return strings.NewReplacer(":", "", " ", "").Replace(text) }

// ParseSerial reads a serial number as people copy it: hex digits in either case, with or without colons and leading zeros,
// after 0x or serial= or nothing; or decimal:, and then decimal digits, which nothing else tells from hex. The result is as
// a Denial has it. The errors match ErrInvalid.
func ParseSerial(text string) ([]byte, error) {
	if len(text) > maxDenialText {
		return nil, invalid("it has more than %d bytes", maxDenialText)
	}
	s := strings.ToLower(strings.TrimSpace(text))
	s = strings.TrimPrefix(s, "serial=")
	digits, decimal := strings.CutPrefix(s, "decimal:")
	base := 10
	if !decimal {
		base = 16
		if digits = undivided(s); strings.HasPrefix(s, "0x") {
			digits = digits[2:]
		}
	}
	switch n, ok := new(big.Int).SetString(digits, base); {
	case strings.HasPrefix(digits, "-"):
		return nil, invalid("%s is negative: a certificate with such a serial number is never admitted", printable.Quote(text))
	case !ok || strings.ContainsAny(digits, "+_"):
		return nil, invalid("%s is no serial number: it is in hex digits, with or without colons, or in decimal ones after decimal:", printable.Quote(text))
	case len(n.Bytes()) > maxSerial:
		return nil, invalid("a serial number has at most %d bytes", maxSerial)
	default:
		return n.Bytes(), nil
	}
}

// NameIs reports whether a name in DER is what a text says that RFC 4514 describes, in its order or the reverse, which
// other programs write. Names that differ in the types of their strings alone have the same text.
func NameIs(der []byte, text string) bool {
	if len(text) > maxDenialText || strings.TrimSpace(text) == "" {
		return false
	}
	name, wanted := parts(NameText(der)), parts(text)
	if slices.Equal(name, wanted) {
		return true
	}
	slices.Reverse(wanted)
	return slices.Equal(name, wanted)
}

// parts are the relative names of a text, each in one spelling.
func parts(text string) (list []string) {
	for _, rdn := range split(text, ",;") {
		var attributes []string
		for _, a := range split(rdn, "+") {
			kind, value, _ := strings.Cut(a, "=")
			if kind = strings.ToUpper(strings.TrimSpace(kind)); kind == "S" {
				kind = "ST"
			}
			attributes = append(attributes, kind+"="+unescape(trimSpaces(value)))
		}
		slices.Sort(attributes)
		list = append(list, strings.Join(attributes, "\x00"))
	}
	return list
}

// split splits a text at each of some characters that no backslash precedes.
func split(text, at string) (list []string) {
	begin := 0
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case strings.IndexByte(at, text[i]) >= 0:
			list = append(list, text[begin:i])
			begin = i + 1
		}
	}
	return append(list, text[begin:])
}

// trimSpaces takes off spaces that are not escaped.
func trimSpaces(s string) string {
	s = strings.TrimLeft(s, " ")
	bare := strings.TrimRight(s, " ")
	backslashes := len(bare) - len(strings.TrimRight(bare, `\`))
	if backslashes%2 == 1 && len(bare) < len(s) {
		bare += " "
	}
	return bare
}

// unescape undoes the escapes of RFC 4514 section 2.4.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		if i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.Write(c)
				i += 2
				continue
			}
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}
