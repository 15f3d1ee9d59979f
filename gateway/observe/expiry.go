package observe

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sallyport/internal/contain"

	"github.com/prometheus/client_golang/prometheus"
)

// A CertificateEnd says when a certificate ends. Its labels are words of the configuration and of the store.
type CertificateEnd struct {
	Labels   []string // client: API, alias, key type; server: listener, profile, key algorithm; any: kind, name
	NotAfter time.Time
}

// An expiry tells the ends of all certificates that are in force when somebody looks.
type expiry struct {
	faults *contain.Faults
	desc   *prometheus.Desc
	ends   func() []CertificateEnd
}

// MaxEnds is how many certificates each metric tells of: those that end first.
const MaxEnds = 1000

// WatchExpiry has the metrics tell how many client certificates are registered, and when each of them, each server
// certificate, and every certificate of any kind ends. The functions are called at each look; they may leave out all but
// the MaxEnds that end first. It may be called once.
func (m *Metrics) WatchExpiry(registered func() int, clients, servers, all func() []CertificateEnd) {
	m.gauge("client_certificates", "Client certificates registered, one for each API.", registered)
	m.registry.MustRegister(
		expiry{&m.faults, prometheus.NewDesc("sallyport_client_certificate_expiry_timestamp_seconds",
			"When a registered client certificate ends, in Unix time.", []string{"api", "alias", "key_type"}, nil), clients},
		expiry{&m.faults, prometheus.NewDesc("sallyport_server_certificate_expiry_timestamp_seconds",
			"When a server certificate ends, in Unix time; the earliest of those that share the labels.", []string{"listener", "profile", "key"}, nil), servers},
		expiry{&m.faults, prometheus.NewDesc("sallyport_certificate_expiry_timestamp_seconds",
			"When a certificate of any kind that the gateway works with ends, in Unix time: the 1,000 that end first.", []string{"kind", "name"}, nil), all})
}

// Describe is prometheus.Collector's.
func (e expiry) Describe(out chan<- *prometheus.Desc) { out <- e.desc }

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (e expiry) Collect(out chan<- prometheus.Metric) {
	defer e.faults.Catch("a metric", nil)
	first := map[string]CertificateEnd{}
	for _, end := range e.ends() {
		key := ""
		for _, l := range end.Labels {
			key += l + "\x00"
		}
		if known, ok := first[key]; !ok || end.NotAfter.Before(known.NotAfter) {
			first[key] = end
		}
	}
	ends := slices.SortedFunc(maps.Values(first), func(x, y CertificateEnd) int {
		return cmp.Or(x.NotAfter.Compare(y.NotAfter), slices.Compare(x.Labels, y.Labels))
	})
	for _, end := range ends[:min(len(ends), MaxEnds)] {
		metric, err := prometheus.NewConstMetric(e.desc, prometheus.GaugeValue, float64(end.NotAfter.Unix()), end.Labels...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(e.desc, err)
		}
		out <- metric
	}
}

// A Renewal is how it stands with the certificates of a profile that are renewed by themselves.
type Renewal struct {
	Listener, Profile string
	Due               time.Time // zero: it isn't known
	Trouble           bool      // something keeps them from being renewed
}

// WatchRenewals has the metrics tell when server certificates are renewed by themselves, and whether something keeps
// them from it. The function is called at each look. It may be called once.
func (m *Metrics) WatchRenewals(list func() []Renewal) {
	labels := []string{"listener", "profile"}
	m.registry.MustRegister(renewals{
		faults: &m.faults, list: list,
		due: prometheus.NewDesc("sallyport_server_certificate_renewal_timestamp_seconds",
			"When a server certificate is renewed by itself, in Unix time; none for one that nobody but you renews.", labels, nil),
		trouble: prometheus.NewDesc("sallyport_server_certificate_renewal_trouble",
			"1 if something keeps a server certificate from being renewed by itself, 0 if not.", labels, nil),
	})
}

// renewals tells them when somebody looks.
type renewals struct {
	faults       *contain.Faults
	due, trouble *prometheus.Desc
	list         func() []Renewal
}

// Describe is prometheus.Collector's.
func (r renewals) Describe(out chan<- *prometheus.Desc) {
	out <- r.due
	out <- r.trouble
}

// Collect is prometheus.Collector's, which calls it on a goroutine of its own.
func (r renewals) Collect(out chan<- prometheus.Metric) {
	defer r.faults.Catch("a metric", nil)
	list := r.list()
	for _, one := range list[:min(len(list), MaxEnds)] {
		trouble := 0.0
		if one.Trouble {
			trouble = 1
		}
		out <- prometheus.MustNewConstMetric(r.trouble, prometheus.GaugeValue, trouble, one.Listener, one.Profile)
		if !one.Due.IsZero() {
			out <- prometheus.MustNewConstMetric(r.due, prometheus.GaugeValue, float64(one.Due.Unix()), one.Listener, one.Profile)
		}
	}
}
