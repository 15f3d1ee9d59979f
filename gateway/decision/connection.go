package decision

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"sync/atomic"

	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles"
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
}

// An Endpoint is an address that the gateway listens at, whatever its settings are by now.
type Endpoint struct {
	Address string // as the configuration names it

	settings atomic.Pointer[Listener]
}

// Settings are the endpoint's newest.
func (e *Endpoint) Settings() *Listener { return e.settings.Load() }

// SetSettings replaces the endpoint's settings.
func (e *Endpoint) SetSettings(l *Listener) { e.settings.Store(l) }

// A Connection is what accept and the handshake learned of a client's connection; all its calls share it.
type Connection struct {
	Endpoint *Endpoint
	Peer     netip.AddrPort
	Local    netip.Addr

	plain      bool                // it does not speak TLS
	serverName string              // normalised; "" if the client named none
	chain      []*x509.Certificate // what the client proved to hold in the handshake
	identity   atomic.Pointer[identity]
}

// NewConnection returns a connection without TLS.
func NewConnection(e *Endpoint, peer netip.AddrPort, local netip.Addr) *Connection {
	return &Connection{Endpoint: e, Peer: peer, Local: local, plain: true}
}

// Learn tells what the TLS handshake has shown: the server name that the client gave, and the chain whose first
// certificate's key it has proven to hold. It is called before the first call.
func (c *Connection) Learn(serverName string, chain []*x509.Certificate) *Connection {
	c.plain, c.serverName, c.chain = false, listenerprofiles.NormalizeName(serverName), slices.Clip(chain)
	return c
}

// An identity is who a connection's other end is by one state of its listener. A newer state makes a newer identity.
type identity struct {
	listener    *Listener
	profile     *listenerprofiles.Profile // nil: plain HTTP
	certificate *clientcert.Certificate   // of the handshake; nil if there was none, or if it is a load balancer's
	known       bool                      // by its address it is a load balancer
	balancer    *clientcert.Certificate   // its own, if it showed a load balancer's; nil if not
}
