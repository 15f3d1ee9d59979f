package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
)

// A body is the body of a client's request, a backend.Body. It is read from the client's window.
type body struct {
	call   *call
	done   bool
	expect bool  // the client waits for 100 before it sends it
	left   int64 // of one with a length
	chunks http1.Chunked
	pace   wire.Pace

	mu       sync.Mutex
	stopped  bool
	answered bool
}

func (b *body) begin(r *http1.Request) {
	terms := &b.call.client.engine.terms
	b.done, b.expect, b.left = r.Length == 0, r.Expect, r.Length
	b.stopped, b.answered = false, false
	b.pace.Begin(b.call.BodyRate(terms), terms.BodyGrace)
}

func (b *body) reset() {
	b.chunks.Reset()
	b.done = false
}

// take returns the next part that has come, nothing if there is none.
func (b *body) take() ([]byte, error) {
	in := &b.call.client.In
	for !b.done && len(in.Bytes()) > 0 {
		p := in.Bytes()
		if b.left >= 0 {
			p = p[:min(b.left, int64(len(p)))]
			in.Skip(len(p))
			b.left -= int64(len(p))
			b.done = b.left == 0
			return p, nil
		}
		data, n, done, err := b.chunks.Next(p)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", backend.ErrBadBody, err)
		}
		in.Skip(n)
		if b.done = done; len(data) > 0 {
			return data, nil
		}
	}
	return nil, nil
}

// Next implements backend.Body.
func (b *body) Next(wait bool) ([]byte, error) {
	for {
		data, err := b.take()
		b.pace.Passed(len(data))
		switch {
		case err == nil && b.done:
			return data, io.EOF
		case err != nil || len(data) > 0 || !wait:
			return data, err
		}
		if err := b.fill(); err != nil {
			return nil, err
		}
	}
}

// Trailers implements backend.Body.
func (b *body) Trailers() []http1.Field { return b.chunks.Trailer() }

const continues = "HTTP/1.1 100 Continue\r\n\r\n"

var errStopped = errors.New("nobody wants more of the body")

// fill waits for more of the body.
func (b *body) fill() error {
	c := b.call.client
	if b.expect { // RFC 9110 section 10.1.1: only a client that waits gets one
		b.expect = false
		if b.pace.Bytes() == 0 {
			if err := b.tell(); err != nil {
				return err
			}
		}
	}
	if b.left < 0 || b.left > wire.SmallSize {
		c.In.Enlarge()
	}
	began := time.Now()
	if !b.bound(began) {
		return errStopped
	}
	n, err := c.Read(c.In.Room())
	b.pace.Waited(time.Since(began))
	c.In.Filled(n)
	switch {
	case n > 0 || err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return backend.ErrTooSlow
	case err == io.EOF:
		return fmt.Errorf("%w: %w", backend.ErrBadBody, io.ErrUnexpectedEOF)
	}
	return backend.ErrClientGone
}

// bound bounds the next read, which begins now; false if there is to be none.
func (b *body) bound(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		_ = b.call.client.SetReadDeadline(b.pace.Due(now))
	}
	return !b.stopped
}

// Free implements backend.Body.
func (b *body) Free() {
	b.pace.Free()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		_ = b.call.client.SetReadDeadline(time.Time{})
	}
}

// tell sends 100 (Continue), unless the client has been answered.
func (b *body) tell() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped || b.answered {
		return nil
	}
	return b.call.client.sendSoon([]byte(continues))
}

// answer notes that the client is being answered.
func (b *body) answer() {
	b.mu.Lock()
	b.answered = true
	b.mu.Unlock()
}

// Stop implements backend.Body.
func (b *body) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	_ = b.call.client.SetReadDeadline(time.Now().Add(-time.Second))
}
