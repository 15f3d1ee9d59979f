package backend

import (
	"errors"
	"sync"
	"sync/atomic"
)

// A Caller is who a call counts for among those of an environment, as a hash that no client can choose. Zero counts for
// nobody.
type Caller uint64

// Why a call has no place in a Group.
var (
	ErrBusy       = errors.New("as many calls are under way as upstream.maxCalls allows")
	ErrCallerBusy = errors.New("the caller has as many calls under way as upstream.maxCallsPerCaller allows")
)

// A budget counts what is under way in an environment, in all and by caller.
type budget struct {
	underWay atomic.Int64
	shares   [shareShards]share
}

// shareShards is how many locks the callers of a budget are spread over, so that calls hardly ever wait for each other.
const shareShards = 32

type share struct {
	mu   sync.Mutex
	held map[Caller]int32
	_    [64 - 16]byte // no two on a line of the processor's cache
}

// enter counts one more, if there is room for it and for one more of the caller.
func (b *budget) enter(c Caller, most, mostOfCaller int) error {
	if b.underWay.Add(1) > int64(most) {
		b.underWay.Add(-1)
		return ErrBusy
	}
	if c == 0 {
		return nil
	}
	s := &b.shares[c%shareShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[Caller]int32{}
	}
	if s.held[c] >= int32(mostOfCaller) {
		b.underWay.Add(-1)
		return ErrCallerBusy
	}
	s.held[c]++
	return nil
}

// leave ends enter.
func (b *budget) leave(c Caller) {
	b.underWay.Add(-1)
	if c == 0 {
		return
	}
	s := &b.shares[c%shareShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[c]--; s.held[c] == 0 {
		delete(s.held, c)
	}
}

// A Place is a call's among those under way in a Group: among its calls, or among its tunnels and open streams, which
// have a budget of the same size beside them. Its zero value is none.
type Place struct {
	group  *Group
	budget *budget
	caller Caller
}

// Enter gives a call its place, or returns ErrBusy or ErrCallerBusy. stream tells that it is to become a tunnel.
func (g *Group) Enter(c Caller, stream bool) (Place, error) {
	b := &g.counts.calls
	if stream {
		b = &g.counts.streams
	}
	if err := b.enter(c, g.MaxCalls, g.MaxCallsPerCaller); err != nil {
		return Place{}, err
	}
	return Place{g, b, c}, nil
}

// Stream moves a call that has turned out to be a stream to the budget of those. If that has no room it stays where it
// is, and the answer is false.
func (p *Place) Stream() bool {
	if p.group == nil {
		return false
	}
	to := &p.group.counts.streams
	switch {
	case p.budget == to:
		return true
	case to.enter(p.caller, p.group.MaxCalls, p.group.MaxCallsPerCaller) != nil:
		return false
	}
	p.budget.leave(p.caller)
	p.budget = to
	return true
}

// Leave gives the place up.
func (p *Place) Leave() {
	if p.group != nil {
		p.budget.leave(p.caller)
		*p = Place{}
	}
}
