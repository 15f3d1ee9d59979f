//go:build unix

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pipesYAML names a file of its own in every place that may name one.
const pipesYAML = `
listeners:
  - name: https
    address: 127.0.0.1:0
    keyStore: {location: key.jks, password: "${file:key.password}", keyPassword: "${file:entry.password}"}
    trustStore: {location: trust.pem}
    dynamicSSLProfiles: {filePath: profiles.xml}
mutualSSL:
  loadBalancers:
    addresses: [127.0.0.1]
    trustStore: {location: balancers.pem}
  trustStore: {location: header.pem}
store: sqlite:store.db
rateLimit: {redis: {addresses: ["127.0.0.1:1"], password: "${file:redis.password}", caFile: redis-ca.pem}}
acme: {directory: "https://127.0.0.1:1/dir", caFile: acme-ca.pem}
log: {access: access.log}
keyManagers:
  - {name: a, issuer: a, jwks: jwks.json}
  - {name: b, issuer: b, certificate: km.crt}
  - {name: c, issuer: c, jwks: "https://localhost:1/jwks", caFile: km-ca.pem}
apis: ["api*.yaml"]
`

const pipesAPI = `
apis:
  - name: a
    version: 1.0.0
    context: /a
    security: [mutualssl, oauth2]
    upstream:
      urls: ["https://127.0.0.1:1"]
      caFile: upstream-ca.pem
      keyStore: {location: upstream.jks, password: "${file:upstream.password}"}
    clientCertificates: [{alias: a, certificate: client.crt, tier: Gold}]
`

const pipesXML = `<parameter name="SSLProfiles">
  <profile>
    <bindAddress>127.0.0.1</bindAddress>
    <KeyStore><Location>xml-key.jks</Location><Password>${file:xml.password}</Password></KeyStore>
    <TrustStore><Location>xml-trust.pem</Location></TrustStore>
  </profile>
</parameter>
`

// odd is what can stand where a file is named and is none that ends, and how that is called. A pipe blocks whoever opens
// it like a file, a device has no end.
var odd = map[string]struct {
	put  func(path string) error
	said string
}{
	"a pipe":           {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "(is )?not a regular file"},
	"a device":         {func(path string) error { return os.Symlink("/dev/zero", path) }, "(is )?not a regular file"},
	"a folder":         {func(path string) error { return os.Mkdir(path, 0o700) }, "(is )?not a regular file"},
	"an endless file":  {endless, `larger than \d+ bytes`},
	"a terminal's end": {func(path string) error { return os.Symlink("/dev/ptmx", path) }, "(is )?not a regular file"},
}

// endless makes a file of a tebibyte that takes no room.
func endless(path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, 1<<40)
}

// fileKeys is the keys of sallyport.yaml that name files, and the files in pipesYAML that stand for each.
var fileKeys = map[string]string{
	"location": "key.jks", "filePath": "profiles.xml", "certificate": "km.crt", "caFile": "km-ca.pem", "jwks": "jwks.json", "access": "access.log",
	"baseDir":  "", // is a folder, and is not opened
	"folder":   "", // the same
	"keyFile":  "", // which fileset opens, as that of gateway.config
	"snapshot": "", // is read only while the store is away
}

// TestFileKeys: whoever adds a key that names a file adds it to the places where no pipe may stand.
func TestFileKeys(t *testing.T) {
	sources, err := filepath.Glob("internal/config/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatal(sources, err)
	}
	resolves := 0
	for _, source := range sources {
		code, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		for _, key := range regexp.MustCompile(`\.path\("(\w+)"\)`).FindAllStringSubmatch(string(code), -1) {
			if _, known := fileKeys[key[1]]; !known {
				t.Errorf("%s reads the key %s as a file: add it to fileKeys and to pipesYAML", source, key[1])
			}
		}
		resolves += strings.Count(string(code), ".resolve(")
	}
	// Of an API's certificate, jwks, log.access, secrets, the key file and the folder of gateway.config, the default of
	// acme.folder, CRLs, which are not opened by the configuration, and path itself.
	if resolves != 9 {
		t.Errorf("%d places resolve a path: what is new has to stand in pipesYAML", resolves)
	}
	for key, file := range fileKeys {
		if !strings.Contains(pipesYAML+pipesAPI, key) && file != "" || !strings.Contains(pipesYAML+pipesAPI, file) {
			t.Errorf("pipesYAML has no %s with %s", key, file)
		}
	}
}

// TestNoPlaceTakesAPipe: whatever stands where a file is named and is none, it is an error that says where, from validate,
// from serve and, in a gateway that runs, from a reload, which goes on with what it had.
func TestNoPlaceTakesAPipe(t *testing.T) {
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	put := func(content []byte, names ...string) {
		t.Helper()
		for _, name := range names {
			if err := os.WriteFile(at(name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	of := func(name string) []byte {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	put([]byte(pipesYAML), "sallyport.yaml")
	put([]byte(pipesAPI), "api.yaml")
	put([]byte(pipesXML), "profiles.xml")
	put(of("stores/gateway.jks"), "key.jks", "xml-key.jks", "upstream.jks")
	put(of("secrets/gateway.password"), "key.password", "entry.password", "xml.password", "upstream.password", "redis.password")
	put(of("ca.crt"), "trust.pem", "balancers.pem", "header.pem", "km-ca.pem", "redis-ca.pem", "acme-ca.pem", "upstream-ca.pem", "xml-trust.pem", "km.crt")
	put(of("clients/gold.crt"), "client.crt")
	put(of("jwks.json"), "jwks.json")

	run := func(command string) (code int, stderr string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sallyport", command)
		var errs bytes.Buffer
		cmd.Dir, cmd.Stderr = dir, &errs
		_ = cmd.Run() // the exit code tells
		return cmd.ProcessState.ExitCode(), errs.String()
	}
	if code, errs := run("validate"); code != 0 {
		t.Fatalf("without a pipe: exit code %d\n%s", code, errs)
	}
	for name, place := range map[string]string{
		"sallyport.yaml":    `^sallyport: configuration `,
		"api.yaml":          `^sallyport\.yaml:\d+:\d+: API file `,
		"key.jks":           `^sallyport\.yaml:\d+:\d+: .*keystore `,
		"key.password":      `^sallyport\.yaml:\d+:\d+: password: secret file `,
		"entry.password":    `^sallyport\.yaml:\d+:\d+: keyPassword: secret file `,
		"trust.pem":         `^sallyport\.yaml:\d+:\d+: .*keystore `,
		"profiles.xml":      `^sallyport\.yaml:\d+:\d+: .*profiles `,
		"xml-key.jks":       `profiles\.xml:\d+:\d+: <Location>: .*keystore `,
		"xml.password":      `profiles\.xml:\d+:\d+: <Password>: .*`,
		"xml-trust.pem":     `profiles\.xml:\d+:\d+: <Location>: .*keystore `,
		"balancers.pem":     `^sallyport\.yaml:\d+:\d+: .*keystore `,
		"header.pem":        `^sallyport\.yaml:\d+:\d+: .*keystore `,
		"store.db":          `^sallyport\.yaml:\d+:\d+: store: `,
		"store.db-journal":  `^sallyport\.yaml:\d+:\d+: store: `,
		"store.db-wal":      `^sallyport\.yaml:\d+:\d+: store: `,
		"store.db-shm":      `^sallyport\.yaml:\d+:\d+: store: `,
		"redis.password":    `^sallyport\.yaml:\d+:\d+: password: secret file `,
		"redis-ca.pem":      `^sallyport\.yaml:\d+:\d+: redis caFile `,
		"acme-ca.pem":       `^sallyport\.yaml:\d+:\d+: acme caFile `,
		"jwks.json":         `^sallyport\.yaml:\d+:\d+: key manager "a": reading `,
		"km.crt":            `^sallyport\.yaml:\d+:\d+: key manager "b": reading `,
		"km-ca.pem":         `^sallyport\.yaml:\d+:\d+: key manager "c": reading `,
		"upstream-ca.pem":   `^api\.yaml:\d+:\d+: upstream caFile `,
		"upstream.jks":      `^api\.yaml:\d+:\d+: upstream keystore `,
		"upstream.password": `^api\.yaml:\d+:\d+: password: secret file `,
		"client.crt":        `^api\.yaml:\d+:\d+: certificate `,
		"access.log":        `^sallyport\.yaml:\d+:\d+: access `,
	} {
		good, isThere := os.ReadFile(at(name))
		_ = os.Remove(at(name))
		if strings.HasPrefix(name, "store.db-") {
			put(nil, "store.db")
		}
		for kind, odd := range odd {
			if kind == "an endless file" && (strings.HasPrefix(name, "store.db") || name == "access.log") {
				continue // nobody reads these whole
			}
			if err := odd.put(at(name)); err != nil {
				t.Fatal(err)
			}
			want := regexp.MustCompile("(?m)" + place + ".*" + regexp.QuoteMeta(name) + `"?:? ` + odd.said + "(: .*)?$")
			for _, command := range []string{"validate", "serve"} {
				began := time.Now()
				code, errs := run(command)
				if command == "serve" {
					errs = asPlain(errs)
				}
				if code != 2 || !want.MatchString(errs) {
					t.Errorf("%s is %s: %s has the exit code %d after %v, want 2 and %s\n%s", name, kind, command, code, time.Since(began), want, errs)
				}
				if command == "validate" && strings.Count(errs, "\n") != 1 {
					t.Errorf("%s is %s: more than one problem\n%s", name, kind, errs)
				}
			}
			_ = os.Remove(at(name))
		}
		_ = os.Remove(at("store.db"))
		if isThere == nil {
			put(good, name)
		}
	}
}

// asPlain turns the lines of JSON that tell why serve has failed into those that validate prints.
func asPlain(log string) string {
	var plain strings.Builder
	for line := range strings.Lines(log) {
		var told struct {
			Msg, Error, File string
			Line, Column     int
		}
		switch err := json.Unmarshal([]byte(line), &told); {
		case err != nil || told.Msg != "serve failed":
			plain.WriteString(line)
		case told.File == "":
			fmt.Fprintf(&plain, "sallyport: %s\n", told.Error)
		default:
			fmt.Fprintf(&plain, "%s:%d:%d: %s\n", told.File, told.Line, told.Column, told.Error)
		}
	}
	return plain.String()
}
