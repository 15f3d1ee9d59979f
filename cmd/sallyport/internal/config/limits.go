package config

import (
	"sallyport/gateway"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/trust"
)

// limits reads `limits:`, whose ends keep any client from starving the others.
func (l *loader) limits(m *mapping) gateway.Limits {
	const most = 10_000_000
	s, _ := m.sub("limits")
	defer s.end()
	before := len(l.errs)
	out := gateway.Limits{Connections: s.integer("connections", 1, most, 20_000)}
	out.ConnectionsPerSource = s.integer("connectionsPerSource", 1, most, min(5_000, out.Connections))
	if out.ConnectionsPerSource > out.Connections && len(l.errs) == before {
		whence := ""
		if s.find("connections") == nil {
			whence = ", the default"
		}
		l.errorf(s.find("connectionsPerSource").value.Place,
			"connectionsPerSource is %d, more than connections (%d%s): lower it, or raise connections",
			out.ConnectionsPerSource, out.Connections, whence)
	}
	out.Handshakes = s.integer("handshakes", 1, most, 1_000)
	out.HeaderLines = s.integer("headerCount", 1, 10_000, 200)
	shown := trust.Bounds{}.WithDefaults()
	out.CertificateBytes = int(s.size("certificateBytes", 1<<10, 256<<10, int64(shown.Bytes)))
	out.Certificates = s.integer("certificates", 1, keystore.MaxChain, shown.Certificates)
	out.CertificateKeyBits = s.integer("certificateKeyBits", 2048, 8192, shown.KeyBits)
	out.BodyRate = s.integer("bodyRate", 0, 1<<30, 240)
	return out
}
