package decision

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"sallyport/certstore"
	"sallyport/internal/ends"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy/ratelimit"
)

// Clients is the registered certificates with their allowances. It never changes. The zero Clients has none.
type Clients struct {
	Stored          Freshness // of registrations that are certstore.InStore; set before it is put into force
	ChainValidation bool      // a registered CA admits what it has issued; set likewise

	index   *certstore.Index
	tiers   *ratelimit.Tiers
	limits  *ratelimit.Limiter
	buckets map[*certstore.Client]ratelimit.Bucket    // an entry for each client whose tier is known; nil: unlimited
	prints  map[[sha256.Size]byte]*certstore.Client   // of all registered certificates, one of each
	more    map[[sha256.Size]byte][]*certstore.Client // the others of those that are registered for several APIs
	uses    map[*certstore.Client]*uses               // of those that are counted each for itself
	rest    *uses                                     // of all others

	cas      []*certstore.Client                // that may admit what they have issued
	issuers  *trust.Issuers                     // their certificates; the same from one Clients to the next as long as they are
	admitted *otter.Cache[admitted, *admission] // of those that CAs have issued; lives on from one Clients to the next

	selfIssued []*certstore.Client // issuer and subject have one name; perhaps self-signed
	unknown    []*certstore.Client // their tier does not exist

	byEnd func() []*certstore.Client
}

// Freshness bounds the age of what a store is believed to have. The zero value believes it for ever.
type Freshness struct {
	MaxAge time.Duration              // since Seen; 0: any
	Seen   *atomic.Pointer[time.Time] // when the store was last seen to have it; nil or empty: never
}

// over reports whether what the store has is too old at now.
func (f *Freshness) over(now time.Time) bool {
	if f.MaxAge == 0 || f.Seen == nil {
		return f.MaxAge != 0
	}
	seen := f.Seen.Load()
	return seen == nil || now.Sub(*seen) > f.MaxAge
}

// NewClients joins the registered certificates with the buckets of their tiers, which live on in limits from one
// Clients to the next. A client whose tier does not exist is kept, so that it can be named, and never admitted;
// unknown names them.
func NewClients(index *certstore.Index, tiers *ratelimit.Tiers, limits *ratelimit.Limiter) (c *Clients, unknown []error) {
	return (*Clients)(nil).Next(index, tiers, limits)
}

// Next makes Clients as NewClients does, in a fraction of the time if most of index is c's, in the same order, and tiers
// and limits are.
func (c *Clients) Next(index *certstore.Index, tiers *ratelimit.Tiers, limits *ratelimit.Limiter) (next *Clients, unknown []error) {
	next = &Clients{index: index, tiers: tiers, limits: limits}
	next.byEnd = sync.OnceValue(next.sortByEnd)
	is := index.Clients()
	var was []*certstore.Client
	if c != nil && c.tiers == tiers && c.limits == limits {
		was = c.All()
	}
	first, last := ends.Common(was, is, func(x, y **certstore.Client) bool { return *x == *y })
	gone, come := was[first:len(was)-last], is[first:len(is)-last]
	if c == nil || len(gone)+len(come) > mostChanges {
		gone, come = nil, is
		next.buckets = make(map[*certstore.Client]ratelimit.Bucket, len(is))
		next.prints = make(map[[sha256.Size]byte]*certstore.Client, len(is))
		next.more = make(map[[sha256.Size]byte][]*certstore.Client)
	} else {
		next.buckets, next.prints, next.more = maps.Clone(c.buckets), maps.Clone(c.prints), maps.Clone(c.more)
		next.selfIssued, next.unknown, next.cas = slices.Clone(c.selfIssued), slices.Clone(c.unknown), slices.Clone(c.cas)
	}
	for _, client := range gone {
		next.remove(client)
	}
	for _, client := range come {
		next.add(client)
	}
	next.adoptIssuers(c)
	for _, client := range next.unknown {
		unknown = append(unknown, fmt.Errorf("client certificate %s of %s (%s): tier %q does not exist: it is refused until the tier is configured",
			client.Alias, client.API, client.Source, client.Tier))
	}
	return next, unknown
}

// mostChanges is how many registrations are taken out and put in one by one, each at the cost of a look at many others.
const mostChanges = 100

func (c *Clients) add(client *certstore.Client) {
	if c.prints[client.Fingerprint] == nil {
		c.prints[client.Fingerprint] = client
	} else { // the array belongs to the Clients before, too
		c.more[client.Fingerprint] = slices.Concat(c.more[client.Fingerprint], []*certstore.Client{client})
	}
	if bytes.Equal(client.Certificate.RawIssuer, client.Certificate.RawSubject) {
		c.selfIssued = append(c.selfIssued, client)
	}
	if signs(client.Certificate) {
		c.cas = append(c.cas, client)
	}
	tier, ok := c.tiers.Find(client.Tier)
	if !ok {
		c.unknown = append(c.unknown, client)
		return
	}
	c.buckets[client] = c.limits.Bucket(clientKey(client), tier)
}

func (c *Clients) remove(client *certstore.Client) {
	same := func(other *certstore.Client) bool { return other == client }
	more := slices.DeleteFunc(slices.Clone(c.more[client.Fingerprint]), same)
	if c.prints[client.Fingerprint] == client {
		delete(c.prints, client.Fingerprint)
		if len(more) > 0 {
			c.prints[client.Fingerprint], more = more[0], more[1:]
		}
	}
	if c.more[client.Fingerprint] = more; len(more) == 0 {
		delete(c.more, client.Fingerprint)
	}
	c.selfIssued = slices.DeleteFunc(c.selfIssued, same)
	c.cas = slices.DeleteFunc(c.cas, same)
	c.unknown = slices.DeleteFunc(c.unknown, same)
	delete(c.buckets, client)
}

// clientKey makes the bucket the certificate's alone: WSO2's belongs to the tier, so that one client can starve
// another.
func clientKey(c *certstore.Client) ratelimit.Key {
	return ratelimit.Key{API: c.API.String(), Level: ratelimit.LevelClient, KeyType: string(c.KeyType), Name: c.Alias}
}

// Find returns the registration of that certificate for that API, or nil.
func (c *Clients) Find(api certstore.API, fingerprint [sha256.Size]byte) *certstore.Client {
	return c.index.Find(api, fingerprint)
}

// Registered reports whether that certificate is registered for any API.
func (c *Clients) Registered(fingerprint [sha256.Size]byte) bool {
	_, ok := c.prints[fingerprint]
	return ok
}

// RegisteredAt reports whether that certificate is registered for an API of routes that the listener serves.
func (c *Clients) RegisteredAt(routes *Table, l *Listener, fingerprint [sha256.Size]byte) bool {
	served := func(client *certstore.Client) bool { return routes.Serves(client.API, l) }
	one := c.prints[fingerprint]
	return one != nil && (served(one) || slices.ContainsFunc(c.more[fingerprint], served))
}

// find is Find for a registration that may admit at now: one whose tier is known, and that is fresh. The error says why
// there is none.
func (c *Clients) find(api certstore.API, fingerprint [sha256.Size]byte, now time.Time) (*certstore.Client, error) {
	client := c.Find(api, fingerprint)
	if client == nil {
		return nil, errUnregistered
	}
	if _, known := c.buckets[client]; !known {
		return nil, errUnknownTier
	}
	if client.Source == certstore.InStore && c.Stored.over(now) {
		return nil, errStale
	}
	return client, nil
}

// unnamed reports whether a registration for an API of the listener counts for a certificate whose issuer the profile does
// not name when it asks for one, be it registered itself or issued by a CA that is. Then it has to ask for any, or the client would not send its own.
func (c *Clients) unnamed(routes *Table, l *Listener, p *listenerprofiles.Profile) bool {
	if c.Issuers() != nil && slices.ContainsFunc(c.cas, func(ca *certstore.Client) bool {
		return !p.Trust.Names(ca.Certificate.RawSubject) && routes.Serves(ca.API, l)
	}) {
		return true // who shows nothing but what it has issued
	}
	clients := c.selfIssued
	if all, some := p.Vouches(); all {
		clients = c.All()
	} else if !some {
		return false
	}
	return slices.ContainsFunc(clients, func(client *certstore.Client) bool {
		return !p.Trust.Names(client.Certificate.RawIssuer) && routes.Serves(client.API, l)
	})
}

// All returns every registration. The caller does not change it.
func (c *Clients) All() []*certstore.Client { return c.index.Clients() }

// ByEnd returns every registration, those first whose certificate ends first. The caller does not change it.
func (c *Clients) ByEnd() []*certstore.Client {
	if c.byEnd == nil {
		return nil
	}
	return c.byEnd()
}

func (c *Clients) sortByEnd() []*certstore.Client {
	return slices.SortedStableFunc(slices.Values(c.All()), func(x, y *certstore.Client) int {
		return x.Certificate.NotAfter.Compare(y.Certificate.NotAfter)
	})
}

// Holds reports whether that limit of a certificate is in use.
func (c *Clients) Holds(key ratelimit.Key) bool {
	api, err := certstore.ParseAPI(key.API)
	if err != nil || key.Level != ratelimit.LevelClient {
		return false
	}
	alias, leaf, issued := strings.Cut(key.Name, "/")
	client := c.index.Named(api, certstore.KeyType(key.KeyType), alias)
	if issued {
		return c.holdsIssued(client, leaf)
	}
	_, known := c.buckets[client]
	return known
}
