package config

// Limits bound what all clients together may take of the gateway, so that none of them can starve the others.
type Limits struct {
	Pos
	Connections int // open at once on all listeners, 1 to 10,000,000; default 20,000
	// ConnectionsPerSource are those open at once from one address, except load balancers', 1 to Connections; default
	// 5,000, or Connections if that is less.
	ConnectionsPerSource int
	Handshakes           int // concurrent TLS handshakes, 1 to 10,000,000; default 1,000
	HeaderCount          int // header lines of a request, 1 to 10,000; default 200
	// BodyRate is how many bytes per second of a body a client must send or receive, on average after the first 10 s, up
	// to 1 GiB; default 240; an explicit 0: no minimum.
	BodyRate int
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
		l.errorf(s.find("connectionsPerSource").value.Pos,
			"connectionsPerSource is %d, more than connections (%d%s): lower it, or raise connections",
			out.ConnectionsPerSource, out.Connections, whence)
	}
	out.Handshakes = s.integer("handshakes", 1, most, 1_000)
	out.HeaderCount = s.integer("headerCount", 1, 10_000, 200)
	out.BodyRate = s.integer("bodyRate", 0, 1<<30, 240)
	return out
}
