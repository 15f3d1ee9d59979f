package backend_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"sallyport/gateway/backend"
)

// mute is a handler that reads a request whole and answers nothing until its client has gone.
func mute(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// begins is a handler that answers a part, reports that, and ends with its client.
func begins(part string, reached chan<- bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fullDuplex(w)
		if part != "" {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, part)
			flush(w)
		}
		reached <- true
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		reached <- false
	}
}

// TestLate: the time for the answer is over, whether the request had a body or not.
func TestLate(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, firstThen(mute))
		trip := new(backend.Trip)
		for _, from := range []io.Reader{nil, strings.NewReader("body"), iotest.OneByteReader(strings.NewReader("body"))} {
			prepare(trip, s.with(20*time.Millisecond), "POST", from)
			if err := send(trip); !errors.Is(err, backend.ErrLate) {
				t.Errorf("got %v", err)
			}
			trip.Close()
			ask(t, trip, s.Group)
		}
	})
}

// TestLateDrop: a server that sends the head byte by byte is late, too.
func TestLateDrop(t *testing.T) {
	s := speak(t, func(_ int64, c net.Conn, in *bufio.Reader) {
		_, _ = http.ReadRequest(in)
		_, _ = io.WriteString(c, ok+"X: ")
		for _, err := c.Write([]byte("x")); err == nil; _, err = c.Write([]byte("x")) {
			time.Sleep(5 * time.Millisecond)
		}
	})
	trip := newTrip(s.with(50*time.Millisecond), "GET", nil)
	defer trip.Close()
	if err := send(trip); !errors.Is(err, backend.ErrLate) {
		t.Errorf("got %v", err)
	}
}

// TestTakesItsTime: the time for the head of an answer is not the time for its body, nor for the next answer.
func TestTakesItsTime(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		const timeout = 2 * time.Second
		var calls atomic.Int64
		s := serve(t, p, func(w http.ResponseWriter, _ *http.Request) {
			if calls.Add(1) == 1 {
				w.Header().Set("Content-Length", "4")
				flush(w)
			}
			time.Sleep(timeout + timeout/10) // until the time is over
			_, _ = io.WriteString(w, "fine")
		})
		trip := new(backend.Trip)
		for _, timeout := range []time.Duration{timeout, patience} {
			prepare(trip, s.with(timeout), "GET", nil)
			if err := send(trip); err != nil {
				t.Fatal(err)
			}
			if text, err := rest(trip); text != "fine" || err != nil {
				t.Errorf("%q, %v", text, err)
			}
			trip.Close()
		}
		if p == backend.HTTP1 && s.conns.Load() != 1 { // over HTTP/2 net/http may dial one that it then does not need
			t.Errorf("%d connections", s.conns.Load())
		}
	})
}

// TestEnds: whatever a Trip waits for, a client that has gone ends it, and so does Break, and the call at the server; then
// the Trip carries another call.
func TestEnds(t *testing.T) {
	for _, how := range []string{"gone", "break", "close"} {
		for _, part := range []string{"", "abc"} {
			for _, bodied := range []bool{false, true} {
				if how == "close" && part == "" {
					continue // nobody has the Trip
				}
				t.Run(fmt.Sprintf("%s,after=%q,body=%v", how, part, bodied), func(t *testing.T) {
					overBoth(t, func(t *testing.T, p backend.Protocol) {
						reached := make(chan bool, 2)
						s := serve(t, p, firstThen(begins(part, reached)))
						from, client := io.Pipe()
						defer client.Close()
						trip := newTrip(s.Group, "POST", nil)
						if bodied {
							trip = newTrip(s.Group, "POST", from)
						}
						var gone atomic.Bool
						trip.Gone = func() error {
							if gone.Load() {
								return backend.ErrClientGone
							}
							return nil
						}
						want := backend.ErrClientGone
						act := func() { gone.Store(true) }
						if how == "break" {
							want, act = backend.ErrBroken, trip.Break
						}
						if part == "" {
							acted := make(chan bool)
							go func() {
								defer close(acted)
								<-reached
								act()
							}()
							if err := send(trip); err != want {
								t.Errorf("got %v", err)
							}
							<-acted
						} else {
							if err := send(trip); err != nil {
								t.Fatal(err)
							}
							<-reached
							atLeast(t, trip, 3)
							if how != "close" {
								act()
								if _, err := trip.Next(); err != want {
									t.Errorf("got %v", err)
								}
								if _, err := trip.Next(); err != want {
									t.Errorf("then %v", err)
								}
							}
						}
						trip.Close()
						await(t, "the call has ended at the server", reached)
						trip.Gone = nil
						ask(t, trip, s.Group)
					})
				})
			}
		}
	}
}

// TestEndsInHead: the same in the middle of a head.
func TestEndsInHead(t *testing.T) {
	reached, ended := make(chan bool, 1), make(chan bool, 1)
	s := speak(t, func(_ int64, c net.Conn, in *bufio.Reader) {
		_, _ = http.ReadRequest(in)
		_, _ = io.WriteString(c, ok+"X")
		reached <- true
		_, _ = io.Copy(io.Discard, in)
		ended <- true
	})
	for _, want := range []error{backend.ErrBroken, backend.ErrClientGone} {
		trip := newTrip(s.Group, "GET", nil)
		var gone atomic.Bool
		trip.Gone = func() error {
			if gone.Load() {
				return want
			}
			return nil
		}
		acted := make(chan bool)
		go func() {
			defer close(acted)
			<-reached
			if gone.Store(want == backend.ErrClientGone); want == backend.ErrBroken {
				trip.Break()
			}
		}()
		if err := send(trip); err != want {
			t.Errorf("got %v", err)
		}
		<-acted
		trip.Close()
		await(t, "the connection has ended", ended)
	}
}

// TestEndsInHandshake: to wait for a connection is to wait for the server.
func TestEndsInHandshake(t *testing.T) {
	for name, p := range map[string]backend.Protocol{"HTTP/1.1": backend.HTTP1, "HTTP/2": backend.HTTP2} {
		for _, want := range []error{backend.ErrBroken, backend.ErrClientGone} {
			t.Run(fmt.Sprintf("%s,%v", name, want), func(t *testing.T) {
				t.Parallel()
				reached := make(chan bool, 1)
				s := speakAs(t, p, func(_ int64, c net.Conn, in *bufio.Reader) {
					_, _ = in.Peek(1)
					reached <- true
					_, _ = io.Copy(io.Discard, in)
				})
				s.url.Scheme = "https"
				g := s.groupOf(backend.Upstream{URLs: []*url.URL{s.url}, Protocol: p, Timeout: patience})
				trip := newTrip(g, "GET", nil)
				var gone atomic.Bool
				trip.Gone = func() error {
					if gone.Load() {
						return want
					}
					return nil
				}
				acted := make(chan bool)
				go func() {
					defer close(acted)
					<-reached
					if gone.Store(want == backend.ErrClientGone); want == backend.ErrBroken {
						trip.Break()
					}
				}()
				if err := send(trip); err != want {
					t.Errorf("got %v", err)
				}
				<-acted
				trip.Close()
				until(t, "the connection has ended", func() bool { return s.open() == 0 || p != backend.HTTP1 })
			})
		}
	}
}

// TestBrokenBefore: a call that was broken off before it was sent reaches no server, and is not made again.
func TestBrokenBefore(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, isFine)
		trip := newTrip(s.Group, "GET", nil)
		trip.Break()
		for range 2 {
			if err := send(trip); err != backend.ErrBroken || s.conns.Load() > 0 || !trip.Broken() {
				t.Errorf("got %v, %d connections", err, s.conns.Load())
			}
		}
		trip.Close()
		ask(t, trip, s.Group)
		prepare(trip, s.Group, "POST", strings.NewReader("body"))
		trip.Break()
		if err := send(trip); err != backend.ErrBroken || s.conns.Load() != 1 {
			t.Errorf("got %v, %d connections", err, s.conns.Load())
		}
		trip.Close()
		ask(t, trip, s.Group)
	})
}

// TestBreakOnUsed: a call that is broken off on a connection that was used before is not made again.
func TestBreakOnUsed(t *testing.T) {
	for _, says := range []string{"", ok + "X", ok + "Content-Length: 5\r\n\r\nabc"} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			reached := make(chan bool, 1)
			s := speak(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				_, _ = io.WriteString(conn, fine) // the connection is used once more
				_, _ = in.Peek(1)
				_, _ = io.WriteString(conn, says)
				reached <- true
				_, _ = io.Copy(io.Discard, in)
			})
			trip := new(backend.Trip)
			ask(t, trip, s.Group)
			prepare(trip, s.Group, "GET", nil)
			acted := make(chan bool)
			go func() {
				defer close(acted)
				<-reached
				trip.Break()
			}()
			err := send(trip)
			if err == nil {
				_, err = rest(trip)
			}
			if err != backend.ErrBroken || s.conns.Load() != 1 {
				t.Errorf("%v, %d connections", err, s.conns.Load())
			}
			<-acted
			if err := send(trip); err != backend.ErrBroken {
				t.Errorf("then %v", err)
			}
			trip.Close()
		})
	}
}

// TestBreakAnytime breaks calls off at any moment, and has the Trip carry others.
func TestBreakAnytime(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, isFine)
		trip := new(backend.Trip)
		for i := range 200 {
			var from io.Reader
			if i%2 == 0 {
				from = strings.NewReader(strings.Repeat("body", 10_000))
			}
			prepare(trip, s.Group, "POST", from)
			broken := make(chan bool)
			go func() {
				defer close(broken)
				time.Sleep(time.Duration(i) * 20 * time.Microsecond)
				trip.Break()
			}()
			err := send(trip)
			if err == nil {
				var text string
				if text, err = rest(trip); err == nil && text != "fine" {
					t.Errorf("%q", text)
				}
			}
			if err != nil && err != backend.ErrBroken {
				t.Errorf("got %v", err)
			}
			<-broken
			trip.Close()
			if i%10 == 0 {
				ask(t, trip, s.Group)
			}
		}
	})
}
