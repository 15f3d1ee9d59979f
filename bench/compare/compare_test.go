package compare

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"sallyport/bench/histogram"
	"sallyport/bench/load"
	"sallyport/bench/peer"
	"sallyport/bench/pki"
)

func TestDivide(t *testing.T) {
	for _, tt := range []struct {
		cores   []int
		workers int
		want    Division
	}{
		{[]int{0, 1}, 0, Division{1, []int{0}, []int{1}}},
		{[]int{2, 3, 5, 7}, 2, Division{2, []int{2, 3}, []int{5, 7}}},
		{[]int{0, 1}, 2, Division{Workers: 2}},
		{[]int{4}, 1, Division{Workers: 1}},
		{nil, 1, Division{Workers: 1}},
	} {
		if got := Divide(tt.cores, tt.workers); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v, %d workers: %+v", tt.cores, tt.workers, got)
		}
	}
}

func TestChoose(t *testing.T) {
	all, err := Choose(nil)
	if err != nil || len(all) != len(Scenarios) {
		t.Errorf("%d scenarios, %v", len(all), err)
	}
	two, err := Choose([]string{"large", "keepalive"})
	if err != nil || len(two) != 2 || two[0].Name != "keepalive" || two[1].Name != "large" {
		t.Errorf("%v, %v", two, err)
	}
	if _, err := Choose([]string{"keepalive", "other"}); err == nil {
		t.Error("a scenario that isn't there is chosen")
	}
}

// Every scenario asks the same of all gateways, except for what only Sallyport is asked to do.
func TestScenariosAreTheSameForAll(t *testing.T) {
	set, err := pki.Make(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	site := peer.Site{PKI: set, HTTPS: "127.0.0.1:1", HTTP: "127.0.0.1:2"}
	for _, s := range Scenarios {
		own, err := s.load(site, true)
		if err != nil {
			t.Fatal(err)
		}
		other, err := s.load(site, false)
		if err != nil {
			t.Fatal(err)
		}
		if s.own != nil {
			if len(own.Headers) != tokens || other.Headers != nil {
				t.Errorf("%s: %d and %d tokens", s.Name, len(own.Headers), len(other.Headers))
			}
			own.Headers, own.URL = other.Headers, other.URL
		}
		own.TLS, other.TLS = nil, nil
		if !reflect.DeepEqual(own, other) {
			t.Errorf("%s: %+v\nand %+v", s.Name, own, other)
		}
		if own.Want.Status != 200 || len(own.Want.Body) < 1<<10 {
			t.Errorf("%s: wants status %d, %d bytes", s.Name, own.Want.Status, len(own.Want.Body))
		}
	}
}

// The baseline does the same work as Sallyport, and its ratio is the first.
func TestContestants(t *testing.T) {
	sallyport, nginx := peer.Kinds[0], peer.Kinds[1]
	with := []peer.Program{{Kind: sallyport}, {Kind: peer.Baseline}, {Kind: nginx}}
	without := []peer.Program{{Kind: sallyport}, {Kind: nginx}}
	plain, tokens, shared := Scenario{}, Scenario{own: func(*calls) {}}, Scenario{Redis: true}
	for _, tt := range []struct {
		Scenario
		programs []peer.Program
		want     []contestant
	}{
		{plain, without, []contestant{
			{instance{0, false, false}, true, "Sallyport", "sallyport"},
			{instance{1, false, false}, false, "NGINX", "nginx"},
		}},
		{plain, with, []contestant{
			{instance{0, false, false}, true, "Sallyport", "sallyport"},
			{instance{1, false, false}, true, "Baseline", "baseline"},
			{instance{2, false, false}, false, "NGINX", "nginx"},
		}},
		{Scenario{Revoked: true}, without, []contestant{
			{instance{0, false, true}, true, "Sallyport", "sallyport"},
			{instance{0, false, false}, false, "Sallyport, without a CRL", "sallyport-without"},
			{instance{1, false, false}, false, "NGINX", "nginx"},
		}},
		{tokens, without, []contestant{
			{instance{0, false, false}, true, "Sallyport", "sallyport"},
			{instance{0, false, false}, false, "Sallyport, by certificate", "sallyport-certificate"},
			{instance{1, false, false}, false, "NGINX", "nginx"},
		}},
		{tokens, with, []contestant{
			{instance{0, false, false}, true, "Sallyport", "sallyport"},
			{instance{1, false, false}, true, "Baseline", "baseline"},
			{instance{0, false, false}, false, "Sallyport, by certificate", "sallyport-certificate"},
			{instance{2, false, false}, false, "NGINX", "nginx"},
		}},
		{shared, with, []contestant{
			{instance{0, true, false}, true, "Sallyport", "sallyport"},
			{instance{1, true, false}, true, "Baseline", "baseline"},
			{instance{0, false, false}, false, "Sallyport, local limits", "sallyport-local"},
			{instance{2, false, false}, false, "NGINX", "nginx"},
		}},
	} {
		if got := contestants(tt.Scenario, tt.programs); !slices.Equal(got, tt.want) {
			t.Errorf("%+v\nwant %+v", got, tt.want)
		}
	}
}

func TestSumUp(t *testing.T) {
	two, four := 2.0, 4.0
	s := ScenarioResult{Contestants: []Contestant{
		{Title: "Sallyport", Rounds: []Round{
			{CPU: 10, P99: 4, Rate: 5, Memory: 30, Objects: &two},
			{CPU: 30, P99: 4, Rate: 5, Memory: 40},
			{CPU: 20, P99: 4, Rate: 5, Memory: 50, Objects: &four},
		}},
		{Title: "NGINX", Rounds: []Round{
			{CPU: 20, P99: 2, Rate: 10, Memory: 20},
			{CPU: 40, P99: 1, Rate: 10, Memory: 20},
			{CPU: 40, P99: 4, Rate: 10, Memory: 20, Errors: load.Errors{"timeout": {Count: 2}}},
		}},
	}}
	s.sumUp()
	want := []Ratio{{
		To:     "NGINX",
		CPU:    Spread{0.5, 0.5, 0.625},
		P99:    Spread{1.5, 2, 3},
		Rate:   Spread{0.5, 0.5, 0.5},
		Memory: Spread{1.75, 2, 2.25},
	}}
	if !reflect.DeepEqual(s.Ratios, want) {
		t.Errorf("%+v", s.Ratios)
	}
	if got := s.Contestants[0].CPU; got != (Spread{15, 20, 25}) {
		t.Errorf("CPU %+v", got)
	}
	if got := s.Contestants[0].Objects; got == nil || *got != (Spread{2.5, 3, 3.5}) {
		t.Errorf("objects a call %+v", got)
	}
	if got := s.Contestants[1].Objects; got != nil {
		t.Errorf("objects a call of a gateway that tells none: %+v", got)
	}
	c := Comparison{Scenarios: []ScenarioResult{s}}
	if n := c.Errors(); n != 2 {
		t.Errorf("%d errors", n)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Comparison
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("JSON doesn't come back as it was: %v", err)
	}
}

func TestCurveRises(t *testing.T) {
	h := histogram.New()
	for i := range 100_000 {
		h.Record(time.Duration(i) * time.Microsecond)
	}
	points := curve(h)
	if !slices.IsSortedFunc(points, func(a, b Point) int {
		if a.Share < b.Share && a.Milliseconds <= b.Milliseconds {
			return -1
		}
		return 1
	}) {
		t.Errorf("%v", points)
	}
	if last := points[len(points)-1]; last.Share != 0.9999 || last.Milliseconds < 99.8 || last.Milliseconds > 100.1 {
		t.Errorf("%v", last)
	}
}
