package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

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
		{"{connections: 100}", but(func(l *gateway.Limits) { l.Connections, l.ConnectionsPerSource = 100, 100 })},
		{"{connectionsPerSource: 20000}", but(func(l *gateway.Limits) { l.ConnectionsPerSource = 20_000 })},
		{"{certificateBytes: 1024, certificates: 1, certificateKeyBits: 2048}", but(func(l *gateway.Limits) {
			l.CertificateBytes, l.Certificates, l.CertificateKeyBits = 1024, 1, 2048
		})},
		{"{certificateBytes: 256KiB, certificates: 16, certificateKeyBits: 8192}", but(func(l *gateway.Limits) { l.CertificateBytes = 256 << 10 })},
		{
			"{connections: 1, connectionsPerSource: 1, handshakes: 1, headerCount: 10000, bodyRate: 1073741824}",
			but(func(l *gateway.Limits) {
				l.Connections, l.ConnectionsPerSource, l.Handshakes, l.HeaderLines, l.BodyRate = 1, 1, 1, 10_000, 1<<30
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
		if diff := cmp.Diff(c.want, got.Limits); diff != "" {
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
