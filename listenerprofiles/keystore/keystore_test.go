package keystore_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	keystorego "github.com/pavlo-v-chernykh/keystore-go/v4"

	"sallyport/listenerprofiles/keystore"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestKeyPairs(t *testing.T) {
	const pass = "changeit"
	tests := []struct {
		file  string
		ref   keystore.Ref
		want  string // subjects of the leaves, with the length of the chain
		is    error  // what the error wraps
		words string // what the error says
	}{
		{file: "keys.jks", ref: keystore.Ref{Type: "JKS", Password: pass, KeyPassword: "keypass"}, want: "CN=ec.test/1 CN=gateway.test/1"},
		{file: "keys.jks", ref: keystore.Ref{Type: "jks", Password: pass, KeyPassword: "keypass", Alias: "EC"}, want: "CN=ec.test/1"},
		{file: "keys.jks", ref: keystore.Ref{Type: "PKCS12", Password: pass, KeyPassword: "keypass", Alias: "GATEWAY"}, want: "CN=gateway.test/1"},
		{file: "keys.jks", ref: keystore.Ref{Password: pass, KeyPassword: "keypass", Alias: keystore.JoinAliases("GATEWAY", "ec")}, want: "CN=gateway.test/1 CN=ec.test/1"},
		{file: "keys.jks", ref: keystore.Ref{Password: pass, KeyPassword: "keypass", Alias: keystore.JoinAliases("ec", "EC")}, is: keystore.ErrFormat, words: `alias "EC" names a key entry that another alias names`},
		{file: "keys.jks", ref: keystore.Ref{Password: pass, KeyPassword: "keypass", Alias: keystore.JoinAliases("ec", "other")}, is: keystore.ErrNoEntry, words: `alias "other"`},
		{file: "keys.jks", ref: keystore.Ref{Password: pass}, is: keystore.ErrPassword, words: "key password"},
		{file: "keys.jks", ref: keystore.Ref{Password: "wrong", KeyPassword: "keypass"}, is: keystore.ErrPassword, words: "wrong password"},
		{file: "keys.jks", ref: keystore.Ref{KeyPassword: "keypass"}, is: keystore.ErrPassword, words: "no password is given"},
		{file: "keys.jks", ref: keystore.Ref{Password: pass, Alias: "other"}, is: keystore.ErrNoEntry, words: `it has "ec", "gateway"`},
		{file: "keys.jks", ref: keystore.Ref{Type: "PEM", Password: pass}, is: keystore.ErrFormat, words: "declared as PEM"},
		{file: "keys.jks", ref: keystore.Ref{Type: "BKS", Password: pass}, is: keystore.ErrFormat, words: "-srcstoretype BKS -provider"},
		{file: "mixed.jks", ref: keystore.Ref{Password: pass}, want: "CN=gateway.test/1"},
		{file: "trust.jks", ref: keystore.Ref{Password: pass}, is: keystore.ErrNoEntry, words: "no private key"},
		{file: "expired.jks", ref: keystore.Ref{Password: pass}, is: keystore.ErrExpired, words: "expired on 20"},
		{file: "keys.jceks", ref: keystore.Ref{Password: pass}, is: keystore.ErrFormat, words: "keytool -importkeystore -srckeystore keys.jceks"},

		{file: "single.p12", ref: keystore.Ref{Type: "pkcs12", Password: pass}, want: "CN=gateway.test/1"},
		{file: "single.p12", ref: keystore.Ref{Type: "JKS", Password: pass, KeyPassword: pass, Alias: "Gateway"}, want: "CN=gateway.test/1"},
		{file: "single.p12", ref: keystore.Ref{Password: pass, KeyPassword: "other"}, is: keystore.ErrPassword, words: "leave keyPassword or KeyPassword out"},
		{file: "single.p12", ref: keystore.Ref{Password: "wrong"}, is: keystore.ErrPassword},
		{file: "single.p12", ref: keystore.Ref{}, is: keystore.ErrPassword, words: "no password is given"},
		{file: "single.p12", ref: keystore.Ref{Password: pass, Alias: "x"}, is: keystore.ErrNoEntry},
		{file: "single.p12", ref: keystore.Ref{Type: "PEM"}, is: keystore.ErrFormat, words: "the content is PKCS12"},
		{file: "two.p12", ref: keystore.Ref{Password: pass}, want: "CN=gateway.test/1 CN=ec.test/1"},
		{file: "two.p12", ref: keystore.Ref{Password: pass, Alias: "ec"}, want: "CN=ec.test/1"},
		{file: "two.p12", ref: keystore.Ref{Password: pass, Alias: keystore.JoinAliases("ec", "gateway")}, want: "CN=ec.test/1 CN=gateway.test/1"},
		{file: "ed25519.p12", ref: keystore.Ref{Password: pass, Alias: "gateway"}, want: "CN=ed.test/1"},
		{file: "legacy.p12", ref: keystore.Ref{Password: pass}, want: "CN=gateway.test/1"},
		{file: "really-pkcs12.jks", ref: keystore.Ref{Type: "JKS", Password: pass}, want: "CN=gateway.test/1"},
		{file: "mixed.p12", ref: keystore.Ref{Password: pass}, want: "CN=gateway.test/1"},
		{file: "openssl.p12", ref: keystore.Ref{Password: pass, Alias: "gateway"}, want: "CN=server.test/2"},
		{file: "openssl-legacy.p12", ref: keystore.Ref{Password: pass, Alias: "gateway"}, want: "CN=server.test/2"},
		{file: "openssl-nokeys.p12", ref: keystore.Ref{Password: pass}, is: keystore.ErrNoEntry, words: "no private key"},
		{file: "openssl-nopassword.p12", ref: keystore.Ref{}, want: "CN=server.test/1"},
		{file: "openssl-nopassword.p12", ref: keystore.Ref{Password: pass, Alias: "gateway"}, want: "CN=server.test/1"},
		{file: "openssl-emptypassword.p12", ref: keystore.Ref{Alias: "gateway"}, want: "CN=server.test/1"},

		{file: "server-pkcs8.pem", ref: keystore.Ref{Type: "PEM"}, want: "CN=server.test/2"},
		{file: "server-sec1.pem", ref: keystore.Ref{}, want: "CN=server.test/1"},
		{file: "server-pkcs1.pem", ref: keystore.Ref{Type: "pem", Password: "unused"}, want: "CN=rsa.test/1"},
		{file: "server-pkcs8.pem", ref: keystore.Ref{Type: "JKS", Password: pass}, is: keystore.ErrFormat, words: "the content is PEM"},
		{file: "server-pkcs8.pem", ref: keystore.Ref{Type: "PEM", Alias: "x"}, is: keystore.ErrNoEntry},
		{file: "encrypted-pkcs8.pem", ref: keystore.Ref{Password: pass}, is: keystore.ErrFormat, words: "openssl pkey"},
		{file: "encrypted-pkcs1.pem", ref: keystore.Ref{Password: pass}, is: keystore.ErrFormat, words: "openssl pkey"},
		{file: "mismatch.pem", ref: keystore.Ref{}, is: keystore.ErrFormat, words: "does not belong"},
		{file: "trust.pem", ref: keystore.Ref{}, is: keystore.ErrNoEntry},
		{file: "leaf.der", ref: keystore.Ref{}, is: keystore.ErrFormat, words: "openssl x509 -inform DER"},
	}
	for _, tt := range tests {
		t.Run(tt.file+" "+tt.ref.String(), func(t *testing.T) {
			tt.ref.Location = tt.file
			got, err := subjects(read(t, tt.file), tt.ref)
			if !errors.Is(err, tt.is) || (err == nil) != (tt.is == nil) {
				t.Fatalf("error %v, want %v", err, tt.is)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.words) || !strings.HasPrefix(err.Error(), "keystore "+tt.file+": ") {
					t.Errorf("error %q lacks %q or the file's name", err, tt.words)
				}
				for _, secret := range []string{tt.ref.Password, tt.ref.KeyPassword} {
					if secret != "" && secret != "wrong" && secret != "other" && strings.Contains(err.Error(), secret) {
						t.Errorf("error %q shows a password", err)
					}
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func subjects(data []byte, ref keystore.Ref) (string, error) {
	store, err := keystore.Open(data, ref)
	if err != nil {
		return "", err
	}
	pairs, err := store.KeyPairs(ref.Alias, now)
	var s []string
	for _, pair := range pairs {
		s = append(s, fmt.Sprintf("%s/%d", pair.Leaf.Subject, len(pair.Certificate)))
	}
	return strings.Join(s, " "), err
}

func TestTrustStores(t *testing.T) {
	const pass = "changeit"
	tests := []struct {
		file string
		ref  keystore.Ref
		want string
		is   error
	}{
		{"trust.jks", keystore.Ref{Type: "JKS", Password: pass}, "CN=Test Root, CN=rsa.test", nil},
		{"trust.jks", keystore.Ref{Type: "JKS", Password: "wrong"}, "", keystore.ErrPassword},
		{"trust.jks", keystore.Ref{Type: "JKS"}, "", keystore.ErrPassword},
		{"mixed.jks", keystore.Ref{Password: pass}, "CN=Test Root", nil},
		{"trust.p12", keystore.Ref{Password: pass}, "CN=Test Root, CN=rsa.test", nil},
		{"trust.p12", keystore.Ref{Password: "wrong"}, "", keystore.ErrPassword},
		{"trust-legacy.p12", keystore.Ref{Type: "JKS", Password: pass}, "CN=Test Root", nil},
		{"trust-nopassword.p12", keystore.Ref{}, "CN=Test Root", nil},
		{"trust-nopassword.p12", keystore.Ref{Password: pass}, "CN=Test Root", nil},
		{"trust.pem", keystore.Ref{Type: "PEM"}, "CN=Test Root, CN=rsa.test", nil},
		{"mixed.p12", keystore.Ref{Password: pass}, "CN=Test Root", nil},
		{"openssl-nokeys.p12", keystore.Ref{Password: pass}, "", keystore.ErrEmpty},
	}
	for _, tt := range tests {
		t.Run(tt.file+tt.ref.Password, func(t *testing.T) {
			certs, err := trusted(read(t, tt.file), tt.ref)
			if !errors.Is(err, tt.is) || (err == nil) != (tt.is == nil) {
				t.Fatalf("error %v, want %v", err, tt.is)
			}
			var got []string
			for _, c := range certs {
				got = append(got, c.Subject.String())
			}
			// keytool writes trusted entries in the order of its hash table.
			if tt.want != strings.Join(got, ", ") && (len(got) != 2 || tt.want != got[1]+", "+got[0]) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func trusted(data []byte, ref keystore.Ref) ([]*x509.Certificate, error) {
	store, err := keystore.Open(data, ref)
	if err != nil {
		return nil, err
	}
	return store.Trusted()
}

// A store without trusted certificates must mean neither "trust everybody" nor the system's roots.
func TestEmptyTrustStoreIsAnError(t *testing.T) {
	for _, file := range []string{"empty.jks", "empty.p12", "single.p12", "server-pkcs8.pem"} {
		certs, err := trusted(read(t, file), keystore.Ref{Password: "changeit"})
		if !errors.Is(err, keystore.ErrEmpty) || certs != nil {
			t.Errorf("%s: got %v, %v", file, certs, err)
		}
	}
	for _, garbage := range []string{"", "\n", "no keystore", "\x30", "\x30\x80\x00\x00", "\xfe\xed\xfe\xed", "\xce\xce\xce\xce", "-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if _, err := trusted([]byte(garbage), keystore.Ref{}); !errors.Is(err, keystore.ErrFormat) {
			t.Errorf("%q: got %v", garbage, err)
		}
	}
}

// A half-written file must be an error, not a store with fewer entries.
func TestPEMCutShortIsAnError(t *testing.T) {
	data := read(t, "trust.pem")
	for n := bytes.LastIndex(data, []byte("-----BEGIN")) + 11; n < len(data)-2; n += 7 {
		if _, err := keystore.Open(data[:n], keystore.Ref{}); !errors.Is(err, keystore.ErrFormat) {
			t.Fatalf("cut at %d of %d: got %v", n, len(data), err)
		}
	}
	for _, kind := range []string{"X509 CRL", "CERTIFICATE REQUEST", "TRUSTED CERTIFICATE", "PUBLIC KEY"} {
		other := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte{0x30, 0}})
		if _, err := keystore.Open(append(bytes.Clone(data), other...), keystore.Ref{}); !errors.Is(err, keystore.ErrFormat) {
			t.Errorf("%s: got %v", kind, err)
		}
	}
}

// Lengths in the file are checked against the file before anything is allocated or read for them.
func TestHostileLengths(t *testing.T) {
	for _, file := range []string{"keys.jks", "trust.jks", "mixed.jks", "openssl.p12", "trust.p12", "two.p12"} {
		data := read(t, file)
		ref := keystore.Ref{Password: "changeit"}
		for n := 0; n < len(data); n += 1 + len(data)/200 {
			if _, err := keystore.Open(data[:n], ref); err == nil {
				t.Errorf("%s cut at %d: no error", file, n)
			}
		}
		if filepath.Ext(file) != ".jks" {
			continue
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for n := 4; n+4 <= len(data); n++ {
			for _, length := range []string{"\x7f\xff\xff\xff", "\xff\xff\xff\xff"} {
				hostile := bytes.Clone(data)
				copy(hostile[n:], length)
				if _, err := keystore.Open(hostile, ref); err == nil && !bytes.Equal(hostile, data) {
					t.Errorf("%s with %x at %d: no error", file, length, n)
				}
			}
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / uint64(2*len(data)); each > 1<<20 {
			t.Errorf("%s: %d bytes allocated for each hostile file", file, each)
		}
	}
	for _, magic := range []string{"", "\xfe\xed\xfe\xed", "\x30", "-----BEGIN CERTIFICATE-----"} {
		zeros := append([]byte(magic), make([]byte, 50<<20)...)
		if _, err := keystore.Open(zeros, keystore.Ref{}); !errors.Is(err, keystore.ErrFormat) {
			t.Errorf("50 MiB of zeros after %q: %v", magic, err)
		}
		if _, err := keystore.Open(zeros[:keystore.MaxSize], keystore.Ref{}); !errors.Is(err, keystore.ErrFormat) {
			t.Errorf("16 MiB of zeros after %q: %v", magic, err)
		}
	}
}

// A store by another implementation, with aliases that keytool would not accept.
func TestJKSByAnotherWriter(t *testing.T) {
	block, _ := pem.Decode(read(t, "rsa.pem"))
	other := keystorego.New()
	for _, alias := range []string{"ä", "b"} {
		err := other.SetTrustedCertificateEntry(alias, keystorego.TrustedCertificateEntry{
			CreationTime: now, Certificate: keystorego.Certificate{Type: "X.509", Content: block.Bytes},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := other.Store(&b, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	certs, err := trusted(b.Bytes(), keystore.Ref{Password: "secret"})
	if err != nil || len(certs) != 2 {
		t.Errorf("got %v, %v", certs, err)
	}
}

func TestRefNeverShowsPasswords(t *testing.T) {
	ref := keystore.Ref{Location: "a.jks", Type: "JKS", Password: "hush1", KeyPassword: "hush2", Alias: "gw"}
	holder := struct {
		Ref  keystore.Ref
		Refs []*keystore.Ref
	}{ref, []*keystore.Ref{&ref}}
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+verb+verb, ref, &ref, holder)
	}
	for _, h := range []slog.Handler{slog.NewJSONHandler(&b, nil), slog.NewTextHandler(&b, nil)} {
		slog.New(h).Info("x", "ref", ref, "pointer", &ref, "holder", holder)
	}
	if err := json.NewEncoder(&b).Encode(holder); err != nil {
		t.Fatal(err)
	}
	if out := b.String(); strings.Contains(out, "hush") || !strings.Contains(out, "a.jks (JKS) alias gw") || strings.Contains(out, "6875736831") {
		t.Error(out)
	}
}

func FuzzOpen(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if !strings.HasSuffix(file, ".sh") && !strings.HasSuffix(file, ".p12") {
			f.Add(data, "changeit", "keypass")
			f.Add(data, "", "")
		}
	}
	for _, parts := range []string{"leafE interE rootE keyE leafR interR rootR keyR", "keyR keyE rootR leafE leafR", "leafE keyE againE keyR other"} {
		f.Add(newBundle(f).file(f, parts), "", "")
	}
	f.Fuzz(func(t *testing.T, data []byte, password, keyPassword string) {
		if bytes.HasPrefix(data, []byte{0x30}) {
			t.Skip("FuzzPKCS12 bounds the time")
		}
		store, err := keystore.Open(data, keystore.Ref{Password: password, KeyPassword: keyPassword})
		if err != nil {
			if store != nil {
				t.Error("a store beside an error")
			}
			return
		}
		if pairs, err := store.KeyPairs("", now); err == nil {
			for _, pair := range pairs {
				if pair.Leaf == nil || pair.PrivateKey == nil {
					t.Error("half a key pair")
				}
			}
		}
		if certs, err := store.Trusted(); err == nil && len(certs) == 0 {
			t.Error("an empty trust")
		}
	})
}
