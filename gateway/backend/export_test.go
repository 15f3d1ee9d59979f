package backend

import (
	"context"
	"io"
)

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

// ParseKeepAlive is parseKeepAlive.
var ParseKeepAlive = parseKeepAlive

// Servers are all servers of the group.
func (g *Group) Servers() []*Server { return g.servers }

// Answered reports whether the head of the answer has been read.
func (r *Reader) Answered() bool { return r.state != readingHead }

// CauseHTTP2 is why a call failed that net/http's client ended with err, before it had a connection or behind that.
func CauseHTTP2(err error, had bool) error {
	return (&stream{ctx: context.Background(), had: had}).cause(err)
}
