package main_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testdb"
	"sallyport/internal/testpki"
	"sallyport/internal/testredis"
)

// servers are the databases that are servers, by name.
var servers = map[string]func(testing.TB, testdb.Options) *testdb.Server{"PostgreSQL": testdb.Postgres, "MariaDB": testdb.MariaDB}

// storeAt has the demonstration keep its store in a database; more stands beside its URL.
func (d *demoFolder) storeAt(db testdb.Database, more string) {
	d.t.Helper()
	d.write("database.secret", db.Password)
	d.edit("sallyport.yaml", "store: sqlite:sallyport.db", fmt.Sprintf(`store: {url: "%s", password: "${file:database.secret}"%s}`, db.URL, more))
}

// A storeFault is something that happens to a database, and ends with what it returns.
type storeFault struct {
	name   string
	begin  func() (end func())
	unseen bool // a gateway can go on reading
	writes bool // and a writer writing
}

// storeFaults are those of a server behind a proxy.
func storeFaults(t *testing.T, server *testdb.Server, proxy *testredis.Toxiproxy, db testdb.Database) []storeFault {
	rename := func(from, to string) { server.Exec(t, db.Name, fmt.Sprintf("ALTER TABLE %s RENAME TO %s", from, to)) }
	return []storeFault{
		{name: "killed", begin: func() func() { server.Kill(); return server.Restart }},
		{name: "stopped", begin: func() func() { server.Pause(); return server.Resume }},
		{name: "cut off", begin: func() func() { proxy.Cut(); return proxy.Mend }},
		{name: "slow", begin: func() func() { proxy.Slow(7 * time.Second); return proxy.Clear }},
		{name: "out of connections", begin: func() func() {
			proxy.Cut()
			giveBack := server.TakeConnections(t, db)
			proxy.Mend()
			return giveBack
		}},
		{name: "read-only", unseen: true, begin: func() func() {
			server.SetReadOnly(t, true)
			proxy.Cut() // sessions that there are may not know of it yet
			proxy.Mend()
			return func() { server.SetReadOnly(t, false) }
		}},
		{name: "another schema", begin: func() func() {
			rename("SALLYPORT_CHANGE", "GONE")
			return func() { rename("GONE", "SALLYPORT_CHANGE") }
		}},
		{name: "locked", begin: func() func() { return lockTables(t, server, db) }},
		{name: "restarted", unseen: true, writes: true, begin: func() func() { server.Restart(); return func() {} }},
	}
}

// lockTables locks the tables of a database against everybody, readers too, as a change of their definition does.
func lockTables(t *testing.T, server *testdb.Server, db testdb.Database) (unlock func()) {
	t.Helper()
	conn, err := server.Open(t, db).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lock := []string{"LOCK TABLES SALLYPORT_CHANGE WRITE, AM_API_CLIENT_CERTIFICATE WRITE"}
	end := "UNLOCK TABLES"
	if strings.HasPrefix(db.URL, "postgres") {
		lock, end = []string{"BEGIN", "LOCK TABLE SALLYPORT_CHANGE, AM_API_CLIENT_CERTIFICATE IN ACCESS EXCLUSIVE MODE"}, "ROLLBACK"
	}
	for _, statement := range lock {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if _, err := conn.ExecContext(t.Context(), end); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
}

// TestChaosStores takes a gateway's database through everything that happens to databases, under load: no call fails, who
// writes learns soon that it didn't work, and what was acknowledged is there. The gateway is in step again when the
// database is back. Held: fault R8, security J 134 in part.
func TestChaosStores(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			server := start(t, testdb.Options{Connections: 20})
			db := server.New(t)
			proxy := testredis.Proxy(t, server.Address)
			near := db
			near.URL = strings.Replace(db.URL, server.Address, proxy.Address, 1)
			d := newDemo(t, slow...)
			d.storeAt(near, "")
			for _, api := range []string{"orders:1.0.0", "payments:1.0.0"} {
				d.mustRun("cert", "add", "--api", api, "--alias", "gold", "--tier", "Gold", "clients/gold.crt")
			}
			p, _ := d.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
			store, err := certstore.Source{URL: db.URL, Password: db.Password}.Open(t.Context(), certstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			payments := certstore.API{Name: "payments", Version: "1.0.0"}
			bronze := certstore.Client{
				API: payments, Alias: "bronze", KeyType: certstore.Production, Tier: "Gold", Certificate: d.certificate("clients/bronze.crt"),
			}
			probe := d.client("bronze", dialects[2])
			stop := d.load()
			for i, f := range storeFaults(t, server, proxy, db) {
				end := f.begin()
				alias := fmt.Sprint("fault", i)
				d.write(alias+".crt", string(testpki.SelfSigned(t, testpki.Leaf{CommonName: alias}).CertPEM()))
				began := time.Now()
				code, stdout, stderr := d.run("cert", "add", "--force", "--api", payments.String(), "--alias", alias, "--tier", "Gold", alias+".crt")
				took := time.Since(began)
				if took > time.Minute || code == 0 && !f.writes {
					t.Errorf("%s: cert add ends with %d after %v\n%s%s", f.name, code, took, stdout, stderr)
				}
				if !f.unseen {
					eventually(t, f.name+": the store is called broken, and its age grows", func() bool {
						return p.metric(`sallyport_reload_good{what="store"}`) == "0" && p.number("sallyport_store_age_seconds") > 1
					})
				}
				end()
				began = time.Now()
				expected := http.StatusOK
				if i%2 == 0 {
					eventually(t, f.name+": a registration is made", func() bool { return store.Add(t.Context(), bronze) == nil })
				} else {
					expected = http.StatusUnauthorized
					eventually(t, f.name+": a registration is removed", func() bool { return store.Remove(t.Context(), payments, "", "bronze") == nil })
				}
				eventually(t, f.name+": the gateway is in step again", func() bool { return probe.get(t, "/payments/1").status == expected })
				back := time.Since(began)
				if t.Logf("%s: cert add ended with %d after %.1fs, in step %.1fs after the return", f.name, code, took.Seconds(), back.Seconds()); back > 100*time.Second {
					t.Errorf("%s: the gateway was in step only after %v", f.name, back)
				}
				if _, err := store.Get(t.Context(), payments, "", alias); code == 0 && err != nil {
					t.Errorf("%s: what was acknowledged is not there: %v", f.name, err)
				}
				eventually(t, f.name+": the store is called good", func() bool { return p.good() })
			}
			stop()
			p.stopClean()
		})
	}
}

// TestTwoGatewaysOneStore: what is registered through one gateway's configuration is good at the other, and what is removed
// is refused there, on connections that are open as well.
func TestTwoGatewaysOneStore(t *testing.T) {
	db := testdb.Postgres(t, testdb.Options{}).New(t)
	backend := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	var gateways []*demoFolder
	for range 2 {
		d := newDemo(t, slow...)
		d.storeAt(db, "")
		d.serve(backend)
		gateways = append(gateways, d)
	}
	var clients []*client
	for _, how := range dialects {
		c := gateways[1].client("gold", how)
		if r := c.get(t, "/payments/1"); r.status != http.StatusUnauthorized {
			t.Errorf("before the registration: %d", r.status)
		}
		clients = append(clients, c)
	}
	within := func(status int) {
		t.Helper()
		began := time.Now()
		for _, c := range clients {
			eventually(t, fmt.Sprintf("status %d at the other gateway", status), func() bool { return c.get(t, "/payments/1").status == status })
		}
		took := time.Since(began)
		if t.Logf("status %d at the other gateway %v after the command", status, took); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	for range 2 {
		gateways[0].mustRun("cert", "add", "--api", "payments:1.0.0", "--alias", "gold", "--tier", "Gold", "clients/gold.crt")
		within(http.StatusOK)
		gateways[0].mustRun("cert", "remove", "--api", "payments:1.0.0", "--alias", "gold")
		within(http.StatusUnauthorized)
	}
	for _, c := range clients {
		if n := c.dials.Load(); n != 1 {
			t.Errorf("%s: %d connections", c.dialect, n)
		}
	}
}

// TestStartWithoutStore: a gateway that has a snapshot starts while its database is away, and refuses certificates of the
// store once they are older than maxAge; without one it doesn't start. Held: security J 134.
func TestStartWithoutStore(t *testing.T) {
	server := testdb.Postgres(t, testdb.Options{})
	db := server.New(t)
	d := newDemo(t, slow...)
	d.storeAt(db, ", snapshot: store.snapshot, maxAge: 10s")
	d.mustRun("cert", "add", "--api", "payments:1.0.0", "--alias", "gold", "--tier", "Gold", "clients/gold.crt")
	if code, _, stderr := d.run("validate"); code != 0 {
		t.Errorf("validate: %d\n%s", code, stderr)
	}
	p, _ := d.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	gold := func(status int) func() bool {
		c := d.client("gold", dialects[2])
		return func() bool { return c.get(t, "/payments/1").status == status }
	}
	eventually(t, "the registration is in force", gold(http.StatusOK))
	p.stop()
	server.Kill()

	p = start(t, d.Demo, "serve", "-c", d.ConfigFile)
	eventually(t, "the gateway is ready, and tells of the store", func() bool {
		status, text := p.status("/readyz")
		return status == http.StatusOK && strings.Contains(text, "store: ") && strings.Contains(text, "store.snapshot serve")
	})
	eventually(t, "its registrations are too old", gold(http.StatusServiceUnavailable))
	token := d.client("gold", dialects[2])
	if r := token.get(t, "/orders/1", d.bearer("valid")...); r.status != http.StatusOK {
		t.Errorf("with a token: %d", r.status)
	}
	if n := p.total("sallyport_refusals_total", `reason="registrations_stale"`); n == 0 || p.number("sallyport_store_age_seconds") < 10 {
		t.Error("no metric tells of it")
	}
	server.Restart()
	eventually(t, "the store is called good", func() bool { return p.good() })
	eventually(t, "the registration is in force again", gold(http.StatusOK))
	p.stop()

	server.Kill()
	d.must(os.Remove(d.path("store.snapshot")))
	if code, _, stderr := d.run("serve"); code != 1 || !strings.Contains(stderr, "store.snapshot") {
		t.Errorf("serve without a snapshot: %d\n%s", code, stderr)
	}
}
