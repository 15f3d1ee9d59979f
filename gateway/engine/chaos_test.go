//go:build linux

package engine_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// How much chaos there is in each of its tests.
const (
	chaosClients     = 24
	chaosConnections = 4 // of each client, one after the other
)

// TestChaos: clients and servers that leave, cut and hurry as they like mix no answers up, hold nobody up and leave nothing
// behind.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for _, loops := range []int{noLoops, 1, 2} {
		for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("loops=%d/%d", max(loops, 0), version), func(t *testing.T) {
				t.Logf("seed %d", seed)
				newChaos(t, seed, loops, version).run(t)
			})
		}
	}
}

type chaos struct {
	*gate
	seed           uint64
	whole, cut, no atomic.Int64 // answers
}

// newChaos is a gate before a server of many moods, which speaks TLS 1.3 if clients do.
func newChaos(t *testing.T, seed uint64, loops int, version uint16) *chaos {
	var conns atomic.Uint64
	serve := whim(seed, &conns)
	source := newSource
	if version == tls.VersionTLS13 {
		source = newTLSSource
	}
	server := source(t, func(c net.Conn) {
		if version == tls.VersionTLS13 {
			c = serverTLS(c)
		}
		serve(c)
		c.Close()
	})
	return &chaos{gate: newGate(t, setup{servers: []*url.URL{server}, loops: loops, version: version}), seed: seed}
}

func (h *chaos) run(t *testing.T) {
	var all sync.WaitGroup
	for i := range chaosClients {
		all.Go(func() {
			dice := rand.New(rand.NewPCG(h.seed, 1000+uint64(i)))
			for n := range chaosConnections {
				h.connection(t, dice, fmt.Sprintf("%d-%d", i, n))
			}
		})
	}
	all.Wait()
	h.quiet(t)
	t.Logf("%d whole, %d cut, %d refused, of %d", h.whole.Load(), h.cut.Load(), h.no.Load(), h.finished.Load())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.engine.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// connection makes some calls on a new connection.
func (h *chaos) connection(t *testing.T, dice *rand.Rand, name string) {
	tcp, err := net.Dial("tcp", h.listen.Addr().String())
	if err != nil {
		t.Error(err)
		return
	}
	defer tcp.Close()
	_ = tcp.SetDeadline(time.Now().Add(patience))
	cutting := &cutter{Conn: tcp, dice: rand.New(rand.NewPCG(h.seed, dice.Uint64()))}
	var c net.Conn = cutting
	if h.client != nil {
		over := tls.Client(cutting, h.client)
		if err := over.Handshake(); err != nil {
			t.Error(err)
			return
		}
		c = over
	}
	one := newCaller(c, tcp.(*net.TCPConn))
	for n := range 1 + dice.IntN(12) {
		if !h.calls(t, one, cutting, dice, fmt.Sprintf("%s-%d", name, n)) {
			return
		}
	}
}

// A chaosCall is a call and what is to be answered.
type chaosCall struct {
	method, tag string
	refused     bool
}

// calls makes some calls in one go, and reports whether the connection can have more.
func (h *chaos) calls(t *testing.T, c *caller, cutting *cutter, dice *rand.Rand, name string) (more bool) {
	text, list, expects := randomCalls(dice, name)
	leaves := dice.IntN(12) == 0
	if leaves {
		text = text[:dice.IntN(len(text)+1)]
	}
	sent := make(chan struct{})
	pieces, together := rand.New(rand.NewPCG(dice.Uint64(), 1)), dice.IntN(2) == 0
	go func() { // answers may come before all was sent
		defer close(sent)
		say := func() { sayInPieces(c.Conn, text, pieces) }
		if together {
			cutting.together(say)
		} else {
			say()
		}
	}()
	if leaves {
		<-sent
		return false
	}
	for _, a := range list {
		res, err := h.answer(t, c, a, sent)
		if err != nil || res.Close {
			if err != nil {
				h.cut.Add(1)
				if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
					t.Errorf("%s waited in vain", a.tag)
				}
			}
			cutting.Conn.Close()
			<-sent
			return false
		}
	}
	<-sent
	return !expects
}

// answer hears one answer, and holds it against its call.
func (h *chaos) answer(t *testing.T, c *caller, a chaosCall, sent <-chan struct{}) (*http.Response, error) {
	res, err := c.hearHead(a.method)
	if err == nil && res.StatusCode == 100 {
		<-sent
		if _, err = io.WriteString(c.Conn, "hello"); err == nil {
			res, err = c.hearHead(a.method)
		}
	}
	for err == nil && res.StatusCode == 103 {
		res, err = c.hearHead(a.method)
	}
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	tag := res.Header.Get("X-Tag")
	switch {
	case err != nil:
		return nil, err
	case a.refused && res.StatusCode == 404, !a.refused && res.StatusCode == 502:
		h.no.Add(1)
	case a.refused || res.StatusCode/100 != 2 || tag != a.tag:
		t.Errorf("%s was answered %d for %s", a.tag, res.StatusCode, tag)
	case strings.ReplaceAll(string(body), a.tag+";", "") != "":
		t.Errorf("%s: %d bytes with something else", a.tag, len(body))
	case a.method != "HEAD" && res.StatusCode == 200 && len(body) == 0:
		t.Errorf("%s: no body", a.tag)
	case len(res.Trailer) > 0 && res.Trailer.Get("X-End") != a.tag:
		t.Errorf("%s: trailer %v", a.tag, res.Trailer)
	default:
		h.whole.Add(1)
	}
	return res, nil
}

// randomCalls are some calls as they are sent. expects says that the body of the last is not among the text: it is five
// bytes, and sent when the client is told so.
func randomCalls(dice *rand.Rand, name string) (text string, list []chaosCall, expects bool) {
	var b strings.Builder
	last := false
	for k := range 1 + dice.IntN(5)*dice.IntN(2) {
		a := chaosCall{method: []string{"GET", "GET", "GET", "HEAD", "POST", "PUT"}[dice.IntN(6)], tag: fmt.Sprintf("%s-%d", name, k)}
		head := " HTTP/1.1\r\nHost: a\r\nX-Tag: " + a.tag + "\r\n"
		if dice.IntN(20) == 0 {
			head += "X-Big: " + strings.Repeat("y", dice.IntN(40_000)) + "\r\n"
		}
		if dice.IntN(30) == 0 {
			head += "Connection: close\r\n"
			last = true
		}
		target := api + "/x"
		if a.refused = dice.IntN(6) == 0; a.refused {
			target = nowhere
		}
		switch {
		case a.method == "POST" && k == 0 && dice.IntN(4) == 0:
			expects = true
			head += "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
		case a.method == "POST":
			size := dice.IntN(300)
			if dice.IntN(4) == 0 {
				size = dice.IntN(200_000)
			}
			head += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, strings.Repeat("b", size))
		case a.method == "PUT":
			head += "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
			for range dice.IntN(6) {
				size := 1 + dice.IntN(20_000)
				head += fmt.Sprintf("%x\r\n%s\r\n", size, strings.Repeat("c", size))
			}
			head += "0\r\nX-T: v\r\n\r\n"
		default:
			head += "\r\n"
		}
		b.WriteString(a.method + " " + target + head)
		if list = append(list, a); last || expects {
			break
		}
	}
	return b.String(), list, expects
}

// sayInPieces writes a text in pieces of any size.
func sayInPieces(w io.Writer, text string, dice *rand.Rand) {
	for text != "" {
		k := len(text)
		if dice.IntN(2) == 0 {
			k = 1 + dice.IntN(len(text))
		}
		if _, err := io.WriteString(w, text[:k]); err != nil {
			return
		}
		text = text[k:]
	}
}

// A cutter sends what it is given in pieces of any size, or several writes together.
type cutter struct {
	net.Conn
	mu   sync.Mutex
	dice *rand.Rand
	kept []byte
	keep bool
}

func (c *cutter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keep {
		c.kept = append(c.kept, p...)
		return len(p), nil
	}
	n := len(p)
	p = append(c.kept, p...)
	c.kept = nil
	for len(p) > 0 {
		k := len(p)
		switch c.dice.IntN(4) {
		case 0:
			k = min(k, 1+c.dice.IntN(8))
		case 1:
			k = min(k, 1+c.dice.IntN(20_000))
		}
		if _, err := c.Conn.Write(p[:k]); err != nil {
			return 0, err
		}
		p = p[k:]
		runtime.Gosched()
	}
	return n, nil
}

// together writes all at once that do writes.
func (c *cutter) together(do func()) {
	c.mu.Lock()
	c.keep = true
	c.mu.Unlock()
	do()
	c.mu.Lock()
	c.keep = false
	c.mu.Unlock()
	_, _ = c.Write(nil)
}

// whim is a server of many moods. Whatever it answers carries the tag, and in the body too, of what it was asked.
func whim(seed uint64, n *atomic.Uint64) func(net.Conn) {
	return func(c net.Conn) {
		dice := rand.New(rand.NewPCG(seed, n.Add(1)))
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			mood := dice.IntN(24)
			if mood == 0 {
				return // before the head
			}
			early := mood == 1
			if !early {
				if _, err = io.Copy(io.Discard, req.Body); err != nil {
					return
				}
			}
			out := whimsical(dice, mood, req)
			if mood == 13 {
				_, _ = io.WriteString(c, out[:dice.IntN(len(out))])
				return
			}
			for out != "" {
				k := len(out)
				if dice.IntN(3) == 0 {
					k = 1 + dice.IntN(len(out))
				}
				if _, err := io.WriteString(c, out[:k]); err != nil {
					return
				}
				out = out[k:]
				runtime.Gosched()
			}
			if mood == 14 || early {
				return // between calls, or in the middle of the request
			}
		}
	}
}

// whimsical is the answer to a request in a mood.
func whimsical(dice *rand.Rand, mood int, req *http.Request) string {
	tag := req.Header.Get("X-Tag")
	size := dice.IntN(200)
	switch dice.IntN(8) {
	case 0:
		size = dice.IntN(300_000)
	case 1:
		size = 0
	}
	body := strings.Repeat(tag+";", size/(len(tag)+1)+1)
	head := "HTTP/1.1 200 OK\r\nX-Tag: " + tag + "\r\n"
	switch {
	case mood == 2:
		head += "X-Big: " + strings.Repeat("x", 30_000) + "\r\n"
	case mood == 3:
		head = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + head
	case mood == 4:
		return "HTTP/1.1 204 No\r\nX-Tag: " + tag + "\r\n\r\n"
	}
	var chunks strings.Builder
	if mood < 12 {
		head += "Transfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n"
		for rest := body; rest != ""; {
			k := 1 + dice.IntN(len(rest))
			fmt.Fprintf(&chunks, "%x\r\n%s\r\n", k, rest[:k])
			rest = rest[k:]
		}
		body = chunks.String() + "0\r\nX-End: " + tag + "\r\n\r\n"
	} else {
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))
	}
	if req.Method == "HEAD" {
		return head
	}
	return head + body
}
