package http1

import (
	"net"
	"sync"
)

// A Wire is a connection below TLS. It sends several records at once, and can be read and written without waiting.
type Wire struct {
	net.Conn

	mu      sync.Mutex
	holding bool
	queuing bool // whatever is held is left to be taken
	held    []byte

	gather *gatherer // nil: what is written is sent

	// Of whoever reads.
	fed     []byte // read before
	dry     bool   // and nothing else is there
	drained bool   // TLS has no whole record that it has not given out
	records records
}

// NewWire returns the Wire over a connection.
func NewWire(c net.Conn) *Wire { return &Wire{Conn: c} }

// errDry is what crypto/tls takes for "nothing yet", and goes on after.
type errDry struct{}

func (errDry) Error() string   { return "nothing to read yet" }
func (errDry) Timeout() bool   { return true }
func (errDry) Temporary() bool { return true }

// Read implements net.Conn.
func (w *Wire) Read(p []byte) (int, error) {
	if len(w.fed) > 0 {
		n := copy(p, w.fed)
		w.fed = w.fed[n:]
		w.records.pass(p[:n])
		return n, nil
	}
	if w.dry {
		return 0, errDry{}
	}
	n, err := w.Conn.Read(p)
	w.records.pass(p[:n])
	return n, err
}

// records counts the TLS records that pass (RFC 8446 section 5.1).
type records struct {
	whole  int // since it was set to 0
	header int // bytes of the header of the record that has begun
	left   int // bytes of it that have not passed
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

// maxHeld is how much is sent at once.
const maxHeld = 64 << 10

// Write implements net.Conn. Between hold and release it keeps what it is given, up to maxHeld.
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
	if w.held = append(w.held, p...); len(w.held) < maxHeld {
		return len(p), nil
	}
	_, err := w.Conn.Write(w.held)
	w.held = w.held[:0]
	return len(p), err
}

// hold lends the Wire memory to keep what is written in.
func (w *Wire) hold(memory []byte) {
	w.mu.Lock()
	w.holding, w.held = true, memory[:0]
	w.mu.Unlock()
}

// queue is hold for whoever takes all of it and sends it himself.
func (w *Wire) queue(memory []byte) {
	w.mu.Lock()
	w.holding, w.queuing, w.held = true, true, memory[:0]
	w.mu.Unlock()
}

// taken is what was written since queue, in its memory or more.
func (w *Wire) taken() []byte {
	w.mu.Lock()
	p := w.held
	w.holding, w.queuing, w.held = false, false, nil
	w.mu.Unlock()
	return p
}

// keep ends the reading without waiting. What was fed and is left gets memory of its own.
func (w *Wire) keep() {
	w.dry = false // but what was drained stays so until more is read
	if len(w.fed) > 0 {
		w.fed = append([]byte(nil), w.fed...)
	} else {
		w.fed = nil
	}
}

// part ends all that a loop does with the Wire, even in the middle of it: the memory that it has lent is its own again.
func (w *Wire) part() {
	w.keep()
	w.taken()
}

// writeBelow writes to the socket, under TLS if there is any.
func writeBelow(conn net.Conn, w *Wire, p []byte) error {
	if w != nil {
		conn = w.Conn
	}
	_, err := conn.Write(p)
	return err
}

// release sends what was kept, and gives the memory back.
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
