package report

import (
	"fmt"
	"io"

	"sallyport/bench/compare"
)

// SVG writes CPU a call in all scenarios as one drawing, to be embedded in a document.
func SVG(out io.Writer, c *compare.Comparison) error {
	const margin, column, gap = 28.0, 560.0, 40.0
	d := &drawing{width: 2*column + gap + 2*margin}
	all := &drawing{}
	all.text("title", "start", margin, 40, title(c)+": CPU a call")
	all.within(margin, 54, legend(c))
	top := 104.0
	if len(c.Disturbances) > 0 {
		all.text("bad", "start", margin, 100, compare.BusyMachine)
		top += 24
	}
	y := [2]float64{top, top}
	for i, s := range c.Scenarios {
		x := margin + float64(i%2)*(column+gap)
		all.text("label strong", "start", x, y[i%2], s.Title)
		b := bars(s)
		all.within(x, y[i%2]+10, b)
		y[i%2] += b.height + 40
	}
	bottom := max(y[0], y[1])
	for i, l := range conditions(c) {
		all.text("tick", "start", margin, bottom+float64(i)*18, l)
	}
	d.height = bottom + 4*18 + 10
	fmt.Fprintf(d, `<rect class="ground" width="%.0f" height="%.0f" rx="10"/>`, d.width, d.height)
	d.WriteString(all.String())
	if _, err := io.WriteString(out, d.svg(title(c), "<style>"+drawingStyle+"</style>")+"\n"); err != nil {
		return fmt.Errorf("SVG report: %w", err)
	}
	return nil
}
