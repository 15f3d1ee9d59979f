package config

import (
	"strconv"
	"strings"

	"sallyport/internal/printable"
)

const maxSize = 1 << 40 // bytes, 1024GiB

// bodySize returns the size in bytes under key, or 0 if there is none.
func (m *mapping) bodySize(key string) int64 {
	n, size, ok := m.readSize(key)
	if ok && size == 0 {
		m.load.errorf(n.Place, "%s: 0 would let no body pass: leave the key out for no limit", key)
	}
	return size
}

// size returns the size in bytes under key, from low to high, which are whole KiB, or otherwise.
func (m *mapping) size(key string, low, high, otherwise int64) int64 {
	n, size, ok := m.readSize(key)
	if ok && (size < low || size > high) {
		m.load.errorf(n.Place, "%s is to be from %dKiB to %dKiB", key, low>>10, high>>10)
		ok = false
	}
	if !ok {
		return otherwise
	}
	return size
}

// readSize reads the size under key, if there is one.
func (m *mapping) readSize(key string) (n node, size int64, ok bool) {
	if n, ok = m.take(key); !ok {
		return n, 0, false
	}
	const form = "%s is to be a number of bytes, or one of KiB, MiB or GiB, as in 65536 or 10MiB, up to 1024GiB, not %s"
	var written string
	switch n.kind() {
	case "a number":
		written = n.ast.GetToken().Value
	case "text":
		t := n.text(key)
		if !t.OK {
			return n, 0, false
		}
		written = t.Value
	default:
		m.load.errorf(n.Place, form, key, n.kind())
		return n, 0, false
	}
	if size, ok = parseSize(written); !ok {
		m.load.errorf(n.Place, form, key, printable.Quote(written))
	}
	return n, size, ok
}

// parseSize reads a size of at most maxSize: decimal digits, directly followed by a unit or none. Decimal
// units (kB, MB) are refused, since many read them as powers of two.
func parseSize(s string) (int64, bool) {
	shift := 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if digits, found := strings.CutSuffix(s, unit); found {
			s, shift = digits, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s || n < 0 || n > maxSize>>shift {
		return 0, false
	}
	return n << shift, true
}
