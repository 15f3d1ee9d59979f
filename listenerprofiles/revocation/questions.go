package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/internal/printable"
)

// maxResponders is how many of a certificate's responders are asked, one after the other.
const maxResponders = 2

// A question is one to OCSP responders about a certificate, with the last answer.
type question struct {
	issuer  *issuer
	serial  []byte
	number  *big.Int
	servers []string
	request []byte

	asking
	used
	answer atomic.Pointer[answered]
	cause  atomic.Pointer[placed] // why the last was no answer
	told   atomic.Bool            // somebody has been told something without an answer of this
}

// answered is a response and when it was had.
type answered struct {
	response
	had     time.Time
	revoked error // of a revoked certificate
	at      string
}

// used is how long something has to be renewed for those who use it, and how often.
type used struct {
	until    atomic.Int64 // Unix nanoseconds
	interval atomic.Int64 // nanoseconds; of the most eager
}

// use notes that an answer is used that holds for heldIntervals at most, after which it is asked for again.
func (u *used) use(now time.Time, interval time.Duration) {
	if old := u.interval.Load(); old == 0 || int64(interval) < old {
		u.interval.Store(int64(interval))
	}
	end := now.Add((heldIntervals + 1) * interval).UnixNano()
	if old := u.until.Load(); end-old > int64(interval)/16 { // seldom, for the caches' sake
		u.until.Store(end)
	}
}

// heldIntervals is for how many intervals of refreshing an answer holds at most, so that what nobody asks for any more
// is not refreshed for ever.
const heldIntervals = 2

func (u *used) inUse(now time.Time) bool { return now.UnixNano() < u.until.Load() }

// until is the end of what an answer says.
func (a *answered) until(p *Policy) time.Time {
	end := a.next
	if end.IsZero() { // newer information is available at any time
		end = a.had.Add(heldIntervals * p.interval())
		if old := a.this.Add(withoutNextUpdate); old.Before(end) {
			end = old
		}
	}
	if p.MaxAge > 0 {
		if aged := a.had.Add(p.MaxAge); aged.Before(end) {
			end = aged
		}
	}
	return end
}

// questions remembers a bounded number of questions, by issuer and serial number.
type questions struct {
	most   atomic.Int64
	shards [16]struct {
		mu sync.RWMutex // never held for long
		m  map[questionKey]*question
	}
}

type questionKey struct {
	issuer *issuer
	serial uint64 // hash
}

func (q *questions) find(key questionKey, serial []byte) *question {
	shard := &q.shards[key.serial%uint64(len(q.shards))]
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	if one := shard.m[key]; one != nil && bytes.Equal(one.serial, serial) {
		return one
	}
	return nil
}

// add adds a question, unless it is there, and returns the one that is. The least used of some goes if there are too
// many.
func (q *questions) add(key questionKey, one *question) *question {
	shard := &q.shards[key.serial%uint64(len(q.shards))]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if old := shard.m[key]; old != nil && bytes.Equal(old.serial, one.serial) {
		return old
	}
	if shard.m == nil {
		shard.m = map[questionKey]*question{}
	}
	if most := max(q.most.Load()/int64(len(q.shards)), 1); int64(len(shard.m)) >= most {
		const looked = 16
		var least questionKey
		n, end := 0, int64(0)
		for k, o := range shard.m { // in random order
			if until := o.used.until.Load(); n == 0 || until < end {
				least, end = k, until
			}
			if n++; n == looked {
				break
			}
		}
		delete(shard.m, least)
	}
	shard.m[key] = one
	return one
}

// each calls do for all questions; those that it returns false for are forgotten.
func (q *questions) each(do func(*question) bool) {
	for i := range q.shards {
		shard := &q.shards[i]
		var gone []questionKey
		shard.mu.RLock()
		for key, one := range shard.m {
			if !do(one) {
				gone = append(gone, key)
			}
		}
		shard.mu.RUnlock()
		if len(gone) > 0 {
			shard.mu.Lock()
			for _, key := range gone {
				delete(shard.m, key)
			}
			shard.mu.Unlock()
		}
	}
}

func (q *questions) len() (n int) {
	q.each(func(*question) bool { n++; return true })
	return n
}

var errNoResponder = errors.New("it names no OCSP responder")

// ask finds what a responder has said. An error says that the certificate is revoked.
func (f *finding) ask(serial []byte) error {
	if !namesResponder(f.cert) {
		f.cause.set("", errNoResponder)
		return nil
	}
	r, policy := f.checker.registry, &f.checker.policy
	key := questionKey{f.issuer, f.serial}
	q := r.questions.find(key, serial)
	if q == nil {
		f.fresh = true
		if f.asks {
			q = r.questions.add(key, newQuestion(f.cert, f.issuer, serial))
			q.use(f.now, policy.interval())
			f.wait(r.pose(q, f.now))
		}
		return nil
	}
	q.use(f.now, policy.interval())
	if a := q.answer.Load(); a != nil {
		if end := a.until(policy); f.now.Before(end) {
			f.holds(end)
			if a.status == Good {
				f.good, f.by = true, a.at
			}
			return a.revoked
		}
		if a.revoked != nil {
			f.expired = a.revoked
		}
	}
	switch q.turn(f.now, r.options.Budget) {
	case fresh:
		f.fresh = true
	case again:
		f.again = true
		q.told.Store(true)
	default:
		q.told.Store(true)
		f.retries(q.next(f.now))
		if cause := q.cause.Load(); cause != nil {
			f.cause.set(cause.at, cause.err)
		} else {
			f.cause.set(q.servers[0], errPending)
		}
		return nil
	}
	if f.asks {
		f.wait(r.pose(q, f.now))
	}
	return nil
}

func namesResponder(cert *x509.Certificate) bool {
	for _, at := range cert.OCSPServer {
		if isFetched(at) {
			return true
		}
	}
	return false
}

func newQuestion(cert *x509.Certificate, by *issuer, serial []byte) *question {
	q := &question{issuer: by, serial: bytes.Clone(serial), number: cert.SerialNumber}
	for _, at := range cert.OCSPServer {
		if isFetched(at) && len(q.servers) < maxResponders {
			q.servers = append(q.servers, at)
		}
	}
	return q
}

// pose has a worker ask, unless one does. The channel is closed when there is an answer, or none.
func (r *Registry) pose(q *question, now time.Time) <-chan struct{} {
	landed, ask := q.begin(now)
	if ask && !r.asking.do(hostOf(q.servers[0]), func(ctx context.Context) {
		var res response
		at := q.servers[0]
		err := r.faults.Do("asking an OCSP responder", func() (err error) {
			res, at, err = r.put(ctx, q)
			return err
		})
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		r.answered(q, res, at, err)
	}) {
		r.answered(q, response{}, q.servers[0], errBusy)
	}
	return landed
}

func hostOf(at string) string {
	if u, err := url.Parse(at); err == nil {
		return u.Host
	}
	return at
}

// put asks the responders of a question, one after the other, for a budget in all.
func (r *Registry) put(ctx context.Context, q *question) (res response, at string, err error) {
	if q.request == nil {
		q.request, err = ocsp.CreateRequest(&x509.Certificate{SerialNumber: q.number}, q.issuer.cert, nil)
		if err != nil {
			return res, q.servers[0], err
		}
	}
	for _, at = range q.servers {
		var data []byte
		if data, err = r.post(ctx, at, q.request, r.options.Budget/time.Duration(len(q.servers))); err == nil {
			res, err = parseResponse(data, q.issuer, q.number, r.options.Now())
		}
		if ctx.Err() == nil {
			r.heard(at, err)
		}
		if err == nil {
			return res, at, nil
		}
	}
	return res, at, err
}

var (
	errNotKnown = errors.New("the responder does not know the certificate")
	errOlder    = errors.New("the response is older than the one in force")
)

// answered notes what a question has come to. A failure leaves the last answer, which counts until its end.
func (r *Registry) answered(q *question, res response, at string, err error) {
	now := r.options.Now()
	old := q.answer.Load()
	if err == nil && old != nil && res.this.Before(old.this) {
		err = errOlder
	}
	changed := false
	switch {
	case err != nil:
	case res.status == Unknown:
		err = errNotKnown
		if old != nil && old.status == Good {
			q.answer.Store(nil)
			changed = true
		}
	default:
		a := &answered{response: res, had: now, at: at}
		if res.status == Revoked {
			a.revoked = &placed{at, errRevoked}
		}
		q.answer.Store(a)
		changed = old != nil && old.status != res.status || q.told.Swap(false)
	}
	interval := time.Duration(q.interval.Load())
	due := now.Add(spread(interval))
	if err != nil {
		q.cause.Store(&placed{at, err})
	} else {
		q.cause.Store(nil)
		due = before(due, now, res.next)
	}
	q.end(now, err != nil, due, r.options.Retry, interval)
	if changed {
		r.bump()
	}
}

// before is due, or earlier: in time to have something new before end.
func before(due, now, end time.Time) time.Time {
	if end.IsZero() {
		return due
	}
	left := end.Sub(now)
	return earlier(due, now.Add(max(left-min(left/10, time.Minute), time.Second)))
}

// responders is what is known of those who were asked last.
type responders struct {
	mu sync.Mutex
	m  map[string]*responder
}

type responder struct {
	heard   time.Time // when it last answered well
	asked   time.Time
	problem *problem
}

const maxKnown = 256 // responders of which the state is told

// heard notes what a responder has come to, and logs when that is something else than before.
func (r *Registry) heard(at string, err error) {
	now := r.options.Now()
	r.responders.mu.Lock()
	defer r.responders.mu.Unlock()
	known := r.responders.m[at]
	if known == nil {
		if r.responders.m == nil {
			r.responders.m = map[string]*responder{}
		}
		if len(r.responders.m) >= maxKnown {
			oldest := ""
			for at, one := range r.responders.m {
				if oldest == "" || one.asked.Before(r.responders.m[oldest].asked) {
					oldest = at
				}
			}
			delete(r.responders.m, oldest)
		}
		known = &responder{}
		r.responders.m[at] = known
	}
	known.asked = now
	switch {
	case err == nil:
		if known.problem != nil {
			r.options.Log.Info("OCSP responder answers again", "location", printable.Text(at))
		}
		known.heard, known.problem = now, nil
	case known.problem == nil:
		known.problem = &problem{err, now}
		r.options.Log.Warn("OCSP responder gives no answer that counts",
			"location", printable.Text(at), "error", printable.Text(err.Error()))
	default:
		known.problem = &problem{err, known.problem.since}
	}
}
