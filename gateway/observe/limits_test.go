package observe_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/gateway/observe"
	"sallyport/policy/ratelimit"
)

// TestLimits: /readyz and the metrics tell whether limits are shared now, and nothing where there is no Redis.
func TestLimits(t *testing.T) {
	state := ratelimit.State{}
	m := observe.NewMetrics("test")
	m.WatchLimits(func() ratelimit.State { return state })
	ready := func() string {
		w := httptest.NewRecorder()
		observe.StatusHandler(m, observe.Status{
			Ready: func() bool { return true }, Broken: func() map[string]error { return nil }, Limits: func() ratelimit.State { return state },
		}).
			ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		if w.Code != 200 {
			t.Errorf("readyz: %d", w.Code)
		}
		return w.Body.String()
	}
	if text := ready(); text != "ready\n" || strings.Contains(metricsOf(t, m), "sallyport_limits") {
		t.Errorf("without Redis: %q", text)
	}
	shared := ratelimit.State{Shared: true, Redis: "Redis at a:1", Nodes: 1, Exchanges: 7, Uncounted: 5}
	failing := shared
	failing.Failing, failing.Nodes = errors.New("it is\nfull"), 3
	several := shared
	several.Nodes = 3
	for _, tt := range []struct {
		state        ratelimit.State
		onFailure    ratelimit.OnFailure
		text, metric string
	}{
		{shared, 0, "counted in Redis at a:1, which no other gateway uses now\n", "sallyport_limits_shared 1"},
		{several, 0, "counted in Redis at a:1, shared by 3 gateways\n", "sallyport_limits_nodes 3"},
		{failing, ratelimit.ShareLocally, "Redis at a:1 can't be used: it is; full; whenRedisFails is local: each of the 3 gateways seen last lets its share of a tier pass\n", "sallyport_limits_shared 0"},
		{failing, ratelimit.AllowAll, "whenRedisFails is allow: all calls pass\n", "sallyport_limits_uncounted_total 5"},
		{failing, ratelimit.DenyAll, "whenRedisFails is deny: calls under a limit are refused\n", "sallyport_limits_exchanges_total 7"},
	} {
		state = tt.state
		state.OnFailure = tt.onFailure
		if text := ready(); !strings.HasPrefix(text, "ready\nlimits: ") || !strings.HasSuffix(text, tt.text) {
			t.Errorf("readyz: %q, want %q", text, tt.text)
		}
		if !hasLine(metricsOf(t, m), tt.metric) {
			t.Errorf("no line %s", tt.metric)
		}
	}
}
