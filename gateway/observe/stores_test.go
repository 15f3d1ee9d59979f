package observe_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/observe"
)

func TestStoreAge(t *testing.T) {
	m := observe.NewMetrics("test")
	age, there := 1500*time.Millisecond, false
	m.WatchStoreAge(func() (time.Duration, bool) { return age, there })
	for _, there = range []bool{false, true} {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if told := strings.Contains(w.Body.String(), "sallyport_store_age_seconds 1.5\n"); told != there {
			t.Errorf("with a store: %v; told: %v", there, told)
		}
	}
}

func TestDenialsAreCounted(t *testing.T) {
	m := observe.NewMetrics("test")
	n := 0
	m.WatchDenials(func() int { return n })
	for range 2 {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if want := fmt.Sprintf("sallyport_denials %d\n", n); !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
		n = 3
	}
}

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
