// Package token verifies OAuth2 access tokens that are JWTs, by the keys of the key managers that issue them.
package token

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/internal/contain"
)

var (
	// ErrInvalid reports that the token is not good, for whatever reason. Retrying will not help.
	ErrInvalid = errors.New("token is not valid")

	// ErrExpired reports that the token has expired and is good otherwise. It matches ErrInvalid, too.
	ErrExpired error = expiredError{}

	// ErrUnavailable reports that the token cannot be judged now: its issuer cannot be reached, and its keys were never
	// fetched or are too old; or its key is not known, and may have been made since they were. See RetryAfter.
	ErrUnavailable = errors.New("keys of the token's issuer are not available")
)

type expiredError struct{}

func (expiredError) Error() string        { return "token has expired" }
func (expiredError) Is(target error) bool { return target == ErrInvalid }

// An unavailableError is ErrUnavailable with its cause.
type unavailableError struct {
	after time.Duration // until then it stays so; 0: not known
	cause error
}

func (e *unavailableError) Error() string        { return ErrUnavailable.Error() + ": " + e.cause.Error() }
func (e *unavailableError) Is(target error) bool { return target == ErrUnavailable }
func (e *unavailableError) Unwrap() error        { return e.cause }

// RetryAfter returns how long it makes no sense to try again what err, an ErrUnavailable, ended; 0 if that is not known.
func RetryAfter(err error) time.Duration {
	var e *unavailableError
	if errors.As(err, &e) {
		return e.after
	}
	return 0
}

// A KeyManager is an issuer of access tokens and where its keys are. Exactly one of JWKS and CertificateFile is set.
type KeyManager struct {
	// Name identifies it in Claims and in logs. It is required.
	Name string

	// Type is WSO2's word for its make: default, WSO2-IS, WSO2-IS-7 or custom. All verify alike.
	Type string

	// Issuer is compared byte by byte with the token's iss. It is required, and no two key managers share one.
	Issuer string

	// JWKS is the http or https URL, or the file, of its JSON Web Key Set (RFC 7517). A plain http URL draws a
	// warning unless its host is loopback. An https URL honours HTTPS_PROXY; the issuer's certificate is verified.
	JWKS string

	// CertificateFile is a PEM file with exactly one certificate or public key. The token's kid is then ignored.
	CertificateFile string

	// CAFile is a PEM file with the roots for the TLS of an https JWKS; empty means those of the system. It is read
	// again at each fetch.
	CAFile string

	// TokenType "at+jwt" demands that typ of a token's header (RFC 9068). Empty admits no typ and JWT as well, but not
	// what has the marks of an ID token or another kind; "JWT" admits these, too. All take the typ with and without
	// "application/", in any case.
	TokenType string
}

// Options make a Verifier.
type Options struct {
	KeyManagers []KeyManager

	// Last is the Verifier that this one follows, under the same clock; nil means none. A key manager with a JWKS URL
	// that is the same as one of Last's in every field, and whose keys are under the same RefreshInterval, CoolDown,
	// FetchTimeout and MaxAge, begins with the newest good keys that Last has for it, and with their age: its tokens
	// stay good while the issuer is away. Files are read again, and the cache starts empty. Last need not be running,
	// is not changed, and is not retained.
	Last *Verifier

	Now func() time.Time // the clock that judges tokens; nil means time.Now
	Log *slog.Logger     // what happens to keys; nil means nowhere

	// Looked, if not nil, is called with each new reason why a key manager's keys could not be refreshed, and with nil
	// when they can be again. It must not call the Verifier.
	Looked func(keyManager string, err error)

	Panicked func(where string) // called for each panic on a goroutine of Run or Refresh; nil: nobody counts

	// CacheSize is how many verified tokens are remembered; 0 means 65,536. One longer than 1 KiB counts as several.
	CacheSize int

	RefreshInterval time.Duration // between two reads of a JWKS URL; 0 means 5 min
	CoolDown        time.Duration // an unknown kid brings at most one read within it, all of them two of a URL; 0 means 30 s
	FetchTimeout    time.Duration // for one fetch, the body included; 0 means 5 s
	FilePoll        time.Duration // between two reads of a JWKS or certificate file; 0 means 10 s
	MaxAge          time.Duration // keys that could not be refreshed for so long are no longer used; 0 means 24 h

	// Leeway allows for clocks that differ: a token is accepted this long after exp and before nbf. 0 means 60 s, and
	// more is an error.
	Leeway time.Duration
}

// Claims are what a verified token says. All calls with that token share them, so they must not be changed.
type Claims struct {
	KeyManager string    // the name of the one that issued it
	Issuer     string    // iss
	Subject    string    // sub; may be empty
	ClientID   string    // azp, else client_id, else WSO2's consumerKey; may be empty
	TokenID    string    // jti; may be empty
	Scopes     []string  // scope, else scp, whether a list or separated by spaces
	Audience   []string  // aud, a list or one; the API judges it
	Expires    time.Time // exp, without leeway
}

// A Verifier verifies the tokens of its key managers. Its methods may be called concurrently.
type Verifier struct {
	now     func() time.Time
	leeway  time.Duration
	log     *slog.Logger
	issuers map[string]*issuer // by iss
	cache   *cache
	faults  *contain.Faults
	tasks   *tasks
	running atomic.Bool
}

// An issuer is a key manager with its keys.
type issuer struct {
	KeyManager
	keys   *keyring
	claims *jwt.Validator // of iss and times
}

// New checks cfg and reads the files it names; an unreadable one is an error. URLs are not asked yet: one that is down
// is no error, its tokens are ErrUnavailable. New starts nothing: Run keeps the keys fresh.
func New(cfg Options) (*Verifier, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	v := &Verifier{
		now:     cfg.Now,
		leeway:  cfg.Leeway,
		log:     cfg.Log,
		issuers: make(map[string]*issuer, len(cfg.KeyManagers)),
		cache:   newCache(cfg.CacheSize),
		faults:  &contain.Faults{Log: cfg.Log, Count: cfg.Panicked},
	}
	v.tasks = newTasks(v.faults)
	for _, km := range cfg.KeyManagers {
		if err := v.add(km, cfg); err != nil {
			return nil, fmt.Errorf("key manager %q: %w", km.Name, err)
		}
	}
	return v, nil
}

func (v *Verifier) add(km KeyManager, cfg Options) error {
	if err := km.check(); err != nil {
		return err
	}
	for _, other := range v.issuers {
		if other.Name == km.Name {
			return errors.New("the name is taken")
		}
		if other.Issuer == km.Issuer {
			return fmt.Errorf("issuer %q is that of key manager %q", km.Issuer, other.Name)
		}
	}
	keys, err := newKeyring(km, cfg, v.tasks)
	if err != nil {
		return err
	}
	if cfg.Last != nil {
		if same := cfg.Last.issuers[km.Issuer]; same != nil && same.KeyManager == km {
			keys.takeOver(same.keys)
		}
	}
	v.issuers[km.Issuer] = &issuer{KeyManager: km, keys: keys, claims: jwt.NewValidator(
		jwt.WithIssuer(km.Issuer),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(v.leeway),
		jwt.WithTimeFunc(v.now),
	)}
	return nil
}

// Cached returns the claims of a token that Verify found good, if that still holds: it has not expired, and the key
// that verified it is still one of its issuer's. It neither waits nor allocates.
func (v *Verifier) Cached(raw string) (*Claims, bool) {
	return v.cache.find(raw, v.now())
}

// Ignored returns why keys in a key manager's source, as it was read last, are not used; not those that say themselves
// that they are for something else.
func (v *Verifier) Ignored(keyManager string) []error {
	for _, from := range v.issuers {
		if set := from.keys.set.Load(); from.Name == keyManager && set != nil {
			return slices.DeleteFunc(slices.Clone(set.ignored), func(err error) bool { return errors.Is(err, errOtherUse) })
		}
	}
	return nil
}

// SkippedRoots returns why certificates of a key manager's CA file, as it was read last, are not used.
func (v *Verifier) SkippedRoots(keyManager string) []error {
	for _, from := range v.issuers {
		if from.Name == keyManager && from.keys.url != nil {
			return from.keys.url.trusted.Load().skipped
		}
	}
	return nil
}

// Certificates returns those that a key manager's tokens are verified by, and those of its CA file, as they were read
// last. Nothing is read for it.
func (v *Verifier) Certificates(keyManager string) (verify, roots []*x509.Certificate) {
	for _, from := range v.issuers {
		if from.Name != keyManager {
			continue
		}
		if set := from.keys.set.Load(); set != nil {
			verify = set.shown
		}
		if from.keys.url != nil {
			roots = from.keys.url.trusted.Load().certificates
		}
	}
	return verify, roots
}

// Verify returns the claims of a good token, and remembers it for Cached. It waits only for a key it does not know: at
// most FetchTimeout, and no longer than ctx. The errors are ErrInvalid, ErrExpired and ErrUnavailable, and say nothing
// of the token but its kid. A kid that is not known is ErrInvalid only after a look at the source.
func (v *Verifier) Verify(ctx context.Context, raw string) (claims *Claims, err error) {
	defer v.contain(&claims, &err)
	t, from, err := v.origin(raw)
	if err != nil {
		return nil, err
	}
	k, err := from.keys.find(ctx, t.header)
	if err != nil {
		return nil, err
	}
	return v.accept(raw, t, from, k)
}

// Still is Verify for a token that was good before and then had the claims was; nil if it was not looked at. It goes by
// the keys that were read last, and waits for none: a token whose key is not among them is ErrInvalid. A Verifier that
// could not read the keys of was's key manager yet takes the token to be as good as before until it expires, for MaxAge
// at most: that an issuer is away tells nothing about its keys. Otherwise keys that are missing or too old are
// ErrUnavailable.
func (v *Verifier) Still(raw string, was *Claims) (claims *Claims, err error) {
	defer v.contain(&claims, &err)
	t, from, err := v.origin(raw)
	if err != nil {
		return nil, err
	}
	if was != nil && was.KeyManager == from.Name && was.Issuer == from.Issuer && from.keys.unread() {
		if !v.now().Before(was.Expires.Add(v.leeway)) {
			return nil, ErrExpired
		}
		return was, nil
	}
	k, err := from.keys.known(t.header)
	if err != nil {
		return nil, err
	}
	return v.accept(raw, t, from, k)
}

// contain makes a panic ErrInvalid.
func (v *Verifier) contain(claims **Claims, err *error) {
	if cause := recover(); cause != nil {
		// The value may quote the token: its type and the stack tell enough.
		v.log.Error("token verification panicked", "type", fmt.Sprintf("%T", cause), "stack", string(debug.Stack()))
		*claims, *err = nil, invalid("its verification panicked")
	}
}

// origin takes an access token apart, and says whose it says it is.
func (v *Verifier) origin(raw string) (*parsedToken, *issuer, error) {
	t, err := parse(raw)
	if err != nil {
		return nil, nil, err
	}
	from := v.issuers[t.claims.issuer]
	if from == nil {
		return nil, nil, invalid("its issuer is not configured")
	}
	if !from.accepts(&t) {
		return nil, nil, invalid("by its typ or claims it is no access token")
	}
	return &t, from, nil
}

// accept returns the claims of a token that k verifies, and remembers it.
func (v *Verifier) accept(raw string, t *parsedToken, from *issuer, k *key) (*Claims, error) {
	if err := from.verify(t, k); err != nil {
		return nil, err
	}
	claims := t.claims.claims(from)
	v.cache.add(raw, &entry{claims: claims, from: t.claims.validFrom(v.leeway), until: claims.Expires.Add(v.leeway), keys: from.keys, key: k})
	return claims, nil
}

// verify checks signature, issuer and times. When it returns ErrExpired, everything
// except the token's age is good.
func (i *issuer) verify(t *parsedToken, k *key) error {
	if !k.verifies(&t.jws) {
		return invalid("its signature does not verify")
	}
	err := i.claims.Validate(&t.claims)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return invalid("it is not valid yet")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer), errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return invalid("a claim is missing or wrong")
	case errors.Is(err, jwt.ErrTokenExpired):
		return ErrExpired
	default:
		return invalid("its claims do not hold")
	}
}

// invalid is an ErrInvalid for the given reason, which must not quote the token.
func invalid(reason string) error {
	return fmt.Errorf("%w: %s", ErrInvalid, reason)
}

// types are the words of KeyManager.Type, accessToken and anyJWT those of KeyManager.TokenType.
var types = []string{"default", "WSO2-IS", "WSO2-IS-7", "custom"}

const (
	accessToken = "at+jwt"
	anyJWT      = "JWT"
)

// ParseType reads a KeyManager's Type, without case.
func ParseType(word string) (string, error) {
	for _, known := range types {
		if strings.EqualFold(word, known) {
			return known, nil
		}
	}
	return "", fmt.Errorf("%.60q is none of %s", word, strings.Join(types, ", "))
}

// ParseTokenType reads a KeyManager's TokenType.
func ParseTokenType(word string) (string, error) {
	if word != accessToken && word != anyJWT {
		return "", fmt.Errorf("%.60q is neither %s nor %s", word, accessToken, anyJWT)
	}
	return word, nil
}

// TakesOthers reports whether tokens of the key manager that are not for access, such as ID tokens without any mark, may
// pass for access tokens: then only an API's audiences tell them apart.
func (km KeyManager) TakesOthers() bool { return km.TokenType != accessToken }

// check finds what is wrong with a key manager apart from its files.
func (km KeyManager) check() error {
	switch {
	case km.Name == "":
		return errors.New("it has no name")
	case km.Issuer == "":
		return errors.New("it has no issuer")
	case !slices.Contains(types, km.Type):
		return fmt.Errorf("type %q is none of %s", km.Type, strings.Join(types, ", "))
	case km.TokenType != "" && km.TokenType != accessToken && km.TokenType != anyJWT:
		return fmt.Errorf("token type %q is neither %s nor %s", km.TokenType, accessToken, anyJWT)
	case km.JWKS == "" && km.CertificateFile == "":
		return errors.New("it has neither a JWKS nor a certificate")
	case km.JWKS != "" && km.CertificateFile != "":
		return errors.New("it has both a JWKS and a certificate")
	}
	return nil
}

// withDefaults fills in what zero means, and copies what the caller may change.
func (cfg Options) withDefaults() (Options, error) {
	cfg.KeyManagers = slices.Clone(cfg.KeyManagers)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Looked == nil {
		cfg.Looked = func(string, error) {}
	}
	if cfg.CacheSize < 0 {
		return cfg, errors.New("the cache size is negative")
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 65536
	}
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"refresh interval", &cfg.RefreshInterval, 5 * time.Minute},
		{"cool-down", &cfg.CoolDown, 30 * time.Second},
		{"fetch timeout", &cfg.FetchTimeout, 5 * time.Second},
		{"file poll interval", &cfg.FilePoll, 10 * time.Second},
		{"maximum age", &cfg.MaxAge, 24 * time.Hour},
		{"leeway", &cfg.Leeway, maxLeeway},
	} {
		if *d.value < 0 {
			return cfg, fmt.Errorf("the %s is negative", d.name)
		}
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	if cfg.Leeway > maxLeeway {
		return cfg, fmt.Errorf("the leeway is more than %v", maxLeeway)
	}
	return cfg, nil
}

const maxLeeway = 60 * time.Second
