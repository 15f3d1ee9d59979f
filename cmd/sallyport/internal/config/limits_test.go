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
		{"{headerCount: 1, bodyRate: 0}", gateway.Limits{Connections: 20_000, ConnectionsPerSource: 5_000, Handshakes: 1_000, HeaderLines: 1}},
		{"{connections: 100}", gateway.Limits{Connections: 100, ConnectionsPerSource: 100, Handshakes: 1_000, HeaderLines: 200, BodyRate: 240}},
		{"{connectionsPerSource: 20000}", gateway.Limits{Connections: 20_000, ConnectionsPerSource: 20_000, Handshakes: 1_000, HeaderLines: 200, BodyRate: 240}},
		{
			"{connections: 1, connectionsPerSource: 1, handshakes: 1, headerCount: 10000, bodyRate: 1073741824}",
			gateway.Limits{Connections: 1, ConnectionsPerSource: 1, Handshakes: 1, HeaderLines: 10_000, BodyRate: 1 << 30},
		},
		{
			"{connections: 10000000, connectionsPerSource: 10000000, handshakes: 10000000}",
			gateway.Limits{Connections: 10_000_000, ConnectionsPerSource: 10_000_000, Handshakes: 10_000_000, HeaderLines: 200, BodyRate: 240},
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
