package trial

import (
	"strings"
	"testing"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/peer"
)

func TestVerdict(t *testing.T) {
	minute := OvershootOptions{Limit: peer.Limit{Count: 60, Unit: "min", Burst: 40}}
	stopped := minute
	stopped.Fault = Stop
	within, over := Window{40, time.Second, 41}, Window{44, 2 * time.Second, 42}
	for name, tt := range map[string]struct {
		result OvershootResult
		want   []string // each of which is a complaint; none: it is good
	}{
		"as it should be": {OvershootResult{Passed: 95, Answered: 95, Worst: within}, nil},
		"too few": {
			OvershootResult{Passed: 94, Answered: 94, Worst: within},
			[]string{"94.0% of what the tier allows passed, and 95% is wanted"},
		},
		"too many": {
			OvershootResult{Passed: 98, Answered: 98, Worst: over},
			[]string{"overshoot: 44 calls passed in 2.000 s, 2.0 more than allowed"},
		},
		"others than passed": {
			OvershootResult{Passed: 98, Answered: 99, Worst: within},
			[]string{"98 calls passed, but the backend answered 99"},
		},
		"failures": {
			OvershootResult{
				Passed: 98, Answered: 98, Worst: within,
				Errors: load.Errors{"timeout": {Count: 2, Example: "timeout: late"}},
			},
			[]string{"2 calls failed: 2 × timeout: late"},
		},
		"all of them": {
			OvershootResult{Passed: 1, Answered: 2, Worst: over, Errors: load.Errors{"timeout": {Count: 1}}},
			[]string{"1 calls failed", "but the backend", "overshoot", "1.0% of what"},
		},
		"one burst over, after a stop": {
			OvershootResult{OvershootOptions: stopped, Passed: 1, Answered: 1, Worst: Window{82, 2 * time.Second, 42}},
			nil,
		},
		"more than a burst over, after a stop": {
			OvershootResult{OvershootOptions: stopped, Passed: 1, Answered: 1, Worst: Window{83, 2 * time.Second, 42}},
			[]string{"overshoot: 83 calls passed in 2.000 s, 1.0 more than allowed"},
		},
	} {
		if tt.result.Limit == (peer.Limit{}) {
			tt.result.OvershootOptions = minute
		}
		tt.result.Took = time.Minute // 100 calls
		var got []string
		if err := tt.result.Verdict(); err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], tt.want[i]) {
				t.Errorf("%s: %q, want %q", name, got[i], tt.want[i])
			}
		}
	}
}
