package compare

import (
	"context"
	"errors"
	"time"

	"sallyport/bench/histogram"
	"sallyport/bench/load"
	"sallyport/bench/process"
)

// tallyReadings is how often the metrics are read at each end of a measurement.
const tallyReadings = 5

// A measurement is one gateway under load in one round.
type measurement struct {
	*run
	started // the gateway
	label   string
	load    load.Config
	all     *histogram.Histogram // takes the latencies
}

func (m *measurement) measure(ctx context.Context) (Round, error) {
	var before, after, own time.Duration
	var coresBefore, coresAfter process.CoreTime
	var tallyAfter tally
	var memory int64
	var problems []error
	note := func(err error) { problems = append(problems, err) }
	cpu := func(to *time.Duration) {
		var err error
		*to, err = m.Gateway.CPU()
		note(err)
	}
	// Reading the metrics costs the gateway CPU, so it happens outside the measured time: in the warm-up and after the
	// end.
	tallied := make(chan error, 1)
	var tallyBefore tally
	c := m.load
	c.Warming = func() {
		go func() { // Ended waits for it
			var err error
			sleep(ctx, c.Warmup/2)
			tallyBefore, err = takeTally(ctx, m.Gateway, tallyReadings, c.Warmup/4)
			tallied <- err
		}()
	}
	c.Began = func() {
		own = process.OwnCPU()
		cpu(&before)
		var err error
		coresBefore, err = m.meter.Read()
		note(err)
	}
	c.Ended = func() {
		cpu(&after)
		own = process.OwnCPU() - own
		var err error
		coresAfter, err = m.meter.Read()
		note(err)
		memory, err = m.Gateway.Memory()
		note(err)
		note(<-tallied)
		tallyAfter, err = takeTally(ctx, m.Gateway, tallyReadings, time.Second)
		note(err)
	}
	c.Progress = func(p load.Progress) {
		left := (time.Duration(m.left) * m.each).Round(time.Second)
		m.Progress.Pass("%s  %s  %.0f calls/s  about %v left in all", m.label, p.Phase, p.PerSec, left)
	}
	result, err := load.Run(ctx, c)
	if result == nil {
		return Round{}, err
	}
	if err = errors.Join(append(problems, err)...); err != nil {
		return Round{}, err
	}

	m.all.Add(result.Latency)
	q := result.Latency.Quantiles(0.5, 0.99, 0.999)
	seconds := result.Elapsed.Seconds()
	round := Round{
		Calls:   result.Calls,
		Rate:    result.PerSecond(),
		P50:     ms(q[0]),
		P99:     ms(q[1]),
		P999:    ms(q[2]),
		Memory:  float64(memory) / (1 << 20),
		Busy:    (after - before).Seconds() / seconds,
		Load:    own.Seconds() / seconds,
		Others:  coresAfter.Others(coresBefore),
		Errors:  result.Errors,
		Objects: tallyAfter.perCall(tallyBefore, m.reading),
	}
	if result.Calls > 0 {
		round.CPU = float64((after - before).Nanoseconds()) / 1000 / float64(result.Calls)
	}
	return round, nil
}
