package testdb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"

	"sallyport/internal/testserver"
)

// MariaDB starts a MariaDB and waits until it answers.
func MariaDB(t testing.TB, o Options) *Server {
	t.Helper()
	program := testserver.Tool(t, "mariadbd", "mariadb-server", "/usr/sbin")
	install := testserver.Tool(t, "mariadb-install-db", "mariadb-server")
	create := func(s *Server) {
		s.run(install, "--no-defaults", "--datadir="+s.path("data"), "--auth-root-authentication-method=normal",
			"--skip-test-db", "--skip-name-resolve", "--debug-no-sync", "--innodb-flush-method=nosync", logSize, "--tmpdir="+s.process.Dir)
	}
	return start(t, mariadb{}, o, program, "mysql", create, func(s *Server, port string) []string {
		args := []string{
			"--no-defaults", "--datadir=" + s.path("data"), "--bind-address=127.0.0.1", "--port=" + port, "--socket=socket",
			"--skip-name-resolve", "--character-set-server=utf8mb4", "--max-connections=" + strconv.Itoa(o.connections()),
			"--max-user-connections=100000", // with any such limit, the server counts the connections of each user
			logSize, "--innodb-buffer-pool-size=64M",
			"--tmpdir=" + s.process.Dir, // a server that starts removes the temporary tables of others from a common folder
		}
		if !o.Durable {
			args = append(args, "--debug-no-sync", "--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=2")
		}
		if o.TLS {
			args = append(args, "--require-secure-transport=ON",
				"--ssl-ca="+s.CAFile, "--ssl-cert="+s.path("server.pem"), "--ssl-key="+s.path("server.pem"))
		}
		return args
	})
}

// logSize is that of a file which is written whole when a data folder is made: less than the 96 MB by default.
const logSize = "--innodb-log-file-size=16M"

// The numbers of errors.
const (
	tooManyConnections = 1040
	noSuchThread       = 1094
)

type mariadb struct{}

func (mariadb) scheme() string { return "mysql" }

func (mariadb) admin() Database { return Database{Name: "mysql", User: "root"} }

func (mariadb) connector(s *Server, d Database) (driver.Connector, error) {
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr, config.DBName = d.User, d.Password, "tcp", s.Address, d.Name
	config.MultiStatements = true
	config.Logger = &mysql.NopLogger{} // errors are returned as well
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		config.TLS = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
	}
	return mysql.NewConnector(config)
}

func (mariadb) create(d Database) []string {
	return []string{
		fmt.Sprintf("CREATE DATABASE %s", d.Name),
		fmt.Sprintf("CREATE USER %s IDENTIFIED BY '%s'", d.User, d.Password),
		fmt.Sprintf("GRANT ALL ON %s.* TO %s", d.Name, d.User),
	}
}

// limitConnections has the server read the limits of users anew: it remembers those of one that has connections.
func (mariadb) limitConnections(d Database, n int) []string {
	limit := "ACCOUNT LOCK"
	if n != 0 {
		limit = fmt.Sprintf("WITH MAX_USER_CONNECTIONS %d ACCOUNT UNLOCK", max(n, 0)) // 0: none
	}
	return []string{fmt.Sprintf("ALTER USER %s %s", d.User, limit), "FLUSH PRIVILEGES"}
}

func (m mariadb) dropConnections(ctx context.Context, admin *sql.DB) error {
	rows, err := admin.QueryContext(ctx, "SELECT id FROM information_schema.processlist WHERE user <> ? AND command <> 'Daemon'", m.admin().User)
	if err != nil {
		return err
	}
	defer rows.Close()
	ids, err := lines(rows)
	if err != nil {
		return err
	}
	for id := range strings.Lines(ids) {
		var e *mysql.MySQLError
		if _, err := admin.ExecContext(ctx, "KILL "+id); err != nil && !(errors.As(err, &e) && e.Number == noSuchThread) {
			return err
		}
	}
	return nil
}

func (mariadb) full(err error) bool {
	var e *mysql.MySQLError
	return errors.As(err, &e) && e.Number == tooManyConnections
}

func (mariadb) setReadOnly(on bool) []string {
	return []string{"SET GLOBAL read_only = " + onOrOff(on)}
}

func (m mariadb) isReadOnly(s *Server) (bool, error) {
	is, err := s.query(m.admin(), "SELECT @@GLOBAL.read_only")
	return is == "1", err
}

func (mariadb) gentle() syscall.Signal { return syscall.SIGTERM }

func (mariadb) end(*Server) {}
