package ratelimit

import (
	"sync"
	"time"
)

// A Limiter keeps the buckets of snapshots. It holds one for each Key that a snapshot asked for, and none for a caller
// that no snapshot names, so it doesn't grow with traffic. Make it with NewLocal or New.
type Limiter struct {
	now    func() time.Time
	shared *shared // nil: all is counted in this process
	ledger *ledger // nil: what is counted ends with this process

	mu       sync.Mutex
	accounts map[Key]*account
	lastID   uint64
}

// NewLocal returns an empty Limiter that counts in this process. It reads the time from now when it sweeps; nil means
// time.Now.
func NewLocal(now func() time.Time) *Limiter {
	if now == nil {
		now = time.Now
	}
	return &Limiter{now: now, accounts: make(map[Key]*account)}
}

// Bucket returns the bucket of key under tier: the same one as before for an equal tier, so that a reload leaves it
// alone, and nil if the tier is Unlimited. A tier that is not valid gives a bucket that refuses.
//
// With another tier than before, the new bucket draws on the same account: what was spent stays spent, and changing
// tiers to and fro gives nothing. The account takes on the new tier with the first call from the new bucket, so that a
// snapshot which is built and thrown away changes nothing; calls from older buckets count under the new tier from then
// on.
func (l *Limiter) Bucket(key Key, tier Tier) Bucket {
	valid := tier.Validate() == nil
	if tier.Unlimited && valid {
		return nil
	}
	if !valid {
		tier = Tier{Name: tier.Name}
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[key]
	if a == nil {
		l.lastID++
		a = &account{id: l.lastID, key: key, shared: l.shared, ledger: l.ledger}
		l.accounts[key] = a
	}
	a.handedOut = true
	if a.newest == nil || a.newest.tier != tier {
		a.bucketCount++
		a.newest = &bucket{account: a, tier: tier, number: a.bucketCount}
	}
	return a.newest
}

// Sweep drops unneeded buckets: those whose key keep rejects, that are full again, and that Bucket has not returned
// since the previous Sweep. Call it now and then with the keys of the snapshot in force; a client that was removed and
// comes back finds its bucket as it left it. It returns how many it forgot. keep must not call l.
func (l *Limiter) Sweep(keep func(Key) bool) int {
	now := l.now()
	l.ledger.sweep(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	forgotten := 0
	for key, a := range l.accounts {
		fresh := a.handedOut
		a.handedOut = false
		if fresh || keep(key) || !a.whole(now) {
			continue
		}
		delete(l.accounts, key)
		forgotten++
	}
	return forgotten
}

// Len is the number of keys that have a bucket.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accounts)
}
