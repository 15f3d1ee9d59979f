package decision

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/certstore"
)

// MaxUses is how many registrations are counted each for itself. What comes on top is counted together, so that a large
// store makes no endless metrics.
const MaxUses = 1000

// A Use is how a registration has been used since it came into force: by calls that showed its certificate for its API,
// whatever was decided by it.
type Use struct {
	Client   *certstore.Client // nil: all that are counted together
	Calls    uint64
	Refusals uint64    // those of them that the gateway answered itself
	Seen     time.Time // to the second; zero: never
}

// uses count what Use tells. Nothing is locked to count.
type uses struct {
	calls, refusals atomic.Uint64
	seen            atomic.Int64 // Unix time; 0: never
}

func (u *uses) count(refused bool, now time.Time) {
	u.calls.Add(1)
	if refused {
		u.refusals.Add(1)
	}
	if second := now.Unix(); u.seen.Load() != second {
		u.seen.Store(second)
	}
}

func (u *uses) read(c *certstore.Client) Use {
	now := Use{Client: c, Calls: u.calls.Load(), Refusals: u.refusals.Load()}
	if seen := u.seen.Load(); seen != 0 {
		now.Seen = time.Unix(seen, 0)
	}
	return now
}

// A registrationKey is what a registration keeps when its certificate, tier or scopes change.
type registrationKey struct {
	api     certstore.API
	keyType certstore.KeyType
	alias   string
}

// usage keeps the uses of registrations from one Clients to the next. Its zero value is empty.
type usage struct {
	mu   sync.Mutex
	kept map[registrationKey]*uses
	rest uses // of those beyond MaxUses
}

// adopt gives each registration of c its uses, before c is put into force, and forgets those that c has not.
func (u *usage) adopt(c *Clients) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.uses, c.rest = make(map[*certstore.Client]*uses, min(c.index.Len(), MaxUses)), &u.rest
	kept := make(map[registrationKey]*uses, min(c.index.Len(), MaxUses))
	for key, known := range u.kept {
		if r := c.index.Named(key.api, key.keyType, key.alias); r != nil {
			kept[key], c.uses[r] = known, known
		}
	}
	u.kept = kept
	for _, r := range c.All() {
		if len(kept) == MaxUses || len(c.uses) == c.index.Len() {
			break
		}
		if c.uses[r] == nil {
			c.uses[r] = new(uses)
			kept[registrationKey{r.API, r.KeyType, r.Alias}] = c.uses[r]
		}
	}
}

// Uses tells how each registration in force is used, and at last, without a Client, how all that are beyond MaxUses are.
func (d *Decider) Uses() (list []Use) {
	c := d.Snapshot().Clients
	for _, r := range c.All() {
		if u := c.uses[r]; u != nil {
			list = append(list, u.read(r))
		}
	}
	if len(list) < c.index.Len() {
		list = append(list, c.rest.read(nil))
	}
	return list
}

// countUse counts the call for the registration of the certificate that it showed, good or not.
func (x *Exchange) countUse(now time.Time) {
	r, clients := x.registration, x.Snapshot.Clients
	if r == nil && x.Certificate != nil && x.Route != nil {
		r = clients.Find(x.Route.API, x.Certificate.Fingerprint)
	}
	if r == nil {
		return
	}
	u := clients.uses[r]
	if u == nil {
		u = clients.rest
	}
	u.count(x.refused(), now)
}

// refused reports whether the gateway has answered the call itself. One that was broken off, or whose client has gone, was
// answered by nobody.
func (x *Exchange) refused() bool {
	if x.Err == nil {
		return false
	}
	var r *Refusal
	return errors.As(x.Err, &r) && r.Reason != ClientGone
}
