package decision

import (
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/challenge"
)

// A Listener is the settings of an address that the gateway listens at. It never changes.
type Listener struct {
	Name     string
	Address  string                // host:port
	Profiles *listenerprofiles.Set // nil: plain HTTP
	Door     *clientcert.Door      // who is believed about the certificate header; nil: nobody
	// DoorByCertificate demands that a load balancer shows a certificate of its own in its handshake; false: its
	// address is enough.
	DoorByCertificate bool
	// Validations has the answers to a CA that validates names by HTTP-01; nil: none does.
	Validations *challenge.Book
	// Proxies have to begin each connection with a header of the PROXY protocol; nil: nobody sends one. It is a pointer
	// so that Listeners stay comparable; see Same.
	Proxies *Proxies
}

// Same reports whether both are the same settings.
func (l *Listener) Same(m *Listener) bool {
	one := *l
	one.Proxies = m.Proxies
	return one == *m && slices.Equal(l.Proxies.networks(), m.Proxies.networks())
}

// Proxies are the networks of the socket peers that say for whom they have opened a connection. They never change.
type Proxies []netip.Prefix

func (p *Proxies) networks() []netip.Prefix {
	if p == nil {
		return nil
	}
	return *p
}

// Include reports whether a socket peer is one of them.
func (p *Proxies) Include(peer netip.Addr) bool {
	peer = peer.Unmap()
	return slices.ContainsFunc(p.networks(), func(n netip.Prefix) bool { return n.Contains(peer) })
}

// An Endpoint is an address that the gateway listens at, whatever its settings are by now.
type Endpoint struct {
	Address string // as the configuration names it

	settings atomic.Pointer[Listener]
	stopped  atomic.Pointer[Stop]
}

// A Stop is why all calls of an Endpoint are broken off.
type Stop struct {
	Limit Limit // that was reached, if it was one
	Cause error
}

// Stop says why the endpoint's calls are broken off, before they are. The first reason counts.
func (e *Endpoint) Stop(s Stop) { e.stopped.CompareAndSwap(nil, &s) }

// Settings are the endpoint's newest.
func (e *Endpoint) Settings() *Listener { return e.settings.Load() }

// SetSettings replaces the endpoint's settings.
func (e *Endpoint) SetSettings(l *Listener) { e.settings.Store(l) }

// stopped is why the connection's calls are broken off; nil: they are not.
func (c *Connection) stopped() *Stop {
	if c == nil || c.Endpoint == nil {
		return nil
	}
	return c.Endpoint.stopped.Load()
}

// A Connection is what accept and the handshake learned of a client's connection; all its calls share it.
type Connection struct {
	Endpoint *Endpoint
	Peer     netip.AddrPort // the socket's other end: whatever opens a door asks for this one
	Claimed  netip.Addr     // the client's address, if Peer is one of the Proxies and has told it; it opens no door
	Local    netip.Addr
	TLS      uint16 // the version that was agreed on; 0: plain
	Cipher   uint16 // the suite

	plain      bool   // it does not speak TLS
	serverName string // normalised; "" if the client named none
	shown      *shown // nil: no certificate
	identity   atomic.Pointer[identity]

	underWay atomic.Int32 // calls
	admitted atomic.Bool  // one of its calls was
	last     atomic.Int64 // when a call began or ended last, or else the connection began, in Unix nanoseconds
}

// shown is the chain of a handshake, whose first certificate's key the client has proven to hold.
type shown struct {
	fingerprint [sha256.Size]byte   // of that certificate
	parsed      []*x509.Certificate // nil unless a registration could admit it when the connection began
	der         []byte              // one after the other, if they are not kept parsed
}

// maxKept is how many bytes of an unregistered client's chain are kept, in case that it is registered while its
// connection lives. Of a longer one the first certificates are, and the rest has to be shown anew.
const maxKept = 8 << 10

// chain is the chain as it was shown. Of a client that nobody knew it is parsed each time: parsed certificates take
// several times their DER, and strangers get nothing for it.
func (s *shown) chain() []*x509.Certificate {
	if s.parsed != nil {
		return s.parsed
	}
	chain, err := x509.ParseCertificates(s.der)
	if err != nil {
		return nil // it was parsed before
	}
	return chain
}

// NewConnection returns a connection without TLS.
func NewConnection(e *Endpoint, peer netip.AddrPort, local netip.Addr) *Connection {
	c := &Connection{Endpoint: e, Peer: peer, Local: local, plain: true}
	c.last.Store(time.Now().UnixNano())
	return c
}

// Rest reports whether the connection rests, which is while no call is under way; since when, which is the connection's
// beginning if it had no call; and whether a call was ever admitted on it.
func (c *Connection) Rest() (since time.Time, admitted, resting bool) {
	resting = c.underWay.Load() == 0 // before last, which is newer if a call comes between
	return time.Unix(0, c.last.Load()), c.admitted.Load(), resting
}

// Admitted reports whether a call was ever admitted on the connection.
func (c *Connection) Admitted() bool { return c.admitted.Load() }

// Balancer reports whether a load balancer, known by its address, has shown its own certificate in the handshake.
func (c *Connection) Balancer() bool {
	id := c.identity.Load()
	return id != nil && id.known && id.balancer != nil
}

// Source is what limits of a source count an address as: an IPv4 address as itself, an IPv6 address as its /64, of
// which one host has as many addresses as it likes.
func Source(a netip.Addr) netip.Addr {
	if a = a.Unmap(); a.Is6() {
		p, _ := a.Prefix(64) // 64 is a length that IPv6 has
		return p.Addr()
	}
	return a
}

// Learn tells what the TLS handshake of a connection has shown: the server name that the client gave, and the chain
// whose first certificate's key it has proven to hold. It is called before the first call, and returns the connection.
//
// Learn takes the chain over. Unless a registration may admit its first certificate, it clears the slice, which crypto/tls has in
// common with its ConnectionState and would keep, with all certificates parsed, for as long as the connection lives.
func (d *Decider) Learn(c *Connection, serverName string, chain []*x509.Certificate) *Connection {
	c.plain, c.serverName = false, listenerprofiles.NormalizeName(serverName)
	if len(chain) == 0 {
		return c
	}
	s := d.snapshot.Load()
	c.shown = &shown{fingerprint: sha256.Sum256(chain[0].Raw), parsed: chain}
	id := identityOf(c, s.listener(c.Endpoint), s.Clients, d.cfg.Now())
	c.identity.Store(id)
	if id.certificate != nil && id.certificate.Leaf != nil || s.Clients.Registered(c.shown.fingerprint) {
		return c
	}
	c.shown.der, c.shown.parsed = derOf(chain, maxKept), nil
	clear(chain)
	return c
}

// derOf is the DER of a chain, as many certificates from its beginning as have room.
func derOf(chain []*x509.Certificate, room int) []byte {
	size, n := 0, 0
	for _, cert := range chain {
		if size+len(cert.Raw) > room {
			break
		}
		size += len(cert.Raw)
		n++
	}
	der := make([]byte, 0, size)
	for _, cert := range chain[:n] {
		der = append(der, cert.Raw...)
	}
	return der
}

// An identity is who a connection's other end is by one state of its listener. A newer state makes a newer identity.
type identity struct {
	listener    *Listener
	profile     *listenerprofiles.Profile // nil: plain HTTP
	certificate *clientcert.Certificate   // of the handshake; nil if there was none, or if it is a load balancer's
	known       bool                      // by its address it is a load balancer
	balancer    *clientcert.Certificate   // its own, if it showed a load balancer's; nil if not
}
