package peer

import (
	"slices"
	"testing"
)

const exposition = `# HELP calls_total Calls, by API.
# TYPE calls_total counter
calls_total{api="a:1.0.0",by="certificate"} 12
calls_total{api="b {odd} name",by="token"} 30
calls_total_other 7
go_memstats_mallocs_total 1.25e+06
`

func TestParseMetrics(t *testing.T) {
	names := []string{
		"calls_total", `calls_total{api="a:1.0.0",by="certificate"}`, "go_memstats_mallocs_total", "calls", "absent",
	}
	got, err := parseMetrics([]byte(exposition), names)
	if want := []float64{42, 12, 1.25e6, 0, 0}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, text := range []string{"calls_total", "calls_total ", "calls_total x", `calls_total{api="a"}`} {
		got, err := parseMetrics([]byte(text), []string{"calls_total"})
		if err == nil && got[0] != 0 {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func FuzzParseMetrics(f *testing.F) {
	f.Add([]byte(exposition))
	f.Fuzz(func(t *testing.T, text []byte) {
		values, err := parseMetrics(text, []string{"calls_total", "absent"})
		if err == nil && len(values) != 2 {
			t.Errorf("%v", values)
		}
	})
}
