package decision

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"sallyport/certstore"
	"sallyport/listenerprofiles"
	"sallyport/policy/ratelimit"
)

// Clients is the registered certificates with their allowances. It never changes. The zero Clients has none.
type Clients struct {
	index   *certstore.Index
	buckets map[*certstore.Client]ratelimit.Bucket    // an entry for each client whose tier is known; nil: unlimited
	prints  map[[sha256.Size]byte]*certstore.Client   // of all registered certificates, one of each
	more    map[[sha256.Size]byte][]*certstore.Client // the others of those that are registered for several APIs
	uses    map[*certstore.Client]*uses               // of those that are counted each for itself
	rest    *uses                                     // of all others

	selfIssued []*certstore.Client // issuer and subject have one name; perhaps self-signed

	byEnd func() []*certstore.Client
}

// NewClients joins the registered certificates with the buckets of their tiers, which live on in limits from one
// Clients to the next. A client whose tier does not exist is kept, so that it can be named, and never admitted;
// unknown names them.
func NewClients(index *certstore.Index, tiers *ratelimit.Tiers, limits *ratelimit.Limiter) (c *Clients, unknown []error) {
	c = &Clients{
		index:   index,
		buckets: make(map[*certstore.Client]ratelimit.Bucket, index.Len()),
		prints:  make(map[[sha256.Size]byte]*certstore.Client, index.Len()),
		more:    make(map[[sha256.Size]byte][]*certstore.Client),
	}
	c.byEnd = sync.OnceValue(c.sortByEnd)
	for _, client := range index.Clients() {
		if c.prints[client.Fingerprint] == nil {
			c.prints[client.Fingerprint] = client
		} else {
			c.more[client.Fingerprint] = append(c.more[client.Fingerprint], client)
		}
		if bytes.Equal(client.Certificate.RawIssuer, client.Certificate.RawSubject) {
			c.selfIssued = append(c.selfIssued, client)
		}
		tier, ok := tiers.Find(client.Tier)
		if !ok {
			unknown = append(unknown, fmt.Errorf("client certificate %s of %s (%s): tier %q does not exist: it is refused until the tier is configured",
				client.Alias, client.API, client.Source, client.Tier))
			continue
		}
		c.buckets[client] = limits.Bucket(clientKey(client), tier)
	}
	return c, unknown
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

// find is Find for a registration that may admit: one whose tier is known. The error says why there is none.
func (c *Clients) find(api certstore.API, fingerprint [sha256.Size]byte) (*certstore.Client, error) {
	client := c.Find(api, fingerprint)
	if client == nil {
		return nil, errUnregistered
	}
	if _, known := c.buckets[client]; !known {
		return nil, errUnknownTier
	}
	return client, nil
}

// unnamed reports whether a registration for an API of the listener counts for a certificate whose issuer the profile does
// not name when it asks for one. Then it has to ask for any, or the client would not send its own.
func (c *Clients) unnamed(routes *Table, l *Listener, p *listenerprofiles.Profile) bool {
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
	_, known := c.buckets[c.index.Named(api, certstore.KeyType(key.KeyType), key.Name)]
	return known
}
