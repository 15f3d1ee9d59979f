package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/internal/config"
)

func TestLoadSaysWhatItCannotRead(t *testing.T) {
	for _, file := range []string{"testdata/nowhere.yaml", "testdata"} {
		c, err := config.Load(file)
		if c != nil || err == nil || !strings.HasPrefix(err.Error(), "configuration "+file+": ") || strings.Count(err.Error(), file) != 1 {
			t.Errorf("Load(%s): %v, %v; want an error that names it once", file, c, err)
		}
	}
	if _, err := config.Load("testdata/nowhere.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	if got, err := config.Find("some/file.yaml"); got != "some/file.yaml" || err != nil {
		t.Errorf("what is asked for: %s, %v", got, err)
	}
	const system = "/etc/sallyport/sallyport.yaml"
	if _, err := os.Stat(system); errors.Is(err, fs.ErrNotExist) {
		_, err := config.Find("")
		if err == nil || !strings.Contains(err.Error(), "no sallyport.yaml") || !strings.Contains(err.Error(), system) {
			t.Errorf("nothing there: %v; want both places named", err)
		}
	}
	if err := os.WriteFile("sallyport.yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := config.Find(""); got != "sallyport.yaml" || err != nil {
		t.Errorf("one here: %s, %v", got, err)
	}
}

// TestDigest changes one thing after the other that a Config is made from.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const main = `
listeners:
  - name: https
    address: 127.0.0.1:0
    keyStore: {location: a.jks, password: "${env:DIGEST_TEST}", keyPassword: "${file:key.password}"}
    trustStore: {location: b.jks}
apis: ["apis/*.yaml"]
`
	api := func(name string) string {
		return "apis:\n- name: " + name + "\n  version: 1.0.0\n  context: /" + name + "\n  security: [mutualssl]\n" +
			"  upstream: {urls: [http://127.0.0.1:9000]}\n  clientCertificates: [{alias: a, certificate: a.crt, tier: Gold}]\n"
	}
	put("sallyport.yaml", main)
	put("key.password", "one\n")
	put("apis/a.yaml", api("a"))
	put("apis/a.crt", "one")
	t.Setenv("DIGEST_TEST", "one")
	load := func() [32]byte {
		t.Helper()
		c, err := config.Load(filepath.Join(dir, "sallyport.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return c.Digest
	}
	first := load()
	if load() != first {
		t.Error("the digest changes by itself")
	}
	put("apis/.#b.yaml", "not an API file")
	put("apis/b.txt", "not an API file")
	if load() != first {
		t.Error("the digest covers what isn't read")
	}
	seen := [][32]byte{first}
	for _, change := range []struct {
		name string
		do   func()
	}{
		{"the main file", func() { put("sallyport.yaml", main+"# x\n") }},
		{"a secret file", func() { put("key.password", "two\n") }},
		{"a variable", func() { t.Setenv("DIGEST_TEST", "two") }},
		{"an API file", func() { put("apis/a.yaml", api("other")) }},
		{"a certificate", func() { put("apis/a.crt", "two") }},
		{"one more API file", func() { put("apis/b.yaml", api("b")) }},
	} {
		change.do()
		digest := load()
		if slices.Contains(seen, digest) {
			t.Errorf("a change of %s doesn't show in the digest", change.name)
		}
		seen = append(seen, digest)
	}
}

// TestFolderWithPattern keeps a configuration in a folder whose name looks like a pattern.
func TestFolderWithPattern(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a[b]*?\c`)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"sallyport.yaml": "listeners: [{name: http, address: 127.0.0.1:0}]\napis: [one.yaml, 'o*.yaml']\n",
		"one.yaml":       "apis: [{name: a, version: 1, context: /a, security: [none], upstream: {urls: [http://127.0.0.1:9000]}}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(filepath.Join(dir, "sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.APIs) != 1 || c.APIs[0].File != filepath.Join(dir, "one.yaml") {
		t.Errorf("APIs %+v", c.APIs)
	}
}

// TestStatusAddress: it is found in a file that has other mistakes, names what isn't there, and is itself checked.
func TestStatusAddress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sallyport.yaml")
	for text, want := range map[string]string{
		"status: {address: 127.0.0.1:9091}\nnonsense: true":                        "127.0.0.1:9091",
		"store: {url: nowhere}\nstatus: {address: \"0.0.0.0:9091\"}":               "127.0.0.1:9091",
		"status: {address: \"[::]:9091\"}\napis: [nothing/*.yaml]":                 "127.0.0.1:9091",
		"status: {address: \":9091\"}\nlisteners: []":                              "127.0.0.1:9091",
		"status: {address: \"[::1]:9091\"}":                                        "[::1]:9091",
		"status: {address: \"localhost:9091\"}\nlisteners: [{address: \":9091\"}]": "localhost:9091",
		"listeners: []": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := config.StatusAddress(file); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for text, where := range map[string]string{
		"status: {address: 9091}":                 ":1:19: ",
		"status: {}":                              ":1:9: ",
		"status:":                                 ":1:",
		"status: {address: \":9091\", port: 1}":   ":1:28: ",
		"status: {address: \":9091\"}\nstatus: 1": ":2:1: ",
		"status: {address: \":9091\"":             ":1:",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := config.StatusAddress(file); got != "" || err == nil || !strings.HasPrefix(err.Error(), file+where) {
			t.Errorf("%s: %q, %v; want an error at %s", text, got, err, where)
		}
	}
	if _, err := config.StatusAddress("testdata/nowhere.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}
