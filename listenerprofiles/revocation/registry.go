package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"sallyport/internal/contain"
	"sallyport/internal/printable"
)

// Options are what a Registry needs. The zero value works.
type Options struct {
	Log      *slog.Logger
	Now      func() time.Time   // nil: time.Now
	Changed  func()             // called by Run within 50 ms after the generation has changed, never twice at once
	Panicked func(where string) // counts
	Roots    *x509.CertPool     // of https addresses; nil: the system's
	Budget   time.Duration      // how long Await waits, and how long a responder may take; 0: 2 s
	Look     time.Duration      // how often files are looked at; 0: 500 ms
	Retry    time.Duration      // how soon an address is asked again that gave no answer, twice as late each time; 0: 5 s
}

const (
	defaultRefresh = 5 * time.Minute
	defaultCache   = 10_000
	maxIssuers     = 4_096

	maxPerResponder = 8 // questions at once
	debounce        = 20 * time.Millisecond
)

// A Registry has all that is known of revocations, and renews it. Its Checkers share what they look up.
type Registry struct {
	options Options
	faults  *contain.Faults
	client  *http.Client

	// Apart, so that a slow address holds up no responder, and neither a file.
	looking  workers // at files
	fetching workers // lists
	asking   workers // responders

	generation atomic.Uint64
	bumped     chan struct{}
	issuers    atomic.Pointer[map[uint64]*issuer] // by hash of name and key; never changes
	knowing    sync.Mutex                         // held to change issuers
	points     atomic.Pointer[map[string]*source] // by address, of certificates; never changes
	pointing   sync.Mutex                         // held to change points
	full       atomic.Bool                        // there is no room for another point
	maxAge     atomic.Int64                       // the shortest of the policies by which points are looked up
	questions  questions
	responders responders
	bodies     *semaphore.Weighted // bytes of long lists that are fetched
	watching   sync.WaitGroup
	reading    sync.Mutex // held while a list is read from a file, so that memory is that of one

	making   sync.Mutex          // held while checkers are made and forgotten, which takes as long as files take
	mu       sync.Mutex          // never held for long
	checkers map[string]*Checker // by policy
	sources  map[string]*source  // by location, of Policy.CRL
}

// New returns a Registry that looks nothing up by itself before Run.
func New(o Options) *Registry {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Budget <= 0 {
		o.Budget = 2 * time.Second
	}
	if o.Retry <= 0 {
		o.Retry = 5 * time.Second
	}
	if o.Look <= 0 {
		o.Look = 500 * time.Millisecond
	}
	r := &Registry{
		options:  o,
		faults:   &contain.Faults{Log: o.Log, Count: o.Panicked},
		bumped:   make(chan struct{}, 1),
		checkers: map[string]*Checker{},
		sources:  map[string]*source{},
	}
	r.looking = workers{faults: r.faults, most: 4, perHost: 1}
	r.fetching = workers{faults: r.faults, most: 32, perHost: 4}
	r.asking = workers{faults: r.faults, most: 256, perHost: maxPerResponder}
	r.client = newClient(o.Roots)
	r.bodies = semaphore.NewWeighted(bodiesBytes)
	r.points.Store(&map[string]*source{})
	r.issuers.Store(&map[uint64]*issuer{})
	return r
}

// Checker returns the Checker of a policy: the same one for an equal policy while that is in force. A file that cannot
// be read, or holds no CRL, is an error, unless a list of it is in memory, which is kept; an address that does not
// answer is none.
//
// A Checker is in force from then on until a Keep that does not name it.
func (r *Registry) Checker(p Policy) (*Checker, error) {
	if err := p.normalize(); err != nil {
		return nil, err
	}
	r.making.Lock()
	defer r.making.Unlock()
	key := fmt.Sprintf("%#v", p)
	c := r.checker(key, p)
	if err := r.readable(c.sources); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range c.sources {
		r.sources[s.location] = s
	}
	r.checkers[key] = c
	r.intervals()
	now := r.options.Now()
	for _, s := range c.sources {
		if s.kind == Address && s.due.Load() == 0 && r.fetching.runs() {
			r.renew(s, now)
		}
	}
	return c, nil
}

// checker is the Checker of a policy that is in force, or a new one.
func (r *Registry) checker(key string, p Policy) *Checker {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.checkers[key]; c != nil {
		return c
	}
	c := &Checker{registry: r, policy: p}
	for _, at := range p.CRL {
		s := r.sources[at]
		if s == nil {
			s = newSource(at)
		}
		c.sources = append(c.sources, s)
	}
	return c
}

// normalize fills in defaults, and reports what a policy must not say.
func (p *Policy) normalize() error {
	p.CRL = slices.Clone(p.CRL)
	slices.Sort(p.CRL)
	p.CRL = slices.Compact(p.CRL)
	for _, at := range p.CRL {
		if isAddress(at) {
			if err := checkAddress(at); err != nil {
				return fmt.Errorf("CRL %s: %w", shown(at), err)
			}
		} else if !filepath.IsAbs(at) {
			return fmt.Errorf("CRL %s: neither an http or https URL nor the absolute path of a file", printable.Quote(at))
		}
	}
	if p.MaxAge < 0 || p.Refresh < 0 || p.CacheSize < 0 {
		return errors.New("maxAge, refresh and cacheSize of a revocation policy must not be negative")
	}
	if p.Refresh == 0 {
		p.Refresh = defaultRefresh
	}
	if p.CacheSize == 0 {
		p.CacheSize = defaultCache
	}
	return nil
}

func isAddress(at string) bool { return strings.Contains(at, "://") }

const maxAddress = 2_048

// checkAddress reports why something is no address that is asked.
func checkAddress(at string) error {
	u, err := url.Parse(at)
	switch {
	case len(at) > maxAddress:
		return fmt.Errorf("a URL longer than %d bytes", maxAddress)
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("not an http or https URL")
	case u.User != nil:
		return errors.New("a URL with a user name or password, which is not supported")
	}
	return nil
}

// shown is an address without a user name and password.
func shown(at string) string {
	u, err := url.Parse(at)
	if err != nil {
		return "that is no URL"
	}
	u.User = nil
	return printable.Quote(u.String())
}

func newSource(at string) *source {
	s := &source{location: at, kind: File, host: "file " + at}
	if isAddress(at) {
		s.kind = Address
		if u, err := url.Parse(at); err == nil {
			s.host = u.Host
		}
	}
	return s
}

// readable reads the files that have no list in memory, and returns the error of the first that has none then.
func (r *Registry) readable(sources []*source) error {
	for _, s := range sources {
		if s.kind != File || len(s.current()) > 0 {
			continue
		}
		landed, ask := s.begin(r.options.Now())
		if ask {
			r.lookNow(context.Background(), s, slog.New(slog.DiscardHandler))
		} else {
			<-landed
		}
		if p := s.problem.Load(); p != nil && len(s.current()) == 0 {
			return fmt.Errorf("CRL file %s: %w", printable.Text(s.location), p.err)
		}
	}
	return nil
}

// Keep says which Checkers are in force. What the others alone have needed is forgotten.
func (r *Registry) Keep(checkers []*Checker) {
	r.making.Lock()
	defer r.making.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	needed := map[*source]bool{}
	for key, c := range r.checkers {
		if !slices.Contains(checkers, c) {
			delete(r.checkers, key)
			continue
		}
		for _, s := range c.sources {
			needed[s] = true
		}
	}
	for at, s := range r.sources {
		if !needed[s] {
			delete(r.sources, at)
		}
	}
	r.intervals()
}

// intervals sets how often each source is looked at, as often as the most eager Checker wants, and how many answers of
// responders are remembered.
func (r *Registry) intervals() {
	eager := make(map[*source]time.Duration, len(r.sources))
	ages := make(map[*source]time.Duration, len(r.sources))
	ofPoints := time.Duration(0)
	most := 0
	points, asks := false, false
	for _, c := range r.checkers {
		for _, s := range c.sources {
			if old, known := eager[s]; !known || c.policy.interval() < old {
				eager[s] = c.policy.interval()
			}
			ages[s] = shorter(ages[s], c.policy.MaxAge)
		}
		if c.policy.DistributionPoints {
			ofPoints = shorter(ofPoints, c.policy.MaxAge)
		}
		points, asks = points || c.policy.DistributionPoints, asks || c.policy.OCSP
		if c.policy.OCSP {
			most = max(most, c.policy.CacheSize)
		}
	}
	for s, interval := range eager {
		s.interval.Store(int64(interval))
		s.maxAge.Store(int64(ages[s]))
	}
	r.maxAge.Store(int64(ofPoints))
	r.questions.most.Store(int64(most))
	if !points {
		r.points.Store(&map[string]*source{})
	}
	if !asks {
		r.questions.each(func(*question) bool { return false })
	}
}

// shorter is the shorter one of two maxAges, of which 0 is the longest.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// interval is how often addresses are asked: in time for MaxAge.
func (p *Policy) interval() time.Duration {
	if p.MaxAge > 0 && p.MaxAge/2 < p.Refresh {
		return max(p.MaxAge/2, time.Second)
	}
	return p.Refresh
}

// issuer returns the issuer that cert is of.
func (r *Registry) issuer(cert *x509.Certificate) *issuer {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.Write(cert.RawSubject)
	_, _ = h.Write(cert.RawSubjectPublicKeyInfo)
	key := h.Sum64()
	if i := (*r.issuers.Load())[key]; i != nil && i.is(cert) {
		return i
	}
	r.knowing.Lock()
	defer r.knowing.Unlock()
	known := *r.issuers.Load()
	if i := known[key]; i != nil && i.is(cert) {
		return i
	}
	next := maps.Clone(known)
	for k := range next {
		if len(next) < maxIssuers {
			break
		}
		delete(next, k) // any, which costs a check of signatures
	}
	i := newIssuer(cert)
	next[key] = i
	r.issuers.Store(&next)
	return i
}

// issuersNamed returns the known issuers of a name.
func (r *Registry) issuersNamed(name uint64) (named []*issuer) {
	for _, i := range *r.issuers.Load() {
		if i.name == name {
			named = append(named, i)
		}
	}
	return named
}

func hashSerial(serial []byte) uint64 { return maphash.Bytes(seed, serial) }

// bump tells that answers may have changed.
func (r *Registry) bump() {
	r.generation.Add(1)
	select {
	case r.bumped <- struct{}{}:
	default:
	}
}

// Run renews what Checkers need, until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.client.CloseIdleConnections()
	defer r.watching.Wait()
	for _, w := range []*workers{&r.looking, &r.fetching, &r.asking} {
		defer w.run(ctx)()
	}
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		defer r.faults.Catch("telling of revocations", nil)
		r.announce(ctx)
	})
	defer cancel()
	tick := time.NewTicker(r.options.Look)
	defer tick.Stop()
	r.turn()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.turn()
		}
	}
}

// announce calls Changed, once for changes that come together.
func (r *Registry) announce(ctx context.Context) {
	for {
		select {
		case <-r.bumped:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(debounce):
		case <-ctx.Done():
			return
		}
		select {
		case <-r.bumped:
		default:
		}
		if r.options.Changed == nil {
			continue
		}
		_ = r.faults.Do("telling of a change of revocations", func() error {
			r.options.Changed()
			return nil
		})
	}
}

// turn begins to renew all that is due, and forgets what nobody uses.
func (r *Registry) turn() {
	_ = r.faults.Do("a look at revocations", func() error {
		now := r.options.Now()
		for _, s := range r.all() {
			r.stale(s, now)
			if s.isDue(now) {
				r.renew(s, now)
			}
		}
		r.forget(now)
		for _, s := range *r.points.Load() {
			s.maxAge.Store(r.maxAge.Load())
			r.stale(s, now)
			if s.isDue(now) {
				r.renew(s, now)
			}
		}
		r.questions.each(func(q *question) bool {
			if !q.inUse(now) {
				return q.flight.Load() != 0
			}
			if q.isDue(now) {
				r.pose(q, now)
			}
			return true
		})
		return nil
	})
}

func (r *Registry) all() []*source {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*source, 0, len(r.sources))
	for _, s := range r.sources {
		all = append(all, s)
	}
	return all
}

// renew has a worker look at a source. The channel is closed when it has.
func (r *Registry) renew(s *source, now time.Time) <-chan struct{} {
	workers := &r.fetching
	if s.kind == File {
		workers = &r.looking
	}
	landed, ask := s.begin(now)
	if ask && !workers.do(s.host, func(ctx context.Context) { r.lookNow(ctx, s, r.options.Log) }) {
		r.lookedAt(s, false, errBusy, r.options.Log)
	}
	return landed
}

var errBusy = errors.New("too many others are asked")

// lookNow looks at a source, after begin.
func (r *Registry) lookNow(ctx context.Context, s *source, log *slog.Logger) {
	var changed bool
	err := r.faults.Do("a look at a CRL", func() (err error) {
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case s.kind == File:
			changed, err = r.look(s, r.options.Now())
		default:
			changed, err = r.fetch(ctx, s)
		}
		if err == nil && s.kind == DistributionPoint && !s.isKnown() {
			err = errors.New("it is not signed by the issuer of the certificates that name it")
		}
		return err
	})
	if ctx.Err() != nil { // all ends
		log = slog.New(slog.DiscardHandler)
	}
	r.lookedAt(s, changed, err, log)
}

// isKnown reports whether a list is signed by somebody who is known.
func (s *source) isKnown() bool {
	return slices.ContainsFunc(s.current(), func(h *held) bool { return h.by.Load() != nil })
}

// lookedAt ends a look at a source.
func (r *Registry) lookedAt(s *source, changed bool, err error, log *slog.Logger) {
	now := r.options.Now()
	s.tell(log, err, now)
	interval := time.Duration(s.interval.Load())
	if s.kind == File {
		s.end(now, false, now, 0, 0) // with each turn
	} else {
		due := now.Add(spread(interval))
		for _, h := range s.current() {
			due = before(due, now, h.nextUpdate)
		}
		s.end(now, err != nil || s.isStale(now), due, r.options.Retry, interval)
	}
	if changed {
		r.bump()
	}
}

// tell notes what a look has come to, and logs it when that is something else than before.
func (s *source) tell(log *slog.Logger, err error, now time.Time) {
	old := s.problem.Load()
	switch {
	case err == nil && old != nil:
		s.problem.Store(nil)
		log.Info("CRL is good again", "kind", string(s.kind), "location", printable.Text(s.location))
	case err == nil:
	case old == nil:
		s.problem.Store(&problem{err, now})
	case old.err.Error() != err.Error():
		s.problem.Store(&problem{err, old.since})
	default:
		return
	}
	if err != nil {
		log.Warn("CRL is not taken; the last good one counts until its end",
			"kind", string(s.kind), "location", printable.Text(s.location), "error", printable.Text(err.Error()))
	}
}

// stale logs once that a list counts no more, and once that this has ended.
func (r *Registry) stale(s *source, now time.Time) {
	var stale map[string]*held // by series
	for _, h := range s.current() {
		if s.counts(h, now) {
			continue
		}
		if stale == nil {
			stale = map[string]*held{}
		}
		stale[h.series()] = h
	}
	for series, h := range stale {
		if s.told[series] == nil {
			r.options.Log.Warn("CRL is stale: certificates of its issuer are unknown until a newer one comes", append(s.attributes(h),
				"until", s.until(h).UTC().Format(time.RFC3339))...)
		}
	}
	for series, h := range s.told {
		if stale[series] != nil {
			continue
		}
		if slices.ContainsFunc(s.current(), func(h *held) bool { return h.series() == series }) {
			r.options.Log.Info("CRL is not stale any more", s.attributes(h)...)
		} else {
			r.options.Log.Info("stale CRL is not there any more", s.attributes(h)...)
		}
	}
	s.told = stale
}

// attributes name a list in the log.
func (s *source) attributes(h *held) []any {
	list := []any{"kind", string(s.kind), "location", printable.Text(s.location), "issuer", printable.Text(nameOf(h.issuer))}
	if h.base != nil {
		list = append(list, "delta", true)
	}
	return list
}
