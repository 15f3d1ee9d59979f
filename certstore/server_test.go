package certstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
	"sallyport/internal/testdb"
	"sallyport/internal/testpki"
)

func TestPostgres(t *testing.T) {
	t.Parallel() // with the other: they wait for their servers
	certstoretest.Run(t, certstoretest.Database{
		New:         databases(t, testdb.Postgres, testdb.Options{}),
		CrashRounds: 6,
	})
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	certstoretest.Run(t, certstoretest.Database{
		New:         databases(t, testdb.MariaDB, testdb.Options{}),
		CrashRounds: 6,
	})
}

// databases makes databases on a server, which starts when the first is asked for: a test binary that is started again as
// a writer needs none.
func databases(t *testing.T, start func(testing.TB, testdb.Options) *testdb.Server, o testdb.Options) func(testing.TB) string {
	server := sync.OnceValue(func() *testdb.Server { return start(t, o) })
	return func(t testing.TB) string { return withPassword(server().New(t)) }
}

// withPassword is the URL of a database with its password.
func withPassword(d testdb.Database) string {
	return strings.Replace(d.URL, "@", ":"+strings.ReplaceAll(url.QueryEscape(d.Password), "+", "%20")+"@", 1)
}

// TestServers runs what is not true of every store, with a PostgreSQL and a MariaDB that demand TLS.
func TestServers(t *testing.T) {
	for name, start := range map[string]func(testing.TB, testdb.Options) *testdb.Server{
		"PostgreSQL": testdb.Postgres, "MariaDB": testdb.MariaDB,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, testdb.Options{TLS: true})
			for name, test := range map[string]func(*testing.T, *testdb.Server){
				"what Open refuses": testOpen, "rights": testRights, "foreign rows": testForeignRows, "locked": testLocked,
				"WSO2's database": testWSO2OnServer,
			} {
				t.Run(name, func(t *testing.T) { test(t, server) })
			}
			if name == "MariaDB" {
				t.Run("a migration goes on", func(t *testing.T) { testMigrationGoesOn(t, server) })
			}
			t.Run("away", func(t *testing.T) { testAway(t, server) })
		})
	}
}

// at is a database of such a server.
func at(server *testdb.Server, d testdb.Database) certstore.Source {
	return certstore.Source{URL: d.URL, Password: d.Password, CAFile: server.CAFile}
}

func openAt(t *testing.T, source certstore.Source, opts certstore.Options) *certstore.Store {
	t.Helper()
	s, err := source.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// refused expects that a source can't be opened, for a reason that matches is unless that is nil.
func refused(t *testing.T, source certstore.Source, readOnly bool, is error, words ...string) {
	t.Helper()
	s, err := source.Open(t.Context(), certstore.Options{ReadOnly: readOnly})
	if err == nil {
		s.Close()
		t.Errorf("%s: opened", source.URL)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v; want %q", source.URL, err, word)
		}
	}
	if is != nil && !errors.Is(err, is) || is != certstore.ErrUnavailable && errors.Is(err, certstore.ErrUnavailable) ||
		is != fs.ErrNotExist && errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v is of the wrong kind", source.URL, err)
	}
	if source.Password != "" && strings.Contains(err.Error(), source.Password) {
		t.Errorf("the error holds the password: %v", err)
	}
}

func testOpen(t *testing.T, server *testdb.Server) {
	d := server.New(t)
	good := at(server, d)
	with := func(change func(*certstore.Source)) certstore.Source {
		s := good
		change(&s)
		return s
	}
	refused(t, good, true, fs.ErrNotExist, "no tables")
	refused(t, with(func(s *certstore.Source) { s.CAFile = "" }), false, nil) // plain, and the server wants TLS
	verify := "?sslmode=verify-full"
	if strings.HasPrefix(d.URL, "mysql") {
		verify = "?tls=true"
	}
	refused(t, with(func(s *certstore.Source) { s.URL, s.CAFile = s.URL+verify, "" }), false, nil, "certificate")
	other := testpki.NewCA(t, "another CA")
	wrong := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(wrong, testpki.PEM(other.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, with(func(s *certstore.Source) { s.CAFile = wrong }), false, nil, "certificate")
	refused(t, with(func(s *certstore.Source) { s.CAFile += ".none" }), false, nil, "caFile", "no such file")
	refused(t, with(func(s *certstore.Source) { s.Password = "not that" }), false, nil, "check the user and the password")
	refused(t, with(func(s *certstore.Source) { s.URL += "x" }), false, nil)
	if t.Failed() {
		return
	}

	foreign := server.New(t)
	raw := server.Open(t, foreign)
	mustExec(t, raw, `CREATE TABLE COOKIES (NAME INTEGER)`)
	refused(t, at(server, foreign), false, nil, "another program's database", "name another database")

	s := openAt(t, good, certstore.Options{})
	client := newClient(t, "acme")
	add(t, s, client)
	expectList(t, openAt(t, good, certstore.Options{ReadOnly: true}), client)
	server.Exec(t, d.Name, `INSERT INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (99, 99)`)
	refused(t, good, true, nil, "newer program")
}

// testAway pauses, ends and restarts the server under an open Store.
func testAway(t *testing.T, server *testdb.Server) {
	d := server.New(t)
	source := at(server, d)
	s := openAt(t, source, certstore.Options{})
	client := newClient(t, "acme")
	add(t, s, client)
	before := certstoretest.Version(t, s)
	values := openAt(t, source, certstore.Options{}) // one that no change of the other's keeps waiting
	certstoretest.PutValue(t, values, "acme/key", "k")

	server.Pause()
	var waiting sync.WaitGroup
	asks := map[string]func(context.Context) error{
		"version": func(ctx context.Context) error { _, err := s.Version(ctx); return err },
		"list":    func(ctx context.Context) error { _, _, err := s.List(ctx); return err },
		"add":     func(ctx context.Context) error { return s.Add(ctx, newClient(t, "late")) },
		"value":   func(ctx context.Context) error { _, err := values.Value(ctx, "acme/key"); return isThere(err) },
		"lease": func(ctx context.Context) error {
			_, err := values.AcquireLease(ctx, "issue", "gw1", time.Hour)
			return isThere(err)
		},
		"open": func(ctx context.Context) error {
			s, err := source.Open(ctx, certstore.Options{})
			if err == nil {
				s.Close()
			}
			return err
		},
	}
	for name, ask := range asks {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s of a server that has stopped, in no time: %v", name, err)
		}
		cancel()
	}
	for name, ask := range asks {
		waiting.Go(func() {
			began := time.Now()
			if err := ask(t.Context()); !errors.Is(err, certstore.ErrUnavailable) {
				t.Errorf("%s of a server that has stopped: %v", name, err)
			}
			if took := time.Since(began); took > 50*time.Second {
				t.Errorf("%s took %v", name, took)
			}
		})
	}
	waiting.Wait()
	server.Resume()
	certstoretest.List(t, s)

	server.Kill()
	if _, err := s.Version(t.Context()); !errors.Is(err, certstore.ErrUnavailable) {
		t.Errorf("version of a server that has ended: %v", err)
	}
	if err := s.Add(t.Context(), newClient(t, "lost")); !errors.Is(err, certstore.ErrUnavailable) {
		t.Errorf("add to a server that has ended: %v", err)
	}
	refused(t, source, false, certstore.ErrUnavailable, "connection refused")
	const secret = "abracadabra"
	_, read := values.Value(t.Context(), "acme/key")
	_, listed := values.Values(t.Context(), "")
	for what, err := range map[string]error{
		"put": values.PutValue(t.Context(), "acme/key", []byte(secret)), "value": read, "values": listed,
		"remove": values.RemoveValues(t.Context(), "acme"), "release": values.ReleaseLease(t.Context(), "issue", "gw1"),
	} {
		if !errors.Is(isThere(err), certstore.ErrUnavailable) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s at a server that has ended: %v", what, err)
		}
	}
	server.Restart()
	certstoretest.ExpectValue(t, values, "acme/key", "k")
	if clients := certstoretest.List(t, s); len(clients) == 0 || clients[0].Alias != "acme" {
		t.Errorf("after a restart there are %v", clients)
	}
	next := newClient(t, "next")
	add(t, s, next)
	if certstoretest.Version(t, s) == before {
		t.Error("the version is what it was")
	}

	server.DropConnections(t)
	certstoretest.List(t, s) // over new connections
	server.DropConnections(t)
	add(t, s, newClient(t, "again"))

	giveBack := server.TakeConnections(t, d)
	refused(t, source, false, certstore.ErrUnavailable, "no connection left")
	giveBack()

	server.SetReadOnly(t, true)
	var err error
	for i, until := 0, time.Now().Add(time.Minute); err == nil && time.Now().Before(until); i++ { // its sessions learn of it
		err = s.Add(t.Context(), newClient(t, fmt.Sprint("refused", i)))
	}
	if !errors.Is(err, certstore.ErrUnavailable) || !strings.Contains(err.Error(), "only reads") {
		t.Errorf("add to a server that only reads: %v", err)
	}
	certstoretest.List(t, s)
	server.SetReadOnly(t, false)
}

// isThere returns an error that doesn't say that a value is missing: nobody knows that of a server that is away.
func isThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("it says that nothing is there: %v", err)
	}
	return err
}

// testLocked has another program change registrations and not come to an end. Who reads doesn't wait for it.
func testLocked(t *testing.T, server *testdb.Server) {
	d := server.New(t)
	s := openAt(t, at(server, d), certstore.Options{})
	client := newClient(t, "acme")
	add(t, s, client)
	tx, err := server.Open(t, d).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{`UPDATE SALLYPORT_CHANGE SET MARK = MARK + 1`, `DELETE FROM AM_API_CLIENT_CERTIFICATE`} {
		if _, err := tx.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	err = s.Add(t.Context(), newClient(t, "other"))
	if !errors.Is(err, certstore.ErrUnavailable) || !strings.Contains(err.Error(), "another program is changing it") {
		t.Errorf("add beside another change: %v", err)
	}
	expectList(t, s, client)
	expectList(t, openAt(t, at(server, d), certstore.Options{}), client)
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	next := newClient(t, "next")
	add(t, s, next)
	expectList(t, s, client, next)
}

// testRights gives users the rights that docs/stores.md names.
func testRights(t *testing.T, server *testdb.Server) {
	d := server.New(t)
	owner := openAt(t, at(server, d), certstore.Options{})
	grant(t, server, d, 0, "DATABASE sallyport ", "DATABASE "+d.Name+" ", "ON sallyport.", "ON "+d.Name+".")
	as := func(user string) *certstore.Store {
		source := at(server, d)
		source.URL, source.Password = strings.Replace(source.URL, d.User+"@", user+"@", 1), "change-me"
		return openAt(t, source, certstore.Options{})
	}
	gateway, admin := as("sallyport_gateway"), as("sallyport_admin")

	acme, other := newClient(t, "acme"), newClient(t, "other")
	before := certstoretest.Version(t, gateway)
	add(t, admin, acme, other)
	if err := admin.Update(t.Context(), orders, "", "acme", nil, "Silver", nil); err != nil {
		t.Error(err)
	}
	if err := admin.Remove(t.Context(), orders, "", "other"); err != nil {
		t.Error(err)
	}
	partner := certstoretest.NewCA(t, "partner", "partner.test")
	add(t, admin, partner)
	acme.Tier = "Silver"
	expectList(t, gateway, acme, partner)
	if certstoretest.Version(t, gateway) == before {
		t.Error("the gateway sees no change")
	}
	denials := newDenials(t)
	certstoretest.Deny(t, admin, denials...)
	certstoretest.ExpectDenials(t, gateway, denials...)
	if err := admin.RemoveDenial(t.Context(), denials[0]); err != nil {
		t.Error(err)
	}
	certstoretest.ExpectDenials(t, gateway, denials[1:]...)
	_, denying := gateway.AddDenial(t.Context(), denials[0])
	now := time.Unix(1_700_000_000, 0)
	quota := certstore.Quota{Tag: "t", Unit: "day", Start: now, End: now.Add(24 * time.Hour), Used: 7}
	if err := errors.Join(gateway.KeepQuotas(t.Context(), []certstore.Quota{quota}), gateway.ForgetQuotas(t.Context(), now)); err != nil {
		t.Error(err)
	}
	kept := 0
	if err := gateway.Quotas(t.Context(), now, func(certstore.Quota) { kept++ }); err != nil || kept != 1 {
		t.Errorf("%d quotas, %v", kept, err)
	}
	version := func(n int) certstore.Configuration {
		return certstore.Configuration{Version: n, CreatedAt: now, Digest: fmt.Sprint(n)}
	}
	files := []certstore.ConfigurationFile{{Path: "apis.yaml", Content: []byte("apis: []")}}
	node := certstore.Node{Name: "gw1", Version: 1, SeenAt: now}
	if err := errors.Join(
		gateway.KeepNode(t.Context(), node), gateway.KeepNode(t.Context(), node), admin.AddConfiguration(t.Context(), version(1), files),
	); err != nil {
		t.Error(err)
	}
	nodes, err := admin.Nodes(t.Context())
	got, broken := gateway.ConfigurationFiles(t.Context(), 1)
	if err != nil || broken != nil || len(nodes) != 1 || len(got) != 1 {
		t.Errorf("%d nodes, %v, %d files, %v", len(nodes), err, len(got), broken)
	}
	expectShares(t, gateway)
	const secret = "abracadabra"
	_, read := admin.Value(t.Context(), "acme/key")
	for name, err := range map[string]error{
		"the admin's user reads values": read,
		"the admin's user puts a value": admin.PutValue(t.Context(), "acme/key", []byte(secret)),
		"the gateway's user pushes":     gateway.AddConfiguration(t.Context(), version(2), files),
		"the admin's user is a gateway": admin.KeepNode(t.Context(), node),
		"the gateway's user registers":  gateway.Add(t.Context(), other),
		"the admin's user keeps quotas": admin.KeepQuotas(t.Context(), []certstore.Quota{quota}),
		"the gateway's user removes":    gateway.Remove(t.Context(), orders, "", "acme"),
		"the gateway's user denies":     denying,
		"the gateway's user undenies":   gateway.RemoveDenial(t.Context(), denials[1]),
	} {
		if err == nil || !strings.Contains(err.Error(), "lacks a right") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	expectList(t, owner, acme, partner)
}

// expectShares expects that a gateway can do all that it does with values and leases.
func expectShares(t *testing.T, gateway *certstore.Store) {
	t.Helper()
	for _, content := range []string{"one", "another"} {
		certstoretest.PutValue(t, gateway, "acme/key", content)
		certstoretest.ExpectValue(t, gateway, "acme/key", content)
	}
	certstoretest.ExpectNames(t, gateway, "acme", "acme/key")
	if err := gateway.RemoveValues(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
	for range 2 {
		if held, err := gateway.AcquireLease(t.Context(), "issue", "gw1", time.Hour); !held || err != nil {
			t.Errorf("a lease: %v, %v", held, err)
		}
	}
	if err := gateway.ReleaseLease(t.Context(), "issue", "gw1"); err != nil {
		t.Error(err)
	}
}

// grant runs one of the two pairs of SQL in docs/stores.md, for PostgreSQL and for MySQL, with other names.
func grant(t *testing.T, server *testdb.Server, d testdb.Database, pair int, names ...string) {
	t.Helper()
	page, err := os.ReadFile("../docs/stores.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, block := range strings.Split(string(page), "```sql\n")[1:] {
		sql, _, _ := strings.Cut(block, "```")
		blocks = append(blocks, sql)
	}
	if len(blocks) != 4 {
		t.Fatalf("%d blocks of SQL, want two of PostgreSQL and two of MySQL", len(blocks))
	}
	grants := blocks[2*pair]
	if strings.HasPrefix(d.URL, "mysql") {
		grants = blocks[2*pair+1]
	}
	for statement := range strings.SplitSeq(strings.NewReplacer(names...).Replace(grants), ";\n") {
		if strings.TrimSpace(statement) != "" {
			server.Exec(t, d.Name, statement)
		}
	}
}

// testForeignRows has other programs write.
func testForeignRows(t *testing.T, server *testdb.Server) {
	d := server.New(t)
	s := openAt(t, at(server, d), certstore.Options{})
	acme := newClient(t, "acme")
	add(t, s, acme)
	raw := server.Open(t, d)
	seen := certstoretest.Version(t, s)
	was := acme.Certificate
	acme.Certificate = newCertificate(t)
	replaced, text := `UPDATE AM_API_CLIENT_CERTIFICATE SET CERTIFICATE = $1`, toPEM(acme.Certificate)
	if strings.HasPrefix(d.URL, "mysql") { // which has no triggers here: docs/stores.md says what to do
		replaced = `UPDATE AM_API_CLIENT_CERTIFICATE SET CERTIFICATE = ?, FINGERPRINT = NULL`
		mustExec(t, raw, `UPDATE SALLYPORT_CHANGE SET MARK = MARK + 1`)
	}
	mustExec(t, raw, replaced, text)
	if certstoretest.Version(t, s) == seen {
		t.Error("the version is what it was")
	}
	expectRegistered(t, s, acme)
	next := newClient(t, "next")
	next.Certificate = was
	add(t, s, next)
	expectList(t, s, acme, next)
	mustExec(t, raw, `DELETE FROM AM_API`) // takes the certificates along
	expectList(t, s)
}

// testMigrationGoesOn interrupts the making of the tables of MySQL, which can't be undone, after each statement.
func testMigrationGoesOn(t *testing.T, server *testdb.Server) {
	var statements []string
	files, err := filepath.Glob("mysql/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		statements = append(statements, strings.Split(strings.TrimSuffix(string(text), ";\n"), ";\n")...)
	}
	for n := range len(statements) + 1 {
		d := server.New(t)
		raw := server.Open(t, d)
		for _, statement := range statements[:n] {
			mustExec(t, raw, statement)
		}
		s := openAt(t, at(server, d), certstore.Options{})
		client := newClient(t, "acme")
		add(t, s, client)
		expectList(t, s, client)
		var marks, version int
		if err := raw.QueryRow(`SELECT (SELECT COUNT(*) FROM SALLYPORT_CHANGE), (SELECT MAX(VERSION) FROM SALLYPORT_SCHEMA)`).Scan(&marks, &version); err != nil ||
			marks != 1 || version != len(files) {
			t.Errorf("interrupted after %d statements: %d marks, version %d, %v", n, marks, version, err)
		}
	}
}

// TestServersAreKilled ends a server by SIGKILL, all its processes at once, while a writer registers: what was acknowledged
// is there when it is back, whole, and nothing else but the one change whose answer was lost.
func TestServersAreKilled(t *testing.T) {
	for name, start := range map[string]func(testing.TB, testdb.Options) *testdb.Server{
		"PostgreSQL": testdb.Postgres, "MariaDB": testdb.MariaDB,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, testdb.Options{Durable: true})
			s := openAt(t, at(server, server.New(t)), certstore.Options{})
			client := newClient(t, "")
			known := map[string]bool{} // true: acknowledged
			for round := range certstoretest.Rounds(t, 4) {
				var acknowledged atomic.Int32
				wrote := make(chan error)
				go func() {
					for i := 0; ; i++ {
						client.Alias, client.API.Name = fmt.Sprintf("r%d-%d", round, i), fmt.Sprintf("api%d-%d", round, i)
						err := s.Add(t.Context(), client)
						known[client.Alias] = err == nil
						if err != nil {
							wrote <- err
							return
						}
						acknowledged.Add(1)
					}
				}()
				least := int32(rand.IntN(20)) // the moment is at random, but not before some were acknowledged
				for acknowledged.Load() <= least {
					time.Sleep(time.Millisecond)
				}
				server.Kill()
				if err := <-wrote; !errors.Is(err, certstore.ErrUnavailable) {
					t.Errorf("the writer of a killed server ends with %v", err)
				}
				server.Restart()
				there := map[string]bool{}
				for _, c := range certstoretest.List(t, s) {
					there[c.Alias] = true
					if _, asked := known[c.Alias]; !asked || c.Fingerprint != certstore.Fingerprint(client.Certificate) {
						t.Errorf("%s is there", c.Alias)
					}
				}
				for alias, is := range known {
					if is && !there[alias] {
						t.Errorf("round %d: %s was acknowledged and is lost", round, alias)
					}
				}
			}
		})
	}
}
