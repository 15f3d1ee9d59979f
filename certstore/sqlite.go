package certstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"sallyport/internal/printable"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteConnections is the size of a Store's pool for a file: one connection sees changes, one writes, two read.
const sqliteConnections = 4

// sqliteBusy is how long a statement waits for another process to release the database.
const sqliteBusy = 5 * time.Second

var sqliteDialect = &dialect{
	prefixes:  []string{"sqlite:"},
	form:      "sqlite:PATH or sqlite::memory:",
	folder:    "sqlite",
	tables:    `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`,
	connect:   connectSQLite,
	digest:    "C.FINGERPRINT",
	keepQuota: keepQuota,
	now:       `CAST(unixepoch('subsec') * 1000 AS INTEGER)`,
	putValue:  putValue,
	takeLease: takeLease,
	advise:    adviseSQLite,
}

func connectSQLite(at URL, how how) (*connection, error) {
	if at.InMemory() {
		return connectSQLiteMemory()
	}
	return connectSQLiteFile(at.rest, how)
}

// connectSQLiteMemory uses a single connection, because the connection is the database.
func connectSQLiteMemory() (*connection, error) {
	db, err := openSQLite("file::memory:", nil)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return &connection{
		db: db,
		changes: func(ctx context.Context) (uint64, error) {
			m, _, err := mark(ctx, db)
			return uint64(m), err
		},
		replaced: func() (bool, error) { return false, nil },
		close:    db.Close,
	}, nil
}

func connectSQLiteFile(path string, how how) (*connection, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	file, err := statSQLite(path)
	if errors.Is(err, fs.ErrNotExist) && how == create {
		file, err = createSQLite(path)
	}
	if err != nil {
		return nil, err
	}
	for _, suffix := range []string{"-journal", "-wal", "-shm"} {
		// SQLite opens these itself, and opening a pipe blocks.
		if _, err := statSQLite(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	// POSIX drops all of a process's locks on a file when it closes any descriptor of it: a goroutine that reads the
	// database as a plain file would expose it to corruption. Linux has open file description locks, which are kept.
	// Where they cannot be turned on, or SQLite files were opened before, SQLite's usual locks stay.
	_, _ = sqlite.OFDLocking(true)

	mode := "rw"
	if how == justRead {
		mode = "ro"
	}
	name := url.URL{Scheme: "file", Path: filepath.ToSlash(path)}
	db, err := openSQLite(name.String(), url.Values{"mode": {mode}})
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(sqliteConnections)
	db.SetMaxIdleConns(sqliteConnections)
	watcher := &sqliteWatcher{db: db}
	return &connection{
		db:      db,
		prepare: func(ctx context.Context) error { return writeAhead(ctx, db) },
		changes: watcher.changes,
		replaced: func() (bool, error) {
			now, err := statSQLite(path)
			if err != nil {
				return false, err
			}
			return !os.SameFile(file, now), nil
		},
		close: func() error { return errors.Join(watcher.close(), db.Close()) },
	}, nil
}

func statSQLite(path string) (fs.FileInfo, error) {
	file, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !file.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file: move it away, or name another one", path)
	}
	return file, nil
}

// createSQLite creates the file, since SQLite would make it readable by everyone; -wal and -shm inherit its mode.
func createSQLite(path string) (fs.FileInfo, error) {
	folder, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("its folder must exist: %w", err)
	}
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return statSQLite(path) // another process created it first
	}
	if err != nil {
		return nil, err
	}
	// Without a sync of the folder, a power cut could lose the file and all acknowledged changes.
	if err := errors.Join(file.Close(), folder.Sync()); err != nil {
		return nil, err
	}
	return statSQLite(path)
}

// openSQLite prepares connections to the database of that name, a "file:" URI.
func openSQLite(name string, query url.Values) (*sql.DB, error) {
	if query == nil {
		query = url.Values{}
	}
	query["_pragma"] = []string{
		fmt.Sprintf("busy_timeout(%d)", sqliteBusy.Milliseconds()),
		"foreign_keys(1)",
		"synchronous(FULL)", // each commit is on the disk before it is acknowledged
		"trusted_schema(0)",
	}
	query.Set("_txlock", "immediate") // a transaction that starts as a reader may not be able to become a writer
	query.Set("_dqs", "0")
	query.Set("_defensive", "1")
	query.Set("_error_rc", "1")
	connector, err := sqlite.NewConnector(name + "?" + query.Encode())
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// writeAhead turns on the write-ahead log, which lets others read while one writes and which the file remembers.
// SQLite does not wait for processes that are about to do the same, so this does.
func writeAhead(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, sqliteBusy)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		var mode string
		err := db.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode)
		if err == nil && mode != "wal" {
			return fmt.Errorf("turn on the write-ahead log: the file system allows only %s", printable.Quote(mode))
		}
		if !isBusy(err) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

func isBusy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// A sqliteWatcher sees changes of registrations. PRAGMA data_version differs, on one and the same connection, after a
// commit by any other connection, of this process or not; then the mark of the registrations is read, which other
// changes leave alone. Nothing is ever written by its own.
type sqliteWatcher struct {
	db    *sql.DB
	conn  *sql.Conn
	epoch uint32 // counts connections: numbers of two are not comparable
	seen  uint32 // data_version
	last  uint64 // what changes returned then
}

func (w *sqliteWatcher) changes(ctx context.Context) (uint64, error) {
	fresh := w.conn == nil
	if fresh {
		conn, err := w.db.Conn(ctx)
		if err != nil {
			return 0, err
		}
		w.conn = conn
		w.epoch++
	}
	var n uint32
	err := w.conn.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&n)
	if err == nil && (fresh || n != w.seen) {
		var m int64
		var marked bool
		if m, marked, err = mark(ctx, w.conn); err == nil {
			if w.seen, w.last = n, uint64(m); !marked {
				w.last = uint64(w.epoch)<<32 | uint64(n)
			}
		}
	}
	if err != nil {
		return 0, errors.Join(err, w.close())
	}
	return w.last, nil
}

// mark reads the mark of the registrations. A database that only older programs have opened has none.
func mark(ctx context.Context, q querier) (m int64, marked bool, err error) {
	tables, err := columns[string](ctx, q, `SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'SALLYPORT_CHANGE'`)
	if err != nil || len(tables) == 0 {
		return 0, false, err
	}
	marks, err := columns[int64](ctx, q, `SELECT MARK FROM SALLYPORT_CHANGE`)
	if err != nil || len(marks) != 1 {
		return 0, false, err
	}
	return marks[0], true, nil
}

func (w *sqliteWatcher) close() error {
	if w.conn == nil {
		return nil
	}
	err := w.conn.Close()
	w.conn = nil
	if errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}

// adviseSQLite adds to an error of SQLite, or of its file, what may be done about it.
func adviseSQLite(err error) error {
	const (
		run     = ": give both to the user that serves, and run this as that user"
		noRight = "this user has no right to the file or to its folder" + run
		noWrite = "this user may not write to the file or to its folder" + run
	)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %s", err, noRight)
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	advice := map[int]string{
		sqlite3.SQLITE_NOTADB:   "name another file, or put a copy of the database back",
		sqlite3.SQLITE_CORRUPT:  "put a copy of the database back",
		sqlite3.SQLITE_READONLY: noWrite,
		sqlite3.SQLITE_PERM:     noWrite,
		sqlite3.SQLITE_CANTOPEN: noRight,
		sqlite3.SQLITE_BUSY:     "another program is changing it, or keeps it to itself: let it finish, and try again",
		sqlite3.SQLITE_ERROR:    "its tables are not as they were made: put a copy of the database back",
		sqlite3.SQLITE_FULL:     "make room on its disk",
		sqlite3.SQLITE_IOERR:    "look after its disk: is it full, or is a file limited (ulimit -f)?",
	}[e.Code()&0xff]
	if advice != "" {
		err = fmt.Errorf("%w: %s", err, advice)
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR:
		return unavailable{err}
	}
	return err
}

// unavailable is an error that a later try may not have.
type unavailable struct{ error }

func (u unavailable) Unwrap() error { return u.error }

// Is is what errors.Is asks.
func (unavailable) Is(target error) bool { return target == ErrUnavailable }
