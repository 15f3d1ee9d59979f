// Package gateway is the data plane, put together: it listens, admits connections, gives each to what carries its
// calls, and puts new snapshots into force.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/engine"
	"sallyport/listenerprofiles/trust"
)

// Options are what a Gateway works with. Their zero value is usable.
type Options struct {
	Log          *slog.Logger             // nil: nothing is logged
	Now          func() time.Time         // nil: time.Now; decides validity, tiers and durations
	Observe      func(*decision.Exchange) // called once for each call, after its last byte; it may not keep the Exchange
	LameDuck     time.Duration            // how long Run goes on to accept connections, and is not Ready, when it is to end
	DrainTimeout time.Duration            // how long Run waits for calls under way when it ends; 0 means 30 s
	Limits       Limits
	Panicked     func(where string) // called for each panic that was contained, with what panicked; nil: nobody counts
	Connections  ConnectionObserver // hears of connections that were turned away; nil: nobody does
	Handshakes   ConnectionObserver // hears, in a word, why a TLS handshake failed; nil: nobody does
	Evictions    ConnectionObserver // hears of connections that were closed to make room for others; nil: nobody does

	bodyGrace  time.Duration // see engine.Terms; 0: 10 s; tests hasten it
	recheck    time.Duration // see decision.Options; tests hasten it
	rest       time.Duration // see restMemory; 0: quietSpell; tests hasten it
	goroutines bool          // carry all calls of HTTP/1.1, and no loops; tests have each carry all, and compare
}

// A ConnectionObserver hears why a connection was turned away before its first call, or closed to make room: because of a
// limit (connections, connections_per_source, handshakes, handshakes_per_source), since its handshake failed
// (handshake) or its proxy sent no good header (proxy_header), or since the system had none to give (accept).
type ConnectionObserver func(why string)

func (o ConnectionObserver) tell(why string) {
	if o != nil {
		o(why)
	}
}

// Limits of a request's head.
const (
	maxHeaderBytes = 64 << 10 // of a request's head, as it is in HTTP/1.1; more is answered with 431
	perField       = 32       // bytes that HTTP/2 counts beside each field's own (RFC 9113 section 6.5.2)
)

// handshakeLines is how many refused handshakes, and headers of proxies, are logged a second.
const handshakeLines = 10

// A Gateway listens, decides and forwards. Set its Parts, then Run it; Set may be called at any time.
type Gateway struct {
	cfg      Options
	log      *slog.Logger
	decider  *decision.Decider
	terms    engine.Terms
	backends backend.Registry

	setting   sync.Mutex           // one Set at a time; no call waits for it
	listeners map[string]*socket   // by address: those that accept
	sockets   map[*socket]struct{} // those that accept and those that drain
	serving   sync.WaitGroup
	draining  atomic.Bool
	calls     sync.Pool     // of http2Call
	aborted   chan struct{} // closed by Abort
	aborting  sync.Once

	guard        *guard
	handshakeLog *rate.Limiter
}

// New returns a Gateway without listeners, routes or clients: until they are set it admits nobody. It starts nothing.
func New(cfg Options) *Gateway {
	g := &Gateway{cfg: cfg, listeners: map[string]*socket{}, sockets: map[*socket]struct{}{}, aborted: make(chan struct{})}
	g.cfg.DrainTimeout = cmp.Or(cfg.DrainTimeout, 30*time.Second)
	limits := cfg.Limits.withDefaults()
	g.cfg.Limits = limits
	g.terms = engine.Terms{
		HeadTimeout: limits.HeaderTimeout, FirstCallTimeout: limits.FirstCallTimeout, IdleTimeout: limits.IdleTimeout,
		BodyGrace: cmp.Or(cfg.bodyGrace, 10*time.Second), BodyRate: limits.BodyRate, MaxHead: maxHeaderBytes,
	}
	g.cfg.rest = cmp.Or(cfg.rest, quietSpell)
	g.calls.New = newHTTP2Call
	g.handshakeLog = rate.NewLimiter(handshakeLines, handshakeLines)
	g.decider = decision.New(decision.Options{
		Log: cfg.Log, Now: cfg.Now, Observe: cfg.Observe, HeaderLines: limits.HeaderLines, Exempt: limits.Exempt,
		Drain: g.cfg.DrainTimeout, Recheck: cfg.recheck, Panicked: cfg.Panicked,
	})
	g.log = g.decider.Log()
	g.backends.Faults = g.decider.Faults()
	g.backends.Denied = func() *trust.Denials { return g.decider.Snapshot().Denied }
	g.guard = newGuard(limits, cfg.Connections, cfg.Evictions, g.log)
	return g
}

// Recheck has the rights of open streams judged at once: something has ended rights, and no Set tells, such as a list of
// revoked certificates. Any goroutine may call it.
func (g *Gateway) Recheck() { g.decider.Recheck() }

// Parts are what calls are decided by. A nil field leaves in force what is.
type Parts struct {
	Listeners []decision.Listener // empty and not nil: none
	Routes    *decision.Table
	Clients   *decision.Clients
	Denied    *trust.Denials
}

// Set puts parts into force as one: no call sees some of them and not the others. Calls under way finish on what they
// began with. Sockets whose address was there before stay open, with all their connections; new ones are opened; those
// that are gone stop accepting and drain. If a new one cannot be opened, nothing changes and the error says which.
func (g *Gateway) Set(p Parts) error {
	g.setting.Lock()
	defer g.setting.Unlock()
	last := g.decider.Snapshot()
	next := decision.Snapshot{Routes: last.Routes, Clients: last.Clients, Listeners: last.Listeners, Denied: last.Denied}
	if p.Clients != nil {
		next.Clients = p.Clients
	}
	if p.Denied != nil {
		next.Denied = p.Denied
	}
	put := func() {
		if p.Routes == nil || p.Routes == last.Routes {
			g.decider.Set(next)
			return
		}
		groups := p.Routes.Attach(&g.backends)
		next.Routes = p.Routes
		g.decider.Set(next)
		g.backends.Retain(groups)
	}
	if p.Listeners == nil {
		put()
		return nil
	}
	return g.setListeners(p.Listeners, func(listeners map[string]*decision.Listener) {
		next.Listeners = listeners
		put()
	})
}

// Explain explains what would become of a call, by the parts in force.
func (g *Gateway) Explain(ctx context.Context, q decision.Question) decision.Explanation {
	return g.decider.Explain(ctx, q)
}

// Upstreams tells of the calls to each server by now.
func (g *Gateway) Upstreams() []backend.Figures { return g.backends.Figures() }

// Uses tells how each registered certificate has been used by now.
func (g *Gateway) Uses() []decision.Use { return g.decider.Uses() }

// OpenConnections is how many client connections are open now.
func (g *Gateway) OpenConnections() int { return g.guard.count() }

// Handshakes is how many TLS handshakes are under way now, and how many wait for their turn.
func (g *Gateway) Handshakes() (underWay, waiting int) { return g.guard.countHandshakes() }

// Ready reports whether the gateway serves: it has listeners and does not drain.
func (g *Gateway) Ready() bool {
	g.setting.Lock()
	defer g.setting.Unlock()
	return len(g.listeners) > 0 && !g.draining.Load()
}

// lastWait is how long calls that were broken off at the end of DrainTimeout have to notice.
const lastWait = 5 * time.Second

// Run serves until ctx ends, and for LameDuck more, then stops accepting, lets the calls under way finish for at most
// DrainTimeout, upgraded connections among them, and returns when nothing of the gateway is left. It returns an error
// if calls had to be broken off, then or by Abort.
func (g *Gateway) Run(ctx context.Context) error {
	ended := make(chan struct{})
	again := func(what string, do func()) {
		g.serving.Go(func() { g.again(what, ended, do) })
	}
	again("watching over memory", func() { watchMemory(g.decider.SetShort, ended) })
	again("giving memory back", func() { g.restMemory(g.cfg.rest, ended) })
	again("handshakes that wait", func() { every(turnInterval, ended, g.guard.sweep) })
	again("first calls", func() { every(min(g.terms.FirstCallTimeout/8, 5*time.Second), ended, g.guard.sweepFirstCalls) })
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	var watch sync.WaitGroup // streams lose their right during the drain, too
	watch.Go(func() {
		g.again("watching over streams", watching.Done(), func() { g.decider.Run(watching) })
	})
	<-ctx.Done()
	before := g.decider.BrokenOff() // what Abort breaks off counts from the first moment
	g.beLame()
	close(ended)
	g.log.Info("draining", "timeout", g.cfg.DrainTimeout.String())

	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.DrainTimeout)
	defer cancel()
	err := g.closeListeners(deadline)
	if late := g.finish(deadline); late != nil {
		err = late
	}
	g.serving.Wait()
	unwatch()
	watch.Wait()
	g.backends.Close()
	switch broken := g.decider.BrokenOff() - before; {
	case broken > 0 && (err == nil || errors.Is(err, errBrokeOff)):
		return fmt.Errorf("%w: %d", errBrokeOff, broken)
	case errors.Is(err, errBrokeOff): // connections were, without a call
		return nil
	}
	return err
}

// beLame has the gateway say that it is not ready, and serve on until nobody should come any more, or Abort is called.
func (g *Gateway) beLame() {
	g.draining.Store(true)
	if g.cfg.LameDuck == 0 {
		return
	}
	g.log.Info("not ready any more, and still accepting connections", "lameDuckTimeout", g.cfg.LameDuck.String())
	over := time.NewTimer(g.cfg.LameDuck)
	defer over.Stop()
	select {
	case <-over.C:
	case <-g.aborted:
	}
}

// again calls do, and anew when it has panicked, until it returns or over is closed.
func (g *Gateway) again(what string, over <-chan struct{}, do func()) {
	_ = g.decider.Faults().Again(what, over, func() error { do(); return nil })
}

var errBrokeOff = errors.New("calls were broken off")

// Why calls are broken off when the gateway stops, or when a listener was removed.
var (
	atDrainTimeout = decision.Stop{Limit: decision.DrainTimeout, Cause: errors.New("drainTimeout is over")}
	atOnce         = decision.Stop{Cause: errors.New("the gateway was told to stop at once")}
)

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
	for g.decider.UnderWay() > 0 {
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
	g.aborting.Do(func() { close(g.aborted) })
	g.setting.Lock()
	defer g.setting.Unlock()
	for s := range g.sockets {
		s.endpoint.Stop(atOnce)
	}
	g.guard.closeAll(nil) // first, since the server waits for clients that take nothing
	for s := range g.sockets {
		s.server.Close()
		s.engine.Close()
	}
}
