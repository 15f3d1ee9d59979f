package keystore_test

import (
	"errors"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/keystore"
)

// Every refusal says what is wrong, where, and what to do.
func TestRefusalsSayWhatToDo(t *testing.T) {
	const pass, file = "changeit", "/etc/x/store"
	id := testpki.NewCA(t, "ca").IssueServer("gateway.test")
	jks, p12 := id.JKS(pass), id.PKCS12(pass)
	pbmac1, err := pkcs12.Modern2026.Encode(id.Key, id.Cert, nil, pass)
	if err != nil {
		t.Fatal(err)
	}
	signed := "\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
	for _, tt := range []struct {
		name  string
		data  []byte
		ref   keystore.Ref
		is    error
		words []string
	}{
		{"empty file", nil, keystore.Ref{}, keystore.ErrFormat, []string{"empty file", "put the store back"}},
		{"JKS cut short", jks[:len(jks)/2], keystore.Ref{Password: pass}, keystore.ErrFormat, []string{"cut short", "put it back"}},
		{"PKCS12 cut short", p12[:len(p12)/2], keystore.Ref{Password: pass}, keystore.ErrFormat, []string{"cut short", "put it back"}},
		{"JKS, wrong password", jks, keystore.Ref{Password: "wrong"}, keystore.ErrPassword, []string{"keytool -list -keystore " + file}},
		{"PKCS12, wrong password", p12, keystore.Ref{Password: "wrong"}, keystore.ErrPassword, []string{"keytool -list -keystore " + file}},
		{"no password", p12, keystore.Ref{}, keystore.ErrPassword, []string{"no password is given"}},
		{"JKS, wrong key password", jks, keystore.Ref{Password: pass, KeyPassword: "wrong"}, keystore.ErrPassword, []string{`key entry "` + testpki.Alias + `"`, "leave keyPassword"}},
		{"no such alias", jks, keystore.Ref{Password: pass, Alias: "other"}, keystore.ErrNoEntry, []string{`alias "other"`, `it has "` + testpki.Alias + `"`}},
		{"trusted certificate as alias", testpki.TrustJKS(t, pass, id.Cert), keystore.Ref{Password: pass, Alias: "trusted0"}, keystore.ErrNoEntry, []string{`alias "trusted0" is no key`}},
		{"PEM named JKS", id.PEM(), keystore.Ref{Type: "JKS"}, keystore.ErrFormat, []string{"declared as JKS", "set the type to PEM"}},
		{"DER certificate", id.Cert.Raw, keystore.Ref{}, keystore.ErrFormat, []string{"openssl x509 -inform DER -in " + file}},
		{"PKCS7", []byte(signed), keystore.Ref{}, keystore.ErrFormat, []string{"openssl pkcs7 -inform DER", file}},
		{"PBMAC1", pbmac1, keystore.Ref{Password: pass}, keystore.ErrFormat, []string{"PBMAC1", "openssl pkcs12 -in " + file, "-macalg sha256"}},
		{"JCEKS", []byte("\xce\xce\xce\xce\x00\x00\x00\x02"), keystore.Ref{Type: "JKS"}, keystore.ErrFormat, []string{"keytool -importkeystore -srckeystore " + file + " -srcstoretype JCEKS"}},
		{"BKS", []byte("\x00\x00\x00\x02\x00\x00\x00\x14more"), keystore.Ref{}, keystore.ErrFormat, []string{"-srcstoretype BKS -provider"}},
		{"BKS by name", jks, keystore.Ref{Type: "BKS"}, keystore.ErrFormat, []string{"BKS is not read here", "keytool -importkeystore"}},
		{"something else", []byte("garbage"), keystore.Ref{}, keystore.ErrFormat, []string{"neither JKS, PKCS12 nor PEM", "file " + file}},
	} {
		tt.ref.Location = file
		s, err := keystore.Open(tt.data, tt.ref)
		if err == nil {
			_, err = s.KeyPairs(tt.ref.Alias, now)
		}
		if !errors.Is(err, tt.is) || !strings.HasPrefix(err.Error(), "keystore "+file+": ") {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, words := range tt.words {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v lacks %q", tt.name, err, words)
			}
		}
	}
}
