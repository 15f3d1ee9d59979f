package certstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/internal/printable"
)

// A dialect is one kind of database. All share the statements; each has its own way to connect and, in a folder of its
// own, its migrations.
type dialect struct {
	prefixes []string // of the URLs
	form     string   // of the URLs, for messages
	folder   string   // of the migrations
	tables   string   // a query for the names of the existing tables
	// connect opens the database at what follows the prefix of the URL; nil: not built yet.
	connect func(ctx context.Context, rest string, how how) (*connection, error)
}

var dialects = []*dialect{
	{
		prefixes: []string{"sqlite:"},
		form:     "sqlite:PATH or sqlite::memory:",
		folder:   "sqlite",
		tables:   `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`,
		connect:  connectSQLite,
	},
	{prefixes: []string{"postgres://", "postgresql://"}, form: "postgres://…"},
	{prefixes: []string{"mysql://"}, form: "mysql://…"},
}

//go:embed sqlite/*.sql
var migrationFiles embed.FS

// how limits what may be done to a database.
type how int

const (
	justRead how = iota // do not change it
	// keep is to write; it must exist and have its tables: an empty one in the place of a half-copied one would refuse
	// every caller.
	keep
	create // write; create it and its tables if they are missing
)

// A connection is one opened database.
type connection struct {
	db *sql.DB
	// prepare readies a database that is ours or empty for writing; nil: nothing to do.
	prepare func(context.Context) error
	// changes returns a number that differs from an earlier one of the same connection if registrations have changed
	// since. It is not called concurrently.
	changes func(context.Context) (uint64, error)
	// replaced reports whether another database has taken this one's place; it is an error if none is there.
	replaced func() (bool, error)
	close    func() error
}

// memory is what follows "sqlite:" for a database in memory.
const memory = ":memory:"

// A URL locates a Store's database, in one of the forms that Open takes. The zero URL locates none.
type URL struct {
	dialect *dialect // one of dialects
	rest    string
}

// ParseURL reads a URL. Its errors don't quote it: it may hold a password.
func ParseURL(url string) (URL, error) {
	var forms []string
	for _, d := range dialects {
		for _, prefix := range d.prefixes {
			if rest, ok := strings.CutPrefix(url, prefix); ok {
				if d.connect == nil {
					return URL{}, fmt.Errorf("a store at %s… is not built yet", prefix)
				}
				switch {
				case rest == memory:
				case rest == "", strings.HasPrefix(rest, ":"), strings.HasPrefix(rest, "//"), strings.ContainsRune(rest, 0):
					return URL{}, invalid("expected %s", d.form)
				}
				return URL{d, rest}, nil
			}
		}
		if d.connect != nil {
			forms = append(forms, d.form)
		}
	}
	return URL{}, invalid("expected %s", strings.Join(forms, " or "))
}

// String is the URL as ParseURL reads it. The only dialect that is built has no passwords in its URLs.
func (u URL) String() string {
	if u.dialect == nil {
		return ""
	}
	return u.dialect.prefixes[0] + u.rest
}

// InMemory reports whether the database ends with its Store.
func (u URL) InMemory() bool { return u.rest == memory }

// File returns the path of the database's file, "" if it has none. A change of the database changes this file or one
// whose name has "-wal" added.
func (u URL) File() string {
	if u.InMemory() {
		return ""
	}
	return u.rest
}

// From returns the URL with its file's path counted from folder, unless it is absolute.
func (u URL) From(folder string) URL {
	switch path := u.File(); {
	case path == "":
		return u
	case filepath.IsAbs(path):
		u.rest = filepath.Clean(path)
	default:
		u.rest = filepath.Join(folder, path)
	}
	return u
}

// connect opens the database, to write as how says unless readOnly is set. One in memory is always created.
func (u URL) connect(ctx context.Context, readOnly bool, how how) (*connection, error) {
	if readOnly && !u.InMemory() {
		how = justRead
	}
	conn, err := u.dialect.connect(ctx, u.rest, how)
	if err != nil {
		return nil, err
	}
	if err := u.dialect.migrate(ctx, conn, how); err != nil {
		return nil, errors.Join(err, conn.close())
	}
	return conn, nil
}

// migrate brings the tables to this program's version. Older and newer programs may use the same database;
// see the migrations.
func (d *dialect) migrate(ctx context.Context, conn *connection, how how) error {
	migrations, err := d.migrations()
	if err != nil {
		return err
	}
	version, err := d.version(ctx, conn.db, len(migrations))
	switch {
	case err != nil:
		return err
	case version == 0 && how != create:
		return errors.New("it has no tables: put a copy of the database back, or remove it, and a new one is made")
	}
	if conn.prepare != nil && how != justRead {
		if err := conn.prepare(ctx); err != nil {
			return err
		}
	}
	if version >= len(migrations) || how == justRead {
		return nil
	}
	return inTransaction(ctx, conn.db, func(tx *sql.Tx) error {
		// Another process may have migrated in the meantime.
		version, err := d.version(ctx, tx, len(migrations))
		if err != nil {
			return err
		}
		for i := version; i < len(migrations); i++ {
			if _, err := tx.ExecContext(ctx, migrations[i]); err != nil {
				return fmt.Errorf("migrate the tables to version %d: %w", i+1, err)
			}
		}
		return nil
	})
}

// migrations returns the SQL that leads from version 0 to 1, from 1 to 2, and so on.
func (d *dialect) migrations() ([]string, error) {
	files, err := fs.Glob(migrationFiles, d.folder+"/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var migrations []string
	for i, file := range files {
		if !strings.HasPrefix(file, fmt.Sprintf("%s/%03d_", d.folder, i+1)) {
			return nil, fmt.Errorf("migration %s is out of order", file)
		}
		text, err := migrationFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		migrations = append(migrations, string(text))
	}
	return migrations, nil
}

// version returns the version of the tables, 0 for an empty database. It refuses another program's database, and one
// that a program which knows only versions up to known must not use.
func (d *dialect) version(ctx context.Context, q querier, known int) (int, error) {
	tables, err := columns[string](ctx, q, d.tables)
	switch {
	case err != nil:
		return 0, err
	case len(tables) == 0:
		return 0, nil
	case !slices.Contains(tables, "SALLYPORT_SCHEMA"):
		return 0, fmt.Errorf("it is another program's database: it has a table %s and none named SALLYPORT_SCHEMA: "+
			"name another file", printable.Quote(tables[0]))
	}
	type row struct{ version, needs int }
	rows, err := collect(ctx, q, func(r *row) []any { return []any{&r.version, &r.needs} },
		`SELECT VERSION, NEEDS FROM SALLYPORT_SCHEMA`)
	if err != nil {
		return 0, err
	}
	if len(rows) == 0 {
		return 0, errors.New("its table SALLYPORT_SCHEMA is empty: put a copy of the database back")
	}
	var newest row
	for _, r := range rows {
		newest = row{max(newest.version, r.version), max(newest.needs, r.needs)}
	}
	if newest.needs > known {
		return 0, fmt.Errorf("its tables are those of a newer program, version %d, and this one knows up to %d: "+
			"upgrade it, or name another file", newest.needs, known)
	}
	return newest.version, nil
}

// columns reads all rows of a query for one column.
func columns[T any](ctx context.Context, q querier, query string, args ...any) ([]T, error) {
	return collect(ctx, q, func(v *T) []any { return []any{v} }, query, args...)
}

// collect reads all rows of a query, each into the places in a T that its columns belong to.
func collect[T any](ctx context.Context, q querier, places func(*T) []any, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var values []T
	for rows.Next() {
		var v T
		if err := rows.Scan(places(&v)...); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, rows.Err()
}
