package config_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/internal/fileset"
)

// filled makes files in a new folder.
func filled(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		put(t, filepath.Join(dir, name), []byte(content))
	}
	return dir
}

// TestLoadWith reads files in the stead of those in gateway.config.folder, with everything that counts from their places.
func TestLoadWith(t *testing.T) {
	const api = "apis: [{name: %, version: 1, context: /%, security: [none], upstream: {urls: ['https://127.0.0.1:9'], caFile: ca.pem,\n" +
		" keyStore: {location: ../own.p12, password: '${file:../secret}'}}}]\n"
	dir := filled(t, map[string]string{
		"g*w/sallyport.yaml": `
gateway: {config: {folder: cluster}}
listeners:
- {name: https, address: "127.0.0.1:0", keyStore: {location: cluster/a.jks}, trustStore: {location: clusters.jks},
   dynamicSSLProfiles: {filePath: ./cluster/../cluster/p.xml}}
apis: [cluster/apis/*.yaml, own.yaml]
`,
		"g*w/own.yaml":              strings.ReplaceAll(api, "%", "own"),
		"g*w/secret":                "password",
		"secret":                    "that of own.yaml",
		"g*w/cluster/apis/one.yaml": strings.ReplaceAll(strings.ReplaceAll(api, "%", "one"), "../", "../../"),
	})
	stead := filled(t, map[string]string{"[x]/apis/two.yaml": strings.ReplaceAll(strings.ReplaceAll(api, "%", "two"), "../", "../../")})
	stead = filepath.Join(stead, "[x]")
	file := filepath.Join(dir, "g*w", "sallyport.yaml")
	at := func(parts ...string) string { return filepath.Join(append([]string{dir, "g*w"}, parts...)...) }

	for _, c := range []struct {
		name, folder, api string
		load              func() (*config.Config, error)
	}{
		{"as it is", at("cluster"), "one", func() (*config.Config, error) { return config.Load(file) }},
		{"with others", stead, "two", func() (*config.Config, error) { return config.LoadWith(file, stead) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := c.load()
			if err != nil {
				t.Fatal(err)
			}
			in := func(name string) string { return filepath.Join(c.folder, name) }
			l, first, own := cfg.Listeners[0].TLS, cfg.APIs[0], cfg.APIs[1]
			got := []string{
				l.Own.KeyStore.Location, l.Own.TrustStore.Location, l.FilePath, first.API.Name, first.CAFile, first.File, first.KeyStore.Location,
				first.KeyStore.Password, own.CAFile, own.KeyStore.Location, own.KeyStore.Password,
			}
			want := []string{
				in("a.jks"), at("clusters.jks"), in("p.xml"), c.api, in("apis/ca.pem"), in("apis/" + c.api + ".yaml"), at("own.p12"),
				"password", at("ca.pem"), filepath.Join(dir, "own.p12"), "that of own.yaml",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}

	good := string(read(t, file))
	for baseDir, ok := range map[string]bool{".": false, "..": false, "cluster": true, "cluster/stores": true, "elsewhere": true} {
		put(t, file, []byte(strings.Replace(good, "p.xml}", "p.xml, baseDir: "+baseDir+"}", 1)))
		if _, err := config.Load(file); err != nil {
			t.Error(err)
		}
		_, err := config.LoadWith(file, stead)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "that p.xml names by this baseDir can't be checked") {
			t.Errorf("baseDir %s: %v", baseDir, err)
		}
	}
	put(t, file, []byte(good))
	put(t, filepath.Join(stead, "apis/two.yaml"), []byte("apis:\n- name: two\n  typo: 1\n"))
	_, err := config.LoadWith(file, stead)
	if want := filepath.Join(stead, "apis/two.yaml") + ":3:3: unknown key"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %s", err, want)
	}
}

// TestRelease reads which version the files of the folder are, and another version is another configuration.
func TestRelease(t *testing.T) {
	dir := filled(t, map[string]string{
		"sallyport.yaml": "gateway: {config: {folder: cluster}}\nlisteners: [{name: http, address: '127.0.0.1:0'}]\napis: [cluster/a.yaml]\n",
	})
	file := filepath.Join(dir, "sallyport.yaml")
	set, err := fileset.NewSet([]fileset.File{{Path: "a.yaml", Content: []byte("apis: []")}})
	if err != nil {
		t.Fatal(err)
	}
	var last *config.Config
	for n := 1; n <= 2; n++ {
		if err := fileset.Folder(filepath.Join(dir, "cluster")).Put(fileset.Version{Number: n, Digest: "d"}, set); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(file)
		if last != nil {
			c, err = last.Reload()
		}
		if err != nil || c.Release != n || last != nil && c.Digest == last.Digest {
			t.Fatalf("version %d: %+v, %v", n, c, err)
		}
		last = c
	}
}

func TestLoadNode(t *testing.T) {
	dir := filled(t, map[string]string{
		"sallyport.yaml": "store: sqlite:a.db\ngateway: {name: gw1, config: {folder: cluster, keyFile: key}}\nlisteners: whatever\nunknown: 1\n",
		"none.yaml":      "listeners: []\n",
		"bad.yaml":       "gateway: {config: {folders: cluster}}\n",
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	n, err := config.LoadNode(at("sallyport.yaml"))
	if want := (control.Cluster{Node: "gw1", Folder: at("cluster"), KeyFile: at("key")}); err != nil || n.Cluster != want ||
		n.Store.Value.URL != "sqlite:"+at("a.db") || n.Place.Line != 2 {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err := config.LoadNode(at("none.yaml")); err != nil || n.Cluster != (control.Cluster{}) {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := config.LoadNode(at("bad.yaml")); !errors.As(err, new(control.Problems)) || !strings.Contains(err.Error(), "did you mean folder?") {
		t.Error(err)
	}
}

// TestLabels loads the APIs of gateways with different labels.
func TestLabels(t *testing.T) {
	const apis = `
listeners: [{name: http, address: "127.0.0.1:0"}]
apis:
- {name: all, version: 1, context: /all, security: [none], upstream: {urls: ["http://127.0.0.1:9"]}}
- {name: eu, version: 1, context: /same, labels: [eu, test], security: [none], upstream: {urls: ["http://127.0.0.1:9"]}}
- {name: us, version: 1, context: /same, labels: [us], listeners: [us-only], security: [none], upstream: {urls: ["http://127.0.0.1:9"]}}
`
	for labels, want := range map[string][]string{
		"[eu]":       {"all", "eu", "-us"},
		"[test, xx]": {"all", "eu", "-us"},
		"[xx]":       {"all", "-eu", "-us"},
	} {
		c, err := config.Load(write(t, "sallyport.yaml", "gateway: {labels: "+labels+"}"+apis))
		if err != nil {
			t.Errorf("%s: %v", labels, err)
			continue
		}
		var got []string
		for _, api := range c.APIs {
			got = append(got, api.API.Name)
		}
		for _, api := range c.LeftOut {
			got = append(got, "-"+api.API.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", labels, got, want)
		}
	}
	_, err := config.Load(write(t, "sallyport.yaml", apis))
	if err == nil || !strings.Contains(err.Error(), `there is no listener "us-only"`) {
		t.Errorf("without labels: %v", err)
	}
}
