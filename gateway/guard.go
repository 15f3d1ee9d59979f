package gateway

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"sallyport/gateway/decision"
	"sallyport/internal/contain"
	"sallyport/listenerprofiles"
)

// Limits bound what clients may take of the gateway. A zero field means its default.
//
// A source is an IPv4 address or an IPv6 /64: the client's, as far as a proxy's header tells it. The load balancers that
// a listener believes, its proxies, and Exempt are held to no limit of a source. None of the load balancers' connections
// is closed to make room for others, and of Exempt none that ever had an admitted call.
type Limits struct {
	Connections          int            // open at once, in all; 0: 20,000
	ConnectionsPerSource int            // 0: 5,000
	Handshakes           int            // under way at once; others wait; also proxies' headers; 0: 1,000
	HandshakesPerSource  int            // 0: 100
	HeaderLines          int            // of a request, without Host; 0: 200
	CertificateBytes     int            // of all certificates that a client shows, as DER; 0: 32 KiB
	Certificates         int            // how many; 0: 16, which is the most
	CertificateKeyBits   int            // of an RSA key in them; 0: 8,192, which is the most
	BodyRate             int            // bytes a second of a body that a client has to send or take on average; 0: not demanded
	Streams              int            // calls at once on an HTTP/2 connection; 0: 100
	HeaderTimeout        time.Duration  // for a proxy's header, a handshake, and a head from its first byte on; 0: 10 s
	FirstCallTimeout     time.Duration  // for the next call of a connection that never had an admitted one; 0: 60 s
	IdleTimeout          time.Duration  // for the next call of any other; 0: 620 s
	Exempt               []netip.Prefix // networks in which many clients share an address
}

// Shown are the limits of the certificates that a client shows. They hold where handshakes and headers are read, which
// is not here: in the Listeners' profiles and doors.
func (l Limits) Shown() listenerprofiles.Bounds {
	return listenerprofiles.Bounds{Bytes: l.CertificateBytes, Certificates: l.Certificates, KeyBits: l.CertificateKeyBits}
}

// handshakeBytes is how much a client may send between its hello and the end of its handshake. crypto/tls takes 256 KiB
// of certificates and parses all of them before it asks anybody: what is beyond the bounds in any case is not even read.
func (l Limits) handshakeBytes() int {
	const besides = 8 << 10 // a second hello, the largest signature, what frames it all
	return l.Shown().WithDefaults().Bytes + besides
}

func (l Limits) withDefaults() Limits {
	l.Connections = cmp.Or(l.Connections, 20_000)
	l.ConnectionsPerSource = cmp.Or(l.ConnectionsPerSource, 5_000)
	l.Handshakes = cmp.Or(l.Handshakes, 1_000)
	l.HandshakesPerSource = cmp.Or(l.HandshakesPerSource, 100)
	l.Streams = cmp.Or(l.Streams, 100)
	l.HeaderTimeout = cmp.Or(l.HeaderTimeout, 10*time.Second)
	l.FirstCallTimeout = cmp.Or(l.FirstCallTimeout, time.Minute)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 620*time.Second)
	return l
}

// Names of the limits, for logs and metrics.
const (
	limitConnections          = "connections"
	limitConnectionsPerSource = "connections_per_source"
	limitHandshakes           = "handshakes"
	limitHandshakesPerSource  = "handshakes_per_source"
)

// A guard counts connections and TLS handshakes by source, and makes room for new ones where there are as many as the
// Limits allow. First go connections that never had an admitted call, then those that are idle; each time the idlest of
// the source that has most of them. One with a call under way never goes. Where nothing can go, a new connection is
// refused, and a handshake waits for its turn: that of the source with the fewest under way comes first.
type guard struct {
	limits    Limits
	refusals  ConnectionObserver
	evictions ConnectionObserver
	log       *slog.Logger
	told      map[string]*rate.Sometimes // by limit
	admitted  atomic.Int64               // connections, ever

	mu      sync.Mutex
	sources map[sourceKey]*source
	conns   map[*countedConn]struct{}
	unnamed map[*countedConn]struct{} // none of them yet: those whose proxy has not told whose they are
	shaking map[*countedConn]struct{} // of conns
	waiting map[*source]struct{}      // those with handshakes that wait
	idle    queue
	silent  queue
}

// A sourceKey tells sources apart. What is exempt counts for itself: it takes nothing of those beside it at its address.
type sourceKey struct {
	addr   netip.Addr
	exempt bool
}

// A source is what one source has open.
type source struct {
	conns   map[*countedConn]struct{}
	shaking int            // of them
	waiting []*countedConn // for their handshake, in the order in which they came
	idle    queue
	silent  queue
}

// A countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	guard  *guard
	socket *socket
	known  *decision.Connection
	once   sync.Once

	from     sourceKey // this and balancer change with trust and name, under the guard's lock
	balancer bool      // a load balancer's that is believed: it never goes
	proxied  bool      // it begins with a proxy's header, and goes like any client's

	shakes  atomic.Bool   // its handshake is under way
	waited  time.Duration // for the client, in the handshake; the reader's own
	silent  atomic.Int64  // since when it would wait for the client had it never ceased, in Unix nanoseconds; 0: it does not
	evicted atomic.Bool
	http2   atomic.Bool

	accepted time.Time // or named, under the guard's lock
}

const (
	grace        = time.Second            // no connection is closed that has been idle, or silent, for less
	tellInterval = 10 * time.Second       // how often it is logged that a limit is reached
	turnInterval = 100 * time.Millisecond // how often it is looked whether handshakes that wait can have their turn
	modest       = 64                     // whoever has less than this part of all connections makes any idle one go
)

func newGuard(l Limits, refusals, evictions ConnectionObserver, log *slog.Logger) *guard {
	g := &guard{
		limits: l.withDefaults(), refusals: refusals, evictions: evictions, log: log, told: map[string]*rate.Sometimes{},
		sources: map[sourceKey]*source{}, conns: map[*countedConn]struct{}{}, shaking: map[*countedConn]struct{}{},
		unnamed: map[*countedConn]struct{}{}, waiting: map[*source]struct{}{},
	}
	for _, limit := range []string{limitConnections, limitConnectionsPerSource, limitHandshakes, limitHandshakesPerSource} {
		g.told[limit] = &rate.Sometimes{Interval: tellInterval}
	}
	return g
}

// admit counts a connection until it is closed; nil if it is one too many.
func (g *guard) admit(c net.Conn, s *socket, l *decision.Listener) *countedConn {
	peer := addressOf(c.RemoteAddr())
	// Where a load balancer has to show a certificate it is one once it has: see trust.
	balancer := l.Door != nil && !l.DoorByCertificate && l.Door.Knows(peer.Addr())
	proxied := l.Proxies.Include(peer.Addr())
	one := &countedConn{
		Conn: c, guard: g, socket: s, accepted: time.Now(), balancer: balancer && !proxied, proxied: proxied,
		known: decision.NewConnection(&s.endpoint, peer, addressOf(c.LocalAddr()).Addr()),
		from:  sourceKey{decision.Source(peer.Addr()), balancer || proxied || s.gateway.decider.Exempt(peer.Addr())},
	}
	enter := g.enter
	if proxied {
		enter = g.await
	}
	g.mu.Lock()
	limit, goes := enter(one)
	g.mu.Unlock()
	if !g.entered(one, limit, goes) {
		return nil
	}
	g.admitted.Add(1)
	return one
}

// await counts a proxy's connection until it is named or closed. Whose it is, and so what it may take from whom, is not
// known yet. So it takes from none but those that wait like it: of too many goes the one that has waited longest.
func (g *guard) await(c *countedConn) (limit string, goes *countedConn) {
	if len(g.unnamed) >= g.limits.Handshakes {
		limit = limitHandshakes
		for one := range g.unnamed {
			if c.accepted.Sub(one.accepted) >= grace && (goes == nil || one.accepted.Before(goes.accepted)) {
				goes = one
			}
		}
		if goes == nil {
			return limit, nil
		}
		g.remove(goes)
	}
	g.unnamed[c] = struct{}{}
	return limit, goes
}

// name counts a connection as the client's whose address its proxy has told, or as the proxy's own if it has told none;
// false if that is one too many, or if it was closed meanwhile.
func (g *guard) name(c *countedConn, client netip.Addr) bool {
	g.mu.Lock()
	if _, open := g.unnamed[c]; !open {
		g.mu.Unlock()
		return false
	}
	delete(g.unnamed, c)
	c.accepted = time.Now()
	if client.IsValid() {
		c.known.Claimed = client
		c.from = sourceKey{decision.Source(client), c.socket.gateway.decider.Exempt(client)}
	}
	limit, goes := g.enter(c)
	g.mu.Unlock()
	return g.entered(c, limit, goes)
}

// entered tells of the limit that a connection has reached when it entered, if it was one, and reports whether it could.
func (g *guard) entered(c *countedConn, limit string, goes *countedConn) bool {
	if limit == "" {
		return true
	}
	g.reached(limit, c.from, goes)
	if goes == nil {
		g.refusals.tell(limit)
	}
	return goes != nil
}

// enter counts a connection. It returns the limit that is reached, if one is, and who goes for it: nobody means that the
// connection cannot enter.
func (g *guard) enter(c *countedConn) (limit string, goes *countedConn) {
	src := g.sources[c.from]
	switch {
	case src != nil && !c.from.exempt && len(src.conns) >= g.limits.ConnectionsPerSource:
		limit, goes = limitConnectionsPerSource, src.idle.take(src.conns, c.accepted, isIdle, nil)
	case len(g.conns) >= g.limits.Connections:
		has := 0
		if src != nil {
			has = len(src.conns)
		}
		limit, goes = limitConnections, g.idle.take(g.conns, c.accepted, isIdle, func(one *countedConn, rank int) bool {
			return rank == 0 || c.from.exempt || one.from == c.from || has < max(1, g.limits.Connections/modest) ||
				has < len(g.sources[one.from].conns)
		})
	}
	if limit != "" && goes == nil {
		return limit, nil
	}
	if goes != nil {
		g.remove(goes)
	}
	g.add(c)
	return limit, goes
}

func (g *guard) add(c *countedConn) {
	src := g.sources[c.from]
	if src == nil {
		src = &source{conns: map[*countedConn]struct{}{}}
		g.sources[c.from] = src
	}
	src.conns[c] = struct{}{}
	g.conns[c] = struct{}{}
}

// trust counts a connection, whose handshake has ended well, as a load balancer's. One that was opened for a client goes
// on to count as the client's.
func (g *guard) trust(c *countedConn) {
	if c.known.Claimed.IsValid() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, open := g.conns[c]; open {
		g.remove(c)
		c.from.exempt, c.balancer = true, true
		g.add(c)
	}
}

// reached closes whoever goes because of a limit that is reached, and tells of it.
func (g *guard) reached(limit string, by sourceKey, goes *countedConn) {
	greedy := by
	if goes != nil {
		greedy = goes.from
		goes.evicted.Store(true)
		g.evictions.tell(limit)
		goes.Close()
	}
	g.told[limit].Do(func() {
		g.mu.Lock()
		open, shaking := 0, 0
		if src := g.sources[greedy]; src != nil {
			open, shaking = len(src.conns), src.shaking
		}
		g.mu.Unlock()
		g.log.Warn("a limit is reached", "limit", limit, "for", by.addr.String(), "room_made", goes != nil,
			"source", greedy.addr.String(), "connections", open, "handshakes", shaking)
	})
}

// shake has a connection's handshake begin when it is its turn.
func (g *guard) shake(c *countedConn) {
	g.mu.Lock()
	if _, open := g.conns[c]; open {
		src := g.sources[c.from]
		src.waiting = append(src.waiting, c)
		g.waiting[src] = struct{}{}
	}
	g.mu.Unlock()
	g.takeTurns()
}

// shaken ends a handshake, which gives others their turn.
func (g *guard) shaken(c *countedConn) {
	c.shakes.Store(false)
	g.mu.Lock()
	g.endShaking(c)
	more := len(g.waiting) > 0
	g.mu.Unlock()
	if more {
		g.takeTurns()
	}
}

func (g *guard) endShaking(c *countedConn) {
	if _, ok := g.shaking[c]; ok {
		delete(g.shaking, c)
		if src := g.sources[c.from]; src != nil {
			src.shaking--
		}
	}
}

// takeTurns begins the handshakes that there is room for.
func (g *guard) takeTurns() {
	for {
		g.mu.Lock()
		next, limit, goes := g.turn(time.Now())
		g.mu.Unlock()
		switch {
		case goes != nil:
			g.reached(limit, goes.from, goes)
		case next == nil:
			if limit != "" {
				g.told[limit].Do(func() {
					source, shaking := g.greediest()
					g.log.Warn("a limit is reached: TLS handshakes wait", "limit", limit, "source", source.String(), "handshakes", shaking)
				})
			}
			return
		default:
			s := next.socket
			s.gateway.serving.Go(func() {
				defer s.gateway.decider.Faults().Catch("a handshake", func(*contain.Fault) { next.Close() })
				s.handshake(next)
			})
		}
	}
}

// turn returns whose handshake begins, or who has to go before one can, because of which limit; nobody: those that wait
// go on waiting, if there are any because of that limit.
func (g *guard) turn(now time.Time) (next *countedConn, limit string, goes *countedConn) {
	var best *source
	for src := range g.waiting {
		if !src.waiting[0].from.exempt && src.shaking >= g.limits.HandshakesPerSource {
			limit = limitHandshakesPerSource
			if goes = src.silent.take(src.conns, now, isSilent, nil); goes != nil {
				g.remove(goes)
				return nil, limit, goes
			}
			continue
		}
		if best == nil || src.shaking < best.shaking {
			best = src
		}
		if best.shaking == 0 {
			break // none has fewer, and those that have as few may be many thousands
		}
	}
	switch {
	case best == nil:
		return nil, limit, nil
	case len(g.shaking) >= g.limits.Handshakes:
		goes = g.silent.take(g.shaking, now, isSilent, func(one *countedConn, _ int) bool {
			return best.shaking < max(1, g.limits.HandshakesPerSource/8) || best.shaking < g.sources[one.from].shaking
		})
		if goes != nil {
			g.remove(goes)
		}
		return nil, limitHandshakes, goes
	}
	next = best.waiting[0]
	if best.waiting = best.waiting[1:]; len(best.waiting) == 0 {
		best.waiting = nil
		delete(g.waiting, best)
	}
	best.shaking++
	g.shaking[next] = struct{}{}
	next.shakes.Store(true)
	return next, "", nil
}

// sweep gives handshakes that wait their turn where that takes time, and closes connections that had time enough: for
// the beginning of their handshake, or over HTTP/2 for a first call that is admitted.
func (g *guard) sweep() {
	now := time.Now()
	g.mu.Lock()
	waits := len(g.waiting) > 0
	var late []*countedConn
	for src := range g.waiting {
		for _, c := range src.waiting {
			if now.Sub(c.accepted) > g.limits.HeaderTimeout {
				late = append(late, c)
			}
		}
	}
	g.mu.Unlock()
	for _, c := range late {
		g.refusals.tell(limitHandshakes)
		c.Close()
	}
	if waits {
		g.takeTurns()
	}
}

// sweepFirstCalls closes HTTP/2 connections that had no call that was admitted in time. Over HTTP/1.1 the engine does
// that.
func (g *guard) sweepFirstCalls() {
	now := time.Now()
	var late []*countedConn
	g.mu.Lock()
	for c := range g.conns {
		if c.http2.Load() {
			since, admitted, resting := c.known.Rest()
			if resting && !admitted && now.Sub(since) > g.limits.FirstCallTimeout {
				late = append(late, c)
			}
		}
	}
	g.mu.Unlock()
	for _, c := range late {
		c.Close()
	}
}

// closeAll closes every connection of a socket, or of all if it is nil, whoever has it now.
func (g *guard) closeAll(of *socket) {
	g.mu.Lock()
	conns := slices.AppendSeq(slices.Collect(maps.Keys(g.conns)), maps.Keys(g.unnamed))
	g.mu.Unlock()
	for _, c := range conns {
		if of == nil || c.socket == of {
			c.Close()
		}
	}
}

// remove ends the counting of a connection, if it is counted.
func (g *guard) remove(c *countedConn) {
	delete(g.unnamed, c)
	if _, ok := g.conns[c]; !ok {
		return
	}
	g.endShaking(c)
	delete(g.conns, c)
	src := g.sources[c.from]
	if i := slices.Index(src.waiting, c); i >= 0 {
		if src.waiting = slices.Delete(src.waiting, i, i+1); len(src.waiting) == 0 {
			delete(g.waiting, src)
		}
	}
	if delete(src.conns, c); len(src.conns) == 0 {
		delete(g.sources, c.from)
	}
}

// count is how many connections are open now.
func (g *guard) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns) + len(g.unnamed)
}

// greediest is the source with most handshakes under way, and how many these are.
func (g *guard) greediest() (source netip.Addr, shaking int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.shaking {
		if src := g.sources[c.from]; src != nil && src.shaking > shaking {
			source, shaking = c.from.addr, src.shaking
		}
	}
	return source, shaking
}

// countHandshakes is how many handshakes are under way now, and how many wait.
func (g *guard) countHandshakes() (underWay, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for src := range g.waiting {
		waiting += len(src.waiting)
	}
	return len(g.shaking), waiting
}

// Read implements net.Conn.
func (c *countedConn) Read(p []byte) (int, error) {
	if !c.shakes.Load() {
		return c.Conn.Read(p)
	}
	began := time.Now()
	c.silent.Store(began.Add(-c.waited).UnixNano()) // a byte now and then is no more than none
	defer func() {
		c.silent.Store(0)
		c.waited += time.Since(began)
	}()
	return c.Conn.Read(p)
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.guard.mu.Lock()
		defer c.guard.mu.Unlock()
		c.guard.remove(c)
	})
	return c.Conn.Close()
}

// SyscallConn is the socket below.
func (c *countedConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// CloseWrite ends our half of the connection.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
