package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A testBackend records what it gets, byte for byte, and answers with it.
type testBackend struct {
	*httptest.Server
	calls atomic.Int64
	conns atomic.Int64

	mu      sync.Mutex
	records []record
	paths   map[string]int
	special map[string]http.HandlerFunc // by path
}

// A record is a call as the backend got it. It is also what it answers, as JSON.
type record struct {
	Method string
	Target string // raw
	Host   string
	Header http.Header
	Body   string // its first KiB
	Bytes  int64  // of the body
	Conn   int64
	Raw    string `json:"-"` // the head, and as much of the body as came with it
}

func newBackend(t testing.TB) *testBackend {
	t.Helper()
	b := unstartedBackend()
	b.Start()
	t.Cleanup(b.Close)
	return b
}

func unstartedBackend() *testBackend {
	b := &testBackend{paths: map[string]int{}, special: map[string]http.HandlerFunc{}}
	b.Server = httptest.NewUnstartedServer(b)
	b.Listener = recordingListener{b.Listener}
	b.Config.ErrorLog = log.New(io.Discard, "", 0)
	b.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		tap, _ := c.(*tap) // not over TLS
		return context.WithValue(ctx, tapKey{}, &origin{b.conns.Add(1), tap})
	}
	return b
}

type tapKey struct{}

type origin struct {
	id  int64
	tap *tap
}

// handle gives a path an answer of its own; the call is recorded all the same, but its body is the handler's.
func (b *testBackend) handle(path string, h http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.special[path] = h
}

func (b *testBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.calls.Add(1)
	from := r.Context().Value(tapKey{}).(*origin)
	rec := record{Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header, Conn: from.id}
	if from.tap != nil {
		rec.Raw = from.tap.take()
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	b.mu.Lock()
	special := b.special[path]
	b.mu.Unlock()
	if special == nil {
		var body bytes.Buffer
		n, _ := io.CopyN(&body, r.Body, 1024)
		more, _ := io.Copy(io.Discard, r.Body)
		rec.Body, rec.Bytes = body.String(), n+more
	}
	b.mu.Lock()
	b.paths[path]++
	if b.records = append(b.records, rec); len(b.records) > 256 {
		b.records = b.records[128:]
	}
	b.mu.Unlock()
	if special != nil {
		special(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(rec)
}

// last is the latest call.
func (b *testBackend) last(t testing.TB) record {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.records) == 0 {
		t.Fatal("the backend was not called")
	}
	return b.records[len(b.records)-1]
}

func (b *testBackend) count(path string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.paths[path]
}

type recordingListener struct{ net.Listener }

func (l recordingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tap{Conn: c}, nil
}

// A tap keeps the first bytes of what is read since it was last taken.
type tap struct {
	net.Conn
	mu   sync.Mutex
	read bytes.Buffer
}

func (c *tap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read.Len() < 64<<10 {
		c.read.Write(p[:n])
	}
	return n, err
}

func (c *tap) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.read.String()
	c.read.Reset()
	return s
}
