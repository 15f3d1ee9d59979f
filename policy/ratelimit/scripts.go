package ratelimit

import (
	"crypto/sha1"
	_ "embed" // of the scripts
	"encoding/hex"
	"strconv"
)

// A script is what Redis runs for one exchange with one bucket.
type script struct {
	suffix  string // of its keys
	source  string
	keys    int
	command string // EVALSHA's name of it
}

var (
	//go:embed tokens.lua
	tokensSource string
	//go:embed quota.lua
	quotaSource string
	//go:embed presence.lua
	presenceSource string
)

// The clocks that scripts go by: Redis's own, or a test's, whose time is the last argument.
const (
	redisClock = "local clock = redis.call('TIME')\nlocal now = clock[1] * 1000000 + clock[2]\n"
	testClock  = "local now = tonumber(table.remove(ARGV))\n"
)

// The kinds of shared meters, which index the scripts.
const (
	sharedTokens = iota
	sharedDays
	sharedMonths
	presence
)

var scripts = [...]struct{ suffix, source string }{
	sharedTokens: {"t", tokensSource},
	sharedDays:   {"d", quotaSource},
	sharedMonths: {"m", quotaSource},
	presence:     {"n", presenceSource},
}

// newScripts are the scripts by a clock.
func newScripts(clock string) (list [len(scripts)]script) {
	for i, s := range scripts {
		list[i] = script{suffix: s.suffix, source: clock + s.source, keys: 1}
		sum := sha1.Sum([]byte(list[i].source)) // as Redis names scripts
		list[i].command = hex.EncodeToString(sum[:])
	}
	list[sharedTokens].keys = 2
	return list
}

// slots is how many hash slots a cluster has.
const slots = 1 << 14

// slot is the hash slot of a key with that tag: CRC-16/XMODEM (Redis cluster specification, "Key distribution model").
func slot(tag string) int {
	crc := uint16(0)
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slots
}

// tagWithin returns a tag whose slot is in [from, to).
func tagWithin(from, to int) string {
	for i := 0; ; i++ {
		tag := "n" + strconv.Itoa(i)
		if s := slot(tag); from <= s && s < to {
			return tag
		}
	}
}
