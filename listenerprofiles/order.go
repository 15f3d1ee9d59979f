package listenerprofiles

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sallyport/internal/printable"
	"sallyport/listenerprofiles/keystore"
)

// ACME is the type of a key store whose keys a CA issues (RFC 8555).
const ACME = "ACME"

// The parts of a KeyStore of type ACME beside its Type.
const (
	Names    keystore.Part = "Names"
	KeyTypes keystore.Part = "KeyTypes"
)

// An Order is what a key store of type ACME asks the CA for.
type Order struct {
	Names    []string // DNS names, lower case, each with a certificate of its own; none: there is no such key store
	KeyTypes []string // "ecdsa", "rsa": which keys each name gets
}

// IsACME reports whether a key store's type is ACME, without case.
func IsACME(word string) bool { return strings.EqualFold(word, ACME) }

// maxNames is how many certificates an Order may ask for: each is a transaction with the CA, which counts them.
const maxNames = 100

// ParseNames reads the DNS names of an Order, without case and without trailing dot. No words give nil.
func ParseNames(words []string) ([]string, error) {
	var names []string
	var problems []error
	for _, word := range words {
		name, err := parseName(word)
		if err == nil && slices.Contains(names, name) {
			err = errors.New("repeated")
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", printable.Quote(word), err))
			continue
		}
		names = append(names, name)
	}
	switch {
	case len(problems) > 0:
		return nil, joinLine(problems)
	case len(names) > maxNames:
		return nil, fmt.Errorf("%d names, at most %d: give the others profiles of their own", len(names), maxNames)
	}
	return names, nil
}

func parseName(word string) (string, error) {
	name := lower(strings.TrimSuffix(word, "."))
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return "", errors.New("an IP address: a name is proved to the CA, name the host")
	}
	if strings.Contains(name, "*") {
		return "", errors.New("neither HTTP-01 nor TLS-ALPN-01 can prove a wildcard, name each host")
	}
	return name, checkHostName(name)
}

// ParseKeyTypes reads the key types of an Order, ecdsa and rsa without case. No words give ecdsa.
func ParseKeyTypes(words []string) ([]string, error) {
	if len(words) == 0 {
		return []string{"ecdsa"}, nil
	}
	var types []string
	var problems []error
	for _, word := range words {
		kind := strings.ToLower(word)
		switch {
		case kind != "ecdsa" && kind != "rsa":
			problems = append(problems, fmt.Errorf("unknown key type %s, it is one of ecdsa, rsa", printable.Quote(word)))
		case slices.Contains(types, kind):
			problems = append(problems, fmt.Errorf("%s is repeated", printable.Quote(word)))
		default:
			types = append(types, kind)
		}
	}
	if len(problems) > 0 {
		return nil, joinLine(problems)
	}
	slices.Sort(types)
	return types, nil
}
