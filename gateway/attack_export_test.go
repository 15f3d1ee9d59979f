package gateway

import "time"

// Hasten shortens how long clients may keep the gateway waiting: for a head or a handshake, between calls, and for a body
// before its rate counts. A zero leaves the default.
func (c *Config) Hasten(head, idle, body time.Duration) {
	c.timing = timing{readHeader: head, idle: idle, bodyGrace: body}
}
