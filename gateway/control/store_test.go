package control

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testdb"
	"sallyport/policy/certrule"
)

// storeBed is a bed with a store that others change, and its clients by alias.
func storeBed(t *testing.T) (b *bed, other *certstore.Store, aliases func() string) {
	t.Helper()
	url := "sqlite:" + filepath.Join(t.TempDir(), "store.db")
	other, err := certstore.Open(t.Context(), url, certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	b = startBed(t, func(b *bed, _ *Options) {
		s := b.spec.Load()
		s.Store.Value.URL, s.Period = url, 50*time.Millisecond
		s.Clients = []certstore.Client{client("file", b.client)}
	})
	return b, other, func() string {
		var list []string
		for _, c := range b.InForce().Clients.All() {
			list = append(list, c.Alias)
		}
		return strings.Join(list, " ")
	}
}

var orders = certstore.API{Name: "orders", Version: "1.0.0"}

func client(alias string, p *party) certstore.Client {
	return certstore.Client{API: orders, Alias: alias, KeyType: certstore.Production, Tier: "Gold", Certificate: p.cert, Source: "apis.yaml:3:5"}
}

// A registration is in force soon after it was made elsewhere, and nothing but clients is swapped for it. One that
// contradicts a file's takes both away until one of them is removed.
func TestRegistrations(t *testing.T) {
	b, other, aliases := storeBed(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(other.Add(t.Context(), client("acme", b.second)))
	eventually(t, "a registration is in force", func() bool { return aliases() == "file acme" })
	for _, p := range b.swaps() {
		if p.Listeners != nil || p.Routes != nil {
			t.Errorf("%+v is swapped for a registration", p)
		}
	}
	must(other.Add(t.Context(), client("again", b.client)))
	eventually(t, "a contradiction is told", func() bool { return b.state(store).Broken != nil })
	if got := aliases(); got != "acme" {
		t.Errorf("%q is admitted", got)
	}
	must(other.Remove(t.Context(), orders, certstore.Production, "again"))
	eventually(t, "both are as they were", func() bool { return aliases() == "file acme" && b.state(store).Broken == nil })
	if b.log.count("registered certificates contradict each other") != 1 {
		t.Error("told more than once")
	}
	must(other.Add(t.Context(), client("again", b.client)))
	eventually(t, "a contradiction is told", func() bool { return b.state(store).Broken != nil })
	b.change(func(s *Spec) { s.Clients = nil })
	eventually(t, "a change of the file ends it too", func() bool { return aliases() == "acme again" && b.state(store).Broken == nil })
	if err := b.Reload(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestChangesAreToldOnce: whatever the database has gone through, each registration that came, changed or went is one
// line, with who did it.
func TestChangesAreToldOnce(t *testing.T) {
	b, other, aliases := storeBed(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	told := func(parts ...string) (n int) {
		b.log.mu.Lock()
		defer b.log.mu.Unlock()
		for line := range strings.Lines(b.log.text.String()) {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
				n++
			}
		}
		return n
	}
	print := func(p *party) string {
		sum := certstore.Fingerprint(p.cert)
		return hex.EncodeToString(sum[:])
	}
	added := []string{`msg="a client certificate was added"`, "api=orders:1.0.0", "alias=acme", "key_type=PRODUCTION", "tier=Gold", "fingerprint=" + print(b.second), `by="the command line"`}
	must(other.Add(t.Context(), client("acme", b.second)))
	eventually(t, "a registration is in force", func() bool { return aliases() == "file acme" })
	must(other.Add(t.Context(), client("second", b.server)))
	must(other.Remove(t.Context(), orders, certstore.Production, "second"))
	must(other.Add(t.Context(), client("third", b.ca))) // the others have been read by now
	eventually(t, "all is in force", func() bool { return aliases() == "file acme third" })
	if n := told(added...); n != 1 {
		t.Errorf("told %d times that one was added:\n%s", n, b.log.text.String())
	}
	if came, went := told("was added", "alias=second"), told("was removed", "alias=second"); came > 1 || came != went {
		t.Errorf("one that came and went is told %d and %d times", came, went)
	}
	if n := told("alias=file"); n != 0 {
		t.Errorf("what was there at the start is told %d times", n)
	}
	b.change(func(s *Spec) {
		s.Clients = []certstore.Client{client("file", b.other)}
		s.Clients[0].Tier = "Bronze"
	})
	must(other.Remove(t.Context(), orders, certstore.Production, "acme"))
	eventually(t, "the file's is another", func() bool { return told("was changed", "alias=file") == 1 && told("was removed", "alias=acme") == 1 })
	if told("was changed", "fingerprint="+print(b.other), "before.fingerprint="+print(b.client), "tier=Bronze", "before.tier=Gold", `by="the file apis.yaml:3:5"`) != 1 {
		t.Errorf("the change is not told whole:\n%s", b.log.text.String())
	}
	match, err := certrule.Match{DNS: []string{"*.partner.test"}}.Compile()
	must(err)
	must(other.Change(t.Context(), orders, certstore.Production, "third", certstore.Change{Match: match}))
	eventually(t, "a CA's match is told of", func() bool { return told("was changed", "alias=third", `match="{\"dns\":[\"*.partner.test\"]}"`) == 1 })
	counts := told("registered certificates")
	must(b.Reload(t.Context()))
	if n := told("registered certificates"); n != counts+1 {
		t.Errorf("a reload that was asked for tells the number %d times", n-counts)
	}
	if n := told("a client certificate was"); n != told("a client certificate was", "alias=second")+5 {
		t.Errorf("%d changes are told, of which 5 and those of second were made", n)
	}
}

// A store that cannot be read is told once and tried again each period; what was read last serves on.
func TestStoreThatCannotBeRead(t *testing.T) {
	b, other, aliases := storeBed(t)
	if err := errors.Join(other.Add(t.Context(), client("acme", b.second)), other.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a registration is in force", func() bool { return aliases() == "file acme" })
	path := strings.TrimPrefix(b.spec.Load().Store.Value.URL, "sqlite:")
	copied := filepath.Join(t.TempDir(), "copy.db")
	fresh, err := certstore.Open(t.Context(), "sqlite:"+copied, certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fresh.Add(t.Context(), client("acme", b.second)), fresh.Close()); err != nil { // which leaves one whole file
		t.Fatal(err)
	}
	good, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) {
		t.Helper()
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	put(bytes.Repeat([]byte("no database "), 1000))
	eventually(t, "the store is called broken", func() bool { return b.state(store).Broken != nil })
	for range 3 {
		if err := b.Reload(t.Context()); err == nil {
			t.Error("nobody says that it is broken")
		}
	}
	if got := aliases(); got != "file acme" {
		t.Errorf("%q serve", got)
	}
	put(good)
	eventually(t, "the store is called good", func() bool { return b.state(store).Broken == nil })
}

// TestStrangeRegistrations: a registration for what is no API is told with the place where it stands.
func TestStrangeRegistrations(t *testing.T) {
	b, other, aliases := storeBed(t)
	for _, c := range []certstore.Client{client("acme", b.second), client("test", issue(t, "test", nil))} {
		if err := other.Add(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the registrations are in force", func() bool { return aliases() == "file acme test" })
	got := fmt.Sprint(b.InForce().Prospects(time.Now()))
	const want = "[certificates are registered for orders:1.0.0 (apis.yaml:3:5, store), which is no API here: they admit nobody (3)]"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestStoreTells: a change in PostgreSQL is in force though nobody asks for changes, also after the connection that heard of
// them has ended.
func TestStoreTells(t *testing.T) {
	server := testdb.Postgres(t, testdb.Options{})
	d := server.New(t)
	source := certstore.Source{URL: d.URL, Password: d.Password}
	other, err := source.Open(t.Context(), certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	b := startBed(t, func(b *bed, o *Options) {
		s := b.spec.Load()
		s.Store.Value, s.Period, o.storeInterval = source, time.Hour, time.Hour
	})
	for i := range 3 {
		if err := other.Add(t.Context(), client(fmt.Sprint("added", i), issue(t, "added", nil))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a registration is in force", func() bool { return len(b.InForce().Clients.All()) == i+1 })
		if i == 1 {
			server.DropConnections(t)
		}
	}
}

// TestStoreOnAServer changes registrations in a database on a server, which no file event tells of, and takes the server
// away. The periods are too long to help.
func TestStoreOnAServer(t *testing.T) {
	for name, start := range map[string]func(testing.TB, testdb.Options) *testdb.Server{
		"PostgreSQL": testdb.Postgres, "MariaDB": testdb.MariaDB,
	} {
		t.Run(name, func(t *testing.T) {
			server := start(t, testdb.Options{})
			d := server.New(t)
			source := certstore.Source{URL: d.URL, Password: d.Password}
			other, err := source.Open(t.Context(), certstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			b := startBed(t, func(b *bed, _ *Options) {
				s := b.spec.Load()
				s.Store.Value, s.Period = source, time.Hour
			})
			inForce := func(want int) func() bool {
				return func() bool { return len(b.InForce().Clients.All()) == want }
			}
			if err := other.Add(t.Context(), client("acme", b.client)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a registration is in force", inForce(1))
			if err := other.Remove(t.Context(), orders, "", "acme"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a removal is in force", inForce(0))
			if err := other.Add(t.Context(), client("acme", b.client)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "another registration is in force", inForce(1))

			server.Kill()
			eventually(t, "the store is called broken", func() bool { return b.state(store).Broken != nil })
			if !errors.Is(b.state(store).Broken, certstore.ErrUnavailable) || !inForce(1)() {
				t.Errorf("%v; %d serve", b.state(store).Broken, len(b.InForce().Clients.All()))
			}
			spec := Spec{Store: Placed[certstore.Source]{Place{File: "sallyport.yaml", Line: 7, Column: 8}, source, nil}}
			for what, open := range map[string]func() error{
				"validate": func() error { _, err := Build(t.Context(), &spec); return err },
				"a start": func() error {
					_, err := Open(t.Context(), Options{Load: func() (*Spec, error) { return &spec, nil }})
					return err
				},
			} {
				var problems Problems
				if err := open(); !errors.As(err, &problems) || !problems.Passing() || !strings.HasPrefix(err.Error(), "sallyport.yaml:7:8: store: ") {
					t.Errorf("%s without the server: %v", what, err)
				}
			}
			server.Restart()
			eventually(t, "the store is called good", func() bool { return b.state(store).Broken == nil })
			if err := other.Remove(t.Context(), orders, "", "acme"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "changes are followed again", inForce(0))
		})
	}
}

// TestStoreOfWSO2OnAServer follows a database that nobody marks, at the period.
func TestStoreOfWSO2OnAServer(t *testing.T) {
	server := testdb.Postgres(t, testdb.Options{})
	d := server.New(t)
	raw := server.Open(t, d)
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := raw.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"api", "postgres"} {
		statements, err := os.ReadFile("../../certstore/testdata/wso2/2.6/" + file + ".sql")
		if err != nil {
			t.Fatal(err)
		}
		for statement := range strings.SplitSeq(string(statements), ";\n") {
			exec(statement)
		}
	}
	exec(`INSERT INTO AM_API (API_ID, API_NAME, API_VERSION) VALUES (1, $1, $2)`, orders.Name, orders.Version)
	b := startBed(t, func(b *bed, _ *Options) {
		s := b.spec.Load()
		s.Store.Value, s.Period = certstore.Source{URL: d.URL, Password: d.Password}, 50*time.Millisecond
	})
	inForce := func(want int) func() bool {
		return func() bool { return len(b.InForce().Clients.All()) == want }
	}
	register := func(tenant int, alias string) {
		t.Helper()
		exec(`INSERT INTO AM_API_CLIENT_CERTIFICATE (TENANT_ID, ALIAS, API_ID, CERTIFICATE, TIER_NAME) VALUES ($1, $2, 1, $3, 'Gold')`,
			tenant, alias, b.client.cert.Raw)
	}
	register(-1234, "acme")
	eventually(t, "a registration is in force", inForce(1))
	register(3, "acme")
	const told = "store: tenant 3 has registrations, which are not served: 1"
	eventually(t, "another tenant's is told", func() bool { return b.log.count(told) == 1 })
	exec(`UPDATE AM_API_CLIENT_CERTIFICATE SET REMOVED = TRUE WHERE TENANT_ID = -1234`)
	eventually(t, "a removal is in force", inForce(0))
	if n := b.log.count(told); n != 1 {
		t.Errorf("another tenant's is told %d times", n)
	}

	server.Kill()
	eventually(t, "the store is called broken", func() bool { return b.state(store).Broken != nil })
	server.Restart()
	eventually(t, "the store is called good", func() bool { return b.state(store).Broken == nil })
	if n := b.log.count("quotas of past periods stay"); n != 0 {
		t.Errorf("quotas are to be removed %d times", n)
	}
}
