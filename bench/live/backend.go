package live

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Backend is the server behind the gateway. It answers NAME/call with the name, NAME/events with an event stream and
// NAME/socket with a WebSocket, and counts what reaches it for each name.
type Backend struct {
	Beat time.Duration // between a stream's messages; 0: 500 ms

	names    sync.Map   // string to *Traffic
	mu       sync.Mutex // guards ended, and adding to handlers
	ended    bool
	handlers sync.WaitGroup
}

// Traffic is what has reached the backend for a name.
type Traffic struct {
	Calls atomic.Int64
	Last  atomic.Int64 // when the last call or message arrived, in Unix nanoseconds
	Open  atomic.Int64 // streams
}

func (t *Traffic) arrived() {
	t.Calls.Add(1)
	t.Last.Store(time.Now().UnixNano())
}

// Of returns what has reached the backend for a name.
func (b *Backend) Of(name string) *Traffic {
	t, known := b.names.Load(name)
	if !known {
		t, _ = b.names.LoadOrStore(name, new(Traffic))
	}
	return t.(*Traffic)
}

// Calls returns how many calls and messages have reached the backend.
func (b *Backend) Calls() (n int64) {
	b.names.Range(func(_, t any) bool {
		n += t.(*Traffic).Calls.Load()
		return true
	})
	return n
}

// Run serves until ctx ends, closes all connections, and returns nil.
func (b *Backend) Run(ctx context.Context, listener net.Listener) error {
	setDefault(&b.Beat, 500*time.Millisecond)
	server := &http.Server{
		Handler:           b,
		ReadHeaderTimeout: time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	defer b.end()
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("backend: %w", err)
	}
	return nil
}

// end waits for all handlers. No other begins.
func (b *Backend) end() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.handlers.Wait()
}

func (b *Backend) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.handlers.Add(1)
	}
	return !b.ended
}

// ServeHTTP answers one call.
func (b *Backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !b.begin() {
		return
	}
	defer b.handlers.Done()
	folder, last := path.Split(r.URL.Path)
	name := path.Base(folder)
	t := b.Of(name)
	t.arrived()
	switch last {
	case "call":
		io.WriteString(w, name)
	case "events":
		t.Open.Add(1)
		defer t.Open.Add(-1)
		b.events(w, r)
	case "socket":
		t.Open.Add(1)
		defer t.Open.Add(-1)
		b.socket(w, r, t)
	default:
		http.NotFound(w, r)
	}
}

// events sends numbers until the caller or the server goes.
func (b *Backend) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	beat := time.NewTicker(b.Beat)
	defer beat.Stop()
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", n); err != nil {
			return
		}
		if control.Flush() != nil {
			return
		}
		select {
		case <-beat.C:
		case <-r.Context().Done():
			return
		}
	}
}

// socket sends numbers until the caller or the server goes, and counts the answers.
func (b *Backend) socket(w http.ResponseWriter, r *http.Request, t *Traffic) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "this is for WebSockets", http.StatusBadRequest)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(r.Context(), func() { conn.Close() })()
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", acceptKey(r.Header.Get("Sec-WebSocket-Key"))); err != nil {
		return
	}
	ended := make(chan struct{})
	defer func() { <-ended }()
	defer conn.Close()
	go func() { // the deferred function waits for it
		defer close(ended)
		takeAnswers(buffered.Reader, t)
	}()
	beat := time.NewTicker(b.Beat)
	defer beat.Stop()
	for n := 1; ; n++ {
		if writeFrame(conn, fmt.Sprint(n), false) != nil {
			return
		}
		select {
		case <-beat.C:
		case <-ended:
			return
		}
	}
}

func takeAnswers(r *bufio.Reader, t *Traffic) {
	for {
		if _, err := readFrame(r); err != nil {
			return
		}
		t.arrived()
	}
}
