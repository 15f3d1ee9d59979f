package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
)

// An apiFolder is a configuration whose APIs are in files.
type apiFolder struct {
	t   *testing.T
	dir string
}

const mainFile = `
listeners: [{name: http, address: 127.0.0.1:0}]
store: "sqlite::memory:"
apis: [apis/*.yaml]
`

func apiText(name string, more ...string) string {
	return fmt.Sprintf("apis:\n  - name: %s\n    version: 1.0.0\n    context: /%[1]s\n    security: [none]\n    upstream: {urls: [\"http://127.0.0.1:9\"]}\n%s",
		name, strings.Join(more, ""))
}

func newAPIFolder(t *testing.T) *apiFolder {
	t.Helper()
	f := &apiFolder{t, t.TempDir()}
	f.put("sallyport.yaml", mainFile)
	f.put("apis/a.yaml", apiText("a"))
	f.put("apis/b.yaml", apiText("b"))
	return f
}

func (f *apiFolder) at(name string) string        { return filepath.Join(f.dir, name) }
func (f *apiFolder) put(name string, text string) { f.t.Helper(); put(f.t, f.at(name), []byte(text)) }

func (f *apiFolder) load() *config.Config {
	f.t.Helper()
	c, err := config.LoadToServe(f.at("sallyport.yaml"))
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// apis are the names of those that are served, and of the files that are not good.
func names(c *config.Config) (apis, fenced string) {
	for _, api := range c.APIs {
		apis += api.API.Name + " "
	}
	for _, u := range c.Units {
		if u.Fenced() {
			fenced += filepath.Base(u.File) + " "
		}
	}
	return apis, fenced
}

// TestBadFileIsItsOwnTrouble: to a gateway that serves, an API file that is not good is a Unit with Problems, which are
// those that Load refuses all for, and the others are as if it were not there.
func TestBadFileIsItsOwnTrouble(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		says       string // part of its first problem
		claims     string
	}{
		{"no YAML", "apis: [", "bad.yaml:1:7: YAML", ""},
		{"empty", "", "bad.yaml:1:1: the file is empty", ""},
		{"no list", "apis: 7", "bad.yaml:1:7: apis is to be a list", ""},
		{"an unknown key", apiText("x", "    oops: 1\n"), "bad.yaml:7:5: unknown key", "x:1.0.0 /x"},
		{"one of two APIs", apiText("x") + strings.TrimPrefix(apiText("y", "    oops: 1\n"), "apis:\n"), "bad.yaml:12:5: unknown key", "x:1.0.0 /x y:1.0.0 /y"},
		{"no context", strings.Replace(apiText("x"), "    context: /x\n", "", 1), "bad.yaml:2:5: an API needs the key context", ""},
		{"one name twice", apiText("x") + strings.TrimPrefix(strings.Replace(apiText("x"), "context: /x", "context: /z", 1), "apis:\n"), "bad.yaml:7:11: a second API x:1.0.0", "x:1.0.0 /x x:1.0.0 /z"},
		{"one place twice", apiText("x") + strings.TrimPrefix(strings.Replace(apiText("y"), "context: /y", "context: /x", 1), "apis:\n"), "bad.yaml:7:5: y:1.0.0 and x:1.0.0", "x:1.0.0 /x y:1.0.0 /x"},
		{"no certificate", strings.Replace(apiText("x", "    clientCertificates: [{alias: a, certificate: nowhere.crt, tier: Gold}]\n"), "[none]", "[mutualssl]\n    listeners: [http]", 1), "bad.yaml:8:", "x:1.0.0 /x"},
		{"a certificate that is none", strings.Replace(apiText("x", "    clientCertificates: [{alias: a, certificate: ../sallyport.yaml, tier: Gold}]\n"), "[none]", "[mutualssl]\n    listeners: [http]", 1), "bad.yaml:8:26: certificate ", "x:1.0.0 /x"},
		{"a secret that is none", strings.Replace(apiText("x"), `"http://127.0.0.1:9"]`, `"https://127.0.0.1:9"], keyStore: {location: k.jks, password: "${env:SALLYPORT_TEST_UNSET}"}`, 1), "bad.yaml:6:", "x:1.0.0 /x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newAPIFolder(t)
			without := f.load()
			f.put("apis/bad.yaml", tt.text)
			c := f.load()
			if apis, fenced := names(c); apis != "a b " || fenced != "bad.yaml " {
				t.Fatalf("%s are served, and %s not", apis, fenced)
			}
			i := slices.IndexFunc(c.Units, control.Unit.Fenced)
			bad := c.Units[i]
			var claims []string
			for _, claim := range bad.Claims {
				claims = append(claims, claim.API.String()+" "+claim.Context)
			}
			if got := bad.Problems.Error(); !strings.HasPrefix(got, f.at("apis/"+tt.says)) || strings.Join(claims, " ") != tt.claims || len(bad.APIs)+len(bad.Clients) > 0 {
				t.Errorf("%s\nclaims %q", got, claims)
			}
			if len(c.Problems) != len(without.Problems) || len(c.Clients) > 0 || len(c.Warnings) != len(without.Warnings) {
				t.Errorf("something of it is left: %v %v %v", c.Problems, c.Clients, c.Warnings)
			}
			strict, err := config.Load(f.at("sallyport.yaml"))
			if err == nil {
				err = strict.Problems // what is not good, and not of the file itself
			}
			if !strings.Contains(err.Error(), bad.Problems[0].Error()) {
				t.Errorf("Load: %v\nwant %v", err, bad.Problems)
			}
			if again, err := c.Reload(); err != nil || again != c && again.Digest != c.Digest {
				t.Errorf("nothing has changed, and it is another one: %v", err)
			}
			f.put("apis/bad.yaml", apiText("x"))
			if mended, err := c.Reload(); err != nil || mended == c || mended.Digest == c.Digest {
				t.Errorf("it is mended, and nobody sees it: %v", err)
			} else if apis, fenced := names(mended); apis != "a b x " || fenced != "" {
				t.Errorf("mended: %s are served, and %s not", apis, fenced)
			}
		})
	}
}

// TestMainFileIsBadAsAWhole: what is wrong in sallyport.yaml, or keeps all files from being found, is an error.
func TestMainFileIsBadAsAWhole(t *testing.T) {
	for name, text := range map[string]string{
		"a key":           mainFile + "oops: 1\n",
		"an inline API":   strings.Replace(mainFile, "[apis/*.yaml]", "[apis/*.yaml, {name: x}]", 1),
		"no file matches": strings.Replace(mainFile, "apis/*", "nowhere/*", 1),
		"two inline APIs": strings.Replace(mainFile, "[apis/*.yaml]", "\n"+strings.TrimPrefix(apiText("x")+strings.TrimPrefix(apiText("x"), "apis:\n"), "apis:\n"), 1),
	} {
		f := newAPIFolder(t)
		f.put("sallyport.yaml", text)
		if c, err := config.LoadToServe(f.at("sallyport.yaml")); err == nil {
			t.Errorf("%s: %+v", name, c.Units)
		}
	}
}

// TestUnitDigest: what a file is made of tells whether it has changed, whatever stands elsewhere.
func TestUnitDigest(t *testing.T) {
	f := newAPIFolder(t)
	found, err := files()
	if err != nil {
		t.Fatal(err)
	}
	f.put("clients/a.crt", string(found[filepath.Join("clients", "gold.crt")]))
	f.put("secret", "hush")
	f.put("apis/a.yaml", strings.NewReplacer("[none]", "[mutualssl]\n    listeners: [http]", `"http://127.0.0.1:9"]`, `"https://127.0.0.1:9"], keyStore: {location: k.jks, password: "${file:../secret}"}`).
		Replace(apiText("a", "    clientCertificates: [{alias: a, certificate: ../clients/a.crt, tier: Gold}]\n")))
	digests := func() (a, b [32]byte) {
		t.Helper()
		c := f.load()
		if _, fenced := names(c); fenced != "" || len(c.Units) != 2 || len(c.Clients) != 1 || c.Clients[0].API != (certstore.API{Name: "a", Version: "1.0.0"}) {
			t.Fatalf("%+v", c.Units)
		}
		return c.Units[0].Digest, c.Units[1].Digest
	}
	a, b := digests()
	f.put("sallyport.yaml", mainFile+"drainTimeout: 7s\n")
	if again, other := digests(); again != a || other != b || a == b {
		t.Error("they are others, and nothing of them has changed")
	}
	for name, text := range map[string]string{
		"clients/a.crt": string(another(t)), "secret": "hush hush", "apis/a.yaml": string(read(t, f.at("apis/a.yaml"))) + "# \n",
	} {
		was, err := os.ReadFile(f.at(name))
		if err != nil {
			t.Fatal(err)
		}
		if text == string(was) {
			text += "\n"
		}
		f.put(name, text)
		if changed, other := digests(); changed == a || other != b {
			t.Errorf("a change of %s is not one of its file alone", name)
		}
		f.put(name, string(was))
	}
}
