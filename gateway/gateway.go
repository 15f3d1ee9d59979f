// Package gateway is the data plane: each call is one Exchange that walks through the stages identify, match,
// authorize and limit, which read snapshots that never change, and is then forwarded to its backend.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Config is what a Gateway works with. Its zero value is usable.
type Config struct {
	Log          *slog.Logger     // nil: nothing is logged
	Now          func() time.Time // nil: time.Now; decides validity, tiers and durations
	Observe      func(*Exchange)  // called once for each call, after its last byte; it may not keep the Exchange
	DrainTimeout time.Duration    // how long Run waits for calls under way when it ends; 0 means 30 s
	Limits       Limits
	Connections  ConnectionObserver // told of connections that were turned away; nil: nobody is

	timing timing // zero fields: the defaults; tests hasten them
	driver driver
}

// A driver carries calls of HTTP/1.1. Its zero value is the engine on loops; the others carry what is not for a loop, or
// not for the engine. Tests have each carry all, and compare.
type driver uint8

const (
	driverLoops driver = iota
	driverGoroutines
	driverNetHTTP
)

// A ConnectionObserver hears why a connection was turned away before its first call: connections, connections_per_source,
// handshakes (too many of them), handshake (it failed), accept (the system had none to give).
type ConnectionObserver func(why string)

func (o ConnectionObserver) refused(why string) {
	if o != nil {
		o(why)
	}
}

// Limits of what a client may take, whatever it sends.
const (
	maxHeaderBytes = 64 << 10 // of a request's head; more is answered with 431
	maxStreams     = 100      // calls at once on an HTTP/2 connection
)

// A timing is how long clients may keep the gateway waiting.
type timing struct {
	readHeader time.Duration // for a request's head, and for the TLS handshake; 0: 10 s
	idle       time.Duration // between calls on a connection; 0: 60 s
	bodyGrace  time.Duration // before a body's rate counts; 0: 10 s
	recheck    time.Duration // and how often the right of an open stream is judged though nothing has been swapped; 0: 10 s
}

func (t timing) withDefaults() timing {
	return timing{
		readHeader: cmp.Or(t.readHeader, 10*time.Second),
		idle:       cmp.Or(t.idle, 60*time.Second),
		bodyGrace:  cmp.Or(t.bodyGrace, 10*time.Second),
		recheck:    cmp.Or(t.recheck, 10*time.Second),
	}
}

// handshakeLines is how many refused handshakes are logged a second.
const handshakeLines = 10

// A Gateway listens, decides and forwards. Set its snapshots, then Run it; Set may be called at any time.
type Gateway struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	snapshot atomic.Pointer[Snapshot]
	upstream transports

	setting   sync.Mutex           // one Set at a time; no call waits for it
	listeners map[string]*socket   // by address: those that accept
	sockets   map[*socket]struct{} // those that accept and those that drain
	date      atomic.Pointer[dateLine]
	underWay  atomic.Int64 // calls
	serving   sync.WaitGroup
	draining  atomic.Bool
	calls     sync.Pool

	guard        guard
	handshakeLog *rate.Limiter
	short        atomic.Bool // of memory
	via          string      // this process, for the Via header
}

// A Snapshot is what a call is decided by: one state of the configuration and of the store. It never changes.
type Snapshot struct {
	Routes    *Table
	Clients   *Clients
	listeners map[string]*Listener // by address
	replaced  chan struct{}        // closed when another one is in force
}

// listener is the state of the socket's listener that belongs to the snapshot; of one that drains, its last.
func (s *Snapshot) listener(socket *socket) *Listener {
	if l := s.listeners[socket.address]; l != nil {
		return l
	}
	return socket.settings.Load()
}

// New returns a Gateway without listeners, routes or clients: until they are set it admits nobody. It starts nothing.
func New(cfg Config) *Gateway {
	g := &Gateway{cfg: cfg, log: cfg.Log, now: cfg.Now, listeners: map[string]*socket{}, sockets: map[*socket]struct{}{}}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.cfg.DrainTimeout == 0 {
		g.cfg.DrainTimeout = 30 * time.Second
	}
	g.cfg.timing = cfg.timing.withDefaults()
	g.snapshot.Store(&Snapshot{Routes: &Table{}, Clients: &Clients{}, replaced: make(chan struct{})})
	g.calls.New = func() any { return new(call) }
	g.guard = guard{limits: cfg.Limits.withDefaults(), sources: map[netip.Addr]int{}, conns: map[*countedConn]struct{}{}}
	g.handshakeLog = rate.NewLimiter(handshakeLines, handshakeLines)
	g.via = "sallyport-" + newID()[:8]
	return g
}

// Parts are what Set puts into force. What is nil stays as it is.
type Parts struct {
	Listeners []Listener
	Routes    *Table
	Clients   *Clients // they go with Routes: a change of both comes in one Set
}

// Set puts all parts into force as one: no call sees some of them and not the others. Calls under way finish on what they
// began with. Sockets whose address was there before stay open, with all their connections; new ones are opened; those
// that are gone stop accepting and drain. If a new one cannot be opened, nothing changes and the error says which.
// Without Listeners it never fails.
func (g *Gateway) Set(p Parts) error {
	g.setting.Lock()
	defer g.setting.Unlock()
	s := g.snapshot.Load()
	routes, clients := cmp.Or(p.Routes, s.Routes), cmp.Or(p.Clients, s.Clients)
	if p.Listeners == nil {
		g.put(routes, clients, s.listeners)
		return nil
	}
	return g.set(p.Listeners, routes, clients)
}

func (g *Gateway) put(routes *Table, clients *Clients, listeners map[string]*Listener) {
	g.upstream.attach(routes)
	last := g.snapshot.Swap(&Snapshot{routes, clients, listeners, make(chan struct{})})
	close(last.replaced)
	g.upstream.retain(routes)
}

// OpenConnections is how many client connections are open now.
func (g *Gateway) OpenConnections() int { return g.guard.count() }

// Ready tells whether the gateway serves: it has listeners and does not drain.
func (g *Gateway) Ready() bool {
	g.setting.Lock()
	defer g.setting.Unlock()
	return len(g.listeners) > 0 && !g.draining.Load()
}

// lastWait is how long calls that were broken off at the end of DrainTimeout have to notice.
const lastWait = 5 * time.Second

// Run serves until ctx ends, then stops accepting, lets the calls under way finish for at most DrainTimeout, upgraded
// connections among them, and returns when nothing of the gateway is left. It returns an error if calls had to be broken
// off.
func (g *Gateway) Run(ctx context.Context) error {
	ended := make(chan struct{})
	g.serving.Go(func() { watchMemory(&g.short, ended) })
	g.serving.Go(func() { g.restMemory(ended) })
	<-ctx.Done()
	close(ended)
	g.draining.Store(true)
	g.log.Info("draining", "timeout", g.cfg.DrainTimeout.String())

	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.DrainTimeout)
	defer cancel()
	err := g.closeListeners(deadline)
	if late := g.finish(deadline); late != nil {
		err = late
	}
	g.serving.Wait()
	g.upstream.close()
	return err
}

var errBrokeOff = errors.New("calls were broken off at the end of drainTimeout")

// finish waits for the calls under way until ctx ends, and then breaks them off.
func (g *Gateway) finish(ctx context.Context) error {
	if g.idle(ctx) {
		return nil
	}
	g.guard.closeAll(nil)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWait)
	defer cancel()
	if g.idle(last) {
		return errBrokeOff
	}
	return errors.New("calls did not end after they were broken off")
}

// idle waits until no call is under way; false if ctx ends before.
func (g *Gateway) idle(ctx context.Context) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for g.underWay.Load() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// Abort breaks off all connections at once: Run returns as soon as it can.
func (g *Gateway) Abort() {
	g.setting.Lock()
	defer g.setting.Unlock()
	g.guard.closeAll(nil) // first, since the server waits for clients that take nothing
	for s := range g.sockets {
		s.server.Close()
		s.engine.Close()
	}
}
