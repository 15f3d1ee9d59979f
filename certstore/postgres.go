package certstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

var postgresDialect = &dialect{
	prefixes: []string{"postgres://", "postgresql://"},
	form:     "postgres://USER@HOST:PORT/DATABASE",
	folder:   "postgres",
	port:     "5432",
	tls:      tlsWords{key: "sslmode", verify: "verify-full", plain: "disable"},
	socket:   "host",
	tables: `SELECT C.RELNAME FROM PG_CATALOG.PG_CLASS C JOIN PG_CATALOG.PG_NAMESPACE N ON N.OID = C.RELNAMESPACE
		WHERE N.NSPNAME = CURRENT_SCHEMA() AND C.RELKIND IN ('r', 'p')`,
	connect:   connectPostgres,
	statement: func(query string) string { return numbered(query, "$") },
	begin:     fmt.Sprintf(`SET LOCAL lock_timeout = %d`, lockPatience.Milliseconds()),
	change:    changeMark,
	tell:      `NOTIFY sallyport_change`,
	digest:    "C.FINGERPRINT",
	sum:       "SHA256(%s)", // as of 11
	keepQuota: keepQuota,
	now:       `(EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT`,
	putValue:  putValue,
	takeLease: takeLease,
	exclude:   excludePostgres,
	advise:    advisePostgres,
	collided:  func(err error) bool { return hasCode(err, serializationFailure, deadlockDetected) },
}

func connectPostgres(at URL, _ how) (*connection, error) {
	// What the environment says of PostgreSQL counts for nothing: the URL says all.
	cfg, err := pgx.ParseConfig("host=localhost sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, fmt.Errorf("the environment's settings for PostgreSQL (PG…): %w", err)
	}
	cfg.Host, cfg.Database, cfg.User, cfg.Password = at.server.host, at.server.database, at.server.user, at.server.password
	port := at.server.port
	if at.server.socket != "" {
		cfg.Host, port = at.server.socket, at.dialect.port
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	cfg.Port = uint16(n)
	cfg.ConnectTimeout = serverPatience
	cfg.TLSConfig, cfg.Fallbacks, cfg.ValidateConnect = nil, nil, nil
	cfg.SSLNegotiation, cfg.SSLCertMode, cfg.ChannelBinding, cfg.RequireAuth = "postgres", "allow", "prefer", ""
	cfg.MinProtocolVersion, cfg.MaxProtocolVersion = "3.0", "3.0"
	cfg.KerberosSrvName, cfg.KerberosSpn = "", ""
	cfg.RuntimeParams = map[string]string{"application_name": "sallyport"}
	// Statements are not kept at the server, so that a pool before it may hand out connections for a transaction each.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = 0, 0
	secure := stdlib.OptionBeforeConnect(func(_ context.Context, cfg *pgx.ConnConfig) (err error) {
		cfg.TLSConfig, err = at.roots()
		return err
	})
	// A connection that the server has ended meanwhile is replaced before it is used, as MySQL's driver does by itself.
	ask := stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return true })
	conn := onServer(stdlib.GetConnector(*cfg, secure, ask))
	conn.listen = func(ctx context.Context, changed func()) (err error) {
		own := cfg.Copy()
		if own.TLSConfig, err = at.roots(); err != nil {
			return err
		}
		return listenPostgres(ctx, own, changed)
	}
	return conn, nil
}

// listenPostgres listens on a connection of its own, which is not one of the pool's.
func listenPostgres(ctx context.Context, cfg *pgx.ConnConfig, changed func()) error {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverPatience)
		defer cancel()
		_ = conn.Close(closing) // nothing is lost with it
	}()
	asking, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	if _, err := conn.Exec(asking, `LISTEN sallyport_change`); err != nil {
		return err
	}
	for {
		changed()
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

// numbered makes the placeholders of a statement the mark and 1, 2 and so on. No shared statement has a question mark
// elsewhere.
func numbered(query, mark string) string {
	var b strings.Builder
	n := 0
	for before, after, more := strings.Cut(query, "?"); ; before, after, more = strings.Cut(after, "?") {
		b.WriteString(before)
		if !more {
			return b.String()
		}
		n++
		b.WriteString(mark + strconv.Itoa(n))
	}
}

// excludePostgres holds a lock of the database until its transaction ends.
func excludePostgres(ctx context.Context, d *dialect, db *sql.DB, f func(querier) error) error {
	return d.transact(ctx, db, func(ctx context.Context, q querier) error {
		const lock = 0x53616c6c79706f72 // any number that others are unlikely to take
		_, err := q.ExecContext(ctx, `SELECT pg_advisory_xact_lock(?)`, int64(lock))
		if hasCode(err, lockNotAvailable) {
			return unavailable{errMigrating}
		}
		if err != nil {
			return err
		}
		return f(q)
	})
}

// hasCode reports whether PostgreSQL gave an error one of the codes.
func hasCode(err error, codes ...string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && slices.Contains(codes, e.Code)
}

// Codes of errors (PostgreSQL's SQLSTATE).
const (
	lockNotAvailable     = "55P03"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	tooManyConnections   = "53300"
	diskFull             = "53100"
	readOnlyTransaction  = "25006"
	noDatabase           = "3D000"
	noPrivilege          = "42501"
	noTable              = "42P01"
	noColumn             = "42703"
)

// troubled are the classes of errors that come of the server's state and not of what it was asked for: connection,
// resources, an operator's intervention, its system.
var troubled = []string{"08", "53", "57", "58"}

// advisePostgres adds to an error of PostgreSQL what may be done about it.
func advisePostgres(err error) error {
	const later = "try again when its server is well"
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		if errors.Is(err, pgconn.ErrConnClosed) { // it ended while it was used
			return unavailable{fmt.Errorf("%w: %s", err, later)}
		}
		return adviseServer(err)
	}
	advice, again := "", false
	switch {
	case hasCode(err, lockNotAvailable, serializationFailure, deadlockDetected):
		advice, again = "another program is changing it: let it finish, and try again", true
	case e.Code == tooManyConnections:
		advice, again = "its server has no connection left: raise max_connections, or end some", true
	case e.Code == diskFull:
		advice, again = "make room on its server's disk", true
	case e.Code == readOnlyTransaction:
		advice, again = "the server only reads: it is a replica, or was set so", true
	case slices.Contains(troubled, e.Code[:min(2, len(e.Code))]):
		advice, again = later, true
	case strings.HasPrefix(e.Code, "28"):
		advice = "check the user and the password, and pg_hba.conf of the server"
	case e.Code == noDatabase:
		advice = "make the database first: CREATE DATABASE"
	case e.Code == noPrivilege:
		advice = "the user lacks a right: see docs/stores.md"
	case hasCode(err, noTable, noColumn):
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
