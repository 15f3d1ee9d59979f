package gateway_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A strictBackend is a backend on a bare socket that takes nothing for granted: it reads HTTP/1.1 by the letter of RFC
// 9112, notes every deviation, and answers with the target and the body that it got. It answers in order, and counts
// only requests that came whole.
type strictBackend struct {
	net.Listener
	wg sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]bool
	requests []strictRequest
	faults   []string
	scripts  map[string]script // by path
}

// A strictRequest is a request that came whole.
type strictRequest struct {
	method, target string
	lines          []string // of the head, without the first
	body           string
	conn           int
}

// A script answers a request with bytes of its own. It tells whether the connection goes on.
type script func(c net.Conn, r strictRequest) (goesOn bool)

func newStrictBackend(t testing.TB) *strictBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &strictBackend{Listener: l, conns: map[net.Conn]bool{}, scripts: map[string]script{}}
	b.wg.Go(b.accept)
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		for c := range b.conns {
			c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

func (b *strictBackend) url() string { return "http://" + b.Addr().String() }

func (b *strictBackend) accept() {
	for n := 1; ; n++ {
		c, err := b.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		b.conns[c] = true
		b.mu.Unlock()
		b.wg.Go(func() {
			b.serve(c, n)
			c.Close()
			b.mu.Lock()
			delete(b.conns, c)
			b.mu.Unlock()
		})
	}
}

func (b *strictBackend) serve(c net.Conn, n int) {
	in := bufio.NewReaderSize(c, 128<<10)
	for {
		r, err := readStrictly(in)
		if err != nil {
			var fault strictFault
			if errors.As(err, &fault) {
				b.mu.Lock()
				b.faults = append(b.faults, string(fault))
				b.mu.Unlock()
			}
			return // anything else: the gateway closed, between requests or within one
		}
		r.conn = n
		path, _, _ := strings.Cut(r.target, "?")
		b.mu.Lock()
		b.requests = append(b.requests, r)
		answer := b.scripts[path]
		b.mu.Unlock()
		if answer == nil {
			answer = echoStrictly
		}
		if !answer(c, r) {
			return
		}
	}
}

func echoStrictly(c net.Conn, r strictRequest) bool {
	text := r.target + " " + r.body
	length := strconv.Itoa(len(text))
	if r.method == "HEAD" {
		text = ""
	}
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: "+length+"\r\n\r\n"+text)
	return err == nil
}

func (b *strictBackend) handle(path string, s script) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.scripts[path] = s
}

// take returns what came since it was last called.
func (b *strictBackend) take() ([]strictRequest, []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	requests, faults := b.requests, b.faults
	b.requests, b.faults = nil, nil
	return requests, faults
}

// A strictFault is a deviation from the letter.
type strictFault string

func (f strictFault) Error() string { return string(f) }

// readStrictly reads one request. Lines end with CRLF, names are tokens with a colon behind them, no value has a
// control character, there is one Host, and one way to tell the body's length.
func readStrictly(in *bufio.Reader) (strictRequest, error) {
	var r strictRequest
	line, err := lineStrictly(in)
	if err != nil {
		return r, err
	}
	words := strings.Split(line, " ")
	if len(words) != 3 || words[2] != "HTTP/1.1" || !isToken(words[0]) || !strings.HasPrefix(words[1], "/") {
		return r, strictFault(fmt.Sprintf("request line %.200q", line))
	}
	r.method, r.target = words[0], words[1]
	length, chunked, hosts := -1, false, 0
	for {
		if line, err = lineStrictly(in); err != nil {
			return r, err
		}
		if line == "" {
			break
		}
		r.lines = append(r.lines, line)
		name, value, found := strings.Cut(line, ": ")
		if !found || !isToken(name) || strings.TrimSpace(value) != value {
			return r, strictFault(fmt.Sprintf("header line %.200q", line))
		}
		switch plain := strings.ReplaceAll(strings.ToLower(name), "_", "-"); plain {
		case "host":
			hosts++
		case "content-length":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 || strconv.Itoa(n) != value || length >= 0 || name != "Content-Length" {
				return r, strictFault(fmt.Sprintf("length in %.200q, after %d", line, length))
			}
			length = n
		case "transfer-encoding":
			if value != "chunked" || chunked || name != "Transfer-Encoding" {
				return r, strictFault(fmt.Sprintf("coding in %.200q", line))
			}
			chunked = true
		}
	}
	if hosts != 1 {
		return r, strictFault(fmt.Sprintf("%d Host lines", hosts))
	}
	switch {
	case chunked && length >= 0:
		return r, strictFault("both Content-Length and Transfer-Encoding")
	case chunked:
		r.body, err = chunksStrictly(in)
	case length > 0:
		body := make([]byte, length)
		_, err = io.ReadFull(in, body)
		r.body = string(body)
	}
	return r, err
}

func chunksStrictly(in *bufio.Reader) (string, error) {
	var body bytes.Buffer
	for {
		line, err := lineStrictly(in)
		if err != nil {
			return "", err
		}
		n, err := strconv.ParseUint(line, 16, 31)
		if err != nil || strings.Trim(line, "0123456789abcdef") != "" {
			return "", strictFault(fmt.Sprintf("chunk line %.200q", line))
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(&body, in, int64(n)); err != nil {
			return "", err
		}
		if line, err := lineStrictly(in); err != nil || line != "" {
			return "", errors.Join(err, strictFault("a chunk's end"))
		}
	}
	line, err := lineStrictly(in)
	if err == nil && line != "" {
		err = strictFault(fmt.Sprintf("trailer %.200q", line))
	}
	return body.String(), err
}

func lineStrictly(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	text, found := strings.CutSuffix(line, "\r\n")
	if !found || slices.ContainsFunc([]byte(text), func(c byte) bool { return c < ' ' || c == 0x7f }) {
		return "", strictFault(fmt.Sprintf("line %.200q", line))
	}
	return text, nil
}

func isToken(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// withStrictBackend puts a strict backend behind the open API.
func withStrictBackend(t testing.TB, b **strictBackend) func(*fixture, *setup) {
	return func(f *fixture, s *setup) {
		*b = newStrictBackend(t)
		i := slices.IndexFunc(s.routes, func(r apiRoute) bool { return r.API == pubAPI })
		s.routes[i].Upstream = f.upstream(t, (*b).url())
	}
}
