package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/bench/process"
	"sallyport/bench/trial"
)

func revokeCommand() *cobra.Command {
	var f gatewayFlags
	var o trial.RevokeOptions
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Measure how soon connections end whose certificate has lost its right, and that no others do",
		Long: `Measure how soon connections end whose certificate has lost its right, and that no others do.

Calls and streams of many certificates are kept going: HTTP/1.1, HTTP/2, WebSockets and event
streams, and 20 new connections a second. Meanwhile some certificates are removed, put on the
deny list, revoked in a CRL from a file, in one from an address and by an OCSP responder, lose
their CA in the trust store, and expire. Those that were removed are added again in the end, and
the others come off the deny list.

The time of each connection counts from when the gateway can know: from the return of the command,
from when the file was renamed, from when the new CRL or the answer was fetched for the first time,
which happens each second, or from the certificate's end; until a call of it is refused or its
stream breaks. The exit code is 1 if any took longer than --limit, if one was served after that,
or reached the backend, or if any call or stream failed that had its right.

With --load N calls a second go on beside, none of which may fail: 60 in a hundred of certificates
in the handshake, 20 of certificates in a load balancer's header, 20 of tokens.`,
		Args: noArgs,
	}
	f.add(cmd)
	cmd.Flags().IntVar(&o.Connections, "connections", 1000, "`N` connections")
	cmd.Flags().IntVar(&o.Certificates, "certificates", 100, "of `N` certificates")
	cmd.Flags().IntVar(&o.Each, "revoke", 10, "`N` certificates that end each way")
	cmd.Flags().DurationVar(&o.Limit, "limit", time.Second, "`TIME` that a connection may last")
	cmd.Flags().DurationVar(&o.Pace, "pace", 200*time.Millisecond, "`TIME` between the calls of a connection")
	cmd.Flags().Float64Var(&o.Load, "load", 0, "`N` calls a second beside, of callers who keep their right")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkRevoke(o); err != nil {
			return usage(err)
		}
		return f.inside(cmd, nil, func(b bench) error {
			r, err := trial.Revoke(cmd.Context(), b.setup(), b.program, o)
			b.progress.Clear()
			if err != nil {
				return err
			}
			if err := printRevoke(cmd.OutOrStdout(), r); err != nil {
				return err
			}
			return r.Verdict()
		})
	}
	return cmd
}

func checkRevoke(o trial.RevokeOptions) error {
	if least := o.Each * len(trial.Ways); o.Each < 1 || o.Certificates <= least || o.Certificates > 10_000 {
		return fmt.Errorf("--certificates %d, --revoke %d: at least one, some for each of %d ways, some that stay, and at most 10000",
			o.Certificates, o.Each, len(trial.Ways))
	}
	if o.Connections < o.Certificates || o.Connections > 20_000 {
		return fmt.Errorf("--connections %d: at least one for each of %d certificates, and at most 20000", o.Connections, o.Certificates)
	}
	if !(o.Load >= 0 && o.Load <= 100_000) {
		return fmt.Errorf("--load %v: from 0 to 100000", o.Load)
	}
	if o.Limit < 100*time.Millisecond || o.Pace < 10*time.Millisecond || o.Pace > o.Limit/2 {
		return fmt.Errorf("--limit %v, --pace %v: at least 100ms and 10ms, and two calls within the limit", o.Limit, o.Pace)
	}
	if files := process.Files(); files > 0 && files < uint64(4*o.Connections)+400 {
		return fmt.Errorf("--connections %d: the limit of %d open files (ulimit -n) allows %d", o.Connections, files, (files-400)/4)
	}
	return nil
}

func printRevoke(out io.Writer, r trial.RevokeResult) error {
	fmt.Fprintf(out, "%d connections of %d certificates, %d of them each way; %d calls and messages, the slowest call %.0f ms\n",
		r.Connections, r.Certificates, r.Each, r.Calls, ms(r.Slowest))
	fmt.Fprintf(out, "%d errors of those that had their right; sallybench itself stood still for up to %.0f ms\n",
		r.Failed, ms(r.Stalled))
	for _, s := range r.Steady {
		fmt.Fprintf(out, "beside, by %s: %d calls, %.0f a second, %d failed, p99 of the slowest round %.1f ms\n",
			s.Name, s.Calls, float64(s.Calls)/s.Took.Seconds(), s.Errors.Total(), float64(s.P99.Microseconds())/1000)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "way\tknown after ms\tconnections\tp50 ms\tmax ms\tlate\treached backend\terrors of others\t\n")
	for _, c := range r.Changes {
		p50, most := "-", "-"
		if n := len(c.After); n > 0 {
			p50, most = fmt.Sprintf("%.0f", ms(c.After[n/2])), fmt.Sprintf("%.0f", ms(c.After[n-1]))
		}
		fmt.Fprintf(w, "%s\t%.0f\t%d\t%s\t%s\t%d\t%d\t%d\t\n",
			c.Way, ms(c.Known), c.Connections, p50, most, c.Late, c.Reached, c.Others)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, c := range r.Changes {
		if len(c.How) == 0 {
			continue
		}
		var ends []string
		for _, text := range slices.Sorted(maps.Keys(c.How)) {
			ends = append(ends, fmt.Sprintf("%d by %s", c.How[text], text))
		}
		fmt.Fprintf(out, "%s: %s\n", c.Way, strings.Join(ends, ", "))
	}
	return nil
}
