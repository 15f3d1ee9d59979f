package main_test

import (
	"crypto/sha256"
	"database/sql"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestStoreOfWSO2 serves what WSO2 has registered, from a file that the program leaves as it is. WSO2's changes are taken
// up; the commands' own are refused.
func TestStoreOfWSO2(t *testing.T) {
	d := newDemo(t, append(fiveAYear, "store: sqlite:sallyport.db", "store: sqlite:wso2.db")...)
	file := d.path("wso2.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"api", "h2"} {
		statements, err := os.ReadFile("../../certstore/testdata/wso2/2.6/" + name + ".sql")
		if err != nil {
			t.Fatal(err)
		}
		exec(string(statements))
	}
	exec(`INSERT INTO AM_API (API_ID, API_NAME, API_VERSION) VALUES (1, 'orders', '1.0.0')`)
	register := func(alias, tier string, tenant int) {
		t.Helper()
		exec(`INSERT INTO AM_API_CLIENT_CERTIFICATE (TENANT_ID, ALIAS, API_ID, CERTIFICATE, TIER_NAME) VALUES (?, ?, 1, ?, ?)`,
			tenant, alias, d.read("clients/"+alias+".crt"), tier)
	}
	register("gold", "Gold", -1234)
	register("trial", "Trial", -1234)
	register("bronze", "Platinum", -1234)
	register("gold", "Gold", 5)
	sum := func() [32]byte { return sha256.Sum256([]byte(d.read("wso2.db"))) }
	before := sum()

	expect := func(want int, args []string, words ...string) {
		t.Helper()
		code, stdout, stderr := d.run(args...)
		for _, word := range words {
			if code != want || !strings.Contains(stdout+stderr, word) {
				t.Errorf("sallyport %s: exit code %d, want %d with %q\n%s%s", strings.Join(args, " "), code, want, word, stdout, stderr)
			}
		}
	}
	const others = "tenant 5 has registrations, which are not served: 1"
	expect(0, []string{"validate"}, others, "Platinum", "3 client certificates")
	expect(0, []string{"cert", "list"}, "gold", "note: "+others)
	expect(0, []string{"explain", "--api", "orders:1.0.0", "--cert", "clients/gold.crt"}, "registered as gold, tier Gold, PRODUCTION (store)")
	whose := "another program's, the database of WSO2"
	expect(1, []string{"cert", "add", "--api", "orders:1.0.0", "--alias", "new", "--tier", "Gold", "clients/trial2.crt"}, whose)
	expect(1, []string{"cert", "remove", "--api", "orders:1.0.0", "--alias", "gold"}, whose)
	expect(1, []string{"cert", "deny", "add", "--certificate", "clients/gold.crt"}, "the database of WSO2", "a store of its own", "revocation list")
	expect(1, []string{"cert", "deny", "remove", "--certificate", "clients/gold.crt"}, "the database of WSO2")
	expect(0, []string{"cert", "deny", "list"}, "the deny list names nothing")
	if err := os.Chmod(file, 0o400); err != nil { // a file that can't be written is no problem
		t.Fatal(err)
	}
	expect(0, []string{"validate"}, "3 client certificates")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}

	p, _ := d.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, want := range map[string]int{"gold": http.StatusOK, "trial": http.StatusOK, "trial2": http.StatusUnauthorized} {
		if r := d.client(name, dialects[0]).get(t, "/orders/1"); r.status != want {
			t.Errorf("%s: status %d, want %d", name, r.status, want)
		}
	}
	eventually(t, "the log says that quotas are not stored", func() bool { return p.stderr.contains("day and month quotas are not stored") })
	if sum() != before {
		t.Error("the database was changed")
	}
	exec(`UPDATE AM_API_CLIENT_CERTIFICATE SET REMOVED = 1 WHERE ALIAS = 'gold' AND TENANT_ID = -1234`)
	register("trial2", "Silver", -1234)
	status := func(name string) int { return d.client(name, dialects[0]).get(t, "/orders/1").status }
	eventually(t, "a removal is in force", func() bool { return status("gold") == http.StatusUnauthorized })
	eventually(t, "a registration is in force", func() bool { return status("trial2") == http.StatusOK })
	before = sum()
	p.stop()
	if sum() != before {
		t.Error("the database was changed at the end")
	}
	if n := strings.Count(p.stderr.String(), "quotas are not stored"); n != 1 {
		t.Errorf("the log says %d times that quotas are not stored", n)
	}
}
