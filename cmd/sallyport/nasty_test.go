package main

import (
	"bytes"
	"crypto/x509/pkix"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/gateway/observe"
	"sallyport/internal/printable"
	"sallyport/policy/ratelimit"
)

// nasty is text that others may choose: colours of a terminal (C0 and C1), marks of direction, characters without width,
// separators of lines, and what is no UTF-8.
const nasty = "a\x1b[31mb\u009b1m\u0085\u202ec\u2066\u200b\ufeff\u2028d\x7f\xffe"

// shown complains of what passes an outlet and no person should see, and if nothing of the text passes.
func shown(t *testing.T, outlet, text string) {
	t.Helper()
	if !strings.Contains(text, `\u202ec`) {
		t.Errorf("%s: the text is missing: %q", outlet, text)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) && r != '\n' || !utf8.ValidString(text) {
			t.Errorf("%s lets %U pass: %q", outlet, r, text)
			return
		}
	}
}

// TestNastyTextIsEscaped: security L 164. The access log has FuzzLine.
func TestNastyTextIsEscaped(t *testing.T) {
	var out, errs bytes.Buffer
	name := filepath.Join(t.TempDir(), "sallyport.yaml")
	if err := os.WriteFile(name, []byte(`store: "a\e[31mb\x9b1m\u0085\u202ec\u2066\u200b\uFEFF\u2028d\x7f"`+"\nlisteners: [{name: x, \"k\u202ec\": 1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run([]string{"validate", "-c", name}, &out, &errs)
	shown(t, "validate", errs.String())
	errs.Reset()
	run([]string{"validate", "-c", nasty}, &out, &errs)
	shown(t, "a name of a file", errs.String())

	subject := pkix.Name{CommonName: nasty}.String()
	var table bytes.Buffer
	printCertificates(&table, []control.Certificate{{Kind: control.KindServer, For: "listener x", Subject: printable.Text(subject), From: nasty, Note: nasty}}, "", time.Now())
	shown(t, "a table of certificates", table.String())
	for _, format := range []string{"json", "text"} {
		var log bytes.Buffer
		newLogger(config.Log{Format: format}, printable.NewWriter(&log)).
			Warn("TLS handshake refused", "subject", subject, "problem", errors.New(nasty), "server_name", nasty)
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("a log of %s has %d lines", format, n)
		}
		shown(t, "a log of "+format, log.String())
	}

	broken := func() map[string]error { return map[string]error{"configuration": errors.New(nasty)} }
	w := httptest.NewRecorder()
	observe.StatusHandler(observe.NewMetrics("test"), observe.Status{Ready: func() bool { return true }, Broken: broken, Limits: ratelimit.NewLocal(nil).State}).ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	shown(t, "/readyz", w.Body.String())
}
