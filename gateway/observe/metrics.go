// Package observe tells operators what the gateway does: metrics, an access log, health.
package observe

import (
	"errors"
	"maps"
	"math"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/internal/contain"
)

// Metrics are the gateway's figures for Prometheus. The labels are words of the configuration or of this program, so
// that no client can make a new series.
type Metrics struct {
	registry  *prometheus.Registry
	calls     *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	refusals  *prometheus.CounterVec
	throttled *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	reloads   *prometheus.CounterVec
	failures  *prometheus.CounterVec
	good      *prometheus.GaugeVec
	lost      prometheus.Counter
	turned    *prometheus.CounterVec
	evicted   *prometheus.CounterVec
	shaken    *prometheus.CounterVec
	panics    *prometheus.CounterVec
	faults    contain.Faults

	found atomic.Pointer[map[seriesKey]*series] // that calls have used; never changed, but replaced

	mu sync.Mutex // held to replace found
}

// NewMetrics returns metrics that stand at zero. version is the program's.
func NewMetrics(version string) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_" + name, Help: help}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls: counter("calls_total",
			"Calls answered, by listener, API (empty if none was found), whose identity they had, and class of status.", "listener", "api", "by", "status"),
		refusals:  counter("refusals_total", "Calls that the gateway answered itself, by API and reason.", "api", "reason"),
		throttled: counter("throttled_calls_total", "Calls refused because an allowance was spent, by API, level of the limit and tier.", "api", "level", "tier"),
		bytes:     counter("body_bytes_total", "Bytes of bodies carried, by API and direction.", "api", "direction"),
		turned:    counter("connections_refused_total", "Connections turned away before their first call, by reason.", "why"),
		evicted:   counter("connections_evicted_total", "Connections without a call under way that were closed to make room for others, by the limit that was reached.", "limit"),
		shaken:    counter("handshakes_refused_total", "TLS handshakes that failed, by reason.", "reason"),
		panics:    counter("panics_total", "Faults of the gateway that ended what they happened in, and nothing else, by what that was.", "where"),
		reloads:   counter("reloads_total", "Good changes put into force, by what was reloaded.", "what"),
		failures:  counter("reload_failures_total", "Changes that were refused, the last good state serving on, by what was reloaded.", "what"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sallyport_call_duration_seconds", Help: "Time from a call's head to its last byte, by API.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"api"}),
		good: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sallyport_reload_good", Help: "1 if the newest content is in force, 0 if it was refused, by what is reloaded.",
		}, []string{"what"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_access_log_lines_lost_total", Help: "Access log lines dropped because their destination was too slow.",
		}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sallyport_build_info", Help: "Always 1; the labels say what runs."}, []string{"version", "go"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.faults.Count = m.Panicked
	m.registry.MustRegister(m.calls, m.duration, m.refusals, m.throttled, m.bytes, m.reloads, m.failures, m.good, m.lost, m.turned, m.evicted, m.shaken, m.panics, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics in Prometheus' formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Panicked counts a panic that was contained. where is a word of the program.
func (m *Metrics) Panicked(where string) { m.panics.WithLabelValues(where).Inc() }

// Observe counts a finished call.
func (m *Metrics) Observe(x *decision.Exchange, took time.Duration) {
	s := m.seriesOf(x)
	s.calls.Inc()
	s.duration.Observe(took.Seconds())
	if x.BytesIn > 0 {
		s.in.Add(float64(x.BytesIn))
	}
	if x.BytesOut > 0 {
		s.out.Add(float64(x.BytesOut))
	}
	if x.Err == nil {
		return
	}
	api := apiName(x)
	m.refusals.WithLabelValues(api, reason(x)).Inc()
	if v := x.Allowance; !v.Allowed && v.Level != 0 && (v.Window > 0 || !v.Uncounted) {
		m.throttled.WithLabelValues(api, v.Level.String(), v.Tier).Inc()
	}
}

// A series is the figures of calls that have their labels in common. To find it by its labels anew for each call would
// cost more than to count (BenchmarkObserve).
type series struct {
	calls    prometheus.Counter
	duration prometheus.Observer
	in, out  prometheus.Counter
}

type seriesKey struct {
	listener string
	api      certstore.API // zero: none was found
	by       string
	class    int // of the status
}

func (m *Metrics) seriesOf(x *decision.Exchange) *series {
	key := seriesKey{listener: x.Listener.Name, by: caller(x), class: x.Status / 100}
	if x.Route != nil {
		key.api = x.Route.API
	}
	if found := m.found.Load(); found != nil {
		if s := (*found)[key]; s != nil {
			return s
		}
	}
	api := apiName(x)
	s := &series{
		calls:    m.calls.WithLabelValues(x.Listener.Name, api, key.by, statusClass(x.Status)),
		duration: m.duration.WithLabelValues(api),
		in:       m.bytes.WithLabelValues(api, "in"),
		out:      m.bytes.WithLabelValues(api, "out"),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	more := map[seriesKey]*series{key: s} // two that come at once count in the same figures
	if found := m.found.Load(); found != nil {
		maps.Copy(more, *found)
	}
	m.found.Store(&more)
	return s
}

// Reloaded records that a change of what ("configuration", "store", a listener's profiles) is in force, or was refused.
func (m *Metrics) Reloaded(what string, refused error) {
	if refused != nil {
		m.failures.WithLabelValues(what).Inc()
		m.good.WithLabelValues(what).Set(0)
		return
	}
	m.reloads.WithLabelValues(what).Inc()
	m.good.WithLabelValues(what).Set(1)
}

// ConnectionRefused counts a connection that was turned away; see gateway.ConnectionObserver.
func (m *Metrics) ConnectionRefused(why string) { m.turned.WithLabelValues(why).Inc() }

// HandshakeRefused counts a TLS handshake that failed; see gateway.Options.Handshakes.
func (m *Metrics) HandshakeRefused(reason string) { m.shaken.WithLabelValues(reason).Inc() }

// ConnectionEvicted counts a connection that was closed to make room for others; see gateway.ConnectionObserver.
func (m *Metrics) ConnectionEvicted(limit string) { m.evicted.WithLabelValues(limit).Inc() }

// WatchConnections has the metrics tell how many connections are open, and how many TLS handshakes are under way and
// wait for their turn, when somebody looks. It may be called once.
func (m *Metrics) WatchConnections(open func() int, handshakes func() (underWay, waiting int)) {
	m.gauge("connections", "Client connections that are open.", open)
	m.gauge("handshakes", "TLS handshakes under way.", func() int { underWay, _ := handshakes(); return underWay })
	m.gauge("handshakes_waiting", "Connections that wait for their TLS handshake to begin.", func() int { _, waiting := handshakes(); return waiting })
}

// gauge has the metrics tell a count when somebody looks. Prometheus asks on a goroutine of its own.
func (m *Metrics) gauge(name, help string, count func() int) {
	opts := prometheus.GaugeOpts{Name: "sallyport_" + name, Help: help}
	m.registry.MustRegister(prometheus.NewGaugeFunc(opts, func() (n float64) {
		defer m.faults.Catch("a metric", func(*contain.Fault) { n = math.NaN() })
		return float64(count())
	}))
}

func apiName(x *decision.Exchange) string {
	if x.Route == nil {
		return ""
	}
	return x.Route.API.String()
}

// caller is whose identity the call had: certificate, token, nothing for an open resource, refused.
func caller(x *decision.Exchange) string {
	if !x.Access.Allowed {
		return "refused"
	}
	return x.Access.By.String()
}

func reason(x *decision.Exchange) string {
	if x.Err == nil {
		return ""
	}
	var r *decision.Refusal
	if errors.As(x.Err, &r) {
		return r.Reason.String()
	}
	return "broken_off"
}

func statusClass(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return string('0'+rune(status/100)) + "xx"
}
