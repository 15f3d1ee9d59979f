package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sallyport/bench/load"
	"sallyport/bench/process"
	"sallyport/bench/progress"
	"sallyport/internal/regularfile"
)

// loadFlags are the flags of load.
type loadFlags struct {
	load.Config
	workload string
	clients  string
	names    []string
	ca       string
	insecure bool
	header   string
	tokens   string
	anyBody  bool
}

func loadCommand() *cobra.Command {
	var f loadFlags
	cmd := &cobra.Command{
		Use:   "load URL",
		Short: "Load any server, with client certificates and tokens",
		Long: `Load any server with GET calls, with client certificates and tokens, and print how it answered.
Every answer must be 2xx and, without --any-body, have the same body as the first. With --rate,
calls begin when they are due, and latency counts from then; without, each begins when the
previous one is answered. Failed calls are printed, and the exit code is 1.

Workloads:
  keepalive  connections stay
  newconn    a new connection, with a full handshake, for each call
  resumed    a new connection that resumes its TLS session, for each call
  header     connections stay; each call carries a client certificate in a header, in turn, as
             load balancers send them
  token      connections stay; each call carries a bearer token, in turn
  mixed      of ten calls, seven by client certificate and two by token, if there are tokens, on
             a kept connection, and one on a new connection`,
		Example: `  sallybench load --rate 50 --clients sallyport-quickstart/clients --client gold \
    --ca sallyport-quickstart/ca.crt --any-body https://localhost:8243/orders/1.0.0/42`,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.workload, "workload", "keepalive", "`WORKLOAD`, as above")
	flags.BoolVar(&f.HTTP2, "http2", false, "HTTP/2 instead of HTTP/1.1")
	flags.IntVar(&f.Connections, "connections", 64, "`N` connections")
	flags.IntVar(&f.Streams, "streams", 1, "`N` calls at once on each connection of HTTP/2")
	flags.Float64Var(&f.Rate, "rate", 0, "`R` calls a second")
	flags.DurationVar(&f.Duration, "duration", 10*time.Second, "measure for `TIME`")
	flags.DurationVar(&f.Warmup, "warmup", time.Second, "warm up for `TIME`")
	flags.DurationVar(&f.Timeout, "timeout", 10*time.Second, "longest `TIME` of a call")
	flags.StringVar(&f.clients, "clients", "", "`FOLDER` with client certificates, NAME.crt and NAME.key, used in turn")
	flags.StringSliceVar(&f.names, "client", nil, "only these `NAMES` of the folder")
	flags.StringVar(&f.ca, "ca", "", "`FILE` with the CA of the server's certificate (default: the system's)")
	flags.BoolVar(&f.insecure, "insecure", false, "accept any server certificate")
	flags.StringVar(&f.header, "header-name", "X-WSO2-CLIENT-CERTIFICATE",
		"the header's `NAME` for the workload header")
	flags.StringVar(&f.tokens, "tokens", "", "`FILE` with bearer tokens, one a line")
	flags.IntVar(&f.Want.Status, "status", 0, "the `STATUS` of every answer (default: any 2xx)")
	flags.BoolVar(&f.anyBody, "any-body", false, "accept answers whose body differs from the first one's")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(fmt.Errorf("%s takes one URL, and got %d: see %s --help",
				cmd.CommandPath(), len(args), cmd.CommandPath()))
		}
		f.URL = args[0]
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.complete(); err != nil {
			return usage(err)
		}
		if err := process.RaiseFiles(openFiles); err != nil {
			return err
		}
		return f.run(cmd)
	}
	return cmd
}

// complete reads the files that the flags name.
func (f *loadFlags) complete() error {
	if f.Connections < 1 || f.Connections > 60000 {
		return fmt.Errorf("--connections %d: 1 to 60000", f.Connections)
	}
	var identities []tls.Certificate
	var err error
	if f.clients != "" {
		if identities, err = load.Identities(f.clients, f.names...); err != nil {
			return fmt.Errorf("--clients: %w", err)
		}
	}
	if f.tokens != "" {
		if f.Headers, err = load.Tokens(f.tokens); err != nil {
			return fmt.Errorf("--tokens: %w", err)
		}
	}
	f.Identities = identities
	f.Workload = load.Workload(f.workload)
	switch f.workload {
	case "header":
		if identities == nil || f.Headers != nil {
			return errors.New("the workload header needs --clients, and takes no --tokens")
		}
		f.Workload, f.Identities, f.Headers = load.Keepalive, nil, load.CertificateHeaders(f.header, identities)
	case "token":
		if f.Headers == nil {
			return errors.New("the workload token needs --tokens")
		}
		f.Workload = load.Keepalive
	}
	f.TLS = &tls.Config{InsecureSkipVerify: f.insecure}
	if f.ca != "" {
		text, err := regularfile.ReadArgument(f.ca, 1<<20)
		if err != nil {
			return fmt.Errorf("--ca: %s: %w", f.ca, err)
		}
		f.TLS.RootCAs = x509.NewCertPool()
		if !f.TLS.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("--ca: no certificate in %s", f.ca)
		}
	}
	return nil
}

func (f *loadFlags) run(cmd *cobra.Command) error {
	status, body, err := load.Probe(cmd.Context(), f.Config)
	if errors.Is(err, load.ErrConfig) {
		return usage(err)
	}
	if err != nil {
		return fmt.Errorf("the first call: %w", err)
	}
	if want := f.Want.Status; want == 0 && (status < 200 || status > 299) || want != 0 && status != want {
		return fmt.Errorf("the first call: status %d, %.200q", status, body)
	}
	if !f.anyBody {
		f.Want.Body = append([]byte{}, body...) // not nil, even if the body is empty
	}
	line := progress.New(cmd.ErrOrStderr())
	f.Progress = func(p load.Progress) {
		line.Pass("%s  %.0f calls/s  %d calls  %d errors  %v left",
			p.Phase, p.PerSec, p.Calls, p.Errors, p.Left.Round(time.Second))
	}
	r, err := load.Run(cmd.Context(), f.Config)
	line.Clear()
	if r == nil {
		return err
	}
	printLoad(cmd.OutOrStdout(), r)
	if len(r.Errors) > 0 {
		err = errors.Join(err, fmt.Errorf("%d calls failed: %v", r.Errors.Total(), r.Errors))
	}
	return err
}

func printLoad(out io.Writer, r *load.Result) {
	q := r.Latency.Quantiles(0.5, 0.9, 0.99, 0.999, 1)
	fmt.Fprintf(out, "%d calls in %.1f s, %.0f calls/s\n", r.Calls, r.Elapsed.Seconds(), r.PerSecond())
	fmt.Fprintf(out, "latency ms  p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f\n",
		ms(q[0]), ms(q[1]), ms(q[2]), ms(q[3]), ms(q[4]))
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
