package listenerprofiles

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"sallyport/listenerprofiles/keystore"
)

// A KeySource is what a profile takes its keys from: a file, or a CA that issues them.
type KeySource interface {
	// Keys returns what is to be served now. It doesn't wait for anybody.
	Keys(now time.Time) (Keys, error)
}

// Keys are what a KeySource has by now.
type Keys struct {
	Pairs   []tls.Certificate // each with its Leaf, and an OCSPStaple if it has one; none: no handshake can end well yet
	Skipped []error           // what of the source can't be used
	From    string            // for people: "stores/gateway.jks", "ACME ca.example.com"
	Renews  time.Time         // when the source itself replaces the first of them; zero: it doesn't
	Due     []time.Time       // when it replaces each of Pairs, by index; nil: all when Renews says
	Trouble error             // what keeps it from doing so; nil: nothing

	// Challenge returns the certificate that answers a validation by TLS-ALPN-01 (RFC 8737) of a name, which it may ask
	// other nodes for until ctx ends; nil: the source takes part in none.
	Challenge func(ctx context.Context, serverName string) (*tls.Certificate, error)
}

// Format writes where they are from, for every verb: keys are never printed.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.From)) }

// digest changes with what is served: certificates, of which each has its key, and staples.
func (k Keys) digest() []byte {
	h := sha256.New()
	for _, pair := range k.Pairs {
		for _, der := range pair.Certificate {
			writeField(h, der)
		}
		writeField(h, []byte("staple"))
		writeField(h, pair.OCSPStaple)
	}
	fmt.Fprintf(h, "%q %v", k.From, k.Skipped)
	return h.Sum(nil)
}

// leafs returns the servers' certificates, in the order of the source.
func (k Keys) leafs() []*x509.Certificate {
	var leafs []*x509.Certificate
	for _, pair := range k.Pairs {
		leafs = append(leafs, pair.Leaf)
	}
	return leafs
}

// A source is a KeySource as one reading has found it.
type source struct {
	KeySource
	had     *Keys  // what it had then, and may replace by itself; nil: a file, to be opened if it isn't known
	content []byte // changes with them; a file's is the file
}

// keys returns what the source had.
func (s source) keys(now time.Time) (Keys, error) {
	if s.had != nil {
		return *s.had, nil
	}
	return s.Keys(now)
}

// same reports whether two sources with the same content will go on to have the same.
func (s source) same(other source) bool {
	return s.had == nil && other.had == nil || s.KeySource == other.KeySource
}

func sameSource(x, y *Profile) bool { return x.source.same(y.source) }

// fileKeys is the KeySource that is a file, of which data is the content.
type fileKeys struct {
	ref  keystore.Ref
	data []byte
}

// Keys opens the file.
func (f fileKeys) Keys(now time.Time) (Keys, error) {
	pairs, skipped, err := keystore.LoadKeys(f.data, f.ref, now)
	return Keys{Pairs: pairs, Skipped: skipped, From: f.ref.Location}, err
}

// heldKeys is a KeySource that has opened its file.
type heldKeys Keys

// Keys returns them.
func (h heldKeys) Keys(time.Time) (Keys, error) { return Keys(h), nil }
