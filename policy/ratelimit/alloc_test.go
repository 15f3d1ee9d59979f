//go:build !race

package ratelimit

import (
	"testing"
	"time"
)

func TestAllocTake(t *testing.T) {
	l, shared := NewLocal(nil), unasked(t)
	now := noon
	for _, tt := range []struct {
		name string
		take func()
	}{
		{"one bucket", takeFrom(&now, l.Bucket(client("one"), perMinute(100)))},
		{"a refusal", takeFrom(&now, l.Bucket(client("none"), perMinute(0)))},
		{"a quota", takeFrom(&now, l.Bucket(client("quota"), per(50, Day)))},
		{"three limits", takeFrom(&now, l.Bucket(client("a"), perMinute(90)), l.Bucket(client("b"), per(90, Hour)), l.Bucket(client("c"), per(90, Month)))},
		{"no limit", takeFrom(&now, nil, nil, nil)},
		{"a lease", takeFrom(&now, shared.leased(now, client("lease")))},
		{"three leases", takeFrom(&now, shared.leased(now, client("d")), shared.leased(now, client("e")), shared.leased(now, client("f")))},
	} {
		if n := testing.AllocsPerRun(200, tt.take); n != 0 {
			t.Errorf("%s: %v allocations, want 0", tt.name, n)
		}
	}
}

// takeFrom passes the buckets one by one, as callers do.
func takeFrom(now *time.Time, buckets ...Bucket) func() {
	return func() {
		*now = now.Add(time.Millisecond)
		if len(buckets) == 1 {
			buckets[0].Take(*now)
			return
		}
		TakeAll(*now, buckets[0], buckets[1], buckets[2])
	}
}

func TestAllocFields(t *testing.T) {
	v := Verdict{Level: LevelClient, Limit: 5000, RetryAfter: time.Second, Window: time.Minute}
	buf := make([]byte, 0, 128)
	if n := testing.AllocsPerRun(200, func() { buf = AppendLimit(AppendPolicy(buf[:0], v), v) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
