package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/listenerprofiles"
)

// A source is the KeySource of one order.
type source struct {
	m     *Manager
	order listenerprofiles.Order
}

// Source returns the KeySource of an order, the same one each time. The first Keys of it reads the storage.
func (m *Manager) Source(order listenerprofiles.Order) listenerprofiles.KeySource {
	key := strings.Join(order.Names, " ") + "/" + strings.Join(order.KeyTypes, " ")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sources[key] == nil {
		m.sources[key] = &source{m, order}
	}
	return m.sources[key]
}

// WishesOf are the certificates that an order is for.
func WishesOf(order listenerprofiles.Order) (list []Wish) {
	for _, name := range order.Names {
		list = append(list, Wish{name, order.KeyTypes})
	}
	return list
}

// Keys implements listenerprofiles.KeySource.
func (s *source) Keys(now time.Time) (listenerprofiles.Keys, error) {
	keys := listenerprofiles.Keys{From: s.m.cfg.Settings.String()}
	if s.m.cfg.TLSALPN {
		keys.Challenge = s.m.answer
	}
	var troubles []error
	for _, name := range s.order.Names {
		var have []Certificate
		for _, kind := range s.order.KeyTypes {
			c := s.m.Certificate(name, kind)
			if trouble := c.trouble(now); trouble != nil {
				troubles = append(troubles, trouble)
			}
			if c.Pair == nil {
				continue
			}
			have = append(have, c)
			keys.Renews = firstOf(keys.Renews, c.Renews)
		}
		for _, c := range valid(have, now) {
			keys.Pairs, keys.Due = append(keys.Pairs, *c.Pair), append(keys.Due, c.Renews)
		}
	}
	keys.Trouble = errors.Join(troubles...)
	return keys, nil
}

// valid leaves out what has ended, unless there is nothing else.
func valid(have []Certificate, now time.Time) []Certificate {
	good := slices.DeleteFunc(slices.Clone(have), func(c Certificate) bool { return ended(c.Pair.Leaf, now) })
	if len(good) > 0 {
		return good
	}
	return have
}

// trouble says what people have to know of a certificate; nil if nothing.
func (c Certificate) trouble(now time.Time) error {
	what := ""
	switch {
	case c.Pair == nil && c.Trouble == nil: // it is being ordered
		return nil
	case c.Pair == nil:
		what = "there is no certificate yet"
	case ended(c.Pair.Leaf, now):
		what = "the certificate has ended on " + c.Pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
	case c.Trouble != nil:
		what = "the certificate could not be renewed, and ends on " + c.Pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
	default:
		return nil
	}
	text := fmt.Sprintf("%s (%s): %s", c.Name, c.Kind, what)
	if c.Trouble != nil {
		text += ": " + shownError(c.Trouble)
	}
	if !c.Next.IsZero() {
		text += "; the next attempt is on " + c.Next.UTC().Format(time.RFC3339)
	}
	return errors.New(text)
}

// answer returns the certificate that answers a validation by TLS-ALPN-01.
func (m *Manager) answer(ctx context.Context, serverName string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	if cert := m.book.Certificate(ctx, serverName); cert != nil {
		return cert, nil
	}
	return nil, errors.New("no validation of " + cmp.Or(shown(serverName), "a nameless host") + " is pending")
}
