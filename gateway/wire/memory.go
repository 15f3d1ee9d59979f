package wire

import "sync"

// Sizes of the buffers that Small and Large lend.
const (
	SmallSize = 16 << 10 // for heads and small bodies: a TLS record fits
	LargeSize = 64 << 10 // for large bodies, and for several records in one write
)

// A Memory lends buffers of one size.
type Memory struct {
	size int
	pool sync.Pool
}

// Small and Large are the process's buffers. They hold memory only, no state.
var (
	Small = Memory{size: SmallSize}
	Large = Memory{size: LargeSize}
)

// Get returns an empty buffer of at least the size.
func (m *Memory) Get() *[]byte {
	if b, ok := m.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, m.size)
	return &b
}

// Put takes a buffer back, unless it has grown much.
func (m *Memory) Put(b *[]byte) {
	if cap(*b) <= 2*m.size {
		*b = (*b)[:0]
		m.pool.Put(b)
	}
}
