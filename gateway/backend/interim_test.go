package backend_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

// hinting is a handler that sends interim answers before the answer.
func hinting(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusContinue)
	w.Header().Set("Link", "a")
	w.WriteHeader(http.StatusEarlyHints)
	w.Header().Del("Link")
	w.WriteHeader(http.StatusProcessing)
	_, _ = io.WriteString(w, "fine")
}

// TestInterim: what comes before the answer is passed on in order, but for what only the gateway can have asked for.
func TestInterim(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, hinting)
		trip := new(backend.Trip)
		ask(t, trip, s.Group) // it needs nobody who listens
		for _, err := range []error{nil, errors.New("no more")} {
			var got []string
			prepare(trip, s.Group, "GET", nil)
			trip.Interim = func(res *http1.Response) error {
				link, _ := res.First("Link")
				got = append(got, fmt.Sprint(res.Status, link))
				return err
			}
			failed := send(trip)
			trip.Close()
			trip.Interim = nil
			want := []string{"103a", "102"}
			if err != nil {
				want = want[:1]
			}
			if failed != err || !slices.Equal(got, want) {
				t.Errorf("got %q, %v", got, failed)
			}
		}
		ask(t, trip, s.Group)
	})
}

// TestInterimPanics: a panic in passing on an interim answer ends the call, and not the process.
func TestInterimPanics(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, hinting)
		trip := newTrip(s.Group, "GET", nil)
		trip.Interim = func(*http1.Response) error { panic("a flaw") }
		if fault := panicOf(func() { _ = send(trip) }); fault == nil || !strings.Contains(fmt.Sprint(fault), "a flaw") {
			t.Errorf("panicked with %v", fault)
		}
		trip.Close()
		trip.Interim = nil
		ask(t, trip, s.Group)
	})
}

// TestInterimHoldsUpNobody: a client that does not take an interim answer holds up its own call, and no other one that is on
// the same connection.
func TestInterimHoldsUpNobody(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, firstThen(hinting))
		stuck, freed, done := make(chan bool), make(chan bool), make(chan error)
		go func() {
			trip := newTrip(s.Group, "GET", nil)
			defer trip.Close()
			trip.Interim = func(res *http1.Response) error {
				if res.Status == 103 {
					stuck <- true
					<-freed
				}
				return nil
			}
			err := send(trip)
			if text, failed := rest(trip); err == nil && (text != "fine" || failed != nil) {
				err = fmt.Errorf("%q, %w", text, failed)
			}
			done <- err
		}()
		await(t, "an interim answer", stuck)
		asked := make(chan bool)
		go func() {
			defer close(asked)
			ask(t, new(backend.Trip), s.Group)
		}()
		await(t, "another call", asked)
		close(freed)
		if err := await(t, "the call", done); err != nil {
			t.Error(err)
		}
	})
}

// TestBreakInInterim: a call that is broken off while an interim answer is passed on ends after that, and Close waits for it.
func TestBreakInInterim(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, firstThen(hinting))
		trip := newTrip(s.Group, "GET", nil)
		calls := 0
		trip.Interim = func(*http1.Response) error {
			calls++
			trip.Break()
			return nil
		}
		err := send(trip)
		if err == nil { // the answer may have come with the interim one
			_, err = rest(trip)
		}
		if err != nil && err != backend.ErrBroken || calls == 0 {
			t.Errorf("got %v after %d", err, calls)
		}
		trip.Close()
		trip.Interim = nil
		ask(t, trip, s.Group)
	})
}

// TestSaysGoOn: a server that says go on to a request that did not ask whether it may is answered with the body all the same.
func TestSaysGoOn(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, func(w http.ResponseWriter, r *http.Request) {
			fullDuplex(w)
			w.WriteHeader(http.StatusContinue)
			isFine(w, r)
		})
		trip := new(backend.Trip)
		for _, length := range []int64{4, http1.InChunks} {
			prepare(trip, s.Group, "POST", strings.NewReader("body"))
			trip.Length = length
			trip.Interim = func(res *http1.Response) error { return fmt.Errorf("passed on %d", res.Status) }
			if err := send(trip); err != nil {
				t.Fatal(err)
			}
			if text, err := rest(trip); text != "fine" || err != nil {
				t.Errorf("%q, %v", text, err)
			}
			trip.Close()
		}
	})
}

// TestUpgrade: a call that asks for another protocol gets a connection of its own, which carries nothing else afterwards,
// whatever was answered.
func TestUpgrade(t *testing.T) {
	for _, c := range []struct {
		name, text string
		status     int
		body       string
		bad        bool
	}{
		{"the protocol", toX, 101, "", false},
		{"another one", strings.Replace(toX, "Upgrade: x", "Upgrade: y", 1), 0, "", true},
		{"none", "HTTP/1.1 101 x\r\n\r\n", 0, "", true},
		{"no", fine, 200, "fine", false},
		{"no, in chunks", chunked + "\r\n4\r\nfine\r\n0\r\n\r\n", 200, "fine", false},
		{"no, without a body", "HTTP/1.1 426 x\r\nContent-Length: 0\r\n\r\n", 426, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			heads := make(chan http.Header, 1)
			s := speak(t, func(n int64, conn net.Conn, in *bufio.Reader) {
				if n != 2 {
					answers(fine)(n, conn, in)
					return
				}
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				heads <- r.Header
				_, _ = io.WriteString(conn, c.text)
				if c.status == 101 {
					_, _ = io.Copy(conn, in)
					return
				}
				answers(fine)(n, conn, in)
			})
			trip := new(backend.Trip)
			ask(t, trip, s.Group)
			prepare(trip, s.Group, "GET", nil)
			trip.Upgrade = "x"
			err := send(trip)
			if errors.Is(err, backend.ErrBadAnswer) != c.bad || (err != nil) != c.bad {
				t.Fatalf("got %v", err)
			}
			if h := await(t, "a request", heads); h.Get("Upgrade") != "x" || h.Get("Connection") != "Upgrade" {
				t.Errorf("the head is %v", h)
			}
			switch {
			case c.bad:
			case trip.Response.Status != c.status:
				t.Errorf("the status is %d", trip.Response.Status)
			case c.status == 101:
				tunnel := trip.Tunnel()
				if err := tunnel.Send([]byte("echo")); err != nil {
					t.Error(err)
				}
				_ = tunnel.CloseWrite()
				until(t, "an echo", func() bool {
					n, _ := tunnel.Read(tunnel.In.Room()) // a deadline is left from the wait for the head
					tunnel.In.Filled(n)
					return string(tunnel.In.Bytes()) == "echo"
				})
			default:
				if text, err := rest(trip); text != c.body || err != nil {
					t.Errorf("%q, %v", text, err)
				}
			}
			trip.Close()
			until(t, "the connection has ended", func() bool { return s.open() == 1 })
			ask(t, trip, s.Group)
			if s.conns.Load() != 2 {
				t.Errorf("%d connections", s.conns.Load())
			}
		})
	}
}
