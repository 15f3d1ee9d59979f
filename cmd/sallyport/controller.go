package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/assembly"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/cmd/sallyport/internal/filewatch"
	"sallyport/gateway"
	"sallyport/gateway/decision"
	"sallyport/gateway/observe"
	"sallyport/listenerprofiles"
	"sallyport/policy/ratelimit"
)

// A controller is the control side: it watches what the gateway is made from, makes new snapshots of it, and swaps them
// in. A change that is not good changes nothing.
type controller struct {
	log     *slog.Logger
	metrics *observe.Metrics
	access  *accessLog
	gateway *gateway.Gateway
	limits  *ratelimit.Local

	tasks  sync.WaitGroup
	parent context.Context // of all tasks
	cancel context.CancelFunc

	reloading sync.Mutex // one reload of the configuration at a time; files are read under it
	refused   string     // why the configuration was refused last, so that it is told once
	listing   sync.Mutex // one reading of the store at a time, until it is in force: an older one never comes after a newer

	mu         sync.Mutex // of what follows; nothing is waited for under it
	current    *assembly.Assembly
	clients    *decision.Clients
	newer      map[string]*listenerprofiles.Set // by listener: sets that its watcher has made since
	generation int                              // of current: what an older one's watchers say is void
	watchers   []*listenerprofiles.Watcher
	unwatch    context.CancelFunc // ends the watchers
	untoken    context.CancelFunc // ends the refreshing of the token verifier's keys
	unfollow   context.CancelFunc // ends the watching of the store
	version    uint64             // of the store, as it was last looked at
	unread     bool               // the last reading of the store broke: it is tried again each period
}

// What can be reloaded, in metrics and in /readyz.
const (
	whatConfig = "configuration"
	whatStore  = "store"
)

// sweepInterval is how often the allowances of certificates and APIs that are gone are let go.
const sweepInterval = time.Minute

func whatKeys(keyManager string) string { return "keys of " + keyManager }

func whatProfiles(listener string) string { return "profiles of listener " + listener }

func newController(cfg *config.Config, log *slog.Logger, metrics *observe.Metrics, access *accessLog) *controller {
	c := &controller{
		log: log, metrics: metrics, access: access, limits: ratelimit.NewLocal(nil),
		newer: map[string]*listenerprofiles.Set{}, clients: new(decision.Clients),
		unwatch: func() {}, untoken: func() {}, unfollow: func() {},
	}
	c.parent, c.cancel = context.WithCancel(context.Background())
	connections := affordable(cfg.Limits.Connections, descriptorLimit())
	if connections < cfg.Limits.Connections {
		log.Warn("fewer connections than limits.connections are accepted, since the system allows too few open files (ulimit -n)",
			"allowed", cfg.Limits.Connections, "accepted", connections)
	}
	c.gateway = gateway.New(gateway.Config{
		Log: log, DrainTimeout: drainTimeout(cfg), Observe: c.observe, Connections: metrics.ConnectionRefused,
		Limits: gateway.Limits{
			Connections: connections, ConnectionsPerSource: cfg.Limits.ConnectionsPerSource, Handshakes: cfg.Limits.Handshakes,
			HeaderLines: cfg.Limits.HeaderCount, BodyRate: cfg.Limits.BodyRate,
		},
	})
	metrics.WatchConnections(c.gateway.OpenConnections)
	metrics.WatchExpiry(c.clientEnds, c.serverEnds)
	c.current = &assembly.Assembly{Config: cfg}
	return c
}

// drainTimeout gives the gateway a time for "not at all", since its zero means the default.
func drainTimeout(cfg *config.Config) time.Duration {
	if cfg.DrainTimeout == 0 {
		return time.Nanosecond
	}
	return cfg.DrainTimeout
}

func (c *controller) observe(x *decision.Exchange) {
	took := x.Duration(time.Now())
	c.metrics.Observe(x, took)
	if c.access != nil {
		c.access.log.Observe(x, took)
	}
}

// start loads everything for the first time and opens the listeners. Whatever is wrong is an error now.
func (c *controller) start(ctx context.Context) error {
	next, report, err := loadAll(ctx, c.current.Config, assembly.Options{Log: c.log, Limits: c.limits, StoreLooked: c.storeLooked, KeysLooked: c.keysLooked})
	if err != nil {
		return err
	}
	if err := c.adopt(next, report); err != nil {
		return errors.Join(err, next.Close())
	}
	for _, w := range next.Config.Warnings {
		c.log.Warn("configuration", "place", w.Pos.String(), "warning", w.Message)
	}
	c.begin(c.parent, func(ctx context.Context) error {
		return filewatch.Run(ctx, next.Config.MutualSSL.CertificateReloadPeriod, c.interest, func() { c.look(ctx) })
	})
	return nil
}

// run watches the configuration, and reloads everything when it is asked to, until ctx ends.
func (c *controller) run(ctx context.Context, hangups <-chan os.Signal) error {
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	for {
		timer := time.NewTimer(c.period())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
			_ = c.contain(func() error { c.reload(ctx, false); return nil }) // it was told
		case <-hangups:
			timer.Stop()
			c.log.Info("reloading, as SIGHUP asks")
			_ = c.contain(func() error { c.reload(ctx, true); return nil })
		case <-sweep.C:
			timer.Stop()
			c.sweep()
		}
	}
}

func (c *controller) period() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.Config.MutualSSL.CertificateReloadPeriod
}

// interest is what the state in force was made of.
func (c *controller) interest() filewatch.Interest {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.current.Config
	files := slices.Concat(cfg.Files, c.current.Files())
	for _, p := range c.current.Profiles {
		files = append(files, c.set(p.Listener).Files()...)
	}
	if url, err := certstore.ParseURL(cfg.Store); err == nil && url.File() != "" {
		files = append(files, url.File(), url.File()+"-wal")
	}
	return filewatch.Interest{Files: files, Globs: cfg.Globs}
}

// look is what follows a file event: whatever is made of files is looked at, and what has changed is reloaded.
func (c *controller) look(ctx context.Context) {
	c.reloadConfig(ctx, false)
	c.mu.Lock()
	watchers, store := c.watchers, c.current.Store
	c.mu.Unlock()
	for _, w := range watchers {
		_ = w.Reload() // it was told and counted by the watcher's own hooks
	}
	version, err := store.Version(ctx)
	c.mu.Lock()
	known := c.version
	c.mu.Unlock()
	if err == nil && version != known { // an error is told by whoever follows the store
		_ = c.reloadClients(ctx)
	}
}

// set is the listener's newest set of profiles.
func (c *controller) set(listener string) *listenerprofiles.Set {
	if set := c.newer[listener]; set != nil {
		return set
	}
	return c.current.Set(listener)
}

// reload looks at the configuration's files, and if all is set at everything else too, however it is watched.
func (c *controller) reload(ctx context.Context, all bool) {
	c.reloadConfig(ctx, all)
	c.mu.Lock()
	unread := c.unread
	c.mu.Unlock()
	if unread && !all {
		_ = c.reloadClients(ctx) // it was told
	}
	if !all {
		return
	}
	c.mu.Lock()
	watchers, tokens := c.watchers, c.current.Tokens
	c.mu.Unlock()
	for _, w := range watchers {
		_ = w.Reload() // it was told and counted by the watcher's own hooks
	}
	if tokens != nil {
		if err := tokens.Refresh(ctx); err != nil {
			c.log.Error("keys of key managers", "error", err)
		}
	}
	_ = c.reloadClients(ctx) // it was told
	if err := c.access.reopen(); err != nil {
		c.log.Error("the access log goes on in the old file", "error", err)
	}
}

// errRestless is a configuration that changes at each look.
var errRestless = errors.New("the configuration's files are still being written")

// restPause and restTries are how long apart two looks are, and how often it is looked.
const (
	restPause = 200 * time.Millisecond
	restTries = 10
)

// rest loads the configuration until two looks in a row read the same: files are replaced one after the other, and some
// are written slowly. One that does not rest is left for the next time.
func (c *controller) rest(ctx context.Context, current *config.Config) (*config.Config, error) {
	cfg, err := config.Load(current.File)
	if err == nil && cfg.Digest() == current.Digest() || err != nil && err.Error() == c.refused {
		return cfg, err
	}
	for range restTries {
		select {
		case <-ctx.Done():
			return nil, errRestless
		case <-time.After(restPause):
		}
		before, problem := cfg, err
		cfg, err = config.Load(current.File)
		if err == nil && problem == nil && cfg.Digest() == before.Digest() || err != nil && problem != nil && err.Error() == problem.Error() {
			return cfg, err
		}
	}
	return nil, errRestless
}

// reloadConfig puts sallyport.yaml and what it names into force if any of it has changed, or if all is set, and all of it
// is good.
func (c *controller) reloadConfig(ctx context.Context, all bool) {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	c.mu.Lock()
	current := c.current // only this function makes it another one
	c.mu.Unlock()
	if !all && c.refused == "" && !current.Config.Changed() && !current.Stale() {
		return
	}
	var cfg *config.Config
	var err error
	if all {
		cfg, err = config.Load(current.Config.File)
	} else if cfg, err = c.rest(ctx, current.Config); err == errRestless {
		return
	}
	if err != nil {
		c.refuse(all, err)
		return
	}
	if cfg.Digest() == current.Config.Digest() && !current.Stale() && !all {
		if c.refused != "" { // what was broken is as it was before
			c.refused = ""
			c.metrics.Reloaded(whatConfig)
		}
		return
	}
	if err := c.replace(ctx, current, cfg, all); errors.Is(err, errRestless) {
		return
	} else if err != nil {
		c.refuse(all, err)
		return
	}
	c.refused = ""
	c.metrics.Reloaded(whatConfig)
	c.log.Info("the configuration was reloaded", "apis", len(cfg.APIs))
	if fixed := needsRestart(current.Config, cfg); fixed != "" {
		c.log.Warn("a change of the configuration takes effect with the next start only", "keys", fixed)
	}
}

// replace puts cfg into force in the place of current, or changes nothing.
func (c *controller) replace(ctx context.Context, current *assembly.Assembly, cfg *config.Config, asked bool) error {
	next, err := c.assemble(ctx, current, cfg, asked)
	if err != nil {
		return err
	}
	c.listing.Lock()
	defer c.listing.Unlock()
	report, err := next.Clients(ctx)
	err = errors.Join(append(report.Conflicts, err)...)
	if err == nil {
		err = c.adopt(next, report)
	}
	if err != nil && next.Store != current.Store {
		err = errors.Join(err, next.Close())
	}
	return err
}

// assemble makes what serves by cfg. Unless somebody asked, it does so until the stores and files that cfg names have been
// the same twice in a row, as rest does with those of cfg itself: half a PEM file is a good one.
func (c *controller) assemble(ctx context.Context, current *assembly.Assembly, cfg *config.Config, asked bool) (*assembly.Assembly, error) {
	options := assembly.Options{Log: c.log, Limits: c.limits, StoreLooked: c.storeLooked, KeysLooked: c.keysLooked, Last: current}
	next, err := assembly.Load(ctx, cfg, options)
	if asked || err != nil && err.Error() == c.refused {
		return next, err
	}
	for range restTries {
		select {
		case <-ctx.Done():
			_ = c.discard(next, current)
			return nil, errRestless
		case <-time.After(restPause):
		}
		before, problem := next, err
		if before != nil {
			options.Last = before
		}
		next, err = assembly.Load(ctx, cfg, options)
		if next != nil && before != nil && next.Same(before) || err != nil && problem != nil && err.Error() == problem.Error() {
			return next, err
		}
		if next == nil {
			options.Last = current
			_ = c.discard(before, current)
		}
	}
	_ = c.discard(next, current)
	return nil, errRestless
}

// discard closes what next does not share with current.
func (c *controller) discard(next, current *assembly.Assembly) error {
	if next == nil || next.Store == current.Store {
		return nil
	}
	return next.Close() // nothing was written
}

// refuse tells of a configuration that is not good: once, and again if somebody asked for the reload.
func (c *controller) refuse(asked bool, err error) {
	if c.refused == err.Error() && !asked {
		return
	}
	c.refused = err.Error()
	c.metrics.ReloadFailed(whatConfig, err)
	for _, line := range strings.Split(err.Error(), "\n") {
		c.log.Error("the configuration was not reloaded; the last good one serves on", "error", line)
	}
}

// adopt puts next into force, or nothing if its listeners cannot be opened, and sees to whoever watches its parts.
func (c *controller) adopt(next *assembly.Assembly, report assembly.ClientReport) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.gateway.Set(gateway.Parts{Listeners: next.Listeners(nil), Routes: next.Routes, Clients: report.Clients}); err != nil {
		return err
	}
	last := c.current
	c.current, c.version, c.unread = next, 0, false
	clear(c.newer)
	c.tell(report)

	c.generation++
	c.unwatch()
	c.watchers = nil
	ctx, cancel := context.WithCancel(c.parent)
	c.unwatch = cancel
	for _, p := range last.Profiles {
		c.mended(whatProfiles(p.Listener)) // they have just been read anew, or are wanted no more
	}
	for _, p := range next.Profiles {
		w := c.watcher(p, next.Set(p.Listener))
		c.watchers = append(c.watchers, w)
		c.begin(ctx, w.Run)
	}
	if next.Tokens != last.Tokens {
		for _, k := range last.Config.KeyManagers {
			c.mended(whatKeys(k.Name)) // as with profiles
		}
		c.untoken()
		ctx, c.untoken = context.WithCancel(c.parent)
		if next.Tokens != nil {
			c.begin(ctx, next.Tokens.Run)
		}
	}
	// The store is followed anew each time, since the period may be another; it stays open if it is the same.
	c.unfollow()
	ctx, c.unfollow = context.WithCancel(c.parent)
	c.begin(ctx, func(ctx context.Context) error {
		return next.Store.Watch(ctx, next.Config.MutualSSL.CertificateReloadPeriod, func() error { return c.reloadClients(ctx) })
	})
	if last.Store != nil && last.Store != next.Store {
		if err := last.Store.Close(); err != nil {
			c.log.Error("the old store did not close", "error", err)
		}
	}
	return nil
}

// mended takes back that what is broken, if it was.
func (c *controller) mended(what string) {
	if _, broken := c.metrics.Broken()[what]; broken {
		c.metrics.Reloaded(what)
	}
}

// storeLooked hears of each look at the store that failed, and of the first that succeeds again.
func (c *controller) storeLooked(err error) {
	if err == nil {
		c.mended(whatStore)
		c.log.Info("the store can be read again")
		return
	}
	if _, told := c.metrics.Broken()[whatStore]; !told {
		c.metrics.ReloadFailed(whatStore, err)
		c.log.Error("the store cannot be read; the registered certificates serve on as they were", "error", err)
	}
}

// keysLooked hears of each new reason why keys could not be read, and of the first time that they can be again. The keys
// that were read last serve on, as the log says.
func (c *controller) keysLooked(keyManager string, err error) {
	if err == nil {
		c.mended(whatKeys(keyManager))
		return
	}
	c.metrics.ReloadFailed(whatKeys(keyManager), err)
}

func (c *controller) watcher(p listenerprofiles.Config, first *listenerprofiles.Set) *listenerprofiles.Watcher {
	what, generation := whatProfiles(p.Listener), c.generation
	return listenerprofiles.NewWatcher(p, first,
		func(set *listenerprofiles.Set) { c.swapProfiles(generation, p.Listener, set) },
		func(err error) {
			c.metrics.ReloadFailed(what, err)
			for _, line := range strings.Split(err.Error(), "\n") {
				c.log.Error("listener profiles were not reloaded; the last good ones serve on", "listener", p.Listener, "error", line)
			}
		})
}

// swapProfiles is called by a watcher, on its own goroutine or on that of a reload.
func (c *controller) swapProfiles(generation int, listener string, set *listenerprofiles.Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation != c.generation {
		return
	}
	c.newer[listener] = set
	if err := c.gateway.Set(gateway.Parts{Listeners: c.current.Listeners(c.newer)}); err != nil {
		c.metrics.ReloadFailed(whatProfiles(listener), err)
		c.log.Error("listener profiles", "listener", listener, "error", err)
		return
	}
	c.metrics.Reloaded(whatProfiles(listener))
}

// reloadClients reads the registered certificates anew and puts them into force. Its error was told.
func (c *controller) reloadClients(ctx context.Context) error {
	c.listing.Lock()
	defer c.listing.Unlock()
	c.mu.Lock()
	current := c.current // it stays so while listing is held
	c.mu.Unlock()
	version, err := current.Store.Version(ctx) // before the reading, so that a change after it is not missed
	var report assembly.ClientReport
	if err == nil {
		report, err = current.Clients(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.mu.Lock()
	c.unread = err != nil
	c.mu.Unlock()
	if err != nil {
		c.metrics.ReloadFailed(whatStore, err)
		c.log.Error("the registered certificates were not reloaded; the last good ones serve on", "error", err)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.gateway.Set(gateway.Parts{Clients: report.Clients}) // no listener is opened
	c.version = version
	c.tell(report)
	if err := errors.Join(report.Conflicts...); err != nil {
		c.metrics.ReloadFailed(whatStore, err)
		c.log.Error("registered certificates contradict each other", "error", err)
		return nil
	}
	c.metrics.Reloaded(whatStore)
	return nil
}

func (c *controller) tell(report assembly.ClientReport) {
	c.clients = report.Clients
	n := len(report.Clients.All())
	c.metrics.Clients(n)
	for _, w := range report.Warnings {
		c.log.Warn("a registered certificate is not admitted", "problem", w)
	}
	c.log.Info("registered certificates", "count", n)
}

// clientEnds tells when each registered certificate ends.
func (c *controller) clientEnds() []observe.CertificateEnd {
	c.mu.Lock()
	clients := c.clients
	c.mu.Unlock()
	var ends []observe.CertificateEnd
	for _, r := range clients.All() {
		ends = append(ends, observe.CertificateEnd{Labels: []string{r.API.String(), r.Alias, string(r.KeyType)}, NotAfter: r.Certificate.NotAfter})
	}
	return ends
}

// serverEnds tells when each server certificate ends.
func (c *controller) serverEnds() []observe.CertificateEnd {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ends []observe.CertificateEnd
	for _, cfg := range c.current.Profiles {
		for _, p := range c.set(cfg.Listener).Profiles() {
			for _, leaf := range p.Leafs {
				ends = append(ends, observe.CertificateEnd{Labels: []string{cfg.Listener, p.Name, leaf.PublicKeyAlgorithm.String()}, NotAfter: leaf.NotAfter})
			}
		}
	}
	return ends
}

// sweep lets go of the allowances of certificates and APIs that are gone.
func (c *controller) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits.Sweep(func(k ratelimit.Key) bool { return c.clients.Holds(k) || c.current.Holds(k) })
}

// close ends everything that run and start have begun, and waits for it. The gateway has ended before.
func (c *controller) close() error {
	c.cancel()
	c.tasks.Wait()
	return c.current.Close()
}

// needsRestart names the keys that changed and that a running gateway cannot follow.
func needsRestart(old, new *config.Config) string {
	var keys []string
	if (old.Status == nil) != (new.Status == nil) || old.Status != nil && old.Status.Address != new.Status.Address {
		keys = append(keys, "status")
	}
	if old.Log.Level != new.Log.Level || old.Log.Format != new.Log.Format || old.Log.Access != new.Log.Access {
		keys = append(keys, "log")
	}
	was, is := old.Limits, new.Limits
	was.Pos, is.Pos = config.Pos{}, config.Pos{}
	if was != is {
		keys = append(keys, "limits")
	}
	if old.DrainTimeout != new.DrainTimeout {
		keys = append(keys, "drainTimeout")
	}
	return strings.Join(keys, ", ")
}

// begin runs a watch until ctx ends; close waits for it. One that panics is begun anew: what it watched serves on.
func (c *controller) begin(ctx context.Context, run func(context.Context) error) {
	c.tasks.Go(func() {
		for {
			err := c.contain(func() error { return run(ctx) })
			if ctx.Err() != nil || err == nil {
				return
			}
			c.log.Error("a watch ended, and begins anew", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(watchPause):
			}
		}
	})
}

// watchPause is how long a watch that has ended waits before it begins anew.
const watchPause = time.Second

// contain makes a panic an error.
func (c *controller) contain(run func() error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			c.log.Error("the control side panicked", "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
			err = fmt.Errorf("a panic: %v", fault)
		}
	}()
	return run()
}
