package certstore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
)

// TestCopy copies from one of our stores: scopes and key types come along.
func TestCopy(t *testing.T) {
	path, target := newFile(t), newFile(t)
	from, to := open(t, "sqlite:"+path, certstore.Options{}), open(t, "sqlite:"+target, certstore.Options{})
	acme, sandbox, gone := newClient(t, "acme"), newClient(t, "acme"), newClient(t, "gone")
	acme.Scopes = []string{"a", "b"}
	sandbox.KeyType, sandbox.API = certstore.Sandbox, certstore.API{Name: "other", Version: "2"}
	partner := certstoretest.NewCA(t, "partner", "partner.test")
	add(t, from, acme, sandbox, gone, partner)
	if err := from.Remove(t.Context(), orders, "", "gone"); err != nil {
		t.Fatal(err)
	}
	add(t, open(t, "sqlite:"+path, certstore.Options{TenantID: 3}), newClient(t, "theirs"))
	raw := rawSQL(t, path)
	mustExec(t, raw, `ALTER TABLE AM_API_CLIENT_CERTIFICATE ADD COLUMN NOTE TEXT`)
	damaged := newClient(t, "damaged")
	add(t, from, damaged)
	mustExec(t, raw, `UPDATE AM_API_CLIENT_CERTIFICATE SET TIER_NAME = NULL WHERE ALIAS = 'damaged'`)

	want := certstore.Copied{Added: 3, LeftOut: certstore.LeftOut{Tombstones: 1, OtherTenants: map[int]int{3: 1}, Columns: []string{"NOTE"}}}
	expect := func() {
		t.Helper()
		done, err := certstore.Copy(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		if len(done.LeftOut.Problems) != 1 || done.LeftOut.Problems[0].Alias != "damaged" {
			t.Errorf("problems: %v", done.LeftOut.Problems)
		}
		done.LeftOut.Problems = nil
		if diff := cmp.Diff(want, done); diff != "" {
			t.Errorf("-want +done:\n%s", diff)
		}
		expectList(t, to, acme, partner, sandbox)
	}
	expect()
	want.Added, want.Present = 0, 3
	expect()

	// What contradicts is named, and nothing is stored.
	late, twin := newClient(t, "late"), newClient(t, "twin")
	twin.Certificate = newCertificate(t)
	add(t, from, late, twin)
	if err := from.Update(t.Context(), orders, "", "acme", nil, "Silver", nil); err != nil {
		t.Fatal(err)
	}
	renamed := twin
	renamed.Alias = "renamed"
	add(t, to, renamed)
	if err := from.Change(t.Context(), orders, "", "partner", certstore.Change{Match: certstoretest.NewCA(t, "other", "other.test").Match}); err != nil {
		t.Fatal(err)
	}
	_, err := certstore.Copy(t.Context(), from, to)
	if !errors.Is(err, certstore.ErrAliasTaken) || !errors.Is(err, certstore.ErrRegistered) ||
		!strings.Contains(err.Error(), `"acme"`) || !strings.Contains(err.Error(), `"twin"`) || !strings.Contains(err.Error(), `"partner"`) {
		t.Errorf("copy of what contradicts: %v", err)
	}
	expectList(t, to, acme, partner, renamed, sandbox)

	reader := open(t, "sqlite:"+target, certstore.Options{ReadOnly: true})
	if _, err := certstore.Copy(t.Context(), from, reader); !errors.Is(err, certstore.ErrReadOnly) {
		t.Errorf("copy to what is only read: %v", err)
	}
}

// TestCopyValues copies what a cluster keeps by name, and not its leases. What the target has stays, and is named if it is
// another one. WSO2's database has none, nor has one that only an older program has opened.
func TestCopyValues(t *testing.T) {
	path := newFile(t)
	from, to := open(t, "sqlite:"+path, certstore.Options{}), open(t, "sqlite:"+newFile(t), certstore.Options{})
	certstoretest.PutValue(t, from, "acme/cert", "theirs")
	certstoretest.PutValue(t, from, "acme/empty", "")
	certstoretest.PutValue(t, from, "acme/key", "k")
	certstoretest.PutValue(t, to, "acme/cert", "ours")
	certstoretest.PutValue(t, to, "acme/other", "o")
	if held, err := from.AcquireLease(t.Context(), "issue", "a", time.Hour); err != nil || !held {
		t.Fatal(held, err)
	}
	was, err := from.Value(t.Context(), "acme/key")
	if err != nil {
		t.Fatal(err)
	}
	copies := func(added int, differ ...string) {
		t.Helper()
		done, err := certstore.Copy(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		if done.Values != added || !slices.Equal(done.LeftOut.Values, differ) {
			t.Errorf("%d values copied, %v left out; want %d and %v", done.Values, done.LeftOut.Values, added, differ)
		}
	}
	copies(2, "acme/cert")
	certstoretest.ExpectValue(t, to, "acme/cert", "ours")
	certstoretest.ExpectValue(t, to, "acme/empty", "")
	certstoretest.ExpectValue(t, to, "acme/key", "k")
	certstoretest.ExpectNames(t, to, "", "acme/cert", "acme/empty", "acme/key", "acme/other")
	if is, err := to.Value(t.Context(), "acme/key"); err != nil || !is.Modified.Equal(was.Modified) {
		t.Errorf("the copy is of %v, the value of %v, %v", is.Modified, was.Modified, err)
	}
	if held, err := to.AcquireLease(t.Context(), "issue", "b", time.Hour); err != nil || !held {
		t.Errorf("a lease came along: %v, %v", held, err)
	}
	copies(0, "acme/cert")

	// With a registration that contradicts, no value is copied either.
	add(t, from, newClient(t, "acme"))
	add(t, to, newClient(t, "acme"))
	certstoretest.PutValue(t, from, "late", "l")
	if _, err := certstore.Copy(t.Context(), from, to); !errors.Is(err, certstore.ErrAliasTaken) {
		t.Errorf("copy of what contradicts: %v", err)
	}
	certstoretest.ExpectNames(t, to, "late")

	mustExec(t, rawSQL(t, path), `DROP TABLE SALLYPORT_VALUE`)
	if err := from.Remove(t.Context(), orders, "", "acme"); err != nil {
		t.Fatal(err)
	}
	copies(0)
}

// TestSchema: the statements for every kind of database make the same columns with the same key, and the reader reads
// what they make.
func TestSchema(t *testing.T) {
	const key = "ALIAS TENANT_ID KEY_TYPE REMOVED REVISION_UUID"
	for _, dialect := range []string{"mysql", "mysql-ndb", "postgres", "mssql", "oracle", "oracle-rac", "db2", "h2"} {
		schema, err := certstore.WSO2Schema(dialect)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(schema, "{}") {
			t.Errorf("%s has braces:\n%s", dialect, schema)
		}
		_, second, _ := strings.Cut(schema, "CREATE TABLE AM_API_CLIENT_CERTIFICATE")
		d := parseDefinition(t, "CREATE TABLE AM_API_CLIENT_CERTIFICATE"+second)
		if got := strings.Join(d.key, " "); got != key || len(d.columns) != 8 {
			t.Errorf("%s: key %q, %d columns: %v", dialect, got, len(d.columns), d.columns)
		}
	}
	if _, err := certstore.WSO2Schema("access"); !errors.Is(err, certstore.ErrInvalid) || !strings.Contains(err.Error(), "oracle-rac") {
		t.Errorf("an unknown dialect: %v", err)
	}
}
