package main_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// threeADay are edits of sallyport.yaml that give Trial three calls a day instead of three a minute: the allowance does
// not refill while a test runs.
var threeADay = []string{"requestCount: 3, unitTime: 1, timeUnit: min}", "requestCount: 3, unitTime: 24, timeUnit: hour}"}

// TestTrial makes ten calls at once for a client that may make three, over ten connections, both versions of HTTP and of
// TLS, and several paths: exactly three pass, whatever the way, and another client of the tier is not touched.
func TestTrial(t *testing.T) {
	d := newDemo(t, threeADay...)
	p := d.quickstart()
	paths := []string{"/orders/1", "/orders/1.0.0/1", "/orders/2?page=1", "/orders/1.0.0/"}

	replies := make([]reply, 10)
	var calls sync.WaitGroup
	clients := make([]*client, len(replies))
	for i := range clients {
		clients[i] = d.client("trial", dialects[i%len(dialects)])
		clients[i].get(t, "/hello/1") // opens the connection, so that the calls come at once
	}
	for i, c := range clients {
		calls.Go(func() {
			var err error
			if replies[i], err = c.call(paths[i%len(paths)]); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if t.Failed() {
		return
	}

	passed := 0
	for _, r := range replies {
		if r.status == http.StatusOK {
			passed++
			checkFields(t, r, 3, 86400)
			continue
		}
		if code := r.code(t); r.status != http.StatusTooManyRequests || code != "900804" {
			t.Errorf("status %d, code %s", r.status, code)
		}
		// One that began a moment before the last that passed has to wait for that moment, too, which rounds up.
		if seconds := retryAfter(t, r); seconds > 28801 {
			t.Errorf("Retry-After is %d, and one call is allowed each 28800 s", seconds)
		}
		checkFields(t, r, 3, 86400)
	}
	if passed != 3 {
		t.Errorf("%d of 10 calls passed", passed)
	}
	if count := d.backendCount(); count != len(clients)+4 {
		t.Errorf("%d calls reached the backend", count-len(clients)-1)
	}

	other := d.client("trial2", dialects[0])
	for i := range 3 {
		if r := other.get(t, "/orders/1"); r.status != http.StatusOK {
			t.Errorf("call %d of trial2: %d", i+1, r.status)
		}
	}
	// Each API has its own allowance.
	if r := d.client("trial", dialects[0]).get(t, "/payments/1"); r.status != http.StatusOK {
		t.Errorf("trial on payments: %d", r.status)
	}
	eventually(t, "7 throttled calls are counted", func() bool {
		return p.metric(`sallyport_throttled_calls_total{api="orders:1.0.0",level="certificate",tier="Trial"}`) == "7"
	})
	p.stop()
}

// TestRetryAfterHolds waits as long as the refusal says, and the next call is admitted.
func TestRetryAfterHolds(t *testing.T) {
	d := newDemo(t, "{name: Trial, requestCount: 3, unitTime: 1, timeUnit: min}", "{name: Trial, requestCount: 3, unitTime: 3, timeUnit: sec}")
	p := d.quickstart()
	c := d.client("trial", dialect{tls.VersionTLS13, true})
	for range 3 {
		// Ten at once: a slow machine may not complete more than one call a second in sequence.
		var refused reply
		eventually(t, "a call is throttled", func() bool {
			var calls sync.WaitGroup
			for range 10 {
				calls.Go(func() {
					if _, err := c.call("/orders/1"); err != nil {
						t.Error(err)
					}
				})
			}
			calls.Wait()
			refused = c.get(t, "/orders/1")
			return refused.status == http.StatusTooManyRequests
		})
		wait := time.Duration(retryAfter(t, refused)) * time.Second
		if wait > time.Second {
			t.Errorf("Retry-After is %s, and one call is allowed each second", wait)
		}
		<-time.After(wait) // as the refusal says
		if r := c.get(t, "/orders/1"); r.status != http.StatusOK {
			t.Errorf("after %s: %d", wait, r.status)
		}
	}
	p.stop()
}

func retryAfter(t *testing.T, r reply) int {
	t.Helper()
	seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
	}
	return seconds
}

// checkFields holds the answer to the RateLimit fields of a certificate's allowance.
func checkFields(t *testing.T, r reply, quota, window int) {
	t.Helper()
	if got, want := r.header.Get("RateLimit-Policy"), fmt.Sprintf(`"certificate";q=%d;w=%d`, quota, window); got != want {
		t.Errorf("RateLimit-Policy is %q, want %q", got, want)
	}
	got := r.header.Get("RateLimit")
	if !strings.HasPrefix(got, `"certificate";r=`) || !strings.Contains(got, ";t=") {
		t.Errorf("RateLimit is %q", got)
	}
	if r.status == http.StatusTooManyRequests {
		if want := `"certificate";r=0;t=` + r.header.Get("Retry-After"); got != want {
			t.Errorf("RateLimit is %q, want %q", got, want)
		}
	}
}
