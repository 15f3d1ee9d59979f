package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sallyport/bench/compare"
)

// color returns the CSS class with a contestant's colour, the same in all plots.
func color(name string) string {
	switch name {
	case "sallyport", "baseline", "nginx", "haproxy", "caddy":
		return name
	}
	return "variant"
}

// bars plots CPU a call: a bar up to the median, and a whisker between the quartiles.
func bars(s compare.ScenarioResult) *drawing {
	const left, right, row, bar = 172, 64, 34.0, 18.0
	d := &drawing{width: 560, height: float64(len(s.Contestants))*row + 46}
	most := 0.0
	for _, c := range s.Contestants {
		most = max(most, c.CPU.Q3)
	}
	ticks := steps(most)
	x := scale{from: 0, to: ticks[len(ticks)-1], low: left, high: d.width - right}
	bottom := float64(len(s.Contestants)) * row
	for _, t := range ticks {
		d.line("grid", x.at(t), 0, x.at(t), bottom)
		d.text("tick", "middle", x.at(t), bottom+16, short(t))
	}
	d.text("axis", "middle", (left+d.width-right)/2, bottom+36, "CPU of the gateway, µs a call: median, quartiles")
	for i, c := range s.Contestants {
		y := float64(i)*row + row/2
		class := "label"
		if c.Name == "sallyport" {
			class = "label strong"
		}
		d.text(class, "end", left-10, y+4.5, c.Title)
		d.rect("bar "+color(c.Name), left, y-bar/2, x.at(c.CPU.Median)-left, bar,
			fmt.Sprintf("%s: %s µs a call, quartiles %s", c.Title, figure(c.CPU.Median), quartiles(c.CPU)))
		d.line("whisker", x.at(c.CPU.Q1), y, x.at(c.CPU.Q3), y)
		d.line("whisker", x.at(c.CPU.Q1), y-5, x.at(c.CPU.Q1), y+5)
		d.line("whisker", x.at(c.CPU.Q3), y-5, x.at(c.CPU.Q3), y+5)
		d.text("value", "start", max(x.at(c.CPU.Median), x.at(c.CPU.Q3))+8, y+4.5, figure(c.CPU.Median))
	}
	return d
}

// curves plots latency over the share of slower calls, on a logarithmic axis that stretches the tail, where gateways
// differ.
func curves(s compare.ScenarioResult) *drawing {
	const left, right, top, bottom = 62, 20, 8, 214
	d := &drawing{width: 560, height: bottom + 46}
	low, high := math.Inf(1), 0.0
	for _, c := range s.Contestants {
		for _, p := range c.Curve {
			if p.Milliseconds > 0 {
				low, high = min(low, p.Milliseconds), max(high, p.Milliseconds)
			}
		}
	}
	ticks := logSteps(low, high)
	y := scale{from: ticks[0], to: ticks[len(ticks)-1], low: bottom, high: top, log: true}
	x := scale{from: 1, to: 10_000, low: left, high: d.width - right, log: true}
	for _, t := range ticks {
		d.line("grid", left, y.at(t), d.width-right, y.at(t))
		if e := math.Log10(t); len(ticks) <= 7 || math.Abs(e-math.Round(e)) < 1e-9 { // with many, only 1, 10, 100 …
			d.text("tick", "end", left-8, y.at(t)+4, short(t))
		}
	}
	for _, t := range []struct {
		slower float64
		name   string
	}{{1, "min"}, {2, "p50"}, {10, "p90"}, {100, "p99"}, {1000, "p99.9"}, {10_000, "p99.99"}} {
		d.line("grid", x.at(t.slower), top, x.at(t.slower), bottom)
		d.text("tick", "middle", min(x.at(t.slower), d.width-right-6), bottom+16, t.name)
	}
	d.text("axis", "middle", (left+d.width-right)/2, bottom+36, "share of calls that are no slower")
	const vertical = `<text class="axis" text-anchor="middle" transform="translate(14 %d) rotate(-90)">%s</text>`
	fmt.Fprintf(d, vertical, (top+bottom)/2, "latency, ms")
	// Sallyport last, so that its curve is on top.
	for _, c := range slices.Backward(s.Contestants) {
		var points [][2]float64
		for _, p := range c.Curve {
			if p.Milliseconds > 0 {
				points = append(points, [2]float64{x.at(1 / (1 - p.Share)), y.at(p.Milliseconds)})
			}
		}
		if len(points) > 1 {
			d.path("curve "+color(c.Name), points, c.Title)
		}
	}
	return d
}

// ratios plots all ratios of a comparison on one axis. Left of 1, Sallyport uses less.
func ratios(c *compare.Comparison) *drawing {
	const left, right, row, gap, top = 250, 76, 19.0, 13.0, 34.0
	d := &drawing{width: 1160}
	low, high, rows := 0.5, 2.0, 0
	for _, s := range c.Scenarios {
		for _, r := range s.Ratios {
			rows++
			if r.CPU.Median > 0 {
				low, high = min(low, r.CPU.Q1), max(high, r.CPU.Q3)
			}
		}
	}
	bottom := top + float64(rows)*row + float64(len(c.Scenarios))*gap
	d.height = bottom + 42
	from, to := math.Exp2(math.Floor(math.Log2(low))), math.Exp2(math.Ceil(math.Log2(high)))
	x := scale{from: from, to: to, low: left, high: d.width - right, log: true}
	for t := from; t <= to*1.01; t *= 2 {
		class := "grid"
		if t == 1 {
			class = "one"
		}
		d.line(class, x.at(t), top-8, x.at(t), bottom)
		d.text("tick", "middle", x.at(t), bottom+16, "× "+short(t))
	}
	d.text("side", "end", x.at(1)-12, 14, "← Sallyport uses less CPU")
	d.text("side", "start", x.at(1)+12, 14, "more →")
	d.text("axis", "middle", (left+d.width-right)/2, bottom+36,
		"CPU a call, Sallyport to the other, round by round: median, quartiles")
	y := top
	for _, s := range c.Scenarios {
		if len(s.Ratios) > 0 {
			d.text("label strong", "end", left-104, y+float64(len(s.Ratios))*row/2+4.5, s.Name)
		}
		for i, r := range s.Ratios {
			center := y + row/2
			name := s.Contestants[i+1].Name
			label := r.To
			if color(name) == "variant" {
				_, label, _ = strings.Cut(r.To, ", ")
			}
			d.text("label small", "end", left-12, center+4, label)
			if r.CPU.Median > 0 {
				class := color(name)
				d.line("span "+class, x.at(r.CPU.Q1), center, x.at(r.CPU.Q3), center)
				d.circle("dot "+class, x.at(r.CPU.Median), center, 5,
					fmt.Sprintf("%s, to %s: %.2f, quartiles %.2f–%.2f",
						s.Title, r.To, r.CPU.Median, r.CPU.Q1, r.CPU.Q3))
				d.text("value", "start", d.width-right+14, center+4, fmt.Sprintf("%.2f", r.CPU.Median))
			}
			y += row
		}
		y += gap
		d.line("grid", 20, y-gap/2, d.width, y-gap/2)
	}
	return d
}

// legend names the colours of the contestants.
func legend(c *compare.Comparison) *drawing {
	d := &drawing{height: 24}
	x := 2.0
	seen := map[string]bool{}
	for _, s := range c.Scenarios {
		for _, p := range s.Contestants {
			if seen[p.Name] {
				continue
			}
			seen[p.Name] = true
			d.rect("bar "+color(p.Name), x, 6, 12, 12, p.Title)
			d.text("label", "start", x+18, 16.5, p.Title)
			x += 46 + 7.4*float64(len(p.Title))
		}
	}
	d.width = x
	return d
}
