package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"sallyport/internal/printable"
)

// A Policy is how certificates are looked up: `revocation` of a listener or of mutualSSL, or the element
// CertificateRevocationVerifier of a profile. Its zero value looks nothing up.
type Policy struct {
	CRL                []string      // files, by absolute path, and http or https URLs
	DistributionPoints bool          // fetch the CRLs that certificates name (crlDistributionPoints)
	OCSP               bool          // ask the responders that certificates name
	Soft               bool          // a status that can't be known counts as good; false: as unknown (fail: hard)
	LeafOnly           bool          // issuers are not looked up (FullChainValidation false)
	MaxAge             time.Duration // how long a list or answer counts since it was last had from its source; 0: until its nextUpdate
	Refresh            time.Duration // how often addresses are asked anew, at the latest; 0: 5 minutes
	CacheSize          int           // OCSP answers that are remembered; 0: 10,000
}

// A Status is what is known of a certificate. Its zero value is Unknown.
type Status uint8

// The statuses.
const (
	Unknown Status = iota
	Good
	Revoked
)

func (s Status) String() string {
	switch s {
	case Good:
		return "good"
	case Revoked:
		return "revoked"
	}
	return "unknown"
}

// An Answer is the status of a whole path. It holds until Until, and only as long as Checker.Generation stays.
type Answer struct {
	Status  Status
	Until   time.Time
	Pending bool  // Unknown, and Await may find out
	Err     error // why it is Revoked or Unknown, for logs and operators; names the certificate and the source
}

// A Checker looks certificates up by one Policy. A nil Checker finds all Good.
type Checker struct {
	registry *Registry
	policy   Policy
	sources  []*source // of policy.CRL
}

// forever is longer than any answer holds.
const forever = 365 * 24 * time.Hour

// Status returns what is known now of path: the certificate first, then its issuers, with an entry of a trust store at
// the end, which is not looked up. It reads memory only, and is safe for concurrent use.
//
// path must have been verified: addresses and keys are taken from it.
func (c *Checker) Status(path []*x509.Certificate, now time.Time) Answer {
	all := Answer{Status: Good, Until: now.Add(forever)}
	if c == nil || !c.policy.LooksUp() {
		return all
	}
	for i := range c.looked(path) {
		one := c.status(path[i], path[i+1], now)
		if one.Status == Revoked {
			return one
		}
		if one.Until.Before(all.Until) {
			all.Until = one.Until
		}
		switch {
		case one.Status == Good:
		case all.Status == Good: // the first that is unknown
			all.Status, all.Pending, all.Err = Unknown, one.Pending, one.Err
		case !one.Pending: // nothing that is found out of others helps
			all.Pending, all.Err = false, one.Err
		}
	}
	return all
}

// looked is how many certificates of path are looked up. The last one never is.
func (c *Checker) looked(path []*x509.Certificate) int {
	if c.policy.LeafOnly {
		return min(len(path)-1, 1)
	}
	return max(len(path)-1, 0)
}

// A Finding is what is known of one certificate.
type Finding struct {
	Certificate *x509.Certificate
	Answer
	By string // the source that says so; "": none, see Err, or the policy is soft
}

// Findings tell of each certificate of path that is looked up, for people. What Status says follows from them.
func (c *Checker) Findings(path []*x509.Certificate, now time.Time) (list []Finding) {
	if c == nil || !c.policy.LooksUp() {
		return nil
	}
	for i := range c.looked(path) {
		f := finding{checker: c, cert: path[i], now: now}
		answer := f.answer(path[i+1])
		one := Finding{Certificate: path[i], Answer: answer}
		if answer.Status == Good {
			one.By = f.by
		}
		list = append(list, one)
	}
	return list
}

// Await asks whoever has to be asked about path, until all have answered, ctx ends or the budget is over.
func (c *Checker) Await(ctx context.Context, path []*x509.Certificate) {
	if c == nil || !c.policy.LooksUp() {
		return
	}
	r := c.registry
	ctx, cancel := context.WithTimeout(ctx, r.options.Budget)
	defer cancel()
	for ctx.Err() == nil {
		now := r.options.Now()
		if !c.Status(path, now).Pending {
			return
		}
		landed := c.ask(path, now)
		if landed == nil {
			return
		}
		select {
		case <-landed:
		case <-ctx.Done():
		}
	}
}

// Ask has whoever has to be asked about path asked, and waits for nothing.
func (c *Checker) Ask(path []*x509.Certificate) {
	if c != nil && c.policy.LooksUp() {
		c.ask(path, c.registry.options.Now())
	}
}

// Generation changes whenever an answer to Status may have.
func (c *Checker) Generation() uint64 {
	if c == nil {
		return 0
	}
	return c.registry.generation.Load()
}

// LooksUp reports whether anything is looked up by the policy.
func (p *Policy) LooksUp() bool { return len(p.CRL) > 0 || p.DistributionPoints || p.OCSP }

// A finding is what sources say of one certificate.
type finding struct {
	checker *Checker
	cert    *x509.Certificate
	issuer  *issuer
	now     time.Time
	serial  uint64

	good    bool      // a fresh source says so
	by      string    // which one
	until   time.Time // the end of the first fresh answer that ends
	retry   time.Time // when an unknown status may become known without a change of the generation
	fresh   bool      // somebody is being asked, or has to be, who may know better than who says good
	again   bool      // somebody may be asked again
	expired error     // a list that counts no more says that it is revoked
	cause   cause     // why it is unknown

	lists [inline]*held // of the issuer
	more  []*held
	count int

	asks  bool            // whoever has to be asked is asked
	first <-chan struct{} // closed when the first who was asked has answered
}

// wait notes that somebody is asked.
func (f *finding) wait(landed <-chan struct{}) {
	if f.first == nil {
		f.first = landed
	}
}

// inline is how many lists of an issuer need no memory of their own.
const inline = 8

// ask asks whoever has to be asked about path. The channel is closed when one of them has answered; nil: nobody is
// asked.
func (c *Checker) ask(path []*x509.Certificate, now time.Time) (first <-chan struct{}) {
	for i := range c.looked(path) {
		f := finding{checker: c, cert: path[i], now: now, asks: true}
		f.answer(path[i+1])
		if first == nil {
			first = f.first
		}
	}
	return first
}

// status is Status of one certificate.
func (c *Checker) status(cert, by *x509.Certificate, now time.Time) Answer {
	f := finding{checker: c, cert: cert, now: now}
	return f.answer(by)
}

// answer asks OCSP before lists, as WSO2 does.
func (f *finding) answer(by *x509.Certificate) Answer {
	c := f.checker
	var content [64]byte
	serial := appendSerial(content[:0], f.cert.SerialNumber)
	f.issuer, f.serial = c.registry.issuer(by), hashSerial(serial)
	f.until, f.retry = f.now.Add(forever), f.now.Add(forever)
	if c.policy.OCSP || c.policy.DistributionPoints { // whose answers are renewed only for those who ask for them
		f.until = f.now.Add(heldIntervals * c.policy.interval())
		f.retry = f.until
	}
	if c.policy.OCSP {
		if err := f.ask(serial); err != nil {
			return f.revoked(err)
		}
		if f.good { // whoever answers for a certificate knows it; lists can only add that it is revoked
			f.fresh = false
		}
	}
	answered := f.good
	f.collect()
	if err := f.consult(); err != nil {
		return f.revoked(err)
	}
	switch {
	case f.fresh && !answered:
		return Answer{Until: f.now, Pending: true, Err: f.because(errPending)}
	case f.good:
		return Answer{Status: Good, Until: f.until}
	case f.again && !c.policy.Soft: // else it is asked again beside calls, which go on
		return Answer{Until: f.now, Pending: true, Err: f.because(errPending)}
	case f.expired != nil: // the last that is known
		return Answer{Status: Revoked, Until: earlier(f.until, f.retry), Err: f.because(f.expired)}
	case c.policy.Soft:
		return Answer{Status: Good, Until: earlier(f.until, f.retry)}
	}
	return Answer{Until: earlier(f.until, f.retry), Err: f.because(f.cause.error())}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (f *finding) revoked(err error) Answer {
	return Answer{Status: Revoked, Until: f.until, Err: f.because(err)}
}

var errPending = errors.New("the answer is awaited")

// because names the certificate.
func (f *finding) because(err error) error {
	return &certificateError{cert: f.cert, err: err}
}

// A certificateError makes its text only when somebody reads it.
type certificateError struct {
	cert *x509.Certificate
	err  error
}

func (e *certificateError) Error() string {
	issuer := printable.Quote(e.cert.Issuer.String())
	return fmt.Sprintf("certificate %s of %s: %v", e.cert.SerialNumber.Text(16), issuer, e.err)
}

func (e *certificateError) Unwrap() error { return e.err }

// A cause is the first reason for an unknown status.
type cause struct {
	at  string
	err error
}

func (c *cause) set(at string, err error) {
	if c.err == nil {
		c.at, c.err = at, err
	}
}

func (c *cause) error() error {
	if c.err == nil {
		return errNoSource
	}
	if c.at == "" {
		return c.err
	}
	return &placed{c.at, c.err}
}

// placed is an error of a source.
type placed struct {
	at  string
	err error
}

func (p *placed) Error() string { return printable.Text(p.at) + ": " + p.err.Error() }
func (p *placed) Unwrap() error { return p.err }

var (
	errNoSource = errors.New("no CRL of its issuer is there, and nobody is named who can be asked")
	errRevoked  = errors.New("it is revoked")
	errExpired  = errors.New("it was revoked by the last list, which counts no more")
	errStale    = errors.New("the CRL counts no more")
	errScope    = errors.New("the CRL is for other certificates of the issuer")
)

// holds notes until when something fresh holds.
func (f *finding) holds(until time.Time) {
	if until.Before(f.until) {
		f.until = until
	}
}

func (f *finding) add(h *held) {
	if f.count < inline {
		f.lists[f.count] = h
	} else {
		f.more = append(f.more, h)
	}
	f.count++
}

func (f *finding) list(i int) *held {
	if i < inline {
		return f.lists[i]
	}
	return f.more[i-inline]
}

// collect finds the lists of the issuer.
func (f *finding) collect() {
	c := f.checker
	for _, s := range c.sources {
		f.collectFrom(s)
		if s.kind == Address && s.due.Load() == 0 { // whose first look nobody has had yet
			if s.turn(f.now, c.registry.options.Budget) == fresh {
				f.fresh = true
				if f.asks {
					f.wait(c.registry.renew(s, f.now))
				}
			} else {
				f.cause.set(s.location, errPending)
				f.retries(s.next(f.now))
			}
		}
	}
	if c.policy.DistributionPoints {
		f.collectPoints()
	}
}

func (f *finding) collectFrom(s *source) {
	for _, h := range s.current() {
		if h.signedBy(f.issuer) {
			f.add(h)
		}
	}
	if p := s.problem.Load(); p != nil {
		f.cause.set(s.location, p.err)
	}
}

func (f *finding) retries(at time.Time) {
	if at.Before(f.retry) {
		f.retry = at
	}
}

// consult reads the lists, and returns an error if one of them says that the certificate is revoked.
func (f *finding) consult() error {
	maxAge := f.checker.policy.MaxAge
	for n := range f.count {
		h := f.list(n)
		if h.base != nil {
			if f.superseded(h) || !contains(h.revoked, f.serial) {
				continue
			}
			// A delta that nothing newer has replaced: what it lists is revoked, whatever its base.
			if end := h.until(maxAge); f.now.Before(end) {
				f.holds(end)
				return &placed{h.at, errRevoked}
			}
			f.expired = &placed{h.at, errExpired}
			continue
		}
		end, listed := h.until(maxAge), contains(h.revoked, f.serial)
		if d := f.delta(h); d != nil {
			listed = listed || contains(d.revoked, f.serial) // it is newer than the base, even if it has ended
			if dend := d.until(maxAge); f.now.Before(dend) {
				if end.After(dend) {
					end = dend
				}
				listed = listed && !contains(d.removed, f.serial)
			}
		}
		switch current := f.now.Before(end); {
		case listed && current:
			f.holds(end)
			return &placed{h.at, errRevoked}
		case listed:
			f.expired = &placed{h.at, errExpired}
		case !current:
			f.cause.set(h.at, errStale)
		case !h.vouches(f.cert):
			f.cause.set(h.at, errScope)
		default:
			f.good, f.by = true, h.at
			f.holds(end)
		}
	}
	return nil
}

// superseded reports whether a complete list is as new as a delta.
func (f *finding) superseded(delta *held) bool {
	for n := range f.count {
		h := f.list(n)
		if h.base == nil && h.number != nil && h.number.Cmp(delta.number) >= 0 && string(h.scope) == string(delta.scope) {
			return true
		}
	}
	return false
}

// delta returns the newest delta that applies to a complete list (RFC 5280 section 5.2.4).
func (f *finding) delta(h *held) (newest *held) {
	if h.number == nil {
		return nil
	}
	for n := range f.count {
		d := f.list(n)
		if d.base == nil || d.base.Cmp(h.number) > 0 || d.number.Cmp(h.number) <= 0 || string(d.scope) != string(h.scope) {
			continue
		}
		if newest == nil || d.number.Cmp(newest.number) > 0 {
			newest = d
		}
	}
	return newest
}
