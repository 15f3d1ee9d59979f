package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"

	"sallyport/gateway/decision"
	"sallyport/internal/contain"
)

// setListeners opens sockets for new addresses, calls put with all listeners by address once nothing can fail any more,
// and then accepts.
func (g *Gateway) setListeners(list []decision.Listener, put func(map[string]*decision.Listener)) error {
	if g.draining.Load() {
		return errors.New("the gateway is draining")
	}
	wanted := make(map[string]*decision.Listener, len(list))
	var opened []*socket
	defer func() {
		for _, s := range opened { // those that did not come into force
			s.Close()
			s.engine.Close()
			s.engine.Wait()
		}
	}()
	for i := range list {
		l := &list[i]
		if wanted[l.Address] != nil {
			return fmt.Errorf("listeners %s and %s have the same address %s", wanted[l.Address].Name, l.Name, l.Address)
		}
		wanted[l.Address] = l
		if g.listeners[l.Address] != nil {
			continue
		}
		s, err := g.open(l)
		if err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, Advise(err))
		}
		opened = append(opened, s)
	}

	for address, s := range g.listeners {
		if l := wanted[address]; l != nil {
			if old := s.endpoint.Settings(); l.Same(old) {
				wanted[address] = old // what connections have worked out by it still holds
			}
			s.endpoint.SetSettings(wanted[address])
			continue
		}
		delete(g.listeners, address)
		s.Close() // now, so that its address is free when Set returns
		g.log.Info("listener closes", "listener", s.endpoint.Settings().Name, "address", address)
		g.serving.Go(func() {
			defer g.decider.Faults().Catch("closing a listener", func(*contain.Fault) { s.abort() })
			g.drain(s)
		})
	}
	put(wanted)
	for _, s := range opened {
		l := s.endpoint.Settings()
		g.listeners[l.Address] = s
		g.sockets[s] = struct{}{}
		g.log.Info("listening", "listener", l.Name, "address", s.Addr().String(), "tls", l.Profiles != nil)
		g.serving.Go(func() {
			defer g.decider.Faults().Catch("a listener", func(*contain.Fault) { s.abort() })
			s.accept()
		})
		g.serving.Go(func() { // it ends with the socket, and says no more than that
			g.again("serving HTTP/2", s.life.Done(), func() { _ = s.server.Serve(s) })
		})
	}
	opened = nil
	return nil
}

// Addresses returns the address that each listener really has, by name: a port 0 is replaced by the one it got.
func (g *Gateway) Addresses() map[string]net.Addr {
	g.setting.Lock()
	defer g.setting.Unlock()
	addresses := make(map[string]net.Addr, len(g.listeners))
	for _, s := range g.listeners {
		addresses[s.endpoint.Settings().Name] = s.Addr()
	}
	return addresses
}

// drain lets a socket that is no longer wanted finish its calls.
func (g *Gateway) drain(s *socket) {
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.DrainTimeout)
	defer cancel()
	if err := g.shutdown(ctx, s); err != nil {
		g.log.Warn("a listener that was removed has closed", "listener", s.endpoint.Settings().Name, "problem", err)
	}
}

// shutdown lets a socket finish its calls until ctx ends, and then breaks them off.
func (g *Gateway) shutdown(ctx context.Context, s *socket) error {
	var all errgroup.Group
	all.Go(func() error {
		return g.decider.Faults().Do("draining HTTP/2", func() error { return s.server.Shutdown(ctx) })
	})
	all.Go(func() error {
		return g.decider.Faults().Do("draining HTTP/1.1", func() error { return s.engine.Shutdown(ctx) })
	})
	err := all.Wait()
	if err != nil {
		s.endpoint.Stop(atDrainTimeout)
		s.abort()
		err = errBrokeOff
	}
	s.engine.Wait()
	g.setting.Lock()
	defer g.setting.Unlock()
	delete(g.sockets, s)
	return err
}

// abort closes the socket and its connections, whatever they carry.
func (s *socket) abort() {
	s.Close()
	s.gateway.guard.closeAll(s)
	s.server.Close()
	s.engine.Close()
}

// closeListeners drains all sockets until ctx ends.
func (g *Gateway) closeListeners(ctx context.Context) error {
	g.setting.Lock()
	var all errgroup.Group
	for _, s := range g.listeners {
		all.Go(func() error {
			return g.decider.Faults().Do("closing a listener", func() error { return g.shutdown(ctx, s) })
		})
	}
	g.setting.Unlock()
	err := all.Wait()
	g.setting.Lock()
	defer g.setting.Unlock()
	clear(g.listeners)
	return err
}
