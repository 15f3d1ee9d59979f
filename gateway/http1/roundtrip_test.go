package http1_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sallyport/gateway/http1"
)

// A speaker is a backend whose connections say what a function says, and end when that returns.
type speaker struct {
	net.Listener
	conns atomic.Int64
	ended sync.WaitGroup
}

// patience is for what would come at once, if it ever came.
const patience = 15 * time.Second

// await waits for what c tells.
func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
	}
	return v
}

// newSpeaker starts a backend and makes an upstream of it. The function gets the number of the connection, from 1.
func newSpeaker(t *testing.T, serve func(n int64, c net.Conn, in *bufio.Reader)) (*speaker, *http1.Upstream) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &speaker{Listener: l}
	s.ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := s.conns.Add(1)
			s.ended.Go(func() {
				defer c.Close()
				end := time.Now().Add(patience)
				_ = c.SetDeadline(end)
				serve(n, c, bufio.NewReader(c))
				if time.Now().After(end) {
					t.Error("the backend waited in vain")
				}
			})
		}
	})
	up := &http1.Upstream{Authority: "backend.test", Address: l.Addr().String()}
	ignored := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		up.Close()
		l.Close()
		s.ended.Wait()
		goleak.VerifyNone(t, ignored)
	})
	return s, up
}

// answers is a backend that reads requests whole, and answers each with the next of those texts, the last one over and
// over.
func answers(texts ...string) func(int64, net.Conn, *bufio.Reader) {
	var mu sync.Mutex
	return func(_ int64, c net.Conn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			mu.Lock()
			text := texts[0]
			if len(texts) > 1 {
				texts = texts[1:]
			}
			mu.Unlock()
			if _, err := io.WriteString(c, text); err != nil || strings.Contains(text, "\r\nConnection: close\r\n") {
				return
			}
		}
	}
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

func newCall(method string, body io.Reader) *http.Request {
	r := &http.Request{Method: method, URL: &url.URL{Opaque: "/x"}, Header: http.Header{}}
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(body), -1
	}
	return r
}

// ask makes a call, and expects the answer to be fine.
func ask(t *testing.T, up *http1.Upstream) {
	t.Helper()
	res, err := http1.Transport{Upstream: up}.RoundTrip(newCall("GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); string(text) != "fine" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// TestTransportAnswers: an answer comes as it was sent, whole or with an error, and only a connection that is in order
// carries another call.
func TestTransportAnswers(t *testing.T) {
	type answer struct {
		Status    string
		Length    int64
		Header    http.Header
		Body      string
		Trailer   http.Header
		Announced []string
	}
	long := strings.Repeat("0123456789abcdef", 20<<10)
	for _, c := range []struct {
		name, method, text string
		want               answer
		err                error // of the body
		reused             bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx-y: 1\r\nX-Y: 2\r\nSet-Cookie: a\r\n\r\nabc", answer{"200 OK", 3, http.Header{"Content-Length": {"3"}, "X-Y": {"1", "2"}, "Set-Cookie": {"a"}}, "abc", nil, nil}, nil, true},
		{"long", "GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(long), long), answer{"200 OK", int64(len(long)), http.Header{"Content-Length": {fmt.Sprint(len(long))}}, long, nil, nil}, nil, true},
		{"no reason", "GET", "HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", answer{"299", 0, http.Header{"Content-Length": {"0"}}, "", nil, nil}, nil, true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", answer{"200 OK", 3, http.Header{"Content-Length": {"3"}}, "", nil, nil}, nil, true},
		{"HEAD of any length", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", answer{"200 OK", -1, http.Header{}, "", nil, nil}, nil, true},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", answer{"204 No Content", 0, http.Header{}, "", nil, nil}, nil, true},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", answer{"304 Not Modified", 0, http.Header{"Content-Length": {"3"}}, "", nil, nil}, nil, true},
		{"this hop's", "GET", "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 1\r\nX-Hop: 2\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", answer{"200 OK", 0, http.Header{"Content-Length": {"0"}}, "", nil, nil}, nil, true},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", answer{"200 OK", -1, http.Header{}, "abcd", nil, nil}, nil, true},
		{
			"trailers", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-a, X-B\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\nx-c: 2\r\nContent-Length: 9\r\n\r\n",
			answer{"200 OK", -1, http.Header{}, "abc", http.Header{"X-A": {"1"}, "X-B": nil, "X-C": {"2"}}, []string{"X-A", "X-B"}},
			nil, true,
		},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", answer{"200 OK", 3, http.Header{"Content-Length": {"3"}}, "abc", nil, nil}, nil, false},
		{"until close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", answer{"200 OK", -1, http.Header{}, "abc", nil, nil}, nil, false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", answer{"200 OK", 3, http.Header{"Content-Length": {"3"}}, "abc", nil, nil}, nil, false},
		{"204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", answer{"204 No Content", 0, http.Header{"Content-Length": {"3"}}, "", nil, nil}, nil, false},
		{"more than the length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + fine, answer{"200 OK", 3, http.Header{"Content-Length": {"3"}}, "abc", nil, nil}, nil, false},
		{"more than the chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + fine, answer{"200 OK", -1, http.Header{}, "abc", nil, nil}, nil, false},
		{"more than none", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + fine, answer{"200 OK", 3, http.Header{"Content-Length": {"3"}}, "", nil, nil}, nil, false},
		{"less than the length", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabc", answer{"200 OK", 5, http.Header{"Content-Length": {"5"}}, "abc", nil, nil}, io.ErrUnexpectedEOF, false},
		{"chunks without an end", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", answer{"200 OK", -1, http.Header{}, "abc", nil, nil}, io.ErrUnexpectedEOF, false},
		{"a chunk that is none", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n", answer{"200 OK", -1, http.Header{}, "abc", nil, nil}, new(http1.Error), false},
	} {
		for _, slowly := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,slowly=%v", c.name, slowly), func(t *testing.T) {
				b, up := newSpeaker(t, answers(c.text, fine))
				call := newCall(c.method, nil)
				res, err := http1.Transport{Upstream: up, Timeout: time.Minute}.RoundTrip(call)
				if err != nil {
					t.Fatal(err)
				}
				var announced []string
				for name := range res.Trailer {
					announced = append(announced, name)
				}
				slices.Sort(announced)
				var body io.Reader = res.Body
				if slowly {
					body = iotest.OneByteReader(body)
				}
				text, err := io.ReadAll(body)
				if c.err == nil && err != nil || c.err == io.ErrUnexpectedEOF && err != c.err || errors.As(c.err, new(*http1.Error)) != errors.As(err, new(*http1.Error)) {
					t.Errorf("the body ends with %v", err)
				}
				if n, again := res.Body.Read(make([]byte, 1)); n != 0 || again == nil || err == nil && again != io.EOF {
					t.Errorf("then %d, %v", n, again)
				}
				res.Body.Close()
				got := answer{res.Status, res.ContentLength, res.Header, string(text), res.Trailer, announced}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
				if res.Request != call || res.StatusCode/100 != int(res.Status[0]-'0') || !strings.Contains(c.text, res.Proto) {
					t.Errorf("%+v", res)
				}
				ask(t, up)
				if got := b.conns.Load() == 1; got != c.reused {
					t.Errorf("%d connections", b.conns.Load())
				}
			})
		}
	}
}

// TestTransportRefusesAnswers: what is no answer is an error, and its connection carries nothing more.
func TestTransportRefusesAnswers(t *testing.T) {
	for name, text := range map[string]string{
		"another protocol":      "SSH-2.0-x\r\n\r\n",
		"two lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"length and chunks":     "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
		"a switch":              "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"a head without an end": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 64<<10),
		"half a head":           "HTTP/1.1 200 OK\r\nConnection: close\r\n",
		"too many interim ones": strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 16) + fine,
	} {
		t.Run(name, func(t *testing.T) {
			b, up := newSpeaker(t, answers(text, fine))
			if res, err := (http1.Transport{Upstream: up, Timeout: time.Minute}).RoundTrip(newCall("GET", nil)); err == nil {
				res.Body.Close()
				t.Errorf("status %d", res.StatusCode)
			}
			ask(t, up)
			if b.conns.Load() != 2 {
				t.Errorf("%d connections", b.conns.Load())
			}
		})
	}
}

// TestTransportRequests: a request goes out as net/http says it, framed by us, or not at all.
func TestTransportRequests(t *testing.T) {
	reader := func(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }
	for _, c := range []struct {
		name    string
		request http.Request
		want    string // "": refused
	}{
		{"plain", http.Request{Method: "GET", URL: &url.URL{Opaque: "//a%2f;b"}}, "GET //a%2f;b HTTP/1.1\r\nHost: backend.test\r\n\r\n"},
		{"query", http.Request{Method: "DELETE", URL: &url.URL{Opaque: "/", RawQuery: "a=%zz&&"}, Host: "client.test:1"}, "DELETE /?a=%zz&& HTTP/1.1\r\nHost: client.test:1\r\n\r\n"},
		{"empty query", http.Request{Method: "POST", URL: &url.URL{Opaque: "/", ForceQuery: true}}, "POST /? HTTP/1.1\r\nHost: backend.test\r\nContent-Length: 0\r\n\r\n"},
		{"fields", http.Request{Method: "GET", URL: &url.URL{Opaque: "/"}, Header: http.Header{"X": {"1", "2"}, "Host": {"x"}, "content-length": {"9"}, "Transfer-Encoding": {"chunked"}, "Connection": {"X"}, "Upgrade": {"x"}, "User-Agent": {""}}}, "GET / HTTP/1.1\r\nHost: backend.test\r\nX: 1\r\nX: 2\r\n\r\n"},
		{"length", http.Request{Method: "GET", URL: &url.URL{Opaque: "/"}, Body: reader("abc"), ContentLength: 3, Trailer: http.Header{"X": {"1"}}}, "GET / HTTP/1.1\r\nHost: backend.test\r\nContent-Length: 3\r\n\r\nabc"},
		{"chunks", http.Request{Method: "PUT", URL: &url.URL{Opaque: "/"}, Body: reader("abc"), ContentLength: -1, Trailer: http.Header{"X": {"1", "2"}}}, "PUT / HTTP/1.1\r\nHost: backend.test\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\nX: 2\r\n\r\n"},
		{"no chunk", http.Request{Method: "PUT", URL: &url.URL{Opaque: "/"}, Body: reader("")}, "PUT / HTTP/1.1\r\nHost: backend.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"method", http.Request{Method: "GET /x", URL: &url.URL{Opaque: "/"}}, ""},
		{"no path", http.Request{Method: "GET", URL: &url.URL{Path: "/"}}, ""},
		{"path", http.Request{Method: "GET", URL: &url.URL{Opaque: "/ HTTP/1.1\r\nX: y"}}, ""},
		{"query", http.Request{Method: "GET", URL: &url.URL{Opaque: "/", RawQuery: "a b"}}, ""},
		{"host", http.Request{Method: "GET", URL: &url.URL{Opaque: "/"}, Host: "a\r\nX: y"}, ""},
		{"field name", http.Request{Method: "GET", URL: &url.URL{Opaque: "/"}, Header: http.Header{"X:": {"y"}}}, ""},
		{"field value", http.Request{Method: "GET", URL: &url.URL{Opaque: "/"}, Header: http.Header{"X": {"y\nZ: 1"}}}, ""},
		{"trailer name", http.Request{Method: "PUT", URL: &url.URL{Opaque: "/"}, Body: reader("abc"), Trailer: http.Header{"X\r\n": nil}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(chan string, 1)
			b, up := newSpeaker(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
				head := make([]byte, len(c.want))
				_, _ = io.ReadFull(in, head)
				got <- string(head)
				_, _ = io.WriteString(conn, fine)
				_, _ = in.Peek(1)
				if in.Buffered() > 0 {
					t.Error("there is more of it")
				}
			})
			res, err := http1.Transport{Upstream: up}.RoundTrip(&c.request)
			if c.want == "" {
				if err == nil || b.conns.Load() > 1 {
					t.Errorf("it was sent, %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if head := await(t, "a request", got); head != c.want {
				t.Errorf("the backend got\n%s", head)
			}
		})
	}
}

// A flawedBody gives some bytes, and then an error, or panics if that is nil.
type flawedBody struct {
	io.Reader
	err    error
	once   sync.Once
	closed chan struct{}
}

func (f *flawedBody) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF {
		if f.err == nil {
			panic("a flaw")
		}
		err = f.err
	}
	return n, err
}

func (f *flawedBody) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// TestTransportBadBody: a body that cannot be had whole is never taken for one that was, and the caller is told why.
func TestTransportBadBody(t *testing.T) {
	flaw := errors.New("a flaw")
	for _, c := range []struct {
		name   string
		length int64
		err    error
	}{
		{"chunks", -1, flaw},
		{"length", 9, flaw},
		{"less than the length", 9, io.EOF},
		{"more than the length", 3, io.EOF},
		{"a panic", -1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := make(chan bool, 1)
			_, up := newSpeaker(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
				r, err := http.ReadRequest(in)
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
				}
				broken <- err != nil
				_, _ = io.WriteString(conn, fine)
			})
			body := &flawedBody{Reader: strings.NewReader("abcd"), err: c.err, closed: make(chan struct{})}
			r := newCall("POST", nil)
			r.Body, r.ContentLength = body, c.length
			panicked := any(nil)
			err := func() error {
				defer func() { panicked = recover() }()
				_, err := http1.Transport{Upstream: up}.RoundTrip(r)
				return err
			}()
			if c.err == nil {
				if text, _ := panicked.(string); !strings.Contains(text, "a flaw") || !strings.Contains(text, "flawedBody") {
					t.Errorf("panicked with %v", panicked)
				}
			} else if err == nil || c.err == flaw && !errors.Is(err, flaw) {
				t.Errorf("got %v", err)
			}
			if !await(t, "the end of the request", broken) {
				t.Error("the backend took the request for whole")
			}
			await(t, "the body is closed", body.closed)
		})
	}
}

// TestTransportEarlyAnswer: an answer may come, and end, before the request's body has ended. The time for it has not
// begun by then.
func TestTransportEarlyAnswer(t *testing.T) {
	b, up := newSpeaker(t, func(n int64, c net.Conn, in *bufio.Reader) {
		if n > 1 {
			answers(fine)(n, c, in)
			return
		}
		if _, err := http.ReadRequest(in); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(c, fine)
		_, _ = io.Copy(io.Discard, in)
	})
	body, client := io.Pipe()
	res, err := http1.Transport{Upstream: up, Timeout: time.Nanosecond}.RoundTrip(newCall("POST", body))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(res.Body); string(text) != "fine" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	client.Close() // whose bytes nobody wants any more
	ask(t, up)
	if b.conns.Load() != 2 {
		t.Error("a connection was used again on which half a request stands")
	}
}

// TestTransportBothWays: both bodies flow at a time, and the end of the request does not bound the time for the answer's
// body. Then the connection is as good as new.
func TestTransportBothWays(t *testing.T) {
	b, up := newSpeaker(t, func(n int64, c net.Conn, in *bufio.Reader) {
		r, err := http.ReadRequest(in)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
		_, _ = io.CopyN(c, r.Body, 4)
		if rest, err := io.ReadAll(r.Body); len(rest) > 0 || err != nil {
			t.Errorf("more came: %q, %v", rest, err)
		}
		_, _ = io.WriteString(c, "done")
		answers(fine)(n, c, in)
	})
	body, client := io.Pipe()
	res, err := http1.Transport{Upstream: up, Timeout: time.Nanosecond}.RoundTrip(newCall("POST", body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var echoed [4]byte
	if _, err := io.WriteString(client, "echo"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, echoed[:]); string(echoed[:]) != "echo" || err != nil {
		t.Fatalf("%q, %v", echoed, err)
	}
	client.Close()
	if rest, err := io.ReadAll(res.Body); string(rest) != "done" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	ask(t, up)
	if b.conns.Load() != 1 {
		t.Errorf("%d connections", b.conns.Load())
	}
}

// TestTransportLate: the time for the answer is over, whether the request had a body or not.
func TestTransportLate(t *testing.T) {
	for _, body := range []io.Reader{nil, strings.NewReader("body"), iotest.OneByteReader(strings.NewReader("body"))} {
		_, up := newSpeaker(t, func(_ int64, _ net.Conn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) })
		_, err := http1.Transport{Upstream: up, Timeout: 20 * time.Millisecond}.RoundTrip(newCall("POST", body))
		var late net.Error
		if !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("got %v", err)
		}
	}
}

// TestTransportTakesItsTime: the time for the head of an answer is not the time for its body, nor for the next answer.
func TestTransportTakesItsTime(t *testing.T) {
	const timeout = 500 * time.Millisecond
	_, up := newSpeaker(t, func(_ int64, c net.Conn, in *bufio.Reader) {
		for _, parts := range [][2]string{{fine[:len(fine)-4], "fine"}, {"", fine}} {
			if _, err := http.ReadRequest(in); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(c, parts[0])
			<-time.After(timeout + timeout/10) // until the time is over
			_, _ = io.WriteString(c, parts[1])
		}
	})
	for _, timeout := range []time.Duration{timeout, 0} {
		res, err := http1.Transport{Upstream: up, Timeout: timeout}.RoundTrip(newCall("GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(res.Body); string(text) != "fine" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		res.Body.Close()
	}
}

// TestTransportContext: whatever an exchange waits for, the end of its context ends it and the connection.
func TestTransportContext(t *testing.T) {
	for _, c := range []struct{ name, says string }{
		{"before the answer", ""},
		{"in its head", "HTTP/1.1 200 OK\r\nX"},
		{"in its body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"},
		{"in the handshake", ""},
	} {
		for _, bodied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,body=%v", c.name, bodied), func(t *testing.T) {
				reached, ended := make(chan bool, 1), make(chan bool, 1)
				_, up := newSpeaker(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
					_, _ = in.Peek(1)
					_, _ = io.WriteString(conn, c.says)
					reached <- true
					_, _ = io.Copy(io.Discard, in)
					ended <- true
				})
				if c.name == "in the handshake" {
					up.TLS = &tls.Config{ServerName: "backend.test"}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				body, client := io.Pipe()
				defer client.Close()
				r := newCall("POST", nil)
				if bodied {
					r = newCall("POST", body)
				}
				go func() {
					<-reached
					if c.name != "in its body" {
						cancel()
					}
				}()
				res, err := http1.Transport{Upstream: up}.RoundTrip(r.WithContext(ctx))
				if c.name == "in its body" {
					if err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(res.Body, make([]byte, 3)); err != nil {
						t.Fatal(err)
					}
					cancel()
					_, err = res.Body.Read(make([]byte, 1))
					if err != context.Canceled {
						t.Errorf("the body ends with %v", err)
					}
					res.Body.Close()
				} else if err != context.Canceled {
					t.Errorf("got %v", err)
				}
				await(t, "the connection has ended", ended)
			})
		}
	}
	t.Run("before all", func(t *testing.T) {
		b, up := newSpeaker(t, answers(fine))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := (http1.Transport{Upstream: up}).RoundTrip(newCall("GET", nil).WithContext(ctx)); err != context.Canceled || b.conns.Load() > 0 {
			t.Errorf("got %v", err)
		}
	})
}

// TestTransportClose: a body that nobody wants any more ends its connection.
func TestTransportClose(t *testing.T) {
	ended := make(chan bool, 1)
	_, up := newSpeaker(t, func(_ int64, c net.Conn, in *bufio.Reader) {
		_, _ = in.Peek(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
		_, _ = io.Copy(io.Discard, in)
		ended <- true
	})
	res, err := http1.Transport{Upstream: up}.RoundTrip(newCall("GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	await(t, "the connection has ended", ended)
	if n, err := res.Body.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("after it %d, %v", n, err)
	}
	res.Body.Close()
}

// TestTransportRepeats: a call that can do no harm twice goes out again if the connection, which was used before, has
// ended without a word. No other does.
func TestTransportRepeats(t *testing.T) {
	for _, c := range []struct {
		method, body, last string // what the connection says last
		again              bool
	}{
		{"GET", "", "", true},
		{"HEAD", "", "", true},
		{"OPTIONS", "", "", true},
		{"TRACE", "", "", true},
		{"GET", "", "HTTP/1.1 200", false},
		{"GET", "", "HTTP/1.1 103 Early Hints\r\n\r\n", false},
		{"GET", "body", "", false},
		{"POST", "", "", false},
		{"DELETE", "", "", false},
	} {
		t.Run(c.method+" "+c.body+c.last, func(t *testing.T) {
			b, up := newSpeaker(t, func(n int64, conn net.Conn, in *bufio.Reader) {
				if n > 1 {
					answers(fine)(n, conn, in)
					return
				}
				for i := range 2 {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(conn, []string{fine, c.last}[i])
				}
			})
			ask(t, up)
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			res, err := http1.Transport{Upstream: up}.RoundTrip(newCall(c.method, body))
			if err == nil {
				res.Body.Close()
			}
			if (err == nil) != c.again || (b.conns.Load() == 2) != c.again {
				t.Errorf("%d connections, %v", b.conns.Load(), err)
			}
		})
	}
}

// TestTransportOnce: a call is not repeated on connections that are new.
func TestTransportOnce(t *testing.T) {
	b, up := newSpeaker(t, func(_ int64, _ net.Conn, in *bufio.Reader) { _, _ = http.ReadRequest(in) })
	if _, err := (http1.Transport{Upstream: up}).RoundTrip(newCall("GET", nil)); err == nil || b.conns.Load() != 1 {
		t.Errorf("%d connections, %v", b.conns.Load(), err)
	}
}

// TestTransportNotReached: whoever was not reached can be told from whoever was. Its call's body can still be sent.
func TestTransportNotReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := &http1.Upstream{Authority: "backend.test", Address: l.Addr().String()}
	l.Close()
	body := &flawedBody{Reader: strings.NewReader("body"), err: io.EOF, closed: make(chan struct{})}
	r := newCall("POST", nil)
	r.Body = body
	_, err = http1.Transport{Upstream: up}.RoundTrip(r)
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		t.Errorf("got %v", err)
	}
	select {
	case <-body.closed:
		t.Error("the body was closed")
	default:
	}

	_, up = newSpeaker(t, answers(fine)) // which speaks no TLS
	up.TLS = &tls.Config{ServerName: "backend.test"}
	_, err = http1.Transport{Upstream: up}.RoundTrip(r)
	if op = nil; err == nil || errors.As(err, &op) && op.Op == "dial" {
		t.Errorf("got %v", err)
	}
	await(t, "the body is closed", body.closed)
}

// TestTransportInterim: what comes before the answer is passed on, but for what only we can have asked for and what is
// for one hop.
func TestTransportInterim(t *testing.T) {
	_, up := newSpeaker(t, answers("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\nConnection: X\r\nX: y\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+fine))
	ask(t, up) // it needs nobody who listens
	r := newCall("GET", nil)
	for _, err := range []error{nil, errors.New("no more")} {
		var got []string
		res, failed := http1.Transport{Upstream: up}.RoundTrip(r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				got = append(got, fmt.Sprint(code, h))
				return err
			},
		})))
		want := []string{"103 map[Link:[a]]", "102 map[]"}
		if err != nil {
			want = want[:1]
		}
		if failed != err || !slices.Equal(got, want) {
			t.Errorf("got %q, %v", got, failed)
		}
		if res != nil {
			res.Body.Close()
		}
	}
}

// TestTransportOverTLS: long messages in both directions over TLS, many times on one connection.
func TestTransportOverTLS(t *testing.T) {
	conns := atomic.Int64{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	up := &http1.Upstream{Authority: "example.com", Address: server.Listener.Addr().String(), TLS: server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	up.TLS.ServerName = "example.com"
	defer up.Close()
	text := strings.Repeat("0123456789abcdef", 10<<10)
	for i := range 20 {
		r := newCall("POST", strings.NewReader(text))
		if i%2 == 0 {
			r.ContentLength = int64(len(text))
		}
		res, err := http1.Transport{Upstream: up, Timeout: time.Minute}.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		if string(got) != text || err != nil {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		res.Body.Close()
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
}
