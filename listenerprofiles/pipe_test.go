package listenerprofiles

import (
	"bytes"
	"io"
	"net"
	"sync"
	"time"
)

// A pipe is one end of a connection in memory. Unlike net.Pipe's it has a buffer, as TLS needs it, whose ends may write
// at the same time. It has no deadlines.
type pipe struct{ in, out *stream }

// A stream is one direction.
type stream struct {
	mu     sync.Mutex
	change *sync.Cond
	data   bytes.Buffer
	closed bool
}

func newPipe() (net.Conn, net.Conn) {
	a, b := &stream{}, &stream{}
	a.change, b.change = sync.NewCond(&a.mu), sync.NewCond(&b.mu)
	return pipe{a, b}, pipe{b, a}
}

func (p pipe) Read(b []byte) (int, error) {
	s := p.in
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.data.Len() == 0 {
		if s.closed {
			return 0, io.EOF
		}
		s.change.Wait()
	}
	return s.data.Read(b)
}

func (p pipe) Write(b []byte) (int, error) {
	s := p.out
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	s.change.Broadcast()
	return s.data.Write(b)
}

func (p pipe) Close() error {
	for _, s := range []*stream{p.in, p.out} {
		s.mu.Lock()
		s.closed = true
		s.change.Broadcast()
		s.mu.Unlock()
	}
	return nil
}

func (pipe) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (pipe) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (pipe) SetDeadline(time.Time) error      { return nil }
func (pipe) SetReadDeadline(time.Time) error  { return nil }
func (pipe) SetWriteDeadline(time.Time) error { return nil }
