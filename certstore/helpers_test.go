package certstore_test

import (
	"crypto/x509"
	"database/sql"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"sallyport/certstore/certstoretest"
	"sallyport/internal/testpki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The vocabulary of the conformance test, for what is not part of it.
var (
	orders     = certstoretest.Orders
	newClient  = certstoretest.NewClient
	open       = certstoretest.Open
	add        = certstoretest.Add
	expectList = certstoretest.ExpectList
	expectSame = certstoretest.ExpectSame
)

func newCertificate(t testing.TB) *x509.Certificate {
	t.Helper()
	return testpki.SelfSigned(t, testpki.Leaf{}).Cert
}

func toPEM(cert *x509.Certificate) []byte { return testpki.PEM(cert) }

func newFile(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "certs.db")
}

// rawSQL opens the file of a Store as another program does.
func rawSQL(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(120000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func mustExec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}
