package certstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
)

var orders = certstore.API{Name: "orders", Version: "1.0.0"}

var testKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

var serial atomic.Int64

// newCertificate makes a certificate that is like no other and valid until the time given.
func newCertificate(t testing.TB, until time.Time) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)),
		Subject:      pkix.Name{CommonName: "client"},
		NotBefore:    until.Add(-24 * time.Hour),
		NotAfter:     until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, testKey().Public(), testKey())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
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

func toPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

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

// patience is how long a test waits for a state before it fails.
const patience = 2 * time.Minute

// eventually waits until condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
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
