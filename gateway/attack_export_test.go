package gateway

import (
	"time"

	"sallyport/gateway/engine"
)

// Hasten shortens how long clients may keep the gateway waiting: for a head or a handshake, between calls, and for a body
// before its rate counts. A zero leaves the default.
func (c *Options) Hasten(head, idle, body time.Duration) {
	c.terms = engine.Terms{HeadTimeout: head, IdleTimeout: idle, BodyGrace: body}
}
