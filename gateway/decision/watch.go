package decision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/gateway/http1"
	"sallyport/policy"
)

// A watch ends a call whose end nobody knows when the right that let it in has ended, whatever that was: an upgraded
// connection, an event stream or gRPC at once, any other body of unknown length after Options.Drain. All other calls
// finish on the snapshot they began with. The goroutine of Run looks at all watches in turn.
type watch struct {
	shard *shard
	place int // in the shard's list

	mu       sync.Mutex
	exchange *Exchange // nil: the call is over
	endless  bool      // the call is broken off at once
	due      time.Time // when a call that is not endless has to be over; zero: its right has not ended
	asked    time.Time // since when it is asked whether a certificate is revoked; zero: that is known
	ended    error     // why the call was broken off; nil: it was not
}

// Streams implements backend.Request: from now on the call is watched, if nobody knows the end of the body.
func (x *Exchange) Streams(answer *http1.Response) {
	kind, length := "", int64(-1)
	if answer == nil {
		kind, _ = x.Request.First("Content-Type")
	} else {
		kind, _ = answer.First("Content-Type")
		length = answer.Length
	}
	if endless := endless(kind); endless || length < 0 {
		x.Watch(endless)
	}
}

// Duplex implements backend.Request: a call that both sides keep open lasts as a stream does, however slowly its body
// comes. It counts as one from now on, and is watched. Without room among the streams the client has to keep to
// bodyRate: else whoever finds a server that answers early could fill the places of calls with bodies that never end.
func (x *Exchange) Duplex() bool {
	x.Watch(false)
	return x.place.Stream()
}

// Watch has the call broken off when the right that let it in has ended: at once if it is endless. Over ends that.
func (x *Exchange) Watch(endless bool) {
	if endless {
		x.place.Stream()
	}
	if w := x.watch; w != nil {
		w.mu.Lock()
		w.endless = w.endless || endless
		w.mu.Unlock()
		return
	}
	x.watch = x.decider.streams.begin(x, endless)
}

// Over ends the watch over the call: from now on nobody reads the Exchange for it, or calls BreakOff. A carrier calls
// it before it lets go of the call's connections, once or more.
func (x *Exchange) Over() {
	w := x.watch
	if w == nil {
		return
	}
	x.watch = nil
	x.ended = x.decider.streams.end(w)
}

// rightEnded is why the call was broken off by its watch, or nil.
func (x *Exchange) rightEnded() error {
	if w := x.watch; w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.ended
	}
	return x.ended
}

// endless reports whether a body of that type is a stream by its nature, which has no end but the callers' wish.
func endless(contentType string) bool {
	const grpc = "application/grpc" // or application/grpc+proto
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.TrimSpace(kind)
	if strings.EqualFold(kind, "text/event-stream") {
		return true
	}
	return len(kind) >= len(grpc) && strings.EqualFold(kind[:len(grpc)], grpc) && (len(kind) == len(grpc) || kind[len(grpc)] == '+')
}

// streams are the watches over calls under way. To begin and to end one takes a lock that is hardly ever contended, and
// no memory once enough have been: BenchmarkStreams.
type streams struct {
	shards  [16]shard
	recheck chan struct{} // holds a token while Run is to look
	next    atomic.Uint32
	idle    sync.Pool // of *watch, each with its shard for good
}

// A shard is some of the watches.
type shard struct {
	mu   sync.Mutex
	open []*watch
	_    [64]byte // keeps two shards' locks out of one cache line
}

func (s *streams) begin(x *Exchange, endless bool) *watch {
	w, _ := s.idle.Get().(*watch)
	if w == nil {
		w = &watch{shard: &s.shards[int(s.next.Add(1))%len(s.shards)]}
	}
	w.mu.Lock() // a look at the call before may come late, and is then one at this call
	w.exchange, w.endless, w.due, w.asked, w.ended = x, endless, time.Time{}, time.Time{}, nil
	w.mu.Unlock()

	w.shard.mu.Lock()
	defer w.shard.mu.Unlock()
	w.place = len(w.shard.open)
	w.shard.open = append(w.shard.open, w)
	return w
}

// end waits for a look at the call that is under way, and returns why the call was broken off, if it was.
func (s *streams) end(w *watch) (ended error) {
	w.shard.leave(w)
	w.mu.Lock()
	ended = w.ended
	w.exchange, w.ended = nil, nil
	w.mu.Unlock()
	s.idle.Put(w)
	return ended
}

func (s *shard) leave(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := len(s.open) - 1
	last := s.open[end]
	s.open[w.place], last.place = last, w.place
	s.open[end] = nil
	s.open = s.open[:end]
}

// appendOpen appends the watches of all shards. They may end, and be those of other calls, at any time.
func (s *streams) appendOpen(list []*watch) []*watch {
	for i := range s.shards {
		shard := &s.shards[i]
		shard.mu.Lock()
		list = append(list, shard.open...)
		shard.mu.Unlock()
	}
	return list
}

// roundPause is the least time between two rounds, however often snapshots are swapped.
const roundPause = 50 * time.Millisecond

// Recheck has Run look at once: something has ended the right of streams, and no new snapshot tells, such as a list of
// revoked certificates.
func (d *Decider) Recheck() {
	select {
	case d.streams.recheck <- struct{}{}:
	default: // it looks already
	}
}

// Run breaks calls of unknown end off when their right has ended, until ctx ends: soon after a new snapshot or Recheck, and
// within Options.Recheck of anything else, such as the end of a certificate, of a token or of its key. It is called once.
func (d *Decider) Run(ctx context.Context) {
	tick := time.NewTicker(d.cfg.Recheck) // certificates and tokens expire without a swap
	defer tick.Stop()
	var r round
	for s := d.snapshot.Load(); ; {
		select {
		case <-s.replaced:
		case <-d.streams.recheck:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s = d.snapshot.Load()
		r.walk(d, s)
		select {
		case <-time.After(roundPause):
		case <-ctx.Done():
			return
		}
	}
}

// A round looks at all streams once. Its memory serves the next one.
type round struct {
	open    []*watch
	as      Exchange // what a stream's call would be if it began now
	request http1.Request
	broken  []ending
}

// An ending is a stream that was broken off.
type ending struct {
	id      string
	problem error
}

// walk looks at all streams. Whatever panics, the next round is due.
func (r *round) walk(d *Decider, s *Snapshot) {
	defer d.faults.Catch("the round over the streams", nil)
	r.open = d.streams.appendOpen(r.open[:0])
	for _, w := range r.open {
		r.look(d, s, w)
	}
	clear(r.open)
	r.as = Exchange{} // holds nobody's call
	r.request.Reset()
	for _, e := range r.broken { // now, since a log may be slow
		d.cfg.Log.Info("a stream is broken off: the right that let it in has ended", "id", e.id, "problem", e.problem)
	}
	clear(r.broken)
	r.broken = r.broken[:0]
}

// look breaks the call off if its time is over.
func (r *round) look(d *Decider, s *Snapshot, w *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.exchange
	if x == nil || w.ended != nil {
		return
	}
	problem := r.judge(x, s)
	if problem == nil {
		w.due, w.asked = time.Time{}, time.Time{}
		return
	}
	now := time.Now()
	if r.asks(problem) {
		if w.asked.IsZero() {
			w.asked = now
		}
		if now.Sub(w.asked) < mostAsked {
			return
		}
	}
	if w.due.IsZero() {
		w.due = now.Add(d.cfg.Drain)
	}
	if !w.endless && now.Before(w.due) {
		return
	}
	w.ended = problem
	r.broken = append(r.broken, ending{x.ID, problem})
	defer func() {
		if fault := recover(); fault != nil {
			d.faults.New("breaking a stream off", fault, "id", x.ID)
		}
	}()
	x.BreakOff()
}

// mostAsked is how long a stream goes on at most while it is asked whether its certificate is revoked. Calls wait
// about as long.
const mostAsked = 3 * time.Second

// asks reports whether problem, why the call that was judged last is not admitted, is that nobody has been asked yet, or
// has answered, whether a certificate is revoked. Then somebody is asked.
func (r *round) asks(problem error) bool {
	var why *Refusal
	if !errors.As(problem, &why) {
		return false
	}
	x := &r.as
	c := x.Certificate
	switch {
	case why.Reason == StatusUnknown:
	case why.Reason == MissingCredentials && c == nil && x.identity != nil && x.identity.known:
		c = x.identity.balancer // who is not believed as long as that is unknown
	default:
		return false
	}
	if c == nil || !c.Pending(x.at()) {
		return false
	}
	c.Ask()
	return true
}

// judge is stillAdmitted. A call that cannot be judged is not admitted.
func (r *round) judge(was *Exchange, s *Snapshot) (problem error) {
	defer func() {
		if fault := recover(); fault != nil {
			problem = fmt.Errorf("%w: %w", ErrInternal, was.decider.faults.New("judging a stream", fault, "id", was.ID))
		}
	}()
	return r.stillAdmitted(was, s)
}

// stillAdmitted judges the call like a new one, by the snapshot, the keys and the time that are now.
func (r *round) stillAdmitted(was *Exchange, s *Snapshot) error {
	was.Request.CopyTo(&r.request)
	x := &r.as
	*x = Exchange{
		Request: &r.request, ID: was.ID, Peer: was.Peer, Claimed: was.Claimed, Started: was.Started,
		Listener: s.listener(was.connection.Endpoint), Snapshot: s,
		decider: was.decider, connection: was.connection, before: was,
	}
	for _, stage := range [...]func(*Exchange) error{identify, match, authorize} {
		if err := stage(x); err != nil {
			return err
		}
	}
	switch before, now := was.Client, x.Client; {
	case x.Route.API != was.Route.API:
		return errOtherRight
	case was.Access.By == policy.Nothing || x.Resource.Security.Open:
		return nil // it was nobody's, or may be anybody's
	case x.Access.By != was.Access.By || x.sandboxed() != was.sandboxed():
		return errOtherRight
	case before != nil && (now == nil || now.Alias != before.Alias || now.KeyType != before.KeyType):
		return errOtherRight
	}
	return nil
}

var errOtherRight = errors.New("the call would now be another caller's, or another API's")
