// Package certrule is what a certificate says, and rules over it: which leaves of a registered CA count, and which scopes
// what a certificate says stands for.
//
// Names are read strictly: one that two readers could take differently says nothing. Values are compared whole; no text of
// a rule is ever an expression of a language of patterns.
package certrule

import (
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Facts are what a certificate says, as far as it can be relied on. They never change. The zero Facts say nothing.
type Facts struct {
	DNS         []string     // dNSName of the subjectAltName, in lower case: host names, no wildcards
	Email       []string     // rfc822Name, the domain in lower case
	IP          []netip.Addr // iPAddress
	OU          []string     // organizational units of the subject
	PSD2        []string     // roles of a payment service provider: PSP_AS, PSP_PI, PSP_AI, PSP_IC
	Policies    []string     // object identifiers of certificatePolicies, dotted
	SPKI        [32]byte     // SHA-256 of the SubjectPublicKeyInfo
	Fingerprint [32]byte     // SHA-256 of the DER

	uris       []uri
	subject    [][]attribute // the relative distinguished names
	extensions []extension
}

// nothing is what is known of a certificate that isn't there.
var nothing = new(Facts)

// maxExtension bounds an extension whose value is read as text or as statements, in bytes.
const maxExtension = 8 << 10

// FactsOf reads a certificate that crypto/x509 has parsed. Whatever in it can't be read strictly is left out, and the rest
// counts. Nil says nothing.
func FactsOf(cert *x509.Certificate) *Facts {
	if cert == nil {
		return nothing
	}
	f := &Facts{
		SPKI: sha256.Sum256(cert.RawSubjectPublicKeyInfo), Fingerprint: sha256.Sum256(cert.Raw),
		subject: parseName(cert.RawSubject),
	}
	for _, rdn := range f.subject {
		for _, a := range rdn {
			if a.oid == oidOU && a.isText {
				f.OU = append(f.OU, a.text)
			}
		}
	}
	for _, policy := range cert.Policies {
		f.Policies = append(f.Policies, policy.String())
	}
	for _, e := range cert.Extensions {
		switch id := e.Id.String(); id {
		case oidSubjectAltName:
			f.addNames(parseAltNames(e.Value))
		case oidQCStatements:
			f.PSD2 = parsePSD2Roles(e.Value)
		default:
			if values := parseTexts(e.Value); values != nil {
				f.extensions = append(f.extensions, extension{id, values})
			}
		}
	}
	return f
}

// URIs are the uniformResourceIdentifiers of the subjectAltName, scheme and host in lower case.
func (f *Facts) URIs() []string {
	var texts []string
	for _, u := range f.uris {
		texts = append(texts, u.text)
	}
	return texts
}

// Object identifiers.
const (
	oidSubjectAltName = "2.5.29.17"
	oidQCStatements   = "1.3.6.1.5.5.7.1.3"
	oidOU             = "2.5.4.11"
)

// An extension is the texts that are the value of one.
type extension struct {
	oid    string
	values []string
}

// altNames are the general names of a subjectAltName that are compared, not yet looked at.
type altNames struct {
	dns, emails, uris []string
	ips               [][]byte
}

// addNames adds those names that are well formed.
func (f *Facts) addNames(names altNames) {
	for _, s := range names.dns {
		if host, ok := parseHost(s); ok {
			f.DNS = append(f.DNS, host)
		}
	}
	for _, s := range names.emails {
		if local, domain, ok := parseEmail(s); ok {
			f.Email = append(f.Email, local+"@"+domain)
		}
	}
	for _, s := range names.uris {
		if u, ok := parseURI(s); ok {
			f.uris = append(f.uris, u)
		}
	}
	for _, b := range names.ips {
		if ip, ok := netip.AddrFromSlice(b); ok && !ip.Is4In6() {
			f.IP = append(f.IP, ip)
		}
	}
}

// parseAltNames reads GeneralNames (RFC 5280, section 4.2.1.6). A list that is not well formed has no name.
func parseAltNames(der []byte) (names altNames) {
	in, list := cryptobyte.String(der), cryptobyte.String(nil)
	if !in.ReadASN1(&list, asn1.SEQUENCE) || !in.Empty() {
		return altNames{}
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag asn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return altNames{}
		}
		switch tag {
		case asn1.Tag(1).ContextSpecific():
			names.emails = append(names.emails, string(value))
		case asn1.Tag(2).ContextSpecific():
			names.dns = append(names.dns, string(value))
		case asn1.Tag(6).ContextSpecific():
			names.uris = append(names.uris, string(value))
		case asn1.Tag(7).ContextSpecific():
			names.ips = append(names.ips, value)
		}
	}
	return names
}

// maxTexts is how many texts an extension may have.
const maxTexts = 64

// parseTexts reads a UTF8String, PrintableString or IA5String, or a SEQUENCE OF them. Whatever isn't wholly that is nil.
func parseTexts(der []byte) []string {
	if len(der) > maxExtension {
		return nil
	}
	in := cryptobyte.String(der)
	list := in
	if in.PeekASN1Tag(asn1.SEQUENCE) && (!in.ReadASN1(&list, asn1.SEQUENCE) || !in.Empty()) {
		return nil
	}
	sequence := len(list) != len(der)
	var values []string
	for !list.Empty() {
		text, ok := readText(&list)
		if !ok || len(values) == maxTexts || !sequence && len(values) > 0 {
			return nil
		}
		values = append(values, text)
	}
	return values
}

// readText reads a string of a type whose characters are certain.
func readText(in *cryptobyte.String) (string, bool) {
	var value cryptobyte.String
	var tag asn1.Tag
	if !in.ReadAnyASN1(&value, &tag) {
		return "", false
	}
	return textOf(tag, value)
}

// textOf is the text of a string, if its type says what its octets mean, and if it is a plain one.
func textOf(tag asn1.Tag, value []byte) (string, bool) {
	s := string(value)
	switch tag {
	case asn1.UTF8String:
	case asn1.PrintableString:
		if strings.ContainsFunc(s, func(r rune) bool { return !isPrintable(r) }) {
			return "", false
		}
	case asn1.IA5String, tagNumericString:
		if strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || tag == tagNumericString && r != ' ' && !isDigit(r) }) {
			return "", false
		}
	case tagBMPString:
		var ok bool
		if s, ok = fromBMP(value); !ok {
			return "", false
		}
	default:
		return "", false
	}
	return s, isPlain(s)
}

const (
	tagNumericString = asn1.Tag(18)
	tagBMPString     = asn1.Tag(30)
)
