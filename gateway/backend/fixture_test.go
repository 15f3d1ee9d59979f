package backend_test

import (
	"bufio"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the longest that a test waits for a state.
const patience = 2 * time.Minute

// await returns what c yields.
func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
	}
	return v
}

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// both are the kinds of server that a Trip carries calls to.
var both = map[string]backend.Protocol{"HTTP/1.1": backend.HTTP1, "h2c": backend.H2C}

// overBoth runs a test over both kinds of server.
func overBoth(t *testing.T, test func(t *testing.T, p backend.Protocol)) {
	for name, p := range both {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// A server is a backend, and the group of it alone.
type server struct {
	*backend.Group
	registry *backend.Registry
	url      *url.URL
	conns    atomic.Int64 // accepted so far
	closed   atomic.Int64 // of those
	refuse   func()       // connections from now on
}

// open is how many connections are.
func (s *server) open() int64 { return s.conns.Load() - s.closed.Load() }

// groupOf makes the group of some URLs.
func (s *server) groupOf(u backend.Upstream) *backend.Group {
	return s.registry.Group("api", backend.Production, u)
}

// with is the group of the server, with another timeout.
func (s *server) with(timeout time.Duration) *backend.Group {
	u := s.Upstream
	u.Timeout = timeout
	return s.groupOf(u)
}

// serve starts a server of net/http that speaks the protocol in the clear. The functions get each new connection.
func serve(t *testing.T, p backend.Protocol, handler http.HandlerFunc, opened ...func(net.Conn)) *server {
	t.Helper()
	s := &server{registry: new(backend.Registry)}
	at := httptest.NewUnstartedServer(handler)
	at.Config.ErrorLog = log.New(io.Discard, "", 0)
	at.Config.Protocols = new(http.Protocols)
	at.Config.Protocols.SetHTTP1(p == backend.HTTP1)
	at.Config.Protocols.SetUnencryptedHTTP2(p == backend.H2C)
	at.Config.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			for _, do := range opened {
				do(c)
			}
			s.conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.closed.Add(1)
		}
	}
	at.Start()
	s.refuse = func() { at.Listener.Close() }
	s.url, _ = url.Parse(at.URL)
	s.Group = s.groupOf(backend.Upstream{URLs: []*url.URL{s.url}, Protocol: p, Timeout: patience})
	t.Cleanup(func() {
		s.registry.Close()
		at.CloseClientConnections()
		at.Close()
	})
	return s
}

// speak starts a backend of HTTP/1.1 whose connections say what a function says, and end when that returns. The function
// gets the number of the connection, from 1.
func speak(t *testing.T, say func(n int64, c net.Conn, in *bufio.Reader)) *server {
	t.Helper()
	return speakAs(t, backend.HTTP1, say)
}

func speakAs(t *testing.T, p backend.Protocol, say func(n int64, c net.Conn, in *bufio.Reader)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{registry: new(backend.Registry), url: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	s.Group = s.groupOf(backend.Upstream{URLs: []*url.URL{s.url}, Protocol: p, Timeout: patience})
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := s.conns.Add(1)
			ended.Go(func() {
				defer s.closed.Add(1)
				defer c.Close()
				end := time.Now().Add(patience)
				_ = c.SetDeadline(end)
				say(n, c, bufio.NewReader(c))
				if time.Now().After(end) {
					t.Error("the backend waited in vain")
				}
			})
		}
	})
	t.Cleanup(func() {
		s.registry.Close()
		l.Close()
		ended.Wait()
	})
	return s
}

// answers reads requests whole, and answers each with the next of those texts, the last one over and over.
func answers(texts ...string) func(int64, net.Conn, *bufio.Reader) {
	var mu sync.Mutex
	return func(_ int64, c net.Conn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			mu.Lock()
			text := texts[0]
			if len(texts) > 1 {
				texts = texts[1:]
			}
			mu.Unlock()
			if _, err := io.WriteString(c, text); err != nil || strings.Contains(text, "\r\nConnection: close\r\n") {
				return
			}
		}
	}
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

// isFine is a handler that reads the body and answers like fine.
func isFine(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		_, _ = io.WriteString(w, "fine")
	}
}

// firstThen handles what ask sends with isFine, and all else in a way of its own.
func firstThen(first http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Ask") != "" {
			isFine(w, r)
			return
		}
		first(w, r)
	}
}

// fullDuplex lets a handler answer before it has read the body.
func fullDuplex(w http.ResponseWriter) { _ = http.NewResponseController(w).EnableFullDuplex() }

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// A request is a backend.Request.
type request struct {
	method  string
	fields  string // header lines
	trailer []string
	barred  string       // a trailer field that no server may get
	streams atomic.Int64 // calls of Streams
	duplex  atomic.Int64 // of Duplex
	narrow  bool         // there is no room for streams
}

func (r *request) Method() string { return r.method }

func (r *request) AppendHead(b []byte, s *backend.Server) []byte {
	b = append(b, r.method...)
	b = append(b, " /x HTTP/1.1\r\nHost: "...)
	b = append(b, s.Authority...)
	b = append(b, "\r\n"...)
	return append(b, r.fields...)
}

func (r *request) Trailer() []string { return r.trailer }

func (r *request) MayTrail(name string) bool { return !strings.EqualFold(name, r.barred) }

func (r *request) Streams(*http1.Response) { r.streams.Add(1) }

func (r *request) Duplex() bool { r.duplex.Add(1); return !r.narrow }

// A body is a backend.Body over a reader. If that is closable, Stop closes it.
type body struct {
	io.Reader
	atOnce   bool // Next has something without waiting
	trailers func() []http1.Field
	stopped  atomic.Bool
	freed    atomic.Bool
	memory   [4 << 10]byte
}

var errStopped = errors.New("stopped")

func (b *body) Next(wait bool) ([]byte, error) {
	switch {
	case b.stopped.Load():
		return nil, errStopped
	case !wait && !b.atOnce:
		return nil, nil
	}
	n, err := b.Read(b.memory[:])
	return b.memory[:n], err
}

func (b *body) Trailers() []http1.Field {
	if b.trailers == nil {
		return nil
	}
	return b.trailers()
}

func (b *body) Free() { b.freed.Store(true) }

func (b *body) Stop() {
	b.stopped.Store(true)
	if c, ok := b.Reader.(io.Closer); ok {
		c.Close()
	}
}

// newTrip is a call to a group, perhaps with a body in chunks.
func newTrip(g *backend.Group, method string, from io.Reader) *backend.Trip {
	t := new(backend.Trip)
	prepare(t, g, method, from)
	return t
}

// prepare sets what a call needs, as a carrier does for each.
func prepare(t *backend.Trip, g *backend.Group, method string, from io.Reader) {
	t.Request, t.Group, t.Length = &request{method: method}, g, http1.Unstated
	if from != nil {
		t.Body, t.Length = &body{Reader: from}, http1.InChunks
	}
}

func send(t *backend.Trip) error {
	t.Begin()
	return t.Send()
}

// rest is what is left of the answer's body, and how it ends.
func rest(t *backend.Trip) (text string, err error) {
	for err == nil {
		var part []byte
		part, err = t.Next()
		text += string(part)
	}
	if err == io.EOF {
		err = nil
	}
	return text, err
}

// atLeast reads until there are n bytes of the answer's body.
func atLeast(t *testing.T, trip *backend.Trip, n int) (text string) {
	t.Helper()
	for len(text) < n {
		part, err := trip.Next()
		text += string(part)
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
	}
	return text
}

// ask makes a call with that Trip, which may have carried others, and expects the answer to be fine.
func ask(t *testing.T, trip *backend.Trip, g *backend.Group) {
	t.Helper()
	prepare(trip, g, "GET", nil)
	trip.Request.(*request).fields = "X-Ask: 1\r\n"
	defer trip.Close()
	if err := send(trip); err != nil {
		t.Fatal(err)
	}
	if text, err := rest(trip); text != "fine" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// values are the values of a field of the answer.
func values(t *backend.Trip, name string) []string { return t.Response.Values(name) }
