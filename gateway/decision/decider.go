package decision

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sallyport/gateway/http1"
	"sallyport/internal/contain"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/trust"
)

// Options are what a Decider works with. Their zero value is usable.
type Options struct {
	Log         *slog.Logger       // nil: nothing is logged
	Now         func() time.Time   // nil: time.Now; decides validity, tiers and durations
	Observe     func(*Exchange)    // called once for each call, after its last byte; it may not keep the Exchange
	Panicked    func(where string) // called for each panic, with what panicked; nil: nobody counts
	HeaderLines int                // of a request, without Host; 0: 200
	Exempt      []netip.Prefix     // networks whose addresses are no callers, since many share one
	Drain       time.Duration      // how long a stream of unknown length outlives its caller's right; 0 means 30 s
	Recheck     time.Duration      // how often the right of an open stream is judged though no snapshot was swapped; 0: 500 ms
}

// A Decider decides calls by the snapshot in force, and counts them. Run watches over streams.
type Decider struct {
	cfg       Options
	faults    *contain.Faults
	timed     bool // the clock is cfg's and not the system's
	via       string
	snapshot  atomic.Pointer[Snapshot]
	underWay  atomic.Int64
	brokenOff atomic.Int64
	short     atomic.Bool
	streams   streams
	usage     usage
}

// A Snapshot is what a call is decided by: one state of the configuration and of the store. It never changes.
type Snapshot struct {
	Routes    *Table
	Clients   *Clients
	Listeners map[string]*Listener // by address
	Denied    *trust.Denials       // certificates that are not good, whatever vouches for them; nil: none is denied

	replaced chan struct{}                      // closed when another one is in force
	askAny   map[*listenerprofiles.Profile]bool // see AsksForAny
}

// listener returns the settings of an endpoint; of one that drains, its last.
func (s *Snapshot) listener(e *Endpoint) *Listener {
	if l := s.Listeners[e.Address]; l != nil {
		return l
	}
	return e.settings.Load()
}

// AsksForAny reports whether a profile asks clients for a certificate of any issuer: one that it does not name may have
// issued a registered certificate that needs no trust store.
func (s *Snapshot) AsksForAny(p *listenerprofiles.Profile) bool { return s.askAny[p] }

// New returns a Decider that admits nobody: its snapshot has no routes and no clients.
func New(cfg Options) *Decider {
	d := &Decider{cfg: cfg, timed: cfg.Now != nil, via: "sallyport-" + NewID()[:8]}
	if cfg.Log == nil {
		d.cfg.Log = slog.New(slog.DiscardHandler)
	}
	d.faults = &contain.Faults{Log: d.cfg.Log, Count: cfg.Panicked}
	if cfg.Now == nil {
		d.cfg.Now = time.Now
	}
	d.cfg.HeaderLines = cmp.Or(cfg.HeaderLines, 200)
	d.cfg.Drain = cmp.Or(cfg.Drain, 30*time.Second)
	d.cfg.Recheck = cmp.Or(cfg.Recheck, 500*time.Millisecond) // certificates end with a second, and streams of theirs within one
	d.streams.recheck = make(chan struct{}, 1)
	d.snapshot.Store(&Snapshot{Routes: &Table{}, Clients: &Clients{}, replaced: make(chan struct{})})
	return d
}

// Exempt reports whether limits of a source are not for an address.
func (d *Decider) Exempt(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(d.cfg.Exempt, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Snapshot returns the snapshot in force.
func (d *Decider) Snapshot() *Snapshot { return d.snapshot.Load() }

// Set puts a snapshot into force. Calls under way finish on the one they began with.
func (d *Decider) Set(s Snapshot) {
	if s.Clients != d.snapshot.Load().Clients {
		d.usage.adopt(s.Clients)
	}
	s.replaced, s.askAny = make(chan struct{}), map[*listenerprofiles.Profile]bool{}
	for _, l := range s.Listeners {
		if l.Profiles == nil {
			continue
		}
		for _, p := range l.Profiles.Profiles() {
			if p.Any != nil && s.Clients.unnamed(s.Routes, l, p) {
				s.askAny[p] = true
			}
		}
	}
	close(d.snapshot.Swap(&s).replaced)
}

// SetShort says whether the process is short of memory: then calls are refused.
func (d *Decider) SetShort(short bool) { d.short.Store(short) }

// Short reports what SetShort said.
func (d *Decider) Short() bool { return d.short.Load() }

// HeaderLines is how many header lines a request may have, without Host.
func (d *Decider) HeaderLines() int { return d.cfg.HeaderLines }

// UnderWay is how many calls have begun and not finished.
func (d *Decider) UnderWay() int64 { return d.underWay.Load() }

// BrokenOff is how many calls have been broken off by their Endpoint's Stop.
func (d *Decider) BrokenOff() int64 { return d.brokenOff.Load() }

// Log is where faults of calls are logged.
func (d *Decider) Log() *slog.Logger { return d.cfg.Log }

// Faults is told of panics, whoever contains them.
func (d *Decider) Faults() *contain.Faults { return d.faults }

// Now is the time by the Decider's clock. seen is the system's, if it is known already.
func (d *Decider) Now(seen time.Time) time.Time {
	if d.timed || seen.IsZero() {
		return d.cfg.Now()
	}
	return seen
}

// Begin begins a call whose head was seen at that time by the system's clock, or could not be read: see
// Request.Problem. Finish ends it.
func (d *Decider) Begin(x *Exchange, r *http1.Request, id string, c *Connection, seen time.Time) {
	d.underWay.Add(1)
	c.underWay.Add(1)
	c.last.Store(seen.UnixNano())
	now := d.Now(seen)
	s := d.snapshot.Load()
	breakOff := x.BreakOff
	*x = Exchange{
		Request: r, ID: id, Peer: c.Peer, Claimed: c.Claimed, TLS: c.TLS, Cipher: c.Cipher, Started: now,
		Listener: s.listener(c.Endpoint), Snapshot: s,
		BreakOff: breakOff, decider: d, connection: c, seen: seen, now: now,
	}
}

// Finish ends a call, after its last byte and after Over: what it had taken is given back, and it is observed.
func (d *Decider) Finish(x *Exchange) {
	defer d.underWay.Add(-1)
	now := time.Now()
	x.connection.last.Store(now.UnixNano()) // before it rests, or it would seem to have rested all along
	x.connection.underWay.Add(-1)
	x.place.Leave()
	if x.Err != nil && x.connection.stopped() != nil {
		d.brokenOff.Add(1)
	}
	x.Took = now.Sub(x.seen)
	x.countUse(now)
	if d.cfg.Observe == nil {
		return
	}
	defer func() {
		if fault := recover(); fault != nil { // of the observer, not of the call
			d.faults.New("observing a call", fault, "id", x.ID)
		}
	}()
	d.cfg.Observe(x)
}

// ErrWait is Decide's answer when a stage needs something that is not in memory: call Await, off any event loop.
var ErrWait = errors.New("the decision has to wait")

// Decide carries x through the stages and returns nil to forward it to x.Group, a *Refusal, or ErrWait; called again,
// it continues where it stopped. It is pure work on snapshots: it reads no file, no database and no socket, and takes
// no lock that a reload holds.
func Decide(x *Exchange) error {
	for ; x.stage < stageForward; x.stage++ {
		if err := stages[x.stage].run(x); err != nil {
			if err != ErrWait {
				x.Err = err
				x.Limit = limits[x.Refusal().Reason]
			}
			return err
		}
	}
	return nil
}

// A stage is a step of Decide.
type stage uint8

const (
	stageScreen stage = iota
	stageIdentify
	stageMatch
	stageAuthorize
	stageLimit
	stageDispatch
	stageForward
)

// stages are all of them in their order, which is a security property.
var stages = [stageForward]struct {
	name string
	run  func(*Exchange) error
}{
	{"screen", screen}, {"identify", identify}, {"match", match}, {"authorize", authorize}, {"limit", limit}, {"dispatch", dispatch},
}

// Await is Decide for whoever may wait: it does what Decide stops for. That ends with ctx at the latest; the proof that
// it waited for is then missing.
func Await(ctx context.Context, x *Exchange) error {
	for {
		err := Decide(x)
		if err != ErrWait {
			return err
		}
		x.wait(ctx)
		x.wait, x.now = nil, time.Time{}
	}
}

// at is the time by which the call is judged: the clock is read once, and again after a wait.
func (x *Exchange) at() time.Time {
	if x.now.IsZero() {
		x.now = x.decider.cfg.Now()
	}
	return x.now
}

// NewID is 128 random bits as 32 hexadecimal digits. It tells calls apart; it is no secret.
func NewID() string {
	var space [32]byte
	return string(AppendID(space[:0]))
}

// AppendID appends a new call's ID.
func AppendID(b []byte) []byte {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64()|1) // never all zeros (W3C Trace Context section 3.2.2.3)
	return hex.AppendEncode(b, id[:])
}
