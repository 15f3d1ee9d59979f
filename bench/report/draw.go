package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A drawing collects the inside of an SVG picture. Positions are in the drawing's own units, from the top left.
type drawing struct {
	strings.Builder
	width, height float64
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (d *drawing) rect(class string, x, y, width, height float64, title string) {
	fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2"><title>%s</title></rect>`,
		class, x, y, max(0, width), height, html.EscapeString(title))
}

func (d *drawing) circle(class string, x, y, r float64, title string) {
	fmt.Fprintf(d, `<circle class="%s" cx="%.1f" cy="%.1f" r="%.1f"><title>%s</title></circle>`,
		class, x, y, r, html.EscapeString(title))
}

// text writes s with x at its start, middle or end, as anchor says.
func (d *drawing) text(class, anchor string, x, y float64, s string) {
	fmt.Fprintf(d, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`,
		class, anchor, x, y, html.EscapeString(s))
}

func (d *drawing) path(class string, points [][2]float64, title string) {
	var b strings.Builder
	for i, p := range points {
		fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(i, 1)], p[0], p[1])
	}
	fmt.Fprintf(d, `<path class="%s" d="%s"><title>%s</title></path>`, class, b.String(), html.EscapeString(title))
}

// within places another drawing at x, y.
func (d *drawing) within(x, y float64, other *drawing) {
	fmt.Fprintf(d, `<g transform="translate(%.1f %.1f)">%s</g>`, x, y, other.String())
}

// svg returns the complete picture. label describes it to readers who cannot see it.
func (d *drawing) svg(label, style string) string {
	const form = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">%s%s</svg>`
	return fmt.Sprintf(form,
		d.width, d.height, html.EscapeString(label), style, d.String())
}

// A scale maps figures to positions.
type scale struct {
	from, to  float64 // figures
	low, high float64 // positions
	log       bool
}

func (s scale) at(v float64) float64 {
	from, to := s.from, s.to
	if s.log {
		v, from, to = math.Log(v), math.Log(from), math.Log(to)
	}
	return s.low + (v-from)/(to-from)*(s.high-s.low)
}

// steps returns about five round figures from 0 to at least v.
func steps(v float64) []float64 {
	if v <= 0 {
		return []float64{0, 1}
	}
	step := math.Pow(10, math.Floor(math.Log10(v/4)))
	for _, f := range []float64{1, 2, 5, 10} {
		if step*f*5 >= v {
			step *= f
			break
		}
	}
	list := []float64{0}
	for i := 1; list[len(list)-1] < v; i++ {
		list = append(list, float64(i)*step)
	}
	return list
}

// logSteps returns the figures 1, 2 and 5 times powers of ten that enclose low and high.
func logSteps(low, high float64) []float64 {
	if low <= 0 || high <= low {
		low, high = 0.1, 10
	}
	var all []float64
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for _, f := range []float64{1, 2, 5} {
			all = append(all, f*math.Pow(10, e))
		}
	}
	first, last := 0, len(all)-1
	for first < last && all[first+1] <= low {
		first++
	}
	for last > first+1 && all[last-1] >= high {
		last--
	}
	return all[first : last+1]
}

// short formats a figure for an axis.
func short(f float64) string {
	if f >= 10_000 {
		return fmt.Sprintf("%gk", f/1000)
	}
	return fmt.Sprintf("%.4g", f)
}
