//go:build linux

package engine_test

import (
	"net/url"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoDescriptorForALoop: a process that is out of descriptors carries the calls of the connections that it has. A call
// that finds no idle connection to the server is told so and keeps its own: the pool may just be looking through them.
func TestNoDescriptorForALoop(t *testing.T) {
	g := newGate(t, setup{servers: []*url.URL{newSource(t, echo)}})
	parked := g.call(t)
	parked.ask(t, "/first") // from now on it is the loop's, and the server's connection is not
	fresh := g.call(t)
	g.occupy(t, fresh)

	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	g.release()
	fresh.expect(t, 403, "")
	for range 3 {
		for path, c := range map[string]*caller{"/fresh": fresh, "/parked": parked} {
			within(t, path+" is carried", func() bool {
				c.say(t, get(path))
				r, err := c.hear("GET")
				if err != nil || r.status != 502 && r.body != path {
					t.Fatalf("%s: answered %d %q, %v", path, r.status, r.body, err)
				}
				return r.status == 200
			})
		}
	}
}
