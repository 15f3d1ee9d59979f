package backend

import (
	"sync/atomic"
	"testing"
)

// A stoppable counts how often it is stopped.
type stoppable struct {
	Body
	stops atomic.Int64
}

func (s *stoppable) Stop() { s.stops.Add(1) }

// TestLateClose: net/http closes a request's body on a goroutine of its own, perhaps when the Trip carries another call,
// whose body must not be stopped by that.
func TestLateClose(t *testing.T) {
	body := new(stoppable)
	b := &streamBody{trip: &Trip{Body: body}}
	b.mu.Lock() // a Read waits
	_ = b.Close()
	if n := body.stops.Load(); n != 1 {
		t.Errorf("Close stopped the body of its own call %d times, want once", n)
	}
	b.mu.Unlock()

	b.stop()
	b.trip.Body = new(stoppable) // another call's
	b.mu.Lock()                  // net/http asks once more
	_ = b.Close()
	b.mu.Unlock()
	if n := b.trip.Body.(*stoppable).stops.Load(); n != 0 {
		t.Errorf("a late Close stopped the body of another call %d times", n)
	}
}
