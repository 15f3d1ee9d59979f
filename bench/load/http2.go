package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is the largest flow-control window (RFC 9113 §6.9.1), so that the server never has to wait for it.
const window = 1<<31 - 1

// An http2Conn is an HTTP/2 connection shared by several callers. When its session has ended, the next call opens
// another.
type http2Conn struct {
	*dialer

	making sync.Mutex // guards live, and is held while a session is opened
	live   *http2Session
}

// An http2Caller makes one call after another on a connection, each as a stream.
type http2Caller struct {
	conn  *http2Conn
	done  chan error
	timer *time.Timer
}

func (c *http2Caller) connect() error {
	_, err := c.conn.session()
	return err
}

func (c *http2Caller) call(turn int, a *answer) error {
	s, err := c.conn.session()
	if err != nil {
		return err
	}
	if c.done == nil {
		c.done, c.timer = make(chan error, 1), time.NewTimer(c.conn.Timeout)
	}
	c.timer.Reset(c.conn.Timeout)
	if err := s.send(turn, &http2Stream{answer: a, done: c.done}); err != nil {
		return c.conn.failure(err)
	}
	select {
	case err = <-c.done:
	case <-c.timer.C:
		s.end(failed(timeout, nil))
		err = <-c.done
	}
	if err == nil {
		err = a.verdict()
	}
	return c.conn.failure(err)
}

func (c *http2Caller) close() {
	c.conn.making.Lock()
	defer c.conn.making.Unlock()
	if s := c.conn.live; s != nil {
		s.end(errAborted)
		<-s.read
		c.conn.live = nil
	}
}

func (c *http2Caller) abort() { c.conn.abort() }

// session returns the live session, or opens one.
func (c *http2Conn) session() (*http2Session, error) {
	c.making.Lock()
	defer c.making.Unlock()
	if c.live != nil && c.live.open() {
		return c.live, nil
	}
	if c.live != nil {
		<-c.live.read
		c.live = nil
	}
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	s, err := newHTTP2Session(conn, c.target)
	if err != nil {
		conn.Close()
		return nil, c.failure(err)
	}
	c.live = s
	return s, nil
}

// An http2Session is one connection, from its preface to its end.
type http2Session struct {
	*target
	conn net.Conn
	read chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards writing and the fields below
	out     *bufio.Writer
	framer  *http2.Framer // only readAll reads from it
	encoder *hpack.Encoder
	block   bytes.Buffer
	next    uint32
	streams map[uint32]*http2Stream
	leaving bool  // the server has sent GOAWAY
	err     error // why it has ended
}

type http2Stream struct {
	answer *answer
	done   chan<- error // buffered
}

func newHTTP2Session(conn net.Conn, t *target) (*http2Session, error) {
	s := &http2Session{target: t, conn: conn, read: make(chan struct{}), next: 1, streams: map[uint32]*http2Stream{}}
	s.out = bufio.NewWriterSize(conn, bufferSize)
	s.framer = http2.NewFramer(s.out, bufio.NewReaderSize(conn, bufferSize))
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.framer.SetReuseFrames()
	s.encoder = hpack.NewEncoder(&s.block)
	s.out.WriteString(http2.ClientPreface)
	err := errors.Join(
		s.framer.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		),
		s.framer.WriteWindowUpdate(0, window-65535),
		s.out.Flush(),
	)
	if err != nil {
		return nil, transport(err)
	}
	go s.readAll() // close and session wait for read
	return s, nil
}

func (s *http2Session) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil && !s.leaving
}

// send opens a stream. The result goes to the stream's channel, unless send itself returns an error.
func (s *http2Session) send(turn int, stream *http2Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	id := s.next
	s.next += 2
	s.block.Reset()
	s.field(":method", "GET")
	s.field(":scheme", s.url.Scheme)
	s.field(":authority", s.url.Host)
	s.field(":path", s.url.RequestURI())
	s.field("user-agent", "sallybench")
	if len(s.Headers) > 0 {
		h := s.Headers[turn%len(s.Headers)]
		s.field(strings.ToLower(h.Name), h.Value)
	}
	err := s.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID:      id,
		BlockFragment: s.block.Bytes(),
		EndStream:     true,
		EndHeaders:    true,
	})
	if err == nil {
		err = s.out.Flush()
	}
	if err != nil {
		return transport(err)
	}
	s.streams[id] = stream
	return nil
}

func (s *http2Session) field(name, value string) {
	s.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // writes to memory and never fails
}

// end closes the connection and fails all of its streams with err.
func (s *http2Session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		s.conn.Close()
	}
	for id := range s.streams {
		s.finish(id, s.err)
	}
}

// finish delivers the result of a stream. The caller holds mu.
func (s *http2Session) finish(id uint32, err error) {
	if stream := s.streams[id]; stream != nil {
		delete(s.streams, id)
		stream.done <- err
	}
	if s.leaving && len(s.streams) == 0 {
		s.conn.Close()
	}
}

func (s *http2Session) readAll() {
	defer close(s.read)
	taken := uint32(0) // bytes received since the last WINDOW_UPDATE
	for {
		frame, err := s.framer.ReadFrame()
		if err == nil {
			err = s.handle(frame, &taken)
		} else {
			err = transport(err)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

func (s *http2Session) handle(frame http2.Frame, taken *uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := frame.Header().StreamID
	stream := s.streams[id]
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		if stream == nil {
			return nil
		}
		if status := f.PseudoValue("status"); status != "" && !strings.HasPrefix(status, "1") {
			n, err := strconv.Atoi(status)
			if err != nil {
				return failed(malformed, fmt.Errorf("status %.20q", status))
			}
			stream.answer.status = n
		}
		if f.StreamEnded() {
			s.finish(id, nil)
		}
	case *http2.DataFrame:
		*taken += f.Length
		if *taken > window/4 {
			if err := errors.Join(s.framer.WriteWindowUpdate(0, *taken), s.out.Flush()); err != nil {
				return transport(err)
			}
			*taken = 0
		}
		if stream == nil {
			return nil
		}
		stream.answer.take(f.Data())
		if f.StreamEnded() {
			s.finish(id, nil)
		}
	case *http2.RSTStreamFrame:
		s.finish(id, failed(broken, fmt.Errorf("stream reset: %v", f.ErrCode)))
	case *http2.GoAwayFrame:
		s.leaving = true
		for id := range s.streams {
			if id > f.LastStreamID {
				s.finish(id, failed(broken, fmt.Errorf("GOAWAY: %v", f.ErrCode)))
			}
		}
		if len(s.streams) == 0 {
			return failed(broken, errors.New("GOAWAY"))
		}
	case *http2.SettingsFrame:
		return s.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return s.flushed(s.framer.WritePing(true, f.Data))
		}
	}
	return nil
}

func (s *http2Session) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if size, ok := f.Value(http2.SettingHeaderTableSize); ok {
		s.encoder.SetMaxDynamicTableSizeLimit(size)
	}
	return s.flushed(s.framer.WriteSettingsAck())
}

func (s *http2Session) flushed(err error) error {
	if err = errors.Join(err, s.out.Flush()); err != nil {
		return transport(err)
	}
	return nil
}
