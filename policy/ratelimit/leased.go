package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"
)

// The times of leases.
const (
	// leaseLength is how long a node may spend a lease, from before it asked.
	leaseLength = time.Second
	// leaseInRedis is how long Redis counts it as out, from when it was granted: longer by what a clock may be slower
	// and a call that has read the time may take to be counted.
	leaseInRedis = leaseLength + 250*time.Millisecond
	// renewBefore is how long before its end a lease is renewed or given back.
	renewBefore = 300 * time.Millisecond
	// leaseHorizon is how much traffic a lease is for.
	leaseHorizon = 500 * time.Millisecond
	// leasesOfAll is the part of a bucket, one in so many, that all nodes' leases may hold beyond what is waited for.
	leasesOfAll = 8
	// pollPause is the least time between two questions for an empty bucket.
	pollPause = 10 * time.Millisecond
	// pollPauseAtMost is the longest.
	pollPauseAtMost = leaseInRedis
	// brokenPause is how long a bucket that Redis has an error for is not asked for.
	brokenPause = time.Second
)

// leased is a meter whose calls are counted in Redis: it spends what it has taken from the shared bucket in leases. The
// account's lock guards it.
type leased struct {
	shared  *shared
	account *account
	lane    *lane
	kind    int // of its script
	keys    []string
	tier    Tier

	// The lease.
	number uint64    // of the last exchange
	left   int       // of the lease
	ends   time.Time // nothing of it is spent from then on

	// What Redis said last.
	known     bool      // it has said something
	have      float64   // in the bucket; of a quota, calls left
	asOf      time.Time // when it said so
	counted   int       // of a quota, calls that no node will give back
	lent      int       // of a quota, in this node's lease, those that it has spent since included
	start     time.Time // of a quota's period, by Redis's clock
	end       time.Time // of a quota's period, by this node's clock
	window    time.Duration
	next      time.Time // when there is a call in the bucket again, by what is known; zero: there is one
	notBefore time.Time // until then it is not asked for
	quiet     time.Time // until then asking ahead brings nothing
	broken    time.Time // until then Redis has an error for this bucket

	// What goes on.
	busy     bool          // queued, or in an exchange
	waiting  int           // calls
	answered chan struct{} // closed with the next answer; nil: nobody waits
	low      int           // at so few left, more is asked for
	spent    int           // since the pace was taken last
	paced    time.Time     // when it was
	pace     float64       // calls a second
	used     time.Time     // last

	// Redis does not answer.
	from   source
	share  meter     // nil: not begun
	owed   int       // calls that passed and that Redis doesn't know of
	period time.Time // of a quota's owed
}

// A source is where a call that may pass is taken from.
type source uint8

const (
	fromLease source = iota
	fromShare
	fromNowhere
)

// lease returns the shared meter for a tier.
func (a *account) lease(t Tier) *leased {
	kind := sharedTokens
	switch t.TimeUnit {
	case Day:
		kind = sharedDays
	case Month:
		kind = sharedMonths
	}
	if a.leased[kind] == nil {
		a.leased[kind] = a.shared.newLeased(a, kind)
	}
	return a.leased[kind]
}

func (s *shared) newLeased(a *account, kind int) *leased {
	tag := a.key.tag()
	l := &leased{shared: s, account: a, kind: kind, lane: s.laneOf(tag)}
	for i := range s.scripts[kind].keys {
		l.keys = append(l.keys, s.keyOf(tag, s.scripts[kind].suffix)+[]string{"", ":l"}[i])
	}
	return l
}

// tag names the bucket of a key in Redis. Keys that differ anywhere have different tags, whatever characters they hold.
func (k Key) tag() string {
	sum := k.sum()
	return hex.EncodeToString(sum[:])
}

func (k Key) sum() [16]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %q %q", k.API, k.Level, k.KeyType, k.Name))
	return [16]byte(sum[:16])
}

// recall begins with a quota that was kept, until Redis says more.
func (l *leased) recall(kept *quota, now time.Time) {
	if l.known {
		return
	}
	l.known, l.have, l.asOf = true, float64(max(0, kept.count-kept.used)), now
	l.counted, l.start, l.end, l.window = kept.used, kept.start, kept.end, kept.end.Sub(kept.start)
}

// spentFor is what was certainly spent of a quota, by what this node knows, and in which period.
func (l *leased) spentFor() (used int, start, end time.Time) {
	used, start, end = l.counted+l.lent-l.left, l.start, l.start.Add(l.window)
	switch {
	case l.owed > 0 && l.period.Equal(start):
		used += l.owed
	case l.owed > 0 && l.period.After(start):
		used = l.owed
		start, end = period(l.period, l.tier.UnitTime, l.tier.TimeUnit)
	}
	return used, start, end
}

func (l *leased) fit(t Tier, now time.Time) {
	if l.tier == t {
		return
	}
	if l.share != nil { // the next share begins with what is left of this one
		v := l.share.look(now, false)
		l.known, l.have, l.asOf, l.end, l.window = true, float64(v.Remaining*l.shared.nodes()), now, now.Add(v.Reset), v.Window
	}
	l.tier, l.share = t, nil
	l.next, l.notBefore, l.quiet = time.Time{}, time.Time{}, time.Time{}
	l.left = min(l.left, t.burst())
}

func (l *leased) holds(now time.Time) bool { return l.left > 0 && now.Before(l.ends) }

// up reports whether Redis is to be asked.
func (l *leased) up(now time.Time) bool { return l.lane.up() && !now.Before(l.broken) }

func (l *leased) look(now time.Time, patient bool) Verdict {
	v := l.report(now)
	switch up := l.up(now); {
	case l.holds(now):
		l.from = fromLease
		v.Allowed, v.Remaining = true, max(1, v.Remaining)
	case up && now.Before(l.notBefore):
		v.Remaining, v.RetryAfter = 0, max(l.next.Sub(now), l.notBefore.Sub(now))
	case up && patient:
		v.pending = true
	default:
		return l.without(now)
	}
	return v
}

// report is a Verdict with what is left, by what Redis said last.
func (l *leased) report(now time.Time) Verdict {
	held := 0.0
	if l.holds(now) {
		held = float64(l.left)
	}
	have := l.estimate(now)
	if l.kind != sharedTokens {
		v := Verdict{Limit: l.tier.RequestCount, Remaining: int(have + held), Window: l.tier.window(), Reset: l.tier.window()}
		if l.known {
			v.Window, v.Reset = l.window, l.end.Sub(now)
		}
		return v
	}
	burst, pace := float64(l.tier.burst()), float64(l.tier.rate())
	have = min(have, burst-held)
	v := Verdict{Limit: l.tier.RequestCount, Window: l.tier.window(), Remaining: int(max(0, have+held+pace*time.Nanosecond.Seconds()))}
	v.Reset = timeFor(burst-have-held, l.tier.rate())
	return v
}

// estimate is how much there is at most in the shared bucket now, or left of the quota.
func (l *leased) estimate(now time.Time) float64 {
	full := float64(l.tier.burst())
	switch {
	case !l.known:
		return full
	case l.kind == sharedTokens:
		return min(full, l.have+float64(l.tier.rate())*max(0, now.Sub(l.asOf)).Seconds())
	case now.Before(l.end):
		return l.have
	}
	return full
}

// without decides when Redis doesn't.
func (l *leased) without(now time.Time) Verdict {
	l.shared.figures.Uncounted.Add(1)
	switch l.shared.onFailure {
	case AllowAll:
		l.from = fromNowhere
		return Verdict{Allowed: true, Uncounted: true}
	case DenyAll:
		return Verdict{Uncounted: true, RetryAfter: time.Second}
	}
	if l.share == nil {
		l.share = l.newShare(now)
	}
	l.from = fromShare
	v := l.share.look(now, false)
	v.Limit, v.Uncounted = l.tier.RequestCount, true
	return v
}

// newShare is this node's part of the bucket or the quota, and of what may be left of it now.
func (l *leased) newShare(now time.Time) meter {
	nodes := l.shared.nodes()
	full := max(1, l.tier.burst()/nodes)
	left := full
	if l.known {
		left = int(max(0, min(float64(full), math.Floor(l.estimate(now)/float64(nodes)+1e-9))))
	}
	if l.kind != sharedTokens {
		q := &quota{begun: true, count: full, units: l.tier.UnitTime, unit: l.tier.TimeUnit, used: full - left}
		q.start, q.end = period(now, q.units, q.unit)
		return q
	}
	pace := l.tier.rate() / rate.Limit(nodes)
	k := &tokens{
		limit: l.tier.RequestCount, window: l.tier.window(), burst: float64(full), rate: pace,
		limiter: rate.NewLimiter(pace, full), latest: now,
	}
	k.limiter.ReserveN(now, full-left)
	return k
}

func (l *leased) spend(now time.Time) Verdict {
	switch l.from {
	case fromLease:
		l.left--
		l.spent++
		l.used = now
		l.askAhead(now)
		return l.report(now)
	case fromShare:
		l.owe(now)
		v := l.share.spend(now)
		v.Limit, v.Uncounted = l.tier.RequestCount, true
		return v
	}
	l.owe(now)
	return Verdict{Uncounted: true}
}

// owe notes a call that passed and was not counted in Redis.
func (l *leased) owe(now time.Time) {
	if l.kind != sharedTokens {
		if start, _ := period(now, l.tier.UnitTime, l.tier.TimeUnit); !start.Equal(l.period) {
			l.owed, l.period = 0, start
		}
	}
	if l.owed++; l.owed == 1 {
		l.shared.owes(l, true)
	}
}

// askAhead asks for more before a lease is spent. A bucket that is leased one by one is told when its lease is spent: it
// is small, and what is out in leases keeps it from being refilled.
func (l *leased) askAhead(now time.Time) {
	if l.busy || !l.up(now) {
		return
	}
	settle := l.left == 0 && l.kind == sharedTokens && l.most() == 0
	ahead := l.low > 0 && l.left <= l.low && !now.Before(l.notBefore) && !now.Before(l.quiet)
	if settle || ahead {
		l.busy = l.lane.enqueue(l)
	}
}

// most is how many calls a lease may be for beyond those that wait.
func (l *leased) most() int { return l.tier.burst() / leasesOfAll / l.shared.nodes() }

func (l *leased) whole(now time.Time) bool {
	return l.left == 0 && l.owed == 0 && l.waiting == 0 && !l.busy && l.estimate(now) >= float64(l.tier.burst())
}

// join has a call wait for the next answer of Redis; nil if there is nothing to wait for.
func (l *leased) join(now time.Time) <-chan struct{} {
	if l.holds(now) || !l.up(now) || now.Before(l.notBefore) {
		return nil
	}
	if !l.busy {
		if l.busy = l.lane.enqueue(l); !l.busy {
			return nil
		}
	}
	l.waiting++
	if l.answered == nil {
		l.answered = make(chan struct{})
	}
	return l.answered
}

// A question is one exchange of a node with a bucket.
type question struct {
	of     *leased
	echo   string
	asked  time.Time
	number uint64
	need   int
	want   int
	debit  int
	held   int
	owed   int       // calls that debit is for
	period time.Time // of a quota's owed
	args   []any
}

// ask makes the question that l has now.
func (l *leased) ask(now time.Time, stopping bool) question {
	l.account.mu.Lock()
	defer l.account.mu.Unlock()
	if !now.Before(l.ends) {
		l.drop()
	}
	l.takePace(now)
	l.number++
	q := question{
		of: l, echo: l.shared.echo(), asked: now, number: l.number, need: l.waiting,
		debit: l.debit(now), owed: l.owed, period: l.period,
	}
	held, give, known := l.left, 0, l.counted+l.lent-l.left
	if stopping || l.waiting == 0 && now.Sub(l.used) >= leaseLength-renewBefore {
		held, give = 0, l.left // nobody spends it from now on
		l.left = 0
		l.lent -= give
		l.shared.figures.Returned.Add(int64(give))
	} else {
		target := min(int(math.Ceil(l.pace*leaseHorizon.Seconds())), l.most())
		l.low, q.want = target/2, max(0, target-held)
	}
	t := l.tier
	q.held = held
	q.args = append(q.args, q.echo, l.shared.node, q.number, held, give, q.need, q.want, q.debit)
	if l.kind == sharedTokens {
		q.args = append(q.args, leaseInRedis.Microseconds(), t.burst(), float64(t.rate())/1e6)
	} else {
		q.args = append(q.args, t.RequestCount, t.UnitTime, t.TimeUnit.String(), known, l.start.Unix(), l.period.Unix())
	}
	return q
}

// debit is how much of the calls that passed while Redis did not answer is still to be counted: no more than the share
// would still have to be refilled.
func (l *leased) debit(now time.Time) int {
	if l.owed == 0 || l.kind != sharedTokens {
		return l.owed
	}
	full := l.tier.burst()
	if k, ok := l.share.(*tokens); ok {
		return min(l.owed, int(math.Ceil(k.burst-k.limiter.TokensAt(k.at(now)))))
	}
	return min(l.owed, max(1, full/l.shared.nodes()))
}

func (l *leased) takePace(now time.Time) {
	const least = 100 * time.Millisecond
	since := now.Sub(l.paced)
	if since < least {
		return
	}
	l.pace = float64(l.spent) / since.Seconds()
	l.spent, l.paced = 0, now
}

// drop gives up what is left of the lease.
func (l *leased) drop() {
	l.shared.figures.Lost.Add(int64(l.left))
	l.left = 0
}

// told notes that Redis has counted what q told it of. Calls that waited in vain since then are told with the next
// question.
func (l *leased) told(q *question) {
	if q.owed > 0 && q.period.Equal(l.period) {
		if l.owed -= q.owed; l.owed == 0 {
			l.shared.owes(l, false)
		}
	}
	if l.owed > 0 {
		l.busy = l.lane.enqueue(l)
	}
}

// answer is what a script says.
type answer struct {
	status  int // 0: done; 1: and what was left of the lease is void; 2: overtaken, nothing was done
	granted int
	have    float64
	until   time.Duration // a quota's end
	start   time.Time
	window  time.Duration
	spent   int // of a quota, by all nodes, beyond what is out in leases
}

// take takes the answer to q, or that there is none.
func (l *leased) take(q *question, a answer, err error, now time.Time) {
	l.account.mu.Lock()
	defer l.account.mu.Unlock()
	l.busy = false
	if l.answered != nil {
		close(l.answered)
		l.answered = nil
	}
	if err != nil {
		if !failsAll(err) {
			l.broken = now.Add(brokenPause)
		}
		return
	}
	if a.status == 2 {
		return
	}
	l.told(q)
	l.share = nil
	if a.status == 1 {
		l.drop()
		q.held = 0
	}
	l.left += a.granted
	l.shared.figures.Granted.Add(int64(a.granted))
	l.ends = q.asked.Add(leaseLength)
	l.known, l.have, l.asOf = true, a.have, now
	l.next, l.notBefore = time.Time{}, time.Time{}
	if l.kind == sharedTokens {
		if wait := timeFor(1-a.have, l.tier.rate()); wait > time.Microsecond {
			l.next = now.Add(max(wait, pollPause))
		}
	} else {
		l.start, l.end, l.window = a.start, q.asked.Add(a.until), a.window
		l.counted, l.lent = a.spent, q.held+a.granted
		l.account.note()
		if l.end.Before(l.ends) {
			l.ends = l.end
		}
		if a.have < 1 {
			l.next = l.end
		}
	}
	if !l.next.IsZero() { // and sooner than that, another node may have given something back
		l.notBefore = now.Add(max(1, min(l.next.Sub(now)-time.Microsecond, pollPauseAtMost))) // Redis's clock has microseconds
	}
	if q.want > 0 && a.granted <= q.need {
		l.quiet = now.Add(5 * pollPause)
	}
	if l.left > 0 {
		l.shared.hold(l)
	}
}

// timeFor is how long n tokens take to flow, rounded up to a nanosecond; less than a nanosecond's worth is there
// already.
func timeFor(n float64, pace rate.Limit) time.Duration {
	d := n / float64(pace) * float64(time.Second)
	if d < 1 {
		return 0
	}
	return time.Duration(math.Ceil(d))
}
