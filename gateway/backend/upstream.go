package backend

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"sallyport/internal/contain"
	"sallyport/listenerprofiles/trust"
)

// An Upstream says which servers an API's calls go to, and how.
type Upstream struct {
	URLs         []*url.URL    // taken in turn
	SandboxURLs  []*url.URL    // for SANDBOX certificates
	PreserveHost bool          // send the client's Host instead of the server's
	Timeout      time.Duration // for the head of the answer, counted from the end of the request; 0: 60 s
	// ConnectTimeout is how long a connection to a server may take to stand, and then its TLS handshake; 0: 5 s.
	ConnectTimeout time.Duration
	IdleTimeout    time.Duration // for how long a connection is kept without a call; 0: 55 s
	MaxCalls       int           // under way at once, in each environment of the API; and as many tunnels and streams; 0: 2,048
	// MaxCallsPerCaller is how many of them may be of one caller; 0: three quarters of MaxCalls.
	MaxCallsPerCaller int
	// StreamIdleTimeout is for how long nothing may pass either way in a tunnel, and in an answer or request that has
	// begun; 0: 10 min.
	StreamIdleTimeout time.Duration
	// BodyRate is how many bytes a second a client has to send or take of a body on average, except to send of one whose
	// answer has begun; 0: as for all APIs; negative: any number.
	BodyRate     int
	Protocol     Protocol
	Roots        *x509.CertPool    // who may certify an https server; nil: the system's
	Certificates []tls.Certificate // the gateway's own, for an https server; none: it shows none
	TLSDigest    [sha256.Size]byte // tells one Roots and Certificates from another; zero if there are neither
}

func (u Upstream) withDefaults() Upstream {
	if u.Timeout == 0 {
		u.Timeout = time.Minute
	}
	if u.ConnectTimeout == 0 {
		u.ConnectTimeout = 5 * time.Second // a lost SYN is sent again after 1 s and after 3 s
	}
	if u.IdleTimeout == 0 {
		u.IdleTimeout = 55 * time.Second
	}
	if u.MaxCalls == 0 {
		u.MaxCalls = 2048
	}
	if u.MaxCallsPerCaller == 0 {
		u.MaxCallsPerCaller = DefaultShare(u.MaxCalls)
	}
	if u.StreamIdleTimeout == 0 {
		u.StreamIdleTimeout = 10 * time.Minute
	}
	return u
}

// DefaultShare is how many of an environment's calls may be of one caller, unless somebody says otherwise: three
// quarters, so that there is room for others whatever one does.
func DefaultShare(maxCalls int) int { return max(1, maxCalls-maxCalls/4) }

// A Protocol is what the gateway speaks to a server. Its zero value is HTTP/1.1, plain or over TLS.
type Protocol uint8

const (
	HTTP1 Protocol = iota
	HTTP2          // over TLS
	H2C            // HTTP/2 in the clear, with prior knowledge
)

// Environments of an API, each with servers and counts of its own.
const (
	Production = "production"
	Sandbox    = "sandbox"
)

// A Group is the servers of one environment of an API. It never changes, except for its counts, which it shares with
// the Groups that the Registry made for the same environment before.
type Group struct {
	Upstream
	servers []*Server
	counts  *counts
}

// counts are what is known of an environment whatever its servers are.
type counts struct {
	turn    atomic.Uint32 // whose turn it is
	calls   budget
	streams budget // and tunnels
}

// HTTP1 reports whether the servers speak HTTP/1.1.
func (g *Group) HTTP1() bool { return g.Protocol == HTTP1 }

// next returns whose turn it is.
func (g *Group) next() int {
	if len(g.servers) == 1 {
		return 0
	}
	return int(g.counts.turn.Add(1)-1) % len(g.servers)
}

// A Registry keeps what outlives a reload: servers with their connections, and the counts of each environment. Its zero
// value is empty.
type Registry struct {
	Faults *contain.Faults // told of panics that belong to no call; set before the first Group
	// Denied is the deny list in force, which servers are held to as well; nil: there is none. Set before the first Group.
	Denied func() *trust.Denials

	mu      sync.Mutex
	servers map[serverKey]*Server
	counts  map[countsKey]weak.Pointer[counts] // which live as long as a Group has them, that of a call under way included
	figures map[string]*figures                // by the servers' Names, MaxFigures at most
	others  figures                            // of all that are beyond
}

type serverKey struct {
	url      string
	protocol Protocol
	tls      [sha256.Size]byte
	connect  time.Duration
	idle     time.Duration
}

type countsKey struct{ api, environment string }

// Group returns the group of an environment; nil if it has no servers.
func (r *Registry) Group(api, environment string, u Upstream) *Group {
	urls := u.URLs
	if environment == Sandbox {
		urls = u.SandboxURLs
	}
	if len(urls) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers == nil {
		r.servers, r.counts, r.figures = map[serverKey]*Server{}, map[countsKey]weak.Pointer[counts]{}, map[string]*figures{}
	}
	key := countsKey{api, environment}
	g := &Group{Upstream: u.withDefaults(), counts: r.counts[key].Value()}
	if g.counts == nil {
		g.counts = new(counts)
		r.counts[key] = weak.Make(g.counts)
	}
	for _, at := range urls {
		key := serverKey{at.String(), u.Protocol, u.TLSDigest, g.ConnectTimeout, g.IdleTimeout}
		if r.servers[key] == nil {
			s := newServer(g.Upstream, at, r.Faults, r.Denied)
			s.figures.Store(r.figuresOf(s.Name))
			r.servers[key] = s
		}
		g.servers = append(g.servers, r.servers[key])
	}
	return g
}

// figuresOf returns the figures of all servers of a name.
func (r *Registry) figuresOf(name string) *figures {
	if r.figures[name] == nil {
		if len(r.figures) >= MaxFigures {
			return &r.others
		}
		r.figures[name] = new(figures)
	}
	return r.figures[name]
}

// Retain lets go of the servers that none of the groups has: their idle connections are closed, calls under way on them
// finish. Counts of an environment that none of the groups is of are kept while calls know it, those included that have
// yet to be sent.
func (r *Registry) Retain(groups []*Group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	servers, named := map[*Server]bool{}, map[string]bool{}
	for _, g := range groups {
		for _, s := range g.servers {
			servers[s], named[s.Name] = true, true
		}
	}
	for key, s := range r.servers {
		if !servers[s] {
			delete(r.servers, key)
			s.Close()
		}
	}
	for name := range r.figures {
		if !named[name] {
			delete(r.figures, name)
		}
	}
	for _, s := range r.servers {
		if s.figures.Load() == &r.others { // there may be room by now: these came while the others were still there
			s.figures.Store(r.figuresOf(s.Name))
		}
	}
	for key, c := range r.counts {
		if c.Value() == nil {
			delete(r.counts, key)
		}
	}
}

// Close lets go of all servers.
func (r *Registry) Close() { r.Retain(nil) }
