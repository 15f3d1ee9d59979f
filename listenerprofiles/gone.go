package listenerprofiles

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
)

// A Gone is a profile of the file that the next set has no more, and what serves its clients then.
type Gone struct {
	Profile *Profile
	By      *Profile
	Laxer   string // in what By is laxer; "": in nothing
}

// Gone returns the profiles of last, which may be nil, that the set has no more, each with what serves the clients that
// it served: several, if these are told apart now. A profile is the same in both if it has the same bind address and
// server name, whatever else it says.
func (s *Set) Gone(last *Set) (gone []Gone) {
	if last == nil {
		return nil
	}
	addrs := []netip.Addr{anyIPv4, anyIPv6}
	names := []string{""} // what stands for unknown names
	there := map[socketName]bool{}
	for _, set := range []*Set{last, s} {
		for _, p := range set.profiles[:len(set.profiles)-1] {
			addrs, names = append(addrs, p.BindAddress), append(names, p.ServerName) // a wildcard is a name of its own
			if set == s {
				there[socketName{p.BindAddress, p.ServerName}] = true
			}
		}
	}
	seen := map[[2]*Profile]bool{}
	for _, addr := range addrs {
		for _, name := range names {
			p, by := last.Find(addr, name), s.Find(addr, name)
			if p == last.own || there[socketName{p.BindAddress, p.ServerName}] || seen[[2]*Profile{p, by}] {
				continue
			}
			seen[[2]*Profile{p, by}] = true
			gone = append(gone, Gone{p, by, laxer(p, by)})
		}
	}
	slices.SortStableFunc(gone, func(a, b Gone) int {
		return cmp.Or(cmp.Compare(a.Profile.Line, b.Profile.Line), cmp.Compare(a.By.Line, b.By.Line))
	})
	return gone
}

// laxer says in what a profile is laxer towards clients than the one in whose place it is.
func laxer(was, is *Profile) string {
	switch {
	case is.VerifyClient.strictness() < was.VerifyClient.strictness():
		return fmt.Sprintf("SSLVerifyClient is %s and not %s", is.VerifyClient, was.VerifyClient)
	case slices.Contains(is.protocols(), tls.VersionTLS12) && !slices.Contains(was.protocols(), tls.VersionTLS12):
		return "HttpsProtocols has TLSv1.2"
	case was.VerifyClient == None:
		return ""
	}
	if why := laxerRevocation(was.Revocation, is.Revocation); why != "" {
		return "of revocation, " + why
	}
	trusted := map[string]bool{}
	for _, cert := range was.Trust.Certificates() {
		trusted[string(cert.Raw)] = true
	}
	for _, cert := range is.Trust.Certificates() {
		if !trusted[string(cert.Raw)] {
			return fmt.Sprintf("TrustStore also trusts %q", cert.Subject)
		}
	}
	return ""
}

func (s Settings) protocols() []uint16 {
	if s.Protocols == nil {
		return []uint16{tls.VersionTLS12, tls.VersionTLS13}
	}
	return s.Protocols
}

// Succeeds reports what keeps the set from taking the place of last while it serves: a profile that is gone and whose
// clients would be served by a laxer one. It is for whoever reloads: at a start the file is taken as it is.
func (s *Set) Succeeds(last *Set) error {
	var problems Problems
	for _, g := range s.Gone(last) {
		if g.Laxer != "" {
			problems = append(problems, &ParseError{
				File: s.from, Line: max(g.By.Line, 1), Element: "profile",
				Message: fmt.Sprintf("%s is gone, and %s would serve its clients, which is laxer: %s; let the profile say so itself first, or restart",
					g.Profile.Name, g.By.Name, g.Laxer),
			})
		}
	}
	return join(problems)
}
