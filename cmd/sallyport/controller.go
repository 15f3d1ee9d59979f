package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"sallyport/cmd/sallyport/internal/assembly"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway"
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

	mu         sync.Mutex // one change at a time
	current    *assembly.Assembly
	clients    *gateway.Clients
	newer      map[string]*listenerprofiles.Set // by listener: sets that its watcher has made since
	generation int                              // of current: what an older one's watchers say is void
	watchers   []*listenerprofiles.Watcher
	unwatch    context.CancelFunc // ends the watchers
	untoken    context.CancelFunc // ends the refreshing of the token verifier's keys
	unfollow   context.CancelFunc // ends the watching of the store
	refused    string             // why the configuration was refused last, so that it is told once
}

// What can be reloaded, in metrics and in /readyz.
const (
	whatConfig = "configuration"
	whatStore  = "store"
)

// sweepInterval is how often the allowances of certificates and APIs that are gone are let go.
const sweepInterval = time.Minute

func whatProfiles(listener string) string { return "profiles of listener " + listener }

func newController(cfg *config.Config, log *slog.Logger, metrics *observe.Metrics, access *accessLog) *controller {
	c := &controller{
		log: log, metrics: metrics, access: access, limits: ratelimit.NewLocal(nil),
		newer: map[string]*listenerprofiles.Set{}, clients: new(gateway.Clients),
		unwatch: func() {}, untoken: func() {}, unfollow: func() {},
	}
	c.parent, c.cancel = context.WithCancel(context.Background())
	c.gateway = gateway.New(gateway.Config{Log: log, DrainTimeout: drainTimeout(cfg), Observe: c.observe})
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

func (c *controller) observe(x *gateway.Exchange) {
	took := x.Duration(time.Now())
	c.metrics.Observe(x, took)
	if c.access != nil {
		c.access.log.Observe(x, took)
	}
}

// start loads everything for the first time and opens the listeners. Whatever is wrong is an error now.
func (c *controller) start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, report, err := loadAll(ctx, c.current.Config, assembly.Options{Log: c.log, Limits: c.limits})
	if err != nil {
		return err
	}
	if err := c.gateway.SetListeners(next.Listeners(nil)); err != nil {
		return errors.Join(err, next.Close())
	}
	for _, w := range next.Config.Warnings {
		c.log.Warn("configuration", "place", w.Pos.String(), "warning", w.Message)
	}
	c.adopt(next, report)
	return nil
}

// run watches the configuration and takes signals until ctx ends.
func (c *controller) run(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	for {
		timer := time.NewTimer(c.period())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
			c.reload(ctx, false)
		case <-hangups:
			timer.Stop()
			c.log.Info("reloading, as SIGHUP asks")
			c.reload(ctx, true)
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

// reload looks at the configuration's files, and if all is set at everything else too, however it is watched.
func (c *controller) reload(ctx context.Context, all bool) {
	c.reloadConfig(ctx, all)
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
	c.reloadClients(ctx)
	if err := c.access.reopen(); err != nil {
		c.log.Error("the access log goes on in the old file", "error", err)
	}
}

// reloadConfig puts sallyport.yaml and what it names into force if any of it has changed and all of it is good.
func (c *controller) reloadConfig(ctx context.Context, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg, err := config.Load(c.current.Config.File)
	if err != nil {
		c.refuse(all, err)
		return
	}
	if cfg.Digest() == c.current.Config.Digest() && !all {
		if c.refused != "" { // what was broken is as it was before
			c.refused = ""
			c.metrics.Reloaded(whatConfig)
		}
		return
	}
	if fixed := needsRestart(c.current.Config, cfg); fixed != "" {
		c.log.Warn("this change of the configuration takes effect with the next start", "keys", fixed)
	}
	next, report, err := loadAll(ctx, cfg, assembly.Options{Log: c.log, Limits: c.limits, Last: c.current})
	if err != nil {
		c.refuse(all, err)
		return
	}
	if err := c.gateway.SetListeners(next.Listeners(nil)); err != nil {
		if next.Store != c.current.Store {
			err = errors.Join(err, next.Close())
		}
		c.refuse(all, err)
		return
	}
	c.refused = ""
	c.adopt(next, report)
	c.metrics.Reloaded(whatConfig)
	c.log.Info("the configuration was reloaded", "apis", len(next.Config.APIs))
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

// adopt makes next the current state, whose listeners are open, and sees to whoever watches its parts.
func (c *controller) adopt(next *assembly.Assembly, report assembly.ClientReport) {
	last := c.current
	c.current = next
	clear(c.newer)
	c.gateway.SetRoutes(next.Routes, report.Clients)
	c.tell(report)

	c.generation++
	c.unwatch()
	c.watchers = nil
	ctx, cancel := context.WithCancel(c.parent)
	c.unwatch = cancel
	for _, p := range next.Profiles {
		w := c.watcher(p, next.Set(p.Listener))
		c.watchers = append(c.watchers, w)
		c.begin(ctx, w.Run)
	}
	if next.Tokens != last.Tokens {
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
		return next.Store.Watch(ctx, next.Config.MutualSSL.CertificateReloadPeriod, func() { c.reloadClients(ctx) })
	})
	if last.Store != nil && last.Store != next.Store {
		if err := last.Store.Close(); err != nil {
			c.log.Error("the old store did not close", "error", err)
		}
	}
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
	if err := c.gateway.SetListeners(c.current.Listeners(c.newer)); err != nil {
		c.metrics.ReloadFailed(whatProfiles(listener), err)
		c.log.Error("listener profiles", "listener", listener, "error", err)
		return
	}
	c.metrics.Reloaded(whatProfiles(listener))
	c.log.Info("listener profiles were reloaded", "listener", listener, "profiles", len(set.Profiles()))
}

// reloadClients reads the registered certificates anew.
func (c *controller) reloadClients(ctx context.Context) {
	c.mu.Lock()
	current := c.current
	c.mu.Unlock()
	report, err := current.Clients(ctx) // it may wait for the database, and nobody waits for it
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ctx.Err() != nil || current != c.current:
		return // a newer state has read them itself
	case err != nil:
		c.metrics.ReloadFailed(whatStore, err)
		c.log.Error("the registered certificates were not reloaded; the last good ones serve on", "error", err)
		return
	}
	c.gateway.SetClients(report.Clients)
	c.metrics.Reloaded(whatStore)
	c.tell(report)
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
	if old.DrainTimeout != new.DrainTimeout {
		keys = append(keys, "drainTimeout")
	}
	return strings.Join(keys, ", ")
}

// begin runs a watch until ctx ends; close waits for it.
func (c *controller) begin(ctx context.Context, run func(context.Context) error) {
	c.tasks.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("a watch ended", "error", err)
		}
	})
}
