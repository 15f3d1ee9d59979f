package certstore

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"sallyport/internal/ends"
	"sallyport/internal/printable"
)

// An Index finds a registration by API and certificate. It never changes; it is replaced.
// A nil Index finds nothing.
type Index struct {
	clients []*Client
	byProof map[proof]*Client
	byName  map[name]*Client
}

// proof is what a caller presents: a certificate, for an API.
type proof struct {
	api         API
	fingerprint [32]byte
}

// NewIndex builds an Index of clients, which it copies and whose fingerprints it computes. It is an error, naming both
// Sources, if for one API an alias of one key type or one certificate appears twice, and an error matching ErrInvalid
// if a client is not complete.
func NewIndex(clients []Client) (*Index, error) { return (*Index)(nil).Next(clients) }

// Next builds an Index as NewIndex does, in a fraction of the time if x has most of the clients in this order: a Client
// that is the same, with the same parsed certificate and its fingerprint, is taken over from x.
func (x *Index) Next(clients []Client) (*Index, error) {
	old := x.Clients()
	first, last := ends.Common(old, clients, func(known **Client, c *Client) bool { return (*known).same(c) })
	next := &Index{clients: make([]*Client, 0, len(clients))}
	all := x == nil || first+last < max(len(old), len(clients))/2
	if all {
		next.byProof, next.byName = make(map[proof]*Client, len(clients)), make(map[name]*Client, len(clients))
	} else {
		next.byProof, next.byName = maps.Clone(x.byProof), maps.Clone(x.byName)
		for _, c := range old[first : len(old)-last] {
			delete(next.byProof, c.proof())
			delete(next.byName, c.name())
		}
	}
	var errs []error
	for i := range clients {
		var client *Client
		var err error
		switch {
		case i < first:
			client = old[i]
		case i >= len(clients)-last:
			client = old[i-len(clients)+len(old)]
		default:
			client, err = x.takeOver(&clients[i])
		}
		if err == nil && (all || i >= first && i < len(clients)-last) {
			err = next.add(client)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		next.clients = append(next.clients, client)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return next, nil
}

// takeOver returns x's Client that is equal to c, or a complete copy of c.
func (x *Index) takeOver(c *Client) (*Client, error) {
	if known := x.Find(c.API, c.Fingerprint); known != nil && known.same(c) {
		return known, nil
	}
	client, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("client %s of API %s (%s): %w", printable.Quote(c.Alias), printable.Quote(c.API.String()), c.Source, err)
	}
	return &client, nil
}

// same reports whether two Clients are equal, and their certificate the same.
func (c *Client) same(other *Client) bool {
	return c.API == other.API && c.Fingerprint == other.Fingerprint && c.Certificate == other.Certificate && c.Alias == other.Alias && c.KeyType == other.KeyType &&
		c.Tier == other.Tier && c.Source == other.Source && slices.Equal(c.Scopes, other.Scopes) && c.Match.Equal(other.Match)
}

func (x *Index) add(c *Client) error {
	if other := x.byName[c.name()]; other != nil {
		return fmt.Errorf("alias %s (%s) of API %s is in %s and in %s",
			printable.Quote(c.Alias), c.KeyType, printable.Quote(c.API.String()), other.Source, c.Source)
	}
	if other := x.byProof[c.proof()]; other != nil {
		return fmt.Errorf("one certificate is registered twice for API %s: as %s (%s) in %s and as %s (%s) in %s",
			printable.Quote(c.API.String()), printable.Quote(other.Alias), other.KeyType, other.Source, printable.Quote(c.Alias), c.KeyType, c.Source)
	}
	x.byName[c.name()] = c
	x.byProof[c.proof()] = c
	return nil
}

// Find returns the registration of a certificate, given by the SHA-256 of its DER, for api, or nil. It does not
// allocate. The Client belongs to the Index and must not be changed.
func (x *Index) Find(api API, fingerprint [32]byte) *Client {
	if x == nil {
		return nil
	}
	return x.byProof[proof{api, fingerprint}]
}

// Named returns the registration of an alias, or nil. The Client must not be changed.
func (x *Index) Named(api API, keyType KeyType, alias string) *Client {
	if x == nil {
		return nil
	}
	return x.byName[name{api, keyType, alias}]
}

// Clients returns all registrations in the order in which NewIndex received them. Neither they nor the slice may be
// changed.
func (x *Index) Clients() []*Client {
	if x == nil {
		return nil
	}
	return x.clients
}

// Len is the number of registrations.
func (x *Index) Len() int { return len(x.Clients()) }

// name identifies a registration among the live ones.
type name struct {
	api     API
	keyType KeyType
	alias   string
}

func (c *Client) name() name   { return name{c.API, c.KeyType, c.Alias} }
func (c *Client) proof() proof { return proof{c.API, c.Fingerprint} }
