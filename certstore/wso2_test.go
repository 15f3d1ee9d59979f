package certstore_test

import (
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
	"sallyport/internal/testdb"
	"sallyport/internal/testserver"
)

// A wso2Database is a database that WSO2's own statements made, and who reads it.
type wso2Database struct {
	*testing.T
	version string // of testdata/wso2
	raw     *sql.DB
	dollars bool // placeholders are $1, $2, …
	source  certstore.Source
	dump    func() string // of all that is in it
}

// made makes the tables of a version, by the statements of a kind of database.
func (w *wso2Database) made(kind string) *wso2Database {
	w.Helper()
	for _, file := range []string{"api", kind} {
		for statement := range strings.SplitSeq(readFile(w, "testdata/wso2/"+w.version+"/"+file+".sql"), ";\n") {
			if statement != "" {
				w.exec(statement)
			}
		}
	}
	w.exec(`INSERT INTO AM_API (API_ID, API_PROVIDER, API_NAME, API_VERSION) VALUES (?, ?, ?, ?)`, 7, "admin", orders.Name, orders.Version)
	// Another tenant may have an API of the same name.
	w.exec(`INSERT INTO AM_API (API_ID, API_PROVIDER, API_NAME, API_VERSION) VALUES (?, ?, ?, ?)`, 8, "admin@other", orders.Name, orders.Version)
	return w
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (w *wso2Database) exec(query string, args ...any) {
	w.Helper()
	for n := 1; w.dollars && strings.Contains(query, "?"); n++ {
		query = strings.Replace(query, "?", "$"+strconv.Itoa(n), 1)
	}
	mustExec(w, w.raw, query, args...)
}

// insert inserts a row as all versions have it.
func (w *wso2Database) insert(alias string, tenant, api int, certificate []byte, removed bool, tier any) {
	w.Helper()
	w.exec(`INSERT INTO AM_API_CLIENT_CERTIFICATE (TENANT_ID, ALIAS, API_ID, CERTIFICATE, REMOVED, TIER_NAME) VALUES (?, ?, ?, ?, ?, ?)`,
		tenant, alias, api, certificate, removed, tier)
}

// insertRevised inserts a row as today's versions have it.
func (w *wso2Database) insertRevised(c certstore.Client, keyType, revision string) {
	w.Helper()
	w.exec(`INSERT INTO AM_API_CLIENT_CERTIFICATE (TENANT_ID, ALIAS, API_ID, CERTIFICATE, TIER_NAME, KEY_TYPE, REVISION_UUID)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, -1234, c.Alias, 7, toPEM(c.Certificate), "Gold", keyType, revision)
}

const me = -1234

// TestWSO2File reads a SQLite file of WSO2's shape. What others write is seen, though the file has no mark.
func TestWSO2File(t *testing.T) {
	for version, kind := range map[string]string{"2.6": "h2", "today": "sqlite"} {
		t.Run(version, func(t *testing.T) {
			path := newFile(t)
			w := &wso2Database{T: t, version: version, raw: rawSQL(t, path), source: certstore.Source{URL: "sqlite:" + path}}
			w.dump = func() string { return readFile(t, path) }
			w.made(kind).test()
		})
	}
}

// testWSO2OnServer reads with no right but those that docs/stores.md grants.
func testWSO2OnServer(t *testing.T, server *testdb.Server) {
	for _, version := range []string{"2.6", "today"} {
		t.Run(version, func(t *testing.T) {
			d := server.New(t)
			kind, dump := "postgres", dumpPostgres
			if strings.HasPrefix(d.URL, "mysql") {
				kind, dump = "mysql", dumpMariaDB
			}
			w := &wso2Database{T: t, version: version, raw: server.Open(t, d), dollars: kind == "postgres", source: at(server, d)}
			w.made(kind)
			reader := "reader_" + d.Name
			grant(t, server, d, 1, "sallyport_reader", reader, "DATABASE apim_db ", "DATABASE "+d.Name+" ", "ON apim_db.", "ON "+d.Name+".")
			w.source.URL, w.source.Password = strings.Replace(w.source.URL, d.User+"@", reader+"@", 1), "change-me"
			w.dump = func() string { return dump(t, server, d) }
			w.test()
			if t.Failed() || version == "today" {
				return
			}
			w.otherCase(kind, at(server, d))
		})
	}
	t.Run("by our schema", func(t *testing.T) { testSchemaOnServer(t, server) })
}

// testSchemaOnServer has a database that WSO2Schema's statements made, whose registrations are copied into one of ours.
func testSchemaOnServer(t *testing.T, server *testdb.Server) {
	d, ours := server.New(t), server.New(t)
	dialect := "postgres"
	if strings.HasPrefix(d.URL, "mysql") {
		dialect = "mysql"
	}
	schema, err := certstore.WSO2Schema(dialect)
	if err != nil {
		t.Fatal(err)
	}
	w := &wso2Database{T: t, raw: server.Open(t, d), dollars: dialect == "postgres"}
	for statement := range strings.SplitSeq(schema, ";\n") {
		if statement != "" {
			w.exec(statement)
		}
	}
	w.exec(`INSERT INTO AM_API (API_ID, API_UUID, API_PROVIDER, API_NAME, API_VERSION) VALUES (7, 'u', 'admin', ?, ?)`, orders.Name, orders.Version)
	acme, sandbox := newClient(t, "acme"), newClient(t, "acme")
	sandbox.KeyType = certstore.Sandbox
	w.insert("acme", me, 7, acme.Certificate.Raw, false, "Gold")
	w.insertRevised(sandbox, "SANDBOX", "Current API")
	w.insertRevised(newClient(t, "acme"), "PRODUCTION", "revision")
	w.insert("acme", me, 7, toPEM(newCertificate(t)), true, "Gold")
	w.insert("theirs", 1, 7, toPEM(newCertificate(t)), false, "Gold")
	from, to := openAt(t, at(server, d), certstore.Options{}), openAt(t, at(server, ours), certstore.Options{})
	want := certstore.Copied{Added: 2, LeftOut: certstore.LeftOut{Tombstones: 1, Revisions: 1, OtherTenants: map[int]int{1: 1}}}
	for range 2 {
		done, err := certstore.Copy(t.Context(), from, to)
		if diff := cmp.Diff(want, done, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%v; -want +done:\n%s", err, diff)
		}
		expectList(t, to, acme, sandbox)
		want.Added, want.Present = 0, 2
	}
	back, err := certstore.Copy(t.Context(), to, from)
	if !errors.Is(err, certstore.ErrReadOnly) {
		t.Errorf("copied into WSO2's database: %v, %v", back, err)
	}
}

// dumped runs a program that dumps a database.
func dumped(t *testing.T, server *testdb.Server, program, debianPackage, folder string, env []string, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(server.Address)
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "--host="+host, "--port="+port)
	cmd := exec.CommandContext(t.Context(), testserver.Tool(t, program, debianPackage, folder), args...)
	cmd.Env = append(os.Environ(), env...)
	var wrong strings.Builder
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, wrong.String())
	}
	return string(out)
}

// restricting are lines that are different in each dump.
var restricting = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)

func dumpPostgres(t *testing.T, server *testdb.Server, d testdb.Database) string {
	t.Helper()
	env := []string{"PGPASSWORD=" + d.Password, "PGSSLMODE=require"}
	dump := dumped(t, server, "pg_dump", "postgresql", "/usr/lib/postgresql/*/bin", env, "--username="+d.User, "--dbname="+d.Name)
	return restricting.ReplaceAllString(dump, "")
}

func dumpMariaDB(t *testing.T, server *testdb.Server, d testdb.Database) string {
	t.Helper()
	env := []string{"MYSQL_PWD=" + d.Password}
	return dumped(t, server, "mariadb-dump", "mariadb-server", "/usr/bin", env, "--no-defaults", "--databases", d.Name, "--ssl", "--skip-dump-date", "--user="+d.User)
}

// test fills the tables, and reads them.
func (w *wso2Database) test() {
	w.Helper()
	der, pem, base := newClient(w, "der"), newClient(w, "pem"), newClient(w, "wrapped")
	w.insert("der", me, 7, der.Certificate.Raw, false, "Gold")
	w.insert("pem", me, 7, toPEM(pem.Certificate), false, "Gold")
	w.insert("pem", me, 7, toPEM(newCertificate(w)), true, "Bronze")
	w.insert("gone", me, 7, toPEM(newCertificate(w)), true, "Gold")
	w.insert("wrapped", me, 7, []byte(base64.StdEncoding.EncodeToString(toPEM(base.Certificate))), false, "Gold")
	w.insert("der", 1, 8, der.Certificate.Raw, false, "Gold")
	w.insert("theirs", 1, 8, toPEM(newCertificate(w)), false, "Gold")
	w.insert("theirs", 1, 8, toPEM(newCertificate(w)), true, "Gold")
	want := []certstore.Client{der, pem, base}
	if w.version == "today" {
		sandbox := newClient(w, "pem")
		sandbox.KeyType = certstore.Sandbox
		w.insertRevised(sandbox, "SANDBOX", "Current API")
		w.insertRevised(newClient(w, "pem"), "PRODUCTION", "5f9e1b0a-revision")
		want = []certstore.Client{der, pem, sandbox, base}
	}
	before := w.dump()

	s := openAt(w.T, w.source, certstore.Options{})
	expectList(w, s, want...)
	if others, err := s.OtherTenants(w.Context()); err != nil || len(others) != 1 || others[1] != 2 {
		w.Errorf("%v, %v; want 2 registrations of tenant 1", others, err)
	}
	if !s.Foreign() {
		w.Error("the store is called ours")
	}
	if got, err := s.Get(w.Context(), orders, "", "der"); err != nil || !got.Certificate.Equal(der.Certificate) {
		w.Errorf("get: %v", err)
	}
	if _, err := s.Get(w.Context(), orders, "", "gone"); !errors.Is(err, certstore.ErrNotFound) {
		w.Errorf("get of what was removed: %v", err)
	}
	w.refusesChanges(s)
	openAt(w.T, w.source, certstore.Options{ReadOnly: true})
	if diff := cmp.Diff(before, w.dump()); diff != "" {
		w.Errorf("the database was changed (-was +is):\n%s", diff)
	}

	seen := certstoretest.Version(w, s)
	if again := certstoretest.Version(w, s); again != seen {
		w.Error("the version is another one, and nothing has changed")
	}
	changed := func(what string, want ...certstore.Client) {
		w.Helper()
		now := certstoretest.Version(w, s)
		if now == seen {
			w.Errorf("%s: the version is what it was", what)
		}
		seen = now
		expectList(w, s, want...)
	}
	w.exec(`UPDATE AM_API_CLIENT_CERTIFICATE SET REMOVED = ? WHERE ALIAS = ? AND TENANT_ID = ?`, true, "der", me)
	want = want[1:]
	changed("a removal", want...)
	w.exec(`UPDATE AM_API_CLIENT_CERTIFICATE SET TIER_NAME = ? WHERE ALIAS = ? AND TENANT_ID = ?`, "Silver", "wrapped", me)
	want[len(want)-1].Tier = "Silver"
	changed("another tier", want...)
	w.exec(`DELETE FROM AM_API_CLIENT_CERTIFICATE WHERE TENANT_ID = ?`, 1)
	changed("another tenant's", want...)

	w.insert("no tier", me, 7, toPEM(newCertificate(w)), false, nil)
	w.insert("damaged", me, 7, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n"), false, "Gold")
	clients, problems, err := s.List(w.Context())
	if err != nil || len(clients) != len(want) || len(problems) != 2 {
		w.Errorf("%d clients, problems %v, %v", len(clients), problems, err)
	}
	if w.version == "2.6" { // an upgrade of WSO2, while a gateway runs
		w.exec(`DELETE FROM AM_API_CLIENT_CERTIFICATE WHERE ALIAS IN ('no tier', 'damaged')`)
		w.exec(`ALTER TABLE AM_API_CLIENT_CERTIFICATE ADD COLUMN KEY_TYPE VARCHAR(20) NOT NULL DEFAULT 'PRODUCTION'`)
		w.exec(`ALTER TABLE AM_API_CLIENT_CERTIFICATE ADD COLUMN REVISION_UUID VARCHAR(255) NOT NULL DEFAULT 'Current API'`)
		sandbox := newClient(w, "sandbox")
		sandbox.KeyType = certstore.Sandbox
		w.insertRevised(sandbox, "SANDBOX", "Current API")
		w.insertRevised(newClient(w, "revised"), "PRODUCTION", "5f9e1b0a-revision")
		expectList(w, s, want[0], sandbox, want[1])
	}
}

func (w *wso2Database) refusesChanges(s *certstore.Store) {
	w.Helper()
	_, acquired := s.AcquireLease(w.Context(), "issue", "gw1", time.Hour)
	client, quota := newClient(w, "new"), certstore.Quota{Tag: "t", Unit: "day", Start: time.Now(), End: time.Now().Add(time.Hour), Used: 1}
	for what, err := range map[string]error{
		"add":           s.Add(w.Context(), client),
		"update":        s.Update(w.Context(), orders, "", "der", nil, "Silver", nil),
		"remove":        s.Remove(w.Context(), orders, "", "der"),
		"keep quotas":   s.KeepQuotas(w.Context(), []certstore.Quota{quota}),
		"forget quotas": s.ForgetQuotas(w.Context(), time.Now()),
		"push":          s.AddConfiguration(w.Context(), certstore.Configuration{Version: 1}, nil),
		"keep a node":   s.KeepNode(w.Context(), certstore.Node{Name: "gw1"}),
		"put a value":   s.PutValue(w.Context(), "acme/key", nil),
		"remove values": s.RemoveValues(w.Context(), "acme"),
		"take a lease":  acquired,
		"end a lease":   s.ReleaseLease(w.Context(), "issue", "gw1"),
	} {
		if !errors.Is(err, certstore.ErrReadOnly) || !strings.Contains(err.Error(), "another program's") {
			w.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Quotas(w.Context(), time.Time{}, func(certstore.Quota) { w.Error("a quota") }); err != nil {
		w.Errorf("quotas: %v", err)
	}
	if c, err := s.CurrentConfiguration(w.Context()); err == nil || !strings.Contains(err.Error(), "name another store") {
		w.Errorf("a configuration: %+v, %v", c, err)
	}
	if v, err := s.Value(w.Context(), "acme/key"); errors.Is(err, fs.ErrNotExist) || err == nil || !strings.Contains(err.Error(), "name another store") {
		w.Errorf("a value: %q, %v", v.Content, err)
	}
	if list, err := s.Values(w.Context(), ""); err == nil || !strings.Contains(err.Error(), "name another store") {
		w.Errorf("values: %v, %v", list, err)
	}
}

// otherCase gives the tables, and in PostgreSQL the columns, names in the case in which the database does not look by
// itself, as one that was moved may have them.
func (w *wso2Database) otherCase(kind string, owner certstore.Source) {
	w.Helper()
	want := certstoretest.List(w, openAt(w.T, owner, certstore.Options{}))
	if kind == "mysql" {
		w.exec("RENAME TABLE AM_API TO am_api, AM_API_CLIENT_CERTIFICATE TO am_api_client_certificate")
	} else {
		for table, columns := range map[string]string{
			"AM_API":                    "API_ID API_NAME API_VERSION",
			"AM_API_CLIENT_CERTIFICATE": "TENANT_ID ALIAS API_ID CERTIFICATE REMOVED TIER_NAME KEY_TYPE REVISION_UUID",
		} {
			for column := range strings.FieldsSeq(columns) {
				w.exec(fmt.Sprintf(`ALTER TABLE %s RENAME COLUMN %s TO "%s"`, table, column, column))
			}
			w.exec(fmt.Sprintf(`ALTER TABLE %s RENAME TO "%s"`, table, table))
		}
	}
	if diff := cmp.Diff(want, certstoretest.List(w, openAt(w.T, owner, certstore.Options{}))); diff != "" {
		w.Errorf("under other names (-was +is):\n%s", diff)
	}
}

// TestWSO2FileWithALog opens a file whose newest rows are in its write-ahead log. Neither is changed, though a connection
// that may write would take the log into the file.
func TestWSO2FileWithALog(t *testing.T) {
	path, copied := newFile(t), newFile(t)
	w := &wso2Database{T: t, version: "2.6", raw: rawSQL(t, path)}
	w.exec(`PRAGMA journal_mode = WAL`)
	w.made("h2")
	acme := newClient(t, "acme")
	w.insert("acme", me, 7, toPEM(acme.Certificate), false, "Gold")
	files := map[string]string{}
	for _, suffix := range []string{"", "-wal"} {
		files[copied+suffix] = readFile(t, path+suffix)
		if err := os.WriteFile(copied+suffix, []byte(files[copied+suffix]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := certstore.Open(t.Context(), "sqlite:"+copied, certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	expectList(t, s, acme)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for name, before := range files {
		if readFile(t, name) != before {
			t.Errorf("%s was changed", name)
		}
	}
}

// TestWSO2Shapes has tables that WSO2 doesn't have.
func TestWSO2Shapes(t *testing.T) {
	const (
		apis    = `CREATE TABLE AM_API (API_ID INTEGER PRIMARY KEY, API_NAME TEXT, API_VERSION TEXT)`
		clients = `CREATE TABLE AM_API_CLIENT_CERTIFICATE (TENANT_ID INT, ALIAS TEXT, API_ID INT, CERTIFICATE BLOB, REMOVED, TIER_NAME TEXT)`
	)
	for _, c := range []struct{ statements, want string }{
		{clients, "none named AM_API"},
		{apis + ";" + strings.Replace(clients, "REMOVED,", "", 1), "AM_API_CLIENT_CERTIFICATE has no column REMOVED"},
		{strings.Replace(apis, "API_VERSION", "V", 1) + ";" + clients, "AM_API has no column API_VERSION"},
		{apis + ";" + strings.Replace(clients, "REMOVED,", "REMOVED, FINGERPRINT,", 1), "one of Sallyport's"},
	} {
		path := newFile(t)
		mustExec(t, rawSQL(t, path), c.statements)
		refused(t, certstore.Source{URL: "sqlite:" + path}, false, nil, c.want)
		refused(t, certstore.Source{URL: "sqlite:" + path}, true, nil, c.want)
	}

	path := newFile(t)
	w := &wso2Database{T: t, raw: rawSQL(t, path)}
	w.exec(apis + ";" + clients)
	w.exec(`INSERT INTO AM_API VALUES (7, ?, ?)`, orders.Name, orders.Version)
	var live []certstore.Client
	for value, want := range map[any]string{
		"0": "live", "1": "removed", "f": "live", "t": "removed", "FALSE": "live", "true": "removed", 0: "live", 1: "removed",
		false: "live", 0.0: "live", 1.0: "removed", 2: "unknown", -1: "unknown", "": "unknown", "no": "unknown", nil: "unknown", 0.5: "unknown",
	} {
		client := newClient(t, fmt.Sprintf("%s %T %v", want, value, value))
		w.exec(`INSERT INTO AM_API_CLIENT_CERTIFICATE VALUES (-1234, ?, 7, ?, ?, 'Gold')`, client.Alias, toPEM(client.Certificate), value)
		if want == "live" {
			live = append(live, client)
		}
	}
	w.exec(`INSERT INTO AM_API_CLIENT_CERTIFICATE VALUES (-1234, NULL, 7, x'00', 0, 'Gold'), (-1234, 'lost', 9, ?, 0, 'Gold')`, toPEM(newCertificate(t)))
	listed, problems, err := open(t, "sqlite:"+path, certstore.Options{}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(live, func(a, b certstore.Client) int { return strings.Compare(a.Alias, b.Alias) })
	expectSame(t, listed, live)
	told := map[string]string{}
	for _, p := range problems {
		told[p.Alias] = p.Err.Error()
	}
	for alias, want := range map[string]string{
		"unknown int 2": "REMOVED", "unknown int -1": "REMOVED", "unknown string ": "REMOVED", "unknown string no": "REMOVED",
		"unknown <nil> <nil>": "REMOVED", "unknown float64 0.5": "REMOVED", "": "certificate", "lost": "API is unknown",
	} {
		if !strings.Contains(told[alias], want) {
			t.Errorf("%q: %q, want %q", alias, told[alias], want)
		}
		delete(told, alias)
	}
	if len(told) > 0 {
		t.Errorf("also told: %v", told)
	}
}

// A definition is one CREATE TABLE statement as WSO2 has it for a kind of database.
type definition struct {
	columns map[string]string // types by name
	key     []string
}

// parseDefinition reads a definition: names, types and the primary key. The rest is left out.
func parseDefinition(t *testing.T, text string) definition {
	t.Helper()
	_, body, ok := strings.Cut(text, "CREATE TABLE ")
	if !ok {
		t.Fatalf("no table in %q", text)
	}
	name, body, _ := strings.Cut(strings.TrimPrefix(body, "IF NOT EXISTS "), "(")
	if strings.Trim(name, "` ") != "AM_API_CLIENT_CERTIFICATE" {
		t.Fatalf("table %q", name)
	}
	d := definition{columns: map[string]string{}}
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(strings.TrimSpace(strings.ReplaceAll(line, "`", "")), ",")
		if columns, ok := strings.CutPrefix(line, "PRIMARY KEY ("); ok {
			d.key = strings.FieldsFunc(strings.TrimSuffix(columns, ")"), func(r rune) bool { return r == ',' || r == ' ' })
		} else if words := wso2Column.FindStringSubmatch(line); words != nil {
			d.columns[words[1]] = strings.ReplaceAll(words[2], " ", "")
		}
	}
	return d
}

// wso2Column is a line of a column: its name and its type.
var wso2Column = regexp.MustCompile(`^([A-Z_]+) +([A-Z0-9]+ ?(?:\([0-9A-Z ]+\))?)(?: (?:NOT NULL|DEFAULT).*)?$`)

// TestWSO2Definitions reads WSO2's statements of 2.6 for all its databases, also for those that can't be had here, and
// has the reader read tables of just these columns.
func TestWSO2Definitions(t *testing.T) {
	integers := "INT INTEGER INT(11)"
	types := map[string]string{
		"TENANT_ID":   integers,
		"ALIAS":       "VARCHAR(45) VARCHAR2(45)",
		"API_ID":      integers,
		"CERTIFICATE": "BLOB BYTEA VARBINARY(MAX)",
		"REMOVED":     "BOOLEAN BIT INTEGER SMALLINT",
		"TIER_NAME":   "VARCHAR(512) VARCHAR2(512)",
	}
	files, err := filepath.Glob("testdata/wso2/2.6/*.sql")
	if err != nil || len(files) != 9 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		kind := strings.TrimSuffix(filepath.Base(file), ".sql")
		if kind == "api" {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			d := parseDefinition(t, readFile(t, file))
			if diff := cmp.Diff([]string{"ALIAS", "TENANT_ID", "REMOVED"}, d.key); diff != "" {
				t.Errorf("the primary key:\n%s", diff)
			}
			if len(d.columns) != len(types) {
				t.Errorf("columns %v", d.columns)
			}
			var columns []string
			for name, known := range types {
				if !slices.Contains(strings.Fields(known), d.columns[name]) {
					t.Errorf("column %s is %q; the reader knows %s", name, d.columns[name], known)
				}
				columns = append(columns, name+" "+strings.TrimSuffix(d.columns[name], "(MAX)")) // not in SQLite
			}
			path := newFile(t)
			w := &wso2Database{T: t, raw: rawSQL(t, path)}
			for statement := range strings.SplitSeq(readFile(t, "testdata/wso2/2.6/api.sql"), ";\n") {
				w.exec(statement)
			}
			w.exec(fmt.Sprintf("CREATE TABLE AM_API_CLIENT_CERTIFICATE (%s, PRIMARY KEY (%s))", strings.Join(columns, ", "), strings.Join(d.key, ", ")))
			w.exec(`INSERT INTO AM_API (API_ID, API_NAME, API_VERSION) VALUES (7, ?, ?)`, orders.Name, orders.Version)
			acme := newClient(t, "acme")
			w.insert("acme", me, 7, acme.Certificate.Raw, false, "Gold")
			w.insert("acme", me, 7, toPEM(newCertificate(t)), true, "Gold")
			expectList(t, open(t, "sqlite:"+path, certstore.Options{}), acme)
		})
	}
}
