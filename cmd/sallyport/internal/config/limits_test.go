package config_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway"
)

// TestLimits writes some of the limits: the rest have their defaults, and the edges are allowed.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		yaml string
		want gateway.Limits
	}{
		{"{}", limits},
		{"{headerCount: 1, bodyRate: 0}", but(func(l *gateway.Limits) { l.HeaderLines, l.BodyRate = 1, 0 })},
		{"{handshakes: 50, streams: 1, headerTimeout: 1s, firstCallTimeout: 2s, idleTimeout: 3s, exempt: [192.0.2.7, 2001:db8::/32]}", but(func(l *gateway.Limits) {
			l.Handshakes, l.HandshakesPerSource, l.Streams = 50, 50, 1
			l.HeaderTimeout, l.FirstCallTimeout, l.IdleTimeout = time.Second, 2*time.Second, 3*time.Second
			l.Exempt = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32")}
		})},
		{"{connections: 100}", but(func(l *gateway.Limits) { l.Connections, l.ConnectionsPerSource = 100, 100 })},
		{"{connectionsPerSource: 20000}", but(func(l *gateway.Limits) { l.ConnectionsPerSource = 20_000 })},
		{"{certificateBytes: 1024, certificates: 1, certificateKeyBits: 2048}", but(func(l *gateway.Limits) {
			l.CertificateBytes, l.Certificates, l.CertificateKeyBits = 1024, 1, 2048
		})},
		{"{certificateBytes: 256KiB, certificates: 16, certificateKeyBits: 8192}", but(func(l *gateway.Limits) { l.CertificateBytes = 256 << 10 })},
		{
			"{connections: 1, connectionsPerSource: 1, handshakes: 1, headerCount: 10000, bodyRate: 1073741824}",
			but(func(l *gateway.Limits) {
				l.Connections, l.ConnectionsPerSource, l.Handshakes, l.HandshakesPerSource, l.HeaderLines, l.BodyRate = 1, 1, 1, 1, 10_000, 1<<30
			}),
		},
		{
			"{connections: 10000000, connectionsPerSource: 10000000, handshakes: 10000000}",
			but(func(l *gateway.Limits) {
				l.Connections, l.ConnectionsPerSource, l.Handshakes = 10_000_000, 10_000_000, 10_000_000
			}),
		},
	} {
		got, err := config.Load(write(t, "sallyport.yaml", "listeners: [{name: http, address: 127.0.0.1:0}]\nlimits: "+c.yaml+"\n"))
		if err != nil {
			t.Errorf("%s: %v", c.yaml, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.Limits, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.yaml, diff)
		}
	}
}

// but are the default limits, changed.
func but(change func(*gateway.Limits)) gateway.Limits {
	l := limits
	change(&l)
	return l
}
