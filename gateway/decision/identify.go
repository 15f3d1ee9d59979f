package decision

import (
	"errors"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles"
	"sallyport/policy"
)

// identify finds the certificate that the caller has shown and the profile it came through, both by the listener's
// newest state: a call on an old connection is judged like one on a new connection.
func identify(x *Exchange) error {
	id := x.connection.identity.Load()
	if id == nil || id.listener != x.Listener {
		id = identityOf(x.connection, x.Listener, x.at())
		x.connection.identity.Store(id)
	}
	if id.profile != nil {
		if err := holdProfile(x, id); err != nil {
			return err
		}
	}
	x.Certificate = id.certificate
	if !id.believed(x.at()) {
		return nil
	}
	x.Balancer = true
	var err error
	x.Certificate, err = x.Listener.Door.Read(x.Request, x.Snapshot.Clients.Registered, x.at())
	if err != nil {
		return refuse(BadRequest, err)
	}
	return nil
}

// holdProfile holds the call to the profile that its connection came through.
func holdProfile(x *Exchange, id *identity) error {
	c := x.connection
	if c.plain {
		return refuse(Misdirected, errors.New("the connection is from before the listener spoke TLS"))
	}
	// The policy of the connection was chosen by the server name, that of the call by its Host: they have to be one.
	host := listenerprofiles.NormalizeName(x.Request.Authority())
	if x.Listener.Profiles.Find(c.Local, host) != id.profile {
		return refuse(Misdirected, nil)
	}
	if id.profile.VerifyClient != listenerprofiles.Require {
		return nil
	}
	// The handshake verified it, but perhaps under an older profile.
	if len(c.chain) == 0 {
		return refuse(MissingCredentials, nil)
	}
	if id.certificate == nil {
		return nil // a load balancer's: see identityOf
	}
	if err := id.certificate.Check(x.at()); err != nil {
		x.Certificate, x.evidence.Certificate, x.certificateErr = id.certificate, policy.Bad, err
		return refuse(InvalidCredentials, err)
	}
	return nil
}

func identityOf(c *Connection, l *Listener, now time.Time) *identity {
	id := &identity{listener: l}
	if l.Profiles != nil {
		id.profile = l.Profiles.Find(c.Local, c.serverName)
		if id.profile.VerifyClient != listenerprofiles.None {
			id.certificate = clientcert.FromChain(c.chain, id.profile.Trust, now)
		}
	}
	if l.Door == nil {
		return id
	}
	id.known = l.Door.Knows(c.Peer.Addr())
	if id.certificate != nil {
		id.balancer = l.Door.Balancer(c.chain, now)
	}
	if id.balancer != nil {
		id.certificate = nil
	}
	return id
}

// believed reports whether the other end is, at now, a load balancer that speaks for its clients. Its own certificate
// may expire while the connection lives.
func (id *identity) believed(now time.Time) bool {
	if !id.known {
		return false
	}
	return !id.listener.DoorByCertificate || id.balancer != nil && id.balancer.Check(now) == nil
}
