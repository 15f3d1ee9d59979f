package certrule

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sallyport/internal/printable"
)

// An attribute is a part of a distinguished name.
type attribute struct {
	oid    string // dotted
	isText bool   // text is known, and compared; otherwise only der is
	text   string
	der    string // of the value, with its tag; "" in a rule that has text
}

// holds reports whether a is what rule asks for.
func (a attribute) holds(rule attribute) bool {
	if a.oid != rule.oid {
		return false
	}
	if rule.isText {
		return a.isText && a.text == rule.text
	}
	return a.der == rule.der
}

// maxAttributes is how many parts a name may have.
const maxAttributes = 64

// parseName reads a Name (RFC 5280, section 4.1.2.4): its relative distinguished names in their order. One that is not well
// formed, or has too many parts, has none.
func parseName(der []byte) [][]attribute {
	in, list := cryptobyte.String(der), cryptobyte.String(nil)
	if !in.ReadASN1(&list, asn1.SEQUENCE) || !in.Empty() {
		return nil
	}
	name := [][]attribute{} // which may have no part
	parts := 0
	for !list.Empty() {
		var set cryptobyte.String
		if !list.ReadASN1(&set, asn1.SET) || set.Empty() {
			return nil
		}
		var rdn []attribute
		for !set.Empty() {
			var pair, oid, value cryptobyte.String
			var tag asn1.Tag
			if !set.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
				return nil
			}
			whole := pair
			id, ok := dotted(oid)
			if !ok || !pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
				return nil
			}
			a := attribute{oid: id, der: string(whole)}
			a.text, a.isText = textOf(tag, value)
			if rdn = append(rdn, a); parts == maxAttributes {
				return nil
			}
			parts++
		}
		name = append(name, rdn)
	}
	return name
}

// attributeTypes are the names that RFC 4514, RFC 4519, OpenSSL and WSO2 have for types, in lower case.
var attributeTypes = map[string]string{
	"cn": "2.5.4.3", "commonname": "2.5.4.3",
	"sn": "2.5.4.4", "surname": "2.5.4.4",
	"serialnumber": "2.5.4.5",
	"c":            "2.5.4.6", "countryname": "2.5.4.6",
	"l": "2.5.4.7", "localityname": "2.5.4.7",
	"st": "2.5.4.8", "stateorprovincename": "2.5.4.8",
	"street": "2.5.4.9", "streetaddress": "2.5.4.9",
	"o": "2.5.4.10", "organizationname": "2.5.4.10",
	"ou": oidOU, "organizationalunitname": oidOU,
	"title":            "2.5.4.12",
	"businesscategory": "2.5.4.15",
	"postalcode":       "2.5.4.17",
	"givenname":        "2.5.4.42", "gn": "2.5.4.42",
	"organizationidentifier": "2.5.4.97",
	"uid":                    "0.9.2342.19200300.100.1.1", "userid": "0.9.2342.19200300.100.1.1",
	"dc": "0.9.2342.19200300.100.1.25", "domaincomponent": "0.9.2342.19200300.100.1.25",
	"emailaddress": "1.2.840.113549.1.9.1", "e": "1.2.840.113549.1.9.1",
}

// parseSubject reads the attributes that a subject must have, written as RFC 4514 writes a name: O=Partner\\, Inc.,C=DE. A
// space after a comma is left out. Pairs joined by "+" have to stand in one relative distinguished name.
func parseSubject(s string) (name [][]attribute, err error) {
	seen := map[attribute]bool{}
	for rest, joined := s, false; ; {
		word, after, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, fmt.Errorf("%s is no pair TYPE=VALUE, as in O=Partner,C=DE", printable.Quote(rest))
		}
		var a attribute
		if a.oid = attributeTypes[lower(word)]; a.oid == "" {
			if a.oid, err = parseOID(word); err != nil {
				return nil, fmt.Errorf("attribute type %s is not known: write its object identifier, as in 2.5.4.10=Partner", printable.Quote(word))
			}
		}
		if a, after, err = parseValue(a, after); err != nil {
			return nil, fmt.Errorf("value of %s: %w", printable.Quote(word), err)
		}
		switch {
		case seen[a]:
			return nil, fmt.Errorf("a pair with %s is here twice: keep one", printable.Quote(word))
		case len(seen) == maxAttributes:
			return nil, fmt.Errorf("it has more than %d pairs", maxAttributes)
		case joined:
			name[len(name)-1] = append(name[len(name)-1], a)
		default:
			name = append(name, []attribute{a})
		}
		seen[a] = true
		if after == "" {
			return name, nil
		}
		joined = after[0] == '+'
		rest = strings.TrimLeft(after[1:], " ")
	}
}

// parseValue reads a value into a, and returns what follows: nothing, or a comma or a plus sign and more.
func parseValue(a attribute, s string) (attribute, string, error) {
	if after, ok := strings.CutPrefix(s, "#"); ok {
		end := strings.IndexAny(after, ",+")
		if end < 0 {
			end = len(after)
		}
		der, err := hex.DecodeString(after[:end])
		in, element := cryptobyte.String(der), cryptobyte.String(nil)
		if err != nil || !in.ReadAnyASN1Element(&element, new(asn1.Tag)) || !in.Empty() {
			return a, "", errors.New("after # the DER of a value is to follow, in hex; for the character write \\#")
		}
		a.der = string(der)
		return a, after[end:], nil
	}
	var b strings.Builder
	i := 0
scan:
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == ',' || c == '+':
			break scan
		case c == '\\' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			octet, _ := hex.DecodeString(s[i+1 : i+3]) // two digits
			b.Write(octet)
			i += 2
		case c == '\\' && i+1 < len(s) && strings.IndexByte(` "#+,;<=>\`, s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case c == '\\':
			return a, "", errors.New("a backslash stands before a special character or two hex digits")
		case c == '"' || c == ';' || c == '<' || c == '>':
			return a, "", fmt.Errorf("write \\%c for the character %c", c, c)
		case c == ' ' && (b.Len() == 0 || i+1 == len(s) || s[i+1] == ',' || s[i+1] == '+'):
			return a, "", errors.New("a space at its beginning or end is to be written as \\20")
		default:
			b.WriteByte(c)
		}
	}
	a.text, a.isText = b.String(), true
	if !isPlain(a.text) {
		return a, "", errors.New("it is empty, too long, no UTF-8, or has a control character")
	}
	return a, s[i:], nil
}
