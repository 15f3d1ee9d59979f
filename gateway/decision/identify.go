package decision

import (
	"cmp"
	"errors"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy"
)

// identify finds the certificate that the caller has shown and the profile it came through, both by the listener's
// newest state: a call on an old connection is judged like one on a new connection.
func identify(x *Exchange) error {
	id := x.connection.identity.Load()
	if id == nil || !id.holds(x) {
		id = identityOf(x.connection, x.Listener, x.Snapshot.Clients, x.at())
		x.connection.identity.Store(id)
	}
	x.identity = id
	if id.profile != nil {
		if err := holdProfile(x, id); err != nil {
			return err
		}
	}
	x.Certificate = id.certificate
	if id.balancer != nil {
		err := x.denied(id.balancer)
		if err == nil && id.known && x.mayLearn(id.balancer) {
			return ErrWait
		}
		if err = cmp.Or(err, x.disowned(id.balancer)); err != nil {
			return x.disbelieve(id, err)
		}
	}
	if !id.believed(x.at()) {
		return nil
	}
	x.Balancer = true
	var err error
	x.Certificate, err = x.Listener.Door.Read(x.Request, x.Snapshot.Clients, x.at())
	if err != nil {
		return refuse(BadRequest, err)
	}
	return nil
}

// disowned returns why a load balancer is not believed whose certificate was found good, and that has not ended: an issuer has
// revoked it, or whether one has is not known; else nil.
func (x *Exchange) disowned(balancer *clientcert.Certificate) error {
	err := balancer.Check(x.at())
	switch trust.CauseOf(err) {
	case trust.Revoked, trust.StatusUnknown:
		return err
	}
	return nil
}

// disbelieve makes the certificate of a load balancer that is denied or disowned the call's, as a bad one: whom it speaks for
// is not believed, be its address known or not. If nothing but its status is unknown, that matters only where a certificate
// of which it speaks could be admitted, and what it says is looked at as if it were believed.
func (x *Exchange) disbelieve(id *identity, why error) error {
	if trust.CauseOf(why) == trust.StatusUnknown {
		if !id.known {
			return nil // nor would it be, whatever its status
		}
		said, err := x.Listener.Door.Read(x.Request, x.Snapshot.Clients, x.at())
		switch {
		case err != nil:
			return refuse(BadRequest, err)
		case said == nil:
			return nil // there is nobody of whom it speaks
		}
		x.said = said
	}
	x.Certificate, x.unbelieved = id.balancer, why
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
	if c.shown == nil {
		return refuse(MissingCredentials, nil)
	}
	shown := cmp.Or(id.certificate, id.balancer) // see identityOf
	if err := x.denied(shown); err != nil {
		return refuseShown(x, shown, err)
	}
	if x.mayLearn(shown) {
		return ErrWait
	}
	if err := shown.Check(x.at()); err != nil {
		return refuseShown(x, shown, err)
	}
	if shown.ByRegistration() && !x.Snapshot.Clients.RegisteredAt(x.Snapshot.Routes, x.Listener, shown.Fingerprint) {
		return refuseShown(x, shown, errUnregistered)
	}
	return nil
}

// holdRegistration refuses, under require, what a certificate asks of another API than those that it is registered for, if
// nothing but its registration vouches for it: there it is a stranger's, whom the handshake would have turned away.
func holdRegistration(x *Exchange) error {
	id := x.identity // not the connection's newest: another of its calls may have found another since
	if id.profile == nil || id.profile.VerifyClient != listenerprofiles.Require || id.certificate == nil || !id.certificate.ByRegistration() {
		return nil
	}
	if _, err := x.Snapshot.Clients.find(x.Route.API, id.certificate.Fingerprint, x.at()); err != nil {
		return refuseShown(x, id.certificate, err)
	}
	return nil
}

// refuseShown refuses the call for the certificate that the handshake has shown.
func refuseShown(x *Exchange, c *clientcert.Certificate, err error) error {
	x.Certificate, x.evidence.Certificate, x.certificateErr = c, policy.Bad, err
	if reason, unknown := passing(err); unknown {
		return refuse(reason, err)
	}
	return refuse(InvalidCredentials, err)
}

// holds reports whether the identity is still the connection's: by the listener's newest state, and unless a
// certificate that was not looked into, or was not good, has become of interest since.
func (id *identity) holds(x *Exchange) bool {
	c := id.certificate
	return id.listener == x.Listener && (c == nil || c.Certain(x.Snapshot.Clients, x.at()))
}

// identityOf verifies a certificate only if it matters: if an API may admit it, or if the profile demands a trusted one.
// Whoever shows any other pays for the look-up of its fingerprint, and where load balancers are known by certificates
// for one signature at most.
func identityOf(c *Connection, l *Listener, clients *Clients, now time.Time) *identity {
	id := &identity{listener: l, known: l.Door != nil && l.Door.Knows(c.Peer.Addr())}
	if l.Profiles == nil {
		return id
	}
	id.profile = l.Profiles.Find(c.Local, c.serverName)
	if id.profile.VerifyClient == listenerprofiles.None || c.shown == nil {
		return id
	}
	id.certificate = clientcert.Unregistered(c.shown.fingerprint, clients)
	registered := clients.Registered(c.shown.fingerprint)
	required := id.profile.VerifyClient == listenerprofiles.Require
	balancers := l.Door != nil && l.Door.BalancerTrust() != nil
	if !registered && !required && !balancers && clients.Issuers() == nil {
		return id
	}
	chain := c.shown.chain()
	if len(chain) == 0 {
		return id
	}
	id.certificate = clientcert.FromChain(chain, id.profile.Rules(), clients, required, now)
	if balancers {
		// A load balancer's own is never a client's, wherever it comes from. What a stranger shows beside its
		// certificate is not looked at.
		if !registered && !id.known {
			chain = chain[:1]
		}
		if id.balancer = l.Door.Balancer(chain, now); id.balancer != nil {
			id.certificate = nil
		}
	}
	// Of those whom no registration admits nobody needs more than the outcome.
	if c := id.certificate; c != nil && !registered && !clients.issued(c) {
		c.Leaf = nil
	}
	if id.balancer != nil && !registered {
		id.balancer.Leaf = nil
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
