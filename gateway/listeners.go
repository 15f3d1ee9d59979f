package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"

	"sallyport/listenerprofiles"
)

// A Listener is a socket's settings. It never changes.
type Listener struct {
	Name     string
	Address  string                // host:port
	Profiles *listenerprofiles.Set // nil: plain HTTP
}

// SetListeners puts a new list of listeners into force. Sockets whose address is in both lists stay open, with all
// their connections, under the new settings; new ones are opened; those that are gone stop accepting and drain.
// If a new one cannot be opened, nothing changes and the error says which.
func (g *Gateway) SetListeners(list []Listener) error {
	g.setting.Lock()
	defer g.setting.Unlock()
	if g.draining.Load() {
		return errors.New("the gateway is draining")
	}

	wanted := make(map[string]*Listener, len(list))
	var opened []*socket
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
			for _, s := range opened {
				s.Listener.Close()
			}
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
		opened = append(opened, s)
	}

	for address, s := range g.listeners {
		if l := wanted[address]; l != nil {
			s.settings.Store(l)
			continue
		}
		delete(g.listeners, address)
		g.log.Info("listener closes", "listener", s.settings.Load().Name, "address", address)
		g.serving.Go(func() { g.drain(s) })
	}
	for _, s := range opened {
		l := s.settings.Load()
		g.listeners[l.Address] = s
		g.log.Info("listening", "listener", l.Name, "address", s.Addr().String(), "tls", l.Profiles != nil)
		g.serving.Go(func() { _ = s.server.Serve(s) }) // it ends with the socket, and says no more than that
	}
	return nil
}

// Addresses returns the address that each listener really has, by name: a port 0 is replaced by the one it got.
func (g *Gateway) Addresses() map[string]net.Addr {
	g.setting.Lock()
	defer g.setting.Unlock()
	addresses := make(map[string]net.Addr, len(g.listeners))
	for _, s := range g.listeners {
		addresses[s.settings.Load().Name] = s.Addr()
	}
	return addresses
}

// drain lets a socket that is no longer wanted finish its calls.
func (g *Gateway) drain(s *socket) {
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.DrainTimeout)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
}

// closeListeners drains all sockets until ctx ends, then closes what is left and says so.
func (g *Gateway) closeListeners(ctx context.Context) error {
	g.setting.Lock()
	sockets := make([]*socket, 0, len(g.listeners))
	for _, s := range g.listeners {
		sockets = append(sockets, s)
	}
	g.setting.Unlock()

	results := make(chan error, len(sockets))
	for _, s := range sockets {
		go func() {
			err := s.server.Shutdown(ctx)
			if err != nil {
				s.server.Close()
			}
			results <- err
		}()
	}
	var err error
	for range sockets {
		err = errors.Join(err, <-results)
	}
	g.setting.Lock()
	clear(g.listeners)
	g.setting.Unlock()
	return err
}

// A socket is an open Listener with its server. Its settings change under it; the socket stays.
type socket struct {
	net.Listener
	gateway  *Gateway
	settings atomic.Pointer[Listener]
	server   *http.Server
	tls      *tls.Config
}

func (g *Gateway) open(l *Listener) (*socket, error) {
	listener, err := net.Listen("tcp", l.Address)
	if err != nil {
		return nil, err
	}
	s := &socket{Listener: listener, gateway: g}
	s.settings.Store(l)
	s.tls = &tls.Config{GetConfigForClient: s.configFor}
	s.server = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          log.New(serverLog{g.log}, "", 0),
		ConnContext:       s.connContext,
	}
	return s, nil
}

// Accept gives the connection to TLS if the listener has profiles now. The handshake is the server's to drive, so that
// a slow one holds nobody up.
func (s *socket) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil || s.settings.Load().Profiles == nil {
		return c, err
	}
	return tls.Server(c, s.tls), nil
}

// configFor is the one place where the profile of a new connection is chosen.
func (s *socket) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	set := s.settings.Load().Profiles
	if set == nil {
		return nil, errors.New("the listener no longer speaks TLS")
	}
	local := addressOf(hello.Conn.LocalAddr()).Addr()
	return set.Find(local, listenerprofiles.NormalizeName(hello.ServerName)).TLS, nil
}

type connKey struct{}

func (s *socket) connContext(ctx context.Context, c net.Conn) context.Context {
	_, speaksTLS := c.(*tls.Conn)
	return context.WithValue(ctx, connKey{}, &conn{
		peer:  addressOf(c.RemoteAddr()),
		local: addressOf(c.LocalAddr()).Addr(),
		plain: !speaksTLS,
	})
}

// serverLog takes what net/http has to say of connections that went wrong. Any stranger can cause such lines, so they
// are for debugging only.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	l.log.Debug("connection", "problem", string(bytes.TrimSpace(line)))
	return len(line), nil
}
