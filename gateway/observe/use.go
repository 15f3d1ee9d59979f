package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/internal/contain"
	"sallyport/internal/printable"
)

// other is the label of all that are counted together, since there are too many.
const other = "other"

// WatchUse has the metrics tell, when somebody looks, of the calls to each server and for each registered certificate.
// Who is gone from the configuration or the store is gone from the metrics. It may be called once.
func (m *Metrics) WatchUse(upstreams func() []backend.Figures, clients func() []decision.Use) {
	m.registry.MustRegister(
		&upstreamUse{
			faults: &m.faults, list: upstreams,
			calls:  describe("upstream_calls_total", "Calls sent to a server, those that were sent again included, by class of status; none: no answer.", "upstream", "status"),
			errors: describe("upstream_errors_total", "Calls that failed at a server, by kind.", "upstream", "kind"),
			waits:  describe("upstream_first_byte_seconds", "Time until the head of a server's answer.", "upstream"),
		},
		&clientUse{
			faults: &m.faults, list: clients,
			calls:    describe("client_calls_total", "Calls that showed a registered certificate for its API.", "api", "alias", "key_type"),
			refusals: describe("client_refusals_total", "Calls of these that the gateway answered itself.", "api", "alias", "key_type"),
			seen:     describe("client_last_seen_timestamp_seconds", "When the last of these calls ended, in Unix time.", "api", "alias", "key_type"),
		})
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sallyport_"+name, help, labels, nil)
}

type upstreamUse struct {
	faults               *contain.Faults
	list                 func() []backend.Figures
	calls, errors, waits *prometheus.Desc
}

// Describe is prometheus.Collector's.
func (u *upstreamUse) Describe(out chan<- *prometheus.Desc) {
	out <- u.calls
	out <- u.errors
	out <- u.waits
}

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (u *upstreamUse) Collect(out chan<- prometheus.Metric) {
	defer u.faults.Catch("a metric", nil)
	for _, f := range u.list() {
		name := f.Server
		if name == "" {
			name = other
		}
		for class, n := range f.Answers {
			out <- constant(u.calls, prometheus.CounterValue, float64(n), name, statusClass(100*class))
		}
		for kind, n := range f.Failures {
			out <- constant(u.errors, prometheus.CounterValue, float64(n), name, backend.Failure(kind).String())
		}
		buckets, count := make(map[float64]uint64, len(backend.FirstByteBounds)), uint64(0)
		for i, bound := range backend.FirstByteBounds {
			count += f.Waits[i]
			buckets[bound.Seconds()] = count
		}
		count += f.Waits[len(backend.FirstByteBounds)]
		histogram, err := prometheus.NewConstHistogram(u.waits, count, f.Waited.Seconds(), buckets, name)
		if err != nil {
			histogram = prometheus.NewInvalidMetric(u.waits, err)
		}
		out <- histogram
	}
}

type clientUse struct {
	faults                *contain.Faults
	list                  func() []decision.Use
	calls, refusals, seen *prometheus.Desc
}

// Describe is prometheus.Collector's.
func (c *clientUse) Describe(out chan<- *prometheus.Desc) {
	out <- c.calls
	out <- c.refusals
	out <- c.seen
}

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (c *clientUse) Collect(out chan<- prometheus.Metric) {
	defer c.faults.Catch("a metric", nil)
	for _, use := range c.list() {
		labels := []string{"", other, ""}
		if r := use.Client; r != nil {
			labels = []string{r.API.String(), printable.Text(r.Alias), string(r.KeyType)}
		}
		out <- constant(c.calls, prometheus.CounterValue, float64(use.Calls), labels...)
		out <- constant(c.refusals, prometheus.CounterValue, float64(use.Refusals), labels...)
		if use.Seen != (time.Time{}) {
			out <- constant(c.seen, prometheus.GaugeValue, float64(use.Seen.Unix()), labels...)
		}
	}
}

func constant(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) prometheus.Metric {
	metric, err := prometheus.NewConstMetric(desc, kind, value, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return metric
}
