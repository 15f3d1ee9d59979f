package listenerprofiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/listenerprofiles/keystore"
)

// WSO2's own sample, with stores that keytool made.
func TestLoadWSO2Sample(t *testing.T) {
	f := newFixture(t)
	sample, err := os.ReadFile("testdata/parse/wso2.xml")
	if err != nil {
		t.Fatal(err)
	}
	sample = []byte(strings.NewReplacer("<Password>wso2carbon", "<Password>${env:STORE_PASSWORD}", "<KeyPassword>wso2carbon", "<KeyPassword>${file:secrets/key}").Replace(string(sample)))
	f.write(t, "repository/resources/security/listenerprofiles.xml", sample)
	for from, to := range map[string]string{"keys.jks": "wso2carbon.jks", "trust.jks": "client-truststore.jks"} {
		data, err := os.ReadFile("keystore/testdata/" + from)
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, "repository/resources/security/"+to, data)
	}
	f.write(t, "secrets/key", []byte("keypass\r\n"))
	t.Setenv("STORE_PASSWORD", "changeit")
	cfg := f.config()
	cfg.FilePath, cfg.BaseDir = f.path("repository/resources/security/listenerprofiles.xml"), f.dir
	set, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := set.Profiles()[0]
	if p.Name != "profile 0.0.0.0" || p.VerifyClient != Optional || len(p.Leafs) != 2 || len(p.Trust.Certificates()) != 2 {
		t.Errorf("%+v", p.Settings)
	}
	if p.TLS.ClientAuth != tls.RequestClientCert || p.TLS.ClientCAs == nil || p.TLS.MinVersion != tls.VersionTLS12 || p.TLS.MaxVersion != tls.VersionTLS13 {
		t.Errorf("%+v", p.TLS)
	}
	if s := fmt.Sprintf("%v %+v %#v", p.Settings, p.Settings, p.Settings); strings.Contains(s, "changeit") || strings.Contains(s, "keypass") {
		t.Error(s)
	}
}

// Whatever is wrong with a store, with require as with optional: an error that names the file, and no set.
func TestUnusableStoreIsAnError(t *testing.T) {
	jks := func(name string) []byte {
		data, err := os.ReadFile("keystore/testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	f := newFixture(t)
	good := string(certPEM(f.ca))
	if err := os.Mkdir(f.path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(f.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.write(t, "unreadable", []byte(good))
	_ = os.Chmod(f.path("unreadable"), 0)
	for name, data := range map[string]string{
		"empty": "", "blank": "\n", "garbage": "\x00\x01garbage", "text": "no certificates here\n", "zeros": strings.Repeat("\x00", 1<<20),
		"huge": strings.Repeat("x", keystore.MaxSize+1), "cut": good[:len(good)-40], "jks-cut": string(jks("trust.jks")[:300]),
		"jks": string(jks("trust.jks")), "jks-empty": string(jks("empty.jks")), "jceks": string(jks("keys.jceks")), "key": string(f.server.pem(t)),
	} {
		f.write(t, name, []byte(data))
	}
	expired := issue(t, "expired", f.ca, func(c *x509.Certificate) { c.NotAfter = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) })
	f.write(t, "expired", expired.pem(t))

	pemStore := func(element, location string) string {
		return fmt.Sprintf("<%s><Location>%s</Location></%[1]s>", element, location)
	}
	secretStore := func(element, location, password string) string {
		return fmt.Sprintf("<%s><Location>%s</Location><Password>%s</Password></%[1]s>", element, location, password)
	}
	goodKey, goodTrust := pemStore("KeyStore", "server.pem"), pemStore("TrustStore", "trust.pem")
	tests := []struct {
		name       string
		key, trust string
		is         error
		words      string
	}{
		{"trust store missing", goodKey, pemStore("TrustStore", "missing"), fs.ErrNotExist, "missing"},
		{"trust store unreadable", goodKey, pemStore("TrustStore", "unreadable"), fs.ErrPermission, "unreadable"},
		{"trust store a folder", goodKey, pemStore("TrustStore", "folder"), nil, "not a regular file"},
		{"trust store a pipe", goodKey, pemStore("TrustStore", "pipe"), nil, "not a regular file"},
		{"trust store empty file", goodKey, pemStore("TrustStore", "empty"), keystore.ErrFormat, "empty file"},
		{"trust store blank", goodKey, pemStore("TrustStore", "blank"), keystore.ErrFormat, "blank"},
		{"trust store garbage", goodKey, pemStore("TrustStore", "garbage"), keystore.ErrFormat, "garbage"},
		{"trust store text", goodKey, pemStore("TrustStore", "text"), keystore.ErrFormat, "text"},
		{"trust store zeros", goodKey, pemStore("TrustStore", "zeros"), keystore.ErrFormat, "zeros"},
		{"trust store too large", goodKey, pemStore("TrustStore", "huge"), nil, "larger than"},
		{"trust store cut", goodKey, pemStore("TrustStore", "cut"), keystore.ErrFormat, "cut"},
		{"trust store JKS cut", goodKey, secretStore("TrustStore", "jks-cut", "changeit"), keystore.ErrFormat, "cut short"},
		{"trust store JKS wrong password", goodKey, secretStore("TrustStore", "jks", "wrong"), keystore.ErrPassword, "jks"},
		{"trust store without certificates", goodKey, secretStore("TrustStore", "jks-empty", "changeit"), keystore.ErrEmpty, "jks-empty"},
		{"trust store of keys only", goodKey, pemStore("TrustStore", "key"), keystore.ErrEmpty, "private keys only"},
		{"trust store JCEKS", goodKey, secretStore("TrustStore", "jceks", "changeit"), keystore.ErrFormat, "keytool -importkeystore"},
		{"key store missing", pemStore("KeyStore", "missing"), goodTrust, fs.ErrNotExist, "missing"},
		{"key store without key", pemStore("KeyStore", "trust.pem"), goodTrust, keystore.ErrNoEntry, "no private key"},
		{"key store expired", pemStore("KeyStore", "expired"), goodTrust, keystore.ErrExpired, "expired on 2020-01-01T00:00:00Z"},
		{"secret not set", secretStore("KeyStore", "server.pem", "${env:SALLYPORT_TEST_UNSET}"), goodTrust, nil, "SALLYPORT_TEST_UNSET is not set"},
		{"secret file missing", goodKey, secretStore("TrustStore", "jks", "${file:nowhere}"), fs.ErrNotExist, "nowhere"},
		{"secret file empty", goodKey, secretStore("TrustStore", "jks", "${file:blank}"), nil, `"blank" is empty`},
	}
	for _, tt := range tests {
		for _, verify := range []string{"optional", "require"} {
			t.Run(tt.name+" "+verify, func(t *testing.T) {
				if strings.Contains(tt.name, "unreadable") && os.Geteuid() == 0 {
					t.Skip("root reads everything")
				}
				f.write(t, "listenerprofiles.xml", []byte("<parameter name=\"SSLProfiles\">\n<profile><bindAddress>0.0.0.0</bindAddress>"+
					tt.key+tt.trust+"<SSLVerifyClient>"+verify+"</SSLVerifyClient></profile></parameter>"))
				set, err := Load(f.config(), nil)
				if set != nil || err == nil || tt.is != nil && !errors.Is(err, tt.is) {
					t.Fatalf("%v, want %v", err, tt.is)
				}
				var place *ParseError
				if !errors.As(err, &place) || place.Line != 2 || place.File != f.path("listenerprofiles.xml") {
					t.Errorf("no place: %v", err)
				}
				if !strings.Contains(err.Error(), tt.words) || strings.Contains(err.Error(), "changeit") {
					t.Errorf("%v lacks %q", err, tt.words)
				}
			})
		}
	}
}

func TestLoadOwn(t *testing.T) {
	f := newFixture(t)
	change := func(f func(*Settings)) func(*Options) { return func(c *Options) { f(&c.Own) } }
	tests := []struct {
		name   string
		change func(*Options)
		words  string
	}{
		{"good", func(*Options) {}, ""},
		{"none without trust store", change(func(s *Settings) { s.VerifyClient, s.TrustStore = None, keystore.Ref{} }), ""},
		{"optional without trust store", change(func(s *Settings) { s.TrustStore = keystore.Ref{} }), "listener https: client certificates are asked for (optional)"},
		{"require without trust store", change(func(s *Settings) { s.VerifyClient, s.TrustStore = Require, keystore.Ref{} }), "no trust store"},
		{"none with a trust store that is broken", change(func(s *Settings) { s.VerifyClient, s.TrustStore.Location = None, f.path("missing") }), "missing"},
		{"no key store", change(func(s *Settings) { s.KeyStore = keystore.Ref{} }), "listener https: there is no key store"},
		{"alias", change(func(s *Settings) { s.KeyStore.Alias = "x" }), "no such key entry"},
		{"an old protocol", change(func(s *Settings) { s.Protocols = []uint16{tls.VersionTLS11} }), "TLS 1.1 is refused"},
		{"a weak cipher", change(func(s *Settings) { s.Ciphers = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA} }), "refused"},
		{"a wrong word", change(func(s *Settings) { s.VerifyClient = 7 }), "unknown value 7"},
		{"no suite of TLS 1.2", change(func(s *Settings) { s.Ciphers = []uint16{} }), "names no suite of TLS 1.2, while TLSv1.2 is enabled"},
		{"no suite of TLS 1.2, and none needed", change(func(s *Settings) { s.Ciphers, s.Protocols = []uint16{}, []uint16{tls.VersionTLS13} }), ""},
		{"no suite for the key", change(func(s *Settings) { s.Ciphers = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256} }), "goes with the server's key"},
		{"no file", func(c *Options) { c.FilePath = f.path("missing.xml") }, "listener https: profiles " + f.path("missing.xml") + ": no such file"},
		{"no profiles wanted", func(c *Options) { c.FilePath = "" }, ""},
	}
	f.xml(t, "10.0.0.1")
	for _, tt := range tests {
		cfg := f.config()
		tt.change(&cfg)
		set, err := Load(cfg, nil)
		if (err == nil) != (tt.words == "") || (set == nil) == (err == nil) || err != nil && !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// One problem must not hide the others.
func TestLoadFindsAllProblems(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1 key=missing trust=missing-too", "10.0.0.2", "10.0.0.3 trust=gone")
	cfg := f.config()
	cfg.Own.KeyStore.Location = f.path("lost")
	_, err := Load(cfg, nil)
	if err == nil || len(strings.Split(err.Error(), "\n")) != 4 {
		t.Error(err)
	}
}

// A reload touches only what has changed: the rest keeps its pointer, and so its session tickets.
func TestUnchangedProfilesAreTakenOver(t *testing.T) {
	f := newFixture(t)
	first := f.load(t, "10.0.0.1", "10.0.0.2", "10.0.0.3 verify=none trust=-")
	cfg := f.config()
	reload := func() *Set {
		t.Helper()
		set, err := Load(cfg, first)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	if reload() != first {
		t.Error("nothing changed, and the set did")
	}
	f.write(t, "listenerprofiles.xml", []byte("<!-- only a comment\n\n -->"+profilesXML("10.0.0.1", "10.0.0.2", "10.0.0.3 verify=none trust=-")))
	if reload() != first {
		t.Error("a comment changed the set")
	}

	f.xml(t, "10.0.0.2", "10.0.0.1 verify=require", "10.0.0.3 verify=none trust=-")
	second := reload()
	same := func(i, j int) bool { return first.Profiles()[i] == second.Profiles()[j] }
	if second == first || same(0, 1) || !same(1, 0) || !same(2, 2) || !same(3, 3) {
		t.Error("order and one word changed: what is the same is not the same")
	}
	if second.Digest() == first.Digest() {
		t.Error("one digest for two sets")
	}

	f.write(t, "trust.pem", certPEM(f.ca, f.other))
	third := reload()
	if third.Profiles()[0] == second.Profiles()[0] || third.Profiles()[2] != first.Profiles()[2] {
		t.Error("a new trust store: profiles that use it are new, others are not")
	}
	f.write(t, "trust.pem", certPEM(f.ca))
	f.xml(t, "10.0.0.1", "10.0.0.2", "10.0.0.3 verify=none trust=-")
	again, err := Load(cfg, third)
	if err != nil || again.Digest() != first.Digest() {
		t.Errorf("the same content has another digest: %v", err)
	}
	if again.Profiles()[0] == first.Profiles()[0] {
		t.Error("a profile of a set before the last came back")
	}
}

// Files are all that a set was made of, even those that stand only for a password.
func TestFiles(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1 key=second.pem", "10.0.0.2 key=./x/../second.pem trust=other.pem")
	cfg := f.config()
	expect := func(last *Set, names ...string) *Set {
		t.Helper()
		r := Read(cfg, last)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		for i, name := range names {
			names[i] = f.path(name)
		}
		if !slices.Equal(r.Files, names) {
			t.Errorf("%v, want %v", r.Files, names)
		}
		return r.Set
	}
	set := expect(nil, "listenerprofiles.xml", "other.pem", "second.pem", "server.pem", "trust.pem")
	expect(set, "listenerprofiles.xml", "other.pem", "second.pem", "server.pem", "trust.pem")

	profile := `<parameter name="SSLProfiles"><profile><bindAddress>10.0.0.1</bindAddress><KeyStore><Location>server.pem</Location></KeyStore>
		<TrustStore><Location>trust.pem</Location><Password>%s</Password></TrustStore></profile></parameter>`
	f.write(t, "secret", []byte("word"))
	f.write(t, "moved", []byte("word"))
	f.write(t, "listenerprofiles.xml", fmt.Appendf(nil, profile, "${file:secret}"))
	set = expect(set, "listenerprofiles.xml", "secret", "server.pem", "trust.pem")
	f.write(t, "listenerprofiles.xml", fmt.Appendf(nil, profile, "${file:moved}"))
	moved := expect(set, "listenerprofiles.xml", "moved", "server.pem", "trust.pem")
	if moved.Profiles()[0] != set.Profiles()[0] {
		t.Error("the same password in another file makes another profile")
	}

	cfg.FilePath = ""
	set = expect(set, "server.pem", "trust.pem")
	if r := ReadStores(cfg, set); r.Set != set || r.Err != nil {
		t.Error(r.Err)
	}
	t.Chdir(f.dir)
	cfg.Own.KeyStore.Location, cfg.Own.TrustStore.Location = "server.pem", "trust.pem"
	expect(nil, "server.pem", "trust.pem")
}

// J132: what was validated is what is used, even if the file changes in between.
func TestEachFileIsReadOnce(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1", "10.0.0.2", "10.0.0.3 key=second.pem")
	reads := map[string]int{}
	cfg := f.config()
	cfg.ReadFile = func(path string) ([]byte, error) {
		reads[filepath.Base(path)]++
		return os.ReadFile(path)
	}
	if _, err := Load(cfg, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"listenerprofiles.xml", "server.pem", "second.pem", "trust.pem"} {
		if reads[name] != 1 {
			t.Errorf("%s: read %d times", name, reads[name])
		}
	}
}
