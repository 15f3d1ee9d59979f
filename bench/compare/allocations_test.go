package compare

import (
	"math"
	"testing"
)

func TestPerCall(t *testing.T) {
	const unknown = -1
	for _, tt := range []struct {
		name          string
		before, after tally
		reading       float64
		want          float64
	}{
		{"two a call", tally{1, 1000, 10}, tally{1, 3000, 1010}, 0, 2},
		{"less the readings", tally{3, 1e6, 0}, tally{5, 1e6 + 2e5 + 4*500, 1e5}, 500, 2},
		{"fewer than the readings", tally{5, 1e6, 0}, tally{5, 1e6 + 100, 1e5}, 500, 0},
		{"few calls for costly readings", tally{5, 1e6, 0}, tally{5, 1e6 + 1e4 + 5*20_000, 5000}, 20_000, unknown},
		{"few calls that allocate much", tally{5, 1e6, 0}, tally{5, 1e6 + 2.5e6 + 5*20_000, 5000}, 20_000, 500},
		{"no calls", tally{1, 1000, 10}, tally{1, 3000, 10}, 0, unknown},
		{"no metrics", tally{}, tally{}, 0, unknown},
		{"metrics at one end only", tally{}, tally{1, 3000, 1000}, 0, unknown},
	} {
		got := tt.after.perCall(tt.before, tt.reading)
		if got == nil && tt.want != unknown || got != nil && math.Abs(*got-tt.want) > 1e-9 {
			t.Errorf("%s: %v, want %g", tt.name, got, tt.want)
		}
	}
}
