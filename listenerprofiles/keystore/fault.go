package keystore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// A Part is a part of a Ref, by the name of WSO2's element for it, but for Alias.
type Part string

// The parts of a Ref.
const (
	Location    Part = "Location"
	Type        Part = "Type"
	Password    Part = "Password"
	KeyPassword Part = "KeyPassword"
	Alias       Part = "Alias"
)

// A Fault is what is wrong with a store, the part of its Ref that says so, and what mends it.
type Fault struct {
	Part Part
	Err  error
	Cure string // "": the error says it
}

// Error returns "problem: cure".
func (f *Fault) Error() string {
	if f.Cure == "" {
		return f.Err.Error()
	}
	return f.Err.Error() + ": " + f.Cure
}

// Unwrap returns Err.
func (f *Fault) Unwrap() error { return f.Err }

// Unread is the Fault of a file that can't be read.
func Unread(ref Ref, err error) error {
	f := &Fault{Part: Location, Err: fmt.Errorf("keystore %s: %w", ref.Location, err), Cure: "name a file that this process may read"}
	if errors.Is(err, fs.ErrNotExist) {
		f.Cure = "name one that is there"
	}
	return f
}

// LoadKeys is Open and KeyPairs. The entries that it skips are told as errors that name the file. The error is a Fault.
func LoadKeys(data []byte, ref Ref, now time.Time) (pairs []tls.Certificate, skipped []error, err error) {
	store, err := Open(data, ref)
	if err != nil {
		return nil, nil, openFault(data, ref, err)
	}
	if pairs, err = store.KeyPairs(ref.Alias, now); err != nil {
		return nil, nil, store.keyFault(ref, err)
	}
	if ref.Alias == "" {
		skipped = store.skipped(PrivateKey)
	}
	return pairs, skipped, nil
}

// LoadTrusted is Open and Trusted. The entries that it skips are told as errors that name the file. The error is a
// Fault.
func LoadTrusted(data []byte, ref Ref) (certs []*x509.Certificate, skipped []error, err error) {
	store, err := Open(data, ref)
	if err != nil {
		return nil, nil, openFault(data, ref, err)
	}
	if certs, err = store.Trusted(); err != nil {
		return nil, nil, &Fault{Location, err, "import a CA's certificate: keytool -importcert -file FILE -alias ALIAS -keystore " + ref.Location}
	}
	return certs, store.skipped(TrustedCertificate), nil
}

func (s *Store) skipped(kind Kind) (skipped []error) {
	for _, e := range s.Skipped() {
		switch {
		case e.Kind != kind:
		case e.Alias == "": // of a PEM, whose errors count the blocks
			skipped = append(skipped, fmt.Errorf("keystore %s: an entry is skipped: %w", s.location, e.Err))
		default:
			skipped = append(skipped, fmt.Errorf("keystore %s: entry %q is skipped: %w", s.location, e.Alias, e.Err))
		}
	}
	return skipped
}

func openFault(data []byte, ref Ref, err error) *Fault {
	found := detect(data)
	switch {
	case errors.Is(err, ErrPassword):
		return &Fault{Part: Password, Err: err}
	case ref.Type != "" && found != unknown && strings.EqualFold(ref.Type, "PEM") != (found == textPEM):
		return &Fault{Part: Type, Err: err}
	}
	return &Fault{Part: Location, Err: err}
}

func (s *Store) keyFault(ref Ref, err error) *Fault {
	f := &Fault{Part: Location, Err: err}
	asked := ref.Alias != "" && slices.ContainsFunc(s.entries, func(e entry) bool { return e.Kind == PrivateKey })
	if asked {
		f.Part = Alias
	}
	switch {
	case errors.Is(err, ErrPassword):
		f.Part = KeyPassword
	case errors.Is(err, ErrNoEntry) && asked && s.entries[0].block > 0:
		f.Cure = "leave the alias out"
	case errors.Is(err, ErrNoEntry) && asked:
		f.Cure = "name the alias of a key in this file"
	case errors.Is(err, ErrNoEntry):
		f.Cure = "name a store that holds the key and its certificate"
	case errors.Is(err, ErrExpired):
		f.Cure = "renew the certificate"
	case errors.Is(err, errUnreadable):
		f.Cure = "have it issued anew"
	}
	return f
}
