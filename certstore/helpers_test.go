package certstore_test

import (
	"crypto/x509"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

var orders = certstore.API{Name: "orders", Version: "1.0.0"}

// newCertificate makes a certificate that is like no other and valid until the time given.
func newCertificate(t testing.TB, until time.Time) *x509.Certificate {
	t.Helper()
	return testpki.SelfSigned(t, testpki.Leaf{CommonName: "client", NotAfter: until}).Cert
}

// validCertificate makes a certificate that is like no other and valid now.
func validCertificate(t testing.TB) *x509.Certificate {
	t.Helper()
	return newCertificate(t, time.Now().Add(12*time.Hour))
}

// newClient is a complete registration for orders, of a certificate like no other.
func newClient(t testing.TB, alias string) certstore.Client {
	t.Helper()
	return certstore.Client{
		API: orders, Alias: alias, KeyType: certstore.Production, Tier: "Gold",
		Certificate: validCertificate(t), Source: "store",
	}
}

func toPEM(cert *x509.Certificate) []byte { return testpki.PEM(cert) }

func open(t testing.TB, url string, opts certstore.Options) *certstore.Store {
	t.Helper()
	s, err := certstore.Open(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func newFile(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "certs.db")
}

// rawSQL is another program at the file of a Store.
func rawSQL(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(5000)")
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

// eventually waits until condition holds. The deadline is there for a test that would hang, not to measure.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}
