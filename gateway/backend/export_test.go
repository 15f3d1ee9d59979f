package backend

import "io"

// StreamBody is the body of a Trip's request as net/http's client reads it.
func StreamBody(t *Trip) io.ReadCloser {
	t.sending, t.unsent = true, max(t.Length, 0)
	return &streamBody{trip: t}
}

// Names for tests.
const (
	MaxHeads = maxHeads
	Slice    = slice
)
