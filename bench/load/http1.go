package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// bufferSize is room for a TLS record, and the limit for the head of an answer.
const bufferSize = 16 << 10

// A wire is an HTTP/1.1 connection that carries one call after another. It uses a tenth of the CPU of net/http, so that
// the generator is not what limits a measurement.
type wire struct {
	net.Conn
	timeout  time.Duration
	deadline time.Time // of the connection; extended only when a call could outlast it
	buf      []byte    // bytes read but not yet consumed
	space    [bufferSize]byte
}

func newWire(c net.Conn, timeout time.Duration) *wire { return &wire{Conn: c, timeout: timeout} }

// exchange sends a request and reads the answer into a. It reports whether the connection can carry another call.
func (w *wire) exchange(request []byte, a *answer) (reusable bool, err error) {
	// A deadline serves many calls, so a call that hangs is cut off after one to two timeouts.
	if now := time.Now(); w.deadline.Sub(now) < w.timeout {
		w.deadline = now.Add(2 * w.timeout)
		if err := w.SetDeadline(w.deadline); err != nil {
			return false, transport(err)
		}
	}
	if _, err := w.Write(request); err != nil {
		return false, transport(err)
	}
	h, err := w.readHead()
	for err == nil && h.ignored {
		h, err = w.readHead()
	}
	if err != nil {
		return false, err
	}
	a.status = h.status
	switch h.length {
	case chunked:
		err = w.readChunks(a)
	case untilEOF:
		err = w.readRest(a)
	default:
		err = w.readBody(a, h.length)
	}
	if err != nil {
		return false, err
	}
	if len(w.buf) > 0 && !h.close {
		return false, failed(malformed, fmt.Errorf("bytes behind the answer: %.20q", w.buf))
	}
	return !h.close, a.verdict()
}

// fill reads more bytes and appends them to those in the buffer.
func (w *wire) fill() error {
	n := copy(w.space[:], w.buf)
	if n == len(w.space) {
		return failed(malformed, errors.New("too long a line or head"))
	}
	m, err := w.Read(w.space[n:])
	w.buf = w.space[:n+m]
	if m > 0 {
		return nil
	}
	return transport(err)
}

func (w *wire) readHead() (head, error) {
	for {
		if len(w.buf) > 0 {
			h, err := parseHead(w.buf)
			if err == nil {
				w.buf = w.buf[h.size:]
				return h, nil
			}
			if !errors.Is(err, errShort) {
				return head{}, failed(malformed, err)
			}
		}
		if err := w.fill(); err != nil {
			return head{}, err
		}
	}
}

func (w *wire) readBody(a *answer, length int64) error {
	for {
		n := min(int64(len(w.buf)), length)
		if n > 0 {
			a.take(w.buf[:n])
			w.buf = w.buf[n:]
			length -= n
		}
		if length == 0 {
			return nil
		}
		if err := w.fill(); err != nil {
			return err
		}
	}
}

func (w *wire) readRest(a *answer) error {
	for {
		a.take(w.buf)
		w.buf = nil
		if err := w.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// readChunks reads a chunked body (RFC 9112 §7.1) without trailers.
func (w *wire) readChunks(a *answer) error {
	for {
		line, err := w.readLine()
		if err != nil {
			return err
		}
		size, err := parseChunkSize(line)
		if err != nil {
			return failed(malformed, err)
		}
		if err := w.readBody(a, size); err != nil {
			return err
		}
		if line, err = w.readLine(); err != nil {
			return err
		}
		if len(line) > 0 {
			return failed(malformed, fmt.Errorf("%.20q behind a chunk", line))
		}
		if size == 0 {
			return nil
		}
	}
}

func parseChunkSize(line []byte) (int64, error) {
	line, _, _ = bytes.Cut(line, []byte(";"))
	n, err := strconv.ParseUint(string(line), 16, 62)
	if err != nil {
		return 0, fmt.Errorf("chunk size %.20q", line)
	}
	return int64(n), nil
}

// readLine returns the next line without its CRLF, valid until the next read.
func (w *wire) readLine() ([]byte, error) {
	for {
		if i := bytes.Index(w.buf, crlf); i >= 0 {
			line := w.buf[:i]
			w.buf = w.buf[i+2:]
			return line, nil
		}
		if err := w.fill(); err != nil {
			return nil, err
		}
	}
}
