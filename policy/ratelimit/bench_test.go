package ratelimit

import (
	"testing"
	"time"
)

func BenchmarkTake(b *testing.B) {
	for _, bb := range []struct {
		name string
		tier Tier
	}{
		{"tokens", per(MaxCount, Second)},
		{"refused", Tier{Name: "T", RequestCount: 1, UnitTime: 1000, TimeUnit: Hour}},
		{"quota", per(MaxCount, Day)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			bucket := NewLocal(nil).Bucket(client("a"), bb.tier)
			now := noon
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Microsecond)
				bucket.Take(now)
			}
		})
	}
}

// unasked is a limiter with a Redis that nobody asks.
func unasked(t testing.TB) *Limiter {
	l, err := New(Options{Redis: Redis{Addresses: []string{"127.0.0.1:1"}}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// leased is a shared bucket with a lease that is not spent soon.
func (l *Limiter) leased(now time.Time, key Key) Bucket {
	b := l.Bucket(key, per(MaxCount, Second))
	b.Take(now)
	lease := b.share().account.leased[sharedTokens]
	lease.left, lease.ends, lease.share = 1<<40, now.Add(1000*time.Hour), nil
	return b
}

func BenchmarkTakeLeased(b *testing.B) {
	bucket, now := unasked(b).leased(noon, client("a")), noon
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Microsecond)
		bucket.Take(now)
	}
}

func BenchmarkTakeAll(b *testing.B) {
	l := NewLocal(nil)
	tier := per(MaxCount, Second)
	api, resource, client := l.Bucket(Key{Level: LevelAPI}, tier), l.Bucket(Key{Level: LevelResource}, tier), l.Bucket(client("a"), tier)
	b.Run("one limit", func(b *testing.B) {
		now := noon
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(time.Microsecond)
			TakeAll(now, nil, nil, client)
		}
	})
	b.Run("three limits", func(b *testing.B) {
		now := noon
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(time.Microsecond)
			TakeAll(now, api, resource, client)
		}
	})
	b.Run("three limits at once", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				TakeAll(noon, api, resource, client)
			}
		})
	})
}
