package keystore_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/keystore"
)

// A bundle is what PEM files are put together of: two chains of three under CAs of the same name, and their keys.
type bundle map[string][]byte

func newBundle(t testing.TB) bundle {
	b := bundle{}
	add := func(n string, key crypto.Signer) {
		root := testpki.NewCA(t, "Root")
		inter := root.IssueCA("Intermediate")
		leaf := inter.Issue(testpki.Leaf{CommonName: "leaf" + n, DNSNames: []string{n + ".test"}, Key: key})
		b["root"+n], b["inter"+n], b["leaf"+n], b["key"+n] = root.CertPEM(), inter.CertPEM(), leaf.CertPEM(), leaf.KeyPEM()
		again := inter.Issue(testpki.Leaf{CommonName: "again" + n, DNSNames: []string{"again.test"}, Key: key})
		b["again"+n] = again.CertPEM()
	}
	ec := testpki.NewEC(t, elliptic.P256())
	add("E", ec)
	add("R", testpki.NewRSA(t, 2048))
	der, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	b["parameters"] = pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07")})
	b["sec1E"] = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	b["other"], b["otherKey"] = testpki.NewCA(t, "Other").CertPEM(), testpki.NewCA(t, "Other").KeyPEM()
	return b
}

func (b bundle) file(t testing.TB, parts string) []byte {
	var data []byte
	for part := range strings.FieldsSeq(parts) {
		if b[part] == nil {
			t.Fatalf("no part %s", part)
		}
		data = append(append(data, "# "+part+"\n"...), b[part]...)
	}
	return data
}

// names are the subjects of a chain.
func names(t testing.TB, pair tls.Certificate) string {
	var list []string
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, cert.Subject.CommonName)
	}
	return strings.Join(list, "<")
}

// TestPEMWithKeys: keys and chains find each other in whatever order they stand, and each chain is its own.
func TestPEMWithKeys(t *testing.T) {
	b := newBundle(t)
	const chainE, chainR = "leafE<Intermediate<Root", "leafR<Intermediate<Root"
	for parts, want := range map[string][]string{
		"leafE interE rootE keyE leafR interR rootR keyR":            {chainE, chainR},
		"leafR interR rootR keyR leafE interE rootE keyE":            {chainR, chainE},
		"keyE leafE interE rootE keyR leafR interR rootR":            {chainE, chainR},
		"keyE keyR leafE interE rootE leafR interR rootR":            {chainE, chainR},
		"leafE interE rootE leafR interR rootR keyR keyE":            {chainE, chainR},
		"leafE keyE interE rootE leafR keyR interR rootR":            {chainE, chainR}, // as HAProxy has it
		"rootR rootE interR interE leafR leafE keyE keyR":            {chainR, chainE},
		"leafE parameters sec1E interE rootE keyR leafR":             {chainE, "leafR"},
		"leafE leafR keyE keyR":                                      {"leafE", "leafR"},
		"leafE interE leafE keyE leafR keyR":                         {"leafE<Intermediate", "leafR"},
		"leafE againE interE keyE leafR keyR":                        {"leafE<Intermediate", "againE<Intermediate", "leafR"},
		"keyE leafE interE rootE":                                    {chainE},
		"leafE interE rootE keyE":                                    {chainE},
		"parameters sec1E leafE":                                     {"leafE"},
		"leafE other interE keyE":                                    {"leafE<Intermediate<Other"}, // sent along, as ever
		"interE leafE keyE":                                          {"leafE<Intermediate"},
		"leafE interE interE keyE leafR interR rootR interR keyR":    {"leafE<Intermediate", chainR},
		"leafE interR interE rootR rootE keyE leafR keyR parameters": {chainE, chainR},
	} {
		store, err := keystore.Open(b.file(t, parts), keystore.Ref{Location: "a.pem"})
		if err != nil {
			t.Errorf("%s: %v", parts, err)
			continue
		}
		pairs, err := store.KeyPairs("", now)
		var got []string
		for _, pair := range pairs {
			got = append(got, names(t, pair))
			if public := pair.PrivateKey.(crypto.Signer).Public(); !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(pair.Leaf.PublicKey) {
				t.Errorf("%s: a key of another", parts)
			}
			for i := range pair.Certificate[1:] { // CAs of the same name are told apart
				below, _ := x509.ParseCertificate(pair.Certificate[i])
				above, _ := x509.ParseCertificate(pair.Certificate[i+1])
				if err := below.CheckSignatureFrom(above); err != nil && above.Subject.CommonName != "Other" {
					t.Errorf("%s: %s is not above %s: %v", parts, above.Subject, below.Subject, err)
				}
			}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", parts, got, err, want)
		}
		if certs, err := store.Trusted(); !errors.Is(err, keystore.ErrEmpty) {
			t.Errorf("%s: %d certificates are trusted, %v", parts, len(certs), err)
		}
	}
}

// TestPEMWithoutItsOther: what has no key or certificate is named by its block.
func TestPEMWithoutItsOther(t *testing.T) {
	b := newBundle(t)
	const lonelyKey = "a private key whose certificate isn't in the file: add its chain"
	const lonelyCert = "a certificate whose private key isn't in the file, and that is in no chain: add the key"
	for parts, want := range map[string]string{
		"leafE interE keyE keyR":                            "PEM block 4: " + lonelyKey,
		"keyE keyR":                                         "PEM block 1: " + lonelyKey,
		"otherKey leafE keyE":                               "PEM block 1: " + lonelyKey,
		"leafE interE keyE leafR interR":                    "PEM block 4: " + lonelyCert,
		"leafR leafE keyE":                                  "PEM block 1: " + lonelyCert,
		"leafE keyE leafR keyR other interE":                "PEM block 5: " + lonelyCert,
		"leafE parameters keyE parameters leafR keyR sec1E": "PEM block 7: the private key of block 3 again",
	} {
		_, skipped, err := keystore.LoadKeys(b.file(t, parts), keystore.Ref{Location: "a.pem"}, now)
		fault := (*keystore.Fault)(nil)
		if !errors.As(err, &fault) || fault.Part != keystore.Location || !errors.Is(err, keystore.ErrFormat) || skipped != nil ||
			!strings.HasPrefix(err.Error(), "keystore a.pem: "+want) {
			t.Errorf("%s: %v, want %s", parts, err, want)
		}
	}
	_, _, err := keystore.LoadKeys(b.file(t, "leafE keyE leafR keyR"), keystore.Ref{Location: "a.pem", Alias: "gateway"}, now)
	if want := `keystore a.pem: alias "gateway": no such key entry; keys in a PEM have no names, all of them are served: leave the alias out`; err == nil || err.Error() != want {
		t.Errorf("an alias: %v", err)
	}
}

// TestPEMBadAmongGood: of several keys one that can't be used is skipped, and an expired one is named by its block.
func TestPEMBadAmongGood(t *testing.T) {
	b := newBundle(t)
	ca := testpki.NewCA(t, "CA")
	odd := ca.IssueServer("odd.test")
	b["odd"], b["oddKey"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: odd.NegativeSerial()}), odd.KeyPEM()
	pairs, skipped, err := keystore.LoadKeys(b.file(t, "odd oddKey leafE keyE"), keystore.Ref{Location: "a.pem"}, now)
	if err != nil || len(pairs) != 1 || len(skipped) != 1 || !strings.Contains(skipped[0].Error(), "PEM block 1") {
		t.Errorf("%d keys, %v, %v", len(pairs), skipped, err)
	}
	old := ca.Issue(testpki.Leaf{CommonName: "old", NotBefore: now.AddDate(-2, 0, 0), NotAfter: now.AddDate(-1, 0, 0)})
	b["old"], b["oldKey"] = old.CertPEM(), old.KeyPEM()
	_, _, err = keystore.LoadKeys(b.file(t, "leafE keyE old oldKey"), keystore.Ref{Location: "a.pem"}, now)
	if !errors.Is(err, keystore.ErrExpired) || !strings.Contains(err.Error(), "PEM block 4: certificate expired") {
		t.Errorf("expired: %v", err)
	}
}

// TestAliases: a list of aliases gives those keys, in its order, from every kind of store that has names.
func TestAliases(t *testing.T) {
	one := keystore.Aliases("gateway")
	several := keystore.JoinAliases("b", "a, b", "c")
	if got := several.Names(); !slices.Equal(got, []string{"b", "a, b", "c"}) || one != keystore.JoinAliases("gateway") || keystore.JoinAliases() != "" {
		t.Errorf("%q", got)
	}
	if s := fmt.Sprintf("%v", keystore.Ref{Location: "x", Alias: keystore.JoinAliases("b", "c")}); s != "x alias b, c" {
		t.Error(s)
	}
}
