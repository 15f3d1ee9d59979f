package config

// Limits are what all clients together may take of the gateway, so that none of them takes it from the others.
type Limits struct {
	Pos
	Connections          int // open at once on all listeners, 1 to 10,000,000; default 20,000
	ConnectionsPerSource int // open at once from one address, load balancers' excepted, 1 to Connections; default 5,000, or Connections if that is less
	Handshakes           int // TLS handshakes under way at once, 1 to 10,000,000; default 1,000
	HeaderCount          int // header lines of a request, 1 to 10,000; default 200
	BodyRate             int // bytes per second that a client has to send or take of a body, on average after the first 10 s, up to 1 GiB; default 240; 0, which must be written: no such demand
}

// limits reads `limits:`.
func (l *loader) limits(m *mapping) Limits {
	const most = 10_000_000
	s, _ := m.sub("limits")
	defer s.end()
	before := len(l.errs)
	out := Limits{Pos: s.Pos, Connections: s.integer("connections", 1, most, 20_000)}
	out.ConnectionsPerSource = s.integer("connectionsPerSource", 1, most, min(5_000, out.Connections))
	if out.ConnectionsPerSource > out.Connections && len(l.errs) == before {
		whence := ""
		if s.find("connections") == nil {
			whence = ", the default"
		}
		l.errorf(s.find("connectionsPerSource").value.Pos, "connectionsPerSource is %d, more than connections (%d%s): lower it, or raise connections",
			out.ConnectionsPerSource, out.Connections, whence)
	}
	out.Handshakes = s.integer("handshakes", 1, most, 1_000)
	out.HeaderCount = s.integer("headerCount", 1, 10_000, 200)
	out.BodyRate = s.integer("bodyRate", 0, 1<<30, 240)
	return out
}
