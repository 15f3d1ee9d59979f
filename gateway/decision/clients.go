package decision

import (
	"crypto/sha256"
	"fmt"

	"sallyport/certstore"
	"sallyport/policy/ratelimit"
)

// Clients is the registered certificates with their allowances. It never changes. The zero Clients has none.
type Clients struct {
	index   *certstore.Index
	buckets map[*certstore.Client]ratelimit.Bucket // an entry for each client whose tier is known; nil: unlimited
	keys    map[ratelimit.Key]struct{}
	prints  map[[sha256.Size]byte]struct{} // of all registered certificates, whatever the API
	uses    map[*certstore.Client]*uses    // since it is in force
}

// NewClients joins the registered certificates with the buckets of their tiers, which live on in limits from one
// Clients to the next. A client whose tier does not exist is kept, so that it can be named, and never admitted;
// unknown names them.
func NewClients(index *certstore.Index, tiers *ratelimit.Tiers, limits *ratelimit.Local) (c *Clients, unknown []error) {
	c = &Clients{
		index:   index,
		buckets: make(map[*certstore.Client]ratelimit.Bucket, index.Len()),
		keys:    make(map[ratelimit.Key]struct{}, index.Len()),
		prints:  make(map[[sha256.Size]byte]struct{}, index.Len()),
	}
	for _, client := range index.Clients() {
		c.prints[client.Fingerprint] = struct{}{}
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

// All returns every registration. The caller does not change it.
func (c *Clients) All() []*certstore.Client { return c.index.Clients() }

// Holds reports whether that limit of a certificate is in use.
func (c *Clients) Holds(key ratelimit.Key) bool {
	_, ok := c.keys[key]
	return ok
}
