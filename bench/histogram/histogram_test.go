package histogram

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestQuantilesAgainstExactOnes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() time.Duration{
		"uniform to 1 ms":   func() time.Duration { return time.Duration(random.Int64N(int64(time.Millisecond))) },
		"exponential 5 ms":  func() time.Duration { return time.Duration(random.ExpFloat64() * 5e6) },
		"log-normal, to 1m": func() time.Duration { return time.Duration(math.Exp(random.NormFloat64()*3) * 1e6) },
	} {
		h := New()
		exact := make([]time.Duration, 50_000)
		for i := range exact {
			exact[i] = min(max(draw(), time.Microsecond), Max)
			h.Record(exact[i])
		}
		slices.Sort(exact)
		for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 0.9999, 1} {
			want := exact[max(1, int(math.Ceil(q*float64(len(exact)))))-1]
			got := h.Quantile(q)
			if off := math.Abs(float64(got - want)); off > float64(want)/1000+float64(time.Microsecond)/2 {
				t.Errorf("%s: quantile %g is %v, want %v", name, q, got, want)
			}
		}
	}
}

func TestEveryPlaceStandsForItsOwnValues(t *testing.T) {
	last := -1
	for v := uint64(0); v <= uint64(Max/time.Microsecond); v += 1 + v/5000 {
		i := index(v)
		if i < last || i > last+1 && v < 2*subs {
			t.Fatalf("%d µs is at %d, after %d", v, i, last)
		}
		last = i
		if off := math.Abs(middle(i) - float64(v)); off > float64(v)/1000 {
			t.Fatalf("%d µs is told as %g", v, middle(i))
		}
	}
}

func TestBounds(t *testing.T) {
	h := New()
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("an empty one says %v", got)
	}
	h.Record(-time.Second)
	if got := h.Quantile(1); got != time.Microsecond {
		t.Errorf("less than nothing is %v", got)
	}
	h.Record(time.Hour)
	if got := h.Quantile(1); got < Max-Max/1000 || got > Max+Max/1000 {
		t.Errorf("an hour is %v", got)
	}
	if got := h.Count(); got != 2 {
		t.Errorf("count %d", got)
	}
}

func TestAdd(t *testing.T) {
	a, b, both := New(), New(), New()
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		both.Record(d)
		if i%3 == 0 {
			a.Record(d)
		} else {
			b.Record(d)
		}
	}
	a.Add(b)
	for _, q := range []float64{0.1, 0.5, 0.99, 1} {
		if a.Quantile(q) != both.Quantile(q) {
			t.Errorf("quantile %g: %v, together %v", q, a.Quantile(q), both.Quantile(q))
		}
	}
}

func TestManyRecordAtOnce(t *testing.T) {
	h := New()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 10_000 {
				h.Record(time.Duration(i) * time.Microsecond)
			}
		})
	}
	group.Wait()
	if got := h.Count(); got != 80_000 {
		t.Errorf("count %d", got)
	}
}
