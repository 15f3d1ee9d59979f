package certstore_test

import (
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/certstore"
)

// versionOne makes a database as programs that know only version 1 of the tables do, with a row for each client.
func versionOne(t testing.TB, clients ...certstore.Client) (path string) {
	t.Helper()
	path = newFile(t)
	raw := rawSQL(t, path)
	tables, err := os.ReadFile("sqlite/001_client_certificates.sql")
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, raw, string(tables))
	mustExec(t, raw, `INSERT INTO AM_API (API_UUID, API_PROVIDER, API_NAME, API_VERSION) VALUES ('u', 'sallyport', ?, ?)`, orders.Name, orders.Version)
	for _, c := range clients {
		addAsVersionOne(t, raw, c.Alias, toPEM(c.Certificate))
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// addAsVersionOne adds a client to the only API with the statement of a program that knows only version 1.
func addAsVersionOne(t testing.TB, raw *sql.DB, alias string, cert []byte) {
	t.Helper()
	mustExec(t, raw, `INSERT INTO AM_API_CLIENT_CERTIFICATE
		(TENANT_ID, ALIAS, API_ID, CERTIFICATE, REMOVED, TIER_NAME, KEY_TYPE, REVISION_UUID, SCOPES)
		SELECT ?, ?, API_ID, ?, ?, ?, ?, ?, ? FROM AM_API`,
		-1234, alias, cert, false, "Gold", "PRODUCTION", "Current API", nil)
}

// fingerprints returns the fingerprint column by alias; "" stands for NULL.
func fingerprints(t testing.TB, raw *sql.DB) map[string]string {
	t.Helper()
	rows, err := raw.QueryContext(t.Context(), `SELECT ALIAS, FINGERPRINT FROM AM_API_CLIENT_CERTIFICATE WHERE REMOVED = 0`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := make(map[string]string)
	for rows.Next() {
		var alias string
		var fingerprint sql.NullString
		if err := rows.Scan(&alias, &fingerprint); err != nil {
			t.Fatal(err)
		}
		found[alias] = fingerprint.String
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

func hexFingerprint(c certstore.Client) string {
	sum := certstore.Fingerprint(c.Certificate)
	return hex.EncodeToString(sum[:])
}

func expectRegistered(t testing.TB, s *certstore.Store, holder certstore.Client) {
	t.Helper()
	again := newClient(t, "again")
	again.Certificate = holder.Certificate
	err := s.Add(t.Context(), again)
	if want := fmt.Sprintf("as %q", holder.Alias); !errors.Is(err, certstore.ErrRegistered) || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v; want ErrRegistered %s", err, want)
	}
}

// TestMigrateToFingerprints opens a database of version 1. Its certificates are recognised: at first by reading every row,
// then by the fingerprints that this fills in.
func TestMigrateToFingerprints(t *testing.T) {
	acme, other, removed := newClient(t, "acme"), newClient(t, "other"), newClient(t, "removed")
	path := versionOne(t, acme, other, removed)
	raw := rawSQL(t, path)
	addAsVersionOne(t, raw, "damaged", []byte("-----BEGIN CERTIFICATE-----\n"))
	mustExec(t, raw, `UPDATE AM_API_CLIENT_CERTIFICATE SET REMOVED = 1 WHERE ALIAS = 'removed'`)

	reader := open(t, "sqlite:"+path, certstore.Options{ReadOnly: true}) // version 1 is enough to read
	s := open(t, "sqlite:"+path, certstore.Options{})
	for _, s := range []*certstore.Store{reader, s} {
		clients, problems, err := s.List(t.Context())
		if err != nil || len(problems) != 1 {
			t.Errorf("list: %v, %v", problems, err)
		}
		expectSame(t, clients, []certstore.Client{acme, other})
	}
	expectRegistered(t, s, acme)
	add(t, s, removed) // the certificate of a tombstone may be registered again
	if diff := cmp.Diff(map[string]string{
		"acme": hexFingerprint(acme), "other": hexFingerprint(other), "removed": hexFingerprint(removed), "damaged": "",
	}, fingerprints(t, raw)); diff != "" {
		t.Errorf("fingerprints (-want +got):\n%s", diff)
	}
	expectRegistered(t, s, acme)
	expectRegistered(t, s, other)
	expectRegistered(t, s, removed)
	clients, _, err := reader.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expectSame(t, clients, []certstore.Client{acme, other, removed})
}

// TestOldProgramBeside has a program that knows only version 1 write to the same database.
func TestOldProgramBeside(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	raw := rawSQL(t, path)
	mine, old, next := newClient(t, "mine"), newClient(t, "old"), newClient(t, "next")
	add(t, s, mine)
	for name, form := range storedForms(old.Certificate) {
		addAsVersionOne(t, raw, old.Alias, form)
		t.Run(name, func(t *testing.T) { expectRegistered(t, s, old) })
		mustExec(t, raw, `DELETE FROM AM_API_CLIENT_CERTIFICATE WHERE ALIAS = ?`, old.Alias)
	}
	addAsVersionOne(t, raw, old.Alias, toPEM(old.Certificate))
	if err := s.Update(t.Context(), orders, "", "mine", old.Certificate, "", nil); !errors.Is(err, certstore.ErrRegistered) {
		t.Errorf("update: %v", err)
	}
	add(t, s, next)
	expectList(t, s, mine, next, old)

	// What the old program removes can be added again.
	mustExec(t, raw, `UPDATE AM_API_CLIENT_CERTIFICATE SET REMOVED = 1 WHERE ALIAS = 'mine'`)
	moved := newClient(t, "moved")
	moved.Certificate = mine.Certificate
	add(t, s, moved)
	expectList(t, s, moved, next, old)
	needs := 0
	if err := raw.QueryRow(`SELECT max(NEEDS) FROM SALLYPORT_SCHEMA`).Scan(&needs); err != nil || needs != 1 {
		t.Errorf("the tables need a program that knows version %d, %v", needs, err)
	}
}

// TestCertificateReplacedInPlace has another program replace the certificate of a row.
func TestCertificateReplacedInPlace(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	raw := rawSQL(t, path)
	acme := newClient(t, "acme")
	add(t, s, acme)
	was := acme.Certificate
	acme.Certificate = newCertificate(t)
	mustExec(t, raw, `UPDATE AM_API_CLIENT_CERTIFICATE SET CERTIFICATE = ?`, toPEM(acme.Certificate))
	expectRegistered(t, s, acme)
	next := newClient(t, "next")
	next.Certificate = was
	add(t, s, next)
	expectList(t, s, acme, next)

	// A fingerprint that does not belong to the certificate of its row blocks nobody.
	third := newClient(t, "third")
	mustExec(t, raw, `UPDATE AM_API_CLIENT_CERTIFICATE SET FINGERPRINT = ? WHERE ALIAS = 'acme'`, hexFingerprint(third))
	add(t, s, third)
	expectList(t, s, acme, next, third)
}

// TestListAgain: List reads certificates once, and yet returns what the database holds, whoever has changed it in
// whatever way.
func TestListAgain(t *testing.T) {
	path := newFile(t)
	s, raw := open(t, "sqlite:"+path, certstore.Options{}), rawSQL(t, path)
	a, b := newClient(t, "a"), newClient(t, "b")
	add(t, s, a, b)
	expectList(t, s, a, b)
	list := func() []certstore.Client {
		t.Helper()
		clients, _, err := s.List(t.Context())
		if err != nil || len(clients) != 2 {
			t.Fatal(clients, err)
		}
		return clients
	}
	before := list()
	if after := list(); after[0].Certificate != before[0].Certificate || after[1].Certificate != before[1].Certificate {
		t.Error("a certificate was parsed again")
	}
	const one = `UPDATE AM_API_CLIENT_CERTIFICATE SET `
	change := func(set string, args ...any) {
		t.Helper()
		mustExec(t, raw, one+set+` WHERE ALIAS = 'a' AND REMOVED = 0`, args...)
	}
	a.Certificate = newClient(t, "a").Certificate
	change(`CERTIFICATE = ?`, toPEM(a.Certificate))
	expectList(t, s, a, b)
	if after := list(); after[1].Certificate != before[1].Certificate {
		t.Error("the other certificate was parsed again")
	}
	a.Tier = "Bronze"
	change(`TIER_NAME = 'Bronze'`)
	expectList(t, s, a, b)
	a.Scopes = []string{"x", "y"}
	change(`SCOPES = 'x y'`)
	expectList(t, s, a, b)
	change(`CERTIFICATE = 'none'`)
	if _, problems, err := s.List(t.Context()); err != nil || len(problems) != 1 || problems[0].Alias != "a" {
		t.Errorf("a certificate that can't be read: %v, %v", problems, err)
	}
	change(`CERTIFICATE = ?`, toPEM(a.Certificate))
	expectList(t, s, a, b)
	mustExec(t, raw, `UPDATE AM_API SET API_NAME = 'renamed'`)
	a.API.Name, b.API.Name = "renamed", "renamed"
	expectList(t, s, a, b)
	mustExec(t, raw, `DELETE FROM AM_API_CLIENT_CERTIFICATE WHERE ALIAS = 'a'`)
	expectList(t, s, b)
	add(t, s, a)
	expectList(t, s, a, b)
}
