package trial

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestWorstWindow(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name        string
		passes      []pass
		burst, rate float64
		want        Window
	}{
		{"nothing passed", nil, 10, 1, Window{}},
		{"one call", []pass{{2 * s, 3 * s}}, 10, 1, Window{1, s, 11}},
		{"the burst at once", []pass{{0, s}, {0, s}, {0, s}}, 3, 1, Window{3, s, 4}},
		{"one call too many", []pass{{0, s}, {0, s}, {0, s}, {0, s}, {0, s}}, 3, 1, Window{5, s, 4}},
		{
			"evenly, as the tier refills",
			[]pass{{0, 0}, {s, s}, {2 * s, 2 * s}, {3 * s, 3 * s}},
			1, 1,
			Window{1, 0, 1},
		},
		{
			"a second bucket in the middle",
			[]pass{{0, 0}, {9 * s, 9 * s}, {9 * s, 10 * s}, {10 * s, 10 * s}, {30 * s, 30 * s}},
			1, 0.5,
			Window{3, s, 1.5},
		},
		{
			"a call that lasts through the window may have been decided outside",
			[]pass{{0, 9 * s}, {4 * s, 5 * s}, {4 * s, 5 * s}},
			1, 1,
			Window{2, s, 2},
		},
		{
			"a longer window that takes in more",
			[]pass{{0, 1}, {s, s + 1}, {2 * s, 2*s + 1}, {3 * s, 3*s + 1}},
			2, 0.5,
			Window{4, 3*s + 1, 2 + 0.5*(3*s+1).Seconds()},
		},
	} {
		got := worstWindow(tt.passes, tt.burst, tt.rate)
		if got != tt.want || math.Abs(got.Over()-naive(tt.passes, tt.burst, tt.rate)) > 1e-9 && len(tt.passes) > 0 {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// naive is how far over the worst window is, by the definition: all calls for all begins and all ends.
func naive(passes []pass, burst, rate float64) float64 {
	worst := math.Inf(-1)
	for _, first := range passes {
		for _, last := range passes {
			n := 0.0
			for _, p := range passes {
				if p.sent >= first.sent && p.got <= last.got {
					n++
				}
			}
			if n > 0 {
				worst = max(worst, n-burst-rate*(last.got-first.sent).Seconds())
			}
		}
	}
	return worst
}

func TestWorstWindowIsThatOfTheDefinition(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		passes := make([]pass, 1+random.IntN(20))
		coarse := time.Duration(1 + random.IntN(3)*50_000_000) // so that moments coincide, or not
		for i := range passes {
			sent := time.Duration(random.IntN(int(2*time.Second))) / coarse * coarse
			took := time.Duration(random.IntN(int(time.Second))) / coarse * coarse
			passes[i] = pass{sent, sent + took}
		}
		burst, rate := float64(1+random.IntN(5)), 8*random.Float64()
		got := worstWindow(passes, burst, rate)
		if want := naive(passes, burst, rate); math.Abs(got.Over()-want) > 1e-6 {
			t.Fatalf("%v over in %+v, want %v: burst %v, rate %v, %v", got.Over(), got, want, burst, rate, passes)
		}
		if allowed := burst + rate*got.Length.Seconds(); math.Abs(got.Allowed-allowed) > 1e-9 {
			t.Fatalf("%+v, want %v allowed", got, allowed)
		}
	}
}

func BenchmarkWorstWindow(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	passes := make([]pass, 100_000)
	for i := range passes {
		sent := time.Duration(random.IntN(int(time.Hour)))
		passes[i] = pass{sent, sent + time.Duration(random.IntN(int(time.Second)))}
	}
	for b.Loop() {
		worstWindow(passes, 100, 20)
	}
}
