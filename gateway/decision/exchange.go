package decision

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/http1"
	"sallyport/listenerprofiles"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// An Exchange is one call and all that the gateway has learned about it. Each stage fills its own part and reads only
// the parts above it. It is owned by whoever carries the call, and reused after Finish: nobody keeps it.
type Exchange struct {
	// BreakOff breaks both sides of the call off, whoever calls it, and waits for nothing. The carrier sets it once;
	// Begin leaves it.
	BreakOff func()

	// accept
	Request  *http1.Request // as received; no stage changes it
	ID       string         // of this call, ours; goes to the backend, the log and the client
	Peer     netip.AddrPort // the socket's other end: whatever opens a door asks for this one
	Claimed  netip.Addr     // the Connection's
	TLS      uint16         // version of the connection's; 0: plain
	Cipher   uint16         // suite of the connection's TLS
	Started  time.Time
	Listener *Listener
	Snapshot *Snapshot // what Decide reads

	// identify
	Certificate *clientcert.Certificate // nil if none was presented; proof and validity, no API yet
	Balancer    bool                    // the call comes from a load balancer that is believed about its client

	// match
	Path         string // raw, as it was received and is judged
	Query        string // raw
	HasQuery     bool   // there was a "?", even if nothing followed
	Route        *Route
	Resource     *Resource
	ResourcePath string // Path without context and version, which may leave nothing: what is matched, and appended to the upstream

	// authorize
	Client *certstore.Client // the registration whose rules the call is held to, or nil
	Claims *token.Claims     // of the token that was verified, or nil
	Access policy.Decision

	// limit
	Allowance ratelimit.Verdict

	// dispatch
	Group *backend.Group // whose server gets the call; it has a place there until Finish

	// forward
	Upstream          string        // scheme and authority of the server that was asked last
	Retries           int           // how often a server was asked beyond the first time
	Ours              time.Duration // from the head until the first server was about to be asked; 0: none was
	Backend           time.Duration // from then until the head of the answer; 0: none came
	Status            int           // whoever answered; 0 if nobody did
	BytesIn, BytesOut int64         // of the bodies
	Err               error         // why the call was refused or broken off, or nil
	Limit             Limit         // that ended the call, if one did

	// finish
	Took time.Duration // from the head to the last byte

	place          backend.Place
	decider        *Decider
	connection     *Connection
	identity       *identity // of the connection's other end, as identify has found it
	stage          stage
	forwards       uint64                  // Max-Forwards as received, of which one less goes on; 0: none does
	unbelieved     error                   // why a load balancer speaks for nobody, whose own certificate is x.Certificate then
	said           *clientcert.Certificate // of whom it speaks, while it is not known whether it is to be believed
	evidence       policy.Evidence
	registration   *certstore.Client       // the certificate's for this API, or a CA's that has issued it, whoever settles the call
	bucket         ratelimit.Bucket        // of the registration's tier; nil: unlimited
	asked          *clientcert.Certificate // of which the call has waited to learn whether it is revoked
	waits          int                     // for that
	certificateErr error                   // what is wrong with the certificate; for logs
	tokenErr       error
	seen           time.Time // when the head was, by the system's clock
	now            time.Time // see at
	wait           func(context.Context)
	waited         bool // for Allowance

	lookedForValidation bool      // other nodes were asked for an answer to a CA
	watch               *watch    // nil: the call finishes whatever becomes of its caller's right
	ended               error     // why the watch, which is over, broke the call off; nil: it did not
	before              *Exchange // a call under way that this one judges again; nil: this one is a call
}

// Evidence is what was found out about the caller's proofs, as far as they had to be looked at.
func (x *Exchange) Evidence() policy.Evidence { return x.evidence }

// CertificateProblem is what is wrong with the certificate that was presented, or that none was where one would have
// counted; nil otherwise. It is for the operator; the caller never learns it.
func (x *Exchange) CertificateProblem() error {
	if x.certificateErr == nil && x.Access.Reason == policy.MissingCredentials && x.gotNone() {
		return errNoneShown
	}
	return x.certificateErr
}

// Whoever has a certificate and is told that none came looks here: a client keeps back what the handshake can't prove.
var errNoneShown = errors.New("the handshake asked for a certificate and got none: a client sends none with an Ed448 " +
	"or RSA-PSS key, nor in TLS 1.3 one on P-224, Brainpool or secp256k1")

// gotNone reports whether a certificate would have counted, and the handshake that asked for one got none.
func (x *Exchange) gotNone() bool {
	p := x.identity.profile
	return x.Resource.Security.Certificate != policy.Off && p != nil && p.VerifyClient != listenerprofiles.None &&
		!x.Balancer && x.connection.shown == nil
}

// TokenProblem is what is wrong with the token that was looked at, or nil. It is for the operator.
func (x *Exchange) TokenProblem() error { return x.tokenErr }

// Carried notes how the way to a server and back went, before its Close.
func (x *Exchange) Carried(t *backend.Trip) {
	if t.Server == nil {
		return
	}
	const least = 1 // nanosecond: the clock may not have moved, or, as a loop looks at it, not yet
	x.Upstream, x.Retries = t.Server.Name, max(t.Tries-1, 0)
	x.Ours = max(t.Began.Sub(x.seen), least)
	if !t.Came.IsZero() {
		x.Backend = max(t.Came.Sub(t.Began), least)
	}
}

// Source is the address that the call comes from: what a load balancer that is believed has seen, else what a proxy has
// told, else the peer's; zero if only a load balancer could say and does not, or if the call was refused before it was
// known to be one's. It opens no door.
func (x *Exchange) Source() netip.Addr {
	if !x.Balancer && x.stage <= stageIdentify && x.Listener.Door != nil && x.Listener.Door.Knows(x.Peer.Addr()) {
		return x.Claimed
	}
	return x.source()
}
