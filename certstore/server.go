package certstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"sallyport/internal/contain"
	"sallyport/internal/regularfile"
)

const (
	// serverPatience is how long a server may say nothing before a call ends.
	serverPatience = 5 * time.Second
	// lockPatience is how long a transaction waits for another one; so the server itself says that it ended.
	lockPatience = 4 * time.Second
	// migratePatience is how long a program waits for another one that migrates.
	migratePatience = 30 * time.Second

	serverConnections = 6 // at once, of a Store
	idleConnections   = 2
	// connectionLife ends connections, so that a server's new address is found and one that became a replica is left.
	connectionLife = 3 * time.Minute
	connectionIdle = time.Minute

	maxCAFile = 1 << 20
	// tries is how often a transaction is done again at once that was undone for another's sake.
	tries = 5
)

// onServer prepares connections to a database on a server. Nothing is connected yet.
func onServer(connector driver.Connector) *connection {
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(serverConnections)
	db.SetMaxIdleConns(idleConnections)
	db.SetConnMaxLifetime(connectionLife)
	db.SetConnMaxIdleTime(connectionIdle)
	return &connection{
		db: db,
		changes: func(ctx context.Context) (uint64, error) {
			marks, err := columns[int64](ctx, db, `SELECT MARK FROM SALLYPORT_CHANGE`)
			if err != nil {
				return 0, err
			}
			if len(marks) != 1 {
				return 0, errNoMark
			}
			return uint64(marks[0]), nil
		},
		replaced: func() (bool, error) { return false, nil },
		close:    db.Close,
	}
}

var errNoMark = errors.New("its table SALLYPORT_CHANGE has not one row: put a copy of the database back")

var errMigrating = errors.New("another program is making its tables: let it finish, and try again")

// roots returns the TLS configuration for a new connection, nil for none. The file is read each time, so that new roots
// need no restart.
func (u URL) roots() (*tls.Config, error) {
	if !u.encrypted() {
		return nil, nil
	}
	cfg := &tls.Config{ServerName: u.server.host, MinVersion: tls.VersionTLS12}
	if u.server.caFile == "" {
		return cfg, nil
	}
	data, err := regularfile.Read(u.server.caFile, maxCAFile)
	if err != nil { // not wrapped: it is none of the network's, and does not say that the store isn't there
		return nil, fmt.Errorf("caFile %s: %v", u.server.caFile, err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("caFile %s: no certificate in PEM: name a file with the certificates of the CAs", u.server.caFile)
	}
	return cfg, nil
}

// An ending ends a context, on a goroutine of its own.
type ending struct{ cancel context.CancelFunc }

func (e ending) now() {
	defer contain.Catch("the end of a wait for a database", nil)
	e.cancel()
}

// watchKey is the context's key of the timer that patiently sets.
type watchKey struct{}

// patiently calls f with a context that ends once a server has said nothing for serverPatience.
func patiently(ctx context.Context, f func(context.Context) error) error {
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	end := ending{cancel}
	timer := time.AfterFunc(serverPatience, end.now)
	defer timer.Stop()
	err := f(context.WithValue(watched, watchKey{}, timer))
	switch {
	case !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return unavailable{fmt.Errorf("the database has not answered for %v", serverPatience)}
}

// heard says that the server has answered.
func heard(ctx context.Context) {
	if timer, ok := ctx.Value(watchKey{}).(*time.Timer); ok {
		timer.Reset(serverPatience)
	}
}

// transact calls f in a transaction. The end of ctx ends its statements, but not a commit that has begun: whoever gives
// up could not tell whether it was done.
func (d *dialect) transact(ctx context.Context, db *sql.DB, f func(context.Context, querier) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	end := ending{cancel}
	bound := time.AfterFunc(serverPatience, end.now)
	defer bound.Stop()
	begun := context.AfterFunc(ctx, end.now)
	tx, err := conn.BeginTx(detached, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	begun()
	if err != nil {
		return err
	}
	bound.Stop()
	heard(ctx)
	if d.begin != "" {
		_, err = tx.ExecContext(ctx, d.begin)
	}
	if err == nil {
		err = f(ctx, session{d, tx})
	}
	if err == nil {
		err = ctx.Err()
	}
	bound.Reset(serverPatience)
	if err != nil {
		_ = tx.Rollback() // what fails here closes the connection, and the server does the same
		return err
	}
	return tx.Commit()
}

// A session makes the shared statements those of a database.
type session struct {
	dialect *dialect
	querier
}

func (s session) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := s.querier.QueryContext(ctx, s.dialect.translate(query), args...)
	heard(ctx)
	return rows, err
}

func (s session) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	result, err := s.querier.ExecContext(ctx, s.dialect.translate(query), args...)
	heard(ctx)
	return result, err
}

func (s session) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	statement, err := s.querier.PrepareContext(ctx, s.dialect.translate(query))
	heard(ctx)
	return statement, err
}

func (d *dialect) translate(query string) string {
	if d.statement == nil {
		return query
	}
	return d.statement(query)
}

// adviseServer adds to an error that no server has answered with what may be done about it.
func adviseServer(err error) error {
	var network *net.OpError
	var name *net.DNSError
	switch {
	case errors.Is(err, errNoTables):
		return err
	case errors.As(err, &network), errors.As(err, &name), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, driver.ErrBadConn),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return unavailable{fmt.Errorf("%w: is the server up, and does the URL name it?", away{err})}
	}
	return err
}

// away hides that a socket isn't there: to others that would mean that the store is to be made.
type away struct{ error }

func (a away) Unwrap() error {
	if errors.Is(a.error, fs.ErrNotExist) {
		return nil
	}
	return a.error
}

// errNoTables matches fs.ErrNotExist: the tables are to be made.
var errNoTables = fmt.Errorf("it has no tables: let a user who may make them run sallyport serve or cert add (%w)", fs.ErrNotExist)
