package backend_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
	"sallyport/internal/contain"
)

// A flawedBody gives some bytes, and then an error, or panics if that is nil.
type flawedBody struct {
	io.Reader
	err error
}

func (f *flawedBody) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF {
		if f.err == nil {
			panic("a flaw")
		}
		err = f.err
	}
	return n, err
}

// panicOf is what a function panics with.
func panicOf(do func()) (fault any) {
	defer func() { fault = recover() }()
	do()
	return nil
}

// TestBadBody: a body that cannot be had whole is never taken for one that was, the caller learns why, and the Trip can be
// used again.
func TestBadBody(t *testing.T) {
	flaw := errors.New("a flaw")
	for _, c := range []struct {
		name   string
		length int64
		err    error
	}{
		{"chunks", http1.InChunks, flaw},
		{"length", 9, flaw},
		{"less than the length", 9, io.EOF},
		{"more than the length", 3, io.EOF},
		{"a panic", http1.InChunks, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, p backend.Protocol) {
				broken := make(chan bool, 1)
				s := serve(t, p, firstThen(func(w http.ResponseWriter, r *http.Request) {
					_, err := io.Copy(io.Discard, r.Body)
					broken <- err != nil
				}))
				trip := newTrip(s.Group, "POST", &flawedBody{Reader: strings.NewReader("abcd"), err: c.err})
				trip.Length = c.length
				var err error
				panicked := panicOf(func() { err = send(trip) })
				switch fault, _ := panicked.(*contain.Fault); {
				case c.err == nil:
					if fault == nil || fault.Value != "a flaw" && fault.Value != flaw || !strings.Contains(string(fault.Stack), "flawedBody") {
						t.Errorf("panicked with %v", panicked)
					}
				case panicked != nil:
					t.Errorf("panicked with %v", panicked)
				case c.err == flaw && !errors.Is(err, flaw), c.err == io.EOF && !errors.Is(err, backend.ErrBadBody):
					t.Errorf("got %v", err)
				}
				if !await(t, "the end of the request", broken) {
					t.Error("the backend took the request for whole")
				}
				trip.Close()
				ask(t, trip, s.Group)
			})
		})
	}
}

// TestBadBodyAtOnce: the same for a body that is there with the head.
func TestBadBodyAtOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		flaw := errors.New("a flaw")
		s := serve(t, p, isFine)
		trip := new(backend.Trip)
		for _, b := range []struct {
			from   io.Reader
			length int64
			max    int64
			err    error
		}{
			{&flawedBody{strings.NewReader("abcd"), flaw}, 9, 0, flaw},
			{&flawedBody{strings.NewReader("abcd"), flaw}, http1.InChunks, 0, flaw},
			{strings.NewReader("abcd"), 5, 0, backend.ErrBadBody},
			{strings.NewReader("abcd"), 3, 0, backend.ErrBadBody},
			{strings.NewReader("abcd"), 4, 3, backend.ErrTooLarge},
			{strings.NewReader("abcd"), http1.InChunks, 3, backend.ErrTooLarge},
		} {
			for _, atOnce := range []bool{true, false} {
				prepare(trip, s.Group, "POST", b.from)
				trip.Body.(*body).atOnce = atOnce
				trip.Length, trip.MaxBody = b.length, b.max
				if err := send(trip); !errors.Is(err, b.err) {
					t.Errorf("atOnce=%v: got %v, want %v", atOnce, err, b.err)
				}
				trip.Close()
				ask(t, trip, s.Group)
				switch from := b.from.(type) {
				case *strings.Reader:
					_, _ = from.Seek(0, io.SeekStart)
				case *flawedBody:
					_, _ = from.Reader.(*strings.Reader).Seek(0, io.SeekStart)
				}
			}
		}
	})
}

// TestBodyFailsInAnswer: the body fails after the head of the answer has come.
func TestBodyFailsInAnswer(t *testing.T) {
	flaw := errors.New("a flaw")
	for name, closes := range map[string]error{"an error": flaw, "a panic": nil} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, p backend.Protocol) {
				s := serve(t, p, firstThen(func(w http.ResponseWriter, r *http.Request) {
					fullDuplex(w)
					_, _ = io.WriteString(w, "abc")
					flush(w)
					if _, err := io.Copy(io.Discard, r.Body); err == nil {
						t.Error("the backend took the request for whole")
					}
				}))
				from, client := io.Pipe()
				trip := newTrip(s.Group, "POST", &flawedBody{from, closes})
				if err := send(trip); err != nil {
					t.Fatal(err)
				}
				atLeast(t, trip, 3)
				client.Close()
				var err error
				panicked := panicOf(func() { _, err = rest(trip) })
				if closes != nil && (err != flaw || panicked != nil) || closes == nil && panicked == nil {
					t.Errorf("got %v, panicked with %v", err, panicked)
				}
				trip.Close()
				ask(t, trip, s.Group)
			})
		})
	}
}

// TestTrailersPanic: a panic in the trailers of a body ends the call, and not the process.
func TestTrailersPanic(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, isFine)
		trip := newTrip(s.Group, "POST", strings.NewReader("abc"))
		trip.Body.(*body).trailers = func() []http1.Field { panic("a flaw") }
		if fault := panicOf(func() { _ = send(trip) }); fault == nil {
			t.Error("it did not panic")
		}
		trip.Close()
		ask(t, trip, s.Group)
	})
}

// TestEarlyAnswer: an answer may come, and end, before the request's body has ended. The time for it has not begun by then.
func TestEarlyAnswer(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, firstThen(func(w http.ResponseWriter, _ *http.Request) {
			fullDuplex(w)
			w.Header().Set("Content-Length", "4")
			_, _ = io.WriteString(w, "fine")
		}))
		from, client := io.Pipe()
		trip := newTrip(s.with(time.Nanosecond), "POST", from)
		if err := send(trip); err != nil {
			t.Fatal(err)
		}
		if text, err := rest(trip); text != "fine" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		if trip.BodySent() {
			t.Error("nobody waits for the rest of the body")
		}
		client.Close() // whose bytes nobody wants any more
		trip.Close()
		ask(t, trip, s.Group)
		if p == backend.HTTP1 && s.conns.Load() != 2 {
			t.Error("a connection was used again on which half a request stands")
		}
	})
}

// TestBothWays: both bodies flow at a time, and the end of the request does not bound the time for the answer's body. Then
// the connection is as good as new.
func TestBothWays(t *testing.T) {
	overBoth(t, func(t *testing.T, p backend.Protocol) {
		s := serve(t, p, firstThen(func(w http.ResponseWriter, r *http.Request) {
			fullDuplex(w)
			w.Header().Set("Content-Length", "8")
			flush(w)
			_, _ = io.CopyN(w, r.Body, 4)
			flush(w)
			if rest, err := io.ReadAll(r.Body); len(rest) > 0 || err != nil {
				t.Errorf("more came: %q, %v", rest, err)
			}
			_, _ = io.WriteString(w, "done")
		}))
		from, client := io.Pipe()
		trip := newTrip(s.with(time.Nanosecond), "POST", from)
		defer trip.Close()
		if err := send(trip); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(client, "echo"); err != nil {
			t.Fatal(err)
		}
		echoed := atLeast(t, trip, 4)
		if trip.Ready() {
			t.Error("more has come")
		}
		client.Close()
		if text, err := rest(trip); echoed+text != "echodone" || err != nil || !trip.BodySent() {
			t.Errorf("%q, %v", text, err)
		}
		ask(t, new(backend.Trip), s.Group)
	})
}

// closedAfterwards is a body as net/http's server leaves it: once it has ended, whoever reads on learns that it is closed.
type closedAfterwards struct {
	io.Reader
	closed bool
}

func (c *closedAfterwards) Read(p []byte) (int, error) {
	if c.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := c.Reader.Read(p)
	c.closed = errors.Is(err, io.EOF)
	return n, err
}

// TestBodyStaysEnded: the transport asks once more for the end of a body that it has sent. Anything but the end would
// break the backend's connection off, in the middle of the answer. Held: fault R21.
func TestBodyStaysEnded(t *testing.T) {
	for _, length := range []int64{9, http1.InChunks} {
		trip := newTrip(nil, "POST", &closedAfterwards{Reader: strings.NewReader("all of it")})
		trip.Length = length
		trip.Group = new(backend.Group)
		b := backend.StreamBody(trip)
		if got, err := io.ReadAll(b); string(got) != "all of it" || err != nil {
			t.Fatalf("read %q, %v", got, err)
		}
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after its end: %d bytes, %v", n, err)
		}
		b.Close()
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after it was closed: %d bytes, %v", n, err)
		}
	}
}
