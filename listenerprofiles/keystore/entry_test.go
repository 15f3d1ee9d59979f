package keystore_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/keystore"
)

// A certificate that Java reads and Go can't is left out by name, and the rest of the store serves.
func TestEntriesThatGoCannotUse(t *testing.T) {
	good, bad := testpki.NewCA(t, "good"), testpki.NewCA(t, "bad").NegativeSerial()
	badPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bad})
	for _, tt := range []struct {
		name  string
		data  []byte
		alias string
		words string
	}{
		{"JKS", testpki.TrustJKSDER(t, "changeit", bad, good.Cert.Raw), "trusted0", "negative serial"},
		{"PEM", append(bytes.Clone(badPEM), good.CertPEM()...), "", "PEM block 1: "},
	} {
		store, err := keystore.Open(tt.data, keystore.Ref{Location: "x", Password: "changeit"})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		certs, err := store.Trusted()
		if err != nil || len(certs) != 1 || !certs[0].Equal(good.Cert) {
			t.Errorf("%s: trusted %v, %v", tt.name, certs, err)
		}
		skipped := store.Skipped()
		if len(skipped) != 1 || skipped[0].Alias != tt.alias || !bytes.Equal(skipped[0].Chain[0], bad) ||
			!strings.Contains(skipped[0].Err.Error(), tt.words) {
			t.Errorf("%s: skipped %+v", tt.name, skipped)
		}
	}
	store, err := keystore.Open(testpki.TrustJKSDER(t, "changeit", bad), keystore.Ref{Location: "x", Password: "changeit"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Trusted(); !errors.Is(err, keystore.ErrEmpty) || !strings.Contains(err.Error(), `"trusted0": `) {
		t.Errorf("a store without a usable entry: %v", err)
	}
	if _, err := keystore.Open(testpki.TrustJKSDER(t, "changeit", []byte("\x30\x03abc")), keystore.Ref{Password: "changeit"}); !errors.Is(err, keystore.ErrFormat) {
		t.Errorf("an entry that is no certificate: %v", err)
	}
}

// A key that is asked for and can't be used is refused by name, with what mends it.
func TestKeyThatGoCannotUse(t *testing.T) {
	id := testpki.NewCA(t, "ca").IssueServer("gateway.test")
	id.Cert = &x509.Certificate{Raw: id.NegativeSerial()}
	for _, alias := range []string{testpki.Alias, ""} {
		_, _, err := keystore.LoadKeys(id.JKS("changeit"), keystore.Ref{Location: "x", Password: "changeit", Alias: alias}, now)
		if err == nil || !strings.HasSuffix(err.Error(), "negative serial number: have it issued anew") ||
			!strings.Contains(err.Error(), `key entry "`+testpki.Alias+`"`) {
			t.Errorf("alias %q: %v", alias, err)
		}
	}
}
