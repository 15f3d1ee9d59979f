package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"hash/maphash"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"sallyport/gateway/message"
	"sallyport/listenerprofiles/trust"
)

// DoorConfig names the load balancers that are believed about their clients' certificates, and the format they use.
type DoorConfig struct {
	Header        string         // the only name that is read; for a pinned Format, its own
	Format        Format         // of the header's value
	Rules         trust.Rules    // by which clients' certificates from the header are judged
	Balancers     []netip.Prefix // the socket peers that are believed; empty: none
	BalancerTrust *trust.Anchors // verifies the load balancers' own certificates; nil: none is good
	Shown         trust.Bounds   // of what the header may hold
	CacheSize     int            // good certificates remembered; 0 means 16,384
}

// refusedSize is how many bytes of headers are remembered whose certificates are not good. They have a share of their
// own: strangers never displace a client.
const refusedSize = 4 << 20

// A Request is the header of one.
type Request interface {
	// Values are the values of the header lines of that name, in order. Name is in canonical form (Content-Type).
	Values(name string) []string
	// Count is how many header lines have a name that match reports true for.
	Count(match func(name string) bool) int
}

// A Door reads client certificates from a header that load balancers write. Nothing proves that the client holds the
// key: a peer that may write the header can claim to be anyone. A Door never changes.
type Door struct {
	cfg     DoorConfig
	seed    maphash.Seed
	cache   *otter.Cache[uint64, *remembered] // good ones, by the hash of the header's value
	refused *otter.Cache[uint64, *remembered] // the others

	effort trust.Effort // that goes into unregistered certificates which are not good

	carriers map[string]bool        // message.Fold of the names that carry a certificate
	longest  int                    // of these names
	carries  func(name string) bool // whether a header is one of them, in whatever spelling
}

// remembered is a certificate with the header value it was parsed from, since hashes may collide.
type remembered struct {
	value       string
	certificate *Certificate
}

// NewDoor returns the door that cfg describes.
func NewDoor(cfg DoorConfig) *Door {
	cfg.Header = http.CanonicalHeaderKey(cfg.Header)
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 16 << 10
	}
	cache := otter.Must(&otter.Options[uint64, *remembered]{MaximumSize: cfg.CacheSize})
	refused := otter.Must(&otter.Options[uint64, *remembered]{MaximumWeight: refusedSize, Weigher: func(_ uint64, r *remembered) uint32 {
		const besides = 512 // bytes: the certificate and the cache's own
		return uint32(len(r.value) + besides)
	}})
	d := &Door{
		cfg: cfg, seed: maphash.MakeSeed(), cache: cache, refused: refused,
		carriers: map[string]bool{message.Fold(cfg.Header): true},
	}
	for _, name := range carriers {
		d.carriers[message.Fold(name)] = true
	}
	for name := range d.carriers {
		d.longest = max(d.longest, len(name))
	}
	d.carries = func(name string) bool {
		var space [64]byte
		return len(name) <= d.longest && d.carriers[string(message.AppendFold(space[:0], name))]
	}
	return d
}

// Knows reports whether a socket peer is one of the load balancers' addresses. Headers of the peer play no part.
func (d *Door) Knows(peer netip.Addr) bool {
	peer = peer.Unmap()
	return slices.ContainsFunc(d.cfg.Balancers, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// BalancerTrust is the DoorConfig's.
func (d *Door) BalancerTrust() *trust.Anchors { return d.cfg.BalancerTrust }

// Rules are what clients' certificates from the header are judged by.
func (d *Door) Rules() *trust.Rules { return &d.cfg.Rules }

// Effort is what went into unregistered certificates that are not good.
func (d *Door) Effort() *trust.Effort { return &d.effort }

// Judge returns why the certificate that a registered client's chain begins with is not good, or nil.
func (d *Door) Judge(chain []*x509.Certificate, now time.Time) error {
	return Good(chain, &d.cfg.Rules, now)
}

// Balancer returns the certificate that a peer proved to hold if it is a load balancer's own, else nil. Such a
// certificate is never a client's. Its Check reports whether it is still good later.
func (d *Door) Balancer(chain []*x509.Certificate, now time.Time) *Certificate {
	if d.cfg.BalancerTrust == nil {
		return nil // most often, and then a handshake costs nothing more
	}
	rules := trust.Rules{Anchors: d.cfg.BalancerTrust, Registered: trust.None, Revocation: d.cfg.Rules.Revocation}
	c := FromChain(chain, &rules, noneKnown{}, true, now)
	if c == nil || c.err != nil {
		return nil
	}
	return c
}

// noneKnown knows no registration: a load balancer has none.
type noneKnown struct{}

func (noneKnown) Registered([sha256.Size]byte) bool { return false }
func (noneKnown) Issuers() *trust.Issuers           { return nil }

// ErrAmbiguous reports a call with more than one certificate in its headers: it is unknown which is the client's.
var ErrAmbiguous = errors.New("more than one certificate header")

// Read returns the certificate that a load balancer vouches for, nil if it names none, or ErrAmbiguous. What cannot be
// read is a certificate that is not good. What no API can admit is not looked into. A value that was seen before, good or
// not, costs a hash and no allocation. Of certificates that are not registered themselves only so many are examined that
// those which are not good take a sixth of a core: see trust.Effort.
func (d *Door) Read(r Request, known trust.Registrations, now time.Time) (*Certificate, error) {
	values := r.Values(d.cfg.Header)
	switch {
	case r.Count(d.carries) > 1:
		return nil, ErrAmbiguous
	case len(values) == 0:
		return nil, nil // another header of the kind, alone, is not read
	}

	var more []string
	if d.cfg.Format == RFC9440 {
		more = r.Values(chainHeader)
	}
	all := values[0]
	if len(more) > 0 {
		all += "\x00" + strings.Join(more, "\x00") // a byte that no header can hold
	}
	key := maphash.String(d.seed, all)
	for _, cache := range [...]*otter.Cache[uint64, *remembered]{d.cache, d.refused} {
		if r, ok := cache.GetIfPresent(key); ok && r.value == all && r.certificate.Certain(known, now) {
			return r.certificate, nil
		}
	}
	c := d.examine(values[0], more, known, now)
	if trust.CauseOf(c.err) == trust.Unexamined {
		return c, nil // another call may find it good
	}
	in := d.refused
	if c.err == nil {
		in = d.cache
	}
	in.Set(key, &remembered{strings.Clone(all), c}) // the value is part of a whole head
	return c, nil
}

func (d *Door) examine(value string, more []string, known trust.Registrations, now time.Time) *Certificate {
	list, err := d.cfg.Format.parse(value)
	if err == nil && len(more) > 0 {
		var rest [][]byte
		if rest, err = parseByteSequences(strings.Join(more, ",")); err == nil {
			list = append(list, rest...)
		}
	}
	if err == nil {
		err = d.cfg.Shown.HoldDER(list)
	}
	if err != nil {
		return unusable([sha256.Size]byte{}, err, known)
	}
	issuers := known.Issuers()
	fingerprint := sha256.Sum256(list[0])
	if known.Registered(fingerprint) { // of which there are only so many
		return d.verify(list, fingerprint, known, now)
	}
	if !issuers.MayAdmitDER(list, d.cfg.Rules.Anchors) {
		return Unregistered(fingerprint, known)
	}
	began, ok := d.effort.Begin()
	if !ok {
		return unusable(fingerprint, trust.NotExamined(), known)
	}
	c := d.verify(list, fingerprint, known, now)
	if c.err != nil {
		d.effort.Refused(began)
	}
	return c
}

// verify parses a chain and judges it.
func (d *Door) verify(list [][]byte, fingerprint [sha256.Size]byte, known trust.Registrations, now time.Time) *Certificate {
	bad := func(err error) *Certificate { return unusable(fingerprint, err, known) }
	chain := make([]*x509.Certificate, 0, len(list))
	for _, der := range list {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return bad(trust.Unreadable(err))
		}
		chain = append(chain, parsed)
	}
	if err := d.cfg.Shown.Hold(chain); err != nil {
		return bad(err)
	}
	return FromChain(chain, &d.cfg.Rules, known, false, now)
}

// unusable is a certificate that is not looked into any further, for a reason that stays.
func unusable(fingerprint [sha256.Size]byte, err error, known trust.Registrations) *Certificate {
	return &Certificate{
		Fingerprint: fingerprint, validity: trust.Always, err: err,
		issuers: known.Issuers(), registered: known.Registered(fingerprint),
	}
}
