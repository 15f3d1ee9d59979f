package gateway

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"sallyport/gateway/proxyproto"
	"sallyport/internal/contain"
)

// introduce has a proxy's connection begin once its header has told whose it is.
func (s *socket) introduce(c *countedConn) {
	s.gateway.serving.Go(func() {
		defer s.gateway.decider.Faults().Catch("a proxy's header", func(*contain.Fault) { c.Close() })
		if !s.learnClient(c) {
			c.Close()
			return
		}
		s.begin(c)
	})
}

// learnClient reads the header, for at most the terms' HeadTimeout, and reports whether the connection goes on. Nothing
// that follows the header is read: event loops poll the socket itself, and would never see what a buffer has kept.
func (s *socket) learnClient(c *countedConn) bool {
	g := s.gateway
	defer context.AfterFunc(s.life, func() {
		defer g.decider.Faults().Catch("a proxy's header that ends", nil)
		c.Close()
	})()
	_ = c.SetReadDeadline(time.Now().Add(g.terms.HeadTimeout)) // it fails if Read does
	client, err := proxyproto.Read(c)
	if err != nil {
		if !c.evicted.Load() && s.life.Err() == nil {
			s.tellProxyHeader(c, err)
		}
		return false
	}
	_ = c.SetReadDeadline(time.Time{})
	return g.guard.name(c, client)
}

// tellProxyHeader logs why a proxy's connection was refused, a few times a second at most.
func (s *socket) tellProxyHeader(c *countedConn, err error) {
	g := s.gateway
	g.cfg.Connections.tell("proxy_header")
	if err == io.EOF || !g.handshakeLog.Allow() {
		return // most often a probe that looks whether the port is open
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errNoHeader
	}
	g.log.Warn("PROXY header refused", "listener", s.endpoint.Settings().Name, "peer", c.RemoteAddr().String(),
		"problem", limitText(err.Error()))
}

var errNoHeader = errors.New("no whole header within headerTimeout")
