package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"

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
	for _, alias := range []keystore.Aliases{testpki.Alias, ""} {
		_, _, err := keystore.LoadKeys(id.JKS("changeit"), keystore.Ref{Location: "x", Password: "changeit", Alias: alias}, now)
		if err == nil || !strings.HasSuffix(err.Error(), "negative serial number: have it issued anew") ||
			!strings.Contains(err.Error(), `key entry "`+testpki.Alias+`"`) {
			t.Errorf("alias %q: %v", alias, err)
		}
	}
}

// TestEntriesThatNobodyAskedFor: in a key store only the keys that are asked for matter: where an alias is given no
// other entry is told of, and else no trusted certificate.
func TestEntriesThatNobodyAskedFor(t *testing.T) {
	const pass = "changeit"
	ca := testpki.NewCA(t, "ca")
	good, bad := ca.IssueServer("gateway.test"), ca.IssueServer("old.test")
	store := jks.New()
	put := func(alias string, key crypto.Signer, der []byte) {
		t.Helper()
		sealed, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.SetPrivateKeyEntry(alias, jks.PrivateKeyEntry{
			CreationTime: time.Unix(1e9, 0), PrivateKey: sealed, CertificateChain: []jks.Certificate{{Type: "X.509", Content: der}},
		}, []byte(pass)); err != nil {
			t.Fatal(err)
		}
	}
	put("gateway", good.Key, good.Cert.Raw)
	put("old", bad.Key, bad.NegativeSerial())
	if err := store.SetTrustedCertificateEntry("root", jks.TrustedCertificateEntry{
		CreationTime: time.Unix(1e9, 0), Certificate: jks.Certificate{Type: "X.509", Content: ca.NegativeSerial()},
	}); err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if err := store.Store(&data, []byte(pass)); err != nil {
		t.Fatal(err)
	}
	for alias, want := range map[keystore.Aliases][]string{
		"gateway": nil, "": {`keystore x: entry "old" is skipped: certificate that can't be used here: x509: negative serial number`},
	} {
		pairs, skipped, err := keystore.LoadKeys(data.Bytes(), keystore.Ref{Location: "x", Password: pass, Alias: alias}, now)
		if err != nil || len(pairs) != 1 || !pairs[0].Leaf.Equal(good.Cert) {
			t.Errorf("alias %q: %d keys, %v", alias, len(pairs), err)
		}
		var told []string
		for _, err := range skipped {
			told = append(told, err.Error())
		}
		if !slices.Equal(told, want) {
			t.Errorf("alias %q: skipped %q, want %q", alias, told, want)
		}
	}
}
