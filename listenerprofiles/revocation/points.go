package revocation

import (
	"errors"
	"strings"
	"time"
)

// Bounds of the lists at distribution points.
const (
	maxPointLists = 256
	maxPointBytes = 256 << 20 // in memory
	maxNamed      = 8         // distribution points of a certificate that are looked at
)

// isFetched reports whether an address in a certificate is one that is asked: not LDAP's, for instance, and none with a
// user name, which would be shown in logs.
func isFetched(at string) bool {
	scheme, rest, found := strings.Cut(at, "://")
	if !found || len(at) > maxAddress || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return false
	}
	if end := strings.IndexAny(rest, "/?#\\"); end >= 0 {
		rest = rest[:end]
	}
	return rest != "" && !strings.Contains(rest, "@")
}

var errFull = errors.New("too many distribution points are in use")

// collectPoints finds the lists at the distribution points that the certificate names, and the deltas that it or its
// lists name. Of several with a complete list one that answers is enough.
func (f *finding) collectPoints() {
	f.collectNamed(f.cert.CRLDistributionPoints)
	for i := range f.cert.Extensions {
		if e := &f.cert.Extensions[i]; e.Id.Equal(oidFreshest) {
			if points, err := parsePoints(e.Value); err == nil {
				f.collectNamed(points)
			}
		}
	}
	for n := range f.count {
		if points := f.list(n).freshest; len(points) > 0 {
			f.collectNamed(points)
		}
	}
}

func (f *finding) collectNamed(points []string) {
	r, policy := f.checker.registry, &f.checker.policy
	known := *r.points.Load()
	has, named := false, 0
	for _, at := range points {
		if s := known[at]; s != nil && named < maxNamed {
			named++
			s.use(f.now, policy.interval())
			has = f.collectFresh(s) || has
		}
	}
	if has {
		return
	}
	named = 0
	for _, at := range points {
		if !isFetched(at) {
			continue
		}
		if named++; named > maxNamed {
			return
		}
		s := known[at]
		if s == nil && f.asks {
			s = r.point(at)
		}
		if s == nil {
			if !r.full.Load() {
				f.fresh = true
				continue
			}
			f.cause.set(at, errFull)
			f.retries(f.now.Add(time.Minute))
			continue
		}
		switch s.turn(f.now, r.options.Budget) {
		case fresh:
			f.fresh = true
		case again:
			f.again = true
		default:
			f.cause.set(at, errPending)
			f.retries(s.next(f.now))
			continue
		}
		if f.asks {
			s.use(f.now, policy.interval())
			f.wait(r.renew(s, f.now))
		}
	}
}

// collectFresh reports whether a list of the issuer was found that still counts.
func (f *finding) collectFresh(s *source) (is bool) {
	before := f.count
	f.collectFrom(s)
	for n := before; n < f.count; n++ {
		h := f.list(n)
		is = is || (h.base != nil || h.vouches(f.cert)) && f.now.Before(h.until(f.checker.policy.MaxAge))
	}
	return is
}

// point returns the source at a distribution point, and nil if there are too many.
func (r *Registry) point(at string) *source {
	r.pointing.Lock()
	defer r.pointing.Unlock()
	known := *r.points.Load()
	if s := known[at]; s != nil {
		return s
	}
	size := 0
	for _, s := range known {
		size += s.size()
	}
	if len(known) >= maxPointLists || size >= maxPointBytes {
		r.full.Store(true)
		return nil
	}
	next := make(map[string]*source, len(known)+1)
	for k, s := range known {
		next[k] = s
	}
	s := newSource(at)
	s.kind = DistributionPoint
	next[at] = s
	r.points.Store(&next)
	return s
}

// forget forgets the distribution points that nobody uses any more; all, if nobody looks at any.
func (r *Registry) forget(now time.Time) {
	r.pointing.Lock()
	defer r.pointing.Unlock()
	known := *r.points.Load()
	next := make(map[string]*source, len(known))
	for at, s := range known {
		if s.inUse(now) || s.flight.Load() != 0 {
			next[at] = s
		}
	}
	if len(next) < len(known) {
		r.points.Store(&next)
		r.full.Store(false)
	}
}
