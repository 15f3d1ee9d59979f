package gateway

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles"
	"sallyport/policy"
)

// A conn is what accept and the handshake learned of a connection; all its calls share it.
type conn struct {
	peer       netip.AddrPort
	local      netip.Addr
	learned    sync.Once           // what follows is the handshake's
	plain      bool                // it does not speak TLS
	serverName string              // normalised; "" if the client named none
	chain      []*x509.Certificate // what the client proved to hold in the handshake
	identity   atomic.Pointer[identity]
}

// An identity is who a connection's other end is by one state of its listener. A newer state makes a newer identity.
type identity struct {
	listener    *Listener
	profile     *listenerprofiles.Profile // nil: plain HTTP
	certificate *clientcert.Certificate   // of the handshake; nil if there was none, or if it is a load balancer's
	known       bool                      // by its address it is a load balancer
	balancer    *clientcert.Certificate   // its own, if it showed a load balancer's; nil if not
}

// identify finds the certificate that the caller has shown and the profile it came through, both by the listener's
// newest state: a call on an old connection is judged like one on a new connection.
func (g *Gateway) identify(x *Exchange) error {
	id := x.conn.identity.Load()
	if id == nil || id.listener != x.Listener {
		id = g.identity(x.conn, x.Listener)
		x.conn.identity.Store(id)
	}
	if id.profile != nil {
		if err := g.holdProfile(x, id); err != nil {
			return err
		}
	}
	x.Certificate = id.certificate
	if !id.believed(x.at(g)) {
		return nil
	}
	x.Balancer = true
	var err error
	x.Certificate, err = x.Listener.Door.Read(x.Request, x.Snapshot.Clients.Registered, x.at(g))
	if err != nil {
		return refuse(BadRequest, err)
	}
	return nil
}

// holdProfile holds the call to the profile that its connection came through.
func (g *Gateway) holdProfile(x *Exchange, id *identity) error {
	if x.conn.plain {
		return refuse(Misdirected, errors.New("the connection is from before the listener spoke TLS"))
	}
	// The policy of the connection was chosen by the server name, that of the call by its Host: they have to be one.
	host := listenerprofiles.NormalizeName(x.Request.Authority())
	if x.Listener.Profiles.Find(x.conn.local, host) != id.profile {
		return refuse(Misdirected, nil)
	}
	if id.profile.VerifyClient != listenerprofiles.Require {
		return nil
	}
	// The handshake saw to it, but it may have been under an older profile.
	if len(x.conn.chain) == 0 {
		return refuse(MissingCredentials, nil)
	}
	if id.certificate == nil {
		return nil // a load balancer's: see identity
	}
	if err := id.certificate.Check(x.at(g)); err != nil {
		x.Certificate, x.evidence.Certificate, x.certificateErr = id.certificate, policy.Bad, err
		return refuse(InvalidCredentials, err)
	}
	return nil
}

func (g *Gateway) identity(c *conn, l *Listener) *identity {
	id := &identity{listener: l}
	if l.Profiles != nil {
		id.profile = l.Profiles.Find(c.local, c.serverName)
		if id.profile.VerifyClient != listenerprofiles.None {
			id.certificate = clientcert.FromHandshake(c.chain, id.profile.Trust, g.now())
		}
	}
	if l.Door == nil {
		return id
	}
	id.known = l.Door.Knows(c.peer.Addr())
	if id.certificate != nil {
		id.balancer = l.Door.Balancer(c.chain, g.now())
	}
	if id.balancer != nil {
		id.certificate = nil
	}
	return id
}

// believed tells whether the other end is, at now, a load balancer that speaks for its clients. Its own certificate may
// end while the connection lives.
func (id *identity) believed(now time.Time) bool {
	if !id.known {
		return false
	}
	return !id.listener.DoorByCertificate || id.balancer != nil && id.balancer.Check(now) == nil
}
