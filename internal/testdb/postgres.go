package testdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sys/unix"

	"sallyport/internal/testserver"
)

// Postgres starts a PostgreSQL and waits until it answers.
func Postgres(t testing.TB, o Options) *Server {
	t.Helper()
	program := testserver.Tool(t, "postgres", "postgresql", "/usr/lib/postgresql/*/bin")
	program, err := filepath.EvalSymlinks(program) // initdb lies beside the program itself
	if err != nil {
		t.Fatal(err)
	}
	create := func(s *Server) {
		password := s.write("password", postgres{}.admin().Password)
		s.run(filepath.Join(filepath.Dir(program), "initdb"), "--pgdata", s.path("data"), "--no-sync",
			"--username", postgres{}.admin().User, "--pwfile", password, "--auth", "scram-sha-256",
			"--encoding", "UTF8", "--no-locale")
		host := "host"
		if o.TLS {
			host = "hostssl"
		}
		s.write("data/pg_hba.conf", host+" all all 127.0.0.1/32 scram-sha-256\n")
	}
	return start(t, postgres{}, o, program, "postgres", create, func(s *Server, port string) []string {
		settings := map[string]string{
			"listen_addresses":           "127.0.0.1",
			"port":                       port,
			"unix_socket_directories":    "",
			"dynamic_shared_memory_type": "mmap", // in the data folder, so that nothing is left of one that is killed
			"max_connections":            strconv.Itoa(o.connections()),
			"fsync":                      onOrOff(o.Durable),
			"ssl":                        onOrOff(o.TLS),
			"ssl_cert_file":              s.path("server.pem"),
			"ssl_key_file":               s.path("server.pem"),
		}
		if o.Durable && runtime.GOOS == "linux" { // after Kill, sync the whole file system at once instead of each file
			settings["recovery_init_sync_method"] = "syncfs"
		}
		args := []string{"-D", s.path("data")}
		for name, value := range settings {
			args = append(args, "-c", name+"="+value)
		}
		return args
	})
}

func onOrOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

type postgres struct{}

func (postgres) scheme() string { return "postgres" }

func (postgres) admin() Database {
	return Database{Name: "postgres", User: "testdb", Password: "testdb"}
}

func (p postgres) connector(s *Server, d Database) (driver.Connector, error) {
	config, err := p.config(s, d)
	if err != nil {
		return nil, err
	}
	if d.User == p.admin().User {
		config.RuntimeParams["default_transaction_read_only"] = "off"
	}
	return stdlib.GetConnector(*config), nil
}

func (postgres) config(s *Server, d Database) (*pgx.ConnConfig, error) {
	query := url.Values{"sslmode": {"disable"}}
	if s.CAFile != "" {
		query = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.CAFile}}
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(d.User, d.Password), Host: s.Address, Path: "/" + d.Name, RawQuery: query.Encode()}
	return pgx.ParseConfig(u.String())
}

func (postgres) create(d Database) []string {
	return []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", d.User, d.Password),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", d.Name, d.User),
		fmt.Sprintf("REVOKE ALL ON DATABASE %s FROM PUBLIC", d.Name),
	}
}

func (postgres) limitConnections(d Database, n int) []string {
	return []string{fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d", d.Name, max(n, -1))}
}

func (p postgres) dropConnections(ctx context.Context, admin *sql.DB) error {
	_, err := admin.ExecContext(ctx, fmt.Sprintf("SELECT pg_terminate_backend(pid, %d) FROM pg_stat_activity"+
		" WHERE backend_type = 'client backend' AND usename <> '%s'", testserver.Patience.Milliseconds(), p.admin().User))
	return err
}

func (postgres) full(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "53300"
}

func (postgres) setReadOnly(on bool) []string {
	return []string{
		"ALTER SYSTEM SET default_transaction_read_only = " + onOrOff(on),
		"SELECT pg_reload_conf()",
	}
}

// isReadOnly looks at a session that is not excepted.
func (p postgres) isReadOnly(s *Server) (is bool, err error) {
	config, err := p.config(s, p.admin())
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT current_setting('default_transaction_read_only') = 'on'").Scan(&is)
	return is, err
}

func (postgres) gentle() syscall.Signal { return syscall.SIGINT }

// end gives back the system's shared memory, which a server that is killed leaves behind.
func (postgres) end(s *Server) {
	if s.process.Runs() {
		s.Resume()
		s.process.Quit(syscall.SIGQUIT)
		return
	}
	text, err := os.ReadFile(s.path("data/postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) { // it was not killed
		return
	}
	if err == nil {
		err = removeSharedMemory(string(text))
	}
	if err != nil {
		s.t.Errorf("shared memory of PostgreSQL: %v", err)
	}
}

// removeSharedMemory reads a lock file, whose seventh line has the key and the number of the memory.
func removeSharedMemory(lock string) error {
	lines := strings.Split(lock, "\n")
	if len(lines) < 7 {
		return fmt.Errorf("the lock file is %q", lock)
	}
	var key, id int
	if _, err := fmt.Sscan(lines[6], &key, &id); err != nil {
		return fmt.Errorf("the lock file is %q: %w", lock, err)
	}
	_, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	return err
}
