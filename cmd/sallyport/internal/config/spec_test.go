package config_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/cmd/sallyport/internal/quickstart"
	"sallyport/gateway/control"
)

// files are a quickstart's, by name: its keys take a moment to make, so all tests share them.
var files = sync.OnceValues(func() (map[string][]byte, error) {
	above, err := os.MkdirTemp("", "spec-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(above)
	dir := filepath.Join(above, "qs")
	if _, err := quickstart.Make(context.Background(), quickstart.Options{Dir: dir}, register); err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	err = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil {
			found[name], err = os.ReadFile(path)
		}
		return err
	})
	return found, err
})

func register(ctx context.Context, url string, clients []certstore.Client) (err error) {
	store, err := certstore.Open(ctx, url, certstore.Options{Now: func() time.Time { return time.Unix(0, 0) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	for _, c := range clients {
		if err := store.Add(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// A folder is a configuration of one test.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder {
	t.Helper()
	found, err := files()
	if err != nil {
		t.Fatal(err)
	}
	f := folder{t, t.TempDir()}
	for name, data := range found {
		path := filepath.Join(f.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// edit replaces each old text of sallyport.yaml by the new one: old, new, old, new.
func (f folder) edit(edits ...string) folder {
	f.t.Helper()
	path := filepath.Join(f.dir, "sallyport.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			f.t.Fatalf("sallyport.yaml does not contain %q", edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return f
}

func (f folder) config() *config.Config {
	f.t.Helper()
	cfg, err := config.Load(filepath.Join(f.dir, "sallyport.yaml"))
	if err != nil {
		f.t.Fatal(err)
	}
	return cfg
}

func (f folder) build() *control.Assembly {
	f.t.Helper()
	a, err := control.Build(f.t.Context(), &f.config().Spec)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { a.Close() })
	return a
}

func TestSpecIsBuilt(t *testing.T) {
	a := newFolder(t).build()
	var apis []string
	for _, r := range a.Routes.Routes() {
		apis = append(apis, r.API.String())
	}
	if got, want := strings.Join(apis, " "), "orders:1.0.0 payments:1.0.0 catalog:1.0.0 hello:1.0.0"; got != want {
		t.Errorf("APIs %s, want %s", got, want)
	}
	var listeners []string
	for _, l := range a.Listeners() {
		listeners = append(listeners, l.Name)
		if l.Profiles == nil || (l.Door != nil) != (l.Name == "https-lb") || l.DoorByCertificate != (l.Name == "https-lb") {
			t.Errorf("listener %+v", l)
		}
	}
	if got := strings.Join(listeners, " "); got != "https https-lb" {
		t.Errorf("listeners %s", got)
	}
	if len(a.Clients.All()) != 10 || len(a.Warnings) != 0 {
		t.Errorf("%d clients, warnings %v", len(a.Clients.All()), a.Warnings)
	}
}

// Build's problems have a place in a file of the user's, and come all at once.
func TestProblemsOfASpec(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edits []string
		want  []string // parts of one problem each
	}{
		{"a key store that is not there", []string{"stores/gateway.jks", "stores/none.jks"}, []string{"none.jks"}},
		{
			"several things",
			[]string{"jwks: jwks.json", "jwks: none.json", "filePath: listenerprofiles.xml", "filePath: none.xml", "sqlite:sallyport.db", "sqlite:none/sallyport.db"},
			[]string{"none.json", "none.xml", ":8: store: "},
		},
		{
			"a certificate that is none",
			[]string{"security: [mutualssl]\n", "security: [mutualssl]\n    clientCertificates: [{alias: a, certificate: jwks.json, tier: Gold}]\n", "jwks: jwks.json", "jwks: none.json"},
			[]string{"certificate is neither PEM nor DER", "none.json"},
		},
		{"a store in no folder", []string{"sqlite:sallyport.db", "sqlite:none/sallyport.db"}, []string{":8: store: "}},
		{"a store that is none", []string{"sqlite:sallyport.db", "sqlite:jwks.json"}, []string{":8: store: "}},
		{"a trust store of load balancers that is none", []string{"stores/lb-truststore.jks", "jwks.json"}, []string{"sallyport.yaml:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := control.Build(t.Context(), &newFolder(t).edit(tt.edits...).config().Spec)
			if err == nil {
				a.Close()
				t.Fatal("it was built")
			}
			var problems control.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("an error without a place: %v", err)
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(problems, func(p control.Problem) bool { return strings.Contains(p.Error(), want) }) {
					t.Errorf("no problem with %q:\n%v", want, err)
				}
			}
			for _, p := range problems {
				if strings.Contains(p.Error(), "\n") || p.Line > 0 && p.Column == 0 {
					t.Errorf("a problem that is no line of file:line:column: %q", p)
				}
			}
		})
	}
}

// A store that does not exist yet is an empty one to those who only look, and nothing of it is made.
func TestBuildOnlyLooks(t *testing.T) {
	f := newFolder(t).edit("sqlite:sallyport.db", "sqlite:other.db")
	if n := len(f.build().Clients.All()); n != 0 {
		t.Errorf("%d clients", n)
	}
	if _, err := os.Stat(filepath.Join(f.dir, "other.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store was made: %v", err)
	}
}

func TestClientsOfAnUnknownTier(t *testing.T) {
	a := newFolder(t).edit("name: Trial,", "name: Attempt,").build()
	if len(a.Warnings) != 4 {
		t.Fatalf("warnings %v", a.Warnings)
	}
	for _, w := range a.Warnings {
		if !strings.Contains(w.Error(), `tier "Trial" does not exist`) {
			t.Error(w)
		}
	}
}

func TestFileClients(t *testing.T) {
	f := newFolder(t).edit("security: [mutualssl]\n", `security: [mutualssl]
    clientCertificates:
      - {alias: newcomer, certificate: clients/unregistered.crt, tier: Silver, keyType: SANDBOX, scopes: ["*"]}
`, `upstream: {urls: ["http://127.0.0.1:9000"]}

  # A token`, `upstream: {urls: ["http://127.0.0.1:9000"], sandboxUrls: ["http://127.0.0.1:9000"]}

  # A token`)
	clients, err := f.config().FileClients()
	if err != nil || len(clients) != 1 {
		t.Fatalf("%d clients, %v", len(clients), err)
	}
	c := clients[0]
	if c.API.String() != "payments:1.0.0" || c.Alias != "newcomer" || c.KeyType != certstore.Sandbox || c.Tier != "Silver" || len(c.Scopes) != 1 || !strings.Contains(c.Source, "sallyport.yaml:") {
		t.Errorf("%+v", c)
	}
	if n := len(f.build().Clients.All()); n != 11 {
		t.Errorf("%d clients in all", n)
	}
}

func TestAllTiers(t *testing.T) {
	tiers := newFolder(t).config().Tiers
	for _, name := range []string{"Unlimited", "Gold", "Silver", "Bronze", "Unauthenticated", "Trial"} {
		if _, ok := tiers.Find(name); !ok {
			t.Errorf("no tier %s", name)
		}
	}
	if _, ok := tiers.Find("Golden"); ok {
		t.Error("there is a tier Golden")
	}
}

// TestExamine: what a certificate would be good for, once it is registered. Registration vouches for the self-signed.
func TestExamine(t *testing.T) {
	f := newFolder(t)
	a := f.build()
	orders := certstore.API{Name: "orders", Version: "1.0.0"}
	for name, want := range map[string]bool{"gold": true, "unregistered": true, "rogue": true, "loadbalancer": true, "expired": false} {
		data, err := os.ReadFile(filepath.Join(f.dir, "clients", name+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := certstore.ParseCertificate(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Examine(certstore.Client{API: orders, Certificate: certificate}, time.Now()); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Reload returns the very same Config until a file that it was read from, or what a pattern matches, has changed.
func TestReload(t *testing.T) {
	f := newFolder(t)
	cfg := f.config()
	if same, err := cfg.Reload(); same != cfg || err != nil {
		t.Errorf("another one, %v", err)
	}
	f.edit("drainTimeout: 30s", "drainTimeout: 10s")
	next, err := cfg.Reload()
	if err != nil || next == cfg || next.DrainTimeout != 10*time.Second {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "secrets", "gateway.password"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := next.Reload(); err != nil || again == next || again.Digest == next.Digest {
		t.Errorf("%v", err)
	}
}
