package compare

import "fmt"

const (
	// othersBound is the share of the cores that other programs may take while a gateway is measured.
	othersBound = 0.1

	// swingBound is how far apart the quartiles of a gateway's CPU a call may be, as a share of the median. With two or
	// three rounds, that allows the highest and the lowest to differ by half of the median. With five or more, a single
	// outlier is allowed: it moves neither the quartiles nor the ratios of the report.
	swingBound = 0.25
)

// BusyMachine is the verdict on a comparison that has Disturbances.
const BusyMachine = "busy machine: these figures do not count"

// A Disturbance is why the figures of a scenario do not count: other programs took too much of the machine while a
// gateway was measured, or a gateway's CPU a call differs too much from round to round.
type Disturbance struct {
	Scenario string  `json:"scenario"`
	Peer     string  `json:"peer"`
	Kind     string  `json:"kind"` // "others" or "swing"
	Share    float64 `json:"share"`
	Bound    float64 `json:"bound"` // of Share
	Text     string  `json:"text"`  // all of it in words
}

// judge looks for disturbances in what was measured.
func (c *Comparison) judge() {
	c.Disturbances = nil
	for _, s := range c.Scenarios {
		if d, ok := s.others(c.Machine.Cores); ok {
			c.Disturbances = append(c.Disturbances, d)
		}
		for _, p := range s.Contestants {
			if d, ok := p.swing(s.Name); ok {
				c.Disturbances = append(c.Disturbances, d)
			}
		}
	}
}

// others finds the contestant that other programs disturbed most, on average of its rounds.
func (s *ScenarioResult) others(cores int) (Disturbance, bool) {
	worst, worstMean := "", 0.0
	for _, c := range s.Contestants {
		if mean := mean(c.column(others)); mean > worstMean {
			worst, worstMean = c.Title, mean
		}
	}
	share := worstMean / float64(max(1, cores))
	return Disturbance{
		Scenario: s.Name,
		Peer:     worst,
		Kind:     "others",
		Share:    share,
		Bound:    othersBound,
		Text: fmt.Sprintf("%s: while %s was measured, other programs kept %.2f of %d cores busy: "+
			"%.0f%%, and %.0f%% is allowed", s.Name, worst, worstMean, cores, 100*share, 100*othersBound),
	}, share > othersBound
}

// swing compares the rounds of one contestant.
func (c *Contestant) swing(scenario string) (Disturbance, bool) {
	if c.CPU.Median <= 0 {
		return Disturbance{}, false
	}
	share := (c.CPU.Q3 - c.CPU.Q1) / c.CPU.Median
	return Disturbance{
		Scenario: scenario,
		Peer:     c.Title,
		Kind:     "swing",
		Share:    share,
		Bound:    swingBound,
		Text: fmt.Sprintf("%s: from round to round, %s's CPU a call swings: "+
			"its quartiles, %.1f and %.1f µs, are %.0f%% of the median apart, and %.0f%% is allowed",
			scenario, c.Title, c.CPU.Q1, c.CPU.Q3, 100*share, 100*swingBound),
	}, share > swingBound
}

func mean(figures []float64) float64 {
	sum := 0.0
	for _, f := range figures {
		sum += f
	}
	return sum / float64(max(1, len(figures)))
}
