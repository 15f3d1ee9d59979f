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

// each runs a test with each kind of server.
func each(t *testing.T, o Options, test func(*testing.T, *Server)) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, Options) *Server{"postgres": Postgres, "mariadb": MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t, o))
		})
	}
}

func mustExec(t *testing.T, pool *sql.DB, statement string) {
	t.Helper()
	if _, err := pool.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestDatabasesAreApart(t *testing.T) {
	each(t, Options{}, func(t *testing.T, s *Server) {
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
	})
}

func TestServerKeepsWhatItAcknowledged(t *testing.T) {
	each(t, Options{Durable: true}, func(t *testing.T, s *Server) {
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
	})
}

func TestServerThatPauses(t *testing.T) {
	each(t, Options{}, func(t *testing.T, s *Server) {
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
		s.Pause() // and ends all the same
	})
}

func TestServerDemandsTLS(t *testing.T) {
	each(t, Options{TLS: true}, func(t *testing.T, s *Server) {
		d := s.New(t)
		if err := s.Open(t, d).PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(t.TempDir(), "ca.pem")
		testserver.Write(t, other, string(testpki.PEM(testpki.NewCA(t, "Another CA").Cert)))
		for what, client := range map[string]*Server{
			"without TLS":                 {Address: s.Address, kind: s.kind},
			"that does not know the CA":   {Address: s.Address, kind: s.kind, CAFile: other},
			"that asks for the IPv6 host": {Address: strings.Replace(s.Address, "127.0.0.1", "[::1]", 1), kind: s.kind, CAFile: s.CAFile},
		} {
			if err := client.Open(t, d).PingContext(t.Context()); err == nil {
				t.Errorf("a client %s is served", what)
			}
		}
	})
}

func TestServerWithoutConnections(t *testing.T) {
	each(t, Options{Connections: 10}, func(t *testing.T, s *Server) {
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

		giveBack := s.TakeConnections(t)
		if err := pool.PingContext(t.Context()); !s.kind.full(err) {
			t.Errorf("without a connection left: %v", err)
		}
		giveBack()
		testserver.Eventually(t, "a connection is free", func() error { return pool.PingContext(t.Context()) })

		s.DropConnections(t)
		if _, err := kept.ExecContext(t.Context(), "SELECT 1"); err == nil {
			t.Error("a connection outlives DropConnections")
		}
	})
}

func TestServerThatIsReadOnly(t *testing.T) {
	each(t, Options{}, func(t *testing.T, s *Server) {
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
	})
}
