package backend_test

import (
	"net/url"
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
				until(t, "the connection is given up", func() bool { return s.open.Load() == 0 })
			} else if s.open.Load() != 1 {
				t.Error("the connection is not kept")
			}
		})
	}
}
