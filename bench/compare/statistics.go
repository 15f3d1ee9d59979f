package compare

import (
	"math"
	"slices"
)

// A Spread is the median of several figures, with their quartiles.
type Spread struct {
	Q1     float64 `json:"q1"` // lower quartile
	Median float64 `json:"median"`
	Q3     float64 `json:"q3"` // upper quartile
}

// spread computes the median and the quartiles, by linear interpolation (R's type 7). Without figures it returns the
// zero Spread.
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

// ratios divides figures round by round, because the machine drifts by more than the gateways differ. It skips rounds
// in which either figure is missing (0).
func ratios(of, to []float64) []float64 {
	var list []float64
	for i := range min(len(of), len(to)) {
		if of[i] > 0 && to[i] > 0 {
			list = append(list, of[i]/to[i])
		}
	}
	return list
}
