package main_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sallyport/internal/testdb"
)

// TestStoreOnAServer has the commands and a gateway share a database on a server that demands TLS, and takes it away.
func TestStoreOnAServer(t *testing.T) {
	for name, start := range map[string]func(testing.TB, testdb.Options) *testdb.Server{
		"PostgreSQL": testdb.Postgres, "MariaDB": testdb.MariaDB,
	} {
		t.Run(name, func(t *testing.T) {
			server := start(t, testdb.Options{TLS: true})
			db := server.New(t)
			d := newDemo(t, slow...)
			d.write("database.secret", db.Password)
			sqlite := "store: sqlite:sallyport.db"
			before, _, _ := strings.Cut(d.read("sallyport.yaml"), sqlite)
			store := fmt.Sprintf(`store: {url: "%s", password: "${file:database.secret}", caFile: %s}`, db.URL, server.CAFile)
			d.edit("sallyport.yaml", sqlite, store)
			expect := func(want int, words string, args ...string) {
				t.Helper()
				code, stdout, stderr := d.run(args...)
				if code != want || !strings.Contains(stdout+stderr, words) {
					t.Errorf("sallyport %s: exit code %d, want %d with %q\n%s%s", strings.Join(args, " "), code, want, words, stdout, stderr)
				}
				if strings.Contains(stdout+stderr, db.Password) {
					t.Errorf("sallyport %s shows the password", strings.Join(args, " "))
				}
			}
			expect(0, "", "validate")
			expect(0, "has no tables yet", "cert", "list")

			p, _ := d.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			gold := d.client("gold", dialects[0])
			if r := gold.get(t, "/payments/1"); r.status != http.StatusUnauthorized {
				t.Errorf("before the registration: %d", r.status)
			}
			expect(0, "", "cert", "add", "--api", "payments:1.0.0", "--alias", "gold", "--tier", "Gold", "clients/gold.crt")
			expect(0, "gold", "cert", "list")
			good := func() bool { return gold.get(t, "/payments/1").status == http.StatusOK }
			eventually(t, "the registration is in force", good)

			server.Kill()
			place := fmt.Sprintf("sallyport.yaml:%d:8: store: ", strings.Count(before, "\n")+1)
			expect(1, place, "validate")
			expect(1, place, "cert", "list")
			expect(1, place, "serve")
			eventually(t, "the store is called broken", func() bool { return p.metric(`sallyport_reload_good{what="store"}`) == "0" })
			if !good() {
				t.Error("without the store, what was registered is refused")
			}
			server.Restart()
			eventually(t, "the store is called good", func() bool { return p.metric(`sallyport_reload_good{what="store"}`) == "1" })
			expect(0, "", "cert", "remove", "--api", "payments:1.0.0", "--alias", "gold")
			eventually(t, "the removal is in force", func() bool { return gold.get(t, "/payments/1").status == http.StatusUnauthorized })
			d.swap("database.secret", "another")
			expect(2, "check the user and the password", "validate")
			p.stop()
		})
	}
}
