package gateway_test

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/gateway/decision"
)

// TestSocketsStayOpen: connections and calls live on through changes of the listeners' settings; none fails.
func TestSocketsStayOpen(t *testing.T) {
	f := newFixture(t)
	sets := []func() []string{
		func() []string { return allProfiles },
		func() []string { return append(slices.Clone(allProfiles), "extra.test optional") },
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		c := f.client(t, f.a4, via{http2: i%2 == 0})
		if a := get(t, c, "https://mtls.test/pay/1.0/x"); a.status != 200 {
			t.Fatalf("status %d", a.status)
		}
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := do(c, "GET", "https://mtls.test/pay/1.0/x", nil)
				if err != nil || a.status != 200 || !a.kept() {
					t.Errorf("status %d, on the old connection: %v, %v", a.status, a.kept(), err)
					return
				}
			}
		})
	}
	for i := range 20 {
		f.setProfiles(t, f.profiles(t, nil, sets[i%2]()...))
		if a := get(t, f.client(t, f.a4, via{}), "https://mtls.test/pay/1.0/x"); a.status != 200 {
			t.Errorf("on a new connection: status %d", a.status)
		}
	}
	close(stop)
	wg.Wait()
}

// TestAddressInUse: a listener that cannot be opened changes nothing.
func TestAddressInUse(t *testing.T) {
	f := newFixture(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := closedAddress(t)
	c := f.client(t, f.a4, via{})
	f.allowed(t, func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })

	err = f.gateway.Set(gateway.Parts{Listeners: []decision.Listener{{Name: "new", Address: free}, {Name: "busy", Address: taken.Addr().String()}}})
	if err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("got %v, want an error that names the listener", err)
	}
	if err := f.gateway.Set(gateway.Parts{Listeners: []decision.Listener{{Name: "a", Address: free}, {Name: "b", Address: free}}}); err == nil {
		t.Error("two listeners share an address")
	}
	if conn, err := net.Dial("tcp", free); err == nil {
		conn.Close()
		t.Error("one of the new listeners is open")
	}
	a := get(t, c, "https://mtls.test/pay/1.0/x")
	if a.status != 200 || !a.kept() || len(f.gateway.Addresses()) != 2 {
		t.Errorf("status %d, on the old connection: %v, addresses %v", a.status, a.kept(), f.gateway.Addresses())
	}
}

// holdCall makes a call that the backend holds until the function it returns is called, which then returns its answer.
func holdCall(t *testing.T, f *fixture, c *http.Client) func() (answer, error) {
	t.Helper()
	arrived, release := make(chan struct{}), make(chan struct{})
	f.backend.handle("/held", func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		_, _ = w.Write([]byte("whole")) // the client looks at it
	})
	type outcome struct {
		a   answer
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		a, err := do(c, "GET", "https://mtls.test/pay/1.0/held", nil)
		done <- outcome{a, err}
	}()
	<-arrived
	return func() (answer, error) {
		close(release)
		o := <-done
		return o.a, o.err
	}
}

// TestRemovedListenerDrains: a listener that is taken away accepts nobody, finishes its calls, and may come back at once.
func TestRemovedListenerDrains(t *testing.T) {
	f := newFixture(t)
	finish := holdCall(t, f, f.client(t, f.a4, via{}))
	all := f.listeners
	f.listeners = all[1:]
	f.setListeners(t)
	eventually(t, "the removed listener accepts nobody", func() bool {
		c, err := net.Dial("tcp", f.address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if a := f.dialPlain(t).get(t, "/pub/1.0/x", "open.test"); a.status != 200 {
		t.Errorf("the other listener: status %d", a.status)
	}
	if a, err := finish(); err != nil || a.body != "whole" {
		t.Errorf("the call under way: %+v, %v", a, err)
	}

	fixed := all[0]
	fixed.Address = f.address
	for range 5 {
		if err := f.gateway.Set(gateway.Parts{Listeners: []decision.Listener{fixed, all[1]}}); err != nil {
			t.Fatalf("it cannot come back: %v", err)
		}
		f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://mtls.test/pay/1.0/x") })
		f.setListeners(t)
	}
}

// TestRunDrains: when Run ends, no call under way is broken, nobody new comes in, and nothing is left.
func TestRunDrains(t *testing.T) {
	eachVersion(t, func(t *testing.T, h2 bool) {
		f := newFixture(t)
		idle := f.client(t, f.a4, via{})
		f.allowed(t, func() answer { return get(t, idle, "https://mtls.test/pay/1.0/x") })
		finish := holdCall(t, f, f.client(t, f.a4, via{http2: h2}))
		if !f.gateway.Ready() {
			t.Error("not ready while it serves")
		}
		done := make(chan error, 1)
		go func() { done <- f.stop() }()
		eventually(t, "the gateway is no longer ready", func() bool { return !f.gateway.Ready() })
		eventually(t, "nobody is accepted", func() bool {
			c, err := net.Dial("tcp", f.address)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		if err := f.gateway.Set(gateway.Parts{Listeners: f.listeners}); err == nil {
			t.Error("listeners are opened while it drains")
		}
		select {
		case err := <-done:
			t.Fatalf("Run ended before the call: %v", err)
		default:
		}
		if a, err := finish(); err != nil || a.status != 200 || a.body != "whole" {
			t.Errorf("the call under way: %+v, %v", a, err)
		}
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestDrainTimeout: calls that do not end in time are broken off, and Run says so.
func TestDrainTimeout(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.DrainTimeout = 20 * time.Millisecond })
	finish := holdCall(t, f, f.client(t, f.a4, via{}))
	if err := f.stop(); err == nil {
		t.Error("Run says nothing of the call that it broke off")
	}
	f.lastSeen(t, "the log names the limit", func(s seen) bool { return s.Limit == decision.DrainTimeout && s.Reason != "client_gone" })
	if a, err := finish(); err == nil {
		t.Errorf("the call has an answer: %+v", a)
	}
}

// TestLameDuck: for a while the gateway is not ready and serves on, new connections too. Abort ends that at once, and Run
// says nothing if no call was broken off.
func TestLameDuck(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.LameDuck = time.Hour })
	done := make(chan error, 1)
	go func() { done <- f.stop() }()
	eventually(t, "the gateway is no longer ready", func() bool { return !f.gateway.Ready() })
	f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://mtls.test/pay/1.0/x") })
	eventually(t, "no call is under way", func() bool { return f.gateway.UnderWay() == 0 })
	f.gateway.Abort()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAbortInLameDuck: calls that are broken off before the drain has begun count, too.
func TestAbortInLameDuck(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.LameDuck = time.Hour })
	finish := holdCall(t, f, f.client(t, f.a4, via{}))
	done := make(chan error, 1)
	go func() { done <- f.stop() }()
	eventually(t, "the gateway is no longer ready", func() bool { return !f.gateway.Ready() })
	f.gateway.Abort()
	if err := <-done; err == nil {
		t.Error("Run says nothing of the call that was broken off")
	}
	if a, err := finish(); err == nil {
		t.Errorf("the call has an answer: %+v", a)
	}
}

// TestAbort ends everything at once, also what a removed listener still drains, and may be called again.
func TestAbort(t *testing.T) {
	for _, removed := range []bool{false, true} {
		f := newFixture(t, func(_ *fixture, s *setup) { s.config.DrainTimeout = time.Hour })
		finish := holdCall(t, f, f.client(t, f.a4, via{}))
		if removed {
			f.listeners = f.listeners[1:]
			f.setListeners(t)
		}
		done := make(chan error, 1)
		go func() { done <- f.stop() }()
		eventually(t, "it drains", func() bool { return !f.gateway.Ready() })
		f.gateway.Abort()
		f.gateway.Abort()
		select {
		case err := <-done:
			if err == nil {
				t.Error("Run says nothing of the call that was broken off")
			}
		case <-time.After(patience):
			_, _ = finish() // so that the test can end
			t.Fatalf("Run goes on, with a removed listener: %v", removed)
		}
		f.gateway.Abort()
		if a, err := finish(); err == nil {
			t.Errorf("the call has an answer: %+v", a)
		}
	}
}

// TestPlainBecomesTLS: a connection from before a listener spoke TLS carries no calls as if it had.
func TestPlainBecomesTLS(t *testing.T) {
	f := newFixture(t)
	c := f.dialPlain(t)
	if a := c.get(t, "/pub/1.0/x", "open.test"); a.status != 200 {
		t.Fatalf("status %d", a.status)
	}
	f.listeners = slices.Clone(f.listeners)
	f.listeners[1].Profiles = f.listeners[0].Profiles
	f.setListeners(t)
	before := f.backend.calls.Load()
	if a := c.get(t, "/pub/1.0/x", "127.0.0.2"); a.status != 421 || f.backend.calls.Load() != before {
		t.Errorf("on the old connection: status %d", a.status)
	}
	c = f.dialPlain(t)
	c.send(t, "GET /pub/1.0/x HTTP/1.1\nHost: open.test\n\n")
	if a, err := c.tryReceive("GET"); err == nil && a.status != 400 {
		t.Errorf("plain HTTP to TLS: status %d", a.status)
	}
	if f.backend.calls.Load() != before {
		t.Error("the backend was called")
	}
}

// TestListenersOfAnAPI: an API is served where it may be: by certificate never over plain HTTP, unless it is named there.
func TestListenersOfAnAPI(t *testing.T) {
	f := newFixture(t)
	plain := f.client(t, nil, via{})
	for _, path := range []string{"/pay/1.0/x", "/pay/1.0/open", "/both/1.0/x", "/box/1.0/x"} {
		f.denied(t, 404, "404", func() answer { return get(t, plain, "http://opt.test"+path) })
	}
	f.allowed(t, func() answer { return get(t, plain, "http://opt.test/tok/1.0/x", bearer(f.token(t, "alice", nil))) })
	f.routes[1].Listeners, f.routes[3].Listeners = []string{"plain"}, []string{"tls"}
	f.setRoutes(t)
	f.denied(t, 404, "404", func() answer { return get(t, plain, "http://opt.test/pub/1.0/x") })
	f.denied(t, 401, "900902", func() answer { return get(t, plain, "http://opt.test/both/1.0/x") })
	f.denied(t, 404, "404", func() answer { return get(t, plain, "https://opt.test/both/1.0/x") })
	f.allowed(t, func() answer { return get(t, plain, "https://opt.test/pub/1.0/x") })
}

// TestHostsOfAnAPI: an API with hosts answers to them only, and goes before one for any host at the same place.
func TestHostsOfAnAPI(t *testing.T) {
	f := newFixture(t, func(f *fixture, s *setup) {
		named := s.routes[3]
		named.API.Name, named.Hosts = "named", []string{"a.wild.test"}
		named.Upstream = f.upstream(t, f.backend.URL+"/named")
		only := named
		only.API.Name, only.Context, only.Hosts = "only", "/only", []string{"b.wild.test", "c.wild.test"}
		s.routes = append(s.routes, named, only)
	})
	c := f.client(t, nil, via{})
	for target, want := range map[string]string{
		"https://a.wild.test/pub/1.0/x": "/named/x", "https://A.wild.TEST/pub/1.0/x": "/named/x", "https://b.wild.test/pub/1.0/x": "/x",
		"https://b.wild.test/only/1.0/x": "/named/x", "https://C.wild.test/only/1.0/x": "/named/x",
	} {
		if got := f.allowed(t, func() answer { return get(t, c, target) }); got.Target != want {
			t.Errorf("%s reached %q, want %q", target, got.Target, want)
		}
	}
	f.denied(t, 404, "404", func() answer { return get(t, c, "https://a.wild.test/only/1.0/x") })
	f.denied(t, 404, "404", func() answer { return get(t, c, "https://open.test/only/1.0/x") })
}
