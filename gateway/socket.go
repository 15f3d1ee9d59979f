package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"time"

	"sallyport/gateway/decision"
	"sallyport/gateway/engine"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
	"sallyport/listenerprofiles"
)

// A socket is an open endpoint with what carries its calls. Its settings change under it; the socket stays. It is a
// net.Listener of connections that have agreed on HTTP/2 in their handshake.
type socket struct {
	gateway  *Gateway
	endpoint decision.Endpoint
	engine   *engine.Engine // carries HTTP/1.1
	server   *http.Server   // carries HTTP/2
	tls      *tls.Config

	listener net.Listener
	ready    chan net.Conn   // for the server
	life     context.Context // ends when the socket closes
	close    context.CancelFunc
}

func (g *Gateway) open(l *decision.Listener) (*socket, error) {
	listener, err := net.Listen("tcp", l.Address)
	if err != nil {
		return nil, err
	}
	s := &socket{gateway: g, listener: listener, ready: make(chan net.Conn)}
	s.endpoint.Address = l.Address
	s.endpoint.SetSettings(l)
	s.life, s.close = context.WithCancel(context.Background())
	s.engine = g.newEngine()
	s.tls = &tls.Config{GetConfigForClient: s.configFor}
	s.server = &http.Server{
		Handler:                      s,
		DisableGeneralOptionsHandler: true, // or net/http would answer OPTIONS * itself
		ReadHeaderTimeout:            g.terms.HeadTimeout,
		IdleTimeout:                  g.terms.IdleTimeout, // the guard sees to first calls
		MaxHeaderBytes:               maxHeaderBytes + perField*g.decider.HeaderLines(),
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: g.cfg.Limits.Streams, WriteByteTimeout: stallTimeout}, // for a client that takes nothing, no stream's deadline counts
		ErrorLog:                     log.New(serverLog{g.log}, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) (with context.Context) { // on the goroutine that serves all
			defer g.decider.Faults().Catch("a connection that begins", func(*contain.Fault) {
				with = ctx // its calls, if it gets to any, end with it
				c.Close()
			})
			return context.WithValue(ctx, connectionKey{}, countedOf(c).known)
		},
	}
	if g.terms.BodyRate > 0 {
		// A client that takes nothing at all holds up all its streams, and the end of each of them.
		s.server.HTTP2.WriteByteTimeout = g.terms.BodyGrace
	}
	return s, nil
}

// newEngine returns an engine by the gateway's settings.
func (g *Gateway) newEngine() *engine.Engine {
	loops := runtime.GOMAXPROCS(0)
	if g.cfg.goroutines {
		loops = 0
	}
	e, err := engine.New(g.decider, g.terms, loops)
	if err != nil {
		g.log.Error("each connection gets a goroutine of its own, which costs more, since event loops cannot be had", "error", err)
	}
	return e
}

// Accept returns the next connection that is ready for its first request.
func (s *socket) Accept() (net.Conn, error) {
	select {
	case c := <-s.ready:
		return c, nil
	case <-s.life.Done():
		return nil, net.ErrClosed
	}
}

// Addr is the address that the socket really has.
func (s *socket) Addr() net.Addr { return s.listener.Addr() }

// Close stops accepting. Handshakes under way end without a connection.
func (s *socket) Close() error {
	if s.life.Err() != nil {
		return nil
	}
	s.close()
	return s.listener.Close()
}

// accept takes connections until the socket is closed.
func (s *socket) accept() {
	s.gateway.again("accepting connections", s.life.Done(), s.acceptAll)
}

func (s *socket) acceptAll() {
	g := s.gateway
	var pause time.Duration
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if s.life.Err() != nil {
				return
			}
			// Out of file descriptors, most likely: wait for others to end rather than spin.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			g.cfg.Connections.tell("accept")
			g.log.Error("accept", "listener", s.endpoint.Settings().Name, "error", err, "next_try_in", pause)
			select {
			case <-time.After(pause):
			case <-s.life.Done():
				return
			}
			continue
		}
		pause = 0
		s.admit(c)
	}
}

// admit admits one connection, or closes it.
func (s *socket) admit(c net.Conn) {
	g := s.gateway
	defer g.decider.Faults().Catch("admitting a connection", func(*contain.Fault) { c.Close() })
	l := s.endpoint.Settings()
	counted := g.guard.admit(wire.NewSocket(c), s, l)
	if counted == nil {
		c.Close()
		return
	}
	c = counted
	if counted.proxied {
		s.introduce(counted)
		return
	}
	s.begin(counted)
}

// begin has a connection that is admitted begin with its handshake, or with its first call.
func (s *socket) begin(c *countedConn) {
	if s.endpoint.Settings().Profiles == nil {
		s.serve(c, c.known)
		return
	}
	s.gateway.guard.shake(c)
}

// serve has the engine carry the calls of a connection.
func (s *socket) serve(c net.Conn, known *decision.Connection) {
	s.gateway.serving.Go(func() {
		defer s.gateway.decider.Faults().Catch("a connection", func(*contain.Fault) { c.Close() })
		s.engine.Serve(c, known)
	})
}

// hand passes a connection on to the server.
func (s *socket) hand(c net.Conn) {
	select {
	case s.ready <- c:
	case <-s.life.Done():
		c.Close()
	}
}

// handshake does the handshake of one connection, for at most the terms' HeadTimeout.
func (s *socket) handshake(c *countedConn) {
	defer s.gateway.guard.shaken(c)
	ctx, cancel := context.WithTimeout(s.life, s.gateway.terms.HeadTimeout)
	defer cancel()
	below := wire.NewWire(c)
	conn := tls.Server(below, s.tls)
	err := conn.HandshakeContext(ctx)
	below.Unbound()
	if err == nil {
		state := conn.ConnectionState()
		if state.NegotiatedProtocol == validationProtocol {
			conn.Close()
			return
		}
		c.known.TLS, c.known.Cipher = state.Version, state.CipherSuite
		s.gateway.decider.Learn(c.known, state.ServerName, state.PeerCertificates)
		if c.known.Balancer() {
			s.gateway.guard.trust(c)
		}
		if state.NegotiatedProtocol == "h2" {
			c.http2.Store(true)
			below.Gather(s.server.HTTP2.WriteByteTimeout, s.gateway.decider.Faults())
			s.hand(conn)
			return
		}
		s.serve(conn, c.known) // on a goroutine of its own: this one's stack has grown
		return
	}
	if !c.evicted.Load() {
		s.tellHandshake(conn, c.known, err)
	}
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader) {
		_ = plain.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		body := `{"code":"400","message":"Bad Request","description":"This port speaks HTTPS. Use https:// in the URL."}` + "\n"
		_, _ = fmt.Fprintf(plain.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=UTF-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	}
	conn.Close()
	c.Close()
}

func looksLikeHTTP(record [5]byte) bool {
	switch string(record[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET":
		return true
	}
	return false
}

// tellHandshake logs what a handshake that failed had presented. Any stranger can cause such lines, so there are at
// most a few a second.
func (s *socket) tellHandshake(c *tls.Conn, known *decision.Connection, err error) {
	g := s.gateway
	reason := handshakeReason(err)
	g.cfg.Connections.tell("handshake")
	g.cfg.Handshakes.tell(reason)
	if errors.Is(err, io.EOF) || !g.handshakeLog.Allow() {
		return // most often a probe that looks whether the port is open
	}
	state := c.ConnectionState()
	attrs := []any{"listener", s.endpoint.Settings().Name, "peer", c.RemoteAddr().String(), "reason", reason, "server_name", limitText(state.ServerName), "problem", limitText(err.Error())}
	if known.Claimed.IsValid() {
		attrs = append(attrs, "client", known.Claimed.String())
	}
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		attrs = append(attrs, "subject", limitText(leaf.Subject.String()), "issuer", limitText(leaf.Issuer.String()),
			"fingerprint", hex.EncodeToString(sum[:]), "not_after", leaf.NotAfter.UTC())
	}
	g.log.Warn("TLS handshake refused", attrs...)
}

// limitText bounds a text that a stranger chose.
func limitText(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// configFor is the one place where the profile of a new connection is chosen.
func (s *socket) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	set := s.endpoint.Settings().Profiles
	if set == nil {
		return nil, errors.New("the listener no longer speaks TLS")
	}
	if below, ok := hello.Conn.(*wire.Wire); ok {
		below.Bound(s.gateway.guard.limits.handshakeBytes())
	}
	local := addressOf(hello.Conn.LocalAddr()).Addr()
	p := set.Find(local, listenerprofiles.NormalizeName(hello.ServerName))
	if isValidation(hello) {
		return validationConfig(p, hello)
	}
	if s.gateway.decider.Snapshot().AsksForAny(p) {
		return p.Any, nil
	}
	return p.TLS, nil
}

type connectionKey struct{}

// stallTimeout is for how long an HTTP/2 client may take nothing at all of what it is sent.
const stallTimeout = time.Minute

// countedOf is the countedConn under the TLS of a connection that the handshake has handed on.
func countedOf(c net.Conn) *countedConn {
	return c.(*tls.Conn).NetConn().(*wire.Wire).Conn.(*countedConn)
}

// serverLog takes what net/http has to say of connections that went wrong. Any stranger can cause such lines, so they
// are for debugging only.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	l.log.Debug("connection", "problem", string(bytes.TrimSpace(line)))
	return len(line), nil
}

// addressOf is the address of a socket's end, with IPv4 in its own form; zero for a connection that is none of a network.
func addressOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
