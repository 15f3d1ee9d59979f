package observe

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"sallyport/internal/contain"
	"sallyport/internal/printable"
	"sallyport/policy/ratelimit"
)

// StatusHandler serves /healthz (this process answers), /readyz (send calls here: 503 while draining, or while nothing
// good was ever loaded; what could not be reloaded is named, and where limits are counted) and /metrics.
func StatusHandler(m *Metrics, ready func() bool, broken func() map[string]error, limits func() ratelimit.State) http.Handler {
	pages := statusPages(m, ready, broken, limits)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer m.faults.Catch("a status page", func(*contain.Fault) { plain(w, http.StatusInternalServerError, "a fault of the gateway's\n") })
		pages.ServeHTTP(w, r)
	})
}

func statusPages(m *Metrics, ready func() bool, broken func() map[string]error, limits func() ratelimit.State) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "alive\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status, text := http.StatusOK, "ready\n"
		if !ready() {
			status, text = http.StatusServiceUnavailable, "not ready\n"
		}
		broken := broken()
		for _, what := range slices.Sorted(maps.Keys(broken)) {
			text += fmt.Sprintf("%s: the last change was refused, the one before it serves on: %s\n",
				what, printable.Text(strings.ReplaceAll(broken[what].Error(), "\n", "; ")))
		}
		if line := DescribeLimits(limits()); line != "" {
			text += "limits: " + line + "\n"
		}
		plain(w, status, text)
	})
	mux.Handle("GET /metrics", m.Handler())
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // whoever asked may have gone
}
