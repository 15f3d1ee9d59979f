package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/certstore"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
)

// A Place is where in a file something is written.
type Place struct {
	File         string // as the user named it, or found from there
	Line, Column int    // from 1; 0: the file as a whole
}

// String is "file:line:column", or the file alone if there is no line.
func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Keys are where what a value is made of is written, by key: "keyStore", and "keyStore.password" within it.
type Keys map[string]Place

// at returns the place of key, else of the nearest key that it would be within, else otherwise.
func (k Keys) at(key string, otherwise Place) Place {
	for key != "" {
		if at, ok := k[key]; ok {
			return at
		}
		key = key[:max(0, strings.LastIndexByte(key, '.'))]
	}
	return otherwise
}

// keyOf is the key that stands for a part of a store, in keyStore and trustStore alike.
func keyOf(part keystore.Part) string {
	if part == "" {
		return ""
	}
	return "." + strings.ToLower(string(part[:1])) + string(part[1:])
}

// faultKey is keyOf the part that an error of a store is about.
func faultKey(err error) string {
	if fault := (*keystore.Fault)(nil); errors.As(err, &fault) {
		return keyOf(fault.Part)
	}
	return ""
}

// Placed is a value and where it is written.
type Placed[T any] struct {
	Place
	Value T
	Keys  Keys
}

// A Problem is one thing that is wrong, and where.
type Problem struct {
	Place
	Message string // one line; never holds a secret's value
	Passing bool   // a later try may not have it, with the configuration as it is
}

// Error is "file:line:column: message".
func (p Problem) Error() string { return p.Place.String() + ": " + p.Message }

// Problems is everything that is wrong at once.
type Problems []Problem

// Error has one line for each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Add adds err, unless it is nil.
func (ps *Problems) Add(at Place, err error) {
	if err != nil {
		*ps = append(*ps, Problem{at, strings.ReplaceAll(err.Error(), "\n", "; "), errors.Is(err, certstore.ErrUnavailable)})
	}
}

// Passing reports whether a later try may have none of them.
func (ps Problems) Passing() bool {
	return !slices.ContainsFunc(ps, func(p Problem) bool { return !p.Passing })
}

// addProfiles adds the errors of a listener's profiles.
func (ps *Problems) addProfiles(l *Listener, err error) {
	// No other list is taken apart: an error may wrap several and still be one, with words of its own.
	list := listenerprofiles.Problems{err}
	errors.As(err, &list)
	for _, e := range list {
		ps.addProfile(l, e)
	}
}

// addProfile adds one error of a listener's profiles. Those of the XML have places in it, the others have one in what
// the listener is made of.
func (ps *Problems) addProfile(l *Listener, err error) {
	var own listenerprofiles.PartError
	parse := (*listenerprofiles.ParseError)(nil)
	switch {
	case errors.As(err, &parse):
		message := parse.Message
		if parse.Element != "" {
			message = "<" + parse.Element + ">: " + message
		}
		place := Place{parse.File, parse.Line, parse.Column}
		if place.Line > 0 {
			place.Column = max(1, place.Column) // what is wrong between profiles is known to a line
		}
		ps.Add(place, errors.New(message))
	case errors.As(err, &own):
		ps.Add(l.Keys.at(listenerKeys[own.Part.Element]+keyOf(own.Part.Of), l.Place), err)
	default:
		ps.Add(l.Place, err)
	}
}

// listenerKeys are the keys of a listener for what its own profile is made of.
var listenerKeys = map[string]string{
	"KeyStore":         "keyStore",
	"TrustStore":       "trustStore",
	"SSLVerifyClient":  "sslVerifyClient",
	"HttpsProtocols":   "httpsProtocols",
	"PreferredCiphers": "preferredCiphers",
	"FilePath":         "dynamicSSLProfiles.filePath",

	"CertificateRevocationVerifier": "revocation",
}
