package ratelimit

import (
	"context"
	"testing"

	"sallyport/internal/testredis"
)

// TestNodesAreNotForgotten: to a node that comes first to a Redis that lost its data, the others are still there, so that
// its share isn't theirs. That others have gone is believed a sign of life later.
func TestNodesAreNotForgotten(t *testing.T) {
	server := testredis.Start(t, testredis.Options{})
	o := Options{Redis: Redis{Addresses: []string{server.Address}}, Timeout: patient, prefix: prefix()}
	a, _ := run(t, o)
	_, stop := run(t, o)
	wantNodes := func(want int, when string) {
		t.Helper()
		if err := a.Connect(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := a.State().Nodes; n != want {
			t.Errorf("%s: %d nodes, want %d", when, n, want)
		}
	}
	wantNodes(2, "both are there")
	server.Do("FLUSHALL")
	wantNodes(2, "Redis is empty")
	stop()
	a.Connect(context.Background())
	wantNodes(1, "one has stopped")
}
