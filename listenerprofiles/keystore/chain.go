package keystore

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// known is the certificates of a PKCS #12 file, from which chains are put together: the file only says, if at all,
// which one belongs to a key. The choices are Java's.
type known struct {
	byID    map[string][]namedCertificate // by local key id, those that aren't trusted entries
	byName  map[string]certificate        // by friendly name in lower case, of these the last
	subject map[string]*issuers           // by subject
}

type namedCertificate struct {
	name string // friendly name in lower case; empty without
	certificate
}

// issuers are the certificates of one subject.
type issuers struct {
	first certificate
	byKey map[string]certificate // by subject key identifier
	last  *certificate           // of those without one
}

func (k *known) add(cert certificate, a attributes) {
	if k.subject == nil {
		*k = known{map[string][]namedCertificate{}, map[string]certificate{}, map[string]*issuers{}}
	}
	name := strings.ToLower(a.name)
	if !a.trusted && a.hasID {
		k.byID[a.id] = append(k.byID[a.id], namedCertificate{name, cert})
	}
	if !a.trusted && a.named {
		k.byName[name] = cert
	}
	subject := canonicalName(cert.subject)
	same := k.subject[subject]
	if same == nil {
		same = &issuers{first: cert, byKey: map[string]certificate{}}
		k.subject[subject] = same
	}
	if cert.keyID == nil {
		same.last = &cert
	} else if _, taken := same.byKey[string(cert.keyID)]; !taken {
		same.byKey[string(cert.keyID)] = cert
	}
}

// chain returns the certificate of a key and those above it, leaf first, at most MaxChain.
func (k *known) chain(key p12Key) []certificate {
	cert, ok := k.leaf(key)
	var chain []certificate
	for ok && len(chain) < MaxChain {
		again := slices.ContainsFunc(chain, func(c certificate) bool { return string(c.raw) == string(cert.raw) })
		if again {
			break
		}
		chain = append(chain, cert)
		if selfSigned(cert) {
			break
		}
		cert, ok = k.issuer(cert)
	}
	return chain
}

// leaf returns the certificate that has the key's local id and name, or else its id, or else its name.
func (k *known) leaf(key p12Key) (certificate, bool) {
	same := k.byID[key.id]
	for _, c := range same {
		if c.name == key.alias {
			return c.certificate, true
		}
	}
	if len(same) > 0 {
		return same[len(same)-1].certificate, true
	}
	cert, ok := k.byName[key.alias]
	return cert, ok
}

// issuer returns the certificate above cert: by key identifier where both have one, otherwise by name.
func (k *known) issuer(cert certificate) (certificate, bool) {
	same := k.subject[canonicalName(cert.issuer)]
	if same == nil {
		return certificate{}, false
	}
	if cert.issuerKey == nil {
		return same.first, true
	}
	if above, ok := same.byKey[string(cert.issuerKey)]; ok {
		return above, true
	}
	if same.last != nil {
		return *same.last, true
	}
	return certificate{}, false
}

// selfSigned reports whether cert names itself as its issuer and has signed itself. A signature that can't be checked
// here counts.
func selfSigned(cert certificate) bool {
	if canonicalName(cert.subject) != canonicalName(cert.issuer) {
		return false
	}
	if cert.parsed == nil {
		return true
	}
	err := cert.parsed.CheckSignature(cert.parsed.SignatureAlgorithm, cert.parsed.RawTBSCertificate, cert.parsed.Signature)
	return err == nil || errors.Is(err, x509.ErrUnsupportedAlgorithm) || errors.As(err, new(x509.InsecureAlgorithmError))
}

// rfc2253 are the attributes of names whose texts compare without case and runs of spaces; all others compare by
// octets.
var rfc2253 = map[string]bool{
	"2.5.4.3": true, "2.5.4.6": true, "2.5.4.7": true, "2.5.4.8": true, "2.5.4.9": true, "2.5.4.10": true, "2.5.4.11": true,
	"0.9.2342.19200300.100.1.1": true, "0.9.2342.19200300.100.1.25": true,
}

// canonicalName returns a text that two names share if Java takes them for the same.
func canonicalName(der []byte) string {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	type relativeNameSET []attribute
	var rdns []relativeNameSET
	if _, err := asn1.Unmarshal(der, &rdns); err != nil {
		return string(der)
	}
	var name strings.Builder
	for _, rdn := range rdns {
		var parts []string
		for _, a := range rdn {
			text := string(a.Value.FullBytes)
			if rfc2253[a.Type.String()] && (a.Value.Tag == asn1.TagUTF8String || a.Value.Tag == asn1.TagPrintableString) {
				text = strings.ToLower(strings.Join(strings.Fields(string(a.Value.Bytes)), " "))
			}
			parts = append(parts, fmt.Sprintf("%s=%q", a.Type, text))
		}
		slices.Sort(parts)
		fmt.Fprintln(&name, strings.Join(parts, "+"))
	}
	return name.String()
}
