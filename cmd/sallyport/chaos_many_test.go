package main_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
)

// TestChaosManyRegistrations holds docs/security.md, R23, for fewer certificates and APIs unless the test is thorough: a
// gateway with 100,000 of them and 1,000 APIs starts, takes up what is added and removed, and fails no call meanwhile. It
// logs how long all that takes.
func TestChaosManyRegistrations(t *testing.T) {
	d := newDemo(t)
	d.edit("sallyport.yaml", "timeUnit: min}", "timeUnit: min}\n  - {name: Boundless, requestCount: 10000000, unitTime: 1, timeUnit: min}")
	d.mustRun("cert", "update", "--api", "orders:1.0.0", "--alias", "gold", "--tier", "Boundless")
	var definitions strings.Builder
	var apis []certstore.API
	for i := range scaled(30, 1000) {
		api := certstore.API{Name: fmt.Sprint("many", i), Version: "1.0.0"}
		apis = append(apis, api)
		fmt.Fprintf(&definitions, "  - {name: %s, version: %s, context: /%s, security: [mutualssl], upstream: {urls: [\"http://127.0.0.1:%d\"]}}\n",
			api.Name, api.Version, api.Name, d.Ports.Backend)
	}
	d.edit("sallyport.yaml", "apis:\n", "apis:\n"+definitions.String())
	certstoretest.Fill(t, d.path("sallyport.db"), scaled(3000, 100_000), apis...)

	began := time.Now()
	p, _ := d.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Logf("ready after %v, with %s certificates and %s MiB", time.Since(began).Round(time.Millisecond),
		p.metric("sallyport_client_certificates"), fmt.Sprint(int(p.number("process_resident_memory_bytes"))>>20))

	gold := d.client("gold", dialect{tls.VersionTLS13, false})
	if got := gold.get(t, "/orders/1").status; got != http.StatusOK {
		t.Fatalf("gold: %d", got)
	}
	stop := make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() {
		var longest time.Duration
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				t.Logf("%d calls meanwhile, the longest took %v", n, longest)
				return
			default:
			}
			sent := time.Now()
			if r, err := gold.call("/orders/1"); err != nil || r.status != http.StatusOK {
				t.Errorf("call %d: %d, %v", n, r.status, err)
			}
			longest = max(longest, time.Since(sent))
		}
	})
	newcomer := d.client("unregistered", dialect{tls.VersionTLS13, false}) // one connection all the time
	for range scaled(2, 10) {
		for _, change := range []struct {
			want int
			args []string
		}{
			{http.StatusOK, []string{"cert", "add", "--tier", "Gold", "clients/unregistered.crt"}},
			{http.StatusUnauthorized, []string{"cert", "remove"}},
		} {
			d.mustRun(append(change.args, "--api", "orders:1.0.0", "--alias", "newcomer")...)
			changed := time.Now()
			eventually(t, "the change is in force", func() bool { return newcomer.get(t, "/orders/1").status == change.want })
			t.Logf("cert %s is in force after %v", change.args[1], time.Since(changed).Round(time.Millisecond))
		}
	}
	close(stop)
	calls.Wait()
	p.stop()
}
