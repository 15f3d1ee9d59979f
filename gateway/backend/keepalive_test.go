package backend_test

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/backend"
)

// TestKeepAlive: a connection is kept for no longer than its server says it will be, and for no longer than IdleTimeout
// whatever the server says.
func TestKeepAlive(t *testing.T) {
	for _, c := range []struct {
		said  string
		idle  time.Duration
		kept  bool // for another call at once
		ended bool // before long without a call
	}{
		{"", time.Hour, true, false},
		{"Keep-Alive: timeout=0\r\n", time.Hour, false, true},
		{"Keep-Alive: timeout=1, max=100\r\n", time.Hour, true, true},
		{"Keep-Alive: max=5, Timeout = 1\r\nKeep-Alive: timeout=60\r\n", time.Hour, true, true},
		{"Keep-Alive: timeout=60\r\n", time.Hour, true, false},
		{"Keep-Alive: timeout=soon\r\nKeep-Alive: timeout=-1\r\nKeep-Alive: 1\r\n", time.Hour, true, false},
		{"Keep-Alive: timeout=3600\r\n", time.Second, true, true},
		{"", time.Second, true, true},
	} {
		t.Run(c.said+c.idle.String(), func(t *testing.T) {
			t.Parallel()
			s := speak(t, answers(strings.Replace(fine, "\r\n\r\n", "\r\n"+c.said+"\r\n", 1)))
			g := s.groupOf(backend.Upstream{URLs: []*url.URL{s.url}, Timeout: patience, IdleTimeout: c.idle})
			trip := new(backend.Trip)
			ask(t, trip, g)
			if ask(t, trip, g); (s.conns.Load() == 1) != c.kept {
				t.Errorf("%d connections for two calls", s.conns.Load())
			}
			if c.ended {
				until(t, "the connection is given up", func() bool { return s.open() == 0 })
			} else if s.open() != 1 {
				t.Error("the connection is not kept")
			}
		})
	}
}

// FuzzParseKeepAlive: the least of the timeouts counts that are plain numbers of seconds, whatever stands beside them.
func FuzzParseKeepAlive(f *testing.F) {
	for _, s := range []string{
		"", "timeout=5", "timeout=5, max=100", "Timeout = 60 ,timeout=\"7\"", "timeout=0", "timeout=-1", "timeout=+1",
		"timeout=1.5", "timeout", "timeout=", "max=5", "timeout=2147483647", "timeout=2147483648",
		"timeout=99999999999999999999", "timeout=5;max=1", ",,timeout=1,", "xtimeout=1", "timeout=1_0",
	} {
		f.Add(s)
	}
	stated := regexp.MustCompile(`^[ \t]*(?i:timeout)[ \t]*=[ \t"]*([0-9]+)[ \t"]*$`)
	f.Fuzz(func(t *testing.T, value string) {
		want, any := time.Duration(0), false
		for _, part := range strings.Split(value, ",") {
			m := stated.FindStringSubmatch(part)
			if m == nil {
				continue
			}
			if n, err := strconv.ParseInt(m[1], 10, 32); err == nil && (!any || time.Duration(n)*time.Second < want) {
				want, any = time.Duration(n)*time.Second, true
			}
		}
		if got, ok := backend.ParseKeepAlive(value); got != want || ok != any {
			t.Fatalf("%q: %v, %t, want %v, %t", value, got, ok, want, any)
		}
	})
}
