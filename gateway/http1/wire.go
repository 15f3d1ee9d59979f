package http1

import (
	"net"
	"sync"
)

// A Wire is a connection below TLS. It sends several records at once, and can be read without waiting.
type Wire struct {
	net.Conn

	mu      sync.Mutex
	holding bool
	held    []byte

	dry bool // reads find nothing; set and read by whoever reads
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
	if w.dry {
		return 0, errDry{}
	}
	return w.Conn.Read(p)
}

// maxHeld is how much is sent at once.
const maxHeld = 64 << 10

// Write implements net.Conn. Between hold and release it keeps what it is given, up to maxHeld.
func (w *Wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.holding {
		return w.Conn.Write(p)
	}
	w.held = append(w.held, p...)
	if len(w.held) < maxHeld {
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
