package certstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"sallyport/internal/printable"
)

// A dialect is one kind of database. All share the statements, which are written as SQLite takes them; each has its own
// way to connect and, in a folder of its own, its migrations.
type dialect struct {
	prefixes []string // of the URLs
	form     string   // of the URLs, for messages
	folder   string   // of the migrations; "": only WSO2's database is read
	tables   string   // a query for the names of the existing tables
	port     string   // of the server, unless the URL says another; "": a database of this process
	tls      tlsWords
	socket   string // the URL's parameter that names a socket

	backticks bool   // quote names, in place of quotation marks
	unbuilt   string // how to build a program that has it; "": this one has

	connect func(at URL, how how) (*connection, error)
	// statement is a shared statement as this database takes it; nil: as it is written.
	statement func(string) string
	// begin, if not "", is the first statement of each transaction.
	begin string
	// change, if not "", is the first statement of a transaction that changes registrations, with a number at random. It
	// keeps others from changing any until the transaction ends; "": triggers set the mark, and begin locks.
	change    string
	tell      string // tells those who listen of the transaction's changes once it is committed; "": nobody can listen
	keepQuota string // stores one quota
	now       string // an expression for the database's clock, in milliseconds since 1970
	putValue  string // stores one value, with {now} for now
	takeLease string // takes a lease unless another holder has it, with {now} for now
	// digest is an expression that is another one for a row whose certificate is another one: the column, where a trigger
	// empties it.
	digest string
	// sum is an expression for a hash of a column of bytes, with a %s for it; "": there is none that can be relied on.
	sum string
	// stepwise says that the definition of tables can't be rolled back: an interrupted migration begins anew.
	stepwise bool
	// exclude calls f with a connection on which no other process migrates meanwhile; nil: a transaction is enough.
	exclude func(ctx context.Context, d *dialect, db *sql.DB, f func(querier) error) error
	advise  func(error) error // adds to an error what may be done about it, and makes it unavailable
	// collided reports whether a transaction was undone for another's sake, so that it may be done again at once; nil: none
	// ever is.
	collided func(error) bool
}

var dialects = []*dialect{sqliteDialect, postgresDialect, mysqlDialect, sqlserverDialect, oracleDialect}

//go:embed sqlite/*.sql postgres/*.sql mysql/*.sql
var migrationFiles embed.FS

// server reports whether the database is in another process.
func (d *dialect) server() bool { return d.port != "" }

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
	db   *sql.DB
	wso2 *wso2 // nil: the tables are ours
	// prepare readies a database that is ours or empty for writing; nil: nothing to do.
	prepare func(context.Context) error
	// changes returns a number that differs from an earlier one of the same connection if registrations have changed
	// since. It is not called concurrently.
	changes func(context.Context) (uint64, error)
	// listen calls changed once it hears of changes, and then after each of which a Store has told, until ctx ends or the
	// server falls silent; nil: nobody can listen.
	listen func(ctx context.Context, changed func()) error
	// replaced reports whether another database has taken this one's place; it is an error if none is there.
	replaced func() (bool, error)
	close    func() error

	listed listed
}

// migrate brings the tables to this program's version. Older and newer programs may use the same database;
// see the migrations.
func (d *dialect) migrate(ctx context.Context, conn *connection, how how) error {
	var err error
	if conn.wso2, err = d.findWSO2(ctx, conn.db); err != nil || conn.wso2 != nil {
		return err
	}
	if d.folder == "" {
		return fmt.Errorf("it has no table %s that this user may read: of this kind only the database of WSO2 is read", certificateTable)
	}
	migrations, err := d.migrations()
	if err != nil {
		return err
	}
	version, err := d.version(ctx, conn.db, len(migrations))
	switch {
	case err != nil:
		return err
	case version == 0 && how != create && d.server():
		return errNoTables
	case version == 0 && how != create:
		return errors.New("it has no tables: put a copy of the database back, or remove it, and a new one is made")
	}
	conn.listed.digest, conn.listed.match = d.digest, matchColumn
	if version < 2 && how == justRead {
		conn.listed.digest = "NULL" // the column isn't there
	}
	if version < matchVersion && how == justRead {
		conn.listed.match = "NULL" // nor is this one, yet
	}
	if conn.prepare != nil && how != justRead {
		if err := conn.prepare(ctx); err != nil {
			return err
		}
	}
	if version >= len(migrations) || how == justRead {
		return nil
	}
	upgrade := func(q querier) error {
		// Another process may have migrated in the meantime.
		version, err := d.version(ctx, q, len(migrations))
		if err != nil {
			return err
		}
		for i := version; i < len(migrations); i++ {
			if err := d.run(ctx, q, migrations[i]); err != nil {
				return fmt.Errorf("migrate the tables to version %d: %w", i+1, err)
			}
		}
		return nil
	}
	if d.exclude != nil {
		return d.exclude(ctx, d, conn.db, upgrade)
	}
	return inTransaction(ctx, conn.db, upgrade)
}

// run executes one migration, statement for statement where that is how the database takes them.
func (d *dialect) run(ctx context.Context, q querier, migration string) error {
	statements := []string{migration}
	if d.stepwise {
		statements = strings.Split(strings.TrimSuffix(migration, ";\n"), ";\n")
	}
	for _, statement := range statements {
		if _, err := q.ExecContext(ctx, statement); err != nil {
			return err
		}
		heard(ctx)
	}
	return nil
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
	case !slices.ContainsFunc(tables, func(s string) bool { return strings.EqualFold(s, "SALLYPORT_SCHEMA") }):
		return 0, fmt.Errorf("it is another program's database: it has a table %s and none named SALLYPORT_SCHEMA: "+
			"name another %s", printable.Quote(tables[0]), d.place())
	}
	type row struct{ version, needs int }
	rows, err := collect(ctx, q, func(r *row) []any { return []any{&r.version, &r.needs} },
		`SELECT VERSION, NEEDS FROM SALLYPORT_SCHEMA`)
	if err != nil {
		return 0, err
	}
	if len(rows) == 0 && d.stepwise {
		return 0, nil // the program that made it was interrupted
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
			"upgrade it, or name another %s", newest.needs, known, d.place())
	}
	return newest.version, nil
}

// place is what a URL names, for messages.
func (d *dialect) place() string {
	if d.server() {
		return "database"
	}
	return "file"
}

// columns reads all rows of a query for one column.
func columns[T any](ctx context.Context, q querier, query string, args ...any) ([]T, error) {
	return collect(ctx, q, func(v *T) []any { return []any{v} }, query, args...)
}

// collect reads all rows of a query, each into the places in a T that its columns belong to.
func collect[T any](ctx context.Context, q querier, places func(*T) []any, query string, args ...any) (values []T, err error) {
	err = each(ctx, q, places, func(v T) { values = append(values, v) }, query, args...)
	return values, err
}

// each is collect with a function that gets each row.
func each[T any](ctx context.Context, q querier, places func(*T) []any, f func(T), query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		heard(ctx)
		var v T
		if err := rows.Scan(places(&v)...); err != nil {
			return err
		}
		f(v)
	}
	return rows.Err()
}
