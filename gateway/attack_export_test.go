package gateway

import (
	"cmp"
	"time"
)

// Hasten shortens how long clients may keep the gateway waiting: for a head or a handshake, between calls, and for a body
// before its rate counts. A zero leaves the default.
func (c *Options) Hasten(head, idle, body time.Duration) {
	c.Limits.HeaderTimeout = cmp.Or(head, c.Limits.HeaderTimeout)
	c.Limits.IdleTimeout = cmp.Or(idle, c.Limits.IdleTimeout)
	c.Limits.FirstCallTimeout = cmp.Or(idle, c.Limits.FirstCallTimeout)
	c.bodyGrace = cmp.Or(body, c.bodyGrace)
}

// UnderWay is how many calls are under way.
func (g *Gateway) UnderWay() int64 { return g.decider.UnderWay() }
