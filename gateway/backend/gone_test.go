package backend_test

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/backend"
)

// TestGoneAfterTheBody: a client that goes when its whole body was sent ends the call at once, and not when the answer is
// due. The body ends while the answer's reader waits.
func TestGoneAfterTheBody(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		var gone atomic.Bool
		reached, left := make(chan bool, 1), make(chan bool, 1)
		s := serve(t, p, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			reached <- true
			<-r.Context().Done()
			left <- true
		})
		from, client := io.Pipe()
		trip := newTrip(s.with(10*patience), "POST", from)
		trip.Gone = func() error {
			if gone.Load() {
				return backend.ErrClientGone
			}
			return nil
		}
		sent := make(chan error, 1)
		go func() { sent <- send(trip) }()
		if _, err := io.WriteString(client, "abc"); err != nil {
			t.Error(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { client.Close() }) // most likely while the reader waits
		await(t, "the server has the whole body", reached)
		gone.Store(true)
		if err := await(t, "the call has ended", sent); !errors.Is(err, backend.ErrClientGone) {
			t.Errorf("it ended with %v", err)
		}
		trip.Close()
		await(t, "the call has ended at the server", left)
	})
}
