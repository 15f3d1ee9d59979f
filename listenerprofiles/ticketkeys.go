package listenerprofiles

import (
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync"
	"time"
)

// A key that leaks opens every session that it has ever sealed (RFC 5077 section 5.5), so none is kept for long.
const (
	ticketKeyRotation = 12 * time.Hour // for so long a key seals new tickets
	ticketKeyLifetime = 24 * time.Hour // and until it is so old it opens them
)

// ticketKeys are the session-ticket keys of one profile. They are never shared: without keys of its own, a config that
// GetConfigForClient returns uses the listener's, and a session of one profile would be resumed in another.
type ticketKeys struct {
	mu   sync.Mutex
	keys []ticketKey // newest first
	told bool        // the configs have them
}

type ticketKey struct {
	bytes [32]byte
	made  time.Time
}

// age is negative when the clock was set back: nobody knows then how old the key is.
func (k ticketKey) age(now time.Time) time.Duration { return now.Sub(k.made) }

// rotate sees to the keys of the profile's session tickets, and returns how long nothing is due.
func (p *Profile) rotate(now time.Time) time.Duration {
	if p.Any == nil {
		return p.tickets.rotate(now, p.TLS)
	}
	return p.tickets.rotate(now, p.TLS, p.Any)
}

// follow takes over the keys of a profile that t's takes the place of and that judges clients by the same: a renewed
// server certificate costs nobody a session.
func (t *ticketKeys) follow(last *ticketKeys) {
	last.mu.Lock()
	defer last.mu.Unlock()
	t.keys = slices.Clone(last.keys)
}

// rotate drops what is too old from configs, puts a new key first if it is time for one, and returns how long nothing
// is due.
func (t *ticketKeys) rotate(now time.Time, configs ...*tls.Config) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.keys)
	t.keys = slices.DeleteFunc(t.keys, func(k ticketKey) bool { return k.age(now) < 0 || k.age(now) >= ticketKeyLifetime })
	changed := len(t.keys) != before || !t.told
	if len(t.keys) == 0 || t.keys[0].age(now) >= ticketKeyRotation {
		fresh := ticketKey{made: now}
		rand.Read(fresh.bytes[:])
		t.keys = slices.Insert(t.keys, 0, fresh)
		changed = true
	}
	if changed {
		var all [][32]byte
		for _, k := range t.keys {
			all = append(all, k.bytes)
		}
		for _, c := range configs {
			c.SetSessionTicketKeys(all) // allowed while handshakes use c
		}
		t.told = true
	}
	return min(ticketKeyRotation-t.keys[0].age(now), ticketKeyLifetime-t.keys[len(t.keys)-1].age(now))
}
