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
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Facts are what a certificate says, as far as it can be relied on. They never change. The zero Facts say nothing.
type Facts struct {
	DNS         []string     // dNSName of the subjectAltName, in lower case: host names, no wildcards
	Email       []string     // rfc822Name, the domain in lower case
	IP          []netip.Addr // iPAddress
	CN, O, OU   []string     // common names, organizations and organizational units of the subject
	PSD2        []string     // roles of a payment service provider: PSP_AS, PSP_PI, PSP_AI, PSP_IC
	Policies    []string     // object identifiers of certificatePolicies, dotted
	SPKI        [32]byte     // SHA-256 of the SubjectPublicKeyInfo
	Fingerprint [32]byte     // SHA-256 of the DER
	Unread      Unread       // what was left out, for whoever asks that a name is not there

	uris       []uri
	uriTexts   []string      // of uris
	ipTexts    []string      // of IP
	subject    [][]attribute // the relative distinguished names
	extensions []extension
}

// Unread says of which kinds a certificate has names that can't be relied on, so that the Facts are without them.
type Unread struct{ Subject, Issuer, CN, O, OU, DNS, Email, URI, IP bool }

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
	f.readSubject()
	f.Unread.Issuer = !isRead(parseName(cert.RawIssuer))
	f.Unread.Subject = !isRead(f.subject)
	for _, policy := range cert.Policies {
		f.Policies = append(f.Policies, policy.String())
	}
	for _, e := range cert.Extensions {
		switch id := e.Id.String(); id {
		case oidSubjectAltName:
			names, ok := parseAltNames(e.Value)
			if f.addNames(names); !ok {
				f.Unread.DNS, f.Unread.Email, f.Unread.URI, f.Unread.IP = true, true, true, true
			}
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

// readSubject finds those parts of the subject that have a list of their own.
func (f *Facts) readSubject() {
	for oid, one := range map[string]struct {
		list   *[]string
		unread *bool
	}{oidCN: {&f.CN, &f.Unread.CN}, oidO: {&f.O, &f.Unread.O}, oidOU: {&f.OU, &f.Unread.OU}} {
		*one.unread = f.subject == nil
		for _, rdn := range f.subject {
			for _, a := range rdn {
				switch {
				case a.oid != oid:
				case a.isText:
					*one.list = append(*one.list, a.text)
				default:
					*one.unread = true
				}
			}
		}
	}
}

// isRead reports whether each part of a name that was read is a text.
func isRead(name [][]attribute) bool {
	return name != nil && !slices.ContainsFunc(name, func(rdn []attribute) bool {
		return slices.ContainsFunc(rdn, func(a attribute) bool { return !a.isText })
	})
}

// URIs are the uniformResourceIdentifiers of the subjectAltName, scheme and host in lower case. The caller does not change
// them.
func (f *Facts) URIs() []string { return f.uriTexts }

// IPs are IP as texts.
func (f *Facts) IPs() []string { return f.ipTexts }

// Object identifiers.
const (
	oidSubjectAltName = "2.5.29.17"
	oidQCStatements   = "1.3.6.1.5.5.7.1.3"
	oidCN             = "2.5.4.3"
	oidO              = "2.5.4.10"
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
		} else {
			f.Unread.DNS = true
		}
	}
	for _, s := range names.emails {
		if local, domain, ok := parseEmail(s); ok {
			f.Email = append(f.Email, local+"@"+domain)
		} else {
			f.Unread.Email = true
		}
	}
	for _, s := range names.uris {
		if u, ok := parseURI(s); ok {
			f.uris, f.uriTexts = append(f.uris, u), append(f.uriTexts, u.text)
		} else {
			f.Unread.URI = true
		}
	}
	for _, b := range names.ips {
		if ip, ok := netip.AddrFromSlice(b); ok && !ip.Is4In6() {
			f.IP, f.ipTexts = append(f.IP, ip), append(f.ipTexts, ip.String())
		} else {
			f.Unread.IP = true
		}
	}
}

// parseAltNames reads GeneralNames (RFC 5280, section 4.2.1.6). A list that is not well formed has no name.
func parseAltNames(der []byte) (names altNames, ok bool) {
	in, list := cryptobyte.String(der), cryptobyte.String(nil)
	if !in.ReadASN1(&list, asn1.SEQUENCE) || !in.Empty() {
		return altNames{}, false
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag asn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return altNames{}, false
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
	return names, true
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
