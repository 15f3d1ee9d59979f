package revocation

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"time"

	"sallyport/internal/printable"
)

// maxState is how many sources State tells of.
const maxState = 1_000

// A Source is the state of a CRL at its source, of a source without one, or of an OCSP responder.
type Source struct {
	Kind       Kind
	Location   string
	Issuer     string // of the CRL; "" if there is none
	Delta      bool
	Entries    int
	Number     string    // crlNumber
	ThisUpdate time.Time // zero: none
	NextUpdate time.Time // zero: none
	Seen       time.Time // when it was last had, or was last there unchanged, or the responder last answered well
	Problem    string    // of the last look at the source; "" if there is none
	Since      time.Time // of the problem
	Until      time.Time // the end of what the CRL says: NextUpdate, or by the shortest MaxAge of the policies that look here; zero: none
	Stale      bool      // that is over, or the source has never had a CRL
}

// State returns what is known of all sources, the first 1,000 by kind and location.
func (r *Registry) State() []Source {
	now := r.options.Now()
	var all []Source
	for _, s := range r.all() {
		all = s.state(all, now)
	}
	for _, s := range *r.points.Load() {
		all = s.state(all, now)
	}
	r.responders.mu.Lock()
	for at, one := range r.responders.m {
		row := Source{Kind: Responder, Location: printable.Text(at), Seen: one.heard}
		row.note(one.problem)
		all = append(all, row)
	}
	r.responders.mu.Unlock()
	slices.SortStableFunc(all, func(a, b Source) int {
		if c := strings.Compare(string(a.Kind), string(b.Kind)); c != 0 {
			return c
		}
		return strings.Compare(a.Location, b.Location)
	})
	return all[:min(len(all), maxState)]
}

func (s *Source) note(p *problem) {
	if p != nil {
		s.Problem, s.Since = printable.Text(p.err.Error()), p.since
	}
}

// state appends the rows of a source.
func (s *source) state(all []Source, now time.Time) []Source {
	row := Source{Kind: s.kind, Location: printable.Text(s.location)}
	row.note(s.problem.Load())
	lists := s.current()
	if len(lists) == 0 {
		row.Stale = true
		return append(all, row)
	}
	for _, h := range lists {
		one := row
		one.Issuer = printable.Text(nameOf(h.issuer))
		one.Delta = h.base != nil
		one.Entries = len(h.revoked) + len(h.removed)
		if h.number != nil {
			one.Number = h.number.String()
		}
		one.ThisUpdate, one.NextUpdate, one.Seen = h.thisUpdate, h.nextUpdate, time.Unix(0, h.seen.Load())
		one.Until, one.Stale = s.until(h), !s.counts(h, now)
		all = append(all, one)
	}
	return all
}

// nameOf is a distinguished name as text.
func nameOf(raw []byte) string {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return "a name that cannot be read"
	}
	return name.String()
}
