package observe_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/observe"
	"sallyport/policy/ratelimit"
)

// TestPanicInMetrics: what panics while somebody looks at the metrics, or at another page of the status, is left out or
// answered with 500, and counted.
func TestPanicInMetrics(t *testing.T) {
	m := observe.NewMetrics("test")
	m.WatchConnections(func() int { panic("in the count") }, func() (int, int) { return 0, 0 })
	m.WatchExpiry(func() int { return 0 }, func() []observe.CertificateEnd { panic("in the list") }, func() []observe.CertificateEnd { return nil },
		func() []observe.CertificateEnd { return nil })
	h := observe.StatusHandler(m, observe.Status{
		Ready: func() bool { panic("in ready") }, Broken: func() map[string]error { return nil }, Limits: ratelimit.NewLocal(nil).State,
	})
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w
	}
	if w := get("/readyz"); w.Code != http.StatusInternalServerError {
		t.Errorf("/readyz: %d", w.Code)
	}
	for range 2 { // counts what happened at the look before
		if w := get("/metrics"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "sallyport_connections NaN") {
			t.Errorf("/metrics: %d %s", w.Code, w.Body)
		}
	}
	text := get("/metrics").Body.String()
	for _, want := range []string{`sallyport_panics_total{where="a metric"}`, `sallyport_panics_total{where="a status page"} 1`, "sallyport_build_info"} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

// A brokenWriter panics once, then takes all.
type brokenWriter struct{ writes atomic.Int64 }

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.writes.Add(1) == 1 {
		panic("in Write")
	}
	return len(p), nil
}

// TestPanicInTheAccessLog: what panics in a write of lines loses these lines; later ones are written.
func TestPanicInTheAccessLog(t *testing.T) {
	w := new(brokenWriter)
	l := observe.NewAccessLog(w, false, observe.NewMetrics("test"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	for deadline := time.Now().Add(time.Minute); w.writes.Load() < 2 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		l.Observe(exchange(), 0)
	}
	cancel()
	if err := <-done; err != nil || w.writes.Load() < 2 {
		t.Errorf("Run: %v, after %d writes", err, w.writes.Load())
	}
}
