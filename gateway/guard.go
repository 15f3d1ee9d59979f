package gateway

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"sallyport/gateway/decision"
	"sallyport/listenerprofiles"
)

// Limits bound what clients may take of the gateway. A zero field means its default.
type Limits struct {
	Connections          int // open at once, in all; 0: 20,000
	ConnectionsPerSource int // from one address, load balancers exempt; 0: 5,000
	Handshakes           int // TLS handshakes under way at once; 0: 1,000
	HeaderLines          int // of a request, without Host; 0: 200
	CertificateBytes     int // of all certificates that a client shows, as DER; 0: 32 KiB
	Certificates         int // how many; 0: 16, which is the most
	CertificateKeyBits   int // of an RSA key in them; 0: 8,192, which is the most
	BodyRate             int // bytes a second of a body that a client has to send or take on average; 0: not demanded
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
	return l
}

// A guard counts connections and handshakes under way, and refuses those that are too many.
type guard struct {
	limits     Limits
	handshakes *semaphore.Weighted // under way
	admitted   atomic.Int64        // connections, ever

	mu      sync.Mutex
	sources map[netip.Addr]int
	conns   map[*countedConn]struct{}
}

// admit counts a connection until it is closed, or says which limit it would exceed.
func (g *guard) admit(c net.Conn, s *socket, l *decision.Listener) (counted net.Conn, why string) {
	source := addressOf(c.RemoteAddr()).Addr()
	exempt := l.Door != nil && l.Door.Knows(source)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case len(g.conns) >= g.limits.Connections:
		return nil, "connections"
	case !exempt && g.sources[source] >= g.limits.ConnectionsPerSource:
		return nil, "connections_per_source"
	}
	g.sources[source]++
	g.admitted.Add(1)
	one := &countedConn{Conn: c, guard: g, socket: s, source: source}
	g.conns[one] = struct{}{}
	return one, ""
}

// closeAll closes every connection of a socket, or of all if it is nil, whoever has it now.
func (g *guard) closeAll(of *socket) {
	g.mu.Lock()
	conns := slices.Collect(maps.Keys(g.conns))
	g.mu.Unlock()
	for _, c := range conns {
		if of == nil || c.socket == of {
			c.Close()
		}
	}
}

func (g *guard) forget(c *countedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	if g.sources[c.source]--; g.sources[c.source] == 0 {
		delete(g.sources, c.source)
	}
}

// count is how many connections are open now.
func (g *guard) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// A countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	guard  *guard
	socket *socket
	source netip.Addr
	once   sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.guard.forget(c) })
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

// Memory pressure: above high of the memory limit new calls are refused, until it is below low again.
const (
	memoryHigh     = 0.92
	memoryLow      = 0.85
	memoryInterval = 100 * time.Millisecond
)

// Memory is given back to the system when nothing has happened for a quietSpell, and, if much is held, when there was
// no collection for stillSpells of them.
const (
	quietSpell  = 10 * time.Second
	stillSpells = 3
	muchHeld    = 48 << 20 // bytes of the heap
)

// every calls do after each interval until stop is closed.
func every(interval time.Duration, stop <-chan struct{}, do func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			do()
		}
	}
}

// restMemory gives back what a burst of connections has left behind, which the collector would keep for minutes: once
// after each, when nothing has happened for a spell. A gateway that is never quite quiet, since somebody asks for its
// health, gives it back when so little has happened that the collector had nothing to do. It ends when stop is closed.
func (g *Gateway) restMemory(spell time.Duration, stop <-chan struct{}) {
	rested, last := int64(0), int64(0)
	collections, still := uint64(0), 0
	every(spell, stop, func() {
		held, n := heapHeld()
		if still++; n != collections {
			still = 0
		}
		now := g.guard.admitted.Load()
		quiet := now == last && g.decider.UnderWay() == 0
		switch {
		case quiet && rested != now:
			rested = now
			runtime.GC() // before that of FreeOSMemory: what pools hold survives the first
			debug.FreeOSMemory()
			still = 0
		case still >= stillSpells && held >= muchHeld:
			debug.FreeOSMemory()
			still = 0
		}
		last = now
		_, collections = heapHeld()
	})
}

// heapHeld is how many bytes the heap holds, garbage and free ones among them, and how many collections there have been.
func heapHeld() (bytes, collections uint64) {
	sample := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(sample)
	return sample[0].Value.Uint64() + sample[1].Value.Uint64(), sample[2].Value.Uint64()
}

// watchMemory holds the process to its memory limit (GOMEMLIMIT) by refusing new calls before the collector thrashes.
// Without a limit there is nothing to hold. It ends when stop is closed.
func watchMemory(setShort func(bool), stop <-chan struct{}) {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return
	}
	// What lives, and not what the collector has yet to find: with a limit it lets garbage grow up to it.
	sample := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	every(memoryInterval, stop, func() {
		metrics.Read(sample)
		used := float64(sample[4].Value.Uint64())
		for i, sign := range []float64{1, -1, -1, -1} {
			used += sign * float64(sample[i].Value.Uint64())
		}
		switch {
		case used > memoryHigh*float64(limit):
			setShort(true)
		case used < memoryLow*float64(limit):
			setShort(false)
		}
	})
}
