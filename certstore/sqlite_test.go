package certstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
)

func TestSQLiteFile(t *testing.T) {
	certstoretest.Run(t, certstoretest.Database{
		New:   func(t testing.TB) string { return "sqlite:" + newFile(t) },
		Check: checkIntegrity,
	})
}

func TestSQLiteMemory(t *testing.T) {
	certstoretest.Run(t, certstoretest.Database{
		New:     func(testing.TB) string { return "sqlite::memory:" },
		Private: true,
	})
}

func checkIntegrity(t testing.TB, url string) {
	t.Helper()
	raw := rawSQL(t, strings.TrimPrefix(url, "sqlite:"))
	defer raw.Close()
	var integrity string
	if err := raw.QueryRow(`PRAGMA integrity_check`).Scan(&integrity); err != nil || integrity != "ok" {
		t.Errorf("integrity: %q, %v", integrity, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database. ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign.db")
	mustExec(t, rawSQL(t, foreign), `CREATE TABLE COOKIES (NAME TEXT)`)
	before, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name, url string
		readOnly  bool
		want      string
		is        error
	}{
		{"another scheme", "db2://user:secret@host/db", false, "sqlite:PATH", certstore.ErrInvalid},
		{"nothing", "", false, "sqlite:PATH", certstore.ErrInvalid},
		{"a path without scheme", text, false, "sqlite:PATH", certstore.ErrInvalid},
		{"no path", "sqlite:", false, "sqlite:PATH", certstore.ErrInvalid},
		{"slashes", "sqlite:///certs.db", false, "sqlite:PATH", certstore.ErrInvalid},
		{"memory with parameters", "sqlite::memory:?cache=shared", false, "sqlite:PATH", certstore.ErrInvalid},
		{"NUL", "sqlite:a\x00b", false, "sqlite:PATH", certstore.ErrInvalid},
		{"a missing folder", "sqlite:" + filepath.Join(dir, "none", "certs.db"), false, "folder must exist", fs.ErrNotExist},
		{"a folder", "sqlite:" + dir, false, "not a regular file", nil},
		{"a missing file, to read", "sqlite:" + filepath.Join(dir, "none.db"), true, "no such file", fs.ErrNotExist},
		{"an empty file, to read", "sqlite:" + empty, true, "no tables", nil},
		{"not a database", "sqlite:" + text, false, "not a database", nil},
		{"not a database, to read", "sqlite:" + text, true, "not a database", nil},
		{"another program's", "sqlite:" + foreign, false, `another program's database: it has a table "COOKIES"`, nil},
		{"another program's, to read", "sqlite:" + foreign, true, "another program's database", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := certstore.Open(t.Context(), test.url, certstore.Options{ReadOnly: test.readOnly})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error is %q; want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error contains the password: %v", err)
			}
		})
	}
	if after, err := os.ReadFile(foreign); err != nil || string(after) != string(before) {
		t.Errorf("another program's database was changed (%v)", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made for reading: %v", err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	add(t, s, newClient(t, "acme"))
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 3 {
		t.Errorf("files: %v, %v", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", file, info.Mode(), err)
		}
	}
}

func TestPathIsVerbatim(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"plain.db", "a?mode=memory", "a%20b#c&d;e", "file:x", "it's", "🚪 x", "./sub.db"} {
		s := open(t, "sqlite:"+path, certstore.Options{})
		client := newClient(t, "acme")
		add(t, s, client)
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		expectList(t, open(t, "sqlite:"+path, certstore.Options{ReadOnly: true}), client)
	}
}

// TestReadOnlyReadsTheLog opens a copy whose newest rows are in the write-ahead log of a database that nobody has open.
func TestReadOnlyReadsTheLog(t *testing.T) {
	path, copied := newFile(t), newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	acme, other := newClient(t, "acme"), newClient(t, "other")
	add(t, s, acme, other)
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expectList(t, open(t, "sqlite:"+copied, certstore.Options{ReadOnly: true}), acme, other)
}

func TestStoredForms(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	raw := rawSQL(t, path)
	client := newClient(t, "acme")
	add(t, s, client)
	for name, form := range storedForms(client.Certificate) {
		t.Run(name, func(t *testing.T) {
			mustExec(t, raw, `UPDATE AM_API_CLIENT_CERTIFICATE SET CERTIFICATE = ?`, form)
			expectList(t, s, client)
			again := newClient(t, "again")
			again.Certificate = client.Certificate
			if err := s.Add(t.Context(), again); !errors.Is(err, certstore.ErrRegistered) {
				t.Errorf("the certificate in this form is not recognised: %v", err)
			}
		})
	}
}

// TestForeignRows writes rows as other programs might. Rows that cannot be trusted are reported and not admitted.
func TestForeignRows(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	good, twin := newClient(t, "good"), newClient(t, "twin")
	add(t, s, good, twin)
	raw := rawSQL(t, path)
	var apiID int64
	if err := raw.QueryRow(`SELECT API_ID FROM AM_API`).Scan(&apiID); err != nil {
		t.Fatal(err)
	}
	mustExec(t, raw, `INSERT INTO AM_API (API_ID, API_UUID, API_PROVIDER, API_NAME, API_VERSION) VALUES
		(100, 'u1', 'alice', 'twice', '1'), (101, 'u2', 'bob', 'twice', '1'), (102, 'u3', 'bob', NULL, NULL)`)
	insert := func(alias string, apiID int64, cert []byte, tier any, keyType, revision string, tenant int, scopes any) {
		t.Helper()
		mustExec(t, raw, `INSERT INTO AM_API_CLIENT_CERTIFICATE
			(ALIAS, API_ID, CERTIFICATE, TIER_NAME, KEY_TYPE, REVISION_UUID, TENANT_ID, SCOPES) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			alias, apiID, cert, tier, keyType, revision, tenant, scopes)
	}
	cert := func() []byte { return toPEM(newCertificate(t)) }
	const now, me = "Current API", -1234
	partner := certstoretest.NewCA(t, "partner", "partner.test")
	add(t, s, partner)
	for alias, match := range map[string]string{"match": `{"dns":["*.partner.test"]`, "match empty": "", "match of none": `{}`} {
		ca := certstoretest.NewCA(t, alias, "partner.test")
		add(t, s, ca)
		mustExec(t, raw, `UPDATE AM_API_CLIENT_CERTIFICATE SET LEAF_MATCH = ? WHERE ALIAS = ?`, match, alias)
	}
	insert("match of a leaf", apiID, cert(), "Gold", "PRODUCTION", now, me, nil)
	mustExec(t, raw, `UPDATE AM_API_CLIENT_CERTIFICATE SET LEAF_MATCH = '{"dns":["*.partner.test"]}' WHERE ALIAS = 'match of a leaf'`)
	insert("damaged", apiID, []byte("-----BEGIN CERTIFICATE-----\nSECRET\n"), "Gold", "PRODUCTION", now, me, nil)
	insert("empty", apiID, []byte{}, "Gold", "PRODUCTION", now, me, nil)
	insert("two", apiID, append(cert(), cert()...), "Gold", "PRODUCTION", now, me, nil)
	insert("lower", apiID, cert(), "Gold", "production", now, me, nil)
	insert("no tier", apiID, cert(), nil, "PRODUCTION", now, me, nil)
	insert("../x", apiID, cert(), "Gold", "PRODUCTION", now, me, nil)
	insert("scopes", apiID, cert(), "Gold", "PRODUCTION", now, me, "a  b")
	insert("copy", apiID, toPEM(twin.Certificate), "Unlimited", "SANDBOX", now, me, nil)
	insert("first", 100, cert(), "Gold", "PRODUCTION", now, me, nil)
	insert("second", 101, cert(), "Gold", "PRODUCTION", now, me, nil)
	insert("nameless", 102, cert(), "Gold", "PRODUCTION", now, me, nil)
	// Rows of a deployed revision and of another tenant, which the Store does not see.
	insert("good", apiID, cert(), "Unlimited", "PRODUCTION", "deployed revision", me, nil)
	insert("good", apiID, cert(), "Unlimited", "PRODUCTION", now, 1, nil)

	clients, problems, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expectSame(t, clients, []certstore.Client{good, partner})
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
		if strings.Contains(p.String(), "SECRET") {
			t.Errorf("the problem quotes the certificate: %s", p)
		}
	}
	want := []string{
		`client "nameless" ("PRODUCTION") of API ":" in the store: its API is unknown`,
		`client "../x" ("PRODUCTION") of API "orders:1.0.0" in the store: alias "../x" looks like a path`,
		`client "copy" ("SANDBOX") of API "orders:1.0.0" in the store: its certificate is registered for that API more than once`,
		`client "damaged" ("PRODUCTION") of API "orders:1.0.0" in the store: PEM block is not well formed`,
		`client "empty" ("PRODUCTION") of API "orders:1.0.0" in the store: certificate is empty`,
		`client "lower" ("production") of API "orders:1.0.0" in the store: key type "production" is neither PRODUCTION nor SANDBOX`,
		`client "match" ("PRODUCTION") of API "orders:1.0.0" in the store: its match: match is not JSON as in {"dns":["*.partner.test"]}`,
		`client "match empty" ("PRODUCTION") of API "orders:1.0.0" in the store: its match: match is not JSON as in {"dns":["*.partner.test"]}`,
		`client "match of a leaf" ("PRODUCTION") of API "orders:1.0.0" in the store: match says which certificates of a CA count, and this certificate is no CA's: leave match out`,
		`client "match of none" ("PRODUCTION") of API "orders:1.0.0" in the store: its match: match has no key`,
		`client "no tier" ("PRODUCTION") of API "orders:1.0.0" in the store: tier is empty`,
		`client "scopes" ("PRODUCTION") of API "orders:1.0.0" in the store: scope is empty`,
		`client "twin" ("PRODUCTION") of API "orders:1.0.0" in the store: its certificate is registered for that API more than once`,
		`client "two" ("PRODUCTION") of API "orders:1.0.0" in the store: expected one PEM block and found 2`,
		`client "first" ("PRODUCTION") of API "twice:1" in the store: several APIs have that name and version`,
		`client "second" ("PRODUCTION") of API "twice:1" in the store: several APIs have that name and version`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}

	// The rows reported can be repaired or removed.
	if err := s.Update(t.Context(), orders, "", "damaged", newCertificate(t), "", nil); err != nil {
		t.Error(err)
	}
	if err := s.Update(t.Context(), orders, "", "no tier", nil, "Gold", nil); err != nil {
		t.Error(err)
	}
	if err := s.Update(t.Context(), orders, "", "scopes", nil, "", &[]string{"a"}); err != nil {
		t.Error(err)
	}
	if err := s.Update(t.Context(), orders, "", "match", nil, "Silver", nil); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("a match that can't be read was kept: %v", err)
	}
	if err := s.Change(t.Context(), orders, "", "match", certstore.Change{Match: partner.Match}); err != nil {
		t.Error(err)
	}
	for _, alias := range []string{"match empty", "match of a leaf", "match of none", "../x", "copy", "empty", "lower", "two"} {
		if _, err := s.Get(t.Context(), orders, "", alias); (err == nil) != (alias == "copy") {
			t.Errorf("get %q: %v", alias, err)
		}
		if err := s.Remove(t.Context(), orders, "", alias); err != nil {
			t.Error(err)
		}
	}
	clients, problems, err = s.List(t.Context())
	if err != nil || len(clients) != 7 || len(problems) != 3 {
		t.Errorf("after the repair: %d clients, %v, %v", len(clients), problems, err)
	}
}

// TestSchemaVersions opens databases that newer programs have migrated to versions this one does not know.
func TestSchemaVersions(t *testing.T) {
	path := newFile(t)
	client := newClient(t, "acme")
	s := open(t, "sqlite:"+path, certstore.Options{})
	add(t, s, client)
	raw := rawSQL(t, path)

	mustExec(t, raw, `ALTER TABLE AM_API_CLIENT_CERTIFICATE ADD COLUMN LATER TEXT`)
	mustExec(t, raw, `INSERT INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (98, 1)`)
	newer := open(t, "sqlite:"+path, certstore.Options{})
	expectList(t, newer, client)
	if err := newer.Update(t.Context(), orders, "", "acme", nil, "Silver", nil); err != nil {
		t.Errorf("a newer version that needs no newer program must stay usable: %v", err)
	}

	mustExec(t, raw, `INSERT INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (99, 99)`)
	for _, readOnly := range []bool{false, true} {
		_, err := certstore.Open(t.Context(), "sqlite:"+path, certstore.Options{ReadOnly: readOnly})
		if err == nil || !strings.Contains(err.Error(), "newer program") {
			t.Errorf("error is %v; want one that asks for a newer program", err)
		}
	}
	mustExec(t, raw, `DELETE FROM SALLYPORT_SCHEMA`)
	if _, err := certstore.Open(t.Context(), "sqlite:"+path, certstore.Options{}); err == nil {
		t.Error("opened without a version")
	}
}

// TestMatchKeepsOlderProgramsOut: a program that doesn't know LEAF_MATCH may use the database until a row has one. One that
// was opened for reading before the tables had the column sees it when they have.
func TestMatchKeepsOlderProgramsOut(t *testing.T) {
	path := versionOne(t)
	reader := open(t, "sqlite:"+path, certstore.Options{ReadOnly: true})
	s := open(t, "sqlite:"+path, certstore.Options{})
	acme, partner := newClient(t, "acme"), certstoretest.NewCA(t, "partner", "partner.test")
	needs := func(want bool) {
		t.Helper()
		var version, needs int
		if err := rawSQL(t, path).QueryRow(`SELECT MAX(VERSION), MAX(NEEDS) FROM SALLYPORT_SCHEMA`).Scan(&version, &needs); err != nil {
			t.Fatal(err)
		}
		if (needs > 1) != want || needs > version {
			t.Errorf("the tables of version %d need %d", version, needs)
		}
	}
	add(t, s, acme)
	needs(false)
	expectList(t, reader, acme)
	add(t, s, partner)
	needs(true)
	expectList(t, reader, acme, partner)
	got, err := reader.Get(t.Context(), orders, "", "partner")
	if err != nil {
		t.Fatal(err)
	}
	expectSame(t, []certstore.Client{got}, []certstore.Client{partner})
	add(t, open(t, "sqlite:"+path, certstore.Options{}), newClient(t, "zeta"))
}

// TestSchemaShape pins the columns that WSO2's tools expect, and that a client goes with its API.
func TestSchemaShape(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	client := newClient(t, "acme")
	client.Scopes = []string{"a", "b"}
	add(t, s, client)
	if err := s.Update(t.Context(), orders, "", "acme", nil, "Silver", nil); err != nil {
		t.Fatal(err)
	}
	raw := rawSQL(t, path)
	var got []string
	rows, err := raw.Query(`SELECT C.TENANT_ID || '|' || C.ALIAS || '|' || A.API_PROVIDER || '|' || A.API_NAME || '|' || A.API_VERSION || '|' ||
		C.REMOVED || '|' || C.TIER_NAME || '|' || C.KEY_TYPE || '|' || C.REVISION_UUID || '|' || C.SCOPES || '|' || substr(C.CERTIFICATE, 1, 27) || '|' || length(A.API_UUID)
		FROM AM_API_CLIENT_CERTIFICATE C JOIN AM_API A ON A.API_ID = C.API_ID ORDER BY C.REMOVED`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
	want := []string{
		"-1234|acme|sallyport|orders|1.0.0|0|Silver|PRODUCTION|Current API|a b|-----BEGIN CERTIFICATE-----|36",
		"-1234|acme|sallyport|orders|1.0.0|1|Gold|PRODUCTION|Current API|a b|-----BEGIN CERTIFICATE-----|36",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	mustExec(t, raw, `PRAGMA foreign_keys = ON; DELETE FROM AM_API`)
	expectList(t, s)
}

func TestReaderDoesNotWaitForWriter(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	client := newClient(t, "acme")
	add(t, s, client)
	writer, err := rawSQL(t, path).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, statement := range []string{`BEGIN IMMEDIATE`, `DELETE FROM AM_API_CLIENT_CERTIFICATE`} {
		if _, err := writer.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	expectList(t, s, client) // would end with "database is locked"
	expectList(t, open(t, "sqlite:"+path, certstore.Options{}), client)
	expectList(t, open(t, "sqlite:"+path, certstore.Options{ReadOnly: true}), client)
	if _, err := writer.ExecContext(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
}

// TestLogIsTurnedOnAgain opens a file that a backup tool has written without a write-ahead log.
func TestLogIsTurnedOnAgain(t *testing.T) {
	path, backup := newFile(t), newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	client := newClient(t, "acme")
	add(t, s, client)
	mustExec(t, rawSQL(t, path), `VACUUM INTO ?`, backup)
	expectList(t, open(t, "sqlite:"+backup, certstore.Options{}), client)
	var mode string
	if err := rawSQL(t, backup).QueryRow(`PRAGMA journal_mode`).Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode is %q, %v", mode, err)
	}
}

func TestReplacedFile(t *testing.T) {
	dir := t.TempDir()
	path, backup, away := filepath.Join(dir, "certs.db"), filepath.Join(dir, "backup.db"), filepath.Join(dir, "away.db")
	s := open(t, "sqlite:"+path, certstore.Options{})
	old, fresh := newClient(t, "old"), newClient(t, "fresh")
	add(t, s, old)
	mustExec(t, rawSQL(t, path), `VACUUM INTO ?`, backup)
	add(t, s, fresh)
	before := certstoretest.Version(t, s)

	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		move(path+suffix, away+suffix)
	}
	if _, _, err := s.List(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list while the file is away: %v", err)
	}
	if err := s.Add(t.Context(), newClient(t, "lost")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("add while the file is away: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made in its place: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), "no tables") {
		t.Errorf("list of an empty file: %v", err)
	}

	move(backup, path)
	expectList(t, s, old)
	if certstoretest.Version(t, s) == before {
		t.Error("the version is the same in another database")
	}
	next := newClient(t, "next")
	add(t, s, next)
	expectList(t, open(t, "sqlite:"+path, certstore.Options{}), next, old)
	expectList(t, open(t, "sqlite:"+away, certstore.Options{ReadOnly: true}), fresh, old)
}

func BenchmarkList(b *testing.B) {
	s := open(b, "sqlite::memory:", certstore.Options{})
	for i := range 1000 {
		add(b, s, newClient(b, fmt.Sprint("alias", i)))
	}
	for b.Loop() {
		if _, _, err := s.List(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAddBeside1000(b *testing.B) {
	s := open(b, "sqlite:"+newFile(b), certstore.Options{})
	for i := range 1000 {
		add(b, s, newClient(b, fmt.Sprint("alias", i)))
	}
	client := newClient(b, "one more")
	for b.Loop() {
		add(b, s, client)
		if err := s.Remove(context.Background(), orders, "", client.Alias); err != nil {
			b.Fatal(err)
		}
	}
}
