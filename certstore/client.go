// Package certstore keeps the client certificates that are registered for APIs.
//
// Registrations live in SQL, in the shape of WSO2's AM_API_CLIENT_CERTIFICATE, behind a [Store]. Requests are checked
// against an [Index], which is built from the Store's rows and never changes. The owner of both builds a new Index when
// [Store.Version] shows that the rows may have changed:
//
//	clients, problems, err := store.List(ctx)
//	index, err := certstore.NewIndex(clients)
//	client := index.Find(api, sha256.Sum256(leaf.Raw))
package certstore

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/internal/printable"
	"sallyport/policy/certrule"
)

var (
	// ErrInvalid reports that a value to store or look up is malformed.
	ErrInvalid = errors.New("invalid")
	// ErrExpired reports that a certificate has expired.
	ErrExpired = errors.New("the certificate has expired")
	// ErrAliasTaken reports that the alias is in use for that API and key type.
	ErrAliasTaken = errors.New("the alias is taken")
	// ErrRegistered reports that this certificate is already registered for that API.
	ErrRegistered = errors.New("the certificate is already registered")
	// ErrNotFound reports that no such certificate is registered.
	ErrNotFound = errors.New("no such certificate is registered")
	// ErrReadOnly reports that the Store was opened for reading only.
	ErrReadOnly = errors.New("the store was opened for reading only")
	// ErrUnavailable reports that a later try may succeed: the database is locked, or its disk full or failing. It adds
	// no text to the error that it is found in.
	ErrUnavailable = errors.New("the store is not available")
)

// invalid returns an error that matches ErrInvalid.
func invalid(format string, args ...any) error { return invalidError(fmt.Sprintf(format, args...)) }

type invalidError string

func (e invalidError) Error() string      { return string(e) }
func (invalidError) Is(target error) bool { return target == ErrInvalid }

// An API is named by its name and version, as in WSO2. Both are compared byte for byte.
type API struct {
	Name    string // 1 to 200 characters (AM_API.API_NAME)
	Version string // 1 to 30 characters (AM_API.API_VERSION), without ':'
}

// ParseAPI reads NAME:VERSION. The last colon splits: a name may contain one, a version may not.
func ParseAPI(s string) (API, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return API{}, invalid("API %s is not NAME:VERSION", printable.Quote(s))
	}
	api := API{Name: s[:i], Version: s[i+1:]}
	if err := api.Check(); err != nil {
		return API{}, err
	}
	return api, nil
}

// String is NAME:VERSION.
func (a API) String() string { return a.Name + ":" + a.Version }

// Check returns what is wrong with the name or the version, or nil.
func (a API) Check() error {
	if err := checkText("API name", a.Name, 200); err != nil {
		return err
	}
	if err := checkText("API version", a.Version, 30); err != nil {
		return err
	}
	if strings.Contains(a.Version, ":") {
		return invalid("API version %s contains a colon", printable.Quote(a.Version))
	}
	return nil
}

// A KeyType selects the backends that a certificate reaches: production or sandbox. Its zero value is neither.
type KeyType string

// The key types, spelt as WSO2's KEY_TYPE column has them.
const (
	Production KeyType = "PRODUCTION"
	Sandbox    KeyType = "SANDBOX"
)

// ParseKeyType reads PRODUCTION or SANDBOX, in any case; every other word is an error.
func ParseKeyType(s string) (KeyType, error) {
	for _, k := range []KeyType{Production, Sandbox} {
		// Not EqualFold, which takes 'ſ' for 's'.
		if len(s) == len(k) && strings.ToUpper(s) == string(k) {
			return k, nil
		}
	}
	return "", invalid("key type %s is neither PRODUCTION nor SANDBOX", printable.Quote(s))
}

func (k KeyType) check() error {
	if k != Production && k != Sandbox {
		return invalid("key type %s is neither PRODUCTION nor SANDBOX", printable.Quote(string(k)))
	}
	return nil
}

// A Client is one certificate's registration for one API. The same certificate may be registered for many APIs,
// once for each; an alias is unique for an API and key type.
type Client struct {
	API         API
	Alias       string            // see CheckAlias
	KeyType     KeyType           // Production or Sandbox, never empty
	Tier        string            // the tier's name, 1 to 512 characters; the caller checks that it exists
	Scopes      []string          // OAuth2 scopes (RFC 6749, section 3.3) or "*"; empty: none
	Certificate *x509.Certificate // never nil
	Match       *certrule.Matcher // of a CA alone: which of its leaves count; nil: all
	Fingerprint [32]byte          // SHA-256 of the certificate's DER; Add and NewIndex compute it if zero
	Source      string            // where it is registered, for messages: InStore, or a file and line
}

// everyLeaf is the Matcher of a Client without Match.
var everyLeaf, _ = certrule.Match{}.Compile() // a Match without entries has none that is no good

// Matcher says which leaves of a CA count. It is never nil; without Match it admits every leaf.
func (c *Client) Matcher() *certrule.Matcher {
	if c.Match == nil {
		return everyLeaf
	}
	return c.Match
}

// InStore is the Source of what a Store has.
const InStore = "store"

// Fingerprint is a certificate's identity: the SHA-256 of its DER. Serial numbers and names can be copied.
func Fingerprint(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.Raw) }

// complete returns c with its fingerprint, or an error if a field is malformed.
func (c Client) complete() (Client, error) {
	for _, err := range []error{
		c.API.Check(), CheckAlias(c.Alias), c.KeyType.check(), checkTier(c.Tier), checkScopes(c.Scopes),
		checkCertificate(c.Certificate),
	} {
		if err != nil {
			return Client{}, err
		}
	}
	fingerprint := Fingerprint(c.Certificate)
	if c.Fingerprint != [32]byte{} && c.Fingerprint != fingerprint {
		return Client{}, invalid("fingerprint is another certificate's")
	}
	c.Fingerprint = fingerprint
	if c.Match != nil && c.Match.IsZero() {
		c.Match = nil
	}
	if err := checkMatch(c.Match, c.Certificate); err != nil {
		return Client{}, err
	}
	return c, nil
}

func checkMatch(m *certrule.Matcher, cert *x509.Certificate) error {
	switch {
	case m == nil:
	case m.Text() == "":
		return invalid("match was not compiled")
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return invalid("match says which certificates of a CA count, and this certificate is no CA's: leave match out")
	}
	return nil
}

// maxAlias is the width of WSO2's ALIAS column, in characters.
const maxAlias = 45

// CheckAlias returns what is wrong with an alias, or nil. An alias has 1 to 45 characters of valid UTF-8, none of them
// a control character, '/' or '\'; it is neither "." nor ".."; and no space begins or ends it. Everything else is kept
// verbatim.
func CheckAlias(alias string) error {
	if err := checkText("alias", alias, maxAlias); err != nil {
		return err
	}
	if strings.ContainsAny(alias, `/\`) || alias == "." || alias == ".." {
		return invalid("alias %s looks like a path", printable.Quote(alias))
	}
	return nil
}

func checkTier(tier string) error { return checkText("tier", tier, 512) }

// checkText requires text that fits its column and reads back unchanged, without anything that a terminal, a log or
// another database would interpret.
func checkText(what, s string, limit int) error {
	switch {
	case s == "":
		return invalid("%s is empty", what)
	case !utf8.ValidString(s):
		return invalid("%s is not UTF-8", what)
	case utf8.RuneCountInString(s) > limit:
		return invalid("%s has more than %d characters", what, limit)
	case strings.ContainsFunc(s, unicode.IsControl):
		return invalid("%s contains a control character", what)
	case strings.TrimSpace(s) != s:
		return invalid("%s begins or ends with a space", what)
	}
	return nil
}

// maxScopes is the width of the SCOPES column, in bytes.
const maxScopes = 4096

// CheckScope returns what is wrong with a scope, or nil. A scope is a scope-token of RFC 6749, section 3.3: it has no
// space, since spaces separate scopes in the column, as in a token.
func CheckScope(scope string) error {
	if scope == "" {
		return invalid("scope is empty")
	}
	for i := range len(scope) {
		if c := scope[i]; c < '!' || c > '~' || c == '"' || c == '\\' {
			return invalid("scope %s contains a character that RFC 6749 does not allow", printable.Quote(scope))
		}
	}
	return nil
}

func checkScopes(scopes []string) error {
	total := 0
	for _, scope := range scopes {
		if err := CheckScope(scope); err != nil {
			return err
		}
		total += len(scope) + 1
	}
	if total > maxScopes {
		return invalid("scopes have more than %d characters", maxScopes)
	}
	return nil
}
