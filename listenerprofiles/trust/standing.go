package trust

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/internal/printable"
	"sallyport/listenerprofiles/revocation"
)

// A Standing is whether a certificate that was found good still is, by what issuers have revoked. It is
// looked up when somebody asks, and remembered until that may have changed: many calls share a Standing.
type Standing struct {
	leaf    *x509.Certificate
	paths   []Path
	alone   bool      // only its registration vouches for it, and it isn't self-signed: whoever issued it is not known
	marks   Marks     // of leaf
	signers []*Issuer // the Verdict's
	checker *revocation.Checker
	last    atomic.Pointer[standing]
}

// A standing is what was looked up, and how long that holds.
type standing struct {
	generation uint64
	until      time.Time
	good       uint8 // bit i: Paths[i] is good
	unknown    uint8 // bit i: whether Paths[i] is good is not known
	err        *Fault
	pending    bool
}

// Standing returns the standing of a certificate that these rules have found good.
func (r *Rules) Standing(leaf *x509.Certificate, v Verdict) *Standing {
	return &Standing{
		leaf: leaf, paths: v.Paths, marks: MarksOf(leaf), signers: v.signers, checker: r.Revocation,
		alone: v.ByRegistration && r.Revocation != nil && !SelfSigned.Vouches(leaf),
	}
}

// Check returns nil if a path is good at now: none of its certificates is revoked. Else it returns
// a *Fault, of cause Revoked or StatusUnknown. Nothing is waited for.
func (s *Standing) Check(now time.Time) error {
	if err := s.look(now).err; err != nil {
		return err
	}
	return nil
}

// Denied returns an entry of a deny list that names the certificate, or an issuer on any path of it: that another path is
// left makes nobody good whose issuer is denied. Of one that needs no path it is whoever is known to have signed it. It
// returns nil if there is none, and if s is nil. It allocates nothing.
func (s *Standing) Denied(list *Denials) *Denial {
	if s == nil || list.Len() == 0 {
		return nil
	}
	if entry := list.FindMarks(s.marks); entry != nil {
		return entry
	}
	for i := range s.paths {
		for _, issuer := range s.paths[i].Issuers {
			if entry := list.FindMarks(issuer.marks); entry != nil {
				return entry
			}
		}
	}
	for _, issuer := range s.signers {
		if entry := list.FindMarks(issuer.marks); entry != nil {
			return entry
		}
	}
	return nil
}

// Describe tells by which paths the certificate is believed at now, and what is known of revocations on them, a line each.
func (s *Standing) Describe(now time.Time) (lines []string) {
	if s == nil {
		return nil
	}
	if s.alone {
		if err := s.Check(now); err != nil {
			return []string{"its registration vouches for it, and " + err.Error()}
		}
	}
	for i := range s.paths {
		if !s.paths[i].Contains(now) {
			continue
		}
		path := s.paths[i].certificates(s.leaf)
		if len(path) == 1 {
			lines = append(lines, "it is an entry of the trust store, or its registration vouches for it")
			continue
		}
		names := make([]string, 0, len(path))
		for _, cert := range path[1:] {
			names = append(names, printable.Quote(limitText(cert.Subject.String())))
		}
		lines = append(lines, "its path: issued by "+strings.Join(names, ", by "))
		for _, one := range s.checker.Findings(path, now) {
			lines = append(lines, describe(one))
		}
	}
	return lines
}

func describe(f revocation.Finding) string {
	name := printable.Quote(limitText(f.Certificate.Subject.String()))
	switch {
	case f.By != "":
		return fmt.Sprintf("revocation: %s is %s, by %s", name, f.Status, printable.Text(f.By))
	case f.Err != nil:
		return fmt.Sprintf("revocation: %s is %s: %v", name, f.Status, f.Err)
	}
	return fmt.Sprintf("revocation: of %s nothing is known, and it passes by fail: soft", name)
}

// Pending reports whether Await may find out more than Check knows.
func (s *Standing) Pending(now time.Time) bool { return s.look(now).pending }

// patience is how long Await waits at most, however many paths there are.
const patience = 3 * time.Second

// Await asks whoever knows what Check does not, until ctx ends or the time for that is over.
func (s *Standing) Await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for i := range s.paths {
		s.checker.Await(ctx, s.paths[i].certificates(s.leaf))
	}
}

// Ask is Await that waits for nothing.
func (s *Standing) Ask() {
	for i := range s.paths {
		s.checker.Ask(s.paths[i].certificates(s.leaf))
	}
}

// Issuers calls found for each issuer by way of which the certificate is good at now, each path from the certificate up,
// until found returns true.
func (s *Standing) Issuers(now time.Time, found func(*Issuer) bool) bool {
	return s.issuers(s.look(now).good, now, found)
}

// Unsettled is Issuers for those by way of which it is not known whether the certificate is good at now.
func (s *Standing) Unsettled(now time.Time, found func(*Issuer) bool) bool {
	return s.issuers(s.look(now).unknown, now, found)
}

func (s *Standing) issuers(which uint8, now time.Time, found func(*Issuer) bool) bool {
	for i := range s.paths {
		if which&(1<<i) != 0 && s.paths[i].issued.Contains(now) && slices.ContainsFunc(s.paths[i].Issuers, found) {
			return true
		}
	}
	return false
}

// Under is Issuers for all paths, whether they are good now or not: what is unknown or revoked may be good later. It is
// false if s is nil.
func (s *Standing) Under(found func(*Issuer) bool) bool {
	if s == nil {
		return false
	}
	return slices.ContainsFunc(s.paths, func(p Path) bool { return slices.ContainsFunc(p.Issuers, found) })
}

func (s *Standing) look(now time.Time) *standing {
	generation := s.checker.Generation()
	if last := s.last.Load(); last != nil && last.generation == generation && now.Before(last.until) {
		return last
	}
	found := s.judge(now)
	found.generation = generation
	s.last.Store(found)
	return found
}

// judge asks about each path: one that is good is enough, while it lasts, unless the entry at its end is revoked.
func (s *Standing) judge(now time.Time) *standing {
	found := &standing{until: Always.Until}
	if s.checker == nil {
		found.good = 1<<len(s.paths) - 1
		return found
	}
	revoked := uint8(0) // bit i: Paths[i] is
	for i := range s.paths {
		if p := &s.paths[i]; !p.Contains(now) {
			if now.Before(p.From) {
				found.until = earlier(found.until, p.From)
			}
			continue
		}
		found.until = earlier(found.until, s.paths[i].Until)
		answer := s.checker.Status(s.paths[i].certificates(s.leaf), now)
		if s.alone {
			answer = s.checker.Unasked(s.leaf, now)
		}
		found.until = earlier(found.until, answer.Until)
		switch answer.Status {
		case revocation.Good:
			found.good |= 1 << i
			continue
		case revocation.Unknown:
			found.pending = found.pending || answer.Pending
			if found.unknown == 0 { // rather than Revoked: another path may be good yet
				found.err = fault(StatusUnknown, "%v", answer.Err)
			}
			found.unknown |= 1 << i
		case revocation.Revoked:
			revoked |= 1 << i
			if found.err == nil {
				found.err = fault(Revoked, "%v", answer.Err)
			}
		}
	}
	ended := s.within(revoked)
	found.good, found.unknown = found.good&^ended, found.unknown&^ended
	switch {
	case found.good != 0:
		found.err, found.pending = nil, false
	case found.err == nil:
		found.err = Outside(Expired)
	}
	return found
}

// within are the paths that revoked ones lead on from: the entry at their end is revoked by another one.
func (s *Standing) within(revoked uint8) (ends uint8) {
	for i := range s.paths {
		for j := range s.paths {
			short, long := s.paths[i].Issuers, s.paths[j].Issuers
			if revoked&(1<<j) != 0 && len(short) > 0 && len(short) < len(long) && slices.Equal(short, long[:len(short)]) {
				ends |= 1 << i
			}
		}
	}
	return ends
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
