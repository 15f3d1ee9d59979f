package control

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sallyport/certstore"
	"sallyport/internal/printable"
)

// bystanders are registrations that are not admitted here, the first to end first.
type bystanders struct {
	list  []*certstore.Client
	notes map[*certstore.Client]string // why
}

// findBystanders returns the registrations that a has not admitted, when somebody asks for the first time.
func (a *Assembly) findBystanders() func() bystanders {
	stored, files, elsewhere, leftOut := a.registered.clients, a.Spec.Clients, a.Spec.Elsewhere, a.Spec.LeftOut
	index := a.index
	return sync.OnceValue(func() (b bystanders) {
		if len(stored)+len(files)+len(elsewhere) == index.Len() {
			return b
		}
		b.notes = map[*certstore.Client]string{}
		add := func(c *certstore.Client, note string) {
			b.list = append(b.list, c)
			b.notes[c] = note
		}
		for _, clients := range [][]certstore.Client{elsewhere, stored, files} {
			for i := range clients {
				c := &clients[i]
				fingerprint := c.Fingerprint
				if fingerprint == [sha256.Size]byte{} {
					fingerprint = certstore.Fingerprint(c.Certificate)
				}
				if index.Find(c.API, fingerprint) != nil {
					continue
				}
				if note := servedElsewhere(leftOut, c.API); note != "" {
					add(c, note)
				} else {
					add(c, "registered in the store and in a file: neither admits it")
				}
			}
		}
		slices.SortStableFunc(b.list, func(x, y *certstore.Client) int { return x.Certificate.NotAfter.Compare(y.Certificate.NotAfter) })
		return b
	})
}

// servedElsewhere says which gateways serve an API that is left out here; "" if it isn't.
func servedElsewhere(leftOut []API, api certstore.API) string {
	for i := range leftOut {
		if leftOut[i].API == api {
			return "not served here, but by gateways labelled " + strings.Join(leftOut[i].Labels, ", ")
		}
	}
	return ""
}

// registrationsByEnd are the first of the registrations, admitted or not, as many as first says of each of the two, which
// it is given the first to end first.
func (a *Assembly) registrationsByEnd(first func([]*certstore.Client) int) (list []Certificate) {
	admitted := a.Clients.ByEnd()
	for _, c := range admitted[:first(admitted)] {
		note := ""
		switch {
		case a.Routes.Of(c.API) == nil:
			note = "no such API is served here"
		case !a.tierExists(c.Tier):
			note = fmt.Sprintf("its tier %q doesn't exist: it admits nobody", c.Tier)
		case a.Denied().Find([]*x509.Certificate{c.Certificate}) != nil:
			note = "it is on the deny list: it admits nobody"
		}
		list = append(list, registrationOf(c, note))
	}
	if a.bystanders == nil {
		return list
	}
	others := a.bystanders()
	for _, c := range others.list[:first(others.list)] {
		list = append(list, registrationOf(c, others.notes[c]))
	}
	return list
}

func (a *Assembly) tierExists(name string) bool {
	_, known := a.Spec.Tiers.Find(name)
	return known
}

func registrationOf(c *certstore.Client, note string) Certificate {
	return Certificate{
		Kind: KindClient, For: fmt.Sprintf("%s %s (%s)", c.API, printable.Text(c.Alias), c.KeyType), From: c.Source, NotAfter: c.Certificate.NotAfter, Note: note,
	}
}

// Registrations is how many registrations there are, admitted or not.
func (a *Assembly) Registrations() int {
	n := len(a.Clients.All())
	if a.bystanders != nil {
		n += len(a.bystanders().list)
	}
	return n
}

// Unusable is how many registrations of the store can't be admitted as they stand there, and are in no list.
func (a *Assembly) Unusable() int { return len(a.registered.problems) }
