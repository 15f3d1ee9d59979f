package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/certstore"
)

// A visitor is who opens streams, where, and with what. Two of them are alike except for what one loses.
type visitor struct {
	who  *party
	api  certstore.API
	raw  string // token; "": none
	path string // below the API; "": /events
}

func (c visitor) target() string { return "/" + c.api.Name + "/1.0" + c.path + "/events" }

// A stream is a call without an end that nobody knows.
type stream struct {
	says  func(text string) error // passes text through the stream, a new one each time
	ended func() error            // waits for its end at the client; nil if it looks whole
	gone  <-chan struct{}         // closed when it has ended at the backend
}

// An endpoint is a stream's end at the backend.
type endpoint struct {
	texts chan string
	gone  chan struct{}
}

// endpoints are those of the streams by their number, which is the query of the call.
type endpoints struct {
	mu  sync.Mutex
	all map[string]*endpoint
}

func (e *endpoints) open() (query string, one *endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	query, one = fmt.Sprint(len(e.all)), &endpoint{make(chan string), make(chan struct{})}
	e.all[query] = one
	return query, one
}

// ServeHTTP serves event streams, echoes of uploads, and WebSockets.
func (e *endpoints) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	one := e.all[r.URL.RawQuery]
	e.mu.Unlock()
	defer close(one.gone)
	if r.Header.Get("Upgrade") != "" {
		echoWebSocket(make(chan error, 1))(w, r)
		return
	}
	out := http.NewResponseController(w)
	if r.Method == "POST" {
		_ = out.EnableFullDuplex() // HTTP/2 always is
		w.Header().Set("Content-Type", "application/grpc")
		w.WriteHeader(200)
		_ = out.Flush()
		for {
			text, err := readMessage(r.Body)
			if err != nil {
				return
			}
			_ = writeMessage(w, text)
			_ = out.Flush()
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(200)
	_ = out.Flush()
	for {
		select {
		case text := <-one.texts:
			fmt.Fprintln(w, text)
			_ = out.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// ends waits for the end of the stream at both sides.
func (s stream) ends(t *testing.T, name string) {
	t.Helper()
	if s.ended() == nil {
		t.Errorf("%s ended as if it were whole", name)
	}
	select {
	case <-s.gone:
	case <-time.After(patience):
		t.Fatalf("%s goes on", name)
	}
}

var errGone = errors.New("the stream has ended at the backend")

// events is a stream of events, whose body is that.
func (one *endpoint) events(body io.Reader) stream {
	r := bufio.NewReader(body)
	return stream{
		says: func(text string) error {
			select {
			case one.texts <- text:
			case <-one.gone:
				return errGone
			}
			return same(text)(r.ReadString('\n'))
		},
		ended: func() error { _, err := io.Copy(io.Discard, r); return err },
		gone:  one.gone,
	}
}

// same compares with what was received.
func same(text string) func(string, error) error {
	return func(got string, err error) error {
		if got = strings.TrimSuffix(got, "\n"); err == nil && !strings.EqualFold(got, text) {
			err = fmt.Errorf("%q came for %q", got, text)
		}
		return err
	}
}

// carriers open streams of each kind.
var carriers = map[string]func(*testing.T, *fixture, *endpoints, visitor) stream{
	"events by a goroutine": func(t *testing.T, f *fixture, e *endpoints, c visitor) stream { return rawEvents(t, f, e, c, 0) },
	"events by a loop":      func(t *testing.T, f *fixture, e *endpoints, c visitor) stream { return rawEvents(t, f, e, c, 2) },
	"events over HTTP/2": func(t *testing.T, f *fixture, e *endpoints, c visitor) stream {
		query, one := e.open()
		return one.events(http2Stream(t, f, c, "GET", query, nil))
	},
	"gRPC": func(t *testing.T, f *fixture, e *endpoints, c visitor) stream {
		query, one := e.open()
		reader, writer := io.Pipe()
		t.Cleanup(func() { writer.Close() })
		body := http2Stream(t, f, c, "POST", query, reader)
		return stream{
			says: func(text string) error {
				if err := writeMessage(writer, text); err != nil {
					return err
				}
				return same(text)(readMessage(body))
			},
			ended: func() error { _, err := io.Copy(io.Discard, body); return err },
			gone:  one.gone,
		}
	},
	"WebSocket": func(t *testing.T, f *fixture, e *endpoints, c visitor) stream {
		query, one := e.open()
		conn := f.dial(t, c.who, "opt.test")
		if res := conn.upgrade(t, c.target()+"?"+query, "opt.test", webSocketHead+c.authorization()); res.StatusCode != 101 {
			t.Fatalf("WebSocket: status %d", res.StatusCode)
		}
		return stream{
			says: func(text string) error {
				if err := writeFrame(conn, text, true); err != nil {
					return err
				}
				return same(text)(readFrame(conn.reader))
			},
			ended: func() error { _, err := io.Copy(io.Discard, conn.reader); return errors.Join(err, errGone) },
			gone:  one.gone,
		}
	},
}

func (c visitor) authorization() string {
	if c.raw == "" {
		return ""
	}
	return "Authorization: Bearer " + c.raw + "\n"
}

// rawEvents opens a stream of events over HTTP/1.1, after some other calls on the connection.
func rawEvents(t *testing.T, f *fixture, e *endpoints, c visitor, before int) stream {
	query, one := e.open()
	conn := f.dial(t, c.who, "opt.test")
	for range before {
		conn.get(t, "/none", "opt.test")
	}
	conn.send(t, "GET "+c.target()+"?"+query+" HTTP/1.1\nHost: opt.test\n"+c.authorization()+"\n")
	res, err := http.ReadResponse(conn.reader, &http.Request{Method: "GET"})
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("events: %+v, %v", res, err)
	}
	return one.events(res.Body)
}

// http2Stream opens a stream over HTTP/2 and returns its answer's body.
func http2Stream(t *testing.T, f *fixture, c visitor, method, query string, body io.Reader) io.Reader {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, "https://opt.test"+c.target()+"?"+query, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/grpc")
	}
	if c.raw != "" {
		bearer(c.raw)(r)
	}
	res, err := f.client(t, c.who, via{http2: true}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Fatalf("%s: %+v", method, res)
	}
	return res.Body
}
