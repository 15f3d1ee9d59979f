package testdb

import (
	"context"
	"database/sql"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

func TestServer(t *testing.T) {
	each(t, Options{}, map[string]func(*testing.T, *Server){
		"databases are apart": databasesAreApart,
		"paused":              paused,
		"read-only":           readOnly,
	})
}

func TestStrictServer(t *testing.T) {
	each(t, Options{TLS: true, Durable: true, Connections: 10}, map[string]func(*testing.T, *Server){
		"demands TLS":                    demandsTLS,
		"has no connections left":        withoutConnections,
		"keeps what it has acknowledged": keepsWhatItAcknowledged,
	})
}

// each runs tests one after the other with a server of each kind.
func each(t *testing.T, o Options, tests map[string]func(*testing.T, *Server)) {
	t.Parallel()
	for kind, start := range map[string]func(testing.TB, Options) *Server{"postgres": Postgres, "mariadb": MariaDB} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := start(t, o)
			for name, test := range tests {
				t.Run(name, func(t *testing.T) { test(t, s) })
			}
			s.Pause() // it ends all the same
		})
	}
}

func mustExec(t *testing.T, pool *sql.DB, statement string) {
	t.Helper()
	if _, err := pool.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func databasesAreApart(t *testing.T, s *Server) {
	one, two := s.New(t), s.New(t)
	mustExec(t, s.Open(t, one), "CREATE TABLE t (n int)")
	mustExec(t, s.Open(t, two), "CREATE TABLE t (n int)")
	s.Exec(t, one.Name, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (null)")
	if got := s.Query(t, one.Name, "SELECT n, 'é' FROM t"); got != "1\té\n\té" {
		t.Errorf("rows: %q", got)
	}
	if got := s.Query(t, two.Name, "SELECT count(*) FROM t"); got != "0" {
		t.Errorf("the other database has %s rows", got)
	}
	if err := s.exec(s.kind.admin(), "SELECT 1; SELECT nonsense"); err == nil {
		t.Error("a wrong statement after a right one is no error")
	}
	for what, d := range map[string]Database{
		"a stranger":             {Name: one.Name, User: two.User, Password: two.Password},
		"without a password":     {Name: one.Name, User: one.User},
		"with a wrong one":       {Name: one.Name, User: one.User, Password: two.Password},
		"of no database":         {Name: "none", User: one.User, Password: one.Password},
		"the system's by a user": {Name: "mysql", User: one.User, Password: one.Password},
	} {
		if err := s.Open(t, d).PingContext(t.Context()); err == nil {
			t.Errorf("%s is let in", what)
		}
	}
	u, err := url.Parse(one.URL)
	if err != nil || u.Host != s.Address || u.User.String() != one.User || u.Path != "/"+one.Name {
		t.Errorf("URL %s: %v", one.URL, err)
	}
}

func keepsWhatItAcknowledged(t *testing.T, s *Server) {
	d := s.New(t)
	pool := s.Open(t, d)
	pool.SetMaxIdleConns(0) // no connection is older than the server
	mustExec(t, pool, "CREATE TABLE t (n int)")
	for _, end := range []func(){s.Kill, s.Stop, func() {}} { // Restart kills one that runs
		mustExec(t, pool, "INSERT INTO t VALUES (1)")
		end()
		s.Restart()
	}
	if got := s.Query(t, d.Name, "SELECT count(*) FROM t"); got != "3" {
		t.Errorf("%s rows, want 3", got)
	}
	s.Kill()
	if err := pool.PingContext(t.Context()); err == nil {
		t.Error("a killed server answers")
	}
	s.Restart()
}

func paused(t *testing.T, s *Server) {
	pool := s.Open(t, s.New(t))
	mustExec(t, pool, "CREATE TABLE t (n int)")
	s.Pause()
	fresh := s.Open(t, s.kind.admin())
	for what, p := range map[string]*sql.DB{"an old": pool, "a new": fresh} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := p.ExecContext(ctx, "SELECT 1"); err == nil {
			t.Errorf("a paused server answers on %s connection", what)
		}
		cancel()
	}
	s.Resume()
	mustExec(t, pool, "INSERT INTO t VALUES (1)")
}

func demandsTLS(t *testing.T, s *Server) {
	d := s.New(t)
	if err := s.Open(t, d).PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "ca.pem")
	testserver.Write(t, other, string(testpki.PEM(testpki.NewCA(t, "Another CA").Cert)))
	for what, client := range map[string]*Server{
		"without TLS":               {Address: s.Address, kind: s.kind},
		"that does not know the CA": {Address: s.Address, kind: s.kind, CAFile: other},
	} {
		if err := client.Open(t, d).PingContext(t.Context()); err == nil {
			t.Errorf("a client %s is served", what)
		}
	}
}

func withoutConnections(t *testing.T, s *Server) {
	d := s.New(t)
	pool := s.Open(t, d)
	pool.SetMaxIdleConns(0)
	kept, err := s.Open(t, d).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	s.LimitConnections(t, d, 1)
	if err := pool.PingContext(t.Context()); err == nil {
		t.Error("a second connection is made where one may")
	}
	s.LimitConnections(t, d, 0)
	if err := kept.PingContext(t.Context()); err != nil {
		t.Errorf("the limit ends a connection: %v", err)
	}
	if err := pool.PingContext(t.Context()); err == nil {
		t.Error("a connection is made where none may")
	}
	s.LimitConnections(t, d, -1)
	mustExec(t, pool, "SELECT 1")

	giveBack := s.TakeConnections(t, d)
	if err := pool.PingContext(t.Context()); !s.kind.full(err) {
		t.Errorf("without a connection left: %v", err)
	}
	giveBack()
	testserver.Eventually(t, "a connection is free", func() error { return pool.PingContext(t.Context()) })

	s.DropConnections(t)
	if _, err := kept.ExecContext(t.Context(), "SELECT 1"); err == nil {
		t.Error("a connection outlives DropConnections")
	}
}

func readOnly(t *testing.T, s *Server) {
	d := s.New(t)
	pool := s.Open(t, d)
	pool.SetMaxIdleConns(0)
	mustExec(t, pool, "CREATE TABLE t (n int)")
	s.SetReadOnly(t, true)
	_, err := pool.ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
	if err == nil || !strings.Contains(err.Error(), "read") {
		t.Errorf("a read-only server: %v", err)
	}
	s.Exec(t, d.Name, "INSERT INTO t VALUES (2)")
	s.SetReadOnly(t, false)
	mustExec(t, pool, "INSERT INTO t VALUES (3)")
	if got := s.Query(t, d.Name, "SELECT n FROM t ORDER BY n"); got != "2\n3" {
		t.Errorf("rows: %q", got)
	}
}
