package engine

import (
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/http1"
)

// A Carriage is a call on its way to a server and back: what those who carry calls of HTTP/1.1 have in common with
// those who carry calls of HTTP/2. It is used again for other calls.
type Carriage struct {
	decision.Exchange
	Head http1.Request // the Exchange's Request, since it has begun
	Trip backend.Trip
}

// BodyRate is how many bytes a second the client has to send or take of a body on average, by its API's setting or else
// by the terms; 0: any number.
func (c *Carriage) BodyRate(terms *Terms) int {
	switch {
	case c.Group == nil || c.Group.BodyRate == 0:
		return terms.BodyRate
	case c.Group.BodyRate < 0:
		return 0
	}
	return c.Group.BodyRate
}

// Depart makes the Trip of a call that goes on to a server ready to be sent, with the body if the request has one.
func (c *Carriage) Depart(body backend.Body) {
	r, t := &c.Head, &c.Trip
	t.Request, t.Group, t.MaxBody = &c.Exchange, c.Group, c.Route.MaxBody
	t.Length, t.Upgrade = r.Length, c.Upgrade()
	switch {
	case r.Length != 0:
		t.Body = body
	case !r.HasLength:
		t.Length = http1.Unstated
	}
	t.Begin()
}

// Settle lets go of the server, and of the request's body.
func (c *Carriage) Settle() {
	if c.Trip.Request == nil {
		return // it was never sent, or is settled already
	}
	c.Over()
	c.Carried(&c.Trip)
	c.BytesIn += c.Trip.Close()
}

// Abandon is Settle for a call in which something has panicked.
func (c *Carriage) Abandon() {
	if c.Trip.Request != nil {
		c.Trip.Break()
	}
	c.Settle()
}
