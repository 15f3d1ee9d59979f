package main

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sallyport/certstore"
	"sallyport/internal/printable"
)

// whatItIs says what a file is that is not the one certificate that was asked for, and how to get that out of it; "" if
// nobody knows.
func whatItIs(file string, data []byte) string {
	name := shellWord(file)
	alone := "openssl x509 -in " + name + " -out client.crt"
	switch {
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return "it is a Java keystore (JKS): keytool -exportcert -rfc -keystore " + name + " -alias ALIAS -file client.crt"
	case bytes.HasPrefix(data, []byte{0xce, 0xce, 0xce, 0xce}):
		return "it is a Java keystore (JCEKS): keytool -exportcert -rfc -storetype JCEKS -keystore " + name + " -alias ALIAS -file client.crt"
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return "it is text in UTF-16: iconv -f UTF-16 -t ASCII " + name + " > client.crt"
	case isPKCS12(data):
		legacy := ""
		if oldCiphers(data) {
			legacy = "-legacy "
		}
		return "it is a PKCS #12 keystore: openssl pkcs12 " + legacy + "-in " + name + " -clcerts -nokeys | openssl x509 -out client.crt; without -clcerts, if it holds no key"
	case isPKCS7(data):
		return "it is PKCS #7: openssl pkcs7 -inform DER -in " + name + " -print_certs | openssl x509 -out client.crt; look that the first one is the client's"
	}
	if _, err := x509.ParseCertificateRequest(data); err == nil {
		return "it is a certificate request: have a CA sign it, and register the certificate that it gives back"
	}
	if isKey(data) {
		return "it is a private key, which stays with the client: register its certificate"
	}
	labels := pemLabels(data)
	if certstore.Unreadable(data) {
		return "what cannot be read is refused at every door and not registered, not even with --force: have a new certificate made without that"
	}
	if list, err := x509.ParseCertificates(data); err == nil && len(list) > 1 {
		return fmt.Sprintf("it holds %d certificates; the first alone: openssl x509 -inform DER -in %s -out client.crt", len(list), name)
	}
	certificates := labels["CERTIFICATE"] + labels["X509 CERTIFICATE"] + labels["TRUSTED CERTIFICATE"]
	switch {
	case labels["CERTIFICATE REQUEST"]+labels["NEW CERTIFICATE REQUEST"] > 0:
		return "it is a certificate request: have a CA sign it, and register the certificate that it gives back"
	case labels["PKCS7"] > 0:
		return "it is PKCS #7: openssl pkcs7 -in " + name + " -print_certs | openssl x509 -out client.crt; look that the first one is the client's"
	case certificates > 1:
		return fmt.Sprintf("it is a chain of %d certificates, of which the client's is registered alone; the first: %s", certificates, alone)
	case certificates == 1 && len(labels) > 1:
		return "it holds more than the certificate; that alone: " + alone
	case certificates == 1 && damaged(data):
		return "it is damaged: have it sent again, as a file"
	case certificates == 1:
		return "the certificate anew: " + alone
	case len(labels) > 0:
		for label := range labels {
			if strings.HasSuffix(label, "PRIVATE KEY") {
				return "it is a private key, which stays with the client: register its certificate"
			}
		}
	case len(data) > 0 && barePEM.Match(data):
		decode := "openssl base64 -d -in "
		if !bytes.Contains(bytes.TrimSpace(data), []byte{'\n'}) {
			decode = "openssl base64 -d -A -in "
		}
		return "it is base64 without its PEM lines: " + decode + name + " | openssl x509 -inform DER -out client.crt"
	}
	return ""
}

// damaged reports whether the first PEM block is a certificate that can't be one.
func damaged(data []byte) bool {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return false
	}
	_, err := x509.ParseCertificate(block.Bytes)
	return err != nil
}

// barePEM is what certificates begin with in base64.
var barePEM = regexp.MustCompile(`^MI[A-Za-z0-9+/\r\n]+=*\s*$`)

// pemLabels counts the blocks of a PEM file by what they say they are.
func pemLabels(data []byte) map[string]int {
	labels := map[string]int{}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return labels
		}
		labels[block.Type]++
	}
}

// oldCiphers reports whether a PKCS #12 keystore uses RC4 or RC2, which OpenSSL 3 opens with -legacy alone: their object
// identifiers (RFC 7292 appendix C) end in these bytes.
func oldCiphers(data []byte) bool {
	family := []byte{asn1.TagOID, 10, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01}
	return slices.ContainsFunc([]byte{1, 2, 5, 6}, func(last byte) bool { return bytes.Contains(data, append(family, last)) })
}

// isPKCS12 reports whether data begins as a PFX does (RFC 7292 section 4): a sequence of version 3 and a ContentInfo.
func isPKCS12(data []byte) bool {
	var pfx asn1.RawValue
	if _, err := asn1.Unmarshal(data, &pfx); err != nil || pfx.Tag != asn1.TagSequence {
		return bytes.HasPrefix(data, []byte{0x30, 0x80, 0x02, 0x01, 0x03}) // BER
	}
	return bytes.HasPrefix(pfx.Bytes, []byte{0x02, 0x01, 0x03, 0x30})
}

// isPKCS7 reports whether data is a ContentInfo of signedData (RFC 2315 section 7).
func isPKCS7(data []byte) bool {
	var info struct {
		Type asn1.ObjectIdentifier
		Rest asn1.RawValue `asn1:"optional"`
	}
	_, err := asn1.Unmarshal(data, &info)
	return err == nil && info.Type.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2})
}

func isKey(data []byte) bool {
	if _, err := x509.ParsePKCS8PrivateKey(data); err == nil {
		return true
	}
	if _, err := x509.ParsePKCS1PrivateKey(data); err == nil {
		return true
	}
	_, err := x509.ParseECPrivateKey(data)
	return err == nil
}

// shellWord is a file's name as a shell takes it.
func shellWord(file string) string {
	if plainWord.MatchString(file) {
		return file
	}
	return "'" + strings.ReplaceAll(printable.Text(file), "'", `'\''`) + "'"
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./-]*$`)
