package peer

import (
	"fmt"
	"strconv"
	"strings"

	"sallyport/bench/pki"
)

// Names in Sallyport's configuration, for its commands.
const (
	API  = "bench:1.0.0" // at /bench, with certificates
	Tier = "Bench"       // the Site's Limit
)

// unreached is the limit of a Site that names none.
var unreached = Limit{Count: 1_000_000_000, Unit: "sec", Burst: 1_000_000_000}

// Baseline is another build of Sallyport, with the same configuration. It is not in Kinds: its path must be given.
var Baseline = another(sallyport, "baseline", "Baseline")

func another(k Kind, name, title string) Kind {
	k.Name, k.Title = name, title
	return k
}

var sallyport = Kind{
	Name: "sallyport", Title: "Sallyport", program: "sallyport",
	version: []string{"version"},
	files:   sallyportFiles,
	check:   []string{"validate", "-c", "FOLDER/sallyport.yaml"},
	run:     []string{"serve", "-c", "FOLDER/sallyport.yaml"},
}

func sallyportFiles(s Site) map[string]string {
	var b strings.Builder
	profiles := ""
	if s.Profiles != "" {
		profiles = fmt.Sprintf("\n    dynamicSSLProfiles: {filePath: %q, fileReadInterval: 10m}", s.Profiles)
	}
	trusted := s.TrustStore
	if trusted == "" {
		trusted = s.within(pki.CA)
	}
	revocation, exempt := "", ""
	switch {
	case len(s.CRLs) > 0:
		exempt = ", exempt: [127.0.0.1]" // its clients stand for those of many addresses
		revocation = fmt.Sprintf("\n    revocation: {crl: [%s], ocsp: true, refresh: 1s}", quotedList(s.CRLs))
	case s.Revoked:
		revocation = fmt.Sprintf("\n    revocation: {crl: [%q]}", s.within(pki.CRL))
	}
	limit := s.Limit
	if limit == (Limit{}) {
		limit = unreached
	}
	access := "off"
	if s.AccessLog {
		access = "access.log"
	}
	fmt.Fprintf(&b, `listeners:
  - name: https
    address: %q
    keyStore: {location: %q}
    trustStore: {location: %q}
    sslVerifyClient: require%s%[12]s
  - name: balancer
    address: %[5]q
    clientCertificateHeader: address
mutualSSL:
  loadBalancers: {addresses: [127.0.0.1]}
  trustStore: {location: %[3]q}
store: sqlite:sallyport.db
limits: {connections: 60000, connectionsPerSource: 60000, handshakes: 10000%[13]s}
status: {address: %[6]q}
log: {level: warn, access: %[7]s}
tiers:
  - {name: %[8]s, requestCount: %[9]d, timeUnit: %[10]s, burst: %[11]d}
`, s.HTTPS, s.within(pki.Server), trusted, profiles, s.HTTP, s.Status, access,
		Tier, limit.Count, limit.Unit, limit.Burst, revocation, exempt)
	b.WriteString(s.Redis.config())
	b.WriteString("keyManagers:\n")
	for _, i := range s.PKI.Issuers {
		fmt.Fprintf(&b, "  - {name: %s, issuer: %q, certificate: %q}\n", i.Name, i.URL, s.within(i.File))
	}
	fmt.Fprintf(&b, `apis:
  - name: token
    version: 1.0.0
    context: /token
    defaultVersion: true
    listeners: [https]
    security: [oauth2]
    upstream: {urls: ["http://%[1]s"], maxCalls: 60000}
  - name: bench
    version: 1.0.0
    context: /bench
    defaultVersion: true
    listeners: [https, balancer]
    security: [mutualssl]
    upstream: {urls: ["http://%[1]s"], maxCalls: 60000}
    clientCertificates:
`, s.Backend)
	for i := range s.PKI.Identities {
		name := pki.Name(i)
		file := s.within("clients/" + name + ".crt")
		fmt.Fprintf(&b, "      - {alias: %s, certificate: %q, tier: %s}\n", name, file, Tier)
	}
	return map[string]string{"sallyport.yaml": b.String()}
}

// config returns the section rateLimit, which older builds do not know; it is empty without a Redis.
func (r Redis) config() string {
	if r.Address == "" {
		return ""
	}
	wait := ""
	if r.Wait > 0 {
		wait = fmt.Sprintf("  redisTimeout: %v\n", r.Wait)
	}
	return fmt.Sprintf("rateLimit:\n  redis: {addresses: [%q]}\n%s", r.Address, wait)
}

// quotedList returns the items of a YAML list.
func quotedList(items []string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = strconv.Quote(item)
	}
	return strings.Join(quoted, ", ")
}
