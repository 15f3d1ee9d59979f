package keystore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
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

// LoadKeys is Open and KeyPairs. The error is a Fault.
func LoadKeys(data []byte, ref Ref, now time.Time) ([]tls.Certificate, error) {
	store, err := Open(data, ref)
	if err != nil {
		return nil, openFault(data, ref, err)
	}
	pairs, err := store.KeyPairs(ref.Alias, now)
	if err == nil {
		return pairs, nil
	}
	f := &Fault{Part: Location, Err: err}
	if ref.Alias != "" {
		f.Part = Alias
	}
	switch {
	case errors.Is(err, ErrPassword):
		f.Part, f.Cure = KeyPassword, "give the password of the key, which may differ from the store's"
	case errors.Is(err, ErrNoEntry) && ref.Alias != "":
		f.Cure = "name the alias of a key in this file"
	case errors.Is(err, ErrNoEntry):
		f.Cure = "name a store that holds the key and its certificate"
	case errors.Is(err, ErrExpired):
		f.Cure = "renew the certificate"
	}
	return nil, f
}

// LoadTrusted is Open and Trusted. The error is a Fault.
func LoadTrusted(data []byte, ref Ref) (*Store, []*x509.Certificate, error) {
	store, err := Open(data, ref)
	if err != nil {
		return nil, nil, openFault(data, ref, err)
	}
	certs, err := store.Trusted()
	if err != nil {
		return nil, nil, &Fault{Location, err, "add a certificate to it: keytool -importcert -file CERTIFICATE -alias ALIAS -keystore " + ref.Location}
	}
	return store, certs, nil
}

func openFault(data []byte, ref Ref, err error) *Fault {
	found := detect(data)
	switch {
	case errors.Is(err, ErrPassword):
		return &Fault{Password, err, "keytool -list -keystore " + ref.Location + " tells whether a password is right"}
	case found == unknown:
		return &Fault{Location, err, "name a file of JKS, PKCS12 or PEM"}
	case ref.Type != "" && (ref.Type == "PEM") != (found == textPEM):
		return &Fault{Type, err, "say " + string(found) + ", or leave it out"}
	}
	return &Fault{Part: Location, Err: err}
}
