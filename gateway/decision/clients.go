package decision

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"sallyport/certstore"
	"sallyport/listenerprofiles"
	"sallyport/policy/ratelimit"
)

// Clients is the registered certificates with their allowances. It never changes. The zero Clients has none.
type Clients struct {
	index   *certstore.Index
	buckets map[*certstore.Client]ratelimit.Bucket // an entry for each client whose tier is known; nil: unlimited
	keys    map[ratelimit.Key]struct{}
	prints  map[[sha256.Size]byte][]*certstore.Client // of all registered certificates, whatever the API
	uses    map[*certstore.Client]*uses               // since it is in force

	selfIssued []*certstore.Client // issuer and subject have one name; perhaps self-signed
}

// NewClients joins the registered certificates with the buckets of their tiers, which live on in limits from one
// Clients to the next. A client whose tier does not exist is kept, so that it can be named, and never admitted;
// unknown names them.
func NewClients(index *certstore.Index, tiers *ratelimit.Tiers, limits *ratelimit.Limiter) (c *Clients, unknown []error) {
	c = &Clients{
		index:   index,
		buckets: make(map[*certstore.Client]ratelimit.Bucket, index.Len()),
		keys:    make(map[ratelimit.Key]struct{}, index.Len()),
		prints:  make(map[[sha256.Size]byte][]*certstore.Client, index.Len()),
	}
	for _, client := range index.Clients() {
		c.prints[client.Fingerprint] = append(c.prints[client.Fingerprint], client)
		if bytes.Equal(client.Certificate.RawIssuer, client.Certificate.RawSubject) {
			c.selfIssued = append(c.selfIssued, client)
		}
		tier, ok := tiers.Find(client.Tier)
		if !ok {
			unknown = append(unknown, fmt.Errorf("client certificate %s of %s (%s): tier %q does not exist: it is refused until the tier is configured",
				client.Alias, client.API, client.Source, client.Tier))
			continue
		}
		key := clientKey(client)
		c.buckets[client] = limits.Bucket(key, tier)
		c.keys[key] = struct{}{}
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
	return slices.ContainsFunc(c.prints[fingerprint], func(client *certstore.Client) bool { return routes.Serves(client.API, l) })
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

// Holds reports whether that limit of a certificate is in use.
func (c *Clients) Holds(key ratelimit.Key) bool {
	_, ok := c.keys[key]
	return ok
}
