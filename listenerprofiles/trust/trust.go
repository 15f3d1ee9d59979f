// Package trust answers whether a certificate is believed, by trust stores and chains.
package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"slices"
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

// Anchors are the entries of a trust store. They never change, and system roots are never among them.
type Anchors struct {
	certs   []*x509.Certificate
	entries map[[sha256.Size]byte]struct{} // by digest of the whole DER
	named   map[string][]*x509.Certificate // by RawSubject
	pool    *x509.CertPool
	skipped []error
	edges   []time.Time                               // when the validity of an entry begins or ends, in order
	good    *otter.Cache[[sha256.Size]byte, Validity] // of chains that were verified, by all that was shown
	refused *otter.Cache[[sha256.Size]byte, *refusal] // of chains that no entry vouches for, likewise
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
		entries: make(map[[sha256.Size]byte]struct{}, len(certs)), pool: x509.NewCertPool(),
		named:   make(map[string][]*x509.Certificate, len(certs)),
		good:    otter.Must(&otter.Options[[sha256.Size]byte, Validity]{MaximumSize: maxVerified}),
		refused: otter.Must(&otter.Options[[sha256.Size]byte, *refusal]{MaximumSize: maxRefused}),
	}
	for _, cert := range certs {
		if cert == nil {
			continue
		}
		a.certs = append(a.certs, cert)
		a.entries[sha256.Sum256(cert.Raw)] = struct{}{}
		a.named[string(cert.RawSubject)] = append(a.named[string(cert.RawSubject)], cert)
		a.pool.AddCert(cert)
		a.edges = append(a.edges, cert.NotBefore, cert.NotAfter.Add(1))
	}
	if len(a.certs) == 0 {
		return nil, keystore.ErrEmpty
	}
	slices.SortFunc(a.edges, time.Time.Compare)
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

// Verify is Judge without a registration: chain[0] is good at now if it is so by itself, and byte for byte an entry of
// the store, or chains to one (RFC 5280) by way of the rest of chain.
func (a *Anchors) Verify(chain []*x509.Certificate, now time.Time) (Validity, error) {
	if len(chain) == 0 || chain[0] == nil {
		return Validity{}, errors.New("no client certificate")
	}
	if len(chain) > keystore.MaxChain {
		return Validity{}, fault(TooLarge, "a chain of %d certificates, at most %d are looked at", len(chain), keystore.MaxChain)
	}
	leaf := chain[0]
	if err := checkLeaf(leaf, now); err != nil {
		return Validity{}, err
	}
	if a == nil {
		return Validity{}, fault(Untrusted, "no trust store is in force that could vouch for the certificate")
	}
	if _, ok := a.entries[sha256.Sum256(leaf.Raw)]; ok {
		return window(leaf), nil
	}
	key := keyOf(chain)
	if v, ok := a.good.GetIfPresent(key); ok && v.Contains(now) {
		return v, nil
	}
	if r, ok := a.refused.GetIfPresent(key); ok && r.during.Contains(now) {
		return Validity{}, r.err
	}
	v, err := a.verify(chain, now)
	if err != nil {
		f := a.unverified(leaf, err, now)
		a.refused.Set(key, &refusal{f, a.Unchanged(chain, now)})
		return Validity{}, f
	}
	a.good.Set(key, v)
	return v, nil
}

func (a *Anchors) verify(chain []*x509.Certificate, now time.Time) (best Validity, err error) {
	leaf, intermediates := readNames(chain[0]), x509.NewCertPool()
	for _, cert := range a.vouched(chain[1:]) {
		intermediates.AddCert(cert)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots:         a.pool,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	for _, path := range paths {
		if v := window(path...); v.Until.After(best.Until) {
			best = v
		}
	}
	return best, err
}

// vouched returns those of shown that entries have issued, directly or by way of others that are returned. A path to an
// entry leads through these alone. x509 checks signatures from the leaf up, with whatever keys a stranger has made:
// fifteen of RSA-8192 take 40 ms. Here they are checked from the entries down, with keys that the store vouches for.
func (a *Anchors) vouched(shown []*x509.Certificate) (good []*x509.Certificate) {
	checks := 0
	issued := func(cert, by *x509.Certificate) bool {
		checks++
		return checks <= maxVouching && cert.CheckSignatureFrom(by) == nil
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
	return good
}

// Unchanged is the time around now in which nothing of chain and store begins or ends to be valid: what Verify refuses
// at now, it refuses all that time.
func (a *Anchors) Unchanged(chain []*x509.Certificate, now time.Time) Validity {
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
	if a == nil {
		return v
	}
	next, _ := slices.BinarySearchFunc(a.edges, now, func(edge, now time.Time) int {
		if edge.After(now) {
			return 1
		}
		return -1
	})
	if next > 0 {
		mark(a.edges[next-1])
	}
	if next < len(a.edges) {
		mark(a.edges[next])
	}
	return v
}

// limitText bounds a text that may quote a certificate.
func limitText(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// keyOf returns a digest that identifies a chain.
func keyOf(chain []*x509.Certificate) (key [sha256.Size]byte) {
	h := sha256.New()
	var size [8]byte
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
