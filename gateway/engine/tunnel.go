package engine

import (
	"io"
	"sync"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
)

// tunnel passes on the answer that switches protocols, and then bytes both ways until either side ends. The call is
// watched from now on: a tunnel does not outlive the right that let it in.
func (c *call) tunnel() error {
	out := wire.Small.Get()
	*out = appendStatus((*out)[:0], c.Trip.Response.Status, "")
	c.AnswerFields(&c.Trip.Response, func(name, value string) { *out = http1.AppendField(*out, name, value) })
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
	both.Go(func() { c.BytesIn, up = pipe(server, &c.client.Conn) })
	both.Go(func() { c.BytesOut, down = pipe(&c.client.Conn, server) })
	both.Wait()
	if c.broken.Load() {
		return backend.ErrBroken
	}
	if up != nil {
		return up
	}
	return down
}

// pipe copies from one connection to another until from ends, and then ends that direction; an error ends both. What
// was read before goes first.
func pipe(to, from *wire.Conn) (n int64, err error) {
	_ = from.SetReadDeadline(time.Time{})
	for err == nil {
		if p := from.In.Bytes(); len(p) > 0 {
			err = to.Send(p)
			n += int64(len(p))
			from.In.Skip(len(p))
			continue
		}
		from.In.Enlarge()
		var k int
		k, err = from.Read(from.In.Room())
		from.In.Filled(k)
		if k > 0 {
			err = nil // the next read returns it again
		}
	}
	if err == io.EOF {
		return n, to.CloseWrite()
	}
	to.Sever()
	from.Sever()
	return n, err
}
