package compare

import (
	"math"
	"slices"
)

// A Spread is the middle of several figures and how far they lie apart.
type Spread struct {
	Q1     float64 `json:"q1"` // lower quartile
	Median float64 `json:"median"`
	Q3     float64 `json:"q3"` // upper quartile
}

// spread sums figures up; the zero Spread if there are none. Quartiles lie between figures in proportion (R's type 7).
func spread(figures []float64) Spread {
	if len(figures) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(figures))
	at := func(q float64) float64 {
		place := q * float64(len(sorted)-1)
		low := math.Floor(place)
		high := math.Ceil(place)
		return sorted[int(low)] + (place-low)*(sorted[int(high)]-sorted[int(low)])
	}
	return Spread{at(0.25), at(0.5), at(0.75)}
}

// ratios divides figures round by round, since a machine drifts by more than what is measured. Rounds in which either
// figure is missing (0) are left out.
func ratios(of, to []float64) []float64 {
	var list []float64
	for i := range min(len(of), len(to)) {
		if of[i] > 0 && to[i] > 0 {
			list = append(list, of[i]/to[i])
		}
	}
	return list
}
