// Package testdb starts PostgreSQL and MariaDB for tests.
//
//	server := testdb.Postgres(t, testdb.Options{TLS: true})
//	database := server.New(t) // database.URL, database.Password
//	server.Kill()
//	server.Restart()
//
// Servers are processes of their own on free ports of 127.0.0.1, which end with the test; none uses the port or the data
// of one that the system runs. As neither lets itself be started by root, root starts them as the users postgres and
// mysql. A server that is not installed skips the test, or fails it if CI=true.
package testdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

// Options are the settings of a server. Their zero value is a server without TLS that does not wait for its disk.
type Options struct {
	TLS         bool // the server demands TLS; clients show no certificate
	Durable     bool // a commit waits for the disk; without, it outlives Kill, but not the end of the system
	Connections int  // how many it has; 0 means 100, and MariaDB has 10 at least
}

func (o Options) connections() int {
	if o.Connections == 0 {
		return 100
	}
	return o.Connections
}

// A Server is a running server.
type Server struct {
	Address string // 127.0.0.1 and a port
	CAFile  string // with TLS: the file of the CA's certificate, which names 127.0.0.1 and localhost

	t         testing.TB
	kind      kind
	process   testserver.Process
	databases atomic.Int64
}

// A Database belongs to its user, who may do everything in it, and nothing outside.
type Database struct {
	URL      string // postgres://User@127.0.0.1:port/Name or mysql://User@127.0.0.1:port/Name
	Password string // has characters that a URL would have to escape
	Name     string
	User     string
}

// A kind is what PostgreSQL and MariaDB do each in its own way.
type kind interface {
	scheme() string  // of URLs
	admin() Database // the administrator's user and password, and the database where they begin
	connector(s *Server, d Database) (driver.Connector, error)
	create(d Database) (statements []string)
	limitConnections(d Database, n int) (statements []string)
	dropConnections(ctx context.Context, admin *sql.DB) error
	full(err error) bool // whether a connection was refused because there are too many
	setReadOnly(on bool) (statements []string)
	isReadOnly(s *Server) (bool, error)
	gentle() syscall.Signal // has a server end its sessions, write all, and end
	end(s *Server)          // is called when the test ends, before what runs is killed
}

// start starts a server. create makes its data folder, args are the arguments by which it uses it.
func start(t testing.TB, k kind, o Options, program, account string, create func(*Server), args func(s *Server, port string) []string) *Server {
	t.Helper()
	s := &Server{t: t, kind: k}
	s.process = testserver.Process{T: t, Program: program, Dir: folder(t), User: credential(t, account)}
	s.process.End = func() { k.end(s) }
	if s.process.User != nil {
		s.give(s.process.Dir)
	}
	if o.TLS {
		ca := testpki.NewCA(t, "The database's CA")
		s.CAFile = s.write("ca.pem", string(testpki.PEM(ca.Cert)))
		s.write("server.pem", string(ca.IssueServer("127.0.0.1", "localhost").PEM()))
	}
	create(s)
	s.process.Start(func() []string {
		port := testserver.FreePort(t)
		s.Address = net.JoinHostPort("127.0.0.1", port)
		return args(s, port)
	}, s.ping)
	return s
}

// folder makes a folder that users other than the one who runs the tests may be given. T.TempDir is in one that nobody
// else may enter.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "testdb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("%v", err)
		}
	})
	return dir
}

// credential returns what makes a process that of an account, or nil if the tests are not run by root.
func credential(t testing.TB, account string) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup(account)
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		t.Fatalf("user %s: uid %q, gid %q", account, u.Uid, u.Gid)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) give(path string) {
	s.t.Helper()
	if c := s.process.User; c != nil {
		if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// path is that of a file in the server's folder.
func (s *Server) path(name string) string { return filepath.Join(s.process.Dir, name) }

// write writes a file that only the server may read, and root.
func (s *Server) write(name, content string) (path string) {
	s.t.Helper()
	path = s.path(name)
	testserver.Write(s.t, path, content)
	s.give(path)
	return path
}

// run runs a program that prepares the server's data, as the server's user.
func (s *Server) run(program string, args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = s.process.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.process.User}
	if output, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", program, err, output)
	}
}

// New makes a new, empty database with a user of its own.
func (s *Server) New(t testing.TB) Database {
	t.Helper()
	n := s.databases.Add(1)
	name := fmt.Sprint("test", n)
	d := Database{Name: name, User: name, Password: fmt.Sprint("p@ss:/%", n)}
	d.URL = (&url.URL{Scheme: s.kind.scheme(), User: url.User(d.User), Host: s.Address, Path: "/" + d.Name}).String()
	for _, statement := range s.kind.create(d) {
		if err := s.exec(s.kind.admin(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return d
}

// Exec runs statements, with semicolons between them, in a database as the administrator. An error fails the test, but
// does not end it: any goroutine may call Exec.
func (s *Server) Exec(t testing.TB, database, statements string) {
	t.Helper()
	d := s.kind.admin()
	d.Name = database
	if err := s.exec(d, statements); err != nil {
		t.Errorf("database %s: %s: %v", database, statements, err)
	}
}

// Query runs a query in a database as the administrator, and returns the rows, one a line, with tabs between columns;
// null is empty. An error fails the test, but does not end it.
func (s *Server) Query(t testing.TB, database, query string) string {
	t.Helper()
	d := s.kind.admin()
	d.Name = database
	rows, err := s.query(d, query)
	if err != nil {
		t.Errorf("database %s: %s: %v", database, query, err)
	}
	return rows
}

// Open returns a pool of connections to a database as its user, which ends with the test.
func (s *Server) Open(t testing.TB, d Database) *sql.DB {
	t.Helper()
	pool, err := s.open(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

func (s *Server) open(d Database) (*sql.DB, error) {
	c, err := s.kind.connector(s, d)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

// do calls f with a pool of connections of its own.
func (s *Server) do(d Database, f func(context.Context, *sql.DB) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Patience)
	defer cancel()
	pool, err := s.open(d)
	if err != nil {
		return err
	}
	defer pool.Close()
	return f(ctx, pool)
}

func (s *Server) exec(d Database, statements string) error {
	return s.do(d, func(ctx context.Context, pool *sql.DB) error {
		_, err := pool.ExecContext(ctx, statements)
		return err
	})
}

func (s *Server) query(d Database, query string) (text string, err error) {
	err = s.do(d, func(ctx context.Context, pool *sql.DB) error {
		rows, err := pool.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		defer rows.Close()
		text, err = lines(rows)
		return err
	})
	return text, err
}

func lines(rows *sql.Rows) (string, error) {
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var all []string
	values, to := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		to[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return "", err
		}
		row := make([]string, len(columns))
		for i, v := range values {
			row[i] = v.String
		}
		all = append(all, strings.Join(row, "\t"))
	}
	return strings.Join(all, "\n"), rows.Err()
}

func (s *Server) ping() error {
	return s.do(s.kind.admin(), func(ctx context.Context, pool *sql.DB) error { return pool.PingContext(ctx) })
}
