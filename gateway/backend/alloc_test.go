//go:build !race

package backend_test

import (
	"bufio"
	"io"
	"net"
	"testing"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

// TestAllocTrip: a call without a body on a connection that was used before takes no memory, or that of its answer's head if
// it lasts.
func TestAllocTrip(t *testing.T) {
	answer := []byte(fine)
	s := speak(t, func(_ int64, c net.Conn, _ *bufio.Reader) {
		for request := make([]byte, 1<<10); ; {
			if _, err := c.Read(request); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
	trip, r, g := new(backend.Trip), &request{method: "GET"}, s.Group
	for want, lasting := range []bool{false, true} {
		n := testing.AllocsPerRun(200, func() {
			trip.Request, trip.Group, trip.Length, trip.Lasting = r, g, http1.Unstated, lasting
			if err := send(trip); err != nil {
				t.Fatal(err)
			}
			if part, err := trip.Next(); string(part) != "fine" || err != io.EOF {
				t.Fatalf("%q, %v", part, err)
			}
			trip.Close()
		})
		if n > float64(want) {
			t.Errorf("lasting=%v: %v allocations, want %d", lasting, n, want)
		}
	}
}
