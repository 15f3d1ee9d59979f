package main_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestChaosSoak runs the gateway for SALLYPORT_SOAK (8m) under calls of every kind, with a reload every ten seconds and a
// certificate added or removed every second: no call fails, and memory, goroutines and descriptors stay level. Only `make
// chaos` sets SALLYPORT_SOAK. Held: fault R22.
func TestChaosSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("SALLYPORT_SOAK"))
	if err != nil || length <= 0 {
		t.Skip("SALLYPORT_SOAK, such as 8m, says for how long")
	}
	d := newDemo(t, fast...)
	d.edit("sallyport.yaml", "access: stdout", "access: access.log", "timeUnit: min}", "timeUnit: min}\n  - {name: Boundless, requestCount: 10000000, unitTime: 1, timeUnit: min}")
	for _, api := range []string{"orders:1.0.0", "payments:1.0.0"} {
		d.mustRun("cert", "update", "--api", api, "--alias", "gold", "--tier", "Boundless")
	}
	p := d.quickstart()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var calls, failed atomic.Int64
	var wg sync.WaitGroup
	expect := func(c *client, want int, path string, headers ...string) {
		r, err := c.call(path, headers...)
		calls.Add(1)
		if err != nil || r.status != want {
			if failed.Add(1) <= 20 {
				t.Errorf("%s over %s: status %d instead of %d, %v", path, c.dialect, r.status, want, err)
			}
		}
		if r.status != http.StatusOK {
			noSecrets(t, d.Demo, "a refusal", string(r.body))
		}
	}
	valid, forged := d.bearer("valid"), d.bearer("forged")
	header := base64.StdEncoding.EncodeToString(d.block("clients/gold.crt"))
	// every runs do at a fixed pace on its own goroutine until the end.
	every := func(pace time.Duration, do func(i int)) {
		wg.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					do(i)
				}
			}
		})
	}
	for _, how := range dialects {
		gold, nobody, balancer := d.client("gold", how), d.client("", how), d.client("loadbalancer", how).onPort(d.Ports.LoadBalancer)
		every(20*time.Millisecond, func(i int) { expect(gold, http.StatusOK, []string{"/orders/1", "/payments/1"}[i%2]) })
		every(40*time.Millisecond, func(int) { expect(nobody, http.StatusOK, "/catalog/1", valid...) })
		every(80*time.Millisecond, func(int) { expect(nobody, http.StatusUnauthorized, "/catalog/1", forged...) })
		every(40*time.Millisecond, func(int) {
			expect(balancer, http.StatusOK, "/payments/1", "X-WSO2-CLIENT-CERTIFICATE", header)
		})
		every(200*time.Millisecond, func(int) {
			c := d.client("gold", how)
			expect(c, http.StatusOK, "/orders/new")
			c.http.CloseIdleConnections()
		})
	}
	versions := d.profileVersions()
	good := d.read("sallyport.yaml")
	every(10*time.Second, func(i int) {
		switch i % 5 {
		case 0, 1:
			d.swap("listenerprofiles.xml", versions[i%2])
		case 2:
			d.swap("sallyport.yaml", strings.Replace(good, "apis:\n", "apis:\n"+d.extraAPI(fmt.Sprint("extra", i)), 1))
		case 3:
			d.swap("listenerprofiles.xml", versions[0][:100]) // broken, until the next change
			p.signal(syscall.SIGHUP)
		case 4:
			d.swap("listenerprofiles.xml", versions[0])
			p.signal(syscall.SIGHUP)
		}
	})
	every(time.Second, func(i int) {
		name := []string{"--api", "payments:1.0.0", "--alias", "newcomer"}
		args := append([]string{"cert", "remove"}, name...)
		if i%2 == 0 {
			args = append([]string{"cert", "add", "--tier", "Gold", "clients/unregistered.crt"}, name...)
		}
		if code, _, errs := d.run(args...); code != 0 {
			t.Errorf("%v: exit code %d: %s", args, code, errs)
		}
	})
	type sample struct {
		holdings
		resident float64
	}
	var samples []sample
	every(5*time.Second, func(int) {
		samples = append(samples, sample{p.holdings(), p.number("process_resident_memory_bytes") / (1 << 20)})
	})
	wg.Wait()
	t.Logf("%d calls, %d failed", calls.Load(), failed.Load())
	if n := failed.Load(); n > 0 {
		t.Errorf("%d calls failed", n)
	}
	// The first quarter is warm-up; the others are compared by their means.
	mean := func(part []sample) (m sample) {
		n := float64(len(part))
		for _, s := range part {
			m.goroutines += s.goroutines / n
			m.descriptors += s.descriptors / n
			m.resident += s.resident / n
		}
		return m
	}
	quarter := len(samples) / 4
	if quarter == 0 {
		t.Fatalf("%s is too short to tell anything", length)
	}
	var means []sample
	for i := range 4 {
		means = append(means, mean(samples[i*quarter:(i+1)*quarter]))
		t.Logf("quarter %d: %.1f goroutines, %.1f descriptors, %.1f MiB resident", i+1, means[i].goroutines, means[i].descriptors, means[i].resident)
	}
	minutes := length.Minutes() / 2 // from the middle of the second quarter to that of the last
	if grown := means[3].goroutines - means[1].goroutines; grown > 10 {
		t.Errorf("%.1f goroutines more", grown)
	}
	if grown := means[3].descriptors - means[1].descriptors; grown > 5 {
		t.Errorf("%.1f descriptors more", grown)
	}
	if grown := means[3].resident - means[1].resident; grown > max(minutes, 8) {
		t.Errorf("%.1f MiB more in %.1f minutes", grown, minutes)
	}
	d.write("listenerprofiles.xml", versions[0])
	d.swap("sallyport.yaml", good)
	eventually(t, "in the end all is good", func() bool { return p.good() })
	p.stopClean()
	noSecrets(t, d.Demo, "the access log", d.read("access.log"))
	noCertificates(t, "the access log", d.read("access.log"))
}
