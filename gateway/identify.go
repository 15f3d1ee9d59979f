package gateway

import (
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

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

// An identity is who a connection's other end is by one set of profiles. A newer set makes a newer identity.
type identity struct {
	set         *listenerprofiles.Set
	profile     *listenerprofiles.Profile
	certificate *clientcert.Certificate
}

// identify finds the certificate that the caller has shown and the profile it came through, both by the newest set of
// profiles: a call on an old connection is judged like one on a new connection.
func (g *Gateway) identify(x *Exchange) error {
	set := x.Listener.Profiles
	if set == nil {
		return nil // plain HTTP: there is no certificate
	}
	if x.conn.plain {
		return refuse(Misdirected, errors.New("the connection is from before the listener spoke TLS"))
	}
	id := x.conn.identity.Load()
	if id == nil || id.set != set {
		id = g.identity(x.conn, set)
		x.conn.identity.Store(id)
	}

	// The policy of the connection was chosen by the server name, that of the call by its Host: they have to be one.
	host := listenerprofiles.NormalizeName(x.Request.Authority())
	if set.Find(x.conn.local, host) != id.profile {
		return refuse(Misdirected, nil)
	}

	x.Certificate = id.certificate
	if id.profile.VerifyClient == listenerprofiles.Require {
		// The handshake saw to it, but it may have been under an older set of profiles.
		if x.Certificate == nil {
			return refuse(MissingCredentials, nil)
		}
		if err := x.Certificate.Check(g.now()); err != nil {
			x.evidence.Certificate, x.certificateErr = policy.Bad, err
			return refuse(InvalidCredentials, err)
		}
	}
	return nil
}

func (g *Gateway) identity(c *conn, set *listenerprofiles.Set) *identity {
	id := &identity{set: set, profile: set.Find(c.local, c.serverName)}
	if id.profile.VerifyClient != listenerprofiles.None {
		id.certificate = clientcert.FromHandshake(c.chain, id.profile.Trust, g.now())
	}
	return id
}

// addressOf is the address of a socket's end, with IPv4 in its own form.
func addressOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
