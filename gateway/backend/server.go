package backend

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
	"sallyport/listenerprofiles/trust"
)

// Bounds of the connections to servers, whatever is spoken on them.
const (
	dialKeepAlive = 30 * time.Second
	sweepInterval = 5 * time.Second
	leastSweep    = 250 * time.Millisecond
	MaxIdle       = 2048 // connections kept to one server, by each loop and besides
)

// A Server is one address of a backend, with the connections to it that carry no call now.
type Server struct {
	Name      string // scheme://authority, for logs
	Authority string // as in its URL: the Host of calls
	Path      string // what goes before each path, without a final slash

	faults  *contain.Faults
	denied  func() *trust.Denials   // see Registry
	root    string                  // the path of its URL, or a slash
	figures atomic.Pointer[figures] // of its name
	connect time.Duration           // see Upstream
	rest    time.Duration           // see Upstream.IdleTimeout
	address string                  // host:port to dial
	tls     *tls.Config             // with its ServerName; nil: plain
	h2      *http.Transport         // nil: it speaks HTTP/1.1

	mu     sync.Mutex
	idle   []*ServerConn // the one used last is at the end
	sweep  *time.Timer   // runs while there are idle ones
	closed bool
	least  time.Duration // for which any of its connections may be idle, as far as is known; 0: nothing is

	conns map[*h2Conn]bool // all that the calls over HTTP/2 share
	calls int              // over HTTP/2, under way
}

// newServer returns the Server at a URL. It connects to nobody.
func newServer(u Upstream, at *url.URL, faults *contain.Faults, denied func() *trust.Denials) *Server {
	path := at.EscapedPath()
	s := &Server{
		Name: at.Scheme + "://" + at.Host, Authority: at.Host, Path: strings.TrimSuffix(path, "/"),
		faults: faults, denied: denied, root: cmp.Or(path, "/"), connect: u.ConnectTimeout, rest: u.IdleTimeout,
	}
	port := at.Port()
	if at.Scheme == "https" {
		s.tls = s.clientTLS(u, at.Hostname())
		port = cmp.Or(port, "443")
	}
	s.address = net.JoinHostPort(at.Hostname(), cmp.Or(port, "80"))
	if u.Protocol != HTTP1 {
		s.h2 = newTransport(s, u.Protocol)
	}
	return s
}

// AppendPath appends the path of a call of which that is left, which begins with a slash or is empty. No slash is added
// to what the URL has; of two that meet one is left out.
func (s *Server) AppendPath(b []byte, left string) []byte {
	if left == "" {
		return append(b, s.root...)
	}
	return append(append(b, s.Path...), left...)
}

// A ServerConn is a connection to a server. It carries one call at a time.
type ServerConn struct {
	wire.Conn
	Keeper Keeper // gets it back after each call: its Server, unless a loop keeps it

	server   *Server
	shown    shown
	used     bool          // it has carried a call before
	since    time.Time     // it is idle
	rest     time.Duration // for how long it may be
	deadline time.Time     // of reads, as it was set last
}

// A Keeper takes connections back after a call: a Server for goroutines, and a loop.
type Keeper interface {
	// Keep takes a connection back, for other calls if it is reusable, else to close it.
	Keep(c *ServerConn, reusable bool)
}

// Take returns the idle connection used last, or nil. Bytes from an idle server are unsolicited, so a connection that
// has any is closed here, before a call could mistake them for its answer.
func (s *Server) Take() *ServerConn {
	for {
		s.mu.Lock()
		n := len(s.idle)
		if n == 0 {
			s.mu.Unlock()
			return nil
		}
		c := s.idle[n-1]
		s.idle[n-1] = nil
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		if !c.Stale(time.Now()) && c.Quiet() {
			return c
		}
		c.Conn.Close()
	}
}

// Keep implements Keeper.
func (s *Server) Keep(c *ServerConn, reusable bool) {
	c.In.Close()
	if !reusable {
		c.Conn.Close()
		return
	}
	c.Rest(time.Now())
	s.Return(c)
}

// Return takes a connection back as it is, used or not.
func (s *Server) Return(c *ServerConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.idle) >= MaxIdle {
		c.Conn.Close()
		return
	}
	s.idle = append(s.idle, c)
	if s.least == 0 || c.rest < s.least {
		s.least = c.rest
	}
	s.sweepLater()
}

// sweepLater has the idle connections swept before long, if there are any.
func (s *Server) sweepLater() {
	if s.sweep == nil && len(s.idle) > 0 {
		s.sweep = time.AfterFunc(min(sweepInterval, max(s.least, leastSweep)), s.sweepIdle)
	}
}

// Rest marks a connection as idle from now on.
func (c *ServerConn) Rest(now time.Time) { c.used, c.since = true, now }

// Stale reports whether a connection has been idle for too long, or a deny list names its server by now.
func (c *ServerConn) Stale(now time.Time) bool {
	return now.Sub(c.since) >= c.rest || c.shown.deniedBy(c.server.denials()) != nil
}

// heed shortens the time that a connection may be idle to what its server says of it in an answer: one that the server is
// about to close would fail the next call.
func (c *ServerConn) heed(res *http1.Response) {
	said, any := time.Duration(0), false
	for i := range res.Fields {
		f := &res.Fields[i]
		if len(f.Name) != len("Keep-Alive") || !strings.EqualFold(f.Name, "Keep-Alive") {
			continue
		}
		if d, ok := parseKeepAlive(f.Value); ok && (!any || d < said) {
			said, any = d, true
		}
	}
	if any {
		c.rest = min(c.server.rest, max(said-keepAliveMargin, said/2))
	}
}

// keepAliveMargin is how long before the server a connection is given up: a call that is on its way then would be lost.
const keepAliveMargin = time.Second

// parseKeepAlive returns the timeout that a Keep-Alive field states (RFC 2068 section 19.7.1.1), if it states one.
func parseKeepAlive(value string) (timeout time.Duration, ok bool) {
	for part := range strings.SplitSeq(value, ",") {
		name, number, _ := strings.Cut(part, "=")
		if !strings.EqualFold(strings.Trim(name, " \t"), "timeout") {
			continue
		}
		n, err := strconv.ParseUint(strings.Trim(number, " \t\""), 10, 31)
		if d := time.Duration(n) * time.Second; err == nil && (!ok || d < timeout) {
			timeout, ok = d, true
		}
	}
	return timeout, ok
}

// Server is the server that the connection leads to.
func (c *ServerConn) Server() *Server { return c.server }

// Detach is wire.Conn's; Go's poller forgets the deadline.
func (c *ServerConn) Detach() (fd int, err error) {
	c.deadline = time.Time{}
	return c.Conn.Detach()
}

// sweepIdle closes the connections that have been idle for too long or that the server has closed.
func (s *Server) sweepIdle() {
	var idle []*ServerConn
	defer s.faults.Catch("sweeping idle connections", func(*contain.Fault) {
		s.mu.Lock()
		s.sweep = nil // the next that is idle begins another
		s.mu.Unlock()
		for _, c := range idle {
			c.Conn.Close()
		}
	})
	s.mu.Lock()
	idle, s.idle = s.idle, nil
	s.mu.Unlock()
	idle = slices.DeleteFunc(idle, func(c *ServerConn) bool {
		over := c.Stale(time.Now()) || !c.Quiet()
		if over {
			c.Conn.Close()
		}
		return over
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(idle, s.idle...)
	if s.closed {
		s.closeIdle()
	}
	s.sweep = nil
	s.sweepLater()
}

// Close closes the idle connections. Those that carry a call close after it.
func (s *Server) Close() {
	if s.h2 != nil {
		s.h2.CloseIdleConnections()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.closeIdle()
	if s.sweep != nil {
		s.sweep.Stop()
	}
	s.closeUnused()
}

func (s *Server) closeIdle() {
	for _, c := range s.idle {
		c.Conn.Close()
	}
	s.idle = nil
}

// Closed reports whether the server's connections are not kept any more.
func (s *Server) Closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// dial makes a new connection, unless ctx ends before. What goes wrong before the handshake is an errUnreached: nothing
// was sent.
func (s *Server) dial(ctx context.Context) (*ServerConn, error) {
	c, err := s.dialTCP(ctx)
	if err != nil {
		return nil, err
	}
	made := &ServerConn{server: s, Keeper: s, rest: s.rest}
	c = wire.NewSocket(c)
	if s.tls != nil {
		overTLS := tls.Client(wire.NewWire(c), s.tls)
		ctx, cancel := context.WithTimeoutCause(ctx, s.connect, ErrConnect)
		defer cancel()
		if err := overTLS.HandshakeContext(ctx); err != nil {
			c.Close()
			if context.Cause(ctx) == ErrConnect {
				err = fmt.Errorf("%w: %w", ErrConnect, err)
			}
			return nil, &errHandshake{unbelieved(err)}
		}
		made.shown.note(overTLS.ConnectionState().VerifiedChains)
		c = overTLS
	}
	made.Conn = wire.NewConn(c)
	return made, nil
}

func (s *Server) dialTCP(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: s.connect, KeepAlive: dialKeepAlive}
	c, err := dialer.DialContext(ctx, "tcp", s.address)
	if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
		err = fmt.Errorf("%w: %w", ErrConnect, err)
	}
	if err != nil {
		return nil, &errUnreached{err}
	}
	return c, nil
}
