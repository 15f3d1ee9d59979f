package decision

import (
	"errors"
	"hash/maphash"
	"net/netip"
	"strings"

	"sallyport/certstore"
	"sallyport/gateway/backend"
)

// dispatch finds the environment whose servers get the call, and counts the call there.
func dispatch(x *Exchange) error {
	if most := x.Route.MaxBody; most > 0 && x.Request.Length > most {
		return refuse(BodyTooLarge, nil)
	}
	if err := x.countForward(); err != nil {
		return err
	}
	group := x.Route.production
	if x.sandboxed() {
		group = x.Route.sandbox
	}
	if group == nil {
		return refuse(Internal, errors.New("the table was never put into force"))
	}
	x.Group = group
	var err error
	switch x.place, err = group.Enter(x.caller(), x.Upgrade() != ""); err {
	case nil:
		if c := x.connection; !c.admitted.Load() {
			c.admitted.Store(true)
		}
		return nil
	case backend.ErrCallerBusy:
		return refuse(CallerBusy, nil)
	}
	return refuse(BackendBusy, nil)
}

// Seeds of what Callers are hashed with, one for each kind of caller.
var registrations, subjects, sources = maphash.MakeSeed(), maphash.MakeSeed(), maphash.MakeSeed()

// caller is who the call counts for: the registration of its certificate, or the certificate itself where a CA is registered, else whom its token is about, else its source.
func (x *Exchange) caller() backend.Caller {
	var hash uint64
	switch {
	case x.Client != nil && x.Client.Fingerprint != x.Certificate.Fingerprint: // one of those that a CA has issued
		hash = maphash.Bytes(registrations, x.Certificate.Fingerprint[:])
	case x.Client != nil: // of this API and environment, as the place is
		hash = maphash.String(registrations, x.Client.Alias)
	case x.Claims != nil:
		var h maphash.Hash
		h.SetSeed(subjects)
		for _, s := range [...]string{x.Claims.Issuer, x.Claims.ClientID, x.Claims.Subject} {
			h.WriteString(s)
			h.WriteByte(0)
		}
		hash = h.Sum64()
	default:
		source := x.source()
		if !source.IsValid() || x.decider.Exempt(source) {
			return 0
		}
		at := Source(source).As16()
		hash = maphash.Bytes(sources, at[:])
	}
	return backend.Caller(hash | 1) // never 0, which is nobody
}

// source is the address that the call comes from: what a load balancer that is believed has seen, else the connection's;
// zero if only a load balancer could say, and does not.
func (x *Exchange) source() netip.Addr {
	if !x.Balancer {
		return x.from()
	}
	lines := x.Request.Values("X-Forwarded-For")
	if len(lines) == 0 {
		return x.Claimed
	}
	last := lines[len(lines)-1]
	last = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
	if a, err := netip.ParseAddr(last); err == nil {
		return a
	}
	if a, err := netip.ParseAddrPort(last); err == nil { // as Azure's write it
		return a.Addr()
	}
	return netip.Addr{}
}

// from is the address that the connection comes from: what a proxy has told, else the peer's.
func (x *Exchange) from() netip.Addr {
	if x.Claimed.IsValid() {
		return x.Claimed
	}
	return x.Peer.Addr()
}

// sandboxed reports whether the call is one of a SANDBOX certificate.
func (x *Exchange) sandboxed() bool {
	return x.Client != nil && x.Client.KeyType == certstore.Sandbox
}
