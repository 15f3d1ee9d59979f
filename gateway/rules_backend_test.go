package gateway_test

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A ruleBackend speaks HTTP/1.1, or HTTP/2 in the clear, on bare sockets. It answers each path by a script, and its record
// of what it was sent is the oracle of the rules.
type ruleBackend struct {
	net.Listener
	h2c bool
	wg  sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	record  map[string][]*received // by path
	scripts map[string]func(*received) reply
}

// A received is a request as the backend got it. The Host is not in its header, and announced are its Trailer fields.
type received struct {
	method, target, host string
	header               http.Header
	announced            []string
	conn, nth            int           // the connection, and which of its requests this is, from 1
	gone                 chan struct{} // closed when the gateway has ended the connection, or the stream

	mu      sync.Mutex
	body    string
	trailer http.Header
	whole   bool
}

// message is what has come behind the head, and whether that was all.
func (r *received) message() (body string, trailer http.Header, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body, r.trailer, r.whole
}

// A reply is what the backend answers with. Its zero value is a 200 without a body.
type reply struct {
	wait     <-chan struct{} // before anything is answered, unless the gateway ends the call
	none     bool            // the connection is closed without an answer
	interims []interim
	status   int // 0: 200
	fields   []string
	body     string
	chunked  bool // the length of the body is not stated
	trailers []string
	bytes    string // HTTP/1.1: sent as they are, instead of the above
	cut      bool   // the answer breaks off behind the body
	pause    <-chan struct{}
	tunnel   func(net.Conn, *bufio.Reader) // HTTP/1.1: what happens on the connection behind the head
}

// An interim is an interim answer.
type interim struct {
	status int
	fields []string
}

func newRuleBackend(t testing.TB, h2c bool) *ruleBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &ruleBackend{
		Listener: l, h2c: h2c, conns: map[net.Conn]bool{}, record: map[string][]*received{}, scripts: map[string]func(*received) reply{},
	}
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

func (b *ruleBackend) url() string { return "http://" + b.Addr().String() }

func (b *ruleBackend) accept() {
	for n := 1; ; n++ {
		c, err := b.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		b.conns[c] = true
		b.mu.Unlock()
		b.wg.Go(func() {
			if b.h2c {
				(&ruleStreams{backend: b, conn: c, id: n}).serve()
			} else {
				b.serve(c, n)
			}
			c.Close()
			b.mu.Lock()
			delete(b.conns, c)
			b.mu.Unlock()
		})
	}
}

func (b *ruleBackend) handle(path string, script func(*received) reply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.scripts[path] = script
}

// received are the requests for a path, in order, from their heads on.
func (b *ruleBackend) received(path string) []*received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.record[path]
}

// note records a request whose head has come.
func (b *ruleBackend) note(r *received) {
	path, _, _ := strings.Cut(r.target, "?")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record[path] = append(b.record[path], r)
}

// reply is what the script of a request that has come whole says.
func (b *ruleBackend) reply(r *received) reply {
	path, _, _ := strings.Cut(r.target, "?")
	b.mu.Lock()
	script := b.scripts[path]
	b.mu.Unlock()
	if script == nil {
		return reply{}
	}
	return script(r)
}

// await waits for what c says; false if the gateway has ended the call before.
func (r *received) await(c <-chan struct{}) bool {
	if c == nil {
		return true
	}
	select {
	case <-c:
		return true
	case <-r.gone:
		return false
	}
}

func (b *ruleBackend) serve(c net.Conn, id int) {
	in := bufio.NewReader(c)
	for n := 1; ; n++ {
		q, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		r := &received{
			method: q.Method, target: q.RequestURI, host: q.Host, header: q.Header, conn: id, nth: n, gone: make(chan struct{}),
		}
		for name := range q.Trailer {
			r.announced = append(r.announced, name)
		}
		b.note(r)
		body, err := io.ReadAll(q.Body)
		r.mu.Lock()
		r.body, r.trailer, r.whole = string(body), q.Trailer, err == nil
		r.mu.Unlock()
		if err != nil {
			close(r.gone)
			return
		}
		if !b.answer(c, in, r) {
			return
		}
	}
}

// answer answers a request over HTTP/1.1, and reports whether there may be another.
func (b *ruleBackend) answer(c net.Conn, in *bufio.Reader, r *received) (again bool) {
	a := b.reply(r)
	if a.tunnel != nil {
		_, _ = c.Write(a.appendHTTP1(nil, r.method)) // the tunnel tells
		a.tunnel(c, in)
		return false
	}
	next := make(chan bool, 1)
	b.wg.Go(func() {
		_, err := in.Peek(1)
		if err != nil {
			close(r.gone)
		}
		next <- err == nil
	})
	if !r.await(a.wait) || a.none {
		return false
	}
	text, end := a.appendHTTP1(nil, r.method), ""
	if a.chunked && !a.cut && a.bytes == "" && r.method != http.MethodHead {
		end = "0\r\n" + strings.Join(append(a.trailers[:len(a.trailers):len(a.trailers)], "", ""), "\r\n")
	}
	if a.pause == nil {
		text, end = append(text, end...), ""
	}
	if _, err := c.Write(text); err != nil {
		return false
	}
	r.await(a.pause)
	if _, err := io.WriteString(c, end); err != nil {
		return false
	}
	return !a.cut && <-next
}

// appendHTTP1 appends the answer up to the end of what there is of its body.
func (a *reply) appendHTTP1(b []byte, method string) []byte {
	if a.bytes != "" {
		return append(b, a.bytes...)
	}
	for _, i := range a.interims {
		b = fmt.Appendf(b, "HTTP/1.1 %d Interim\r\n", i.status)
		for _, line := range i.fields {
			b = append(b, line+"\r\n"...)
		}
		b = append(b, "\r\n"...)
	}
	b = fmt.Appendf(b, "HTTP/1.1 %d Final\r\n", cmp.Or(a.status, 200))
	for _, line := range a.fields {
		b = append(b, line+"\r\n"...)
	}
	switch {
	case a.status == 101 || a.status == 204 || a.status == 304 || method == http.MethodHead:
		return append(b, "\r\n"...)
	case a.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n\r\n"...)
		if a.body == "" {
			return b
		}
		return fmt.Appendf(b, "%x\r\n%s\r\n", len(a.body), a.body)
	}
	length := len(a.body)
	if a.cut {
		length += 10
	}
	return fmt.Appendf(b, "Content-Length: %d\r\n\r\n%s", length, a.body)
}

// A ruleStreams is a connection of a backend that speaks HTTP/2.
type ruleStreams struct {
	backend *ruleBackend
	conn    net.Conn
	id      int

	framer *http2.Framer
	block  bytes.Buffer
	encode *hpack.Encoder
	mu     sync.Mutex // held by whoever writes
}

func (s *ruleStreams) serve() {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(s.conn, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	s.framer, s.encode = http2.NewFramer(s.conn, s.conn), hpack.NewEncoder(&s.block)
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.write(func() error { return s.framer.WriteSettings() })
	streams := map[uint32]*received{}
	defer func() {
		for _, r := range streams {
			close(r.gone)
		}
	}()
	for n := 0; ; {
		frame, err := s.framer.ReadFrame()
		if err != nil {
			return
		}
		id := frame.Header().StreamID
		r, ended := streams[id], false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				s.write(s.framer.WriteSettingsAck)
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				s.write(func() error { return s.framer.WritePing(true, frame.Data) })
			}
		case *http2.MetaHeadersFrame:
			header := http.Header{}
			for _, f := range frame.RegularFields() {
				header.Add(f.Name, f.Value)
			}
			if r == nil {
				n++
				r = &received{
					method: frame.PseudoValue("method"), target: frame.PseudoValue("path"), host: frame.PseudoValue("authority"),
					header: header, conn: s.id, nth: n, gone: make(chan struct{}),
				}
				for _, list := range header["Trailer"] {
					for name := range strings.SplitSeq(list, ",") {
						r.announced = append(r.announced, http.CanonicalHeaderKey(strings.TrimSpace(name)))
					}
				}
				streams[id] = r
				s.backend.note(r)
			} else {
				r.mu.Lock()
				r.trailer = header
				r.mu.Unlock()
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			if r == nil {
				continue // of a stream that was ended
			}
			r.mu.Lock()
			r.body += string(frame.Data())
			r.mu.Unlock()
			if size := uint32(len(frame.Data())); size > 0 {
				s.write(func() error { return s.framer.WriteWindowUpdate(0, size) })
				s.write(func() error { return s.framer.WriteWindowUpdate(id, size) })
			}
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			if r != nil {
				close(r.gone)
				delete(streams, id)
			}
		}
		if ended {
			r.mu.Lock()
			r.whole = true
			r.mu.Unlock()
			s.backend.wg.Go(func() { s.answer(id, r) })
		}
	}
}

// write writes frames. An error is the reader's, too.
func (s *ruleStreams) write(frames func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = frames()
}

func (s *ruleStreams) answer(id uint32, r *received) {
	a := s.backend.reply(r)
	switch {
	case !r.await(a.wait):
		return
	case a.none:
		s.conn.Close()
		return
	}
	for _, i := range a.interims {
		s.headers(id, i.status, i.fields, false)
	}
	status, fields := cmp.Or(a.status, 200), a.fields
	bodyless := status == 204 || status == 304 || r.method == http.MethodHead
	if !a.chunked && !bodyless {
		length := len(a.body)
		if a.cut {
			length += 10
		}
		fields = append(fields[:len(fields):len(fields)], "Content-Length: "+strconv.Itoa(length))
	}
	s.headers(id, status, fields, bodyless)
	if bodyless {
		return
	}
	for body := a.body; body != ""; {
		part := body[:min(len(body), 16<<10)]
		body = body[len(part):]
		s.write(func() error { return s.framer.WriteData(id, false, []byte(part)) })
	}
	r.await(a.pause)
	switch {
	case a.cut:
		s.write(func() error { return s.framer.WriteRSTStream(id, http2.ErrCodeInternal) })
	case len(a.trailers) > 0:
		s.headers(id, 0, a.trailers, true)
	default:
		s.write(func() error { return s.framer.WriteData(id, true, nil) })
	}
}

// headers writes a head, or trailers if there is no status.
func (s *ruleStreams) headers(id uint32, status int, lines []string, end bool) {
	s.write(func() error {
		s.block.Reset()
		if status > 0 {
			_ = s.encode.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)}) // a Buffer takes all
		}
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			_ = s.encode.WriteField(hpack.HeaderField{Name: strings.ToLower(name), Value: value})
		}
		block := s.block.Bytes()
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		err := s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: part, EndStream: end, EndHeaders: len(block) == 0})
		for err == nil && len(block) > 0 {
			part, block = block[:min(len(block), 16<<10)], block[min(len(block), 16<<10):]
			err = s.framer.WriteContinuation(id, len(block) == 0, part)
		}
		return err
	})
}
