package main_test

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testredis"
)

// fiveAYear are edits of sallyport.yaml that give Trial a quota.
var fiveAYear = []string{"requestCount: 3, unitTime: 1, timeUnit: min}", "requestCount: 5, unitTime: 12, timeUnit: month}"}

// keptCalls is how many calls of quotas the store knows.
func (d *demoFolder) keptCalls() (n int64) {
	d.t.Helper()
	s, err := certstore.Open(d.t.Context(), "sqlite:"+d.path("sallyport.db"), certstore.Options{ReadOnly: true})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := s.Quotas(d.t.Context(), time.Now(), func(q certstore.Quota) { n += q.Used }); err != nil {
		d.t.Error(err)
	}
	if err := s.Close(); err != nil {
		d.t.Error(err)
	}
	return n
}

// TestQuotasOutliveTheGateway stops a gateway, and kills it: what is spent of a quota stays spent, by its own count and
// with a Redis that forgets everything meanwhile.
func TestQuotasOutliveTheGateway(t *testing.T) {
	for name, share := range map[string]bool{"alone": false, "with a Redis that forgets": true} {
		t.Run(name, func(t *testing.T) {
			d := newDemo(t, fiveAYear...)
			forget := func() {}
			if share {
				redis := testredis.Start(t, testredis.Options{})
				d.swap("sallyport.yaml", d.read("sallyport.yaml")+sharing(redis, ""))
				forget = func() { redis.Kill(); redis.Restart() }
			}
			call := func(want ...int) {
				t.Helper()
				for i, status := range want {
					if r := d.client("trial", dialects[0]).get(t, "/orders/1"); r.status != status {
						t.Errorf("call %d: status %d, want %d", i+1, r.status, status)
					}
				}
			}
			p := d.quickstart()
			call(http.StatusOK, http.StatusOK)
			p.stop()
			if n := d.keptCalls(); n != 2 {
				t.Errorf("the store knows of %d calls, want 2", n)
			}
			forget()
			p = d.quickstart()
			call(http.StatusOK, http.StatusOK)
			eventually(t, "the store knows of 4 calls", func() bool { return d.keptCalls() == 4 })
			p.signal(syscall.SIGKILL)
			p.wait()
			forget()
			p = d.quickstart()
			call(http.StatusOK, http.StatusTooManyRequests, http.StatusTooManyRequests)
			if n := d.client("trial2", dialects[0]).get(t, "/orders/1").status; n != http.StatusOK {
				t.Errorf("another client: status %d", n)
			}
			p.stop()
		})
	}
}
