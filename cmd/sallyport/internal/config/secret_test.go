package config_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/listenerprofiles/keystore"
)

// TestSecretsStayHidden prints, logs and marshals a whole Config in every way at hand.
func TestSecretsStayHidden(t *testing.T) {
	const canary = "canary-7f3a"
	t.Setenv("STORE_PASSWORD", canary)
	c, err := config.Load("testdata/example/sallyport.yaml")
	if err != nil {
		t.Fatal(err)
	}
	store := c.Listeners[0].TLS.Own.KeyStore
	backend := c.APIs[1].KeyStore
	for _, k := range []keystore.Ref{store, backend} {
		if k.Password != canary || k.KeyPassword != canary {
			t.Fatal("the canary didn't arrive")
		}
	}
	if c.RateLimit.Value.Redis.Password != canary {
		t.Fatal("the canary didn't arrive at Redis")
	}
	var out bytes.Buffer
	for _, v := range []any{c, *c, &c.Spec, c.Spec, c.Listeners[0], *c.Listeners[0].TLS, store, &store, backend, c.APIs[1], c.HeaderTrust, c.Balancers, c.RateLimit, c.Fixed} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%20s", "%-20q", "%08v"} {
			fmt.Fprintf(&out, verb, v)
		}
		fmt.Fprint(&out, v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal, xml.Marshal} {
			data, err := marshal(v)
			fmt.Fprint(&out, string(data), err)
		}
	}
	for _, leak := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary)} {
		if at := strings.Index(out.String(), leak); at >= 0 {
			t.Errorf("a secret is shown: …%s", out.String()[max(0, at-80):at+len(leak)])
		}
	}
	if !strings.Contains(out.String(), store.Location) {
		t.Error("nothing of the stores is shown")
	}
}

func TestReferences(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"plain": "secret\n", "windows": "secret\r\n", "two": "secret\n\n", "none": "secret", "nested": "${env:INNER}\n", "spaces": " secret \n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("INNER", "inner")
	t.Setenv("_X9", "${file:plain}")
	for _, c := range []struct{ yaml, want string }{
		{"plain", "plain"},
		{"$HOME", "$HOME"},
		{"'$'", "$"},
		{"${env:INNER}", "inner"},
		{"a${env:INNER}b${env:INNER}c}", "ainnerbinnerc}"},
		{"'${file:plain}'", "secret"},
		{"${file:windows}", "secret"},
		{"${file:two}", "secret\n"},
		{"${file:none}", "secret"},
		{"${file:spaces}", " secret "},
		{"${file:nested}", "${env:INNER}"},
		{"${env:_X9}", "${file:plain}"},
		{"${file:" + filepath.Join(dir, "plain") + "}", "secret"},
	} {
		file := filepath.Join(dir, "sallyport.yaml")
		text := "listeners:\n- name: a\n  address: :0\n  sslVerifyClient: none\n  keyStore:\n    location: a.jks\n    password: " + c.yaml + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", c.yaml, err)
			continue
		}
		if got := got.Listeners[0].TLS.Own.KeyStore.Password; got != c.want {
			t.Errorf("%s is %q, want %q", c.yaml, got, c.want)
		}
	}
}
