package ratelimit

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"sallyport/internal/regularfile"
)

// A Mode is how several Redis servers work together. The zero Mode is Single.
type Mode uint8

const (
	Single   Mode = iota // one server
	Sentinel             // one master, which Sentinels name
	Cluster              // slots spread over masters
)

var modeWords = [...]string{Single: "single", Sentinel: "sentinel", Cluster: "cluster"}

// ParseMode reads a mode as configuration writes it: single, sentinel or cluster, exactly.
func ParseMode(s string) (Mode, error) {
	for m, word := range modeWords {
		if s == word {
			return Mode(m), nil
		}
	}
	return 0, fmt.Errorf("%.60q is none of %s", s, strings.Join(modeWords[:], ", "))
}

// String is the mode as ParseMode reads it.
func (m Mode) String() string { return modeWords[m] }

// Redis says where shared buckets are. Its zero value is none.
type Redis struct {
	Addresses []string // host:port; in mode Sentinel the Sentinels'; in mode Cluster some of the nodes
	Mode      Mode
	Master    string // the master's name in mode Sentinel; else empty
	Username  string // of an ACL user; "" for the default user
	Password  string
	TLS       bool
	CAFile    string // PEM file with the roots for TLS; "" for the system's
	Database  int    // 0 in mode Cluster
}

// MaxDatabase is the highest number of a database.
const MaxDatabase = 1 << 20

// A RedisError is what is wrong with a Redis. It never quotes the password.
type RedisError struct {
	Key     string // of configuration, that it is about: addresses, mode, master, username, caFile, database
	Message string
}

// Error is the message alone.
func (e *RedisError) Error() string { return e.Message }

// ParseRedis reads a URL such as redis://user:password@127.0.0.1:6379/0; rediss:// is TLS. The port is 6379 and the
// database 0 if the URL leaves them out. No error quotes the URL, which may hold a password.
func ParseRedis(s string) (Redis, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Redis{}, errors.New("no URL: write redis://127.0.0.1:6379/0, with % escapes in user and password")
	}
	r := Redis{TLS: u.Scheme == "rediss"}
	switch {
	case u.Scheme != "redis" && u.Scheme != "rediss":
		return Redis{}, errors.New("no URL of Redis: write redis://127.0.0.1:6379/0, or rediss:// for TLS")
	case u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return Redis{}, errors.New("more than user, password, host, port and database: write these as keys of their own")
	}
	if u.User != nil {
		r.Username = u.User.Username()
		r.Password, _ = u.User.Password()
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if r.Database, err = strconv.Atoi(db); err != nil {
			return Redis{}, errors.New("the database after the address is no number")
		}
	}
	r.Addresses = []string{net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6379"))}
	if !isAddress(r.Addresses[0]) { // in redis://user:99999 it is a password
		return Redis{}, errors.New("no host and port after redis://: write redis://127.0.0.1:6379/0")
	}
	return r, r.Validate()
}

// isAddress reports whether s is host:port.
func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && host != "" && bad == nil && n != 0
}

// Validate returns what is wrong with r, as a *RedisError, or nil.
func (r Redis) Validate() error {
	if key, message := r.fault(); message != "" {
		return &RedisError{key, message}
	}
	return nil
}

// fault returns what is wrong with r, and with which key.
func (r Redis) fault() (key, message string) {
	if len(r.Addresses) == 0 {
		return "addresses", "no address: name at least one, as in 127.0.0.1:6379"
	}
	for _, address := range r.Addresses {
		switch {
		case strings.ContainsAny(address, "@/"): // as in a URL, which may hold a password
			return "addresses", "an address is host:port alone, as in 127.0.0.1:6379: " +
				"user, password and database have keys of their own"
		case !isAddress(address):
			return "addresses", fmt.Sprintf("address %.100q is no host:port", address)
		}
	}
	switch {
	case int(r.Mode) >= len(modeWords):
		return "mode", "unknown mode"
	case r.Mode == Single && len(r.Addresses) > 1:
		return "addresses", fmt.Sprintf("%d addresses: mode single has one; say mode: sentinel or cluster", len(r.Addresses))
	case r.Mode == Sentinel && r.Master == "":
		return "mode", "mode sentinel needs master, the name that Sentinels know the master by"
	case r.Mode != Sentinel && r.Master != "":
		return "master", fmt.Sprintf("master is for mode sentinel, and the mode is %s", r.Mode)
	case r.Database < 0 || r.Database > MaxDatabase:
		return "database", fmt.Sprintf("database %d: want 0 to %d", r.Database, MaxDatabase)
	case r.Mode == Cluster && r.Database != 0:
		return "database", "a cluster has database 0 only"
	case r.Username != "" && r.Password == "":
		return "username", "username without a password"
	case r.CAFile != "" && !r.TLS:
		return "caFile", "caFile is for TLS: say tls: true, or rediss://"
	}
	return "", ""
}

// String is r without its password.
func (r Redis) String() string {
	s := "Redis at " + strings.Join(r.Addresses, ", ")
	if r.Mode != Single {
		s += " (" + r.Mode.String() + ")"
	}
	return s
}

// Format prints String() whatever the verb, so that no debugging output shows a password.
func (r Redis) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(r.String())) }

// MarshalText is String(), so that encoders don't write passwords either.
func (r Redis) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// dialPatience bounds a connection's way up to its first command: TCP, TLS, authentication.
const dialPatience = time.Second

// open returns a client. It connects when it is used.
func (r Redis) open(readFile func(string) ([]byte, error)) (redis.UniversalClient, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	options := &redis.UniversalOptions{
		Addrs: r.Addresses, MasterName: r.Master, DB: r.Database, IsClusterMode: r.Mode == Cluster,
		Username: r.Username, Password: r.Password,
		// A script that was sent again after its answer was lost would run twice; its own numbers keep it from counting twice.
		MaxRetries: -1, DialerRetries: 1, DialTimeout: dialPatience, ContextTimeoutEnabled: true,
		// Servers before 7.2 don't know these commands, which cost a round trip each.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if r.TLS {
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if r.CAFile != "" {
			if readFile == nil {
				const most = 16 << 20 // as of other stores
				readFile = func(path string) ([]byte, error) { return regularfile.Read(path, most) }
			}
			data, err := readFile(r.CAFile)
			if err != nil {
				return nil, fmt.Errorf("caFile %s: %w", r.CAFile, err)
			}
			options.TLSConfig.RootCAs = x509.NewCertPool()
			if !options.TLSConfig.RootCAs.AppendCertsFromPEM(data) {
				return nil, fmt.Errorf("caFile %s: no certificate in PEM: name a file with the certificates of the CAs", r.CAFile)
			}
		}
	}
	redis.SetLogger(silence{})
	if r.Mode == Cluster {
		cluster := options.Cluster()
		// The library does not look for a dead master's successor by itself.
		cluster.ClusterStateReloadInterval = time.Second
		return redis.NewClusterClient(cluster), nil
	}
	return redis.NewUniversalClient(options), nil
}

// silence keeps the library from writing to standard error: Options.Told says what is wrong.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// An OnFailure is what becomes of calls that can't be counted in Redis. The zero value is ShareLocally.
type OnFailure uint8

const (
	ShareLocally OnFailure = iota // each node lets a share of the tier pass, by the nodes that were seen last
	AllowAll                      // all pass
	DenyAll                       // none passes
)

var failureWords = [...]string{ShareLocally: "local", AllowAll: "allow", DenyAll: "deny"}

// ParseOnFailure reads it as configuration writes it: local, allow or deny, exactly.
func ParseOnFailure(s string) (OnFailure, error) {
	for f, word := range failureWords {
		if s == word {
			return OnFailure(f), nil
		}
	}
	return 0, fmt.Errorf("%.60q is none of %s", s, strings.Join(failureWords[:], ", "))
}

// String is f as ParseOnFailure reads it.
func (f OnFailure) String() string { return failureWords[f] }
