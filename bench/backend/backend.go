// Package backend is an HTTP/1.1 server that costs little CPU, so that a measurement measures the gateway in front of
// it. It renders its answers once, at the start.
package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds on what a client may ask for.
const (
	maxHead = 64 << 10
	maxWait = time.Minute
)

// Sizes maps the last segment of the path to the size of the body in bytes.
var Sizes = map[string]int{"1k": 1 << 10, "64k": 64 << 10, "1m": 1 << 20}

// Body returns the body of an answer of n bytes. The pattern repeats with a prime period, so that lost, repeated or
// swapped bytes are noticed.
func Body(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('!' + i%89)
	}
	return b
}

// A Server answers /1k, /64k and /1m with bodies of that size, and /slow?ms=N with the body of /1k after N
// milliseconds, under any path prefix. Other paths are 404. It accepts any method and reads a body that has a
// Content-Length. Use New: the zero Server does not work.
type Server struct {
	answers  map[string][]byte
	notFound []byte
	calls    atomic.Uint64
}

// New returns a server that is ready to Run.
func New() *Server {
	s := &Server{answers: map[string][]byte{}, notFound: answer("404 Not Found", []byte("not found\n"))}
	for name, n := range Sizes {
		s.answers[name] = answer("200 OK", Body(n))
	}
	return s
}

func answer(status string, body []byte) []byte {
	head := fmt.Sprintf("HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", status, len(body))
	return append([]byte(head), body...)
}

// Calls returns how many calls the server has answered.
func (s *Server) Calls() uint64 { return s.calls.Load() }

// Run serves until ctx ends, closes all connections, and returns nil.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		c, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			listener.Close()
			return fmt.Errorf("backend: %w", err)
		}
		group.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			s.serve(ctx, c)
		})
	}
}

// serve answers the calls of one connection in turn, until the client closes it or sends something else than a request.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	buf := make([]byte, 4<<10)
	n := 0 // bytes in buf
	for {
		end := bytes.Index(buf[:n], []byte("\r\n\r\n"))
		for end < 0 {
			if n == maxHead {
				return
			}
			if n == len(buf) {
				buf = append(buf, make([]byte, len(buf))...)
			}
			m, err := c.Read(buf[n:])
			if err != nil {
				return
			}
			n += m
			end = bytes.Index(buf[:n], []byte("\r\n\r\n"))
		}
		r, err := parseRequest(buf[:end+2])
		if err != nil {
			return
		}
		n = copy(buf, buf[end+4:n])
		for r.length > 0 {
			taken := min(int64(n), r.length)
			n = copy(buf, buf[taken:n])
			r.length -= taken
			if r.length > 0 {
				if n, err = c.Read(buf); err != nil {
					return
				}
			}
		}
		if !wait(ctx, r.wait) {
			return
		}
		s.calls.Add(1)
		b, ok := s.answers[r.name]
		if !ok {
			b = s.notFound
		}
		if _, err := c.Write(b); err != nil || r.close {
			return
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// A request holds the parts of a request that the server looks at.
type request struct {
	name   string // the last segment of the path: which answer
	wait   time.Duration
	length int64 // of the body
	close  bool
}

var errRequest = errors.New("not a request that this server accepts")

// parseRequest parses a head that ends with the CRLF of its last line.
func parseRequest(head []byte) (request, error) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	_, target, ok := bytes.Cut(line, []byte(" "))
	target, version, ok2 := bytes.Cut(target, []byte(" "))
	if !ok || !ok2 || string(version) != "HTTP/1.1" {
		return request{}, errRequest
	}
	var r request
	path, query, _ := bytes.Cut(target, []byte("?"))
	r.name = string(path[bytes.LastIndexByte(path, '/')+1:])
	if r.name == "slow" {
		values, err := url.ParseQuery(string(query))
		if err != nil {
			return request{}, errRequest
		}
		ms, err := strconv.ParseUint(values.Get("ms"), 10, 32)
		if err != nil {
			return request{}, errRequest
		}
		r.name, r.wait = "1k", min(time.Duration(ms)*time.Millisecond, maxWait)
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch len(name) { // rules out most names without comparing them
		case len("connection"):
			if bytes.EqualFold(name, []byte("connection")) && bytes.EqualFold(bytes.TrimSpace(value), []byte("close")) {
				r.close = true
			}
		case len("content-length"):
			if bytes.EqualFold(name, []byte("content-length")) {
				n, err := strconv.ParseUint(strings.TrimSpace(string(value)), 10, 62)
				if err != nil {
					return request{}, errRequest
				}
				r.length = int64(n)
			}
		case len("transfer-encoding"):
			if bytes.EqualFold(name, []byte("transfer-encoding")) {
				return request{}, errRequest
			}
		}
	}
	return r, nil
}
