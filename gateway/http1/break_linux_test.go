package http1_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/gateway/http1"
)

// TestNoDescriptorForALoop: a process that is out of descriptors carries the calls of the connections that it has.
func TestNoDescriptorForALoop(t *testing.T) {
	k := &keeper{upstreams: []*http1.Upstream{newSource(t, echo)}}
	h := newHold()
	k.judge = h.judge
	g := newGate(t, k, 0, nil)
	parked := g.call(t)
	parked.ask(t, "/first") // from now on it is the loop's, and the backend's connection is not
	within(t, "the call is over, and the backend's connection idle", func() bool { return k.finished.Load() == 1 })
	fresh := g.call(t)
	h.occupy(t, fresh)

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
	close(h.release)
	if status, _, _, err := fresh.hear("GET"); status != 403 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
	for range 3 {
		if got := fresh.ask(t, "/fresh"); got != "/fresh" {
			t.Errorf("answered %q", got)
		}
		if got := parked.ask(t, "/parked"); got != "/parked" {
			t.Errorf("answered %q", got)
		}
	}
}
