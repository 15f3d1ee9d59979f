package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxPaths is how many paths of one certificate count. Cross-signed issuers make several.
const maxPaths = 8

// An Issuer is the certificate of a CA, with its digest.
type Issuer struct {
	Certificate *x509.Certificate
	Fingerprint [sha256.Size]byte // SHA-256 of the DER

	marks Marks
}

func newIssuer(cert *x509.Certificate) *Issuer {
	marks := MarksOf(cert)
	return &Issuer{cert, marks.fingerprint, marks}
}

// A Path leads from a certificate to an entry of a trust store.
type Path struct {
	Validity           // of all its certificates together; of one that is an entry itself, its own
	Issuers  []*Issuer // the certificate's own first, the entry last; none: it is an entry itself, and nobody is known to have issued it

	issued Validity // of all its certificates together, in which an issuer's registration admits it
}

// certificates are those of the path, leaf first.
func (p *Path) certificates(leaf *x509.Certificate) []*x509.Certificate {
	list := make([]*x509.Certificate, 0, 1+len(p.Issuers))
	list = append(list, leaf)
	for _, issuer := range p.Issuers {
		list = append(list, issuer.Certificate)
	}
	return list
}

// Registrations are what is registered, as far as a certificate's judge has to know.
type Registrations interface {
	// Registered reports whether the certificate with that SHA-256 is registered for any API.
	Registered(fingerprint [sha256.Size]byte) bool
	// Issuers are the registered CAs that admit what they have issued: the same pointer as long as they are the same. Nil
	// means that only what is registered itself is admitted.
	Issuers() *Issuers
}

// Issuers are CAs that are registered: they complete chains, and are trusted for nothing by that. They never change. A nil
// Issuers has none.
type Issuers struct {
	certs []*x509.Certificate
	named map[string][]*x509.Certificate // by RawSubject
	edges edges
	id    uint64
}

var issuersMade atomic.Uint64

// NewIssuers returns these CAs; nil if there are none.
func NewIssuers(certs []*x509.Certificate) *Issuers {
	if len(certs) == 0 {
		return nil
	}
	i := &Issuers{certs: slices.Clone(certs), named: map[string][]*x509.Certificate{}, edges: edgesOf(certs), id: issuersMade.Add(1)}
	for _, cert := range certs {
		i.named[string(cert.RawSubject)] = append(i.named[string(cert.RawSubject)], cert)
	}
	return i
}

// number tells one Issuers from all others.
func (i *Issuers) number() uint64 {
	if i == nil {
		return 0
	}
	return i.id
}

// MayAdmit reports whether one of them may have issued the certificate that chain begins with, by way of what is shown or
// of entries of a, going by names alone. Whoever may not be theirs need not be verified.
func (i *Issuers) MayAdmit(chain []*x509.Certificate, a *Anchors) bool {
	if i == nil || a == nil {
		return false
	}
	return slices.ContainsFunc(chain, func(cert *x509.Certificate) bool {
		return cert != nil && (len(i.named[string(cert.RawIssuer)]) > 0 || a.Names(cert.RawIssuer))
	})
}

// MayAdmitDER is MayAdmit for certificates that nobody has parsed. One that cannot be read so far may be anybody's.
func (i *Issuers) MayAdmitDER(chain [][]byte, a *Anchors) bool {
	if i == nil || a == nil {
		return false
	}
	return slices.ContainsFunc(chain, func(der []byte) bool {
		name, ok := issuerName(der)
		return !ok || len(i.named[string(name)]) > 0 || a.Names(name)
	})
}

// issuerName is the name of a certificate's issuer as DER.
func issuerName(der []byte) (name cryptobyte.String, ok bool) {
	input, number := cryptobyte.String(der), cbasn1.Tag(0).ContextSpecific().Constructed()
	var cert, tbs cryptobyte.String
	ok = input.ReadASN1(&cert, cbasn1.SEQUENCE) && cert.ReadASN1(&tbs, cbasn1.SEQUENCE) && tbs.SkipOptionalASN1(number) &&
		tbs.SkipASN1(cbasn1.INTEGER) && tbs.SkipASN1(cbasn1.SEQUENCE) && tbs.ReadASN1Element(&name, cbasn1.SEQUENCE)
	return name, ok
}

// between is what may stand between a certificate and an entry beside what is shown.
type between struct {
	of    *Issuers
	certs []*x509.Certificate // that entries vouch for
	pool  *x509.CertPool
	known map[[sha256.Size]byte]*Issuer
}

// intermediates are the store's own entries that others may have issued, and those registered CAs that entries vouch for.
// They are found once: without registered CAs, which the control side asks for beside calls, and with them, for these and
// those before, by which calls that began earlier are decided yet.
func (a *Anchors) intermediates(registered *Issuers) *between {
	at := &a.between[0]
	if registered != nil {
		at = &a.between[1+registered.number()%2]
	}
	if b := at.Load(); b != nil && b.of == registered {
		return b
	}
	a.finding.Lock() // or each call that comes meanwhile would check all signatures, too
	defer a.finding.Unlock()
	if b := at.Load(); b != nil && b.of == registered {
		return b
	}
	b := &between{of: registered, pool: x509.NewCertPool(), known: map[[sha256.Size]byte]*Issuer{}}
	for _, entry := range a.certs {
		if entry.IsCA && !bytes.Equal(entry.RawIssuer, entry.RawSubject) {
			b.pool.AddCert(entry)
		}
	}
	if registered != nil {
		b.certs = a.vouched(registered.certs, nil, math.MaxInt)
	}
	for _, cert := range b.certs {
		b.pool.AddCert(cert)
		issuer := newIssuer(cert)
		b.known[issuer.Fingerprint] = issuer
	}
	at.Store(b)
	return b
}

// issuer returns a certificate of a path as one that paths share.
func (a *Anchors) issuer(cert *x509.Certificate, others *between) *Issuer {
	fingerprint := sha256.Sum256(cert.Raw)
	if entry := a.entries[fingerprint]; entry != nil {
		return entry
	}
	if known := others.known[fingerprint]; known != nil {
		return known
	}
	if known, ok := a.shown.GetIfPresent(fingerprint); ok {
		return known
	}
	shown := newIssuer(cert)
	a.shown.Set(fingerprint, shown)
	return shown
}

// asEntry returns the paths of a certificate that is an entry itself: by way of those who have issued it, as far as they are
// known, which says whom its right comes from and who may revoke it. It is believed as long as it is valid, whatever becomes
// of them.
func (a *Anchors) asEntry(chain []*x509.Certificate, registered *Issuers, now time.Time) []Path {
	// x509 ends each path at an entry. What is no entry, byte for byte, is led to those above it.
	entry := *chain[0]
	entry.Raw = append(slices.Clone(entry.Raw), 0)
	paths, err := a.build(&entry, chain[1:], registered, now)
	if err != nil {
		paths = []Path{{}}
		for _, by := range a.signers(chain, registered) {
			if chain[0].CheckSignatureFrom(by.Certificate) == nil {
				paths[0].Issuers = []*Issuer{by} // it admits nothing, and may revoke it all the same
				break
			}
		}
	}
	for i := range paths {
		paths[i].Validity = window(chain[0])
	}
	return paths
}

// maxSigning is how many signatures of certificates that are not shown signers checks at most.
const maxSigning = 1_000

// signers returns those who have signed chain[0], and those who have signed these, as far as they are shown, entries of the
// store or registered. It goes by signatures alone, and not by what these may do: it is for lists of whom nobody believes,
// and nothing is believed by it. A nil Anchors has no entries.
func (a *Anchors) signers(chain []*x509.Certificate, registered *Issuers) []*Issuer {
	if a == nil {
		return signersAmong(chain, nil, registered)
	}
	key := keyOf(chain, registered)
	if known, ok := a.signing.GetIfPresent(key); ok {
		return known
	}
	found := signersAmong(chain, a, registered)
	a.signing.Set(key, found)
	return found
}

func signersAmong(chain []*x509.Certificate, a *Anchors, registered *Issuers) (found []*Issuer) {
	if leaf := chain[0]; bytes.Equal(leaf.RawIssuer, leaf.RawSubject) && SelfSigned.Vouches(leaf) {
		return nil
	}
	known := map[[sha256.Size]byte]bool{sha256.Sum256(chain[0].Raw): true}
	left := maxSigning
	try := func(cert, by *x509.Certificate) {
		if !bytes.Equal(cert.RawIssuer, by.RawSubject) || known[sha256.Sum256(by.Raw)] {
			return
		}
		if left--; left >= 0 && maySign(cert, by) {
			issuer := newIssuer(by)
			known[issuer.Fingerprint] = true
			found = append(found, issuer)
		}
	}
	ours := func(cert *x509.Certificate) {
		if a != nil {
			for _, by := range a.named[string(cert.RawIssuer)] {
				try(cert, by)
			}
		}
		if registered != nil {
			for _, by := range registered.named[string(cert.RawIssuer)] {
				try(cert, by)
			}
		}
	}
	ours(chain[0])
	for i := 0; i < len(found); i++ { // which grows
		ours(found[i].Certificate)
	}
	// What is shown comes last, and has signatures of its own: whoever has chosen it hides nobody whom we know.
	left = maxVouching
	before := len(found)
	shown := func(cert *x509.Certificate) {
		for _, by := range chain[1:] {
			if by != nil && rsaBits(by) <= maxRSABits {
				try(cert, by)
			}
		}
	}
	shown(chain[0])
	for i := 0; i < len(found); i++ {
		if i >= before {
			ours(found[i].Certificate)
		}
		shown(found[i].Certificate)
	}
	return found
}

// maySign reports whether by, which has the name of a certificate's issuer, has signed it. Of a signature that can't be
// checked here it is not known, and it may have.
func maySign(cert, by *x509.Certificate) bool {
	err := by.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
	var weak x509.InsecureAlgorithmError
	return err == nil || errors.Is(err, x509.ErrUnsupportedAlgorithm) || errors.As(err, &weak)
}
