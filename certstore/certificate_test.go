package certstore_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

func TestParseCertificate(t *testing.T) {
	cert, second := newCertificate(t), newCertificate(t)
	key, err := x509.MarshalPKCS8PrivateKey(testpki.NewKey(t))
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	text := toPEM(cert)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

	tests := []struct {
		name string
		in   []byte
		want string // part of the error; empty: the certificate
	}{
		{"PEM", text, ""},
		{"DER", cert.Raw, ""},
		{"PEM with CRLF", bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), ""},
		{"text before PEM, as openssl writes it", join([]byte("Certificate:\n    Data:\n"), text), ""},
		{"space after PEM", join(text, []byte("\n \r\n")), ""},
		{"nothing", nil, "empty"},
		{"space", []byte(" \n"), "neither PEM nor DER"},
		{"words", []byte("hello"), "neither PEM nor DER"},
		{"base64 without PEM", []byte(base64.StdEncoding.EncodeToString(cert.Raw)), "neither PEM nor DER"},
		{"two in PEM", join(text, toPEM(second)), "found 2"},
		{"the same twice", join(text, text), "found 2"},
		{"two in DER", join(cert.Raw, second.Raw), "neither PEM nor DER"},
		{"a byte after DER", join(cert.Raw, []byte{0}), "neither PEM nor DER"},
		{"cut DER", cert.Raw[:len(cert.Raw)-1], "neither PEM nor DER"},
		{"words after PEM", join(text, []byte("hello")), "something follows"},
		{"key after", join(text, keyPEM), "private key"},
		{"key before", join(keyPEM, text), "private key"},
		{"damaged key before", join([]byte("-----BEGIN EC PRIVATE KEY-----\n!!\n-----END EC PRIVATE KEY-----\n"), text), "private key"},
		{"damaged block before", join([]byte("-----BEGIN CERTIFICATE-----\n!!\n"), text), "found 2"},
		{"key alone", keyPEM, "private key"},
		{"key alone in DER", key, "not well formed"},
		{"request", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: cert.Raw}), "and not CERTIFICATE"},
		{"headers", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"a": "b"}, Bytes: cert.Raw}), "headers"},
		{"no end", text[:len(text)-10], "not well formed"},
		{"not a certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hello")}), "not well formed"},
		{"two in one block", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: join(cert.Raw, second.Raw)}), "not well formed"},
		{"64 KiB and a byte", join(text, bytes.Repeat([]byte("\n"), 64<<10+1-len(text))), "more than 64 KiB"},
		{"64 KiB", join(text, bytes.Repeat([]byte("\n"), 64<<10-len(text))), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := certstore.ParseCertificate(test.in)
			if test.want == "" {
				if err != nil || !got.Equal(cert) {
					t.Fatalf("got %v, %v", got, err)
				}
				return
			}
			if got != nil || !errors.Is(err, certstore.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error is %v; want ErrInvalid with %q", err, test.want)
			}
			if strings.Contains(err.Error(), string(text[40:60])) || strings.Contains(err.Error(), string(keyPEM[40:60])) {
				t.Errorf("the error quotes what was refused: %v", err)
			}
		})
	}
}

func FuzzParseCertificate(f *testing.F) {
	cert := newCertificate(f)
	f.Add(cert.Raw)
	f.Add(toPEM(cert))
	f.Add(append(toPEM(cert), toPEM(cert)...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("0\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, err := certstore.ParseCertificate(data)
		if err != nil {
			if cert != nil || !errors.Is(err, certstore.ErrInvalid) {
				t.Errorf("got %v, %v", cert, err)
			}
			return
		}
		for _, form := range [][]byte{cert.Raw, toPEM(cert)} {
			if again, err := certstore.ParseCertificate(form); len(form) <= 64<<10 && (err != nil || !again.Equal(cert)) {
				t.Errorf("what was read cannot be read again: %v", err)
			}
		}
	})
}

// TestParseStoredOfAnyLength reads each form in all three lengths modulo 3, which base64 pads differently.
func TestParseStoredOfAnyLength(t *testing.T) {
	seen := make(map[int]bool)
	for len(seen) < 3 {
		cert := newCertificate(t) // signatures differ in length
		seen[len(cert.Raw)%3] = true
		for name, form := range storedForms(cert) {
			if got, err := certstore.ParseStored(form); err != nil || !got.Equal(cert) {
				t.Errorf("%s of %d bytes: %v", name, len(cert.Raw), err)
			}
		}
	}
}

func FuzzParseStored(f *testing.F) {
	cert := newCertificate(f)
	for _, form := range storedForms(cert) {
		f.Add(form)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, err := certstore.ParseStored(data)
		if (cert == nil) != (err != nil) {
			t.Errorf("got %v, %v", cert, err)
		}
		if direct, err := certstore.ParseCertificate(data); err == nil && !direct.Equal(cert) {
			t.Errorf("a plain certificate is read as another one")
		}
	})
}

// storedForms are the encodings in which a CERTIFICATE column may hold a certificate.
func storedForms(cert *x509.Certificate) map[string][]byte {
	encode := func(e *base64.Encoding, b []byte) []byte { return []byte(e.EncodeToString(b)) }
	wrapped := encode(base64.StdEncoding, toPEM(cert))
	wrapped = append(append(wrapped[:76:76], '\n'), wrapped[76:]...)
	return map[string][]byte{
		"PEM":                   toPEM(cert),
		"DER":                   cert.Raw,
		"base64 of PEM":         encode(base64.StdEncoding, toPEM(cert)),
		"base64 of PEM, broken": wrapped,
		"base64 of DER":         encode(base64.StdEncoding, cert.Raw),
		"base64url of DER":      encode(base64.RawURLEncoding, cert.Raw),
		"base64 of base64":      encode(base64.StdEncoding, encode(base64.StdEncoding, toPEM(cert))),
	}
}
