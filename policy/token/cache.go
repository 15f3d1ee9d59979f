package token

import (
	"crypto/sha256"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"
)

// A cache remembers verified tokens by the SHA-256 of the whole token, signature included. Nothing in it is believed
// without a look at the clock and at the keys: entries that no longer hold are dropped when they are met, or evicted.
type cache struct {
	entries *otter.Cache[[sha256.Size]byte, *entry]
}

// An entry is a token that was good: from and until say when, by its own times with leeway.
type entry struct {
	claims      *Claims
	from, until time.Time
	keys        *keyring // its issuer's
	key         *key     // the one that verified it
	weight      uint32   // in KiB begun
}

func newCache(size int) *cache {
	// Without otter's expiry, which needs a clock of its own and a goroutine that nothing waits for.
	return &cache{entries: otter.Must(&otter.Options[[sha256.Size]byte, *entry]{
		MaximumWeight: uint64(size),
		Weigher:       func(_ [sha256.Size]byte, e *entry) uint32 { return e.weight },
	})}
}

func (c *cache) add(raw string, e *entry) {
	e.weight = uint32(len(raw)+1023) / 1024
	c.entries.Set(digest(raw), e)
}

func (c *cache) find(raw string, now time.Time) (*Claims, bool) {
	if len(raw) > maxToken {
		return nil, false
	}
	sum := digest(raw)
	e, ok := c.entries.GetIfPresent(sum)
	if !ok {
		return nil, false
	}
	if !now.Before(e.until) || !e.keys.holds(e.key, now) {
		c.entries.Invalidate(sum)
		return nil, false
	}
	if now.Before(e.from) {
		return nil, false // the clock was set back
	}
	return e.claims, true
}

// digest reads the token where it is: a copy would be one allocation for each call, BenchmarkCached.
func digest(raw string) [sha256.Size]byte {
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw)))
}
