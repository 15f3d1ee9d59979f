package certstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"

	"github.com/go-sql-driver/mysql"
)

var mysqlDialect = &dialect{
	prefixes: []string{"mysql://"},
	form:     "mysql://USER@HOST:PORT/DATABASE",
	folder:   "mysql",
	port:     "3306",
	tls:      tlsWords{key: "tls", verify: "true", plain: "false"},
	socket:   "socket",

	backticks: true,

	tables:  `SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = DATABASE()`,
	connect: connectMySQL,
	change:  changeMark,
	// An assignment sees those before it: STARTS is the last one, since all ask for what it was.
	digest: "SHA2(C.CERTIFICATE, 256)",
	sum:    "SHA2(%s, 256)",
	keepQuota: `INSERT INTO SALLYPORT_QUOTA (TAG, UNIT, STARTS, ENDS, USED) VALUES ` + quotaPlaces + ` ON DUPLICATE KEY UPDATE
		USED = IF(VALUES(ENDS) > STARTS, IF(ENDS > VALUES(STARTS) AND USED > VALUES(USED), USED, VALUES(USED)), USED),
		ENDS = IF(VALUES(ENDS) > STARTS, VALUES(ENDS), ENDS),
		STARTS = IF(VALUES(ENDS) > STARTS, VALUES(STARTS), STARTS)`,
	now: `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000`, // no time zone has a part in it
	putValue: `INSERT INTO SALLYPORT_VALUE (NAME, CHANGED_AT, CONTENT) VALUES (?, {now}, ?)
		ON DUPLICATE KEY UPDATE CHANGED_AT = VALUES(CHANGED_AT), CONTENT = VALUES(CONTENT)`,
	// ENDS_AT is the last one here, too: a lease that has a new holder is that holder's to renew.
	takeLease: `INSERT INTO SALLYPORT_LEASE (NAME, HOLDER, ENDS_AT) VALUES (?, ?, {now} + ?) ON DUPLICATE KEY UPDATE
		HOLDER = IF(ENDS_AT < {now}, VALUES(HOLDER), HOLDER),
		ENDS_AT = IF(HOLDER = VALUES(HOLDER), VALUES(ENDS_AT), ENDS_AT)`,
	stepwise: true,
	exclude:  excludeMySQL,
	advise:   adviseMySQL,
	collided: func(err error) bool {
		var e *mysql.MySQLError
		return errors.As(err, &e) && e.Number == errDeadlock
	},
}

// Numbers of errors, the same in MySQL and MariaDB.
const (
	errTooManyConnections = 1040
	errDatabaseDenied     = 1044
	errAccessDenied       = 1045
	errShutdown           = 1053
	errNoDatabase         = 1049
	errUnknownColumn      = 1054
	errDiskFull           = 1021
	errTableFull          = 1114
	errCommandDenied      = 1142
	errColumnDenied       = 1143
	errNoTable            = 1146
	errUserConnections    = 1203
	errLockWait           = 1205
	errDeadlock           = 1213
	errPrivilege          = 1227
	errOption             = 1290 // as --read-only
	errReadOnlySession    = 1792
	errReadOnlyMode       = 1836
)

func connectMySQL(at URL, _ how) (*connection, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = at.server.user, at.server.password, at.server.database
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(at.server.host, at.server.port)
	if at.server.socket != "" {
		cfg.Net, cfg.Addr = "unix", at.server.socket
	}
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = serverPatience, serverPatience, serverPatience
	cfg.ClientFoundRows = true // as the others count rows
	cfg.Logger = &mysql.NopLogger{}
	wait := fmt.Sprint(int(lockPatience.Seconds()))
	cfg.Params = map[string]string{
		"sql_mode":                 "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'", // what doesn't fit is an error
		"innodb_lock_wait_timeout": wait,
		"lock_wait_timeout":        wait,
	}
	secure := mysql.BeforeConnect(func(_ context.Context, cfg *mysql.Config) (err error) {
		cfg.TLS, err = at.roots()
		return err
	})
	err := cfg.Apply(mysql.Charset("utf8mb4", "utf8mb4_bin"), secure)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return onServer(connector), nil
}

// excludeMySQL holds a lock of the server with this database's name. It ends with the connection.
func excludeMySQL(ctx context.Context, _ *dialect, db *sql.DB, f func(querier) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	const lock = `CONCAT('sallyport-', LEFT(SHA2(DATABASE(), 256), 32))`
	got, err := columns[sql.NullInt64](ctx, conn, fmt.Sprintf(`SELECT GET_LOCK(%s, %d)`, lock, int(lockPatience.Seconds())))
	heard(ctx)
	switch {
	case err != nil:
		return err
	case len(got) != 1 || got[0].Int64 != 1:
		return unavailable{errMigrating}
	}
	err = f(conn)
	_, released := columns[sql.NullInt64](ctx, conn, `SELECT RELEASE_LOCK(`+lock+`)`)
	return errors.Join(err, released)
}

// adviseMySQL adds to an error of MySQL or MariaDB what may be done about it.
func adviseMySQL(err error) error {
	var e *mysql.MySQLError
	if !errors.As(err, &e) {
		if errors.Is(err, mysql.ErrInvalidConn) {
			return unavailable{fmt.Errorf("%w: try again when its server is well", err)}
		}
		return adviseServer(err)
	}
	const denied = "the user lacks a right: see docs/stores.md"
	advice, again := "", false
	switch e.Number {
	case errLockWait, errDeadlock:
		advice, again = "another program is changing it: let it finish, and try again", true
	case errTooManyConnections, errUserConnections:
		advice, again = "its server has no connection left: raise max_connections, or end some", true
	case errDiskFull, errTableFull:
		advice, again = "make room on its server's disk", true
	case errOption, errReadOnlySession, errReadOnlyMode:
		advice, again = "the server only reads: it is a replica, or was set so", true
	case errShutdown:
		advice, again = "try again when its server is well", true
	case errAccessDenied:
		advice = "check the user and the password, and from where the server lets that user in"
	case errNoDatabase:
		advice = "make the database first: CREATE DATABASE"
	case errDatabaseDenied, errCommandDenied, errColumnDenied, errPrivilege:
		advice = denied
	case errNoTable, errUnknownColumn:
		advice = "its tables are not as they were made: put a copy of the database back"
	}
	if advice != "" {
		err = fmt.Errorf("%w: %s", err, advice)
	}
	if again {
		return unavailable{err}
	}
	return err
}
