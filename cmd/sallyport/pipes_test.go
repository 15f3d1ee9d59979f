//go:build unix

package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
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

// A pipe that stands where a file is named blocks whoever opens it like a file: validate for ever, and a running gateway
// at every reload. Wherever it is named it is an error that says where.
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
	put(of("secrets/gateway.password"), "key.password", "entry.password", "xml.password", "upstream.password")
	put(of("ca.crt"), "trust.pem", "balancers.pem", "header.pem", "km-ca.pem", "upstream-ca.pem", "xml-trust.pem", "km.crt")
	put(of("clients/gold.crt"), "client.crt")
	put(of("jwks.json"), "jwks.json")

	validate := func() (code int, stderr string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sallyport", "validate")
		var errs bytes.Buffer
		cmd.Dir, cmd.Stderr = dir, &errs
		_ = cmd.Run() // the exit code tells
		return cmd.ProcessState.ExitCode(), errs.String()
	}
	if code, errs := validate(); code != 0 {
		t.Fatalf("without a pipe: exit code %d\n%s", code, errs)
	}
	for name, place := range map[string]string{
		"sallyport.yaml":    `^sallyport: configuration `,
		"api.yaml":          `^sallyport\.yaml:\d+:\d+: API file `,
		"key.jks":           `^sallyport\.yaml:\d+:\d+: keystore `,
		"key.password":      `^sallyport\.yaml:\d+:\d+: password: secret file `,
		"entry.password":    `^sallyport\.yaml:\d+:\d+: keyPassword: secret file `,
		"trust.pem":         `^sallyport\.yaml:\d+:\d+: keystore `,
		"profiles.xml":      `^sallyport\.yaml:\d+:\d+: profiles of listener https: `,
		"xml-key.jks":       `profiles\.xml:\d+:\d+: <KeyStore>: .*keystore `,
		"xml.password":      `profiles\.xml:\d+:\d+: <KeyStore>: .*password: `,
		"xml-trust.pem":     `profiles\.xml:\d+:\d+: <TrustStore>: .*keystore `,
		"balancers.pem":     `^sallyport\.yaml:\d+:\d+: keystore `,
		"header.pem":        `^sallyport\.yaml:\d+:\d+: keystore `,
		"store.db":          `^sallyport\.yaml:\d+:\d+: store: `,
		"store.db-journal":  `^sallyport\.yaml:\d+:\d+: store: `,
		"jwks.json":         `^sallyport\.yaml:\d+:\d+: key manager "a": reading `,
		"km.crt":            `^sallyport\.yaml:\d+:\d+: key manager "b": reading `,
		"km-ca.pem":         `^sallyport\.yaml:\d+:\d+: key manager "c": reading `,
		"upstream-ca.pem":   `^api\.yaml:\d+:\d+: upstream caFile `,
		"upstream.jks":      `^api\.yaml:\d+:\d+: upstream keyStore `,
		"upstream.password": `^api\.yaml:\d+:\d+: password: secret file `,
		"client.crt":        `^api\.yaml:\d+:\d+: certificate `,
	} {
		good, isThere := os.ReadFile(at(name))
		_ = os.Remove(at(name))
		if name == "store.db-journal" {
			put(nil, "store.db")
		}
		if err := syscall.Mkfifo(at(name), 0o600); err != nil {
			t.Fatal(err)
		}
		code, errs := validate()
		want := regexp.MustCompile("(?m)" + place + ".*" + regexp.QuoteMeta(name) + `"?:? (is )?not a regular file$`)
		if code != 2 || !want.MatchString(errs) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s is a pipe: exit code %d, want 2 and %s\n%s", name, code, want, errs)
		}
		_ = os.Remove(at(name))
		_ = os.Remove(at("store.db"))
		if isThere == nil {
			put(good, name)
		}
	}
}
