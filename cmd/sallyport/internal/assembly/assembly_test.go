package assembly_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/assembly"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/cmd/sallyport/internal/quickstart"
	"sallyport/policy/ratelimit"
)

// files are a quickstart's, by name: its keys take a moment to make, so all tests share them.
var files = sync.OnceValues(func() (map[string][]byte, error) {
	above, err := os.MkdirTemp("", "assembly-")
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

func register(ctx context.Context, url string, clients []quickstart.Registration) (err error) {
	store, err := certstore.Open(ctx, url, certstore.Options{Now: func() time.Time { return time.Unix(0, 0) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	for _, c := range clients {
		api, err := certstore.ParseAPI(c.API)
		if err != nil {
			return err
		}
		certificate, err := certstore.ParseCertificate(c.CertificatePEM)
		if err != nil {
			return err
		}
		client := certstore.Client{API: api, Alias: c.Alias, KeyType: certstore.Production, Tier: c.Tier, Certificate: certificate}
		if err := store.Add(ctx, client); err != nil {
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

func (f folder) load(opts assembly.Options) *assembly.Assembly {
	f.t.Helper()
	a, err := assembly.Load(f.t.Context(), f.config(), opts)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { a.Close() })
	return a
}

func TestLoad(t *testing.T) {
	a := newFolder(t).load(assembly.Options{})
	var apis []string
	for _, r := range a.Routes.Routes() {
		apis = append(apis, r.API.String())
	}
	if got, want := strings.Join(apis, " "), "orders:1.0.0 payments:1.0.0 catalog:1.0.0 hello:1.0.0"; got != want {
		t.Errorf("APIs %s, want %s", got, want)
	}
	var listeners []string
	for _, l := range a.Listeners(nil) {
		listeners = append(listeners, l.Name)
		if l.Profiles == nil || l.Profiles != a.Set(l.Name) {
			t.Errorf("listener %s has not the profiles that were loaded", l.Name)
		}
	}
	if got := strings.Join(listeners, " "); got != "https https-lb" {
		t.Errorf("listeners %s", got)
	}
	report, err := a.Clients(t.Context())
	if err != nil || len(report.Clients.All()) != 10 || len(report.Warnings) != 0 {
		t.Errorf("%d clients, warnings %v, %v", len(report.Clients.All()), report.Warnings, err)
	}
	for _, api := range apis {
		if !a.Holds(ratelimit.Key{API: api, Level: ratelimit.LevelAPI}) {
			t.Errorf("the limit of %s is not in use", api)
		}
	}
	if a.Holds(ratelimit.Key{API: "extra:1.0.0", Level: ratelimit.LevelAPI}) {
		t.Error("the limit of an API that is not there is in use")
	}
}

// Load's problems have a place in a file of the user's, and come all at once.
func TestLoadProblems(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edits []string
		want  []string // parts of one problem each
	}{
		{"a key store that is not there", []string{"stores/gateway.jks", "stores/none.jks"}, []string{"none.jks"}},
		{
			"two things",
			[]string{"jwks: jwks.json", "jwks: none.json", "filePath: listenerprofiles.xml", "filePath: none.xml"},
			[]string{"none.json", "none.xml"},
		},
		{
			"a certificate that is none",
			[]string{"security: [mutualssl]\n", "security: [mutualssl]\n    clientCertificates: [{alias: a, certificate: jwks.json, tier: Gold}]\n"},
			[]string{"certificate is neither PEM nor DER"},
		},
		{"a store in no folder", []string{"sqlite:sallyport.db", "sqlite:none/sallyport.db"}, []string{":8: store: "}},
		{"a store that is none", []string{"sqlite:sallyport.db", "sqlite:jwks.json"}, []string{":8: store: "}},
		{"a trust store of load balancers that is none", []string{"stores/lb-truststore.jks", "jwks.json"}, []string{"sallyport.yaml:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFolder(t).edit(tt.edits...)
			for _, readOnly := range []bool{false, true} {
				a, err := assembly.Load(t.Context(), f.config(), assembly.Options{ReadOnly: readOnly})
				if err == nil {
					a.Close()
					t.Fatal("it was loaded")
				}
				var problems config.Errors
				if !errors.As(err, &problems) {
					t.Fatalf("an error without a place: %v", err)
				}
				for _, want := range tt.want {
					found := 0
					for _, p := range problems {
						if strings.Contains(p.Error(), want) {
							found++
						}
						if strings.Contains(p.Error(), "\n") || p.Line > 0 && p.Column == 0 {
							t.Errorf("a problem that is no line of file:line:column: %q", p)
						}
					}
					if found == 0 {
						t.Errorf("no problem with %q:\n%v", want, err)
					}
				}
			}
		})
	}
}

// What did not change is taken over from the last Assembly; what did is made anew, and nothing of the last is closed.
func TestLoadTakesOver(t *testing.T) {
	f := newFolder(t)
	limits := ratelimit.NewLocal(nil)
	last := f.load(assembly.Options{Limits: limits})
	if _, err := last.Clients(t.Context()); err != nil {
		t.Fatal(err)
	}
	counted := limits.Len()

	f.edit("drainTimeout: 30s", "drainTimeout: 10s")
	next := f.load(assembly.Options{Limits: limits, Last: last})
	if next.Store != last.Store || next.Tokens != last.Tokens || next.Set("https") != last.Set("https") {
		t.Error("something was made anew, and nothing of it had changed")
	}
	if _, err := next.Clients(t.Context()); err != nil {
		t.Fatal(err)
	}
	if limits.Len() != counted {
		t.Errorf("%d limits became %d", counted, limits.Len())
	}

	f.edit("httpsProtocols: [TLSv1.2, TLSv1.3]", "httpsProtocols: [TLSv1.3]", "store: sqlite:sallyport.db", "store: sqlite:other.db", "    type: default\n", "    type: custom\n")
	other := f.load(assembly.Options{Limits: limits, Last: last})
	if other.Store == last.Store || other.Tokens == last.Tokens || other.Set("https") == last.Set("https") {
		t.Error("something was taken over that has changed")
	}
	if other.Set("https-lb") != last.Set("https-lb") {
		t.Error("the other listener's profiles were made anew")
	}

	f.edit("jwks: jwks.json", "jwks: none.json")
	if _, err := assembly.Load(t.Context(), f.config(), assembly.Options{Last: other}); err == nil {
		t.Error("a key manager without keys was loaded")
	}
	for _, a := range []*assembly.Assembly{last, other} {
		if _, err := a.Clients(t.Context()); err != nil {
			t.Errorf("what serves was closed: %v", err)
		}
	}
}

// A store that does not exist yet is an empty one to those who only look, and nothing of it is made.
func TestReadOnly(t *testing.T) {
	f := newFolder(t).edit("sqlite:sallyport.db", "sqlite:other.db")
	a := f.load(assembly.Options{ReadOnly: true})
	report, err := a.Clients(t.Context())
	if err != nil || len(report.Clients.All()) != 0 {
		t.Errorf("%d clients, %v", len(report.Clients.All()), err)
	}
	if _, err := os.Stat(filepath.Join(f.dir, "other.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store was made: %v", err)
	}
	if a = f.load(assembly.Options{}); a.Store == nil {
		t.Error("the store was not made")
	}
}

func TestClientsOfAnUnknownTier(t *testing.T) {
	a := newFolder(t).edit("name: Trial,", "name: Attempt,").load(assembly.Options{})
	report, err := a.Clients(t.Context())
	if err != nil || len(report.Warnings) != 4 {
		t.Fatalf("warnings %v, %v", report.Warnings, err)
	}
	for _, w := range report.Warnings {
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
	clients, err := assembly.FileClients(f.config())
	if err != nil || len(clients) != 1 {
		t.Fatalf("%d clients, %v", len(clients), err)
	}
	c := clients[0]
	if c.API.String() != "payments:1.0.0" || c.Alias != "newcomer" || c.KeyType != certstore.Sandbox || c.Tier != "Silver" || len(c.Scopes) != 1 || !strings.Contains(c.Source, "sallyport.yaml:") {
		t.Errorf("%+v", c)
	}
	report, err := f.load(assembly.Options{}).Clients(t.Context())
	if err != nil || len(report.Clients.All()) != 11 {
		t.Errorf("%d clients in all, %v", len(report.Clients.All()), err)
	}
}

func TestTiers(t *testing.T) {
	tiers, err := assembly.Tiers(newFolder(t).config())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Unlimited", "Gold", "Silver", "Bronze", "Unauthenticated", "Trial"} {
		if _, ok := tiers.Find(name); !ok {
			t.Errorf("no tier %s", name)
		}
	}
	if _, ok := tiers.Find("Golden"); ok {
		t.Error("there is a tier Golden")
	}
}

func TestTrusted(t *testing.T) {
	f := newFolder(t)
	cfg := f.config()
	for name, want := range map[string]bool{"gold": true, "unregistered": true, "rogue": false, "loadbalancer": false, "expired": false} {
		data, err := os.ReadFile(filepath.Join(f.dir, "clients", name+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := certstore.ParseCertificate(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := assembly.Trusted(cfg, certificate); got != want {
			t.Errorf("%s: trusted %t", name, got)
		}
	}
}
