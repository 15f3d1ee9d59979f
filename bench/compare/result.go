package compare

import (
	"time"

	"sallyport/bench/load"
)

// A Comparison holds everything that was measured. It is also the JSON form of the report.
type Comparison struct {
	Date      time.Time        `json:"date"`
	Machine   Machine          `json:"machine"`
	Commit    string           `json:"commit"` // of sallybench
	Settings  Settings         `json:"settings"`
	Peers     []Peer           `json:"peers"`
	Scenarios []ScenarioResult `json:"scenarios"`
	Took      float64          `json:"tookSeconds"`

	Disturbances []Disturbance `json:"disturbances,omitempty"` // with any, the figures do not count
}

// Settings record how the comparison was run.
type Settings struct {
	Rounds       int     `json:"rounds"`
	Seconds      float64 `json:"seconds"` // of a measurement
	Warmup       float64 `json:"warmupSeconds"`
	Workers      int     `json:"workers"`
	AccessLog    bool    `json:"accessLog"`
	Network      string  `json:"network"`
	GatewayCores []int   `json:"gatewayCores"` // empty: all
	LoadCores    []int   `json:"loadCores"`    // of generator and backend; empty: all
	Clients      int     `json:"clientCertificates"`
}

// A Peer is a gateway of the comparison.
type Peer struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Version string `json:"version"`
}

// A ScenarioResult is the outcome of one scenario.
type ScenarioResult struct {
	Name        string       `json:"name"`
	Title       string       `json:"title"`
	Detail      string       `json:"detail"`
	Contestants []Contestant `json:"contestants"` // Sallyport first
	Ratios      []Ratio      `json:"ratios"`      // of Sallyport to each other contestant
}

// A Contestant is one gateway, or one way to call it, in one scenario.
type Contestant struct {
	Name   string  `json:"name"`
	Title  string  `json:"title"`
	Rounds []Round `json:"rounds"`

	CPU    Spread `json:"cpuMicrosecondsPerCall"`
	Rate   Spread `json:"callsPerSecond"`
	P50    Spread `json:"p50Milliseconds"`
	P99    Spread `json:"p99Milliseconds"`
	P999   Spread `json:"p999Milliseconds"`
	Memory Spread `json:"memoryMiB"`        // under load: at the end of a round, its connections open
	Busy   Spread `json:"gatewayCoresBusy"` // CPU seconds of the gateway a second
	Others Spread `json:"otherCoresBusy"`   // CPU seconds of other programs a second
	// Objects is nil for gateways that do not report their allocations.
	Objects *Spread `json:"objectsAllocatedPerCall,omitempty"`
	Curve   []Point `json:"latencyCurve"` // of all rounds together
}

// A Round is one measurement.
type Round struct {
	Calls  uint64      `json:"calls"`
	CPU    float64     `json:"cpuMicrosecondsPerCall"`
	Rate   float64     `json:"callsPerSecond"`
	P50    float64     `json:"p50Milliseconds"`
	P99    float64     `json:"p99Milliseconds"`
	P999   float64     `json:"p999Milliseconds"`
	Memory float64     `json:"memoryMiB"`
	Busy   float64     `json:"gatewayCoresBusy"`
	Load   float64     `json:"generatorCoresBusy"`
	Others float64     `json:"otherCoresBusy"`
	Errors load.Errors `json:"errors,omitempty"`

	Objects *float64 `json:"objectsAllocatedPerCall,omitempty"` // nil: not reported, or too inexact
}

// A Point of a latency curve: the share of calls that took no longer.
type Point struct {
	Share        float64 `json:"share"`
	Milliseconds float64 `json:"milliseconds"`
}

// A Ratio compares Sallyport with another contestant, round by round. Below 1 Sallyport has the smaller figure, which
// is better for all but Rate.
type Ratio struct {
	To     string `json:"to"`
	CPU    Spread `json:"cpu"`
	P99    Spread `json:"p99"`
	Rate   Spread `json:"callsPerSecond"`
	Memory Spread `json:"memory"` // under load
}

// Errors returns how many calls failed in all.
func (c *Comparison) Errors() (n uint64) {
	for _, s := range c.Scenarios {
		for _, p := range s.Contestants {
			for _, r := range p.Rounds {
				n += r.Errors.Total()
			}
		}
	}
	return n
}

// column returns one figure of each round.
func (c *Contestant) column(figure func(Round) float64) []float64 {
	list := make([]float64, len(c.Rounds))
	for i, r := range c.Rounds {
		list[i] = figure(r)
	}
	return list
}

// Figures of a Round.
func cpu(r Round) float64      { return r.CPU }
func rate(r Round) float64     { return r.Rate }
func p50(r Round) float64      { return r.P50 }
func p99(r Round) float64      { return r.P99 }
func p999(r Round) float64     { return r.P999 }
func inMemory(r Round) float64 { return r.Memory }
func busy(r Round) float64     { return r.Busy }
func others(r Round) float64   { return r.Others }

// objects sums up the rounds that have the figure; nil if none has.
func objects(rounds []Round) *Spread {
	var told []float64
	for _, r := range rounds {
		if r.Objects != nil {
			told = append(told, *r.Objects)
		}
	}
	if told == nil {
		return nil
	}
	s := spread(told)
	return &s
}

// sumUp computes the spreads and ratios from the rounds.
func (s *ScenarioResult) sumUp() {
	for i := range s.Contestants {
		c := &s.Contestants[i]
		for _, f := range []struct {
			to *Spread
			of func(Round) float64
		}{
			{&c.CPU, cpu},
			{&c.Rate, rate},
			{&c.P50, p50},
			{&c.P99, p99},
			{&c.P999, p999},
			{&c.Memory, inMemory},
			{&c.Busy, busy},
			{&c.Others, others},
		} {
			*f.to = spread(c.column(f.of))
		}
		c.Objects = objects(c.Rounds)
	}
	first := &s.Contestants[0]
	for i := 1; i < len(s.Contestants); i++ {
		c := &s.Contestants[i]
		to := func(figure func(Round) float64) Spread { return spread(ratios(first.column(figure), c.column(figure))) }
		s.Ratios = append(s.Ratios, Ratio{
			To:     c.Title,
			CPU:    to(cpu),
			P99:    to(p99),
			Rate:   to(rate),
			Memory: to(inMemory),
		})
	}
}
