package observe

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/internal/contain"
	"sallyport/internal/printable"
	"sallyport/policy/ratelimit"
)

// limits tells how the limits are shared when somebody looks.
type limits struct {
	faults *contain.Faults
	state  func() ratelimit.State
	list   []limitFigure
}

type limitFigure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(ratelimit.State) float64
}

// WatchLimits has the metrics tell how limits are shared; nothing if they are counted in this process. state is called
// at each look. It may be called once.
func (m *Metrics) WatchLimits(state func() ratelimit.State) {
	l := limits{faults: &m.faults, state: state}
	add := func(name, help string, kind prometheus.ValueType, of func(ratelimit.State) float64) {
		l.list = append(l.list, limitFigure{prometheus.NewDesc("sallyport_limits_"+name, help, nil, nil), kind, of})
	}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	add("shared", "1 if limits are counted in Redis now, 0 if Redis can't be used, at least for some of them.", gauge,
		func(s ratelimit.State) float64 {
			if s.Failing != nil {
				return 0
			}
			return 1
		})
	add("state_since_timestamp_seconds", "When Redis began to be used, or failed, in seconds since 1970.", gauge,
		func(s ratelimit.State) float64 { return float64(s.Since.UnixMilli()) / 1000 })
	add("nodes", "Gateways that were seen last to share the limits, this one included.", gauge,
		func(s ratelimit.State) float64 { return float64(s.Nodes) })
	add("leased", "Calls that this gateway may let pass without asking Redis.", gauge,
		func(s ratelimit.State) float64 { return float64(s.Leased) })
	add("exchanges_total", "Exchanges with a bucket in Redis.", counter, func(s ratelimit.State) float64 { return float64(s.Exchanges) })
	add("granted_total", "Calls leased from buckets in Redis.", counter, func(s ratelimit.State) float64 { return float64(s.Granted) })
	add("returned_total", "Leased calls given back unspent.", counter, func(s ratelimit.State) float64 { return float64(s.Returned) })
	add("lost_total", "Leased calls that were neither spent nor given back: so many fewer passed than might have.", counter,
		func(s ratelimit.State) float64 { return float64(s.Lost) })
	add("waits_total", "Calls that waited for a lease.", counter, func(s ratelimit.State) float64 { return float64(s.Waits) })
	add("wait_seconds_total", "Time that calls waited for leases.", counter, func(s ratelimit.State) float64 { return s.Waited.Seconds() })
	add("timeouts_total", "Calls that Redis did not answer in time.", counter, func(s ratelimit.State) float64 { return float64(s.TimedOut) })
	add("uncounted_total", "Decisions by whenRedisFails.", counter, func(s ratelimit.State) float64 { return float64(s.Uncounted) })
	m.registry.MustRegister(l)
}

// Describe is prometheus.Collector's.
func (l limits) Describe(out chan<- *prometheus.Desc) {
	for _, f := range l.list {
		out <- f.desc
	}
}

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (l limits) Collect(out chan<- prometheus.Metric) {
	defer l.faults.Catch("a metric", nil)
	s := l.state()
	if !s.Shared {
		return
	}
	for _, f := range l.list {
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(s))
	}
}

// DescribeLimits is a line that says where limits are counted now; "" if it is in this process.
func DescribeLimits(s ratelimit.State) string {
	switch {
	case !s.Shared:
		return ""
	case s.Failing == nil && s.Nodes == 1:
		return fmt.Sprintf("counted in %s, which no other gateway uses now", s.Redis)
	case s.Failing == nil:
		return fmt.Sprintf("counted in %s, shared by %d gateways", s.Redis, s.Nodes)
	}
	share := "each gateway lets its share of a tier pass"
	if s.Nodes > 1 {
		share = fmt.Sprintf("each of the %d gateways seen last lets its share of a tier pass", s.Nodes)
	}
	does := map[ratelimit.OnFailure]string{
		ratelimit.ShareLocally: share,
		ratelimit.AllowAll:     "all calls pass",
		ratelimit.DenyAll:      "calls under a limit are refused",
	}[s.OnFailure]
	return fmt.Sprintf("not shared, %s can't be used: %s; whenRedisFails is %s: %s",
		s.Redis, printable.Text(strings.ReplaceAll(s.Failing.Error(), "\n", "; ")), s.OnFailure, does)
}
