package engine

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
)

// tunnel passes on the answer that switches protocols, and then bytes both ways until either side ends. The call is
// watched from now on: a tunnel does not outlive the right that let it in.
func (c *call) tunnel() error {
	out := wire.Small.Get()
	*out = appendStatus((*out)[:0], c.Trip.Response.Status, "")
	c.AnswerFields(c.Trip.Server, &c.Trip.Response, func(name, value string) { *out = http1.AppendField(*out, name, value) })
	*out = c.AppendOwnFields(*out)
	*out = http1.AppendField(*out, "Connection", "Upgrade")
	*out = append(http1.AppendField(*out, "Upgrade", c.Trip.Upgrade), "\r\n"...)
	c.Status, c.begun, c.last = c.Trip.Response.Status, true, true
	err := c.client.sendSoon(*out)
	wire.Small.Put(out)
	if err != nil {
		return err
	}
	c.Watch(true)
	server := c.Trip.Tunnel()
	var up, down error
	var both sync.WaitGroup
	t := tunnel{patience: c.Group.StreamIdleTimeout, broken: &c.broken}
	t.passed(time.Now())
	fail := func(end *error) func(*contain.Fault) {
		return func(f *contain.Fault) {
			*end = f
			server.Sever()
			c.client.Sever()
		}
	}
	both.Go(func() {
		defer c.client.engine.faults.Catch("a tunnel", fail(&up))
		c.BytesIn, up = t.pipe(server, &c.client.Conn)
	})
	both.Go(func() {
		defer c.client.engine.faults.Catch("a tunnel", fail(&down))
		c.BytesOut, down = t.pipe(&c.client.Conn, server)
	})
	both.Wait()
	if c.broken.Load() {
		return backend.ErrBroken
	}
	if up != nil && !errors.Is(down, backend.ErrIdle) { // or that is the cause, and this an effect
		return up
	}
	return down
}

// A tunnel is two connections of which each takes what the other sends.
type tunnel struct {
	patience time.Duration // for how long nothing may pass either way
	broken   *atomic.Bool  // the call's
	last     atomic.Int64  // when something has, in Unix nanoseconds
}

func (t *tunnel) passed(now time.Time) { t.last.Store(now.UnixNano()) }

// due is when the tunnel ends if nothing passes.
func (t *tunnel) due() time.Time { return time.Unix(0, t.last.Load()).Add(t.patience) }

// pipe copies from one connection to another until from ends, and then ends that direction; an error ends both. What
// was read before goes first.
func (t *tunnel) pipe(to, from *wire.Conn) (n int64, err error) {
	for err == nil {
		if p := from.In.Bytes(); len(p) > 0 {
			now := time.Now()
			t.passed(now)
			_ = to.SetWriteDeadline(now.Add(t.patience))
			if t.broken.Load() { // or else breakOff sets its deadline after this one
				_ = to.SetWriteDeadline(now.Add(lastWrite))
			}
			err = to.Send(p)
			n += int64(len(p))
			from.In.Skip(len(p))
			continue
		}
		from.In.Enlarge()
		_ = from.SetReadDeadline(t.due())
		var k int
		k, err = from.Read(from.In.Room())
		from.In.Filled(k)
		switch {
		case k > 0:
			err = nil // the next read returns it again
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(t.due()):
			err = nil // something has passed the other way
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = backend.ErrIdle
		}
	}
	if err == io.EOF {
		return n, to.CloseWrite()
	}
	to.Sever()
	from.Sever()
	return n, err
}
