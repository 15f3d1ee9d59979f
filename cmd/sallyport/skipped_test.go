package main_test

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// TestSkippedEntry: of a trust store with an entry that Go can't parse, as WSO2 ships one, the rest serves; validate, the
// log and a metric name the entry with its file, alias and reason.
func TestSkippedEntry(t *testing.T) {
	d := newDemo(t)
	const file = "stores/client-truststore.jks"
	old := testpki.NewCA(t, "old").NegativeSerial()
	d.write(file, string(testpki.TrustJKSDER(t, d.password("client-truststore"), old, d.block("ca.crt"))))
	entry := "keystore " + d.path(file) + `: entry "trusted0" is skipped: `
	const reason = "negative serial number"

	if n := count(d.mustRun("validate"), entry, reason); n != 1 {
		t.Errorf("validate names the entry %d times", n)
	}
	p := d.quickstart()
	if r := d.client("gold", dialects[3]).get(t, "/payments/1"); r.status != http.StatusOK {
		t.Errorf("gold: %d", r.status)
	}
	if r := d.client("rogue", dialects[3]).get(t, "/payments/1"); r.status != http.StatusUnauthorized {
		t.Errorf("rogue: %d", r.status)
	}
	log := p.stderr.String()
	const says = `level=WARN msg="not everything that is configured is served"`
	if n := count(log, says, strings.ReplaceAll(entry, `"`, `\"`), reason); n != 1 {
		t.Errorf("the log names the entry %d times:\n%s", n, log)
	}
	for store, want := range map[string]string{file: "1", "stores/gateway.jks": "0"} {
		if got := p.metric(`sallyport_store_entries_skipped{store="` + d.path(store) + `"}`); got != want {
			t.Errorf("of %s %q entries are skipped, want %s", store, got, want)
		}
	}
	if want := "certificate of a store: " + d.path(file) + ": entries that can't be used are skipped, and the log names them: 1\n"; !strings.Contains(p.ready(), want) {
		t.Errorf("/readyz lacks %q:\n%s", want, p.ready())
	}
	p.stop()
}

// TestExpiredTrustEntry: of a trust store with an entry that has expired the rest serves; what the entry has issued is
// refused, and the log, validate, certificates, a metric and /readyz name it.
func TestExpiredTrustEntry(t *testing.T) {
	d := newDemo(t)
	const file = "stores/client-truststore.jks"
	ended := time.Now().Add(-time.Hour).Truncate(time.Second)
	old := testpki.NewCA(t, "Old Root", func(c *x509.Certificate) { c.NotAfter = ended })
	d.write(file, d.trustStoreFile("client-truststore", d.certificate("ca.crt"), old.Cert))
	d.putClient(old, "aged")
	d.mustRun("cert", "add", "-c", d.ConfigFile, "--api", "payments:1.0.0", "--alias", "aged", "--tier", "Gold", "--force", "clients/aged.crt")

	for _, command := range []string{"validate", "certificates"} {
		if n := count(d.mustRun(command), "Old Root", ended.UTC().Format("2006-01-02")); n == 0 {
			t.Errorf("%s does not name the entry:\n%s", command, d.mustRun(command))
		}
	}
	p := d.quickstart()
	for who, want := range map[string]int{"gold": http.StatusOK, "aged": http.StatusUnauthorized} {
		if r := d.client(who, dialects[3]).get(t, "/payments/1"); r.status != want {
			t.Errorf("%s: %d, want %d", who, r.status, want)
		}
	}
	eventually(t, "the log names the entry", func() bool { return count(p.stderr.String(), "level=WARN", "Old Root") > 0 })
	if n := p.total("sallyport_certificate_expiry_timestamp_seconds", `kind="trust_store"`, "Old Root"); n != float64(ended.Unix()) {
		t.Errorf("the metric says %v, want %d", n, ended.Unix())
	}
	if ready := p.ready(); count(ready, "certificate of a trust store: ", d.path(file), "Old Root: expired on "+ended.UTC().Format(time.RFC3339)+", and vouches for nobody") != 1 {
		t.Errorf("/readyz: %s", ready)
	}
	p.stop()
}

// count counts the lines that hold all parts.
func count(text string, parts ...string) (n int) {
lines:
	for line := range strings.Lines(text) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue lines
			}
		}
		n++
	}
	return n
}
