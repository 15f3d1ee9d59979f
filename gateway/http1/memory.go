package http1

import "sync"

// Sizes of the buffers.
const (
	smallBuffer = 16 << 10 // for heads and small bodies: a TLS record fits
	largeBuffer = 64 << 10 // for what is left of large bodies, and for records that are sent at once
)

// A memory lends buffers of one size.
type memory struct {
	size int
	pool sync.Pool
}

var (
	small = memory{size: smallBuffer} // they hold memory only, no state: for all engines
	large = memory{size: largeBuffer}
)

// get returns an empty buffer of at least the size.
func (m *memory) get() *[]byte {
	if b, ok := m.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, m.size)
	return &b
}

// put takes a buffer back, if it has not grown much.
func (m *memory) put(b *[]byte) {
	if cap(*b) <= 2*m.size {
		*b = (*b)[:0]
		m.pool.Put(b)
	}
}
