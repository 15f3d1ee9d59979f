package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/internal/contain"
)

// WatchStoreAge has the metrics tell how old what is served of the store of registrations is. age is called at each look;
// false: there is no store. It may be called once.
func (m *Metrics) WatchStoreAge(age func() (time.Duration, bool)) {
	m.registry.MustRegister(storeAge{&m.faults, prometheus.NewDesc("sallyport_store_age_seconds",
		"Time since the store of registrations was last seen to have those that are served.", nil, nil), age})
}

type storeAge struct {
	faults *contain.Faults
	desc   *prometheus.Desc
	age    func() (time.Duration, bool)
}

// Describe is prometheus.Collector's.
func (s storeAge) Describe(out chan<- *prometheus.Desc) { out <- s.desc }

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (s storeAge) Collect(out chan<- prometheus.Metric) {
	defer s.faults.Catch("a metric", nil)
	if age, ok := s.age(); ok {
		out <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, age.Seconds())
	}
}

// WatchDenials has the metrics tell how many entries of the deny list are in force. count is called at each look. It may
// be called once.
func (m *Metrics) WatchDenials(count func() int) {
	m.registry.MustRegister(denials{&m.faults, prometheus.NewDesc("sallyport_denials",
		"Entries of the deny list that are in force.", nil, nil), count})
}

type denials struct {
	faults *contain.Faults
	desc   *prometheus.Desc
	count  func() int
}

// Describe is prometheus.Collector's.
func (d denials) Describe(out chan<- *prometheus.Desc) { out <- d.desc }

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (d denials) Collect(out chan<- prometheus.Metric) {
	defer d.faults.Catch("a metric", nil)
	out <- prometheus.MustNewConstMetric(d.desc, prometheus.GaugeValue, float64(d.count()))
}

// stores tells how many entries are skipped of each store that is in use when somebody looks.
type stores struct {
	faults  *contain.Faults
	desc    *prometheus.Desc
	skipped func() map[string]int
}

// WatchStores has the metrics tell how many entries of each store can't be used. skipped is called at each look, and
// returns counts by a store's location, which is a word of the configuration. It may be called once.
func (m *Metrics) WatchStores(skipped func() map[string]int) {
	m.registry.MustRegister(stores{&m.faults, prometheus.NewDesc("sallyport_store_entries_skipped",
		"Entries of a key store, trust store or CA file in use that are left out since they can't be used here, by its file.", []string{"store"}, nil), skipped})
}

// Describe is prometheus.Collector's.
func (s stores) Describe(out chan<- *prometheus.Desc) { out <- s.desc }

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (s stores) Collect(out chan<- prometheus.Metric) {
	defer s.faults.Catch("a metric", nil)
	for location, n := range s.skipped() {
		metric, err := prometheus.NewConstMetric(s.desc, prometheus.GaugeValue, float64(n), location)
		if err != nil {
			metric = prometheus.NewInvalidMetric(s.desc, err)
		}
		out <- metric
	}
}
