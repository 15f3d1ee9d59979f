package backend_test

import (
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/backend"
)

func urls(t *testing.T, list ...string) (parsed []*url.URL) {
	t.Helper()
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, u)
	}
	return parsed
}

// TestGroup: a group has the servers of its environment.
func TestGroup(t *testing.T) {
	var r backend.Registry
	u := backend.Upstream{URLs: urls(t, "http://a.test/base/", "https://b.test:8443"), SandboxURLs: urls(t, "http://[::1]")}
	for environment, want := range map[string][]string{
		backend.Production: {"http://a.test a.test /base", "https://b.test:8443 b.test:8443 "},
		backend.Sandbox:    {"http://[::1] [::1] "},
	} {
		g := r.Group("api", environment, u)
		var got []string
		for _, s := range g.Servers() {
			got = append(got, s.Name+" "+s.Authority+" "+s.Path)
		}
		if !slices.Equal(got, want) || !g.HTTP1() || g.Timeout != time.Minute || g.MaxCalls != 2048 {
			t.Errorf("%s: got %q, %+v", environment, got, g.Upstream)
		}
	}
	if r.Group("api", backend.Production, backend.Upstream{SandboxURLs: u.SandboxURLs}) != nil || r.Group("api", backend.Sandbox, backend.Upstream{URLs: u.URLs}) != nil {
		t.Error("a group without servers")
	}
	if g := r.Group("api", backend.Production, backend.Upstream{URLs: u.URLs, Protocol: backend.H2C, MaxCalls: 1, Timeout: 1}); g.HTTP1() || g.MaxCalls != 1 || g.Timeout != 1 {
		t.Errorf("got %+v", g.Upstream)
	}
}

// TestServersOutlast: a server is the same in all groups, unless something else is spoken or shown to it.
func TestServersOutlast(t *testing.T) {
	var r backend.Registry
	u := backend.Upstream{URLs: urls(t, "https://a.test", "https://b.test")}
	first := r.Group("api", backend.Production, u)
	same := []*backend.Group{r.Group("api", backend.Production, u), r.Group("other", backend.Production, u)}
	changed := u
	changed.Timeout, changed.MaxCalls, changed.PreserveHost = time.Second, 1, true
	same = append(same, r.Group("api", backend.Production, changed))
	for i, g := range same {
		if !slices.Equal(g.Servers(), first.Servers()) {
			t.Errorf("group %d has other servers", i)
		}
	}
	other := []backend.Upstream{u, u, u}
	other[0].Protocol = backend.HTTP2
	other[1].TLSDigest[0] = 1
	other[2].URLs = urls(t, "http://a.test", "https://b.test/base")
	for i, u := range other {
		for _, s := range r.Group("api", backend.Production, u).Servers() {
			if slices.Contains(first.Servers(), s) {
				t.Errorf("group %d shares %s", i, s.Name)
			}
		}
	}
	r.Retain([]*backend.Group{first})
	if got := r.Group("api", backend.Production, u); !slices.Equal(got.Servers(), first.Servers()) || first.Servers()[0].Closed() {
		t.Error("a server was let go of that a group has")
	}
	r.Close()
	if got := r.Group("api", backend.Production, u); slices.Contains(got.Servers(), first.Servers()[0]) || !first.Servers()[0].Closed() {
		t.Error("a server was kept that nobody has")
	}
}

// places are the calls of nobody that have begun with a group.
type places map[*backend.Group]backend.Place

func (p places) begin(g *backend.Group) bool {
	place, err := g.Enter(0, false)
	if err == nil {
		p[g] = place
	}
	return err == nil
}

func (p places) end(g *backend.Group) {
	place := p[g]
	place.Leave()
}

// TestCountsOutlast: calls under way count against what an equal and a changed group allow, each environment and API by
// itself.
func TestCountsOutlast(t *testing.T) {
	var r backend.Registry
	calls := places{}
	u := backend.Upstream{URLs: urls(t, "http://a.test"), SandboxURLs: urls(t, "http://a.test"), MaxCalls: 4}
	var groups []*backend.Group
	for range 4 { // equal ones, set one after another
		groups = append(groups, r.Group("api", backend.Production, u))
		r.Retain(groups[len(groups)-1:])
	}
	for i, g := range groups {
		if !calls.begin(g) {
			t.Errorf("call %d is refused", i+1)
		}
	}
	for _, g := range groups {
		if calls.begin(g) {
			t.Error("there are more calls than there may be")
		}
	}
	if !calls.begin(r.Group("api", backend.Sandbox, u)) || !calls.begin(r.Group("other", backend.Production, u)) {
		t.Error("calls of others count")
	}
	changed := u
	changed.MaxCalls, changed.URLs = 5, urls(t, "http://b.test", "http://c.test")
	more := r.Group("api", backend.Production, changed)
	if !calls.begin(more) || calls.begin(more) {
		t.Error("a changed group has not taken over the count")
	}
	calls.end(groups[0]) // of a call that began with an older group
	if !calls.begin(more) || calls.begin(more) {
		t.Error("the end of a call does not count")
	}
}

// TestCountsKept: counts are kept while calls are under way or may be, and no longer.
func TestCountsKept(t *testing.T) {
	var r backend.Registry
	calls := places{}
	u := backend.Upstream{URLs: urls(t, "http://a.test"), MaxCalls: 1}
	before := r.Group("api", backend.Production, u)
	if !calls.begin(before) {
		t.Fatal("the first call is refused")
	}
	r.Retain(nil)
	if calls.begin(r.Group("api", backend.Production, u)) {
		t.Error("the call under way was forgotten")
	}
	calls.end(before)
	if g := r.Group("api", backend.Production, u); !calls.begin(g) {
		t.Error("the end of the call was forgotten")
	} else {
		calls.end(g)
	}
	r.Retain(nil)
	if !calls.begin(before) || calls.begin(r.Group("api", backend.Production, u)) {
		t.Error("a call that was matched before its API was gone, and sent when it was there again, does not count")
	}
	calls.end(before)
	if !(places{}).begin(r.Group("gone", backend.Production, u)) { // a call that nobody knows any more
		t.Fatal("a call of another API is refused")
	}
	for range 100 {
		runtime.GC()
		r.Retain(nil)
		if calls.begin(r.Group("gone", backend.Production, u)) {
			return
		}
	}
	t.Error("counts that nobody has are kept")
}

// TestTurns: servers take turns, whatever groups the Registry has made of them since.
func TestTurns(t *testing.T) {
	var r backend.Registry
	u := backend.Upstream{URLs: urls(t, "http://a.test", "http://b.test", "http://c.test")}
	var got strings.Builder
	for range 6 {
		trip := newTrip(r.Group("api", backend.Production, u), "GET", nil)
		trip.Begin()
		got.WriteString(trip.Turn().Authority[:1])
		trip.Close()
	}
	if got.String() != "abcabc" {
		t.Errorf("their turns are %s", got.String())
	}
}

// TestRetain: the idle connections of servers that are gone are closed at once, and those that carry a call after it.
func TestRetain(t *testing.T) {
	for _, last := range []string{"read whole", "closed", "broken off", "its server's"} {
		t.Run(last, func(t *testing.T) {
			overBoth(t, func(t *testing.T, p backend.Protocol) {
				goOn := make(chan bool)
				s := serve(t, p, firstThen(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Length", "4")
					_, _ = io.WriteString(w, "fi")
					flush(w)
					select {
					case <-goOn:
						_, _ = io.WriteString(w, "ne")
					case <-r.Context().Done():
					}
				}))
				trip := newTrip(s.Group, "GET", nil)
				if err := send(trip); err != nil {
					t.Fatal(err)
				}
				ask(t, new(backend.Trip), s.Group) // on another connection in HTTP/1.1
				s.registry.Retain([]*backend.Group{s.Group})
				// net/http may dial once more before the first connection of HTTP/2 is in its pool. It closes one of both.
				if closed := s.closed.Load(); closed != 0 && (p == backend.HTTP1 || s.open() == 0) {
					t.Errorf("%d connections of %d are closed", closed, s.conns.Load())
				}
				s.registry.Retain(nil)
				until(t, "the idle connection has ended", func() bool { return s.open() == 1 })
				switch last {
				case "read whole":
					close(goOn)
					if text, err := rest(trip); text != "fine" || err != nil {
						t.Errorf("%q, %v", text, err)
					}
				case "broken off":
					trip.Break()
				case "its server's":
					trip.Close()
					ask(t, trip, s.Group) // a call that began with the older group
				}
				trip.Close()
				until(t, "all connections have ended", func() bool { return s.open() == 0 })
			})
		})
	}
}
