package certstore

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"strings"

	"sallyport/internal/printable"
)

// MaxCertificate bounds a certificate, as DER and as a file, in bytes.
const MaxCertificate = 64 << 10

// ParseCertificate reads exactly one X.509 certificate, PEM (RFC 7468, with or without explanatory text before it) or
// DER, of at most 64 KiB. None, two, a private key or anything behind the certificate is an error matching ErrInvalid.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	der, err := decode(data)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil && hasForm(der) {
		return nil, invalid("certificate cannot be read: %s", printable.Text(strings.TrimPrefix(err.Error(), "x509: ")))
	}
	if err != nil {
		return nil, invalid("certificate is not well formed (%v)", err)
	}
	return cert, nil
}

// Unreadable reports whether data, PEM or DER, is one certificate that ParseCertificate refuses since crypto/x509 does not
// read what it holds, such as a key on another curve.
func Unreadable(data []byte) bool {
	der, err := decode(data)
	if err != nil || !hasForm(der) {
		return false
	}
	_, err = x509.ParseCertificate(der)
	return err != nil
}

// hasForm reports whether der has the outer form of a certificate of version 2 or 3, unlike a request, a list or a key.
func hasForm(der []byte) bool {
	var outer, signed []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 || len(outer) != 3 || outer[2].Tag != asn1.TagBitString {
		return false
	}
	if _, err := asn1.Unmarshal(outer[0].FullBytes, &signed); err != nil || len(signed) < 7 {
		return false
	}
	return signed[0].Class == asn1.ClassContextSpecific && signed[0].Tag == 0 // the version
}

var pemBegin = []byte("-----BEGIN ")

// decode returns the DER of what is in data, PEM or DER.
func decode(data []byte) ([]byte, error) {
	switch {
	case len(data) == 0:
		return nil, invalid("certificate is empty")
	case len(data) > MaxCertificate:
		return nil, invalid("certificate has more than %d KiB", MaxCertificate>>10)
	case isDER(data): // first: a certificate's own bytes may spell a line of PEM
		return data, nil
	case bytes.Contains(data, pemBegin):
		return decodePEM(data)
	}
	return nil, invalid("certificate is neither PEM nor DER")
}

// isDER reports whether data is one ASN.1 sequence and nothing else.
func isDER(data []byte) bool {
	var raw asn1.RawValue
	rest, err := asn1.Unmarshal(data, &raw)
	return err == nil && len(rest) == 0 && raw.Class == asn1.ClassUniversal && raw.Tag == asn1.TagSequence
}

// decodePEM returns the content of the one CERTIFICATE block in data. It counts the blocks itself, because pem.Decode
// skips what it cannot parse and would overlook a damaged key before the certificate.
func decodePEM(data []byte) ([]byte, error) {
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return nil, invalid("certificate comes with a private key")
	}
	if n := bytes.Count(data, pemBegin); n != 1 {
		return nil, invalid("expected one PEM block and found %d", n)
	}
	block, rest := pem.Decode(data[bytes.Index(data, pemBegin):])
	switch {
	case block == nil:
		return nil, invalid("PEM block is not well formed")
	case block.Type != "CERTIFICATE":
		return nil, invalid("PEM block holds %s and not CERTIFICATE", printable.Quote(block.Type))
	case len(block.Headers) > 0:
		return nil, invalid("PEM block has headers")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, invalid("something follows the certificate")
	}
	return block.Bytes, nil
}

// checkCertificate reports whether a certificate can be stored and read back.
func checkCertificate(cert *x509.Certificate) error {
	switch {
	case cert == nil || len(cert.Raw) == 0:
		return invalid("no certificate given")
	case len(encodeStored(cert)) > MaxCertificate:
		return invalid("certificate has more than %d KiB", MaxCertificate>>10)
	}
	return nil
}

// encodeStored returns the form in which the CERTIFICATE column is written.
func encodeStored(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// parseStored reads the CERTIFICATE column leniently: PEM, DER, or base64 of either, which is how WSO2 stores what was
// uploaded, some versions twice over.
func parseStored(data []byte) (*x509.Certificate, error) { return ParseCertificate(unwrap(data)) }

// storedDER is parseStored without parsing the certificate.
func storedDER(data []byte) ([]byte, error) { return decode(unwrap(data)) }

func unwrap(data []byte) []byte {
	for range 2 {
		if isDER(data) || bytes.Contains(data, pemBegin) {
			break // two of three PEM texts are valid base64 as well, and would be decoded again
		}
		inner, ok := decodeBase64(data)
		if !ok {
			break
		}
		data = inner
	}
	return data
}

// decodeBase64 decodes base64 in either alphabet, padded or not, broken into lines or not.
func decodeBase64(data []byte) ([]byte, bool) {
	if len(data) == 0 || len(data) > 4*MaxCertificate {
		return nil, false
	}
	text := strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n', '=':
			return -1
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, string(data))
	out, err := base64.RawStdEncoding.DecodeString(text)
	return out, err == nil && len(out) > 0
}
