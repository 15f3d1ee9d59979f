package certstoretest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

// Fill registers n certificates of tier Gold with a SQLite file, which has its tables, in turn for each of the APIs. To
// be quick it does so by one transaction, and signs one certificate only: the others are it with other serial numbers.
func Fill(t testing.TB, path string, n int, apis ...certstore.API) {
	t.Helper()
	const last = uint64(0x7123456789abcdef)
	leaf := testpki.NewCA(t, "Many").Issue(testpki.Leaf{
		CommonName: "partner", Change: func(c *x509.Certificate) { c.SerialNumber = new(big.Int).SetUint64(last) },
	}).Cert.Raw
	serial := bytes.Index(leaf, binary.BigEndian.AppendUint64(nil, last))

	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	exec := func(statement string, args ...any) {
		if _, err := tx.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, api := range apis {
		exec(`INSERT INTO AM_API (API_UUID, API_PROVIDER, API_NAME, API_VERSION) VALUES (?, 'many', ?, ?)`, api.String(), api.Name, api.Version)
	}
	for i := range n {
		binary.BigEndian.PutUint64(leaf[serial:], last-1-uint64(i))
		fingerprint, api := sha256.Sum256(leaf), apis[i%len(apis)]
		exec(`INSERT INTO AM_API_CLIENT_CERTIFICATE (TENANT_ID, ALIAS, API_ID, CERTIFICATE, REMOVED, TIER_NAME, FINGERPRINT)
			SELECT -1234, ?, API_ID, ?, 0, 'Gold', ? FROM AM_API WHERE API_UUID = ?`,
			fmt.Sprint("partner", i), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}),
			hex.EncodeToString(fingerprint[:]), api.String())
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}
