// Package report presents a comparison as a table, as an HTML page with plots, and as an SVG drawing.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"sallyport/bench/compare"
)

// Table writes a comparison as plain text.
func Table(out io.Writer, c *compare.Comparison) error {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t%s\t\n", strings.Join([]string{
		"CPU µs/call", "quartiles", "calls/s", "p50 ms", "p99 ms", "p99.9 ms", "MiB under load", "objects/call",
		"Sallyport's CPU to its", "quartiles", "p99 to its", "MiB to its",
	}, "\t"))
	for _, s := range c.Scenarios {
		fmt.Fprintf(w, "%s\t\t\t\t\t\t\t\t\t\t\t\t\t\n", s.Name)
		for i, p := range s.Contestants {
			cells := []string{
				p.Title, figure(p.CPU.Median), quartiles(p.CPU), fmt.Sprintf("%.0f", p.Rate.Median),
				figure(p.P50.Median), figure(p.P99.Median), figure(p.P999.Median),
				fmt.Sprintf("%.0f", p.Memory.Median), objects(p),
				"", "", "", "",
			}
			if i > 0 {
				r := s.Ratios[i-1]
				copy(cells[9:], []string{
					fmt.Sprintf("%.2f", r.CPU.Median),
					fmt.Sprintf("%.2f–%.2f", r.CPU.Q1, r.CPU.Q3),
					fmt.Sprintf("%.2f", r.P99.Median),
					fmt.Sprintf("%.2f", r.Memory.Median),
				})
			}
			fmt.Fprintf(w, "%s\t\n", strings.Join(cells, "\t"))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(out, strings.TrimRight(line, " \n"))
	}
	_, err := fmt.Fprintln(out, "\n"+strings.Join(conditions(c), "\n"))
	if len(c.Disturbances) > 0 {
		_, err = fmt.Fprintf(out, "\n%s\n", strings.ToUpper(compare.BusyMachine))
		for _, d := range c.Disturbances {
			_, err = fmt.Fprintln(out, "  "+d.Text)
		}
	}
	return err
}

// objects formats the allocations of a call; empty if the gateway does not report them.
func objects(c compare.Contestant) string {
	if c.Objects == nil {
		return ""
	}
	return figure(c.Objects.Median)
}

// figure formats f with three significant digits.
func figure(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func quartiles(s compare.Spread) string { return figure(s.Q1) + "–" + figure(s.Q3) }

// conditions describes, in four lines, how the figures were measured.
func conditions(c *compare.Comparison) []string {
	set := c.Settings
	var versions []string
	for _, p := range c.Peers {
		versions = append(versions, p.Title+" "+p.Version)
	}
	cores := "gateways, generator and backend share all cores"
	if len(set.GatewayCores) > 0 {
		cores = fmt.Sprintf("gateways on core %s, generator and backend on %s",
			numbers(set.GatewayCores), numbers(set.LoadCores))
	}
	return []string{
		strings.Join(versions, " · "),
		fmt.Sprintf("%s, %d cores, %s · Linux %s · %s",
			c.Machine.CPU, c.Machine.Cores, c.Machine.System, c.Machine.Kernel, c.Machine.Go),
		fmt.Sprintf("%d interleaved rounds of %g s after %g s of warm-up · %d worker(s) · %s · %s",
			set.Rounds, set.Seconds, set.Warmup, set.Workers, cores, set.Network),
		fmt.Sprintf("%d client certificates · access log %s · %d errors · %s, commit %s",
			set.Clients, map[bool]string{true: "on", false: "off"}[set.AccessLog], c.Errors(),
			c.Date.Format("2006-01-02 15:04 MST"), c.Commit),
	}
}

func numbers(list []int) string { return strings.Trim(fmt.Sprint(list), "[]") }
