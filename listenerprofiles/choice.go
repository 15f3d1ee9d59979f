package listenerprofiles

import (
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"time"
)

// ErrNoServerCertificate ends the handshakes of a profile whose KeyStore is of type ACME until the CA has issued a
// certificate.
var ErrNoServerCertificate = errors.New("no server certificate yet: the CA of the key store has issued none")

// A choice chooses the server's certificate in a handshake. It never changes.
type choice struct {
	all   []*tls.Certificate            // RSA last: its signature costs many times as much as another
	exact map[string][]*tls.Certificate // those that cover a host name, in the same order
	wild  map[string][]*tls.Certificate // the same by what follows the "*."
	now   func() time.Time
}

func newChoice(pairs []tls.Certificate, now func() time.Time) *choice {
	c := &choice{exact: map[string][]*tls.Certificate{}, wild: map[string][]*tls.Certificate{}, now: now}
	for i := range pairs {
		c.all = append(c.all, &pairs[i])
	}
	slices.SortStableFunc(c.all, func(x, y *tls.Certificate) int {
		switch isRSA := usesRSA(x); {
		case isRSA == usesRSA(y):
			return 0
		case isRSA:
			return 1
		}
		return -1
	})
	for _, cert := range c.all {
		for _, name := range cert.Leaf.DNSNames {
			name = NormalizeName(name)
			if rest, ok := strings.CutPrefix(name, "*."); ok {
				c.wild[rest] = c.covering(func(cert *tls.Certificate) bool {
					return slices.ContainsFunc(cert.Leaf.DNSNames, func(n string) bool { return NormalizeName(n) == name })
				})
			} else {
				c.exact[name] = c.covering(func(cert *tls.Certificate) bool { return cert.Leaf.VerifyHostname(name) == nil })
			}
		}
	}
	return c
}

func usesRSA(cert *tls.Certificate) bool {
	_, ok := cert.Leaf.PublicKey.(*rsa.PublicKey)
	return ok
}

func (c *choice) covering(is func(*tls.Certificate) bool) []*tls.Certificate {
	return slices.DeleteFunc(slices.Clone(c.all), func(cert *tls.Certificate) bool { return !is(cert) })
}

// get is a GetCertificate. Of the certificates that cover the client's server name, or else of all, it returns the
// first that the client supports and that hasn't expired, otherwise the first that it supports, otherwise the first:
// then crypto/tls says what the client lacks.
func (c *choice) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	list := c.all
	if len(list) > 1 {
		list = c.candidates(NormalizeName(hello.ServerName))
	}
	switch len(list) {
	case 0:
		return nil, ErrNoServerCertificate
	case 1:
		return list[0], nil
	}
	// Names are judged, and SupportsCertificate would refuse every certificate for a name that none covers.
	name := hello.ServerName
	hello.ServerName = ""
	now := c.now()
	var first *tls.Certificate
	for _, cert := range list {
		if hello.SupportsCertificate(cert) != nil {
			continue
		}
		if !now.After(cert.Leaf.NotAfter) {
			first = cert
			break
		}
		if first == nil {
			first = cert
		}
	}
	hello.ServerName = name
	if first == nil {
		first = list[0]
	}
	return first, nil
}

// candidates returns the certificates that cover a name, or else all.
func (c *choice) candidates(name string) []*tls.Certificate {
	if list := c.exact[name]; len(list) > 0 {
		return list
	}
	if label, rest, ok := strings.Cut(name, "."); ok && label != "" {
		if list := c.wild[rest]; len(list) > 0 {
			return list
		}
	}
	return c.all
}
