package certstore

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sallyport/internal/printable"
	"sallyport/policy/certrule"
)

// Options say how a Store is used. The zero value reads and writes, as WSO2's super tenant.
type Options struct {
	// ReadOnly leaves the database as it is: it must exist and have its tables, and every change is ErrReadOnly.
	ReadOnly bool
	// Now is the clock by which Add and Update refuse expired certificates; nil means time.Now.
	Now func() time.Time
	// AnyTime has Add and Update take expired certificates, too.
	AnyTime bool
	// TenantID is the tenant whose rows are seen and written; 0 means -1234, WSO2's super tenant.
	TenantID int
	// Changed, if not nil, is called after each change by this Store, by the goroutine that made it. It must not
	// change the Store itself. What others change shows in Version.
	Changed func()
}

const superTenant = -1234

// A Store holds registered client certificates in a database, which other processes may change at the same time.
// Its methods may be called by many goroutines; they wait for the database and are never called for a request.
// Changes are durable when a method returns nil: neither a killed process nor a power cut takes them back.
// A change waits up to 5 seconds for another process that is changing the database, in SQLite whatever its context says;
// then it is an error. Reading does not wait for writers. A server that says nothing for 5 seconds is an error as well:
// whether a change whose end it did not tell was made is unknown then.
type Store struct {
	opts    Options
	url     URL
	writing chan struct{} // holds a token while this process writes: SQLite's own waiting is not fair

	opening chan struct{} // holds a token while the database of a Store that Later made is opened

	mu     sync.RWMutex // read-locked while conn is used, locked while it is replaced
	conn   *connection  // nil: the Store is closed, or its database was not opened yet
	closed bool

	looking sync.Mutex  // guards what Version remembers:
	seen    *connection // where it last looked,
	count   uint64      // what it saw there,
	version uint64      // and the version it derived
}

// Open opens the database at url and brings its tables to this program's version, unless Options.ReadOnly is set.
// A database that WSO2 API Manager made is opened as it is, for reading; see Store.Foreign.
//
// The forms are "sqlite:PATH", whose file is made with mode 0600 in a folder that must exist, and "sqlite::memory:",
// which lives as long as the Store. PATH is taken as it stands: nothing in it is decoded, and it has no parameters.
// A missing file or folder matches fs.ErrNotExist.
//
// "postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE" and "mysql://…", also for MariaDB, are databases on servers, which
// must exist; tables that are missing match fs.ErrNotExist. The connection is by TLS, and the server's certificate has to
// be valid for HOST, unless HOST is this machine. The parameters are, in a URL of PostgreSQL, sslmode=verify-full or
// disable, and host for the folder of a socket; in one of MySQL tls=true or false, and socket.
//
// "sqlserver://…" and, in a program built with the tag oracle, "oracle://USER[:PASSWORD]@HOST[:PORT]/SERVICE" are for the
// database of WSO2 only. Their parameters are encrypt=true or disable, and ssl=true or false.
//
// A SQLite database consists of PATH, PATH-wal and PATH-shm. To put a copy in its place, rename the copy over PATH
// after removing the other two.
func Open(ctx context.Context, url string, opts Options) (*Store, error) {
	return open(ctx, Source{URL: url}, opts)
}

func open(ctx context.Context, source Source, opts Options) (*Store, error) {
	s, err := source.Later(opts)
	if err == nil {
		err = s.arrive(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Later is Open for a database that is away: it opens nothing, and each call opens the database first, as Open does,
// until one has.
func (s Source) Later(opts Options) (*Store, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.TenantID == 0 {
		opts.TenantID = superTenant
	}
	if opts.Changed == nil {
		opts.Changed = func() {}
	}
	at, err := s.parse()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return &Store{opts: opts, url: at, writing: make(chan struct{}, 1), opening: make(chan struct{}, 1)}, nil
}

// arrive opens the database unless that has been done.
func (s *Store) arrive(ctx context.Context) error {
	if s.arrived() {
		return nil
	}
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.arrived() {
		return nil
	}
	conn, err := s.url.connect(ctx, s.opts.ReadOnly, create)
	if err != nil {
		return fmt.Errorf("open store %q: %w", s.url, s.url.dialect.advise(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(errClosed, conn.close())
	}
	s.conn = conn
	return nil
}

// arrived reports whether nothing is left to be opened.
func (s *Store) arrived() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.conn != nil || s.closed
}

// OnServer reports whether the database is on a server: only Version tells of changes by others then.
func (s *Store) OnServer() bool { return s.url.OnServer() }

// Foreign reports whether WSO2 API Manager owns the database. It is only read then: every change is ErrReadOnly, no quota
// is stored in it, registrations have no scopes, and on a server Version reads all of them.
func (s *Store) Foreign() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.conn != nil && s.conn.wso2 != nil
}

// Close closes the database once the calls under way have ended. Every later call is an error.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn == nil {
		return nil
	}
	conn := s.conn
	s.conn = nil
	if err := conn.close(); err != nil {
		return fmt.Errorf("close store %q: %w", s.url, err)
	}
	return nil
}

// Add registers client.Certificate for client.API; the API's row is made if it is the first. Fingerprint and Source
// need not be set. The errors match ErrInvalid, ErrExpired, ErrAliasTaken (for that API and key type), ErrRegistered
// (it names the alias) or ErrReadOnly, or come from the database; after any of them nothing is stored.
func (s *Store) Add(ctx context.Context, client Client) error {
	err := s.add(ctx, client)
	if err != nil {
		return fmt.Errorf("register %s for API %s: %w", printable.Quote(client.Alias), printable.Quote(client.API.String()), err)
	}
	return nil
}

func (s *Store) add(ctx context.Context, client Client) error {
	client, err := client.complete()
	if err != nil {
		return err
	}
	if err := s.checkExpiry(client.Certificate); err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, tx querier) error {
		apiID, err := s.apiRow(ctx, tx, client.API)
		if errors.Is(err, ErrNotFound) {
			apiID, err = s.addAPI(ctx, tx, client.API)
		}
		if err != nil {
			return err
		}
		_, err = s.find(ctx, tx, client.API, client.KeyType, client.Alias)
		if err == nil {
			return fmt.Errorf("%w for %s", ErrAliasTaken, client.KeyType)
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := s.checkUnregistered(ctx, tx, apiID, client.Fingerprint); err != nil {
			return err
		}
		return s.insert(ctx, tx, apiID, client)
	})
}

// Update replaces the certificate (nil keeps it), the tier ("" keeps it) and the scopes (nil keeps them) of one
// registration, all in one transaction: the old row becomes the tombstone. An empty keyType means the only one that
// the alias has for that API. The errors are Add's, and ErrNotFound.
func (s *Store) Update(ctx context.Context, api API, keyType KeyType, alias string, cert *x509.Certificate, tier string, scopes *[]string) error {
	return s.Change(ctx, api, keyType, alias, Change{Certificate: cert, Tier: tier, Scopes: scopes})
}

// A Change is what becomes of a registration. The zero value of a field keeps what is there.
type Change struct {
	Certificate *x509.Certificate
	Tier        string
	Scopes      *[]string
	Match       *certrule.Matcher // one that admits every leaf takes it away
}

// Change is Update for more.
func (s *Store) Change(ctx context.Context, api API, keyType KeyType, alias string, change Change) error {
	err := s.change(ctx, api, keyType, alias, change)
	if err != nil {
		return fmt.Errorf("update %s for API %s: %w", printable.Quote(alias), printable.Quote(api.String()), err)
	}
	return nil
}

func (s *Store) change(ctx context.Context, api API, keyType KeyType, alias string, change Change) error {
	cert, tier, scopes := change.Certificate, change.Tier, change.Scopes
	if change == (Change{}) {
		return invalid("nothing to change")
	}
	if cert != nil {
		if err := checkCertificate(cert); err != nil {
			return err
		}
		if err := s.checkExpiry(cert); err != nil {
			return err
		}
	}
	return s.write(ctx, func(ctx context.Context, tx querier) error {
		old, err := s.find(ctx, tx, api, keyType, alias)
		if err != nil {
			return err
		}
		// What is replaced is not read: an update may be what mends a row that List reports.
		next := Client{API: api, Alias: old.alias, KeyType: KeyType(old.keyType), Tier: old.tier.String, Certificate: cert}
		if tier != "" {
			next.Tier = tier
		}
		if cert == nil {
			if next.Certificate, err = parseStored(old.certificate); err != nil {
				return invalid("its certificate, as it is stored, can't be kept: %v: give it another one", err)
			}
		}
		if scopes != nil {
			next.Scopes = *scopes
		} else {
			next.Scopes = splitScopes(old.scopes.String)
		}
		if next.Match = change.Match; next.Match == nil {
			if next.Match, err = old.matcher(); err != nil {
				return invalid("%v: it can't be kept: give it another match", err)
			}
		}
		if next, err = next.complete(); err != nil {
			return err
		}
		if err := s.bury(ctx, tx, old); err != nil {
			return err
		}
		if cert != nil {
			if err := s.checkUnregistered(ctx, tx, old.apiID, next.Fingerprint); err != nil {
				return err
			}
		}
		return s.insert(ctx, tx, old.apiID, next)
	})
}

// Remove ends one registration. Its row stays as a tombstone, REMOVED = 1, in the place of an earlier one of that
// alias. An empty keyType means the only one that the alias has for that API, and is an error matching ErrInvalid if it
// has both. The errors match ErrNotFound, ErrInvalid or ErrReadOnly, or come from the database.
func (s *Store) Remove(ctx context.Context, api API, keyType KeyType, alias string) error {
	err := s.write(ctx, func(ctx context.Context, tx querier) error {
		r, err := s.find(ctx, tx, api, keyType, alias)
		if err != nil {
			return err
		}
		return s.bury(ctx, tx, r)
	})
	if err != nil {
		return fmt.Errorf("remove %s of API %s: %w", printable.Quote(alias), printable.Quote(api.String()), err)
	}
	return nil
}

// Get returns one live registration. An empty keyType means what it means to Remove. A row that List would report as a
// Problem of its own is an error.
func (s *Store) Get(ctx context.Context, api API, keyType KeyType, alias string) (Client, error) {
	var client Client
	err := s.use(ctx, func(ctx context.Context, c *connection) error {
		r, err := s.look(ctx, c, api, keyType, alias)
		if err != nil {
			return err
		}
		client, err = r.client()
		return err
	})
	if err != nil {
		return Client{}, fmt.Errorf("look up %s of API %s: %w", printable.Quote(alias), printable.Quote(api.String()), err)
	}
	return client, nil
}

// look is find for reading alone.
func (s *Store) look(ctx context.Context, c *connection, api API, keyType KeyType, alias string) (row, error) {
	if c.wso2 == nil {
		c.listed.mu.Lock()
		defer c.listed.mu.Unlock()
		q := session{s.url.dialect, c.db}
		if err := c.listed.lookForMatch(ctx, s, q); err != nil {
			return row{}, err
		}
		return s.findWith(ctx, q, c.listed.match, api, keyType, alias)
	}
	rows, err := c.wso2.rows(ctx, session{s.url.dialect, c.db}, s.opts.TenantID)
	if err != nil {
		return row{}, err
	}
	return only(slices.DeleteFunc(rows, func(r row) bool { return r.api() != api || r.alias != alias }), keyType)
}

// A Problem is a live row that cannot be admitted: its certificate or a word in it cannot be read, or it contradicts
// another row. The texts are as they stand in the database.
type Problem struct {
	API     API
	Alias   string
	KeyType KeyType
	Err     error
}

// String says which row it is and what is wrong with it, on one line.
func (p Problem) String() string {
	return fmt.Sprintf("client %s (%s) of API %s in the store: %v",
		printable.Quote(p.Alias), printable.Quote(string(p.KeyType)), printable.Quote(p.API.String()), p.Err)
}

// List returns all live registrations, by API, alias and key type, as they were at one moment. Rows that cannot be
// admitted are in the second value and not in the first; the error is for a database that cannot be read at all.
func (s *Store) List(ctx context.Context) ([]Client, []Problem, error) {
	var clients []Client
	var problems []Problem
	err := s.use(ctx, func(ctx context.Context, c *connection) error {
		c.listed.mu.Lock()
		defer c.listed.mu.Unlock()
		read := func(q querier) (err error) {
			clients, problems, err = c.listed.list(ctx, s, c.wso2, session{s.url.dialect, q})
			return err
		}
		if c.wso2 != nil {
			return read(c.db) // with one statement, which sees one moment
		}
		return readAtOnce(ctx, c.db, read)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list registered certificates: %w", err)
	}
	return clients, problems, nil
}

// OtherTenants counts the live registrations of tenants that this Store leaves out, by TENANT_ID.
func (s *Store) OtherTenants(ctx context.Context) (counts map[int]int, err error) {
	err = s.use(ctx, func(ctx context.Context, c *connection) (err error) {
		counts, err = s.others(ctx, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count registered certificates of other tenants: %w", err)
	}
	return counts, nil
}

// Version returns a number that is another one each time after registrations were changed by this process or any other,
// and may be another one without a change. Quotas, values and leases leave it alone. It means something for this Store only.
func (s *Store) Version(ctx context.Context) (uint64, error) {
	s.looking.Lock()
	defer s.looking.Unlock()
	err := s.use(ctx, func(ctx context.Context, conn *connection) error {
		n, err := s.changes(ctx, conn)
		if err == nil && (conn != s.seen || n != s.count) {
			s.seen, s.count = conn, n
			s.version++
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look for changes in the store: %w", err)
	}
	return s.version, nil
}

// changes returns what connection.changes does, also for a database that nobody marks.
func (s *Store) changes(ctx context.Context, conn *connection) (uint64, error) {
	if conn.wso2 != nil && s.url.dialect.server() {
		return conn.wso2.digest(ctx, session{s.url.dialect, conn.db}, s.opts.TenantID)
	}
	return conn.changes(ctx)
}

// Listen calls changed when it begins to hear of changes, and then after each that a Store makes in the same database, until
// ctx ends or the connection, its own, does. It misses what other programs change, and where a pool of connections is
// before the server perhaps all: Version tells of everything. Where there is nothing to be heard it returns nil at once.
func (s *Store) Listen(ctx context.Context, changed func()) error {
	if err := s.arrive(ctx); err != nil {
		return err
	}
	s.mu.RLock()
	conn := s.conn
	s.mu.RUnlock()
	switch {
	case conn == nil:
		return errClosed
	case conn.listen == nil || conn.wso2 != nil:
		return nil
	}
	if err := conn.listen(ctx, changed); err != nil {
		return fmt.Errorf("listen for changes in the store: %w", s.url.dialect.advise(err))
	}
	return nil
}

func (s *Store) checkExpiry(cert *x509.Certificate) error {
	if !s.opts.AnyTime && s.opts.Now().After(cert.NotAfter) {
		return fmt.Errorf("%w (on %s)", ErrExpired, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkUnregistered compares with the live rows of an API. Those that programs of version 1 wrote have no fingerprint:
// they are read, and given theirs.
func (s *Store) checkUnregistered(ctx context.Context, tx querier, apiID int64, fingerprint [32]byte) error {
	known, err := s.rows(ctx, tx, " AND C.API_ID = ? AND C.FINGERPRINT = ?", apiID, hex.EncodeToString(fingerprint[:]))
	if err != nil {
		return err
	}
	unknown, err := s.rows(ctx, tx, " AND C.API_ID = ? AND C.FINGERPRINT IS NULL", apiID)
	if err != nil {
		return err
	}
	for _, r := range slices.Concat(known, unknown) {
		// The column only finds the row: the certificate in it decides.
		if found, err := r.fingerprint(); err == nil && found == fingerprint {
			return fmt.Errorf("%w as %s (%s)", ErrRegistered, printable.Quote(r.alias), r.keyType)
		}
	}
	for _, r := range unknown {
		if err := s.identify(ctx, tx, r); err != nil {
			return err
		}
	}
	return nil
}

// A querier is a database, a connection to it, or a transaction in it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// changeMark is the first statement of a transaction that changes registrations, where no trigger marks the change.
const changeMark = `UPDATE SALLYPORT_CHANGE SET MARK = ?`

// write changes registrations and says so. No other writer changes any meanwhile.
func (s *Store) write(ctx context.Context, f func(context.Context, querier) error) error {
	err := s.commit(ctx, func(ctx context.Context, tx querier) error {
		if change := s.url.dialect.change; change != "" {
			result, err := tx.ExecContext(ctx, change, rand.Int64())
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil || n != 1 {
				return errors.Join(errNoMark, err)
			}
		}
		if tell := s.url.dialect.tell; tell != "" {
			if _, err := tx.ExecContext(ctx, tell); err != nil {
				return err
			}
		}
		return f(ctx, tx)
	})
	if err != nil {
		return err
	}
	s.opts.Changed()
	return nil
}

// commit calls f in a transaction, and again if that was undone for another's sake.
func (s *Store) commit(ctx context.Context, f func(context.Context, querier) error) error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	d := s.url.dialect
	for try := 1; ; try++ {
		err := s.use(ctx, func(ctx context.Context, c *connection) error {
			if c.wso2 != nil {
				return errOwned
			}
			if d.server() {
				return d.transact(ctx, c.db, f)
			}
			return inTransaction(ctx, c.db, func(tx querier) error { return f(ctx, tx) })
		})
		if err == nil || d.collided == nil || !d.collided(err) || try == tries {
			return err
		}
	}
}

func inTransaction(ctx context.Context, db *sql.DB, f func(querier) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, notDone(tx.Rollback()))
	}
	return tx.Commit()
}

// notDone drops the complaint that a transaction has ended by itself, as it does when its context ends.
func notDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// use calls f with the database that is at the Store's place now: one that has been replaced, as after a restored
// backup, is opened again. A change that went to the file which is no longer there would be lost.
func (s *Store) use(ctx context.Context, f func(context.Context, *connection) error) error {
	if err := s.arrive(ctx); err != nil {
		return err
	}
	if s.url.dialect.server() {
		return s.url.dialect.advise(patiently(ctx, func(ctx context.Context) error { return s.useNow(ctx, f) }))
	}
	return s.url.dialect.advise(s.useNow(ctx, f))
}

func (s *Store) useNow(ctx context.Context, f func(context.Context, *connection) error) error {
	for {
		s.mu.RLock()
		conn := s.conn
		if conn == nil {
			s.mu.RUnlock()
			return errClosed
		}
		replaced, err := conn.replaced()
		if err == nil && !replaced {
			err = f(ctx, conn)
		}
		s.mu.RUnlock()
		if err != nil || !replaced {
			return err
		}
		if err := s.reopen(ctx, conn); err != nil {
			return fmt.Errorf("open the database again: %w", err)
		}
	}
}

var errClosed = errors.New("the store is closed")

func (s *Store) reopen(ctx context.Context, old *connection) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != old {
		return nil // closed, or another goroutine reopened it
	}
	conn, err := s.url.connect(ctx, s.opts.ReadOnly, keep)
	if err != nil {
		return err
	}
	s.conn = conn
	return old.close()
}
