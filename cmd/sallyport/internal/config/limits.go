package config

import (
	"time"

	"sallyport/gateway"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/trust"
)

// DefaultConnections is what limits.connections is when the file leaves it out.
const DefaultConnections = 20_000

// limits reads `limits:`, whose ends keep any client from starving the others.
func (l *loader) limits(m *mapping) gateway.Limits {
	const most = 10_000_000
	s, _ := m.sub("limits")
	defer s.end()
	out := gateway.Limits{Connections: s.integer("connections", 1, most, DefaultConnections)}
	out.ConnectionsPerSource = s.share("connectionsPerSource", most, 5_000, "connections", out.Connections)
	out.Handshakes = s.integer("handshakes", 1, most, 1_000)
	out.HandshakesPerSource = s.share("handshakesPerSource", most, 100, "handshakes", out.Handshakes)
	out.Streams = s.integer("streams", 1, 10_000, 100)
	out.HeaderTimeout = s.duration("headerTimeout", time.Millisecond, 10*time.Second)
	out.FirstCallTimeout = s.duration("firstCallTimeout", time.Millisecond, time.Minute)
	out.IdleTimeout = s.duration("idleTimeout", time.Millisecond, 620*time.Second)
	out.Exempt = s.networks("exempt", "exempts everybody: leave limits of a source to those they are meant for")
	out.HeaderLines = s.integer("headerCount", 1, 10_000, 200)
	shown := trust.Bounds{}.WithDefaults()
	out.CertificateBytes = int(s.size("certificateBytes", 1<<10, 256<<10, int64(shown.Bytes)))
	out.Certificates = s.integer("certificates", 1, keystore.MaxChain, shown.Certificates)
	out.CertificateKeyBits = s.integer("certificateKeyBits", 2048, 8192, shown.KeyBits)
	out.BodyRate = s.integer("bodyRate", 0, 1<<30, 240)
	return out
}

// share reads what one may have of the whole, and otherwise takes that or the whole, whichever is less.
func (m *mapping) share(key string, most, otherwise int, whole string, of int) int {
	before := len(m.load.errs)
	n := m.integer(key, 1, most, min(otherwise, of))
	if n > of && len(m.load.errs) == before {
		whence := ""
		if m.find(whole) == nil {
			whence = ", the default"
		}
		m.load.errorf(m.find(key).value.Place, "%s is %d, more than %s (%d%s): lower it, or raise %s", key, n, whole, of, whence, whole)
	}
	return n
}
