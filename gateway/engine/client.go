package engine

import (
	"errors"
	"sync/atomic"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
)

// A client is a client's connection.
type client struct {
	wire.Conn
	engine  *Engine
	known   *decision.Connection
	seen    int         // bytes of the window that were searched for the end of a head
	emptied bool        // an empty line before the head was left out
	resting atomic.Bool // it waits for the first byte of a call
}

// errOver is a connection that has ended between two calls, or may end.
var errOver = errors.New("the connection is over")

// readHead waits for the next head, and returns its length. It is still in the window. An *http1.Error is for the
// client; any other error ends the connection.
func (c *client) readHead() (int, error) {
	bounded := false
	for {
		size, err := c.headSize()
		if size > 0 || err != nil {
			return size, err
		}
		n := 0
		if len(c.In.Bytes()) == 0 {
			if !c.rest() {
				return 0, errOver
			}
			n, err = c.Await()
			c.resting.Store(false)
		} else {
			if !bounded {
				bounded = true
				_ = c.SetReadDeadline(time.Now().Add(c.engine.terms.HeadTimeout))
			}
			if len(c.In.Room()) == 0 {
				c.In.Enlarge()
			}
			n, err = c.Read(c.In.Room())
			c.In.Filled(n)
		}
		if n == 0 && err != nil {
			return 0, errOver // a head that is cut off, or that does not come, has nobody to be answered
		}
	}
}

// headSize is the length of the head that the window begins with; 0 if not all of it is there.
func (c *client) headSize() (int, error) {
	if !c.emptied {
		n, more := http1.EmptyLine(c.In.Bytes())
		if more {
			return 0, nil
		}
		c.emptied = n > 0
		c.In.Skip(n)
	}
	b, most := c.In.Bytes(), c.engine.terms.MaxHead
	if len(b) <= c.seen { // nothing new
		c.seen = min(c.seen, len(b))
		if len(b) == 0 {
			return 0, nil
		}
	}
	n, err := http1.HeadEnd(b, c.seen)
	if n > 0 || err != nil {
		c.seen = 0
	} else {
		c.seen = len(b)
	}
	if n > most || n == 0 && err == nil && len(b) >= min(most, wire.LargeSize) {
		return 0, http1.ErrHeadTooLong
	}
	return n, err
}

// rest prepares for waiting for the next call; false if there is to be none.
func (c *client) rest() bool {
	_ = c.SetReadDeadline(time.Now().Add(c.patience()))
	c.resting.Store(true)
	return !c.engine.draining.Load() // wake looks at resting after draining was set
}

// patience is for how long the client may leave its connection idle.
func (c *client) patience() time.Duration {
	if c.known.Admitted() {
		return c.engine.terms.IdleTimeout
	}
	return c.engine.terms.FirstCallTimeout
}

// wake ends the wait for a call.
func (c *client) wake() {
	if c.resting.Load() {
		_ = c.SetReadDeadline(time.Now().Add(-time.Second))
	}
}

// sendSoon sends what belongs to no body: a client that does not take it within HeadTimeout is as good as gone.
func (c *client) sendSoon(p []byte) error {
	_ = c.SetWriteDeadline(time.Now().Add(c.engine.terms.HeadTimeout))
	if c.Send(p) != nil {
		return backend.ErrClientGone
	}
	_ = c.SetWriteDeadline(time.Time{})
	return nil
}

// restOfBody and restOfBytes are for how long, and how much, a client may go on sending what nobody wants any more.
const (
	restOfBody  = time.Second
	restOfBytes = 256 << 10
)

// end closes a connection after its last answer. Closed at once, a client that may still be sending would lose what it
// was answered.
func (c *client) end(more bool) {
	defer c.Conn.Close()
	if !more && len(c.In.Bytes()) == 0 {
		return
	}
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(restOfBody))
	c.In.Skip(len(c.In.Bytes()))
	for left := restOfBytes; left > 0; {
		n, err := c.Read(c.In.Room())
		if left -= n; err != nil {
			return
		}
	}
}

// breakOff closes a connection in a way that no client takes for the end of an answer.
func (c *client) breakOff() {
	c.Sever()
	c.Conn.Close()
}
