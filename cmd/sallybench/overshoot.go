package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sallyport/bench/load"
	"sallyport/bench/redis"
	"sallyport/bench/trial"
)

func overshootCommand() *cobra.Command {
	var f gatewayFlags
	var o trial.OvershootOptions
	cmd := &cobra.Command{
		Use:   "overshoot",
		Short: "Measure the most that passes in any window under a limit that gateways share",
		Long: `Measure the most that passes in any window under a limit that gateways share: start Redis and
several Sallyports that count in it, call all of them with one certificate as fast as they
answer, and look at when calls passed. It needs redis-server.

A tier of 100 calls a minute is a bucket of --burst calls, refilled evenly, so that in no
stretch of t seconds more than burst + 100·t/60 may pass. The figures:
  passed        calls answered 200; each must have reached the backend, which counts them, too.
                429 is the other answer that is expected, and any other is a failure
  allowed       burst + rate·time, from the first call to the last answer. Some of it does not
                pass because one gateway holds leased calls while another refuses
  worst window  of all stretches of time, the one with the most calls over what it allows, or
                the fewest under. A call is in it if it was sent after the begin and answered
                before the end, so it was decided within for certain
  without Redis decisions of gateways by themselves, after a call had waited --redis-timeout in
                vain; they may let one burst pass that was spent already

The exit code is 1 if a window is over, if less than 95% of what is allowed passed, if the
backend counted other calls than passed, or if a call failed. With --redis-fault stop, Redis is
stopped (SIGSTOP) for the middle third of the time, and gateways decide by themselves: then the
95% don't count, and a window may be over by one burst. --unshared leaves Redis out, so that each
gateway lets the whole tier pass, and shows that this is found out.`,
		Args: noArgs,
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.IntVar(&o.Nodes, "nodes", 2, "`N` gateways")
	flags.IntVar(&o.Limit.Count, "limit", 100, "`N` calls in each --per")
	flags.StringVar(&o.Limit.Unit, "per", "min", "`UNIT` of --limit: sec, min or hour")
	flags.IntVar(&o.Limit.Burst, "burst", 0, "`N` calls that may pass at once (default: --limit)")
	flags.DurationVar(&o.Duration, "for", 10*time.Minute, "call for `TIME`")
	flags.DurationVar(&o.Wait, "redis-timeout", 25*time.Millisecond, "longest `TIME` that a call waits for Redis")
	fault := flags.String("redis-fault", string(trial.NoFault), "`FAULT` of Redis: none or stop")
	flags.BoolVar(&o.Unshared, "unshared", false, "let each gateway count by itself")
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Fault = trial.Fault(*fault)
		if o.Limit.Burst == 0 && !flags.Changed("burst") {
			o.Limit.Burst = o.Limit.Count
		}
		inJSON, err := asJSON()
		if err == nil {
			err = checkOvershoot(o)
		}
		if err != nil {
			return err
		}
		return f.inside(cmd, nil, func(b bench) error {
			r, err := trial.Overshoot(cmd.Context(), b.setup(), b.program, o)
			b.progress.Clear()
			if err != nil {
				return err
			}
			show := printOvershoot
			if inJSON {
				show = overshootJSON
			}
			if err := show(cmd.OutOrStdout(), r); err != nil {
				return err
			}
			return r.Verdict()
		})
	}
	return cmd
}

// checkOvershoot validates the flags.
func checkOvershoot(o trial.OvershootOptions) error {
	var err error
	switch {
	case o.Nodes < 1 || o.Nodes > 50:
		err = fmt.Errorf("--nodes %d: 1 to 50", o.Nodes)
	case o.Limit.Count < 1 || o.Limit.Count > 1_000_000:
		err = fmt.Errorf("--limit %d: 1 to 1000000", o.Limit.Count)
	case o.Limit.Rate() == 0:
		err = fmt.Errorf("--per %q is neither sec nor min nor hour", o.Limit.Unit)
	case o.Limit.Burst < 1 || o.Limit.Burst > 1_000_000:
		err = fmt.Errorf("--burst %d: 1 to 1000000", o.Limit.Burst)
	case o.Duration < time.Second:
		err = fmt.Errorf("--for %v: at least 1s", o.Duration)
	case o.Wait < time.Millisecond || o.Wait > time.Minute:
		err = fmt.Errorf("--redis-timeout %v: 1ms to 1m", o.Wait)
	case o.Fault != trial.NoFault && o.Fault != trial.Stop:
		err = fmt.Errorf("--redis-fault %q is neither none nor stop", o.Fault)
	case o.Unshared && o.Fault != trial.NoFault:
		err = fmt.Errorf("--redis-fault %s: there is no Redis with --unshared", o.Fault)
	case !o.Unshared:
		_, err = redis.Locate()
	}
	return usage(err)
}

// outputFlag adds -o to a command and returns whether JSON is wanted.
func outputFlag(cmd *cobra.Command) func() (bool, error) {
	format := cmd.Flags().StringP("output", "o", "text", "`FORMAT` of the output: text or json")
	return func() (bool, error) {
		switch *format {
		case "text":
			return false, nil
		case "json":
			return true, nil
		}
		return false, usage(fmt.Errorf("--output %q is neither text nor json", *format))
	}
}

func printOvershoot(out io.Writer, r trial.OvershootResult) error {
	shared := "count in one Redis"
	if r.Unshared {
		shared = "count by themselves"
	}
	if r.Fault == trial.Stop {
		shared += ", which stops for the middle third"
	}
	margin := fmt.Sprintf("%.2f under", -r.Worst.Over())
	if r.Worst.Over() > 0 {
		margin = fmt.Sprintf("%.2f over", r.Worst.Over())
	}
	seconds := r.Took.Seconds()
	fmt.Fprintf(out, "gateways      %d, which %s\n", r.Nodes, shared)
	fmt.Fprintf(out, "tier          %d per %s, burst %d, one certificate\n", r.Limit.Count, r.Limit.Unit, r.Limit.Burst)
	fmt.Fprintf(out, "calls         %d in %.1f s, %.0f a second\n", r.Calls, seconds, float64(r.Calls)/seconds)
	fmt.Fprintf(out, "passed        %d; the backend answered %d\n", r.Passed, r.Answered)
	fmt.Fprintf(out, "allowed       %.1f, of which %.1f%% passed\n", r.Allowed(), 100*r.Share())
	fmt.Fprintf(out, "worst window  %d calls in %.3f s, where %.1f are allowed: %s\n",
		r.Worst.Passed, r.Worst.Length.Seconds(), r.Worst.Allowed, margin)
	_, err := fmt.Fprintf(out, "without Redis %d decisions; %d calls waited for it in vain\n", r.Uncounted, r.TimedOut)
	return err
}

// overshootJSON prints the figures of printOvershoot as JSON.
func overshootJSON(out io.Writer, r trial.OvershootResult) error {
	type tier struct {
		Count int    `json:"requestCount"`
		Unit  string `json:"timeUnit"`
		Burst int    `json:"burst"`
	}
	type window struct {
		Passed  int     `json:"passed"`
		Seconds float64 `json:"seconds"`
		Allowed float64 `json:"allowed"`
		Over    float64 `json:"over"` // negative: under
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Nodes      int         `json:"nodes"`
		Shared     bool        `json:"shared"`
		RedisFault trial.Fault `json:"redisFault"`
		Tier       tier        `json:"tier"`
		Seconds    float64     `json:"seconds"`
		Calls      int         `json:"calls"`
		Passed     int         `json:"passed"`
		Backend    int         `json:"backendAnswered"`
		Allowed    float64     `json:"allowed"`
		Share      float64     `json:"share"`
		Worst      window      `json:"worstWindow"`
		Uncounted  int         `json:"decidedWithoutRedis"`
		TimedOut   int         `json:"redisTimeouts"`
		Errors     load.Errors `json:"errors,omitempty"`
	}{
		r.Nodes, !r.Unshared, r.Fault, tier(r.Limit), r.Took.Seconds(), r.Calls, r.Passed, r.Answered,
		r.Allowed(), r.Share(),
		window{r.Worst.Passed, r.Worst.Length.Seconds(), r.Worst.Allowed, r.Worst.Over()},
		r.Uncounted, r.TimedOut, r.Errors,
	})
}
