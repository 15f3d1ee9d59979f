//go:build linux

package engine_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/decision"
)

// TestPanicInObserve: a panic of the observer harms nobody, not even its call, nor does one in the log besides.
func TestPanicInObserve(t *testing.T) {
	for _, at := range []string{"goroutine", "loop", "refusal", "refusal on the loop"} {
		for _, logPanics := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/log=%v", at, logPanics), func(t *testing.T) {
				log := &logbook{panicky: logPanics}
				g := newGate(t, setup{
					servers: []*url.URL{newSource(t, echo)}, log: log,
					observe: func(x *decision.Exchange) {
						if v := x.Request.Values("X-Panic"); len(v) > 0 {
							panic("in Observe")
						}
					},
				})
				c := g.call(t)
				if at == "loop" || at == "refusal on the loop" {
					c.settle(t)
				}
				before := g.quiet(t)
				if at == "goroutine" || at == "loop" {
					c.say(t, request("GET", "/call", "X-Panic: 1\r\n", ""))
					c.expect(t, 200, "/call")
				} else {
					c.say(t, "GET "+nowhere+" HTTP/1.1\r\nHost: a\r\nX-Panic: 1\r\n\r\n")
					c.expect(t, 404, "")
				}
				if got := c.ask(t, "/again"); got != "/again" {
					t.Errorf("the next call: %q", got)
				}
				if got := g.call(t).ask(t, "/other"); got != "/other" {
					t.Errorf("another client: %q", got)
				}
				g.end(t)
				if n := g.finished.Load() - before; n != 3 {
					t.Errorf("%d calls were observed, want 3", n)
				}
				if log.panics.Load() == 0 {
					t.Error("the log does not say so")
				}
			})
		}
	}
}

// TestPanicInTheDecision: the call is answered with 500, its connection ends, and nobody else's does.
func TestPanicInTheDecision(t *testing.T) {
	for _, token := range []string{"panic", "unknown-panic"} {
		for _, settled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/loop=%v", token, settled), func(t *testing.T) {
				g := newGate(t, setup{servers: []*url.URL{newSource(t, echo)}})
				c, other := g.call(t), g.call(t)
				other.settle(t)
				if settled {
					c.settle(t)
				}
				c.say(t, withToken(token)+get("/never"))
				if r := c.expect(t, 500, ""); !r.last {
					t.Error("the answer does not end the connection")
				}
				c.ended(t)
				if got := other.ask(t, "/other"); got != "/other" {
					t.Errorf("another client: %q", got)
				}
				g.end(t)
				if n := g.panics.Load(); n != 1 {
					t.Errorf("the log tells of %d panics", n)
				}
				if n := g.refused(decision.Internal); n != 1 {
					t.Errorf("%d calls have failed", n)
				}
			})
		}
	}
}

// A clock panics once when it is armed. The engine asks for the time last when it renders the head of an answer.
type clock struct{ armed atomic.Bool }

func (c *clock) now() time.Time {
	if c.armed.CompareAndSwap(true, false) {
		panic("in Now")
	}
	return time.Now()
}

// TestPanicInTheAnswer: a call whose answer panics before anything of it was sent is answered with 500.
func TestPanicInTheAnswer(t *testing.T) {
	for _, settled := range []bool{false, true} {
		t.Run(fmt.Sprintf("loop=%v", settled), func(t *testing.T) {
			var broken clock
			g := newGate(t, setup{now: broken.now, servers: []*url.URL{newSource(t, func(c net.Conn) {
				speak(c, func(req *http.Request) bool {
					if req.URL.Path == "/panic" {
						broken.armed.Store(true)
					}
					return say(c, "", req.URL.Path)
				})
			})}})
			c, other := g.call(t), g.call(t)
			other.settle(t)
			if settled {
				c.settle(t)
			}
			c.say(t, get("/panic"))
			if r := c.expect(t, 500, ""); !r.last {
				t.Error("the answer does not end the connection")
			}
			c.ended(t)
			for range 3 {
				if got := other.ask(t, "/other"); got != "/other" {
					t.Errorf("another client: %q", got)
				}
			}
			g.end(t)
			if n := g.refused(decision.Internal); n != 1 {
				t.Errorf("%d calls have failed", n)
			}
		})
	}
}

// TestPanicDuringUpload: what a call lends to its upload is not lent to others before that has ended.
func TestPanicDuringUpload(t *testing.T) {
	const calls = 20
	var there, panics atomic.Int64
	all := make(chan struct{})
	var armed atomic.Bool
	g := newGate(t, setup{
		now: func() time.Time {
			if armed.Load() {
				panics.Add(1)
				panic("in Now")
			}
			return time.Now()
		},
		servers: []*url.URL{newSource(t, func(c net.Conn) {
			r := bufio.NewReader(c)
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			if there.Add(1) == calls {
				armed.Store(true) // from now on the only times that are asked for are those of answers
				close(all)
			}
			<-all
			say(c, "", "ok")
			_, _ = io.Copy(io.Discard, r)
		})},
	})
	var sending sync.WaitGroup
	for range calls {
		c := g.call(t)
		c.say(t, request("POST", "/up", "Transfer-Encoding: chunked\r\n", ""))
		sending.Go(func() {
			for { // until the connection ends
				if _, err := io.WriteString(c.Conn, "5\r\nhello\r\n"); err != nil {
					return
				}
			}
		})
	}
	sending.Wait()
	within(t, "all calls end", func() bool { return g.finished.Load() == calls })
	if n := g.refused(decision.Internal); n != calls || panics.Load() < calls {
		t.Errorf("%d calls have failed, after %d panics", n, panics.Load())
	}
}

// TestCallsAfterAPanic: the memory of a call that has panicked carries others like any.
func TestCallsAfterAPanic(t *testing.T) {
	for _, where := range []string{"decision", "wait", "answer", "upload"} {
		for _, settled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/loop=%v", where, settled), func(t *testing.T) {
				var broken clock
				var mu sync.Mutex
				var panicked map[*decision.Exchange]bool
				reused := 0
				g := newGate(t, setup{
					now: broken.now,
					servers: []*url.URL{newSource(t, func(c net.Conn) {
						r := bufio.NewReader(c)
						for {
							req, err := http.ReadRequest(r)
							if err != nil {
								return
							}
							if req.URL.Path == "/panic" {
								broken.armed.Store(true)
							} else if text, err := io.ReadAll(req.Body); err != nil || !say(c, "", req.URL.Path+string(text)) {
								return
							} else {
								continue
							}
							say(c, "", "never")
							_, _ = io.Copy(io.Discard, r)
							return
						}
					})},
					observe: func(x *decision.Exchange) {
						mu.Lock()
						defer mu.Unlock()
						if x.Status == 500 {
							if panicked == nil {
								panicked = map[*decision.Exchange]bool{}
							}
							panicked[x] = true
						} else if panicked[x] {
							reused++
						}
					},
				})
				other := g.call(t)
				other.settle(t)
				breakOne := func() {
					c := g.call(t)
					if settled {
						c.settle(t)
					}
					switch where {
					case "decision":
						c.say(t, withToken("panic"))
					case "wait":
						c.say(t, withToken("unknown-panic"))
					case "answer":
						c.say(t, get("/panic"))
					case "upload":
						c.say(t, request("POST", "/panic", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"))
					}
					c.expect(t, 500, "")
				}
				breakOne()
				// Memory is lent at random, so some calls more may have to break before one of them is used again.
				within(t, "such a call is used again", func() bool {
					breakOne()
					for range 8 {
						other.say(t, request("POST", "/length", "Content-Length: 5\r\n", "12345"))
						other.expect(t, 200, "/length12345")
						other.say(t, request("POST", "/chunks", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"))
						other.expect(t, 200, "/chunksabc")
						if got := other.ask(t, "/none"); got != "/none" {
							t.Errorf("answered %q", got)
						}
					}
					mu.Lock()
					defer mu.Unlock()
					return reused >= 3
				})
			})
		}
	}
}

// TestPanicInTheLoop: a loop in whose own work something panics ends the connections that it has, answers the calls
// that it carries, and goes on with those that come.
func TestPanicInTheLoop(t *testing.T) {
	asked, answer := make(chan bool, 1), make(chan bool)
	g := newGate(t, setup{servers: []*url.URL{newSource(t, func(c net.Conn) {
		speak(c, func(req *http.Request) bool {
			if req.URL.Path == "/slow" {
				asked <- true
				<-answer
			}
			say(c, "", req.URL.Path)
			return true
		})
	})}})
	defer close(answer)
	idle, busy := g.call(t), g.call(t)
	idle.settle(t)
	busy.settle(t)
	busy.say(t, get("/slow"))
	<-asked
	g.engine.PanicInLoops()
	idle.ended(t)
	busy.expect(t, 500, "")
	busy.ended(t)
	c := g.call(t)
	c.settle(t)
	for range 3 {
		if got := c.ask(t, "/again"); got != "/again" {
			t.Errorf("a connection that came later: %q", got)
		}
	}
	if n := g.panics.Load(); n != 1 {
		t.Errorf("the log tells of %d panics", n)
	}
}

// TestPanicBesideANewcomer: a connection that comes to a loop while it panics is served by the loop that begins anew.
func TestPanicBesideANewcomer(t *testing.T) {
	g := newGate(t, setup{servers: []*url.URL{newSource(t, echo)}})
	g.engine.PanicBesideANewcomer()
	c := g.call(t)
	for range 2 { // the second by the loop
		if got := c.ask(t, "/newcomer"); got != "/newcomer" {
			t.Errorf("the newcomer: %q", got)
		}
	}
}
