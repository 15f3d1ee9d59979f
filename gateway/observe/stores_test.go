package observe_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/gateway/observe"
)

func TestSkippedEntriesAreCounted(t *testing.T) {
	m := observe.NewMetrics("test")
	m.WatchStores(func() map[string]int { return map[string]int{"a.jks": 0, "b.jks": 2} })
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`sallyport_store_entries_skipped{store="a.jks"} 0`, `sallyport_store_entries_skipped{store="b.jks"} 2`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
