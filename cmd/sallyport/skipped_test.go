package main_test

import (
	"net/http"
	"strings"
	"testing"

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
