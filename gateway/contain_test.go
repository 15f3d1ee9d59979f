package gateway_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/listenerprofiles"
)

// TestPanicBeforeTheFirstCall: what panics while a connection is admitted, or in its handshake, ends that connection.
// Those that are there go on, later ones are admitted, and the log and the counter tell.
func TestPanicBeforeTheFirstCall(t *testing.T) {
	for where, fault := range map[string]func(t *testing.T, f *fixture) (end func()){
		"admitting a connection": func(t *testing.T, f *fixture) func() {
			second := f.dialPlain(t)
			if a := second.get(t, "/pub/1.0/x", "pub.test"); a.status != 200 { // and the source has as many as it may
				t.Fatalf("status %d", a.status)
			}
			return func() { second.Close() }
		},
		"a handshake": func(t *testing.T, f *fixture) func() {
			good := f.listeners[0].Profiles
			f.setProfiles(t, &listenerprofiles.Set{}) // no Set that was loaded is empty: GetConfigForClient panics
			return func() { f.setProfiles(t, good) }
		},
	} {
		t.Run(where, func(t *testing.T) {
			counted := make(chan string, 10)
			var armed atomic.Bool
			f := newFixture(t, func(_ *fixture, s *setup) {
				s.config.Panicked = func(where string) { counted <- where }
				s.config.Limits.ConnectionsPerSource = 2
				s.config.Connections = func(string) {
					if armed.Load() {
						panic("in the observer")
					}
				}
			})
			there := f.dialPlain(t)
			if a := there.get(t, "/pub/1.0/x", "pub.test"); a.status != 200 {
				t.Fatalf("status %d", a.status)
			}
			mend := fault(t, f)
			armed.Store(true)
			for range 2 {
				c, err := net.Dial("tcp", f.address)
				if err != nil {
					t.Fatal(err)
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				if err := tls.Client(c, f.clientTLS(nil, via{sni: "opt.test"})).Handshake(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the handshake: %v", err)
				}
				c.Close()
				if got := <-counted; got != where {
					t.Errorf("counted as %q", got)
				}
			}
			armed.Store(false)
			if a := there.get(t, "/pub/1.0/x", "pub.test"); a.status != 200 {
				t.Errorf("a connection that was there: status %d", a.status)
			}
			mend()
			eventually(t, "a connection is free", func() bool { return f.gateway.OpenConnections() < 2 })
			if a := f.dial(t, f.a1, "opt.test").get(t, "/pay/1.0/x", "opt.test"); a.status != 200 {
				t.Errorf("a later connection: status %d", a.status)
			}
			if !strings.Contains(f.log.String(), where+" panicked") || !strings.Contains(f.log.String(), "runtime/debug.Stack") {
				t.Errorf("the log does not tell: %s", f.log)
			}
		})
	}
}
