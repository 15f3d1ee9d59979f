package main_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/internal/testredis"
)

// sharing is the end of a sallyport.yaml whose limits are counted in Redis. Calls wait as long as a busy machine needs.
func sharing(redis *testredis.Server, more string) string {
	return fmt.Sprintf("\nrateLimit: {redis: \"redis://%s/0\", redisTimeout: 30s%s}\n", redis.Address, more)
}

// second runs another gateway on the same files, and returns its port. Its limits are those of the first.
func (d *demoFolder) second() int {
	d.t.Helper()
	text, port := d.read("sallyport.yaml"), 0
	for _, number := range []int{d.Ports.LoadBalancer, d.Ports.Status, d.Ports.HTTPS} {
		port = freePort(d.t)
		text = strings.ReplaceAll(text, fmt.Sprintf("127.0.0.1:%d", number), fmt.Sprintf("127.0.0.1:%d", port))
	}
	d.write("second.yaml", text)
	p := start(d.t, d.Demo, "serve", "-c", d.path("second.yaml"))
	c := d.client("", dialects[0]).onPort(port)
	eventually(d.t, "the second gateway serves", func() bool {
		select {
		case <-p.ended:
			d.t.Fatalf("%s: %v\n%s", p.cmd, p.err, p.stderr)
		default:
		}
		r, err := c.call("/hello/1")
		return err == nil && r.status == http.StatusOK
	})
	return port
}

// TestLimitsAreShared holds docs/security.md, I 122: two gateways that share a Redis let a certificate's three calls pass,
// and no fourth, whichever gateway is asked: one after the other by turns, all at once, and all of one.
func TestLimitsAreShared(t *testing.T) {
	redis := testredis.Start(t, testredis.Options{})
	d := newDemo(t, threeADay...)
	d.swap("sallyport.yaml", d.read("sallyport.yaml")+sharing(redis, ""))
	d.quickstart()
	ports := []int{d.Ports.HTTPS, d.second()}
	before := d.backendCount()

	passes := 0
	for i := range 10 {
		if d.client("trial", dialects[i%len(dialects)]).onPort(ports[i%2]).get(t, "/orders/1").status == http.StatusOK {
			passes++
		}
	}
	if passes != 3 {
		t.Errorf("by turns: %d calls pass, want 3", passes)
	}

	var passed atomic.Int64
	var all sync.WaitGroup
	for i := range 4 { // connections
		c := d.client("trial2", dialect{tls.VersionTLS13, true}).onPort(ports[i%2])
		for range 25 {
			all.Go(func() {
				r, err := c.call("/orders/1")
				if err != nil {
					t.Error(err)
				}
				if r.status == http.StatusOK {
					passed.Add(1)
				}
			})
		}
	}
	all.Wait()
	if passed.Load() != 3 {
		t.Errorf("at once: %d calls pass, want 3", passed.Load())
	}

	passes = 0
	for range 6 {
		if d.client("trial", dialects[0]).onPort(ports[1]).get(t, "/payments/1").status == http.StatusOK {
			passes++
		}
	}
	if passes != 3 {
		t.Errorf("of one gateway: %d calls pass, want 3", passes)
	}
	if n := d.backendCount() - before - 1; n != 9 { // to ask for the count is a call
		t.Errorf("%d calls reached the backend, want 9", n)
	}
}

// TestRedisFails holds docs/security.md, I 120 and R7, for whole gateways: no call fails while Redis is killed and started
// again, the gateway says what it does meanwhile, and counts in Redis again afterwards.
func TestRedisFails(t *testing.T) {
	redis := testredis.Start(t, testredis.Options{})
	d := newDemo(t)
	d.swap("sallyport.yaml", d.read("sallyport.yaml")+fmt.Sprintf("\nrateLimit: {redis: \"redis://%s/0\"}\n", redis.Address))
	p := d.quickstart()
	says := func(what string) {
		t.Helper()
		eventually(t, "/readyz says "+what, func() bool { return strings.Contains(p.ready(), what) })
	}
	says("limits: counted in Redis")
	c := d.client("gold", dialect{tls.VersionTLS13, true})
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		calls := 0
		defer func() { stopped <- calls }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, err := c.call("/orders/1")
			if err != nil || r.status != http.StatusOK && r.status != http.StatusTooManyRequests {
				t.Errorf("call %d: %d, %v", calls, r.status, err)
				return
			}
			calls++
		}
	}()
	redis.Kill()
	says("can't be used")
	if n := p.metric("sallyport_limits_shared"); n != "0" {
		t.Errorf("sallyport_limits_shared is %s", n)
	}
	code, out, _ := d.run("explain", "--api", "orders:1.0.0", "--cert", "clients/gold.crt")
	if code != 0 || !strings.Contains(out, "limit      not shared, Redis at "+redis.Address) {
		t.Errorf("explain: %d\n%s", code, out)
	}
	redis.Restart()
	says("limits: counted in Redis")
	if _, out, _ := d.run("explain", "--api", "orders:1.0.0", "--cert", "clients/gold.crt"); !strings.Contains(out, "limit      counted in Redis at "+redis.Address) {
		t.Errorf("explain:\n%s", out)
	}
	close(stop)
	if n := <-stopped; n == 0 {
		t.Error("no call was made")
	}
	for _, word := range []string{`msg="limits can't be counted in Redis"`, `msg="limits are counted in Redis"`} {
		if !p.stderr.contains(word) && !p.stdout.contains(word) {
			t.Errorf("the log has no %s", word)
		}
	}
	p.stop()
}
