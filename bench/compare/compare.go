// Package compare measures gateways side by side: the same work for each, interleaved round by round.
package compare

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/bench/histogram"
	"sallyport/bench/load"
	"sallyport/bench/peer"
	"sallyport/bench/pki"
	"sallyport/bench/process"
	"sallyport/bench/progress"
)

// Options configure a comparison. Programs, Scenarios, Folder and Backend are required.
type Options struct {
	Programs  []peer.Program // Sallyport first, then its baseline, if there is one
	Scenarios []Scenario
	Rounds    int           // 0: 9
	Duration  time.Duration // of a measurement; 0: 5 s
	Clients   int           // registered client certificates; 0: 1,000
	AccessLog bool
	Network   string   // its description in the report
	Folder    string   // for certificates and configurations
	Backend   []string // the command that runs the backend, but for --address
	Division
	Progress *progress.Line
}

// A Division assigns cores to the gateways and to the load.
type Division struct {
	Workers      int   // of each gateway; 0: 1
	GatewayCores []int // nil: all
	LoadCores    []int // of the backend, and of this process, which generates the load
}

// Divide assigns the first cores to the gateways and the others to the load. With too few cores for that, both share
// all of them.
func Divide(cores []int, workers int) Division {
	workers = max(1, workers)
	if len(cores) <= workers {
		return Division{Workers: workers}
	}
	return Division{Workers: workers, GatewayCores: cores[:workers], LoadCores: cores[workers:]}
}

// A run is a comparison in progress.
type run struct {
	Options
	pki     *pki.Set
	backend string
	meter   *process.Meter
	result  *Comparison
	left    int           // measurements still to do
	each    time.Duration // how long one takes
}

// Run runs the comparison. After an error, or the end of ctx, it still returns what it has measured so far.
func Run(ctx context.Context, o Options) (*Comparison, error) {
	if o.Rounds <= 0 {
		o.Rounds = 9
	}
	if o.Duration <= 0 {
		o.Duration = 5 * time.Second
	}
	if o.Clients <= 0 {
		o.Clients = 1000
	}
	o.Workers = max(1, o.Workers)
	r := &run{Options: o, result: &Comparison{Date: time.Now(), Machine: thisMachine(o.Division), Commit: commit()}}
	r.result.Settings = Settings{
		Rounds:       o.Rounds,
		Seconds:      o.Duration.Seconds(),
		Warmup:       r.warmup().Seconds(),
		Workers:      o.Workers,
		AccessLog:    o.AccessLog,
		Network:      o.Network,
		GatewayCores: o.GatewayCores,
		LoadCores:    o.LoadCores,
		Clients:      o.Clients,
	}
	for _, p := range o.Programs {
		r.result.Peers = append(r.result.Peers, Peer{p.Name, p.Title, p.Version()})
	}
	err := r.run(ctx)
	r.result.Took = time.Since(r.result.Date).Seconds()
	r.result.judge()
	o.Progress.Clear()
	return r.result, err
}

// warmup is a fifth of a measurement, but long enough to fill caches.
func (r *run) warmup() time.Duration { return max(300*time.Millisecond, r.Duration/5) }

func (r *run) run(ctx context.Context) (err error) {
	r.Progress.Pass("making %d certificates", r.Clients)
	if r.pki, err = pki.Make(r.Folder, r.Clients); err != nil {
		return err
	}
	addresses, err := peer.Addresses(1)
	if err != nil {
		return err
	}
	r.backend = addresses[0]
	args := append(r.Backend[1:], "--address", r.backend)
	backend, err := process.Start(process.Options{Cores: r.LoadCores}, r.Backend[0], args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Stop()) }()

	var cores []int
	if r.GatewayCores != nil {
		cores = slices.Concat(r.GatewayCores, r.LoadCores)
	}
	r.meter = process.NewMeter(cores)
	r.each = r.warmup() + r.Duration + 300*time.Millisecond
	for _, s := range r.Scenarios {
		r.left += r.Rounds * len(contestants(s, r.Programs))
	}
	for _, s := range r.Scenarios {
		if err := r.scenario(ctx, s); err != nil {
			return fmt.Errorf("scenario %s: %w", s.Name, err)
		}
	}
	return nil
}

// scenario starts all gateways afresh, so that no scenario inherits state from the one before, and measures them in
// turn.
func (r *run) scenario(ctx context.Context, s Scenario) (err error) {
	list := contestants(s, r.Programs)
	gateways, stop, err := r.open(ctx, s, list)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}

	result := ScenarioResult{Name: s.Name, Title: s.Title, Detail: s.Detail}
	configs := make([]load.Config, len(list))
	latencies := make([]*histogram.Histogram, len(list))
	for i, c := range list {
		if configs[i], err = s.load(gateways[c.instance].Site, c.own); err != nil {
			return err
		}
		configs[i].Warmup, configs[i].Duration = r.warmup(), r.Duration
		if err := check(ctx, configs[i]); err != nil {
			return fmt.Errorf("%s: %w", c.title, err)
		}
		latencies[i] = histogram.New()
		result.Contestants = append(result.Contestants, Contestant{
			Name:   c.name,
			Title:  c.title,
			Rounds: make([]Round, r.Rounds),
		})
	}
	for round := range r.Rounds {
		for k := range list {
			i := (round + k) % len(list) // each starts a round in turn
			c := &result.Contestants[i]
			label := fmt.Sprintf("%s  round %d/%d  %s", s.Name, round+1, r.Rounds, c.Title)
			m := measurement{
				run:     r,
				label:   label,
				started: gateways[list[i].instance],
				load:    configs[i],
				all:     latencies[i],
			}
			if c.Rounds[round], err = m.measure(ctx); err != nil {
				return fmt.Errorf("%s: %w", c.Title, err)
			}
			if e := c.Rounds[round].Errors; len(e) > 0 {
				r.Progress.Say("%s: %v", label, e)
			}
			r.left--
		}
	}
	if err := r.counted(ctx, s, gateways); err != nil {
		return err
	}
	for i := range result.Contestants {
		result.Contestants[i].Curve = curve(latencies[i])
	}
	result.sumUp()
	r.result.Scenarios = append(r.result.Scenarios, result)
	r.Progress.Say("%s", summary(result))
	return nil
}

// check makes one call, so that a misconfigured gateway fails with its answer in the error.
func check(ctx context.Context, c load.Config) error {
	status, body, err := load.Probe(ctx, c)
	switch {
	case err != nil:
		return err
	case status != c.Want.Status || len(body) != len(c.Want.Body):
		return fmt.Errorf("GET %s: status %d, %.200q", c.URL, status, body)
	}
	return nil
}

// sleep ends early if ctx does.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// curve samples the latency distribution, more densely towards the tail.
func curve(h *histogram.Histogram) []Point {
	var shares []float64
	for tail := 1.0; tail > 0.0001; tail /= 1.25 {
		shares = append(shares, 1-tail)
	}
	shares = append(shares, 0.9999)
	var points []Point
	for i, d := range h.Quantiles(shares...) {
		points = append(points, Point{shares[i], ms(d)})
	}
	return points
}

// summary describes a scenario in one line.
func summary(s ScenarioResult) string {
	line := fmt.Sprintf("%-11s", s.Name)
	for _, c := range s.Contestants {
		line += fmt.Sprintf("  %s %.1f µs", c.Title, c.CPU.Median)
	}
	for _, r := range s.Ratios {
		line += fmt.Sprintf("  %.2f of %s", r.CPU.Median, r.To)
	}
	return line
}
