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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

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

// newCall is a call with an upstream, perhaps with a body in chunks. It is closed at the end of the test.
func newCall(t *testing.T, method string, body io.Reader) *http1.Exchange {
	x := &http1.Exchange{Context: t.Context(), Method: method, Length: http1.Unstated}
	x.Head = func(b []byte, u *http1.Upstream) []byte {
		return fmt.Appendf(b, "%s /x HTTP/1.1\r\nHost: %s\r\n", x.Method, u.Authority)
	}
	if body != nil {
		x.Body, x.Length = body, http1.InChunks
	}
	return x
}

// send sends the call to one upstream.
func send(x *http1.Exchange, up *http1.Upstream) error { return x.Send([]*http1.Upstream{up}, 0) }

// rest is what is left of the answer's body, and how it ends.
func rest(x *http1.Exchange) (text string, err error) {
	for err == nil {
		var part []byte
		part, err = x.Next()
		text += string(part)
	}
	if err == io.EOF {
		err = nil
	}
	return text, err
}

// ask makes a call, and expects the answer to be fine.
func ask(t *testing.T, up *http1.Upstream) {
	t.Helper()
	x := newCall(t, "GET", nil)
	defer x.Close()
	if err := send(x, up); err != nil {
		t.Fatal(err)
	}
	if text, err := rest(x); text != "fine" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// TestExchangeAnswers: an answer comes as it was sent, whole or with an error, and only a connection that is in order
// carries another call.
func TestExchangeAnswers(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
	long := strings.Repeat("0123456789abcdef", 20<<10)
	for _, c := range []struct {
		name, method, text string
		status             int
		length             int64
		body               string
		trailers           []http1.Field
		err                error // of the body
		reused             bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, 3, "abc", nil, nil, true},
		{"long", "GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(long), long), 200, int64(len(long)), long, nil, nil, true},
		{"no reason", "GET", "HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", 299, 0, "", nil, nil, true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, 0, "", nil, nil, true},
		{"HEAD of any length", "HEAD", chunked + "\r\n", 200, 0, "", nil, nil, true},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, 0, "", nil, nil, true},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, 0, "", nil, nil, true},
		{"chunks", "GET", chunked + "\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", 200, http1.InChunks, "abcd", nil, nil, true},
		{"no chunk", "GET", chunked + "\r\n0\r\n\r\n", 200, http1.InChunks, "", nil, nil, true},
		{"long chunks", "GET", chunked + "\r\n" + strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", len(long)/4, long[:len(long)/4]), 4) + "0\r\n\r\n", 200, http1.InChunks, long, nil, nil, true},
		{"trailers", "GET", chunked + "Trailer: x-a, X-B\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\nx-c: 2\r\n\r\n", 200, http1.InChunks, "abc", []http1.Field{{Name: "X-A", Value: "1"}, {Name: "x-c", Value: "2"}}, nil, true},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", 200, 3, "abc", nil, nil, false},
		{"until close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", 200, http1.UntilClose, "abc", nil, nil, false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, 3, "abc", nil, nil, false},
		{"204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", 204, 0, "", nil, nil, false},
		{"more than the length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + fine, 200, 3, "abc", nil, nil, false},
		{"more than the chunks", "GET", chunked + "\r\n3\r\nabc\r\n0\r\n\r\n" + fine, 200, http1.InChunks, "abc", nil, nil, false},
		{"more than none", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + fine, 200, 0, "", nil, nil, false},
		{"less than the length", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabc", 200, 5, "abc", nil, io.ErrUnexpectedEOF, false},
		{"chunks without an end", "GET", chunked + "Connection: close\r\n\r\n3\r\nabc\r\n", 200, http1.InChunks, "abc", nil, io.ErrUnexpectedEOF, false},
		{"a chunk that is none", "GET", chunked + "\r\n3\r\nabc\r\nxyz\r\n", 200, http1.InChunks, "abc", nil, new(http1.Error), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, up := newSpeaker(t, answers(c.text, fine))
			x := newCall(t, c.method, nil)
			x.Timeout = time.Minute
			if err := send(x, up); err != nil {
				t.Fatal(err)
			}
			if x.Response.Status != c.status || x.Response.Length != c.length || x.Upstream != up {
				t.Errorf("the answer is %+v", x.Response)
			}
			text, err := rest(x)
			if text != c.body {
				t.Errorf("the body is %.100q", text)
			}
			if c.err == nil && err != nil || c.err == io.ErrUnexpectedEOF && err != c.err || errors.As(c.err, new(*http1.Error)) != errors.As(err, new(*http1.Error)) {
				t.Errorf("the body ends with %v", err)
			}
			if p, again := x.Next(); len(p) > 0 || again == nil || err == nil && again != io.EOF {
				t.Errorf("then %d, %v", len(p), again)
			}
			if !slices.Equal(x.Trailers(), c.trailers) {
				t.Errorf("trailers %q", x.Trailers())
			}
			x.Close()
			ask(t, up)
			if got := b.conns.Load() == 1; got != c.reused {
				t.Errorf("%d connections", b.conns.Load())
			}
		})
	}
}

// TestExchangeRefusesAnswers: what is no answer is an error, and its connection carries nothing more.
func TestExchangeRefusesAnswers(t *testing.T) {
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
			x := newCall(t, "GET", nil)
			if err := send(x, up); err == nil {
				t.Errorf("status %d", x.Response.Status)
			}
			x.Close()
			ask(t, up)
			if b.conns.Load() != 2 {
				t.Errorf("%d connections", b.conns.Load())
			}
		})
	}
}

// TestExchangeRequests: a request is framed by us.
func TestExchangeRequests(t *testing.T) {
	for _, c := range []struct {
		name, method string
		body         io.Reader
		length       int64
		trailer      http.Header
		want         string // behind the head that was given
	}{
		{"nothing", "GET", nil, http1.Unstated, nil, "\r\n"},
		{"none is told", "DELETE", nil, 0, nil, "Content-Length: 0\r\n\r\n"},
		{"none is always told", "POST", nil, http1.Unstated, nil, "Content-Length: 0\r\n\r\n"},
		{"length", "GET", strings.NewReader("abc"), 3, http.Header{"X": {"1"}}, "Content-Length: 3\r\n\r\nabc"},
		{"chunks", "PUT", strings.NewReader("abc"), http1.InChunks, http.Header{"X": {"1", "2"}}, "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\nX: 2\r\n\r\n"},
		{"no chunk", "PUT", strings.NewReader(""), http1.InChunks, nil, "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.method + " /x HTTP/1.1\r\nHost: backend.test\r\n" + c.want
			got := make(chan string, 1)
			_, up := newSpeaker(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
				head := make([]byte, len(want))
				_, _ = io.ReadFull(in, head)
				got <- string(head)
				_, _ = io.WriteString(conn, fine)
				_, _ = in.Peek(1)
				if in.Buffered() > 0 {
					t.Error("there is more of it")
				}
			})
			x := newCall(t, c.method, nil)
			x.Body, x.Length, x.Trailer = c.body, c.length, c.trailer
			if err := send(x, up); err != nil {
				t.Fatal(err)
			}
			_, _ = rest(x)
			x.Close()
			if head := await(t, "a request", got); head != want {
				t.Errorf("the backend got\n%s", head)
			}
		})
	}
}

// A flawedBody gives some bytes, and then an error, or panics if that is nil.
type flawedBody struct {
	io.Reader
	err error
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

// TestExchangeBadBody: a body that cannot be had whole is never taken for one that was, and the caller is told why.
func TestExchangeBadBody(t *testing.T) {
	flaw := errors.New("a flaw")
	for _, c := range []struct {
		name   string
		length int64
		err    error
	}{
		{"chunks", http1.InChunks, flaw},
		{"length", 9, flaw},
		{"less than the length", 9, io.EOF},
		{"more than the length", 3, io.EOF},
		{"a panic", http1.InChunks, nil},
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
			x := newCall(t, "POST", &flawedBody{Reader: strings.NewReader("abcd"), err: c.err})
			x.Length = c.length
			panicked := any(nil)
			err := func() error {
				defer func() { panicked = recover() }()
				return send(x, up)
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
			x.Close()
		})
	}
}

// TestExchangeEarlyAnswer: an answer may come, and end, before the request's body has ended. The time for it has not
// begun by then.
func TestExchangeEarlyAnswer(t *testing.T) {
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
	x := newCall(t, "POST", body)
	x.Timeout = time.Nanosecond
	if err := send(x, up); err != nil {
		t.Fatal(err)
	}
	if text, err := rest(x); text != "fine" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if !x.Sending() {
		t.Error("nobody waits for the rest of the body")
	}
	client.Close() // whose bytes nobody wants any more
	x.Close()
	ask(t, up)
	if b.conns.Load() != 2 {
		t.Error("a connection was used again on which half a request stands")
	}
}

// TestExchangeBothWays: both bodies flow at a time, and the end of the request does not bound the time for the answer's
// body. Then the connection is as good as new.
func TestExchangeBothWays(t *testing.T) {
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
	x := newCall(t, "POST", body)
	defer x.Close()
	x.Timeout = time.Nanosecond
	if err := send(x, up); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client, "echo"); err != nil {
		t.Fatal(err)
	}
	var echoed string
	for len(echoed) < 4 {
		part, err := x.Next()
		if err != nil {
			t.Fatal(err)
		}
		echoed += string(part)
	}
	if x.Ready() {
		t.Error("more has come")
	}
	client.Close()
	if text, err := rest(x); echoed+text != "echodone" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	ask(t, up)
	if b.conns.Load() != 1 {
		t.Errorf("%d connections", b.conns.Load())
	}
}

// TestExchangeLate: the time for the answer is over, whether the request had a body or not.
func TestExchangeLate(t *testing.T) {
	for _, body := range []io.Reader{nil, strings.NewReader("body"), iotest.OneByteReader(strings.NewReader("body"))} {
		_, up := newSpeaker(t, func(_ int64, _ net.Conn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) })
		x := newCall(t, "POST", body)
		x.Timeout = 20 * time.Millisecond
		err := send(x, up)
		x.Close()
		var late net.Error
		if !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("got %v", err)
		}
	}
}

// TestExchangeTakesItsTime: the time for the head of an answer is not the time for its body, nor for the next answer.
func TestExchangeTakesItsTime(t *testing.T) {
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
		x := newCall(t, "GET", nil)
		x.Timeout = timeout
		if err := send(x, up); err != nil {
			t.Fatal(err)
		}
		if text, err := rest(x); text != "fine" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		x.Close()
	}
}

// TestExchangeContext: whatever an exchange waits for, the end of its context ends it and the connection.
func TestExchangeContext(t *testing.T) {
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
				x := newCall(t, "POST", nil)
				if bodied {
					x = newCall(t, "POST", body)
				}
				defer x.Close()
				defer client.Close()
				x.Context = ctx
				go func() {
					<-reached
					if c.name != "in its body" {
						cancel()
					}
				}()
				err := send(x, up)
				if c.name == "in its body" {
					if err != nil {
						t.Fatal(err)
					}
					for text := ""; len(text) < 3; {
						part, err := x.Next()
						if err != nil {
							t.Fatal(err)
						}
						text += string(part)
					}
					cancel()
					_, err = x.Next()
				}
				if err != context.Canceled {
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
		x := newCall(t, "GET", nil)
		x.Context = ctx
		if err := send(x, up); err != context.Canceled || b.conns.Load() > 0 {
			t.Errorf("got %v", err)
		}
		x.Close()
	})
}

// TestExchangeClose: a body that nobody wants any more ends its connection.
func TestExchangeClose(t *testing.T) {
	ended := make(chan bool, 1)
	_, up := newSpeaker(t, func(_ int64, c net.Conn, in *bufio.Reader) {
		_, _ = in.Peek(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
		_, _ = io.Copy(io.Discard, in)
		ended <- true
	})
	x := newCall(t, "GET", nil)
	if err := send(x, up); err != nil {
		t.Fatal(err)
	}
	x.Close()
	await(t, "the connection has ended", ended)
}

// TestExchangeBreak: a call that is broken off ends wherever it is, and is not made again.
func TestExchangeBreak(t *testing.T) {
	for _, says := range []string{"", "HTTP/1.1 200 OK\r\nX", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"} {
		t.Run(says, func(t *testing.T) {
			reached := make(chan bool, 1)
			b, up := newSpeaker(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				_, _ = io.WriteString(conn, fine) // the connection is used once more
				_, _ = in.Peek(1)
				_, _ = io.WriteString(conn, says)
				reached <- true
				_, _ = io.Copy(io.Discard, in)
			})
			ask(t, up)
			x := newCall(t, "GET", nil)
			var breaker sync.WaitGroup
			breaker.Go(func() {
				<-reached
				x.Break()
			})
			err := send(x, up)
			if err == nil {
				_, err = rest(x)
			}
			if err == nil || b.conns.Load() != 1 {
				t.Errorf("%v, %d connections", err, b.conns.Load())
			}
			breaker.Wait()
			if err := send(x, up); err == nil {
				t.Error("then it was answered")
			}
			x.Close()
		})
	}
}

// TestExchangeRepeats: a call that can do no harm twice goes out again if the connection, which was used before, has
// ended without a word. No other does.
func TestExchangeRepeats(t *testing.T) {
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
			x := newCall(t, c.method, body)
			err := send(x, up)
			x.Close()
			if (err == nil) != c.again || (b.conns.Load() == 2) != c.again {
				t.Errorf("%d connections, %v", b.conns.Load(), err)
			}
		})
	}
}

// TestExchangeOnce: a call is not repeated on connections that are new.
func TestExchangeOnce(t *testing.T) {
	b, up := newSpeaker(t, func(_ int64, _ net.Conn, in *bufio.Reader) { _, _ = http.ReadRequest(in) })
	x := newCall(t, "GET", nil)
	defer x.Close()
	if err := send(x, up); err == nil || b.conns.Load() != 1 {
		t.Errorf("%d connections, %v", b.conns.Load(), err)
	}
}

// TestExchangeNotReached: another upstream is asked if one was not reached, and none if one was. Then the body can still be
// sent.
func TestExchangeNotReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := &http1.Upstream{Authority: "closed.test", Address: l.Addr().String()}
	l.Close()
	_, up := newSpeaker(t, answers(fine))
	other := &http1.Upstream{Authority: "other.test", Address: up.Address, TLS: &tls.Config{ServerName: "other.test"}} // it speaks no TLS
	for _, c := range []struct {
		name  string
		list  []*http1.Upstream
		first int
		asked *http1.Upstream
		dial  bool // the error is that of a dial
	}{
		{"nobody", []*http1.Upstream{closed, closed}, 1, closed, true},
		{"the next one", []*http1.Upstream{closed, up}, 0, up, false},
		{"the one after the last", []*http1.Upstream{up, closed, closed}, 1, up, false},
		{"no further after a handshake", []*http1.Upstream{other, up}, 2, other, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newCall(t, "POST", strings.NewReader("body"))
			defer x.Close()
			err := x.Send(c.list, c.first)
			var op *net.OpError
			if dial := errors.As(err, &op) && op.Op == "dial"; x.Upstream != c.asked || dial != c.dial || (err == nil) != (c.asked == up) {
				t.Errorf("%s, %v", x.Upstream.Authority, err)
			}
		})
	}
}

// TestExchangeInterim: what comes before the answer is passed on, but for what only we can have asked for and what is
// for one hop.
func TestExchangeInterim(t *testing.T) {
	_, up := newSpeaker(t, answers("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\nConnection: X\r\nX: y\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+fine))
	ask(t, up) // it needs nobody who listens
	for _, err := range []error{nil, errors.New("no more")} {
		var got []string
		x := newCall(t, "GET", nil)
		x.Interim = func(res *http1.Response) error {
			link, _ := res.First("Link")
			got = append(got, fmt.Sprint(res.Status, link))
			return err
		}
		failed := send(x, up)
		x.Close()
		want := []string{"103a", "102"}
		if err != nil {
			want = want[:1]
		}
		if failed != err || !slices.Equal(got, want) {
			t.Errorf("got %q, %v", got, failed)
		}
	}
}

// TestExchangeOverTLS: long messages in both directions over TLS, many on one connection.
func TestExchangeOverTLS(t *testing.T) {
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
		x := newCall(t, "POST", strings.NewReader(text))
		if i%2 == 0 {
			x.Length = int64(len(text))
		}
		x.Timeout = time.Minute
		if err := send(x, up); err != nil {
			t.Fatal(err)
		}
		if got, err := rest(x); got != text || err != nil {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		x.Close()
	}
	// An answer that is read before the sender has noted its own end, which it may be now and then, costs the connection.
	if n := conns.Load(); n > 10 {
		t.Errorf("%d connections for 20 calls", n)
	}
}
