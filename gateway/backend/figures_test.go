package backend_test

import (
	"fmt"
	"net/url"
	"testing"

	"sallyport/gateway/backend"
)

// named are URLs of n servers that nobody calls.
func named(prefix string, n int) (list []*url.URL) {
	for i := range n {
		list = append(list, &url.URL{Scheme: "http", Host: fmt.Sprintf("%s%d.test", prefix, i)})
	}
	return list
}

// TestMostFigures: MaxFigures names of servers are counted each for itself and what comes on top together. A server
// that stays keeps its count over reloads, one that goes is gone with it, and the room is for those that were on top.
func TestMostFigures(t *testing.T) {
	first := serve(t, backend.HTTP1, isFine)
	second, third := serve(t, backend.HTTP1, isFine), serve(t, backend.HTTP1, isFine)
	r := first.registry
	groupOf := func(urls ...*url.URL) *backend.Group {
		return first.groupOf(backend.Upstream{URLs: urls, Timeout: patience})
	}
	nameOf := func(s *server) string { return s.url.String() }
	// answered are the answers of class 2xx by server; "": of all together.
	answered := func() map[string]uint64 {
		counts := map[string]uint64{}
		for _, f := range r.Figures() {
			if _, twice := counts[f.Server]; twice {
				t.Errorf("%q is there twice", f.Server)
			}
			counts[f.Server] = f.Answers[2]
		}
		return counts
	}
	expect := func(when string, names int, want map[string]uint64) {
		t.Helper()
		got := answered()
		if len(got) != names {
			t.Errorf("%s: %d names, want %d", when, len(got), names)
		}
		for _, name := range []string{nameOf(first), nameOf(second), nameOf(third), ""} {
			n, is := got[name]
			if wanted, wants := want[name]; n != wanted || is != wants {
				t.Errorf("%s: %d answers of %q (%t), want %d (%t)", when, n, name, is, wanted, wants)
			}
		}
	}
	call := func(s *server, times int) {
		t.Helper()
		for range times {
			ask(t, new(backend.Trip), groupOf(s.url))
		}
	}

	others := groupOf(named("a", backend.MaxFigures-1)...) // with first, which was there before, as many as have figures
	call(first, 1)
	expect("as many as may be", backend.MaxFigures, map[string]uint64{nameOf(first): 1})
	call(second, 2)
	call(third, 3)
	expect("two on top", backend.MaxFigures+1, map[string]uint64{nameOf(first): 1, "": 5})

	all := groupOf(first.url, second.url, third.url)
	r.Retain([]*backend.Group{others, all})
	call(first, 1)
	call(second, 1)
	expect("a reload that changes nothing", backend.MaxFigures+1, map[string]uint64{nameOf(first): 2, "": 6})

	r.Retain([]*backend.Group{all})
	expect("the others gone", 4, map[string]uint64{nameOf(first): 2, nameOf(second): 0, nameOf(third): 0, "": 6})
	call(second, 1)
	expect("room for those on top", 4, map[string]uint64{nameOf(first): 2, nameOf(second): 1, nameOf(third): 0, "": 6})

	r.Retain([]*backend.Group{groupOf(second.url)})
	expect("two more gone", 2, map[string]uint64{nameOf(second): 1, "": 6})
	call(first, 1)
	expect("one that comes again", 3, map[string]uint64{nameOf(first): 1, nameOf(second): 1, "": 6})
}

// TestFiguresOfOthers: a reload that puts as many servers in the place of as many others has all of them counted each
// for itself.
func TestFiguresOfOthers(t *testing.T) {
	var r backend.Registry
	defer r.Close()
	for _, prefix := range []string{"a", "b"} {
		list := named(prefix, backend.MaxFigures)
		r.Retain([]*backend.Group{r.Group("api", backend.Production, backend.Upstream{URLs: list})})
		counted := map[string]bool{}
		for _, f := range r.Figures() {
			counted[f.Server] = true
		}
		for _, at := range list {
			if !counted[at.String()] {
				t.Fatalf("%s is not counted for itself; %d are", at, len(counted))
			}
		}
	}
}
