package wire

import (
	"errors"
	"net"
	"sync"
)

// A Wire is the connection below a TLS connection. It can send several records in one write, and can be read and
// written without waiting.
type Wire struct {
	net.Conn

	mu      sync.Mutex
	holding bool
	queuing bool // held bytes stay until taken
	held    []byte

	gather *gatherer // nil: writes go to the socket at once

	// The reader's own.
	bounded bool   // no more than bound bytes may be read
	bound   int    // what is left of it
	fed     []byte // read from the socket and not passed to TLS yet
	dry     bool   // the socket must not be read: beyond fed there is nothing yet
	drained bool   // TLS holds no complete record that it has not returned
	records records
}

// NewWire returns the Wire over a connection.
func NewWire(c net.Conn) *Wire { return &Wire{Conn: c} }

// ErrBound is a peer that has sent more than the bound.
var ErrBound = errors.New("more bytes than may come before the connection is established")

// Bound lets Read return at most n more bytes until Unbound is called. A peer that needs more gets ErrBound.
func (w *Wire) Bound(n int) { w.bounded, w.bound = true, n }

// Unbound ends Bound.
func (w *Wire) Unbound() { w.bounded = false }

// errDry means "nothing yet". crypto/tls treats it as temporary: the next Read continues where this one stopped.
type errDry struct{}

func (errDry) Error() string   { return "nothing to read yet" }
func (errDry) Timeout() bool   { return true }
func (errDry) Temporary() bool { return true }

// Read implements net.Conn.
func (w *Wire) Read(p []byte) (int, error) {
	if w.gather != nil {
		return w.gather.read(p)
	}
	if len(w.fed) > 0 {
		n := copy(p, w.fed)
		w.fed = w.fed[n:]
		w.records.pass(p[:n])
		return n, nil
	}
	if w.dry {
		return 0, errDry{}
	}
	if w.bounded {
		if w.bound <= 0 {
			return 0, ErrBound
		}
		p = p[:min(len(p), w.bound)]
	}
	n, err := w.Conn.Read(p)
	w.bound -= n
	w.records.pass(p[:n])
	return n, err
}

// records counts TLS records as their bytes pass (RFC 8446 section 5.1).
type records struct {
	whole  int // since it was set to 0
	header int // bytes seen of the current record's header
	left   int // bytes of the current record that have not passed
}

func (r *records) pass(p []byte) {
	for len(p) > 0 {
		if r.header < 5 {
			if r.header >= 3 { // the length
				r.left = r.left<<8 | int(p[0])
			}
			r.header++
			p = p[1:]
		} else {
			n := min(r.left, len(p))
			r.left -= n
			p = p[n:]
		}
		if r.header == 5 && r.left == 0 {
			r.whole++
			r.header = 0
		}
	}
}

// Write implements net.Conn. Between hold and release it keeps up to LargeSize bytes: more would outgrow the memory that
// the pools have, and half as much again is then spent on large answers.
func (w *Wire) Write(p []byte) (int, error) {
	if w.gather != nil {
		return w.gather.write(p)
	}
	w.mu.Lock()
	if w.queuing {
		w.held = append(w.held, p...)
		w.mu.Unlock()
		return len(p), nil
	}
	defer w.mu.Unlock()
	if !w.holding {
		return w.Conn.Write(p)
	}
	if w.held = append(w.held, p...); len(w.held) < LargeSize {
		return len(p), nil
	}
	_, err := w.Conn.Write(w.held)
	w.held = w.held[:0]
	return len(p), err
}

// hold makes Write gather in the memory.
func (w *Wire) hold(memory []byte) {
	w.mu.Lock()
	w.holding, w.held = true, memory[:0]
	w.mu.Unlock()
}

// release sends what hold has gathered, and returns the memory.
func (w *Wire) release() (memory []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	memory = w.held
	w.holding, w.held = false, nil
	if len(memory) > 0 {
		_, err = w.Conn.Write(memory)
	}
	return memory, err
}

// queue makes Write gather without bound until taken. The memory is used first.
func (w *Wire) queue(memory []byte) {
	w.mu.Lock()
	w.holding, w.queuing, w.held = true, true, memory[:0]
	w.mu.Unlock()
}

// taken ends queue and returns what was written since.
func (w *Wire) taken() []byte {
	w.mu.Lock()
	p := w.held
	w.holding, w.queuing, w.held = false, false, nil
	w.mu.Unlock()
	return p
}

// keep ends a read without waiting. Bytes fed and not used move to memory of their own, so that the loop may reuse its.
func (w *Wire) keep() {
	w.dry = false // drained stays as it is until more has been read
	if len(w.fed) > 0 {
		w.fed = append([]byte(nil), w.fed...)
	} else {
		w.fed = nil
	}
}

// part detaches the Wire from its loop at any moment: unread bytes are copied, and the loop may reuse the buffer it
// lent.
func (w *Wire) part() {
	w.keep()
	w.taken()
}
