package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/bench/load"
	"sallyport/bench/peer"
	"sallyport/bench/process"
	"sallyport/bench/trial"
)

func (b bench) setup() trial.Setup {
	return trial.Setup{
		Folder:   b.folder,
		Backend:  []string{b.self, "backend"},
		Progress: b.progress,
		Division: b.Division,
	}
}

func idleCommand() *cobra.Command {
	var f gatewayFlags
	cmd := &cobra.Command{
		Use:   "idle",
		Short: "Measure the memory of idle mTLS connections, or after a burst of new ones",
		Long: `Measure the memory of idle mTLS connections: that of the gateway with them, less that without
them, divided by their number. Each makes two calls and then rests. Sallyport closes connections
that rest for a minute, so --settle must be shorter.

With --burst N instead: what N new mTLS connections, each with one call, leave behind after they
have closed and the gateway has rested for --settle, except for a call a second on another
connection.`,
		Args: noArgs,
	}
	f.add(cmd)
	n := cmd.Flags().Int("connections", 10_000, "`N` connections")
	settle := cmd.Flags().Duration("settle", 50*time.Second, "let them rest for `TIME`")
	burst := cmd.Flags().Int("burst", 0, "instead, what `N` connections leave that are opened and closed, evenly over --burst-time")
	lasts := cmd.Flags().Duration("burst-time", 2*time.Minute, "`TIME` of the burst")
	names := cmd.Flags().StringSlice("peer", nil, "also measure these `PEERS`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *n < 1 || *n > 50_000 || *settle < 0 {
			return usage(fmt.Errorf("--connections %d, --settle %v: 1 to 50000, and no negative time", *n, *settle))
		}
		if *burst < 0 || *lasts <= 0 || float64(*burst)/lasts.Seconds() > 50_000 {
			return usage(fmt.Errorf("--burst %d, --burst-time %v: some connections in some time, and at most 50000 a second",
				*burst, *lasts))
		}
		others, err := locate(*names)
		if err != nil {
			return err
		}
		return f.inside(cmd, nil, func(b bench) error {
			if *burst > 0 {
				return burstOf(cmd, b, others, *burst, *lasts, *settle)
			}
			// Sallyport limits its connections to leave as many files for backends.
			if files := process.Files(); files > 0 && files < uint64(2**n)+100 {
				return usage(fmt.Errorf("--connections %d: the limit of %d open files (ulimit -n) allows %d",
					*n, files, (files-100)/2))
			}
			for _, p := range append([]peer.Program{b.program}, others...) {
				r, err := trial.Idle(cmd.Context(), b.setup(), p, *n, *settle)
				b.progress.Clear()
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-10s %d idle mTLS connections: %.1f KiB each "+
					"(%.1f MiB without, %.1f MiB with, %v after the last byte)\n",
					p.Title, *n, r.Each()/1024, mib(r.Without), mib(r.With), *settle)
			}
			return nil
		})
	}
	return cmd
}

// burstOf measures what a burst of n connections leaves behind.
func burstOf(cmd *cobra.Command, b bench, others []peer.Program, n int, lasts, rest time.Duration) error {
	for _, p := range append([]peer.Program{b.program}, others...) {
		r, err := trial.Burst(cmd.Context(), b.setup(), p, n, lasts, rest)
		b.progress.Clear()
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%-10s %d new mTLS connections in %v: %.1f MiB above the start %v after the last "+
			"(%.1f MiB at the start, %.1f MiB at the end of the burst, %.1f MiB rested)\n",
			p.Title, r.Connections, lasts, mib(r.Left()), rest, mib(r.Start), mib(r.End), mib(r.Rested))
	}
	return nil
}

// locate finds peers by name.
func locate(names []string) ([]peer.Program, error) {
	var list []peer.Program
	for _, name := range names {
		k, err := peer.Find(name)
		if err != nil {
			return nil, usage(fmt.Errorf("--peer: %w", err))
		}
		p, err := k.Locate("")
		if err != nil {
			return nil, usage(fmt.Errorf("--peer: %w", err))
		}
		list = append(list, p)
	}
	return list, nil
}

func reloadCommand() *cobra.Command {
	var f gatewayFlags
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Measure how reloads affect calls",
		Long: `Measure how reloads affect calls: latency and failures at half of Sallyport's maximum load,
without reloads and with them. Each reload replaces listenerprofiles.xml by one with another
server certificate.`,
		Args: noArgs,
	}
	f.add(cmd)
	n := cmd.Flags().Int("reloads", 100, "`N` reloads")
	interval := cmd.Flags().Duration("interval", time.Second, "`TIME` between reloads")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *n < 1 || *interval < 10*time.Millisecond {
			return usage(fmt.Errorf("--reloads %d, --interval %v: at least one, and 10ms", *n, *interval))
		}
		return f.inside(cmd, nil, func(b bench) error {
			r, err := trial.Reload(cmd.Context(), b.setup(), b.program, *n, *interval)
			b.progress.Clear()
			if r.With == nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintf(w, "half load, %.0f calls/s\tcalls\tfailures\tp50 ms\tp99 ms\tp99.9 ms\tmax ms\t\n", r.Rate)
			for _, row := range []struct {
				name string
				*load.Result
			}{{"without reloads", r.Without}, {fmt.Sprintf("with %d reloads", r.Reloads), r.With}} {
				q := row.Latency.Quantiles(0.5, 0.99, 0.999, 1)
				fmt.Fprintf(w, "%s\t%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t\n",
					row.name, row.Calls, row.Errors.Total(), ms(q[0]), ms(q[1]), ms(q[2]), ms(q[3]))
				if len(row.Errors) > 0 {
					err = errors.Join(err, fmt.Errorf("%s, %d calls failed: %v",
						row.name, row.Errors.Total(), row.Errors))
				}
			}
			if flushed := w.Flush(); flushed != nil {
				return flushed
			}
			fmt.Fprintf(cmd.OutOrStdout(), "p99 with reloads is %.2f times that without\n",
				float64(r.With.Latency.Quantile(0.99))/float64(r.Without.Latency.Quantile(0.99)))
			return err
		})
	}
	return cmd
}

func soakCommand() *cobra.Command {
	var f gatewayFlags
	var o trial.SoakOptions
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Load Sallyport for a long time while everything changes",
		Long: `Load Sallyport for a long time, with calls on kept and on new connections, while its profiles
reload and certificates are added and removed, and print memory, goroutines and failures.`,
		Args: noArgs,
	}
	f.add(cmd)
	cmd.Flags().DurationVar(&o.Duration, "duration", time.Hour, "`TIME`")
	cmd.Flags().Float64Var(&o.Rate, "rate", 1000, "`R` calls a second; 0 for as many as possible")
	cmd.Flags().DurationVar(&o.Every, "every", 10*time.Second, "`TIME` between changes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Duration <= 0 || o.Every < 100*time.Millisecond || o.Rate < 0 {
			return usage(fmt.Errorf("--duration %v, --every %v, --rate %g: "+
				"some time, at least 100ms, and no negative rate",
				o.Duration, o.Every, o.Rate))
		}
		return f.inside(cmd, nil, func(b bench) error {
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%10s  %10s  %10s  %12s  %8s\n", "after", "memory MiB", "goroutines", "calls", "failures")
			o.Sample = func(s trial.Sample) {
				b.progress.Clear()
				fmt.Fprintf(out, "%10s  %10.1f  %10d  %12d  %8d\n",
					s.At.Round(time.Second), mib(s.Memory), s.Goroutines, s.Calls, s.Errors)
			}
			r, err := trial.Soak(cmd.Context(), b.setup(), b.program, o)
			b.progress.Clear()
			if r.Result == nil {
				return err
			}
			fmt.Fprintf(out, "%d changes\n", r.Changes)
			printLoad(out, r.Result)
			if len(r.Errors) > 0 {
				err = errors.Join(err, fmt.Errorf("%d calls failed: %v", r.Errors.Total(), r.Errors))
			}
			return err
		})
	}
	return cmd
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
