package certstore

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// memory is what follows "sqlite:" for a database in memory.
const memory = ":memory:"

// A URL locates a Store's database, in one of the forms that Open takes. The zero URL locates none.
type URL struct {
	dialect *dialect // one of dialects
	rest    string   // a SQLite file, or memory
	server  server   // another database
}

// A server locates a database on a server.
type server struct {
	user, password string
	host, port     string
	socket         string // in place of host and port
	database       string
	tls            string // one of the dialect's tlsWords; "": TLS, except with this machine
	caFile         string // roots in PEM; "": the system's
}

// tlsWords are the URL's parameter and its values that say whether the connection is by TLS.
type tlsWords struct{ key, verify, plain string }

// A Source is a URL, and what may stand beside it so that it can be shown.
type Source struct {
	URL      string
	Password string // of the URL's user, if the URL has none
	CAFile   string // roots in PEM that the server's certificate is verified with; "": the system's
}

// parse reads the URL with what stands beside it.
func (s Source) parse() (URL, error) {
	u, err := ParseURL(s.URL)
	switch {
	case err != nil:
		return URL{}, err
	case s.Password != "" && !u.dialect.server():
		return URL{}, invalid("a password is for a database on a server: remove it")
	case s.Password != "" && u.server.password != "":
		return URL{}, invalid("the password stands in the URL and beside it: remove one")
	case s.CAFile != "" && (!u.dialect.server() || u.server.socket != "" || u.server.tls == u.dialect.tls.plain):
		return URL{}, invalid("caFile is for TLS, and the URL asks for none: remove one")
	}
	u.server.password, u.server.caFile = cmp.Or(s.Password, u.server.password), s.CAFile
	return u, nil
}

// Check reports what is wrong with the URL and with what stands beside it. It opens nothing.
func (s Source) Check() error {
	_, err := s.parse()
	return err
}

// Open opens the database, as the function does.
func (s Source) Open(ctx context.Context, opts Options) (*Store, error) { return open(ctx, s, opts) }

// ParseURL reads a URL. Its errors don't quote it: it may hold a password.
func ParseURL(text string) (URL, error) {
	var forms []string
	for _, d := range dialects {
		for _, prefix := range d.prefixes {
			if rest, ok := strings.CutPrefix(text, prefix); ok {
				if d.unbuilt != "" {
					return URL{}, invalid("%s", d.unbuilt)
				}
				if d.server() {
					at, err := d.parseServer(rest)
					return URL{dialect: d, server: at}, err
				}
				switch {
				case rest == memory:
				case rest == "", strings.HasPrefix(rest, ":"), strings.HasPrefix(rest, "//"), strings.ContainsRune(rest, 0):
					return URL{}, invalid("expected %s", d.form)
				}
				return URL{dialect: d, rest: rest}, nil
			}
		}
		if d.unbuilt == "" {
			forms = append(forms, d.form)
		}
	}
	return URL{}, invalid("expected %s", strings.Join(forms, " or "))
}

// parseServer reads what follows the prefix.
func (d *dialect) parseServer(rest string) (server, error) {
	u, err := url.Parse("//" + rest)
	if err != nil || u.User == nil || u.User.Username() == "" || u.Fragment != "" || strings.Contains(rest, "#") {
		return server{}, invalid("expected %s", d.form)
	}
	at := server{user: u.User.Username(), host: u.Hostname(), port: u.Port(), database: strings.TrimPrefix(u.Path, "/")}
	at.password, _ = u.User.Password()
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return server{}, invalid("expected %s", d.form)
	}
	known := strings.Fields(d.tls.key + " " + d.socket)
	for key, list := range values {
		switch {
		case !slices.Contains(known, key):
			return server{}, invalid("the parameter %q isn't known here: there is %s", key, strings.Join(known, " and "))
		case len(list) != 1:
			return server{}, invalid("the parameter %s is there twice: keep one", key)
		}
	}
	at.tls = values.Get(d.tls.key)
	socket := d.socket != "" && values.Has(d.socket)
	if socket {
		at.socket = values.Get(d.socket)
	}
	switch {
	case values.Has(d.tls.key) && at.tls != d.tls.verify && at.tls != d.tls.plain:
		return server{}, invalid("%s is %s or, for no TLS, %s: every other word believes any server",
			d.tls.key, d.tls.verify, d.tls.plain)
	case at.database == "" || strings.Contains(at.database, "/"):
		return server{}, invalid("it names no database: expected %s", d.form)
	case socket:
		if at.host != "" || at.port != "" || !filepath.IsAbs(at.socket) {
			return server{}, invalid("%s is the absolute path of a socket, and no host stands before the database", d.socket)
		}
		if at.tls == d.tls.verify {
			return server{}, invalid("a socket has no TLS: remove %s", d.tls.key)
		}
		return at, nil
	case at.host == "" || strings.ContainsAny(at.host, ", "):
		return server{}, invalid("it names no host, or several: expected %s", d.form)
	}
	if at.port == "" {
		at.port = d.port
	}
	if n, err := strconv.ParseUint(at.port, 10, 16); err != nil || n == 0 {
		return server{}, invalid("its port is to be a number up to 65535")
	}
	for _, s := range []string{at.user, at.password, at.database, at.socket, at.host} {
		if strings.ContainsRune(s, 0) {
			return server{}, invalid("it holds a NUL")
		}
	}
	return at, nil
}

// String is the URL as ParseURL reads it, without its password.
func (u URL) String() string {
	switch {
	case u.dialect == nil:
		return ""
	case !u.dialect.server():
		return u.dialect.prefixes[0] + u.rest
	}
	at, shown := u.server, url.URL{User: url.User(u.server.user), Path: "/" + u.server.database}
	if at.host != "" {
		shown.Host = net.JoinHostPort(at.host, at.port)
	}
	var parameters []string
	if at.socket != "" {
		parameters = append(parameters, u.dialect.socket+"="+url.QueryEscape(at.socket))
	}
	if at.tls != "" {
		parameters = append(parameters, u.dialect.tls.key+"="+at.tls)
	}
	shown.RawQuery = strings.Join(parameters, "&")
	return u.dialect.prefixes[0] + strings.TrimPrefix(shown.String(), "//")
}

// Password returns the password in the URL, which String leaves out.
func (u URL) Password() string { return u.server.password }

// InMemory reports whether the database ends with its Store.
func (u URL) InMemory() bool { return u.rest == memory }

// OnServer reports whether the database is on a server.
func (u URL) OnServer() bool { return u.dialect != nil && u.dialect.server() }

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

// connect opens the database, to write as how says unless readOnly is set or WSO2 owns it. One in memory is always created.
func (u URL) connect(ctx context.Context, readOnly bool, how how) (*connection, error) {
	if readOnly && !u.InMemory() {
		how = justRead
	}
	conn, err := u.open(ctx, how)
	if err != nil || conn.wso2 == nil || how == justRead || u.dialect.server() {
		return conn, err
	}
	// Opened before the other is closed: the last connection to a SQLite file that may write takes its log into it.
	reader, err := u.open(ctx, justRead)
	if err = errors.Join(err, conn.close()); err != nil && reader != nil {
		err = errors.Join(err, reader.close())
	}
	if err != nil {
		return nil, err
	}
	return reader, nil
}

// open opens the database as how says.
func (u URL) open(ctx context.Context, how how) (*connection, error) {
	conn, err := u.dialect.connect(u, how)
	if err != nil {
		return nil, err
	}
	migrate := func(ctx context.Context) error { return u.dialect.migrate(ctx, conn, how) }
	if u.dialect.server() {
		until := time.Now().Add(migratePatience)
		for err = errMigrating; errors.Is(err, errMigrating) && time.Now().Before(until); {
			err = patiently(ctx, migrate)
		}
	} else {
		err = migrate(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, conn.close())
	}
	return conn, nil
}

// hosts that are this machine, without a look-up, beside addresses of the loopback.
var thisMachine = []string{"localhost", "ip6-localhost"}

// encrypted reports whether the connection is by TLS. Without it anybody between the two could read the password and
// register certificates, so it is left out only where nobody is between them, or where the URL says so.
func (u URL) encrypted() bool {
	at, words := u.server, u.dialect.tls
	address := net.ParseIP(at.host)
	local := address != nil && address.IsLoopback() || slices.Contains(thisMachine, strings.ToLower(at.host))
	switch {
	case at.socket != "" || at.tls == words.plain:
		return false
	case at.caFile != "" || at.tls == words.verify:
		return true
	}
	return !local
}
