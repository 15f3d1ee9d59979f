package ratelimit

import (
	"math"
	"testing"
	"time"
)

func TestFields(t *testing.T) {
	for _, tt := range []struct {
		name          string
		v             Verdict
		policy, limit string
	}{
		{
			"allowed",
			Verdict{Allowed: true, Level: LevelAPI, Limit: 5000, Remaining: 4999, Reset: 12 * time.Millisecond, Window: time.Minute},
			`"api";q=5000;w=60`, `"api";r=4999;t=1`,
		},
		{
			"seconds are rounded up",
			Verdict{Allowed: true, Level: LevelResource, Limit: 2, Remaining: 1, Reset: 1500 * time.Millisecond, Window: 2 * time.Second},
			`"resource";q=2;w=2`, `"resource";r=1;t=2`,
		},
		{
			"a refusal counts to Retry-After",
			Verdict{Level: LevelClient, Limit: 3, Reset: time.Minute, RetryAfter: 20 * time.Second, Window: time.Minute},
			`"certificate";q=3;w=60`, `"certificate";r=0;t=20`,
		},
		{
			"whole",
			Verdict{Allowed: true, Level: LevelAPI, Limit: 3, Remaining: 3, Window: time.Minute},
			`"api";q=3;w=60`, `"api";r=3;t=0`,
		},
		{
			"none pass",
			Verdict{Level: LevelClient, Reset: time.Hour, RetryAfter: time.Hour, Window: time.Hour},
			`"certificate";q=0;w=3600`, `"certificate";r=0;t=3600`,
		},
		{"no limit", Verdict{Allowed: true}, "", ""},
		{"the zero verdict", Verdict{}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(AppendPolicy([]byte("p "), tt.v)); got != "p "+tt.policy {
				t.Errorf("RateLimit-Policy: got %s, want %s", got, tt.policy)
			}
			if got := string(AppendLimit([]byte("l "), tt.v)); got != "l "+tt.limit {
				t.Errorf("RateLimit: got %s, want %s", got, tt.limit)
			}
		})
	}
}

func TestRetryAfterSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int{
		math.MinInt64: 1, -time.Second: 1, 0: 1, 1: 1, time.Second - 1: 1, time.Second: 1, time.Second + 1: 2,
		20 * time.Second: 20, 90*time.Second + 1: 91, math.MaxInt64: math.MaxInt32,
	} {
		if got := RetryAfterSeconds(d); got != want {
			t.Errorf("%v: got %d, want %d", d, got, want)
		}
	}
}
