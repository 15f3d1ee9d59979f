package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/bench/compare"
	"sallyport/bench/peer"
	"sallyport/bench/redis"
	"sallyport/bench/report"
)

// compareFlags are the flags of compare.
type compareFlags struct {
	gatewayFlags
	rounds           int
	seconds          float64
	scenarios, peers []string
	baseline         string
	install, quick   bool
	allowBusy        bool
	accessLog        string
	json, html, svg  string
}

func compareCommand() *cobra.Command {
	var f compareFlags
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Compare Sallyport with NGINX, HAProxy and Caddy",
		Long: `Compare Sallyport with those of NGINX, HAProxy and Caddy that are installed, on the same work:
the same certificates, verified by each; a limit for each certificate that is never reached,
where the gateway has one; kept connections to the same backend; metrics on. They take turns
round by round, and a ratio compares figures of the same round, because the machine drifts by
more than the gateways differ.

--baseline adds another build of Sallyport with the same configuration, so that one run
measures a change against its parent:
  git worktree add /tmp/parent HEAD^ && (cd /tmp/parent && go build -o /tmp/before ./cmd/sallyport)
  sallybench compare --baseline /tmp/before --peer none

CPU is what the kernel accounts to all processes of a gateway. The gateways have the first core
to themselves, generator and backend the others; as root, in a network namespace of their own.
Objects a call are the allocations of Sallyport and its baseline, according to their metrics.

The exit code is 1 if a call fails. It is also 1 if the machine is busy, unless --allow-busy is
set: if other programs keep more than a tenth of the cores busy while a gateway is measured, or
if the quartiles of a gateway's CPU a call are further apart than a quarter of the median. The
report is written all the same, and says which of these happened.

Scenarios:
` + scenarioList(),
		Args: noArgs,
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.IntVar(&f.rounds, "rounds", 9, "`N` rounds")
	flags.Float64Var(&f.seconds, "seconds", 5, "`S` seconds of each measurement")
	flags.StringSliceVar(&f.scenarios, "scenario", nil, "only these `SCENARIOS`, separated by commas")
	flags.StringSliceVar(&f.peers, "peer", nil,
		"only these `PEERS`, or none (default: all of nginx, haproxy, caddy that are installed)")
	flags.StringVar(&f.baseline, "baseline", "", "also compare with `PROGRAM`, another build of sallyport")
	flags.BoolVar(&f.allowBusy, "allow-busy", false, "exit with 0 even if the machine was busy")
	flags.BoolVar(&f.install, "install", false, "install Debian's packages of missing peers and Redis with apt-get, as root;\n"+
		"where systemd runs, Debian also starts them as services")
	flags.BoolVar(&f.quick, "quick", false, "3 rounds of one second: a first look, no proof")
	flags.StringVar(&f.accessLog, "access-log", "off", "`on` or off, for all")
	flags.StringVar(&f.json, "json", "", "write everything that was measured to `FILE`")
	flags.StringVar(&f.html, "html", "", "write a report with plots to `FILE`")
	flags.StringVar(&f.svg, "svg", "", "write a drawing of CPU a call to `FILE`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		chosen, kinds, err := f.check(cmd)
		if err != nil {
			return err
		}
		if _, err := f.findBaseline(); err != nil {
			return err
		}
		before := func() error { return f.installMissing(chosen, kinds, cmd.ErrOrStderr()) }
		return f.inside(cmd, before, func(b bench) error { return f.run(cmd, b, chosen, kinds) })
	}
	return cmd
}

func scenarioList() string {
	var b strings.Builder
	for _, s := range compare.Scenarios {
		fmt.Fprintf(&b, "  %-11s %s\n", s.Name, s.Title)
	}
	return strings.TrimRight(b.String(), "\n")
}

// check validates the flags before anything is started.
func (f *compareFlags) check(cmd *cobra.Command) ([]compare.Scenario, []peer.Kind, error) {
	if f.quick {
		if !cmd.Flags().Changed("rounds") {
			f.rounds = 3
		}
		if !cmd.Flags().Changed("seconds") {
			f.seconds = 1
		}
	}
	switch {
	case f.rounds < 1 || f.rounds > 1000:
		return nil, nil, usage(fmt.Errorf("--rounds %d: 1 to 1000", f.rounds))
	case !(f.seconds >= 0.1 && f.seconds <= 3600):
		return nil, nil, usage(fmt.Errorf("--seconds %g: 0.1 to 3600", f.seconds))
	case f.accessLog != "on" && f.accessLog != "off":
		return nil, nil, usage(fmt.Errorf("--access-log %q is neither on nor off", f.accessLog))
	}
	chosen, err := compare.Choose(f.scenarios)
	if err != nil {
		return nil, nil, usage(fmt.Errorf("--scenario: %w", err))
	}
	kinds := peer.Kinds[1:]
	if len(f.peers) > 0 {
		kinds = nil
	}
	if slices.Equal(f.peers, []string{"none"}) {
		return chosen, nil, nil
	}
	for _, name := range f.peers {
		k, err := peer.Find(name)
		if err == nil && k.Name == peer.Kinds[0].Name {
			err = fmt.Errorf("%s takes part anyway", name)
		}
		if err != nil {
			return nil, nil, usage(fmt.Errorf("--peer: %w", err))
		}
		kinds = append(kinds, k)
	}
	return chosen, kinds, nil
}

// findBaseline returns the baseline, if there is one, after running it once: a program that is not Sallyport is an
// error before anything is measured.
func (f *compareFlags) findBaseline() ([]peer.Program, error) {
	if f.baseline == "" {
		return nil, nil
	}
	p, err := peer.Baseline.Locate(f.baseline)
	if err == nil {
		_, err = p.AskVersion()
	}
	if err != nil {
		return nil, usage(fmt.Errorf("--baseline: %w: name a sallyport program, for instance what "+
			"go build -o FILE ./cmd/sallyport makes where the other commit is checked out", err))
	}
	return []peer.Program{p}, nil
}

// installMissing installs missing peers, and what scenarios need, if the user asked for it. Otherwise both are left out;
// those that the user named are an error.
func (f *compareFlags) installMissing(chosen []compare.Scenario, kinds []peer.Kind, say io.Writer) error {
	var packages []string
	for _, s := range chosen {
		if !s.Redis {
			continue
		}
		if _, err := redis.Locate(); err == nil {
			continue
		} else if !f.install {
			if len(f.scenarios) > 0 {
				return usage(fmt.Errorf("--scenario %s: %w, or let --install get it", s.Name, err))
			}
			fmt.Fprintf(say, "redis-server is not installed, and the scenario %s left out (--install gets it)\n", s.Name)
			continue
		}
		packages = append(packages, redis.Debian)
	}
	for _, k := range kinds {
		if _, err := k.Locate(""); err == nil {
			continue
		} else if !f.install {
			if len(f.peers) > 0 {
				return usage(fmt.Errorf("%w: install it, or let --install get Debian's package %s", err, k.Debian))
			}
			fmt.Fprintf(say, "%s is not installed, and left out (--install gets it)\n", k.Title)
			continue
		}
		packages = append(packages, k.Debian)
	}
	if len(packages) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return usage(fmt.Errorf("--install needs root for: apt-get install %s", strings.Join(packages, " ")))
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	for _, args := range [][]string{{"update"}, install} {
		fmt.Fprintln(say, "running apt-get", strings.Join(args, " "))
		apt := exec.Command("apt-get", append([]string{"-q"}, args...)...)
		apt.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		apt.Stdout, apt.Stderr = say, say
		if err := apt.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", args[0], err)
		}
	}
	return nil
}

func (f *compareFlags) run(cmd *cobra.Command, b bench, chosen []compare.Scenario, kinds []peer.Kind) error {
	baseline, err := f.findBaseline()
	if err != nil {
		return err
	}
	programs := append([]peer.Program{b.program}, baseline...)
	for _, k := range kinds {
		if p, err := k.Locate(""); err == nil {
			programs = append(programs, p)
		}
	}
	if _, err := redis.Locate(); err != nil {
		chosen = slices.DeleteFunc(slices.Clone(chosen), func(s compare.Scenario) bool { return s.Redis })
	}
	c, err := compare.Run(cmd.Context(), compare.Options{
		Programs:  programs,
		Scenarios: chosen,
		Rounds:    f.rounds,
		Duration:  time.Duration(f.seconds * float64(time.Second)),
		AccessLog: f.accessLog == "on",
		Network:   b.network,
		Folder:    b.folder,
		Backend:   []string{b.self, "backend"},
		Division:  b.Division,
		Progress:  b.progress,
	})
	if len(c.Scenarios) > 0 {
		err = errors.Join(err, f.write(cmd.OutOrStdout(), c))
	}
	if n := c.Errors(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d calls failed: the lines above tell how", n))
	}
	if len(c.Disturbances) > 0 && !f.allowBusy {
		err = errors.Join(err, errors.New(compare.BusyMachine+
			": the report says why; wait for the other programs to end, or set --allow-busy"))
	}
	return err
}

// write writes the report in all forms that the user asked for.
func (f *compareFlags) write(out io.Writer, c *compare.Comparison) error {
	err := report.Table(out, c)
	asJSON := func(w io.Writer, c *compare.Comparison) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(c)
	}
	for _, form := range []struct {
		file  string
		write func(io.Writer, *compare.Comparison) error
	}{{f.json, asJSON}, {f.html, report.HTML}, {f.svg, report.SVG}} {
		if form.file != "" {
			err = errors.Join(err, writeFile(form.file, func(w io.Writer) error { return form.write(w, c) }))
		}
	}
	return err
}

func writeFile(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}
