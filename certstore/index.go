package certstore

import (
	"errors"
	"fmt"

	"sallyport/internal/printable"
)

// An Index finds a registration by API and certificate. It never changes; it is replaced.
// A nil Index finds nothing.
type Index struct {
	clients []*Client
	byProof map[proof]*Client
}

// proof is what a caller presents: a certificate, for an API.
type proof struct {
	api         API
	fingerprint [32]byte
}

// NewIndex builds an Index of clients, which it copies and whose fingerprints it computes. It is an error, naming both
// Sources, if for one API an alias of one key type or one certificate appears twice, and an error matching ErrInvalid
// if a client is not complete.
func NewIndex(clients []Client) (*Index, error) {
	x := &Index{
		clients: make([]*Client, 0, len(clients)),
		byProof: make(map[proof]*Client, len(clients)),
	}
	byName := make(map[name]*Client, len(clients))
	var errs []error
	for _, c := range clients {
		whole, err := c.complete()
		if err != nil {
			errs = append(errs, fmt.Errorf("client %s of API %s (%s): %w", printable.Quote(c.Alias), printable.Quote(c.API.String()), c.Source, err))
			continue
		}
		client := &whole
		if other := byName[client.name()]; other != nil {
			errs = append(errs, fmt.Errorf("alias %s (%s) of API %s is in %s and in %s",
				printable.Quote(c.Alias), c.KeyType, printable.Quote(c.API.String()), other.Source, c.Source))
			continue
		}
		if other := x.byProof[client.proof()]; other != nil {
			errs = append(errs, fmt.Errorf("one certificate is registered twice for API %s: as %s (%s) in %s and as "+
				"%s (%s) in %s",
				printable.Quote(c.API.String()), printable.Quote(other.Alias), other.KeyType, other.Source, printable.Quote(c.Alias), c.KeyType, c.Source))
			continue
		}
		byName[client.name()] = client
		x.byProof[client.proof()] = client
		x.clients = append(x.clients, client)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return x, nil
}

// Find returns the registration of a certificate, given by the SHA-256 of its DER, for api, or nil. It does not
// allocate. The Client belongs to the Index and must not be changed.
func (x *Index) Find(api API, fingerprint [32]byte) *Client {
	if x == nil {
		return nil
	}
	return x.byProof[proof{api, fingerprint}]
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
