package backend_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"sallyport/gateway/backend"
)

// TestRepeats: a call that can do no harm twice goes out again if the connection, which was used before, has ended without
// a word. No other does.
func TestRepeats(t *testing.T) {
	for _, c := range []struct {
		method, body, last string // what the connection says last
		again              bool
	}{
		{"GET", "", "", true},
		{"HEAD", "", "", true},
		{"OPTIONS", "", "", true},
		{"TRACE", "", "", true},
		{"GET", "", "HTTP/1.1 200", false},
		{"GET", "", hints, false},
		{"GET", "", goOn, false},
		{"GET", "body", "", true},
		{"PUT", "", "", true},
		{"PUT", "body", "", true},
		{"PUT", long[:60<<10], "", true},
		{"PUT", long, "", false},
		{"PUT", "body", "HTTP/1.1 200", false},
		{"DELETE", "", "", true},
		{"DELETE", "body", "", true},
		{"POST", "", "", false},
		{"POST", "body", "", false},
		{"PATCH", "body", "", false},
	} {
		t.Run(fmt.Sprint(c.method, len(c.body), c.last), func(t *testing.T) {
			t.Parallel()
			s := speak(t, func(n int64, conn net.Conn, in *bufio.Reader) {
				if n > 1 {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if got, err := io.ReadAll(r.Body); r.Header.Get("X-Ask") == "" && string(got) != c.body || err != nil {
						t.Errorf("the second time %d bytes, %v", len(got), err)
					}
					_, _ = io.WriteString(conn, fine)
					answers(fine)(n, conn, in)
					return
				}
				for i := range 2 {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(conn, []string{fine, c.last}[i])
				}
			})
			repeats(t, s, c.method, c.body, c.again)
		})
	}
}

// TestRepeatsHTTP2: the same over HTTP/2.
func TestRepeatsHTTP2(t *testing.T) {
	for _, c := range []struct {
		method, body string
		interim      bool
		reset        bool
		again        bool
	}{
		{"GET", "", false, false, true},
		{"HEAD", "", false, false, true},
		{"OPTIONS", "", false, false, true},
		{"GET", "", true, false, false},
		{"GET", "", false, true, false},
		{"GET", "body", false, false, true},
		{"PUT", "body", false, false, true},
		{"PUT", "body", true, false, false},
		{"PUT", "body", false, true, false},
		{"DELETE", "", false, false, true},
		{"POST", "", false, false, false},
		{"POST", "body", false, false, false},
		{"PATCH", "body", false, false, false},
	} {
		t.Run(c.method+" "+c.body, func(t *testing.T) {
			t.Parallel()
			s := speakHTTP2(t, func(f *frames, call int64) bool {
				if f.conn > 1 && call == 1 && c.method == "HEAD" {
					f.head(true, ":status", "200")
					return true
				}
				if f.conn > 1 || call == 1 {
					f.answer("200", "fine")
					return true
				}
				if c.interim {
					f.head(false, ":status", "103")
				}
				if c.reset {
					f.reset()
				}
				if c.body != "" && (c.interim || c.reset) {
					f.readBody() // or closing would take back what was said
				}
				return false
			})
			repeats(t, s, c.method, c.body, c.again)
		})
	}
}

// long is more than what is kept to be sent again.
var long = strings.Repeat("x", 65<<10)

// TestRepeatsWhatIsThere: a call is not sent again while its body waits for the client. Over HTTP/2 the connection may end
// at a moment when it doesn't; then the call is sent again, with what had come of the body and all that follows.
func TestRepeatsWhatIsThere(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		var asked atomic.Int64
		cut, again, bodies := make(chan net.Conn, 8), make(chan bool, 8), make(chan string, 8)
		s := serve(t, p, firstThen(func(_ http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 1 {
				_, _ = io.ReadFull(r.Body, make([]byte, 4))
				(<-cut).Close()
				return
			}
			again <- true
			text, _ := io.ReadAll(r.Body)
			bodies <- string(text)
		}), func(c net.Conn) { cut <- c })
		trip := new(backend.Trip)
		ask(t, trip, s.Group)
		from, client := io.Pipe()
		prepare(trip, s.Group, "PUT", from)
		go func() { _, _ = io.WriteString(client, "body") }() // and no end
		sent := make(chan error, 1)
		go func() { sent <- send(trip) }()
		select {
		case err := <-sent:
			if err == nil || asked.Load() != 1 {
				t.Errorf("it came %d times, %v", asked.Load(), err)
			}
		case <-again:
			if p == backend.HTTP1 {
				t.Error("it came again")
			}
			_, _ = io.WriteString(client, ", and more")
			client.Close()
			if err, text := <-sent, <-bodies; err != nil || text != "body, and more" {
				t.Errorf("it came again with %q, %v", text, err)
			}
		}
		trip.Close()
		client.Close()
	})
}

// TestRepeatsElsewhere: a call that is to be sent again, and whose server can't be reached any more, goes to the next
// one, as that server's own and whole, and on a new connection. So does one that a loop has begun.
func TestRepeatsElsewhere(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) { repeatsElsewhere(t, p, send) })
	t.Run("loop", func(t *testing.T) {
		repeatsElsewhere(t, backend.HTTP1, func(trip *backend.Trip) error {
			trip.Begin()
			c := trip.Turn().Take()
			trip.Use(c)
			request, err := trip.AppendRequest(nil)
			if err != nil {
				return err
			}
			trip.Keep(request)
			return trip.Resume(nil, c.Send(request))
		})
	})
}

func repeatsElsewhere(t *testing.T, p backend.Protocol, send func(*backend.Trip) error) {
	cut := make(chan net.Conn, 8)
	var first, second *server
	first = serve(t, p, firstThen(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		first.refuse()
		(<-cut).Close()
	}), func(c net.Conn) { cut <- c })
	second = serve(t, p, firstThen(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if string(text) != "body" || err != nil || r.Host != second.url.Host {
			t.Errorf("the next one got %q for %s, %v", text, r.Host, err)
		}
		_, _ = io.WriteString(w, "fine")
	}))
	g := first.groupOf(backend.Upstream{URLs: []*url.URL{first.url, second.url}, Protocol: p, Timeout: patience})
	trip := new(backend.Trip)
	ask(t, trip, g)
	ask(t, trip, g)
	prepare(trip, g, "PUT", strings.NewReader("body"))
	err := send(trip)
	asked := trip.Server.Name
	trip.Close()
	if err != nil || asked != "http://"+second.url.Host {
		t.Errorf("%s, %v", asked, err)
	}
	if n := second.conns.Load(); p == backend.HTTP1 && n != 2 {
		t.Errorf("the next one has %d connections", n)
	}
}

// TestRefused: a call that a server of HTTP/2 says it has not begun goes out once more, if its method allows it, and no
// third time.
func TestRefused(t *testing.T) {
	for _, goAway := range []bool{false, true} {
		for _, c := range []struct {
			method, body string
			refusals     int64
			sent         int64
			fine         bool
		}{
			{"GET", "", 1, 2, true},
			{"DELETE", "", 1, 2, true},
			{"PUT", "body", 1, 2, true},
			{"GET", "", 9, 2, false},
			{"PUT", "body", 9, 2, false},
			{"POST", "", 9, 1, false},
			{"POST", "body", 9, 1, false},
		} {
			t.Run(fmt.Sprint(goAway, c), func(t *testing.T) {
				t.Parallel()
				var calls atomic.Int64
				s := speakHTTP2(t, func(f *frames, _ int64) bool {
					switch n := calls.Add(1); {
					case n == 1 || n > 1+c.refusals:
						f.answer("200", "fine")
					case goAway:
						_ = f.WriteGoAway(f.stream-2, http2.ErrCodeNo, nil)
						return false
					default:
						_ = f.WriteRSTStream(f.stream, http2.ErrCodeRefusedStream)
					}
					return true
				})
				trip := new(backend.Trip)
				ask(t, trip, s.Group)
				var from io.Reader
				if c.body != "" {
					from = strings.NewReader(c.body)
				}
				prepare(trip, s.Group, c.method, from)
				err := send(trip)
				trip.Close()
				if n := calls.Load() - 1; n != c.sent || (err == nil) != c.fine {
					t.Errorf("sent %d times, %v", n, err)
				}
			})
		}
	}
}

func repeats(t *testing.T, s *server, method, text string, again bool) {
	trip := new(backend.Trip)
	ask(t, trip, s.Group)
	var from io.Reader
	if text != "" {
		from = strings.NewReader(text)
	}
	prepare(trip, s.Group, method, from)
	err := send(trip)
	trip.Close()
	if (err == nil) != again || (s.conns.Load() == 2) != again {
		t.Errorf("%d connections, %v", s.conns.Load(), err)
	}
	for _, other := range []error{backend.ErrBadAnswer, backend.ErrLate, backend.ErrBroken, backend.ErrBadBody} {
		if errors.Is(err, other) {
			t.Errorf("got %v", err)
		}
	}
	ask(t, trip, s.Group)
}

// TestOnce: a call is not repeated on connections that are new.
func TestOnce(t *testing.T) {
	t.Run("HTTP/1.1", func(t *testing.T) {
		s := speak(t, func(_ int64, _ net.Conn, in *bufio.Reader) { _, _ = http.ReadRequest(in) })
		once(t, s)
	})
	t.Run("h2c", func(t *testing.T) {
		once(t, speakHTTP2(t, func(*frames, int64) bool { return false }))
	})
}

func once(t *testing.T, s *server) {
	trip := newTrip(s.Group, "GET", nil)
	defer trip.Close()
	if err := send(trip); err == nil || s.conns.Load() != 1 {
		t.Errorf("%d connections, %v", s.conns.Load(), err)
	}
}

// TestNotReached: another server is asked if one was not reached, and none if one was. Then the body can still be sent.
func TestNotReached(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closed := &url.URL{Scheme: "http", Host: l.Addr().String()}
		l.Close()
		s := serve(t, p, isFine)
		plain := &url.URL{Scheme: "https", Host: s.url.Host} // it speaks no TLS
		for _, c := range []struct {
			name  string
			list  []*url.URL
			asked []*url.URL // perhaps, whoever's turn it is
			dial  bool       // the error is that of a dial
		}{
			{"nobody", []*url.URL{closed, closed}, []*url.URL{closed}, true},
			{"the next one", []*url.URL{closed, s.url}, []*url.URL{s.url}, false},
			{"the one after the last", []*url.URL{s.url, closed, closed}, []*url.URL{s.url}, false},
			{"no further after a handshake", []*url.URL{plain, plain}, []*url.URL{plain}, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				trip := new(backend.Trip)
				g := s.groupOf(backend.Upstream{URLs: c.list, Protocol: p, Timeout: patience})
				for range 2 * len(c.list) { // each has its turn
					conns := s.conns.Load()
					prepare(trip, g, "POST", strings.NewReader("body"))
					err := send(trip)
					if err == nil {
						_, err = rest(trip)
					}
					var op *net.OpError
					asked := slices.ContainsFunc(c.asked, func(u *url.URL) bool { return trip.Server.Name == u.Scheme+"://"+u.Host })
					if dial := errors.As(err, &op) && op.Op == "dial"; !asked || dial != c.dial || (err == nil) != slices.Contains(c.asked, s.url) {
						t.Errorf("%s, %v", trip.Server.Name, err)
					}
					if c.asked[0] == plain && s.conns.Load() != conns+1 {
						t.Errorf("%d connections", s.conns.Load()-conns)
					}
					if n := trip.Close(); err == nil && n != 4 {
						t.Errorf("%d bytes of the body", n)
					}
				}
			})
		}
	})
}
