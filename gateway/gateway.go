// Package gateway is the data plane: each call is one Exchange that walks through the stages identify, match,
// authorize and limit, which read snapshots that never change, and is then forwarded to its backend.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Gateway works with. Its zero value is usable.
type Config struct {
	Log          *slog.Logger     // nil: nothing is logged
	Now          func() time.Time // nil: time.Now; decides validity, tiers and durations
	Observe      func(*Exchange)  // called once for each call, after its last byte; it may not keep the Exchange
	DrainTimeout time.Duration    // how long Run waits for calls under way when it ends; 0 means 30 s
}

// Limits of what a client may take, whatever it sends.
const (
	maxHeaderBytes    = 64 << 10         // of a request's head; more is answered with 431
	readHeaderTimeout = 10 * time.Second // for a request's head, and for the TLS handshake
	idleTimeout       = 60 * time.Second // between calls on a connection
	maxStreams        = 100              // calls at once on an HTTP/2 connection
)

// A Gateway listens, decides and forwards. Set its snapshots, then Run it; each Set may be called at any time.
type Gateway struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	snapshot atomic.Pointer[Snapshot]
	upstream transports

	setting   sync.Mutex // one Set at a time; no call waits for it
	listeners map[string]*socket
	serving   sync.WaitGroup
	draining  atomic.Bool
	calls     sync.Pool
}

// A Snapshot is what a call is decided by: one state of the configuration and of the store. It never changes.
type Snapshot struct {
	Routes  *Table
	Clients *Clients
}

// New returns a Gateway without listeners, routes or clients: until they are set it admits nobody. It starts nothing.
func New(cfg Config) *Gateway {
	g := &Gateway{cfg: cfg, log: cfg.Log, now: cfg.Now, listeners: map[string]*socket{}}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.cfg.DrainTimeout == 0 {
		g.cfg.DrainTimeout = 30 * time.Second
	}
	g.snapshot.Store(&Snapshot{Routes: &Table{}, Clients: &Clients{}})
	g.calls.New = func() any { return new(call) }
	return g
}

// SetRoutes puts a new table and the clients that go with it into force. Calls under way finish on the old ones.
func (g *Gateway) SetRoutes(routes *Table, clients *Clients) {
	g.setting.Lock()
	defer g.setting.Unlock()
	g.upstream.attach(routes)
	g.snapshot.Store(&Snapshot{Routes: routes, Clients: clients})
	g.upstream.retain(routes)
}

// SetClients puts a new set of registered certificates into force.
func (g *Gateway) SetClients(clients *Clients) {
	g.setting.Lock()
	defer g.setting.Unlock()
	g.snapshot.Store(&Snapshot{Routes: g.snapshot.Load().Routes, Clients: clients})
}

// Ready tells whether the gateway serves: it has listeners and does not drain.
func (g *Gateway) Ready() bool {
	g.setting.Lock()
	defer g.setting.Unlock()
	return len(g.listeners) > 0 && !g.draining.Load()
}

// Run serves until ctx ends, then stops accepting, lets the calls under way finish for at most DrainTimeout, and
// returns when nothing of the gateway is left. It returns an error if calls had to be broken off.
func (g *Gateway) Run(ctx context.Context) error {
	<-ctx.Done()
	g.draining.Store(true)
	g.log.Info("draining", "timeout", g.cfg.DrainTimeout)

	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.DrainTimeout)
	defer cancel()
	err := g.closeListeners(deadline)
	g.serving.Wait()
	g.upstream.close()
	if err != nil {
		return errors.New("calls were broken off at the end of drainTimeout")
	}
	return nil
}

// Abort ends all connections at once: Run returns as soon as it can.
func (g *Gateway) Abort() {
	g.setting.Lock()
	defer g.setting.Unlock()
	for _, s := range g.listeners {
		s.server.Close()
	}
}
