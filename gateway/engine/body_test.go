//go:build linux

package engine_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/gateway/decision"
	"sallyport/gateway/engine"
)

// TestEarlyAnswerToAStuckUpload: a server that answers before the end of the request, and reads no more, holds nobody up.
func TestEarlyAnswerToAStuckUpload(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first=%v", first), func(t *testing.T) {
			deaf, stuck := make(chan net.Conn, 1), make(chan struct{})
			g := newGate(t, setup{servers: []*url.URL{newSource(t, func(c net.Conn) {
				speak(c, func(req *http.Request) bool {
					if req.Method != "POST" {
						return say(c, "", "ok")
					}
					deaf <- c
					<-stuck
					_, _ = io.WriteString(c, "HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
					<-t.Context().Done() // open, and not read
					return false
				})
			})}})
			c := g.call(t)
			if !first {
				c.settle(t)
			}
			before := g.quiet(t)
			c.say(t, request("POST", "/up", "Content-Length: 1000000000\r\n", ""))
			var sending sync.WaitGroup
			defer sending.Wait()
			defer c.Conn.Close()
			sending.Go(func() {
				some := make([]byte, 64<<10)
				for {
					if _, err := c.Conn.Write(some); err != nil {
						return
					}
				}
			})
			fd := gateEnd(await(t, "the upload", deaf))
			looks := 0
			within(t, "neither the server's socket nor ours takes any more", func() bool {
				if looks++; !full(fd) || !isFull(c.tcp) {
					looks = 0
				}
				return looks > 20
			})
			close(stuck)
			if r, err := c.hear("POST"); r.status != 413 {
				t.Fatal(r.status, err)
			}
			within(t, "the call ends", func() bool { return g.finished.Load() > before })
		})
	}
}

// A gatherer is a connection that keeps what is written once it has been written to and then read, until release.
type gatherer struct {
	net.Conn
	wrote, keeps bool
	kept         []byte
}

func (g *gatherer) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	g.keeps = g.keeps || g.wrote
	return n, err
}

func (g *gatherer) Write(p []byte) (int, error) {
	if g.wrote = true; !g.keeps {
		return g.Conn.Write(p)
	}
	g.kept = append(g.kept, p...)
	return len(p), nil
}

func (g *gatherer) release() error {
	_, err := g.Conn.Write(g.kept)
	return err
}

// TestContinueAfterTheAnswer: a client that was answered is not told to go on.
func TestContinueAfterTheAnswer(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	begun := make(chan struct{})
	g := newGate(t, setup{servers: []*url.URL{newTLSSource(t, func(c net.Conn) {
		// The answer, but for its last byte, comes together with the end of the handshake, as if the engine had been held up after it had sent the
		// head: it is there before the engine looks for it.
		gathered := &gatherer{Conn: c}
		over := tls.Server(gathered, &tls.Config{Certificates: []tls.Certificate{ourCertificate()}, MaxVersion: tls.VersionTLS12})
		if over.Handshake() != nil {
			return
		}
		_, _ = io.WriteString(over, "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nn")
		if gathered.release() != nil {
			return
		}
		gathered.keeps, gathered.wrote = false, false
		<-begun // so that the upload, too, has its turn before the answer is over
		_, _ = io.WriteString(over, "o")
		_, _ = io.Copy(io.Discard, c)
	})}})
	for range 20 {
		c := g.call(t)
		c.say(t, request("POST", "/up", "Expect: 100-continue\r\nContent-Length: 1000\r\n", ""))
		var all strings.Builder
		for one := make([]byte, 1); !strings.HasSuffix(all.String(), "\r\n\r\nn"); {
			if _, err := c.Read(one); err != nil {
				t.Fatalf("%q, %v", all.String(), err)
			}
			all.Write(one)
		}
		begun <- struct{}{}
		_, _ = io.Copy(&all, c)
		_, after, answered := strings.Cut(all.String(), "HTTP/1.1 403 Forbidden\r\n")
		if !answered || !strings.HasSuffix(after, "\r\n\r\nno") {
			t.Fatalf("%q", all.String())
		}
		c.Conn.Close()
	}
}

// TestContinue: a client that waits to be told so sends its body, whoever has the connection.
func TestContinue(t *testing.T) {
	for _, settled := range []bool{false, true} {
		t.Run(fmt.Sprintf("loop=%v", settled), func(t *testing.T) {
			g := newGate(t, setup{servers: []*url.URL{newSource(t, echo)}})
			c := g.call(t)
			if settled {
				c.settle(t)
			}
			for range 3 {
				c.say(t, request("POST", "/up", "Expect: 100-continue\r\nContent-Length: 5\r\n", ""))
				if res, err := c.hearHead("POST"); err != nil || res.StatusCode != 100 {
					t.Fatal(res, err)
				}
				c.say(t, "hello")
				c.expect(t, 200, "/uphello")
			}
		})
	}
}

// TestClientThatTakesNothing: the rate holds for what a loop could not send at once, too.
func TestClientThatTakesNothing(t *testing.T) {
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			big := strings.Repeat("b", 48<<10)
			g := newGate(t, setup{
				version: version,
				terms:   func(terms *engine.Terms) { terms.BodyRate, terms.BodyGrace = 1<<20, 300*time.Millisecond },
				servers: []*url.URL{newSource(t, func(c net.Conn) {
					speak(c, func(*http.Request) bool { return say(c, "", big) })
				})},
			})
			c := g.call(t)
			c.ask(t, "/one")
			c.say(t, strings.Repeat(get("/big"), 1000)) // 48 MB of answers
			within(t, "the call of a client that takes nothing fails", func() bool {
				return g.refused(decision.ClientGone)+int(g.cut.Load()) > 0
			})
		})
	}
}

// TestAnswerWithRest: what a client does not take at once of an answer that the loop has whole, it gets later, and then
// the connection goes on.
func TestAnswerWithRest(t *testing.T) {
	for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			big := strings.Repeat("0123456789", 4<<10)
			asked, mayAnswer := make(chan net.Conn, 1), make(chan struct{})
			g := newGate(t, setup{version: version, servers: []*url.URL{newSource(t, func(c net.Conn) {
				speak(c, func(req *http.Request) bool {
					if req.URL.Path != "/big" {
						return say(c, "", req.URL.Path)
					}
					asked <- c
					<-mayAnswer
					return say(c, "", big)
				})
			})}})
			holder, c := g.call(t), g.callBy(t, &net.Dialer{Control: narrowReader})
			holder.settle(t)
			c.settle(t)
			narrow(t, c.tcp)
			c.say(t, get("/big"))
			server := await(t, "the call", asked)
			g.occupy(t, holder) // so that the loop finds the whole answer
			close(mayAnswer)
			within(t, "the answer is there", func() bool { return unread(server) == len(answer("", big)) })
			g.release()
			within(t, "a goroutine sends the rest", func() bool { return running("engine.(*loop).sendRest") })
			c.expect(t, 200, big)
			c.settle(t)
			holder.expect(t, 403, "")
			holder.settle(t)
		})
	}
}

// A deafness makes servers stop reading.
type deafness struct {
	mu    sync.Mutex
	conns []net.Conn
	ended chan struct{} // closed when they may read; nil: they may
}

type deafConn struct {
	net.Conn
	*deafness
}

// over is a connection under the deafness.
func (d *deafness) over(c net.Conn) net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, c)
	return &deafConn{c, d}
}

// Read implements net.Conn. A read that waits when the deafness begins may take something yet.
func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return n, err
}

// begin begins the deafness, of connections to each of which something is done.
func (d *deafness) begin(do func(net.Conn)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = make(chan struct{})
	for _, c := range d.conns {
		do(c)
	}
}

func (d *deafness) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended != nil {
		close(d.ended)
		d.ended = nil
	}
}

// TestRequestWithRest: what a server does not take at once of a request that the loop has whole, it gets later.
func TestRequestWithRest(t *testing.T) {
	for _, overTLS := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", overTLS), func(t *testing.T) {
			var deaf deafness
			scheme := "http"
			if overTLS {
				scheme = "https"
			}
			g := newGate(t, setup{servers: []*url.URL{newSourceBy(t, scheme, net.ListenConfig{Control: narrowReader}, func(c net.Conn) {
				c = deaf.over(c)
				if overTLS {
					c = serverTLS(c)
				}
				speak(c, func(req *http.Request) bool {
					body, err := io.ReadAll(req.Body)
					return err == nil && say(c, "", req.Header.Get("X-Big")+string(body))
				})
			})}})
			t.Cleanup(deaf.end)
			c, holder := g.call(t), g.call(t)
			c.settle(t)
			holder.say(t, refusedRequest) // and no other connection to the server
			holder.expect(t, 404, "")
			deaf.begin(func(c net.Conn) { narrow(t, c) })
			g.occupy(t, holder) // so that the loop finds the whole request
			header, body := strings.Repeat("h", 30<<10), strings.Repeat("b", 20<<10)
			text := request("POST", "/big", "X-Big: "+header+"\r\nContent-Length: "+fmt.Sprint(len(body))+"\r\n", body)
			c.say(t, text)
			within(t, "the request is there", func() bool { return unread(c.tcp) == len(text) })
			g.release()
			within(t, "a goroutine sends the rest", func() bool { return running("backend.(*Trip).Resume") })
			deaf.end()
			c.expect(t, 200, header+body)
			holder.expect(t, 403, "")
			c.say(t, request("POST", "/small", "Content-Length: 5\r\n", "hello"))
			c.expect(t, 200, "hello")
		})
	}
}
