package token

import (
	"crypto/sha256"
	"time"
)

// maxAbsent is how many kids of a generation are remembered. One that is not is asked for like a new one.
const maxAbsent = 4096

// An absentees remembers, for a cool-down each, the kids that a source of keys did not have when it was read for them.
// Its zero value remembers none.
type absentees struct {
	young, old map[[sha256.Size]byte]time.Time // by the kid's SHA-256, since a kid may be long: when the read began
	since      time.Time                       // when young began
}

func (a *absentees) has(kid string, now time.Time, coolDown time.Duration) bool {
	sum := sha256.Sum256([]byte(kid))
	read, known := a.young[sum]
	if !known {
		read, known = a.old[sum]
	}
	return known && remaining(now, read, coolDown) > 0
}

// add remembers that a read that began at read did not have kid.
func (a *absentees) add(kid string, read time.Time, coolDown time.Duration) {
	if a.young == nil || remaining(read, a.since, coolDown) == 0 {
		a.young, a.old, a.since = make(map[[sha256.Size]byte]time.Time), a.young, read
	}
	if len(a.young) < maxAbsent {
		a.young[sha256.Sum256([]byte(kid))] = read
	}
}
