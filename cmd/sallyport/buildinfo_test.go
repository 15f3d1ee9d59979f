package main_test

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestBuildInfo: the metrics name the version that `sallyport version` prints, also in a copy of the source, where the go
// command knows of none.
func TestBuildInfo(t *testing.T) {
	d := newDemo(t)
	var printed struct{ Version, Go string }
	if err := json.Unmarshal([]byte(d.mustRun("version", "-o", "json")), &printed); err != nil {
		t.Fatal(err)
	}
	p := d.serveAlone()
	series := fmt.Sprintf(`sallyport_build_info{go=%q,version=%q}`, printed.Go, printed.Version)
	if got := p.metric(series); got != "1" {
		_, body := p.status("/metrics")
		t.Errorf("%s is %q in\n%s", series, got, body)
	}
}
