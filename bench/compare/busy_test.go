package compare

import (
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	// row is one contestant: the CPU a call of each round, and the cores that other programs kept busy meanwhile.
	type row struct {
		title  string
		others float64
		cpu    []float64
	}
	for _, tt := range []struct {
		name string
		rows []row
		want []string // what each disturbance says
	}{
		{"quiet", []row{{"Sallyport", 0.05, []float64{10, 11, 12}}, {"NGINX", 0.19, []float64{14, 13, 15}}}, nil},
		{
			"other programs, while the second was measured",
			[]row{{"Sallyport", 0.1, []float64{10, 10, 10}}, {"NGINX", 0.5, []float64{14, 14, 14}}},
			[]string{"keepalive: while NGINX was measured, other programs kept 0.50 of 2 cores busy: " +
				"25%, and 10% is allowed"},
		},
		{
			"three rounds, more than half apart",
			[]row{{"Sallyport", 0, []float64{10, 10, 10}}, {"NGINX", 0, []float64{10, 16, 9}}},
			[]string{"keepalive: from round to round, NGINX's CPU a call swings: " +
				"its quartiles, 9.5 and 13.0 µs, are 35% of the median apart, and 25% is allowed"},
		},
		{"three rounds, half apart", []row{{"Sallyport", 0, []float64{8, 10, 13}}}, nil},
		{
			"two rounds, more than half apart",
			[]row{{"Sallyport", 0, []float64{10, 18}}},
			[]string{"Sallyport's CPU a call swings"},
		},
		{"one of five rounds falls out of line", []row{{"Sallyport", 0, []float64{10, 10, 90, 11, 10}}}, nil},
		{
			"two of five rounds do",
			[]row{{"Sallyport", 0, []float64{10, 10, 90, 11, 30}}},
			[]string{"Sallyport's CPU a call swings"},
		},
		{"one round", []row{{"Sallyport", 0, []float64{10}}}, nil},
		{"no call succeeded", []row{{"Sallyport", 0, []float64{0, 0, 0}}}, nil},
		{
			"both",
			[]row{{"Sallyport", 2, []float64{10, 20, 30}}},
			[]string{"other programs kept 2.00 of 2 cores busy: 100%", "Sallyport's CPU a call swings"},
		},
	} {
		s := ScenarioResult{Name: "keepalive"}
		for _, r := range tt.rows {
			c := Contestant{Title: r.title}
			for _, f := range r.cpu {
				c.Rounds = append(c.Rounds, Round{CPU: f, Others: r.others})
			}
			s.Contestants = append(s.Contestants, c)
		}
		s.sumUp()
		c := Comparison{Machine: Machine{Cores: 2}, Scenarios: []ScenarioResult{s}}
		c.judge()
		if len(c.Disturbances) != len(tt.want) {
			t.Errorf("%s: %+v, want %q", tt.name, c.Disturbances, tt.want)
			continue
		}
		for i, d := range c.Disturbances {
			if !strings.Contains(d.Text, tt.want[i]) || d.Share <= d.Bound || d.Scenario != "keepalive" {
				t.Errorf("%s: %+v, want %q", tt.name, d, tt.want[i])
			}
		}
	}
}
