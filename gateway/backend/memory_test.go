package backend_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"sallyport/gateway/backend"
)

// lettered is a handler that repeats the letter that a request names.
func lettered(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Length") != "" {
		w.Header().Set("Content-Length", "2000")
	}
	_, _ = io.WriteString(w, strings.Repeat(r.Header.Get("X-Letter"), 2000))
	if r.Header.Get("X-Length") == "" {
		flush(w)
		<-r.Context().Done()
	}
}

// TestMemory: what Next has returned stays as it is until the next call, though the connection carries another one, and for
// ever once Forget was called, though the Trip carries another one.
func TestMemory(t *testing.T) {
	for _, forget := range []bool{false, true} {
		overBoth(t, func(t *testing.T, p backend.Protocol) {
			s := serve(t, p, lettered)
			trip := newTrip(s.Group, "GET", nil)
			trip.Request.(*request).fields = "X-Letter: a\r\n"
			if !forget {
				trip.Request.(*request).fields += "X-Length: 1\r\n"
			}
			if err := send(trip); err != nil {
				t.Fatal(err)
			}
			part, err := trip.Next()
			if forget {
				trip.Forget()
				trip.Close()
			} else if err == nil { // so that the connection is free
				if more, err := trip.Next(); len(more) > 0 || err != io.EOF {
					t.Skip("the answer came in parts")
				}
			}
			for range 20 {
				other := newTrip(s.Group, "GET", nil)
				other.Request.(*request).fields = "X-Letter: b\r\nX-Length: 1\r\n"
				if err := send(other); err != nil {
					t.Fatal(err)
				}
				if text, err := rest(other); len(text) != 2000 || err != nil {
					t.Errorf("%d bytes, %v", len(text), err)
				}
				other.Close()
			}
			if strings.Trim(string(part), "a") != "" {
				t.Errorf("it is %.20q now", part)
			}
			trip.Close()
		})
	}
}
