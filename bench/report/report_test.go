package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/bench/compare"
	"sallyport/bench/load"
)

var update = flag.Bool("update", false, "write the golden file")

// example returns a plausible comparison. With hostile, its names try to break out of their places.
func example(hostile bool) *compare.Comparison {
	nginx, detail := "NGINX", "as fast as they come"
	if hostile {
		nginx, detail = `N<b>"GINX'&`, `</section><script>alert(1)</script>`
	}
	spread := func(f float64) compare.Spread { return compare.Spread{Q1: f * 0.9, Median: f, Q3: f * 1.2} }
	contestant := func(name, title string, f float64) compare.Contestant {
		return compare.Contestant{
			Name:   name,
			Title:  title,
			CPU:    spread(f),
			Rate:   spread(1e6 / f),
			P50:    spread(f / 10),
			P99:    spread(f / 5),
			P999:   spread(f / 2),
			Memory: spread(30),
			Busy:   spread(0.9),
			Others: spread(0.04),
			Curve: []compare.Point{
				{Share: 0, Milliseconds: f / 30},
				{Share: 0.5, Milliseconds: f / 10},
				{Share: 0.9999, Milliseconds: f},
			},
			Rounds: []compare.Round{{}, {Errors: load.Errors{"timeout": {Count: 1}}}},
		}
	}
	sallyport := func(name, title string, f float64) compare.Contestant {
		c, objects := contestant(name, title, f), spread(f/10)
		c.Objects = &objects
		return c
	}
	ratio := func(to string, f float64) compare.Ratio {
		return compare.Ratio{To: to, CPU: spread(f), P99: spread(f), Rate: spread(1 / f), Memory: spread(2 * f)}
	}
	return &compare.Comparison{
		Date: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), Commit: "0123456789", Took: 61,
		Machine: compare.Machine{
			CPU:    "A Processor",
			Cores:  2,
			Memory: "8 GiB",
			System: "Debian",
			Kernel: "6.1",
			Go:     "go1.26 linux/amd64",
		},
		Settings: compare.Settings{
			Rounds:       2,
			Seconds:      5,
			Warmup:       1,
			Workers:      1,
			Network:      "loopback",
			GatewayCores: []int{0},
			LoadCores:    []int{1, 2},
			Clients:      1000,
		},
		Peers: []compare.Peer{
			{Name: "sallyport", Title: "Sallyport", Version: "1.1"},
			{Name: "baseline", Title: "Baseline", Version: "1.0"},
			{Name: "nginx", Title: nginx, Version: "1.22"},
		},
		Scenarios: []compare.ScenarioResult{
			{
				Name: "keepalive", Title: "64 connections", Detail: detail,
				Contestants: []compare.Contestant{
					sallyport("sallyport", "Sallyport", 20),
					sallyport("baseline", "Baseline", 25),
					contestant("nginx", nginx, 1475),
				},
				Ratios: []compare.Ratio{ratio("Baseline", 0.8), ratio(nginx, 0.0136)},
			},
			{
				Name: "jwt", Title: "JWT", Detail: detail,
				Contestants: []compare.Contestant{
					sallyport("sallyport", "Sallyport", 20),
					sallyport("baseline", "Baseline", 20),
					contestant("sallyport-certificate", "Sallyport, by certificate", 19),
					contestant("nginx", nginx, 25),
				},
				Ratios: []compare.Ratio{
					ratio("Baseline", 1),
					ratio("Sallyport, by certificate", 1.05),
					ratio(nginx, 0.8),
				},
			},
		},
	}
}

// disturbed returns an example from a busy machine.
func disturbed(hostile bool) *compare.Comparison {
	c := example(hostile)
	text := "keepalive: while NGINX was measured, other programs kept 0.50 of 2 cores busy: 25%, and 10% is allowed"
	if hostile {
		text = "<script>alert(1)</script>"
	}
	c.Disturbances = []compare.Disturbance{{Scenario: "keepalive", Kind: "others", Text: text}}
	return c
}

func TestTable(t *testing.T) {
	for file, c := range map[string]*compare.Comparison{"table.txt": example(false), "busy.txt": disturbed(false)} {
		var b bytes.Buffer
		if err := Table(&b, c); err != nil {
			t.Fatal(err)
		}
		file = filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s: got\n%s\nwant\n%s", file, b.Bytes(), want)
		}
	}
}

func TestABusyMachineIsMarked(t *testing.T) {
	forms := map[string]func(io.Writer, *compare.Comparison) error{"Table": Table, "HTML": HTML, "SVG": SVG}
	for name, write := range forms {
		for _, busy := range []bool{false, true} {
			c := example(false)
			if busy {
				c = disturbed(false)
			}
			var b strings.Builder
			if err := write(&b, c); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(strings.ToLower(b.String()), compare.BusyMachine); got != busy {
				t.Errorf("%s: marked %t, busy %t", name, got, busy)
			}
		}
	}
	var b strings.Builder
	if err := HTML(&b, disturbed(true)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "<script>") {
		t.Error("what disturbed isn't escaped")
	}
}

// wellFormed reads XML to its end.
func wellFormed(text string) error {
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

var pictures = regexp.MustCompile(`(?s)<svg .*?</svg>`)

func TestHTML(t *testing.T) {
	for _, hostile := range []bool{false, true} {
		var b strings.Builder
		if err := HTML(&b, example(hostile)); err != nil {
			t.Fatal(err)
		}
		s := b.String()
		found := pictures.FindAllString(s, -1)
		if len(found) != 2+2*2 { // legend, ratios, and two for each scenario
			t.Errorf("%d pictures", len(found))
		}
		for _, p := range found {
			if err := wellFormed(p); err != nil {
				t.Errorf("%v in %.200s", err, p)
			}
			if strings.Contains(p, "NaN") || strings.Contains(p, "Inf") {
				t.Errorf("no number in %.200s", p)
			}
		}
		if from := regexp.MustCompile(`(?i)<script|(src|href)=|url\(|@import`).FindString(s); from != "" {
			t.Errorf("the page isn't self-contained or safe: %s", from)
		}
		for _, want := range []string{
			"prefers-color-scheme: dark", "A Processor", "0123456789", "22 November 2026", " calls failed",
			"latency, ms", "µs a call", "64 connections", "50,000", "Sallyport beside Baseline", "64 connections, to Baseline: 0.80",
		} {
			if !strings.Contains(s, want) {
				t.Errorf("no %q", want)
			}
		}
		if hostile && !strings.Contains(s, "N&lt;b&gt;") {
			t.Error("names aren't escaped")
		}
	}
}

func TestSVG(t *testing.T) {
	for _, hostile := range []bool{false, true} {
		var b strings.Builder
		if err := SVG(&b, example(hostile)); err != nil {
			t.Fatal(err)
		}
		if err := wellFormed(b.String()); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"sallyport", "baseline"} {
			if n := strings.Count(b.String(), `class="bar `+name+`"`); n != 1+2 { // in the legend, and in each scenario
				t.Errorf("%d bars of %s", n, name)
			}
		}
	}
}

// An interrupted comparison, or one without a successful call, still has a report.
func TestLittleIsShown(t *testing.T) {
	c := example(false)
	c.Peers = c.Peers[:1]
	c.Scenarios = []compare.ScenarioResult{{
		Name:        "x",
		Contestants: []compare.Contestant{{Name: "sallyport", Title: "Sallyport"}, {Name: "nginx", Title: "NGINX"}},
		Ratios:      []compare.Ratio{{To: "NGINX"}},
	}}
	var b strings.Builder
	if err := errors.Join(Table(&b, c), HTML(&b, c), SVG(&b, c)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
		t.Error("something isn't a number")
	}
}

func TestSteps(t *testing.T) {
	for v, want := range map[float64][]float64{
		0:    {0, 1},
		9:    {0, 2, 4, 6, 8, 10},
		100:  {0, 20, 40, 60, 80, 100},
		1475: {0, 500, 1000, 1500},
	} {
		if got := steps(v); !slices.Equal(got, want) {
			t.Errorf("to %g: %v", v, got)
		}
	}
	if got := logSteps(0.3, 7); !slices.Equal(got, []float64{0.2, 0.5, 1, 2, 5, 10}) {
		t.Errorf("%v", got)
	}
	for _, s := range [][2]float64{{0, 0}, {1, 1}, {1, 2}, {3, 3.1}} {
		if got := logSteps(s[0], s[1]); len(got) < 2 || !slices.IsSorted(got) {
			t.Errorf("%v: %v", s, got)
		}
	}
}
