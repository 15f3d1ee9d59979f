package ratelimit

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"sallyport/internal/contain"
)

// Options are what a Limiter works with. Their zero value counts in this process.
type Options struct {
	Redis     Redis            // where buckets are shared; the zero value: nowhere
	OnFailure OnFailure        // what becomes of calls that Redis doesn't answer for
	Timeout   time.Duration    // how long a call waits for Redis, once; 0: 25 ms
	Now       func() time.Time // nil: time.Now
	Told      func(error)      // called with why Redis can't be used, and with nil when it can again; nil: never
	Faults    *contain.Faults  // nil: nobody counts panics
	Kept      bool             // Keep is called now and then

	ReadFile func(path string) ([]byte, error) // reads the CAFile; nil: a regular file

	prefix    string           // of keys; "": sallyport
	redisTime func() time.Time // nil: Redis's clock
}

// DefaultTimeout is how long a call waits for Redis if Options don't say.
const DefaultTimeout = 25 * time.Millisecond

// New returns an empty Limiter. With a Redis, Run connects to it; until it has, calls are decided by OnFailure.
func New(o Options) (*Limiter, error) {
	l := NewLocal(o.Now)
	if o.Kept {
		l.ledger = &ledger{}
	}
	if len(o.Redis.Addresses) == 0 {
		return l, nil
	}
	s := &shared{Options: o, now: l.now, onFailure: o.OnFailure, held: map[*leased]struct{}{}, debtors: map[*leased]struct{}{}}
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	if s.Told == nil {
		s.Told = func(error) {}
	}
	if s.prefix == "" {
		s.prefix = "sallyport"
	}
	clock := redisClock
	if s.redisTime != nil {
		clock = testClock
	}
	s.scripts = newScripts(clock)
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("a name for this node: %w", err)
	}
	s.node = hex.EncodeToString(id[:])
	s.count.Store(1)
	if err := s.connect(); err != nil {
		return nil, err
	}
	// The servers of a cluster fail one by one, and each has its own lanes.
	n := 1
	if o.Redis.Mode == Cluster {
		n = 8
	}
	for i := range n {
		s.lanes = append(s.lanes, newLane(s, tagWithin(i*slots/n, (i+1)*slots/n)))
	}
	l.shared = s
	return l, nil
}

// shared is what the shared buckets of a Limiter have in common.
type shared struct {
	Options
	now       func() time.Time
	onFailure OnFailure
	node      string // this process, among those that share
	scripts   [len(scripts)]script
	lanes     []*lane
	client    atomic.Pointer[connection]
	count     atomic.Int64 // nodes that were seen last
	echoes    atomic.Uint64
	figures   figures

	mu      sync.Mutex
	held    map[*leased]struct{} // those with a lease
	debtors map[*leased]struct{} // those that let calls pass that Redis doesn't know of
}

// A connection is a client with its pools.
type connection struct{ redis.UniversalClient }

// figures count since the process began.
type figures struct {
	Exchanges, Granted, Returned, Lost, Waits, TimedOut, Uncounted atomic.Int64
	Waited                                                         atomic.Int64 // nanoseconds, all Waits
}

// A State tells how a Limiter shares its buckets.
type State struct {
	Shared    bool      // there is a Redis to share them in
	Redis     string    // which, without its password
	OnFailure OnFailure //
	Failing   error     // why Redis can't be used now, at least for some buckets; nil: it can
	Since     time.Time // when Failing began or ended
	Nodes     int       // that were seen last, this one included

	Leased    int           // calls that this node may let pass without asking
	Exchanges int64         // with buckets in Redis, since the process began, as all below
	Granted   int64         // calls leased
	Returned  int64         // calls given back unspent
	Lost      int64         // calls leased, and neither spent nor given back: so many fewer passed than might have
	Waits     int64         // calls that waited for a lease
	Waited    time.Duration // all of them together
	TimedOut  int64         // of them, those that Redis did not answer in time
	Uncounted int64         // calls decided by OnFailure
}

// State returns how buckets are shared now.
func (l *Limiter) State() State {
	s := l.shared
	if s == nil {
		return State{}
	}
	f := &s.figures
	state := State{
		Shared: true, Redis: s.Redis.String(), OnFailure: s.onFailure, Nodes: s.nodes(),
		Exchanges: f.Exchanges.Load(), Granted: f.Granted.Load(), Returned: f.Returned.Load(), Lost: f.Lost.Load(),
		Waits: f.Waits.Load(), Waited: time.Duration(f.Waited.Load()), TimedOut: f.TimedOut.Load(), Uncounted: f.Uncounted.Load(),
	}
	for _, n := range s.lanes {
		since, err := n.state()
		if state.Failing == nil && err != nil {
			state.Failing, state.Since = err, since
		} else if state.Failing == nil && since.After(state.Since) {
			state.Since = since
		}
	}
	now := s.now()
	for _, h := range s.holders() {
		h.account.mu.Lock()
		if h.holds(now) {
			state.Leased += h.left
		}
		h.account.mu.Unlock()
	}
	return state
}

// Connect tries once to reach Redis, and returns why it can't be used. Run goes on trying.
func (l *Limiter) Connect(ctx context.Context) error {
	if l.shared == nil {
		return nil
	}
	var all sync.WaitGroup
	errs := make([]error, len(l.shared.lanes))
	for i, n := range l.shared.lanes {
		all.Go(func() {
			defer l.shared.Faults.Catch("connecting to Redis", nil)
			n.beat(ctx)
			_, errs[i] = n.state()
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Look finds out how many nodes share, and whether Redis can be used, without being a node: nothing else is done with the
// Limiter, which has a Redis.
func (l *Limiter) Look(ctx context.Context) State {
	var failing error
	for _, n := range l.shared.lanes {
		ctx, cancel := context.WithTimeout(ctx, 2*dialPatience)
		_, err := n.present(ctx, false)
		cancel()
		failing = cmp.Or(failing, err)
	}
	s := l.State()
	s.Failing = errors.Join(failing, l.shared.client.Load().Close())
	return s
}

// Run keeps in touch with Redis until ctx ends, and then gives back what is left of leases. It is called once, and ctx
// outlives the last call.
func (l *Limiter) Run(ctx context.Context) error {
	s := l.shared
	if s == nil {
		<-ctx.Done()
		return nil
	}
	var all sync.WaitGroup
	for _, n := range s.lanes {
		all.Go(func() {
			_ = s.Faults.Again("the exchange with Redis", ctx.Done(), func() error { return n.run(ctx) })
		})
	}
	all.Go(func() {
		_ = s.Faults.Again("the renewal of leases", ctx.Done(), func() error { return s.renew(ctx) })
	})
	all.Wait()
	s.leave(context.WithoutCancel(ctx))
	return s.client.Load().Close()
}

func (s *shared) connect() error {
	client, err := s.Redis.open(s.ReadFile)
	if err != nil {
		return err
	}
	if old := s.client.Swap(&connection{client}); old != nil {
		_ = old.Close() // its answers can't be trusted any more
	}
	return nil
}

func (s *shared) nodes() int { return int(s.count.Load()) }

// echo is a text that no answer but one's own has.
func (s *shared) echo() string { return s.node + "-" + strconv.FormatUint(s.echoes.Add(1), 10) }

func (s *shared) keyOf(tag, suffix string) string { return s.prefix + ":{" + tag + "}:" + suffix }

func (s *shared) laneOf(tag string) *lane { return s.lanes[slot(tag)*len(s.lanes)/slots] }

func (s *shared) hold(l *leased) {
	s.mu.Lock()
	s.held[l] = struct{}{}
	s.mu.Unlock()
}

// owes notes whether there are calls of l that Redis doesn't know of.
func (s *shared) owes(l *leased, any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if any {
		s.debtors[l] = struct{}{}
	} else {
		delete(s.debtors, l)
	}
}

// settle has Redis told of the calls that passed while a lane was down.
func (s *shared) settle(n *lane) {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.debtors))
	s.mu.Unlock()
	for _, l := range all {
		l.account.mu.Lock()
		if l.lane == n && !l.busy {
			l.busy = n.enqueue(l)
		}
		l.account.mu.Unlock()
	}
}

func (s *shared) holders() []*leased {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.held))
}

// renew has leases renewed or given back before they end.
func (s *shared) renew(ctx context.Context) error {
	ticker := time.NewTicker(renewBefore / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := s.now()
		for _, l := range s.holders() {
			l.account.mu.Lock()
			if !now.Before(l.ends) {
				l.drop()
			}
			over := l.left == 0
			if !over && !l.busy && l.ends.Sub(now) < renewBefore && l.up(now) {
				l.busy = l.lane.enqueue(l)
			}
			if over {
				s.mu.Lock()
				delete(s.held, l)
				s.mu.Unlock()
			}
			l.account.mu.Unlock()
		}
	}
}

// leave gives back all leases, and this node's place among those that share.
func (s *shared) leave(ctx context.Context) {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	batches := map[*lane][]*leased{}
	for _, l := range s.holders() {
		batches[l.lane] = append(batches[l.lane], l)
	}
	for _, n := range s.lanes {
		if !n.up() {
			continue
		}
		for batch := range slices.Chunk(batches[n], mostAtOnce) {
			n.exchange(ctx, batch, true)
		}
		_, _ = n.present(ctx, false)
	}
}

// Await is TakeAll for whoever may wait: it waits for Redis once, for Options.Timeout and until ctx ends at most, and
// its Verdict is never Pending. It reads the time from now, which may be asked several times.
func Await(ctx context.Context, now func() time.Time, buckets ...Bucket) Verdict {
	began := now()
	v := takeAll(began, true, buckets)
	if !v.pending {
		return v
	}
	s := sharedOf(buckets)
	timer := time.NewTimer(s.Timeout)
	defer timer.Stop()
	clock := time.Now()
	s.figures.Waits.Add(1)
	defer func() { s.figures.Waited.Add(int64(time.Since(clock))) }()
	for v.pending {
		if !wait(ctx, timer.C, now(), buckets) {
			s.figures.TimedOut.Add(1)
			return takeAll(now(), false, buckets)
		}
		v = takeAll(now(), true, buckets)
	}
	return v
}

// wait waits until Redis has answered for each bucket that can't do without; false if that takes too long.
func wait(ctx context.Context, timeout <-chan time.Time, now time.Time, buckets []Bucket) bool {
	for i, b := range buckets {
		if b == nil || heldBefore(buckets[:i], b) {
			continue
		}
		l, answered := b.share().join(now)
		if l == nil {
			continue
		}
		select {
		case <-answered:
		case <-timeout:
			l.part()
			return false
		case <-ctx.Done():
			l.part()
			return false
		}
		l.part()
	}
	return true
}

// join has a call wait for the next answer about the bucket; nil if it need not.
func (b *bucket) join(now time.Time) (*leased, <-chan struct{}) {
	b.account.mu.Lock()
	defer b.account.mu.Unlock()
	l, ok := b.account.meter.(*leased)
	if !ok {
		return nil, nil
	}
	answered := l.join(now)
	if answered == nil {
		return nil, nil
	}
	return l, answered
}

// part ends a call's wait.
func (l *leased) part() {
	l.account.mu.Lock()
	l.waiting--
	l.account.mu.Unlock()
}

func sharedOf(buckets []Bucket) *shared {
	for _, b := range buckets {
		if b != nil && b.share().account.shared != nil {
			return b.share().account.shared
		}
	}
	return nil
}
