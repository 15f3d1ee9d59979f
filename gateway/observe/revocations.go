package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/internal/contain"
)

// A Revocation is how it stands with a CRL, a source that has none, or an OCSP responder. Its texts are printable.
type Revocation struct {
	Kind, Location, Issuer string
	Entries                int
	Until                  time.Time // the end of what it says; zero: it says nothing
	Seen                   time.Time // when it was last had, or the responder last answered; zero: never
	Stale, Problem         bool
}

// MaxRevocations is how many sources of revocations the metrics tell of.
const MaxRevocations = 1000

// WatchRevocations has the metrics tell how it stands with CRLs and OCSP responders. The function is called at each look.
// It may be called once.
func (m *Metrics) WatchRevocations(list func() []Revocation) {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("sallyport_revocation_"+name, help, []string{"kind", "location", "issuer"}, nil)
	}
	m.registry.MustRegister(revocations{
		faults: &m.faults, list: list,
		entries: desc("entries", "Entries of a CRL in force, its delta's included."),
		until:   desc("until_timestamp_seconds", "When a CRL in force ceases to count, by its nextUpdate or by maxAge, in Unix time; the earliest of those that share the labels."),
		seen:    desc("seen_timestamp_seconds", "When a CRL was last had or found unchanged at its source, or an OCSP responder last answered, in Unix time."),
		stale:   desc("stale", "1 if a CRL counts no more, or its source has never had one, 0 if not."),
		problem: desc("problem", "1 if the last look at a source of CRLs, or question to an OCSP responder, was in vain, 0 if not."),
	})
}

// revocations tells them when somebody looks.
type revocations struct {
	faults                               *contain.Faults
	entries, until, seen, stale, problem *prometheus.Desc
	list                                 func() []Revocation
}

// Describe is prometheus.Collector's.
func (r revocations) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{r.entries, r.until, r.seen, r.stale, r.problem} {
		out <- d
	}
}

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (r revocations) Collect(out chan<- prometheus.Metric) {
	defer r.faults.Catch("a metric", nil)
	for _, one := range merged(r.list()) {
		gauge := func(d *prometheus.Desc, value float64) {
			metric, err := prometheus.NewConstMetric(d, prometheus.GaugeValue, value, one.Kind, one.Location, one.Issuer)
			if err != nil {
				metric = prometheus.NewInvalidMetric(d, err)
			}
			out <- metric
		}
		flag := func(d *prometheus.Desc, set bool) {
			if set {
				gauge(d, 1)
			} else {
				gauge(d, 0)
			}
		}
		flag(r.stale, one.Stale)
		flag(r.problem, one.Problem)
		if !one.Until.IsZero() {
			gauge(r.entries, float64(one.Entries))
			gauge(r.until, float64(one.Until.Unix()))
		}
		if !one.Seen.IsZero() {
			gauge(r.seen, float64(one.Seen.Unix()))
		}
	}
}

// merged has one for each that share their labels, as a CRL and its delta do, with the worse of each, and
// MaxRevocations at most.
func merged(list []Revocation) (all []Revocation) {
	type labels struct{ kind, location, issuer string }
	at := map[labels]int{}
	for _, one := range list {
		key := labels{one.Kind, one.Location, one.Issuer}
		i, known := at[key]
		if !known {
			if len(all) < MaxRevocations {
				at[key] = len(all)
				all = append(all, one)
			}
			continue
		}
		m := &all[i]
		m.Entries += one.Entries
		m.Stale, m.Problem = m.Stale || one.Stale, m.Problem || one.Problem
		if one.Until.Before(m.Until) {
			m.Until = one.Until
		}
		if one.Seen.Before(m.Seen) {
			m.Seen = one.Seen
		}
	}
	return all
}
