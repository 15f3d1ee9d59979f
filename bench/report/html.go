package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"sallyport/bench/compare"
)

var (
	//go:embed style.css
	drawingStyle string
	//go:embed page.css
	pageStyle string
	//go:embed page.html
	pageText string

	page = template.Must(template.New("page").Parse(pageText))
)

// A view is the content of the page.
type view struct {
	Title, Subtitle string
	Style           template.CSS
	Errors          uint64
	Busy            string // empty: the machine was quiet
	Disturbances    []compare.Disturbance
	Legend, Ratios  template.HTML
	Scenarios       []scenarioView
	Facts           []fact
}

type scenarioView struct {
	Name, Title, Detail string
	Bars, Curves        template.HTML
	Rows                []row
}

type row struct {
	Name  string
	Own   bool
	Cells []string
}

type fact struct{ Name, Text string }

// HTML writes a comparison as one self-contained page, without scripts, fonts or pictures from elsewhere.
func HTML(out io.Writer, c *compare.Comparison) error {
	v := view{
		Title: title(c),
		Subtitle: fmt.Sprintf("%s · %s · median of %d interleaved rounds",
			c.Date.Format("2 January 2006"), c.Machine.CPU, c.Settings.Rounds),
		Style:        template.CSS(drawingStyle + pageStyle),
		Errors:       c.Errors(),
		Disturbances: c.Disturbances,
		Legend:       picture(legend(c), "Colours of the gateways"),
		Facts:        facts(c),
	}
	if len(c.Disturbances) > 0 {
		v.Busy = compare.BusyMachine
	}
	for _, s := range c.Scenarios {
		if len(s.Ratios) > 0 && v.Ratios == "" {
			v.Ratios = picture(ratios(c), "Ratios of CPU a call, Sallyport to the others, in all scenarios")
		}
		v.Scenarios = append(v.Scenarios, scenarioView{
			Name: s.Name, Title: s.Title, Detail: s.Detail, Rows: rows(s),
			Bars:   picture(bars(s), "CPU a call: "+s.Title),
			Curves: picture(curves(s), "Latency: "+s.Title),
		})
	}
	if err := page.Execute(out, v); err != nil {
		return fmt.Errorf("HTML report: %w", err)
	}
	return nil
}

// picture returns a drawing, which has escaped its texts already.
func picture(d *drawing, label string) template.HTML { return template.HTML(d.svg(label, "")) }

func title(c *compare.Comparison) string {
	var others []string
	for _, p := range c.Peers[1:] {
		others = append(others, p.Title)
	}
	switch n := len(others); n {
	case 0:
		return "Sallyport, measured"
	case 1:
		return "Sallyport beside " + others[0]
	default:
		return "Sallyport beside " + strings.Join(others[:n-1], ", ") + " and " + others[n-1]
	}
}

func rows(s compare.ScenarioResult) []row {
	var list []row
	for i, p := range s.Contestants {
		ratio, spread, tail, memory := "", "", "", ""
		if i > 0 {
			r := s.Ratios[i-1].CPU
			tail = fmt.Sprintf("%.2f", s.Ratios[i-1].P99.Median)
			memory = fmt.Sprintf("%.2f", s.Ratios[i-1].Memory.Median)
			ratio, spread = fmt.Sprintf("%.2f", r.Median), fmt.Sprintf("%.2f–%.2f", r.Q1, r.Q3)
		}
		list = append(list, row{p.Title, i == 0, []string{
			figure(p.CPU.Median), quartiles(p.CPU), ratio, spread, thousands(p.Rate.Median),
			figure(p.P50.Median), figure(p.P99.Median), tail, figure(p.P999.Median),
			fmt.Sprintf("%.0f", p.Memory.Median), memory, objects(p),
			fmt.Sprintf("%.2f", p.Busy.Median), fmt.Sprintf("%.2f", p.Others.Median),
		}})
	}
	return list
}

func thousands(f float64) string {
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func facts(c *compare.Comparison) []fact {
	var list []fact
	for _, p := range c.Peers {
		list = append(list, fact{p.Title, p.Version})
	}
	lines := conditions(c)
	took := time.Duration(c.Took * float64(time.Second)).Round(time.Second)
	return append(list,
		fact{"machine", lines[1] + " · " + c.Machine.Memory},
		fact{"rounds", lines[2]},
		fact{"calls", lines[3]},
		fact{"took", took.String()},
	)
}
