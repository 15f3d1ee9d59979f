package decision

import "testing"

// BenchmarkDecide is an allowed mTLS call on a connection that has made one before.
func BenchmarkDecide(b *testing.B) {
	tab := newTable(b)
	fresh := *tab.exchange
	b.ReportAllocs()
	for b.Loop() {
		if err := tab.decide(&fresh); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParallelDecide is the same on all cores, each with calls of its own.
func BenchmarkParallelDecide(b *testing.B) {
	tab := newTable(b)
	fresh := *tab.exchange
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var x Exchange
		for pb.Next() {
			x = fresh
			if err := Decide(&x); err != nil {
				b.Fatal(err)
			}
			x.place.Leave()
		}
	})
}
