package control

import (
	"time"

	"sallyport/certstore"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/acme"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// A Spec is what the configuration asks for, as the rooms that serve it want to be told. Paths are absolute. It never
// changes.
type Spec struct {
	Place    Place    // of problems that have no other
	Digest   [32]byte // of everything that it was read from, secrets included, so it is not for logs
	Files    []string // that it was read from
	Globs    []string // the patterns that some of the Files match
	Problems Problems // that keep it from coming into force
	Warnings Problems // that do not

	Period           time.Duration // between two looks at every source
	Listeners        []Listener
	Header           clientcert.DoorConfig     // without Anchors, Revocation and BalancerTrust, which Build opens:
	HeaderTrust      Placed[keystore.Ref]      // none without a Location
	HeaderRevocation Placed[revocation.Policy] // of certificates from the header
	Balancers        Placed[keystore.Ref]      // of the load balancers' own certificates; none without a Location
	Routing          decision.Settings         // without Tokens
	ChainValidation  bool                      // a registered CA admits what it has issued
	Tiers            *ratelimit.Tiers
	RateLimit        Placed[RateLimit] // takes effect with the next start only
	KeyManagers      []Placed[token.KeyManager]
	Units            []Unit // of APIs, which are told once more in APIs, Clients, LeftOut and Elsewhere
	APIs             []API
	Clients          []certstore.Client       // that API files register
	ACME             Placed[acme.Settings]    // of the CA that server certificates are ordered from; without a Directory: none
	Store            Placed[certstore.Source] // not for logs, since it may hold a password; without a URL: none
	MaxAge           time.Duration            // for how long registrations of a store that can't be read are believed; 0: for ever
	Snapshot         string                   // file of the store's registrations, for a start while it is away; "": none
	Labels           []string                 // of this gateway; none: it serves every API
	LeftOut          []API                    // that are not served here, since none of their Labels is one of these
	Elsewhere        []certstore.Client       // that API files register for LeftOut
	Release          int                      // the version of the files that came from the store; 0: none did
	Fixed            map[string]any           // settings by key that take effect with the next start only
}

// A Listener is a decision.Listener and what its profiles are made from.
type Listener struct {
	Place
	Keys                                        // of its stores, and of what its profile is made of
	decision.Listener                           // without Profiles and Door
	Believes          bool                      // it gets the door for certificates in a header
	TLS               *listenerprofiles.Options // without AlsoAskFor; nil for plain HTTP
	FileReadInterval  time.Duration             // between two looks at TLS.FilePath
}

// An API is a decision.Route and what its limits and its upstream's TLS are made from.
type API struct {
	Place
	Keys                        // "upstream" and what is within
	decision.Route              // without limits, and without Roots, Certificates and TLSDigest of its upstream
	Words          []string     // that Security was read from, for people
	Tier           string       // of the API as a whole
	ResourceTiers  []string     // of Resources, by index; "" for no limit
	Labels         []string     // of gateways that serve it; none: all do
	CAFile         string       // PEM roots for https upstreams; "" for the system's
	KeyStore       keystore.Ref // the gateway's own certificate for them; none without a Location
}

// A RateLimit says where the buckets of the tiers are.
type RateLimit struct {
	Redis     ratelimit.Redis     // zero: in this process
	OnFailure ratelimit.OnFailure // of Redis
	Timeout   time.Duration       // how long a call waits for Redis; 0: ratelimit.DefaultTimeout
}

// listener returns the listener of that name, or nil.
func (s *Spec) listener(name string) *Listener {
	for i := range s.Listeners {
		if s.Listeners[i].Name == name {
			return &s.Listeners[i]
		}
	}
	return nil
}

// keyManager returns the key manager of that name, or nil.
func (s *Spec) keyManager(name string) *token.KeyManager {
	for i := range s.KeyManagers {
		if s.KeyManagers[i].Value.Name == name {
			return &s.KeyManagers[i].Value
		}
	}
	return nil
}
