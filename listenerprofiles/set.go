package listenerprofiles

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Set is all profiles of one listener. It never changes, and is used by many goroutines.
type Set struct {
	profiles []*Profile // the file's, in order, then the listener's own
	own      *Profile
	byAddr   map[netip.Addr][]*group // what serves a local address that profiles name
	any4     []*group                // what serves every other IPv4 address
	any6     []*group                // what serves every other IPv6 address
	digest   [32]byte
	content  [32]byte                // the same with passwords and the files' places; never shown
	file     []byte                  // the profiles' file that it was made of
	from     string                  // its path; "": there is none
	hosts    map[string][]netip.Addr // that the file names
	warnings []error
}

// A group is the profiles of one bind address.
type group struct {
	exact    map[string]*Profile
	wild     map[string]*Profile // by what follows the "*."
	nameless *Profile
}

func (g *group) find(serverName string) *Profile {
	if p := g.exact[serverName]; p != nil {
		return p
	}
	if label, rest, ok := strings.Cut(serverName, "."); ok && label != "" {
		if p := g.wild[rest]; p != nil {
			return p
		}
	}
	return g.nameless
}

// Find returns the profile that serves a connection to the local address for a server name, which NormalizeName has
// made; "" means that the client named none. It never returns nil, and does not allocate.
//
// The profiles of the address itself come first, then those of 0.0.0.0 and :: (for IPv6: :: and 0.0.0.0), then the
// listener's own settings; among those of one address the exact name, then the wildcard, which stands for one label,
// then the nameless one.
func (s *Set) Find(local netip.Addr, serverName string) *Profile {
	for _, g := range s.groups(local) {
		if p := g.find(serverName); p != nil {
			return p
		}
	}
	return s.own
}

func (s *Set) groups(local netip.Addr) []*group {
	local = local.Unmap().WithZone("")
	if groups, ok := s.byAddr[local]; ok {
		return groups
	}
	if local.Is4() {
		return s.any4
	}
	return s.any6
}

// Warnings returns what is not served and yet is no error: older protocols, and entries of stores that can't be used.
// The file's are *ParseErrors, the listener's own PartErrors.
func (s *Set) Warnings() []error { return s.warnings }

// SkippedEntries counts the entries that can't be used of each store, by where it is.
func (s *Set) SkippedEntries() map[string]int {
	counts := map[string]int{}
	for _, p := range s.profiles {
		for location, skipped := range map[string][]error{
			p.From: p.skippedKeys, p.TrustStore.Location: p.Trust.Skipped(),
		} {
			if location != "" {
				counts[location] = max(counts[location], len(skipped))
			}
		}
	}
	return counts
}

// Profiles returns the profiles of the file in its order, then the listener's own.
func (s *Set) Profiles() []*Profile { return slices.Clone(s.profiles) }

// RotateTicketKeys sees to the keys of the profiles' session tickets by the given clock, and returns how long nothing
// more is due. Each key is used for new tickets for 12 hours, and for none once it is 24 hours old.
func (s *Set) RotateTicketKeys(now time.Time) time.Duration {
	wait := ticketKeyRotation
	for _, p := range s.profiles {
		wait = min(wait, p.rotate(now))
	}
	return wait
}

// Digest tells sets apart by what they serve: settings without passwords, and the contents of the stores.
func (s *Set) Digest() [32]byte { return s.digest }

var (
	anyIPv4 = netip.IPv4Unspecified()
	anyIPv6 = netip.IPv6Unspecified()
)

// newSet arranges profiles, own last. It refuses what would make a profile weaker than its file says.
func newSet(file string, profiles []*Profile) (*Set, error) {
	s := &Set{
		from:     file,
		profiles: profiles,
		own:      profiles[len(profiles)-1],
		byAddr:   make(map[netip.Addr][]*group),
	}
	groups := make(map[netip.Addr]*group)
	for _, p := range profiles[:len(profiles)-1] {
		g := groups[p.BindAddress]
		if g == nil {
			g = &group{exact: make(map[string]*Profile), wild: make(map[string]*Profile)}
			groups[p.BindAddress] = g
		}
		if rest, ok := strings.CutPrefix(p.ServerName, "*."); ok {
			g.wild[rest] = p
		} else if p.ServerName != "" {
			g.exact[p.ServerName] = p
		} else {
			g.nameless = p
		}
	}
	s.any4 = present(groups[anyIPv4], groups[anyIPv6])
	s.any6 = present(groups[anyIPv6], groups[anyIPv4])
	for addr, g := range groups {
		switch {
		case addr == anyIPv4 || addr == anyIPv6:
		case addr.Is4():
			s.byAddr[addr] = append([]*group{g}, s.any4...)
		default:
			s.byAddr[addr] = append([]*group{g}, s.any6...)
		}
	}
	if err := s.checkStrictness(file); err != nil {
		return nil, err
	}
	h := sha256.New()
	for _, p := range profiles {
		h.Write(p.made.shown[:])
	}
	h.Sum(s.digest[:0])
	return s, nil
}

func present(groups ...*group) []*group {
	return slices.DeleteFunc(groups, func(g *group) bool { return g == nil })
}

// checkStrictness requires that on every socket the profile for unknown and missing server names is as strict as the
// strictest named one: otherwise a client could choose a weaker policy by the name that it sends.
func (s *Set) checkStrictness(file string) error {
	sockets := [][]*group{s.any4, s.any6}
	for _, groups := range s.byAddr {
		sockets = append(sockets, groups)
	}
	weak := make(map[*Profile]*Profile)  // the strictest by name, and what serves unknown names beside it
	laxer := make(map[*Profile]*Profile) // those by name whose revocation is stricter, and the same
	for _, groups := range sockets {
		named, unknown := s.byName(groups)
		for _, p := range named {
			if p.VerifyClient != None && laxerRevocation(p.Revocation, unknown.Revocation) != "" {
				laxer[p] = unknown
			}
		}
		if strictest := strictestOf(named); strictest != nil && unknown.VerifyClient.strictness() < strictest.VerifyClient.strictness() {
			weak[strictest] = unknown
		}
	}
	var problems Problems
	problem := func(p *Profile, element, format string, args ...any) {
		problems = append(problems, &ParseError{File: file, Line: p.Line, Element: element, Message: fmt.Sprintf(format, args...)})
	}
	for _, p := range s.profiles {
		if unknown := weak[p]; unknown != nil {
			problem(p, "SSLVerifyClient",
				"%s says %s, but unknown server names on its socket are served by %s, which says %s and must be as strict",
				p.Name, p.VerifyClient, unknown.Name, unknown.VerifyClient)
		} else if unknown := laxer[p]; unknown != nil {
			problem(p, verifier, "unknown server names on the socket of %s are served by %s, whose revocation must be as strict: %s",
				p.Name, unknown.Name, laxerRevocation(p.Revocation, unknown.Revocation))
		}
	}
	return join(problems)
}

// byName returns the profiles by name that a connection may meet in groups, and the profile for unknown names.
func (s *Set) byName(groups []*group) (named []*Profile, unknown *Profile) {
	for _, g := range groups {
		named = slices.AppendSeq(named, maps.Values(g.exact))
		named = slices.AppendSeq(named, maps.Values(g.wild))
		if g.nameless != nil {
			return named, g.nameless
		}
	}
	return named, s.own
}

// strictestOf returns the first by name of those that demand most, or nil.
func strictestOf(profiles []*Profile) (strictest *Profile) {
	for _, p := range profiles {
		if strictest == nil || p.VerifyClient.strictness() > strictest.VerifyClient.strictness() ||
			p.VerifyClient == strictest.VerifyClient && p.Name < strictest.Name {
			strictest = p
		}
	}
	return strictest
}
