package ratelimit

import (
	"sync"
	"time"
)

// A bucket is one tier's view of a key's account. Snapshots hold buckets; the account outlives them.
type bucket struct {
	account *account
	tier    Tier
	number  uint64 // counts the buckets of the account: the newest that was used decides the tier
}

// Take implements Bucket.
func (b *bucket) Take(now time.Time) Verdict {
	b.account.mu.Lock()
	defer b.account.mu.Unlock()
	if v := b.look(now, true); !v.Allowed {
		return v
	}
	return b.spend(now)
}

func (b *bucket) share() *bucket { return b }

// look reports whether a call would pass, and changes nothing except the tier in force. A patient caller may be told
// that its verdict is Pending. The account is locked.
func (b *bucket) look(now time.Time, patient bool) Verdict {
	a := b.account
	if b.number > a.number {
		a.adopt(b, now)
	}
	return a.sign(a.meter.look(now, patient))
}

// spend takes the call that look allowed at the same time under the same lock.
func (b *bucket) spend(now time.Time) Verdict {
	a := b.account
	v := a.sign(a.meter.spend(now))
	if a.calendar {
		a.note()
	}
	v.Allowed, v.RetryAfter = true, 0
	return v
}

// An account is what one key has spent, by each way of counting it has been under.
type account struct {
	id     uint64 // for the order of locking; never 0
	key    Key
	shared *shared // nil: it is counted in this process
	ledger *ledger // nil: nothing is kept

	mu     sync.Mutex
	number uint64 // of the bucket whose tier is in force; 0 until the first call
	tier   string // that tier's name
	meter  meter  // the one of those below that counts it
	tokens tokens
	days   quota
	months quota
	leased [len(scripts)]*leased // the same of a shared account, as far as they have been in force

	calendar bool // the meter is a quota
	unkept   bool // the ledger has a note of it

	changedBefore *account // the next in the ledger's list; the ledger's while unkept

	// The rest belongs to the Limiter and its lock.
	newest      *bucket
	bucketCount uint64
	handedOut   bool // by Bucket, since the last Sweep
}

// A meter counts one account in one way. What is spent stays spent when it is fitted to another tier.
type meter interface {
	fit(t Tier, now time.Time)
	look(now time.Time, patient bool) Verdict // Level and Tier are left out; Allowed reports whether spend may be called
	spend(now time.Time) Verdict              // of what look has just allowed; reports what is left then
	whole(now time.Time) bool                 // nothing spent: forgetting it gives nothing away
}

// adopt puts b's tier in force.
func (a *account) adopt(b *bucket, now time.Time) {
	a.meter = a.meterFor(b.tier)
	if a.calendar = b.tier.TimeUnit.calendar() && b.tier.RequestCount > 0; a.calendar {
		a.recall(b.tier, now)
	}
	a.meter.fit(b.tier, now)
	a.number, a.tier = b.number, b.tier.Name
}

// meterFor picks the meter for a tier, which is valid or has no numbers at all.
func (a *account) meterFor(t Tier) meter {
	switch {
	case t.RequestCount == 0:
		return &closed{window: t.window()}
	case a.shared != nil:
		return a.lease(t)
	case t.TimeUnit == Day:
		return &a.days
	case t.TimeUnit == Month:
		return &a.months
	}
	return &a.tokens
}

func (a *account) sign(v Verdict) Verdict {
	v.Level, v.Tier = a.key.Level, a.tier
	return v
}

func (a *account) whole(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.leased {
		if l != nil && !l.whole(now) {
			return false
		}
	}
	return a.tokens.whole(now) && a.days.whole(now) && a.months.whole(now)
}

// closed is the meter of a tier that lets none pass.
type closed struct {
	window time.Duration
}

func (c *closed) fit(Tier, time.Time) {}

func (c *closed) look(time.Time, bool) Verdict {
	return Verdict{Window: c.window, Reset: c.window, RetryAfter: c.window}
}

func (c *closed) spend(time.Time) Verdict { return Verdict{} }
func (c *closed) whole(time.Time) bool    { return true }
