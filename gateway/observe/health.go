package observe

import (
	"errors"
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

// A Status is what /readyz tells.
type Status struct {
	Ready   func() bool             // calls are welcome
	Broken  func() map[string]error // what could not be reloaded, and why
	Limits  func() ratelimit.State  // where limits are counted
	Servers func() []string         // a line for each server certificate, the first to end first, and for what else there is to know of certificates; nil: none
	Sources func() []string         // a line for each CRL that is stale, source of CRLs with a problem, and OCSP responder that does not answer; nil: none
}

// StatusHandler serves /healthz (this process answers), /readyz (send calls here: 503 while draining, or while nothing
// good was ever loaded; the rest of the Status is told beside) and /metrics.
func StatusHandler(m *Metrics, s Status) http.Handler {
	pages := statusPages(m, s)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer m.faults.Catch("a status page", func(*contain.Fault) { plain(w, http.StatusInternalServerError, "a fault of the gateway's\n") })
		pages.ServeHTTP(w, r)
	})
}

// maxLines is how many lines of a kind /readyz has: a gateway may serve any number of certificates.
const maxLines = 100

func statusPages(m *Metrics, s Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "alive\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status, text := http.StatusOK, "ready\n"
		if !s.Ready() {
			status, text = http.StatusServiceUnavailable, "not ready\n"
		}
		broken := s.Broken()
		for _, what := range slices.Sorted(maps.Keys(broken)) {
			state := "the last change was refused, the one before it serves on"
			if none := (interface{ ServesNothing() bool })(nil); errors.As(broken[what], &none) && none.ServesNothing() {
				state = "it is not good, and nothing of it serves"
			}
			text += fmt.Sprintf("%s: %s: %s\n", what, state, printable.Text(strings.ReplaceAll(broken[what].Error(), "\n", "; ")))
		}
		if line := DescribeLimits(s.Limits()); line != "" {
			text += "limits: " + line + "\n"
		}
		text += bounded(s.Sources, "sources of revocations: the metrics tell of all")
		text += bounded(s.Servers, "server certificates: sallyport certificates lists all")
		plain(w, status, text)
	})
	mux.Handle("GET /metrics", m.Handler())
	return mux
}

// bounded has the first lines of a list, and how many more there are of what.
func bounded(list func() []string, what string) string {
	if list == nil {
		return ""
	}
	var text strings.Builder
	all := list()
	for _, line := range all[:min(len(all), maxLines)] {
		text.WriteString(line + "\n")
	}
	if more := len(all) - maxLines; more > 0 {
		fmt.Fprintf(&text, "and %d more %s\n", more, what)
	}
	return text.String()
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // whoever asked may have gone
}
