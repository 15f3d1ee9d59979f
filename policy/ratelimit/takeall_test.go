package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

func TestTakeAll(t *testing.T) {
	api := Key{API: "orders:1.0.0", Level: LevelAPI}
	resource := Key{API: "orders:1.0.0", Level: LevelResource, Name: "GET /items/{id}"}
	for _, tt := range []struct {
		name                  string
		api, resource, client int // calls a minute; -1: no limit
		calls                 int
		want                  Verdict // of the last call, its times left out
		left                  [3]int
	}{
		{"no limit", -1, -1, -1, 1, Verdict{Allowed: true}, [3]int{}},
		{"the client's is the least", 10, 5, 3, 1, Verdict{Allowed: true, Level: LevelClient, Limit: 3, Remaining: 2}, [3]int{9, 4, 2}},
		{"the API's is the least", 2, 5, 3, 2, Verdict{Allowed: true, Level: LevelAPI, Limit: 2, Remaining: 0}, [3]int{0, 3, 1}},
		{"as little is left of each", 3, 3, 3, 1, Verdict{Allowed: true, Level: LevelAPI, Limit: 3, Remaining: 2}, [3]int{2, 2, 2}},
		{"the client's refuses", 10, 5, 3, 50, Verdict{Level: LevelClient, Limit: 3}, [3]int{7, 2, 0}},
		{"the resource's refuses", 10, 2, 3, 50, Verdict{Level: LevelResource, Limit: 2}, [3]int{8, 0, 1}},
		{"the API's refuses", 1, 2, 3, 50, Verdict{Level: LevelAPI, Limit: 1}, [3]int{0, 1, 2}},
		{"all refuse", 2, 2, 2, 50, Verdict{Level: LevelAPI, Limit: 2}, [3]int{0, 0, 0}},
		{"the resource's and the client's refuse", 5, 2, 2, 50, Verdict{Level: LevelResource, Limit: 2}, [3]int{3, 0, 0}},
		{"only a client's", -1, -1, 2, 50, Verdict{Level: LevelClient, Limit: 2}, [3]int{0, 0, 0}},
		{"none for the client", 5, -1, 0, 50, Verdict{Level: LevelClient}, [3]int{5, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
				var buckets [3]Bucket
				for i, n := range []int{tt.api, tt.resource, tt.client} {
					if n >= 0 {
						buckets[i] = l.Bucket([]Key{api, resource, client("a")}[i], perMinute(n))
					}
				}
				var v Verdict
				for range tt.calls {
					v = take(c.now, buckets[:]...)
				}
				v.Tier, v.Reset, v.RetryAfter, v.Window = "", 0, 0, 0
				if v != tt.want {
					t.Errorf("got %+v, want %+v", v, tt.want)
				}
				for i, b := range buckets {
					if b != nil {
						wantPasses(t, b, c.now, tt.left[i])
					}
				}
			})
		})
	}
}

func TestTakeAllOfTheSameBucketTwiceTakesOnce(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		older, newer := l.Bucket(client("a"), perMinute(5)), l.Bucket(client("a"), perMinute(6))
		v := take(c.now, older, nil, older, newer)
		left := v.Limit - 1 // of a shared bucket, which begins full with the newer tier
		if c.shared == nil {
			left = 4
		}
		if !v.Allowed || v.Remaining != left {
			t.Errorf("got %+v, want %d left", v, left)
		}
	})
}

// TestTakeAllAtOnce holds docs/security.md, I 116: however calls interleave, none passes beyond a limit, and a refused one
// takes nothing from any bucket.
func TestTakeAllAtOnce(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		random := rand.New(rand.NewPCG(3, 4))
		for round := range c.rounds(60, 10) {
			key := func(level Level, name string) Key {
				return Key{API: fmt.Sprint(round), Level: level, Name: name}
			}
			const clients = 5
			size := func() int { return random.IntN(60) }
			sizes := []int{size(), size(), size(), size(), size(), size(), size(), size()} // API, two resources, clients
			buckets := []Bucket{l.Bucket(key(LevelAPI, ""), perMinute(sizes[0]))}
			for i := range 2 {
				buckets = append(buckets, l.Bucket(key(LevelResource, fmt.Sprint(i)), perMinute(sizes[1+i])))
			}
			for i := range clients {
				buckets = append(buckets, l.Bucket(key(LevelClient, fmt.Sprint(i)), per(sizes[3+i], []Unit{Minute, Day}[i%2])))
			}

			spent := make([]atomic.Int64, len(buckets))
			atOnce(20, func(i int) {
				for n := range 40 {
					r, k := 1+n%2, 3+(i+n)%clients
					order := []int{0, r, k}
					if i%2 == 0 {
						order = []int{k, 0, r}
					}
					if take(c.now, buckets[order[0]], buckets[order[1]], buckets[order[2]]).Allowed {
						for _, b := range order {
							spent[b].Add(1)
						}
					}
				}
			})
			for i, b := range buckets {
				left := passes(b, c.now, 1000)
				if int(spent[i].Load())+left != sizes[i] {
					t.Fatalf("round %d, bucket %d: %d passed and %d are left of %d", round, i, spent[i].Load(), left, sizes[i])
				}
			}
		}
	})
}

// TestTakingMakesNoBuckets holds docs/security.md, I 119: only the keys of a snapshot have buckets. A call makes none,
// whether it passes or not.
func TestTakingMakesNoBuckets(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c *clock, l limiter) {
		b := l.Bucket(client("a1"), perMinute(10))
		for range c.rounds(100_000, 10_000) {
			take(c.now)
			take(c.now, nil, nil, nil)
			take(c.now, nil, nil, b)
		}
		if l.Len() != 1 {
			t.Errorf("%d buckets, want 1", l.Len())
		}
		c.advance(time.Minute)
		wantPasses(t, b, c.now, 10)
	})
}
