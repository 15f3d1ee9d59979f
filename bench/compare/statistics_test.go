package compare

import (
	"slices"
	"testing"
)

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		figures []float64
		want    Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{4, 2}, Spread{2.5, 3, 3.5}},
		{[]float64{9, 1, 5, 3, 7}, Spread{3, 5, 7}},
		{[]float64{1, 2, 3, 4}, Spread{1.75, 2.5, 3.25}},
	} {
		before := slices.Clone(tt.figures)
		if got := spread(tt.figures); got != tt.want || !slices.Equal(tt.figures, before) {
			t.Errorf("%v: %v, want %v", before, got, tt.want)
		}
	}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	// The machine is half as fast in the second round. The ratio stays the same; a ratio of medians would not.
	got := ratios([]float64{10, 20, 11, 0, 5}, []float64{20, 40, 22, 8, 0})
	if !slices.Equal(got, []float64{0.5, 0.5, 0.5}) {
		t.Errorf("%v", got)
	}
}
