//go:build linux

package engine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
)

// TestCloseWithAPartOfAHead: Close ends connections whatever state they are in.
func TestCloseWithAPartOfAHead(t *testing.T) {
	for _, settled := range []bool{false, true} {
		t.Run(fmt.Sprintf("loop=%v", settled), func(t *testing.T) {
			g := newGate(t, setup{servers: []*url.URL{newSource(t, echo)}})
			c := g.call(t)
			if settled {
				c.settle(t)
			}
			c.say(t, "GET /half HTTP/1.1\r\nHo")
			within(t, "the engine has seen the half", func() bool { return unread(c.tcp) == 0 })
			g.end(t)
			c.ended(t)
		})
	}
}

// under is a kind of call that is under way: where it is carried, and how far it has come.
var under = []struct {
	name    string
	loops   int
	settled bool
	request string
}{
	{"first", 0, false, get("/wait")},
	{"on a loop", 0, true, get("/wait")},
	{"without loops", noLoops, true, get("/wait")},
	{"upload", 0, true, request("POST", "/wait", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")},
	{"begun", 0, true, get("/begun")},
}

// slow is a server whose answers to /wait and /begun wait, those to /begun after a part of the body.
type slow struct {
	asked chan struct{}
	may   chan struct{} // closed when it may answer
	once  sync.Once
}

func newSlow() *slow { return &slow{asked: make(chan struct{}, 100), may: make(chan struct{})} }

func (s *slow) answer() { s.once.Do(func() { close(s.may) }) }

func (s *slow) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		text := answer("", req.URL.Path+"!")
		switch req.URL.Path {
		case "/wait":
			s.asked <- struct{}{}
			<-s.may
		case "/begun":
			_, _ = io.WriteString(c, text[:len(text)-1])
			text = text[len(text)-1:]
			s.asked <- struct{}{}
			<-s.may
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

// TestShutdown: calls under way come to their end, and each connection ends when it has none.
func TestShutdown(t *testing.T) {
	for _, u := range under {
		t.Run(u.name, func(t *testing.T) {
			s := newSlow()
			t.Cleanup(s.answer)
			g := newGate(t, setup{loops: u.loops, servers: []*url.URL{newSource(t, s.serve)}})
			idle, fresh, c := g.call(t), g.call(t), g.call(t)
			idle.settle(t)
			if u.settled {
				c.settle(t)
			}
			c.say(t, u.request)
			await(t, "the call", s.asked)
			over := make(chan error, 1)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			go func() { over <- g.engine.Shutdown(ctx) }()
			idle.ended(t)
			fresh.ended(t) // it has sent nothing
			select {
			case err := <-over:
				t.Fatalf("Shutdown has not waited for the call: %v", err)
			default:
			}
			if u.request[:4] == "POST" {
				c.say(t, "0\r\n\r\n")
			}
			s.answer()
			r, err := c.hear("GET")
			if err != nil || r.status != 200 || len(r.body) == 0 || r.body[len(r.body)-1] != '!' {
				t.Errorf("answered %d %q, %v", r.status, r.body, err)
			}
			if u.name != "begun" && !r.last {
				t.Error("the answer does not end the connection")
			}
			c.ended(t)
			if err := await(t, "Shutdown", over); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestShutdownGivesUp: calls that do not end in time go on, and Close ends them.
func TestShutdownGivesUp(t *testing.T) {
	for _, u := range under {
		t.Run(u.name, func(t *testing.T) {
			s := newSlow()
			g := newGate(t, setup{loops: u.loops, servers: []*url.URL{newSource(t, s.serve)}})
			t.Cleanup(s.answer)
			c := g.call(t)
			if u.settled {
				c.settle(t)
			}
			before := g.quiet(t)
			c.say(t, u.request)
			await(t, "the call", s.asked)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := g.engine.Shutdown(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Shutdown returns %v", err)
			}
			if n := g.finished.Load(); n != before {
				t.Error("the call was ended")
			}
			g.end(t) // while the server has not answered
			if n := g.finished.Load() - before; n != 1 {
				t.Errorf("%d calls have finished", n)
			}
			if r, err := c.hear("GET"); err == nil {
				t.Errorf("answered %d %q", r.status, r.body)
			}
		})
	}
}

// TestConnectionsAfterShutdown: a connection that comes while the engine drains has one call at most.
func TestConnectionsAfterShutdown(t *testing.T) {
	s := newSlow()
	t.Cleanup(s.answer)
	g := newGate(t, setup{servers: []*url.URL{newSource(t, s.serve)}})
	busy, idle := g.call(t), g.call(t)
	idle.settle(t)
	busy.say(t, get("/wait"))
	await(t, "the call", s.asked)
	over := make(chan error, 1)
	go func() { over <- g.engine.Shutdown(context.Background()) }()
	idle.ended(t)
	late := g.call(t)
	_, _ = io.WriteString(late.Conn, get("/late")+get("/later"))
	if r, err := late.hear("GET"); err == nil { // it may be closed before its call is seen
		if r.body != "/late!" || !r.last {
			t.Errorf("answered %q, last %v", r.body, r.last)
		}
		late.ended(t)
	}
	s.answer()
	busy.expect(t, 200, "/wait!")
	if err := await(t, "Shutdown", over); err != nil {
		t.Error(err)
	}
}
