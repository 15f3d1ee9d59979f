// Package ratelimit holds callers to the tiers they were given.
package ratelimit

import "time"

// A Level is the kind of limit a bucket counts for. The zero Level is no level.
type Level uint8

const (
	LevelAPI      Level = iota + 1 // the API as a whole, whoever calls
	LevelResource                  // one resource and method of the API
	LevelClient                    // one registered certificate of the API
)

// String is the level's name as clients see it in the RateLimit fields, or "" for no level.
func (l Level) String() string {
	switch l {
	case LevelAPI:
		return "api"
	case LevelResource:
		return "resource"
	case LevelClient:
		return "certificate"
	}
	return ""
}

// A Key is the identity of a bucket: two calls with the same Key share one allowance, two Keys never do.
type Key struct {
	API     string // name and version, such as "orders:1.0.0"
	Level   Level
	KeyType string // PRODUCTION or SANDBOX; empty where the level knows no key types
	Name    string // the certificate's alias, or the resource's template and method; empty at LevelAPI
}

// A Verdict is the outcome of taking from one limit or several. Its zero value refuses.
type Verdict struct {
	Allowed    bool
	Level      Level         // the limit that is reported: the one that refused, else the one with least remaining
	Tier       string        // that limit's tier, by name
	Limit      int           // calls a Window
	Remaining  int           // calls that would pass now, after this one; at most the tier's burst
	Reset      time.Duration // until the allowance is whole again; exact at the moment of the call
	RetryAfter time.Duration // refused: until one call can pass, or a Window where none ever will; 0 if allowed
	Window     time.Duration // the tier's period, and for a month its own length; 0 if no limit applied

	Uncounted bool // allowed, or refused, because Redis does not answer: OnFailure says so
	pending   bool
}

// Pending reports that there is no outcome yet, since a bucket has to ask Redis: Await waits for it.
func (v Verdict) Pending() bool { return v.pending }

// A Bucket is the allowance of one Key. It is found once, when a snapshot is built, and used by any number of calls at
// once. A nil Bucket is no limit. Only this package makes buckets, since a call must take from several as one.
type Bucket interface {
	// Take takes one call from the bucket, or nothing if it refuses. It allocates only with the first call under a
	// tier.
	Take(now time.Time) Verdict

	// share is the bucket's hold on its account, which other snapshots' buckets may share.
	share() *bucket
}

// TakeAll takes one call from each bucket, or from none if one refuses, so that a refused call costs nothing.
// The order is the order of blame: of several that refuse, the first is reported. Nil buckets are skipped, and a call
// under no limit at all is allowed with a zero Limit and Window. Whatever calls run at once, none sees half of another.
//
// If buckets are shared and this process has no lease on one of them, the Verdict is Pending.
func TakeAll(now time.Time, buckets ...Bucket) Verdict { return takeAll(now, true, buckets) }

func takeAll(now time.Time, patient bool, buckets []Bucket) Verdict {
	if only, others := first(buckets); !others {
		if only == nil {
			return Verdict{Allowed: true}
		}
		if patient {
			return only.Take(now)
		}
	}
	lockAll(buckets)
	defer unlockAll(buckets)

	pending := Verdict{}
	for _, b := range buckets {
		if b == nil {
			continue
		}
		switch v := b.share().look(now, patient); {
		case v.pending:
			pending = v
		case !v.Allowed: // whatever the others will say
			return v
		}
	}
	if pending.pending {
		return pending
	}
	least := Verdict{Allowed: true}
	for i, b := range buckets {
		if b == nil || heldBefore(buckets[:i], b) {
			continue
		}
		v := b.share().spend(now)
		if least.Window == 0 || v.Window != 0 && v.Remaining < least.Remaining {
			least = v
		}
	}
	return least
}

// first is the first bucket that is one, and whether there are others.
func first(buckets []Bucket) (b Bucket, others bool) {
	for _, next := range buckets {
		switch {
		case next == nil:
		case b != nil:
			return b, true
		default:
			b = next
		}
	}
	return b, false
}

// lockAll locks the accounts in the order of their ids, each once, whatever order the buckets come in: calls that name
// the same limits differently can't wait for each other in a ring.
func lockAll(buckets []Bucket) {
	for last := uint64(0); ; {
		next := (*account)(nil)
		for _, b := range buckets {
			if b == nil {
				continue
			}
			if a := b.share().account; a.id > last && (next == nil || a.id < next.id) {
				next = a
			}
		}
		if next == nil {
			return
		}
		next.mu.Lock()
		last = next.id
	}
}

func unlockAll(buckets []Bucket) {
	for i, b := range buckets {
		if b != nil && !heldBefore(buckets[:i], b) {
			b.share().account.mu.Unlock()
		}
	}
}

// heldBefore reports whether one of the earlier buckets draws on the same account as b: a limit that is named twice
// is one limit.
func heldBefore(earlier []Bucket, b Bucket) bool {
	for _, e := range earlier {
		if e != nil && e.share().account == b.share().account {
			return true
		}
	}
	return false
}
