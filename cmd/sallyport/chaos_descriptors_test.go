package main

import "testing"

// TestChaosAffordable bounds connections by the descriptors that there are, two for each and some for the gateway itself.
func TestChaosAffordable(t *testing.T) {
	for _, c := range []struct {
		connections int
		descriptors uint64
		want        int
	}{
		{20_000, 0, 20_000}, // nobody can tell
		{20_000, 1 << 20, 20_000},
		{20_000, 1<<64 - 1, 20_000}, // no limit
		{20_000, 40_064, 20_000},
		{20_000, 40_063, 19_999},
		{20_000, 256, 96},
		{96, 256, 96},
		{10, 256, 10},
		{20_000, 128, 32},
		{20_000, 64, 16},
	} {
		if got := affordable(c.connections, c.descriptors); got != c.want {
			t.Errorf("of %d connections with %d descriptors: %d, want %d", c.connections, c.descriptors, got, c.want)
		}
	}
}
