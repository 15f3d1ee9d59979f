// Package trust answers whether a certificate is believed, by trust stores and chains.
package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"sallyport/listenerprofiles/keystore"
)

// Bounds of what Verify examines, so that hostile chains cost little CPU. keystore.MaxChain is another.
const (
	minRSABits = 2048 // of a leaf
	maxRSABits = 8192 // of any certificate
)

// maxVerified is how many verified chains Anchors cache, so that their signatures, most of Verify's cost, are not
// checked again (BenchmarkVerify). Refused chains have a cache of their own: strangers never displace a client's.
const (
	maxVerified = 10_000
	maxRefused  = 2_000
)

// maxVouching is how many signatures of a chain's intermediates are checked at most, see vouched.
const maxVouching = 4 * keystore.MaxChain

// maxShown is how many issuers that clients have shown, and that verified chains lead through, are remembered parsed.
const maxShown = 1_000

// Anchors are the entries of a trust store. They never change, and system roots are never among them.
type Anchors struct {
	certs   []*x509.Certificate
	entries map[[sha256.Size]byte]*Issuer  // by digest of the whole DER
	named   map[string][]*x509.Certificate // by RawSubject
	pool    *x509.CertPool
	skipped []error
	edges   edges
	shown   *otter.Cache[[sha256.Size]byte, *Issuer]   // that paths lead through
	good    *otter.Cache[[sha256.Size]byte, *known]    // of chains that were verified, by all that was shown
	refused *otter.Cache[[sha256.Size]byte, *refusal]  // of chains that no entry vouches for, likewise
	signing *otter.Cache[[sha256.Size]byte, []*Issuer] // see signers

	between [3]atomic.Pointer[between] // see intermediates; nil: nobody has asked
	finding sync.Mutex                 // one of between
}

// known are the paths that were found. While something else is valid, there may be others.
type known struct {
	paths  []Path
	during Validity
}

// A refusal is a Fault, which unlike x509's own errors holds no certificate.
type refusal struct {
	err    *Fault
	during Validity
}

// A Validity is the window [From, Until) in which an answer of Verify holds.
type Validity struct{ From, Until time.Time }

// Always is the Validity without ends.
var Always = Validity{Until: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).AddDate(1, 0, 0)}

// Contains reports whether now lies in the window.
func (v Validity) Contains(now time.Time) bool { return !now.Before(v.From) && now.Before(v.Until) }

// Open opens a trust store, the content of ref's file. Which of its entries are trusted, keystore.Store.Trusted tells.
func Open(data []byte, ref keystore.Ref) (*Anchors, error) {
	certs, skipped, err := keystore.LoadTrusted(data, ref)
	if err != nil {
		return nil, err
	}
	a, err := New(certs)
	if err == nil {
		a.skipped = skipped
	}
	return a, err
}

// New returns certs as Anchors. Without any the error is keystore.ErrEmpty: an empty store is never "trust everybody".
func New(certs []*x509.Certificate) (*Anchors, error) {
	a := &Anchors{
		entries: make(map[[sha256.Size]byte]*Issuer, len(certs)), pool: x509.NewCertPool(),
		named:   make(map[string][]*x509.Certificate, len(certs)),
		shown:   otter.Must(&otter.Options[[sha256.Size]byte, *Issuer]{MaximumSize: maxShown}),
		good:    otter.Must(&otter.Options[[sha256.Size]byte, *known]{MaximumSize: maxVerified}),
		refused: otter.Must(&otter.Options[[sha256.Size]byte, *refusal]{MaximumSize: maxRefused}),
		signing: otter.Must(&otter.Options[[sha256.Size]byte, []*Issuer]{MaximumSize: maxRefused}),
	}
	for _, cert := range certs {
		if cert == nil {
			continue
		}
		a.certs = append(a.certs, cert)
		entry := newIssuer(cert)
		a.entries[entry.Fingerprint] = entry
		a.named[string(cert.RawSubject)] = append(a.named[string(cert.RawSubject)], cert)
		a.pool.AddCert(cert)
	}
	if len(a.certs) == 0 {
		return nil, keystore.ErrEmpty
	}
	a.edges = edgesOf(a.certs)
	return a, nil
}

// Skipped tells of each entry of the store that is not among the certificates since Go can't use it: file, alias,
// reason.
func (a *Anchors) Skipped() []error {
	if a == nil {
		return nil
	}
	return slices.Clone(a.skipped)
}

// Certificates returns the entries in the order of the file.
func (a *Anchors) Certificates() []*x509.Certificate { return slices.Clone(a.certs) }

// Names reports whether an entry has that name, as DER.
func (a *Anchors) Names(name []byte) bool { return a != nil && len(a.named[string(name)]) > 0 }

// Verify is Rules.Judge without a registration: chain[0] is good at now if it is so by itself, and byte for byte an entry
// of the store, or chains to one (RFC 5280) by way of the rest of chain, of the store's other entries and of registered
// CAs, which may be nil. It returns every path that it has found, the one first that lasts longest.
func (a *Anchors) Verify(chain []*x509.Certificate, registered *Issuers, now time.Time) ([]Path, error) {
	if len(chain) == 0 || chain[0] == nil {
		return nil, errors.New("no client certificate")
	}
	if len(chain) > keystore.MaxChain {
		return nil, fault(TooLarge, "a chain of %d certificates, at most %d are looked at", len(chain), keystore.MaxChain)
	}
	leaf := chain[0]
	if err := checkLeaf(leaf, now); err != nil {
		return nil, err
	}
	if a == nil {
		return nil, fault(Untrusted, "no trust store is in force that could vouch for the certificate")
	}
	key := keyOf(chain, registered)
	if k, ok := a.good.GetIfPresent(key); ok && k.during.Contains(now) {
		return k.paths, nil
	}
	if r, ok := a.refused.GetIfPresent(key); ok && r.during.Contains(now) {
		return nil, r.err
	}
	paths, err := a.verify(chain, registered, now)
	if err != nil {
		f := a.unverified(leaf, err, now)
		a.refused.Set(key, &refusal{f, a.Unchanged(chain, registered, now)})
		return nil, f
	}
	a.good.Set(key, &known{paths, a.Unchanged(chain, registered, now)})
	return paths, nil
}

func (a *Anchors) verify(chain []*x509.Certificate, registered *Issuers, now time.Time) ([]Path, error) {
	if a.has(chain[0]) {
		return a.asEntry(chain, registered, now), nil
	}
	return a.build(chain[0], chain[1:], registered, now)
}

// has reports whether a certificate is an entry.
func (a *Anchors) has(cert *x509.Certificate) bool {
	return a != nil && a.entries[sha256.Sum256(cert.Raw)] != nil
}

// build finds the paths from a leaf to entries, by way of shown and others (RFC 5280 section 6), of which x509 checks every
// constraint. It checks 100 signatures at most.
func (a *Anchors) build(leaf *x509.Certificate, more []*x509.Certificate, registered *Issuers, now time.Time) ([]Path, error) {
	leaf = readNames(leaf)
	others := a.intermediates(registered)
	intermediates := others.pool
	if shown := a.vouched(more, others.certs, maxVouching); len(shown) > 0 {
		intermediates = intermediates.Clone()
		for _, cert := range shown {
			intermediates.AddCert(cert)
		}
	}
	found, err := leaf.Verify(x509.VerifyOptions{
		Roots:         a.pool,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(found, func(x, y []*x509.Certificate) int { return window(y...).Until.Compare(window(x...).Until) })
	var paths []Path
	for _, path := range found[:min(len(found), maxPaths)] {
		valid := window(path...)
		one := Path{Validity: valid, issued: valid}
		for _, cert := range path[1:] {
			one.Issuers = append(one.Issuers, a.issuer(cert, others))
		}
		paths = append(paths, one)
	}
	return paths, nil
}

// vouched returns those of shown that entries have issued, directly or by way of more or of others that are returned. A path
// to an entry leads through these alone. x509 checks signatures from the leaf up, with whatever keys a stranger has made:
// fifteen of RSA-8192 take 40 ms. Here they are checked from the entries down, with keys that the store vouches for, and
// no more signatures than most.
func (a *Anchors) vouched(shown, more []*x509.Certificate, most int) (good []*x509.Certificate) {
	if len(shown) == 0 {
		return nil
	}
	checks := 0
	good = slices.Clone(more)
	issued := func(cert, by *x509.Certificate) bool {
		checks++
		return checks <= most && cert.CheckSignatureFrom(by) == nil
	}
	open := slices.DeleteFunc(slices.Clone(shown), func(cert *x509.Certificate) bool {
		if cert == nil || rsaBits(cert) > maxRSABits {
			return true
		}
		by := slices.ContainsFunc(a.named[string(cert.RawIssuer)], func(by *x509.Certificate) bool { return issued(cert, by) })
		if by {
			good = append(good, cert)
		}
		return by
	})
	for i := 0; i < len(good); i++ { // which grows
		open = slices.DeleteFunc(open, func(cert *x509.Certificate) bool {
			by := bytes.Equal(cert.RawIssuer, good[i].RawSubject) && issued(cert, good[i])
			if by {
				good = append(good, cert)
			}
			return by
		})
	}
	return good[len(more):]
}

// Unchanged is the time around now in which nothing of chain, store and registered CAs begins or ends to be valid: what
// Verify refuses at now, it refuses all that time, and it finds no other paths.
func (a *Anchors) Unchanged(chain []*x509.Certificate, registered *Issuers, now time.Time) Validity {
	v := Always
	mark := func(edge time.Time) {
		if edge.After(now) {
			if edge.Before(v.Until) {
				v.Until = edge
			}
		} else if edge.After(v.From) {
			v.From = edge
		}
	}
	for _, cert := range chain {
		if cert != nil {
			mark(cert.NotBefore)
			mark(cert.NotAfter.Add(1))
		}
	}
	if a != nil {
		a.edges.around(now, mark)
	}
	if registered != nil {
		registered.edges.around(now, mark)
	}
	return v
}

// edges are when the validity of any of some certificates begins or ends, in order.
type edges []time.Time

func edgesOf(certs []*x509.Certificate) edges {
	var list edges
	for _, cert := range certs {
		list = append(list, cert.NotBefore, cert.NotAfter.Add(1))
	}
	slices.SortFunc(list, time.Time.Compare)
	return list
}

// around marks the edges next to now.
func (e edges) around(now time.Time, mark func(time.Time)) {
	next, _ := slices.BinarySearchFunc(e, now, func(edge, now time.Time) int {
		if edge.After(now) {
			return 1
		}
		return -1
	})
	if next > 0 {
		mark(e[next-1])
	}
	if next < len(e) {
		mark(e[next])
	}
}

// limitText bounds a text that may quote a certificate.
func limitText(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// keyOf returns a digest that identifies a chain, and the registered CAs that may complete it.
func keyOf(chain []*x509.Certificate, registered *Issuers) (key [sha256.Size]byte) {
	h := sha256.New()
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], registered.number())
	h.Write(size[:])
	for _, cert := range chain {
		if cert == nil {
			continue // as Verify does
		}
		binary.BigEndian.PutUint64(size[:], uint64(len(cert.Raw)))
		h.Write(size[:])
		h.Write(cert.Raw)
	}
	h.Sum(key[:0])
	return key
}

// window returns the time in which all of path is valid, NotAfter included.
func window(path ...*x509.Certificate) Validity {
	v := Validity{From: path[0].NotBefore, Until: path[0].NotAfter}
	for _, cert := range path[1:] {
		if cert.NotBefore.After(v.From) {
			v.From = cert.NotBefore
		}
		if cert.NotAfter.Before(v.Until) {
			v.Until = cert.NotAfter
		}
	}
	v.Until = v.Until.Add(1)
	return v
}
