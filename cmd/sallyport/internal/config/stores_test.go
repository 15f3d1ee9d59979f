package config_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/internal/testpki"
)

// everyStore names each file of keys and certificates that a configuration can name. The value that a test looks for is
// on a line of its own.
const everyStore = `
listeners:
  - name: https
    address: 127.0.0.1:8243
    keyStore:
      location: own-key.jks
      password: own-key-password
      keyPassword: own-key-keypassword
      alias: own-key-alias
    trustStore:
      location: own-trust.jks
      password: own-trust-password
    dynamicSSLProfiles:
      filePath: profiles.xml
mutualSSL:
  loadBalancers:
    addresses: [127.0.0.1]
    trustStore:
      location: balancer-trust.jks
      password: balancer-trust-password
  trustStore:
    location: header-trust.jks
    password: header-trust-password
store: "sqlite::memory:"
keyManagers:
  - name: pinned
    issuer: https://pinned.test
    certificate: pinned.pem
  - name: file
    issuer: https://file.test
    jwks: keys.json
  - name: remote
    issuer: https://remote.test
    jwks: https://127.0.0.1:1/jwks
    caFile: remote-ca.pem
apis:
  - name: orders
    version: 1.0.0
    context: /orders
    security: [mutualssl]
    upstream:
      urls: [https://127.0.0.1:9000]
      caFile: upstream-ca.pem
      keyStore:
        location: upstream-key.jks
        password: upstream-key-password
        keyPassword: upstream-key-keypassword
        alias: upstream-key-alias
`

const everyStoreXML = `<parameter name="SSLProfiles">
  <profile>
    <bindAddress>127.0.0.1</bindAddress>
    <KeyStore>
      <Location>xml-key.jks</Location>
      <Password>xml-key-password</Password>
      <KeyPassword>xml-key-keypassword</KeyPassword>
      <ServerCertificateAlias>xml-key-alias</ServerCertificateAlias>
    </KeyStore>
    <TrustStore>
      <Location>xml-trust.jks</Location>
      <Password>xml-trust-password</Password>
    </TrustStore>
  </profile>
</parameter>
`

// TestProblemOfAStoreHasItsPlace: whatever is wrong with a file of keys or certificates is told at the key or element
// that says so, with the file, the alias and what to do.
func TestProblemOfAStoreHasItsPlace(t *testing.T) {
	ca := testpki.NewCA(t, "CA")
	server := ca.Issue(testpki.Leaf{CommonName: "server"})
	keys := func(alias, password, keyPassword string) []byte {
		key, err := x509.MarshalPKCS8PrivateKey(server.Key)
		if err != nil {
			t.Fatal(err)
		}
		entry := jks.PrivateKeyEntry{CreationTime: time.Unix(1e9, 0), PrivateKey: key}
		for _, c := range server.Chain() {
			entry.CertificateChain = append(entry.CertificateChain, jks.Certificate{Type: "X.509", Content: c.Raw})
		}
		store, out := jks.New(), bytes.Buffer{}
		if err := errors.Join(store.SetPrivateKeyEntry(alias, entry, []byte(keyPassword)), store.Store(&out, []byte(password))); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	trust := func(password string) []byte { return testpki.TrustJKS(t, password, ca.Cert) }
	unusable := ca.Issue(testpki.Leaf{CommonName: "old"}).NegativeSerial()

	dir := t.TempDir()
	put(t, filepath.Join(dir, "sallyport.yaml"), []byte(everyStore))
	put(t, filepath.Join(dir, "profiles.xml"), []byte(everyStoreXML))
	good := map[string][]byte{
		"pinned.pem": testpki.PEM(server.Cert), "keys.json": []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`),
		"remote-ca.pem": testpki.PEM(ca.Cert), "upstream-ca.pem": testpki.PEM(ca.Cert),
	}
	for _, name := range []string{"own-key", "xml-key", "upstream-key"} {
		good[name+".jks"] = keys(name+"-alias", name+"-password", name+"-keypassword")
	}
	for _, name := range []string{"own-trust", "xml-trust", "header-trust", "balancer-trust"} {
		good[name+".jks"] = trust(name + "-password")
	}
	for name, data := range good {
		put(t, filepath.Join(dir, name), data)
	}
	build := func() error {
		c, err := config.Load(filepath.Join(dir, "sallyport.yaml"))
		if err != nil {
			return err
		}
		a, err := control.Build(context.Background(), &c.Spec)
		if err != nil {
			return err
		}
		return a.Close()
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}

	type fault struct {
		name string
		data []byte // nil: the file is not there; a folder if name is "a folder"
		at   string // end of the value at whose line it is told; "": the file's
	}
	todo := regexp.MustCompile(`name (one|a file|the alias|a store)|leave keyPassword|put the store back|says: file |keytool -`)
	for file := range good {
		faults := []fault{{"missing", nil, ""}, {"a folder", nil, ""}, {"empty", []byte{}, ""}, {"garbage", []byte("garbage"), ""}}
		base, extension, _ := strings.Cut(file, ".")
		password, alias := base+"-password", base+"-alias"
		switch {
		case extension == "jks" && strings.HasSuffix(base, "-key"):
			faults = append(faults,
				fault{"wrong password", keys(alias, "other", base+"-keypassword"), "-password"},
				fault{"wrong key password", keys(alias, password, "other"), "-keypassword"},
				fault{"wrong alias", keys("other", password, base+"-keypassword"), "-alias"},
				fault{"no key", trust(password), ""})
		case extension == "jks":
			faults = append(faults,
				fault{"wrong password", trust("other"), "-password"},
				fault{"nothing usable", testpki.TrustJKSDER(t, password, unusable), ""},
				fault{"keys alone", keys("other", password, "other"), ""})
		}
		for _, f := range faults {
			t.Run(file+" "+f.name, func(t *testing.T) {
				path := filepath.Join(dir, file)
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				defer func() {
					os.Remove(path)
					put(t, path, good[file])
				}()
				if f.name == "a folder" {
					if err := os.Mkdir(path, 0o700); err != nil {
						t.Fatal(err)
					}
				} else if f.data != nil {
					put(t, path, f.data)
				}
				err := build()
				var problems control.Problems
				if !errors.As(err, &problems) || len(problems) != 1 {
					t.Fatalf("%d problems: %v", len(problems), err)
				}
				said, marker, document := problems[0], file, everyStore
				if f.at != "" {
					marker = base + f.at
				}
				if strings.HasPrefix(file, "xml-") {
					document = everyStoreXML
					if filepath.Base(said.File) != "profiles.xml" {
						t.Errorf("told of %s", said.File)
					}
				}
				lines := strings.Split(document, "\n")
				if said.Line < 1 || said.Line > len(lines) || !strings.Contains(lines[said.Line-1], marker) {
					t.Errorf("not at the line of %s: %s", marker, said)
				}
				if !strings.Contains(said.Message, path) {
					t.Errorf("names no file: %s", said)
				}
				if (f.at == "-alias" || f.at == "-keypassword") && !strings.Contains(said.Message, alias) {
					t.Errorf("names no alias: %s", said)
				}
				if !todo.MatchString(said.Message) {
					t.Errorf("does not say what to do: %s", said)
				}
				if strings.Contains(said.Message, password) {
					t.Errorf("shows a password: %s", said)
				}
			})
		}
	}
}

// TestUnusableEntryIsNamed: an entry of a trust store or key store that Go can't parse is skipped, named once, and
// counted.
func TestUnusableEntryIsNamed(t *testing.T) {
	ca := testpki.NewCA(t, "CA")
	dir := t.TempDir()
	server, old := ca.IssueServer("server.test"), ca.IssueServer("old.test")
	store, data := jks.New(), bytes.Buffer{}
	for alias, of := range map[string]struct {
		*testpki.Identity
		der []byte
	}{"server": {server, server.Cert.Raw}, "old": {old, old.NegativeSerial()}} {
		key, err := x509.MarshalPKCS8PrivateKey(of.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.SetPrivateKeyEntry(alias, jks.PrivateKeyEntry{
			CreationTime: time.Unix(1e9, 0), PrivateKey: key, CertificateChain: []jks.Certificate{{Type: "X.509", Content: of.der}},
		}, []byte("hush")); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Store(&data, []byte("hush")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "server.jks"), data.Bytes())
	put(t, filepath.Join(dir, "trust.jks"), testpki.TrustJKSDER(t, "hush", ca.Cert.Raw, ca.Issue(testpki.Leaf{CommonName: "old"}).NegativeSerial()))
	put(t, filepath.Join(dir, "sallyport.yaml"), []byte(`listeners:
  - name: https
    address: 127.0.0.1:8243
    keyStore: {location: server.jks, password: hush}
    trustStore:
      location: trust.jks
      password: hush
mutualSSL:
  trustStore: {location: trust.jks, password: hush}
store: "sqlite::memory:"
`))
	c, err := config.Load(filepath.Join(dir, "sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := control.Build(context.Background(), &c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	keys, trust := filepath.Join(dir, "server.jks"), filepath.Join(dir, "trust.jks")
	got := a.StoreWarnings()
	for i, want := range []struct {
		line int
		text string
	}{{4, "keystore " + keys + `: entry "old" is skipped: `}, {6, "keystore " + trust + `: entry "trusted1" is skipped: `}} {
		if len(got) != 2 || got[i].Line != want.line || !strings.Contains(got[i].Message, want.text) ||
			!strings.Contains(got[i].Message, "negative serial number") {
			t.Errorf("warnings: %v", got)
		}
	}
	if counts := a.SkippedEntries(); counts[trust] != 1 || counts[keys] != 1 || len(counts) != 2 {
		t.Errorf("skipped: %v", counts)
	}
}

// TestWhatIsSharedIsToldOnce: what several listeners and APIs name is told of once, and the CAs of key managers are looked
// at as all others are.
func TestWhatIsSharedIsToldOnce(t *testing.T) {
	now := time.Now()
	ca := testpki.NewCA(t, "CA")
	soon := ca.Issue(testpki.Leaf{CommonName: "soon", NotAfter: now.Add(48 * time.Hour)})
	old := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Issue(testpki.Leaf{CommonName: "old"}).NegativeSerial()})
	dir := t.TempDir()
	put(t, filepath.Join(dir, "server.pem"), ca.Issue(testpki.Leaf{CommonName: "server"}).PEM())
	put(t, filepath.Join(dir, "cas.pem"), append(soon.CertPEM(), old...))
	put(t, filepath.Join(dir, "listenerprofiles.xml"), []byte(`<parameter name="SSLProfiles"><profile>
<bindAddress>127.0.0.1</bindAddress>
<KeyStore><Location>server.pem</Location></KeyStore>
<SSLVerifyClient>none</SSLVerifyClient>
<HttpsProtocols>TLSv1.1,TLSv1.2</HttpsProtocols>
</profile></parameter>`))
	put(t, filepath.Join(dir, "sallyport.yaml"), []byte(`listeners:
  - {name: one, address: "127.0.0.1:8243", keyStore: {location: server.pem}, sslVerifyClient: none, dynamicSSLProfiles: {filePath: listenerprofiles.xml}}
  - {name: two, address: "127.0.0.1:8244", keyStore: {location: server.pem}, sslVerifyClient: none, dynamicSSLProfiles: {filePath: listenerprofiles.xml}}
keyManagers:
  - {name: km, issuer: i, jwks: "https://127.0.0.1:1/jwks", caFile: cas.pem}
store: "sqlite::memory:"
apis:
  - {name: a, version: "1", context: /a, security: [oauth2], upstream: {urls: ["https://127.0.0.1:2"], caFile: cas.pem}}
  - {name: b, version: "1", context: /b, security: [oauth2], upstream: {urls: ["https://127.0.0.1:2"], caFile: cas.pem}}
`))
	c, err := config.Load(filepath.Join(dir, "sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := control.Build(context.Background(), &c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	got := a.StoreWarnings()
	if len(got) != 2 || got[0].Line != 5 || !strings.Contains(got[0].Message, "TLSv1.1") ||
		!strings.Contains(got[1].Message, "PEM block 2 is skipped: x509: negative serial number") {
		t.Errorf("warnings of stores: %v", got)
	}
	got = a.IgnoredKeys()
	if len(got) != 1 || got[0].Line != 5 || !strings.Contains(got[0].Message, "cas.pem: PEM block 2 is skipped: x509: negative serial number") {
		t.Errorf("warnings of keys: %v", got)
	}
	c.APIs = nil // leaves the key manager's
	alone, err := control.Build(context.Background(), &c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	if n := alone.SkippedEntries()[filepath.Join(dir, "cas.pem")]; n != 1 {
		t.Errorf("%d entries are skipped, want 1", n)
	}
	if got := alone.Endings(now); len(got) != 1 || got[0].Kind != control.KindTrustStore || !strings.Contains(got[0].Name(), "cas.pem: CN=soon") {
		t.Errorf("endings: %v", got)
	}
}
