package observe_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/observe"
)

// TestUse: each server and registration has series of its own, what is counted together has those of "other", and who
// is told of no longer has none.
func TestUse(t *testing.T) {
	m := observe.NewMetrics("test")
	orders := certstore.API{Name: "orders", Version: "1"}
	client := &certstore.Client{API: orders, Alias: "a\u202eb", KeyType: certstore.Sandbox}
	servers := []backend.Figures{{Answers: [6]uint64{2: 5}}, {Server: "http://a.test", Answers: [6]uint64{0: 1, 2: 3}}}
	servers[1].Failures[backend.Late] = 2
	uses := []decision.Use{{Client: client, Calls: 7, Refusals: 2, Seen: time.Unix(1000, 0)}, {Calls: 11}}
	m.WatchUse(func() []backend.Figures { return servers }, func() []decision.Use { return uses })
	lines := map[string]bool{ // whether it is there to the end
		`sallyport_upstream_calls_total{status="2xx",upstream="http://a.test"} 3`:                                false,
		`sallyport_upstream_calls_total{status="none",upstream="http://a.test"} 1`:                               false,
		`sallyport_upstream_errors_total{kind="late",upstream="http://a.test"} 2`:                                false,
		`sallyport_upstream_calls_total{status="2xx",upstream="other"} 5`:                                        true,
		`sallyport_client_calls_total{alias="a\\u202eb",api="orders:1",key_type="SANDBOX"} 7`:                    false,
		`sallyport_client_refusals_total{alias="a\\u202eb",api="orders:1",key_type="SANDBOX"} 2`:                 false,
		`sallyport_client_last_seen_timestamp_seconds{alias="a\\u202eb",api="orders:1",key_type="SANDBOX"} 1000`: false,
		`sallyport_client_calls_total{alias="other",api="",key_type=""} 11`:                                      true,
	}
	text := metricsOf(t, m)
	for line := range lines {
		if !hasLine(text, line) {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(text, `last_seen_timestamp_seconds{alias="other"`) {
		t.Error("it is known when somebody was seen who never was")
	}
	servers, uses = servers[:1], uses[1:]
	text = metricsOf(t, m)
	for line, stays := range lines {
		if hasLine(text, line) != stays {
			t.Errorf("%s: want it there: %t", line, stays)
		}
	}
}
