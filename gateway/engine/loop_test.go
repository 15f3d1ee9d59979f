//go:build linux

package engine_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/decision"
)

// TestWordsOfAnIdleServer: what a server says while it has no call is nobody's answer.
func TestWordsOfAnIdleServer(t *testing.T) {
	for _, clients := range []int{2, 200} {
		t.Run(fmt.Sprintf("clients=%d", clients), func(t *testing.T) {
			const stale = "HTTP/1.1 408 Too late\r\nX-Tag: stale\r\nContent-Length: 5\r\nConnection: close\r\n\r\nstale"
			var mu sync.Mutex
			var conns []net.Conn
			var arrived atomic.Int64
			parallel := make(chan struct{})
			g := newGate(t, setup{servers: []*url.URL{newSource(t, func(c net.Conn) {
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
				arrived.Add(1)
				<-parallel // so that each client has a server's connection of its own
				echo(c)
			})}})
			holder := g.call(t)
			list := make([]*caller, clients)
			for i := range list {
				list[i] = g.call(t)
				list[i].say(t, get("/one"))
			}
			within(t, "all connections are there", func() bool { return arrived.Load() == int64(clients) })
			close(parallel)
			for _, c := range list {
				c.expect(t, 200, "/one")
			}
			holder.settle(t)
			// All at once, so that the loop has all of the server's connections.
			arrive := func(path string) {
				for _, c := range list {
					c.say(t, get(path))
				}
			}
			for range 3 {
				arrive("/two")
				for _, c := range list {
					c.expect(t, 200, "/two")
				}
			}
			g.occupy(t, holder)
			arrive("/three")
			mu.Lock()
			for _, c := range conns {
				_, _ = io.WriteString(c, stale)
			}
			mu.Unlock()
			g.release()
			wrong := 0
			for _, c := range list {
				if r, err := c.hear("GET"); err != nil || r.body != "/three" {
					wrong++
				}
			}
			if wrong > 0 {
				t.Errorf("%d of %d calls were not answered, or with what had come before they were sent", wrong, clients)
			}
		})
	}
}

// TestCallWithTheClientsEnd: a client that ends its half together with its last call is answered, and then let go.
func TestCallWithTheClientsEnd(t *testing.T) {
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			g := newGate(t, setup{version: version, servers: []*url.URL{newSource(t, echo)}})
			holder, c := g.call(t), g.call(t)
			holder.settle(t)
			c.settle(t)
			g.occupy(t, holder)
			c.say(t, refusedRequest)
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			_ = c.tcp.CloseWrite()
			g.release()
			c.expect(t, 404, "")
			c.ended(t)
		})
	}
}

// TestOneClientAmongOthers: a client that asks without end what is refused at once leaves the loop to others, too.
func TestOneClientAmongOthers(t *testing.T) {
	const flooding = "/flood/1"
	var floods atomic.Int64
	carried := make(chan int64, 1) // floods when the victim's call ends
	g := newGate(t, setup{
		servers: []*url.URL{newSource(t, echo)},
		observe: func(x *decision.Exchange) {
			switch x.Request.Target {
			case flooding:
				floods.Add(1)
			case nowhere:
				carried <- floods.Load()
			}
		},
	})
	holder, victim, flood := g.call(t), g.call(t), g.call(t)
	for _, c := range []*caller{holder, victim, flood} {
		c.settle(t)
	}
	widen(t, flood.tcp) // or less than a turn's worth may fill the window, and no more comes until it is read
	_ = flood.tcp.SetReadBuffer(4 << 20)
	_ = flood.tcp.SetWriteBuffer(4 << 20)
	var all sync.WaitGroup
	defer all.Wait()
	defer flood.Conn.Close()
	ended := make(chan error, 1)
	all.Go(func() {
		many := []byte(strings.Repeat("GET "+flooding+" HTTP/1.1\r\nHost: a\r\n\r\n", 30_000))
		for {
			if _, err := flood.Conn.Write(many); err != nil {
				ended <- err
				return
			}
		}
	})
	all.Go(func() { _, _ = io.Copy(io.Discard, flood.Conn) })
	within(t, "the flood is there", func() bool { return floods.Load() > 1000 })
	most := int64(0)
	for range 20 {
		g.occupy(t, holder)
		victim.say(t, refusedRequest)
		within(t, "more of the flood is there", func() bool {
			select {
			case err := <-ended:
				t.Fatalf("after %d calls the gateway has ended the flood: %v", floods.Load(), err)
			default:
			}
			return unread(flood.tcp) > 16<<10
		})
		before := floods.Load()
		g.release()
		most = max(most, await(t, "the victim's call", carried)-before)
		victim.expect(t, 404, "")
		holder.expect(t, 403, "")
	}
	t.Logf("up to %d calls of the other client came before one, of %d", most, floods.Load())
	if most > 200 {
		t.Errorf("%d calls of another client were carried before one that was there", most)
	}
}

// TestLateAfterALoop: a server that stops within the head of its answer is late, also if the connection went from a
// goroutine to a loop and back in no time: a bound that was set there does not count here.
func TestLateAfterALoop(t *testing.T) {
	var late atomic.Int64
	g := newGate(t, setup{
		timeout: 300 * time.Millisecond,
		servers: []*url.URL{newSource(t, func(c net.Conn) {
			speak(c, func(req *http.Request) bool {
				if req.URL.Path == "/half" {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le")
					_, _ = io.Copy(io.Discard, c)
					return false
				}
				return say(c, "", "ok")
			})
		})},
		observe: func(x *decision.Exchange) {
			if x.ResourcePath == "/half" && x.Refusal().Reason == decision.BackendLate {
				late.Add(1)
			}
		},
	})
	for range 5 {
		var c *caller
		within(t, "the server is in time", func() bool { // which it may miss on a machine that has much to do
			c = g.call(t)
			c.say(t, get("/goroutine")) // the first call of a connection
			r, err := c.hear("GET")
			return err == nil && r.status == 200
		})
		c.say(t, get("/half"))
		c.expect(t, 504, "")
	}
	within(t, "all of them were late", func() bool { return late.Load() == 5 })
}

// A halver is a connection whose next write after cut is set is only half written, and ends the connection.
type halver struct {
	net.Conn
	cut atomic.Bool
}

func (h *halver) Write(p []byte) (int, error) {
	if !h.cut.Load() {
		return h.Conn.Write(p)
	}
	n, _ := h.Conn.Write(p[:len(p)/2])
	h.Conn.Close()
	return n, io.ErrClosedPipe
}

// TestEndWithinARecord: a server that dies within a TLS record is noticed at once, though nothing but its end tells of it.
func TestEndWithinARecord(t *testing.T) {
	asked, mayDie, dead := make(chan struct{}), make(chan struct{}), make(chan struct{})
	g := newGate(t, setup{servers: []*url.URL{newTLSSource(t, func(c net.Conn) {
		half := &halver{Conn: c}
		over := serverTLS(half)
		speak(over, func(req *http.Request) bool {
			dies := req.URL.Path == "/dies"
			if dies {
				close(asked)
				<-mayDie
				half.cut.Store(true)
				defer close(dead)
			}
			return say(over, "", "ok") && !dies
		})
	})}})
	holder, c := g.call(t), g.call(t)
	holder.settle(t)
	c.settle(t)
	c.say(t, request("POST", "/dies", "Content-Length: 0\r\n", "")) // which is not sent again
	await(t, "the call", asked)
	g.occupy(t, holder) // so that the loop is told of both at once
	close(mayDie)
	await(t, "the server's end", dead)
	g.release()
	c.expect(t, 502, "")
	g.quiet(t)
	if n := g.refused(decision.BackendUnreachable); n != 1 {
		t.Errorf("%d calls broke off, want 1", n)
	}
}

// TestManyEventsAtOnce: what a loop is told in one go, of more sockets than it acts on at a time, is acted on in order.
// Each client gets its own answers, even if its next call, or its end, is told together with them.
func TestManyEventsAtOnce(t *testing.T) {
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			const clients, rounds = 200, 4
			var asked, answered atomic.Int64
			var mu sync.Mutex
			answer := make(chan struct{}) // what waits for it is answered when it is closed
			all := func() chan struct{} { mu.Lock(); defer mu.Unlock(); return answer }
			g := newGate(t, setup{version: version, servers: []*url.URL{newSource(t, func(c net.Conn) {
				speak(c, func(req *http.Request) bool {
					if wait := all(); strings.HasPrefix(req.URL.Path, "/wait") {
						asked.Add(1)
						<-wait
						defer answered.Add(1)
					}
					return say(c, "", req.URL.Path)
				})
			})}})
			holder := g.call(t)
			list := make([]*caller, clients)
			for i := range list {
				list[i] = g.call(t)
			}
			wait := func(round int64) {
				for i, c := range list {
					c.say(t, get(fmt.Sprint("/wait/", i)))
				}
				within(t, "all calls are under way", func() bool { return asked.Load() == round*clients })
			}
			for round := range rounds - 1 { // so that the loop has all clients, and a server's connection for each
				wait(int64(round) + 1)
				mu.Lock()
				close(answer)
				answer = make(chan struct{})
				mu.Unlock()
				for i, c := range list {
					c.expect(t, 200, fmt.Sprint("/wait/", i))
				}
			}
			holder.settle(t)

			wait(rounds)
			g.occupy(t, holder)
			close(all())
			within(t, "all are answered", func() bool { return answered.Load() == rounds*clients })
			for i, c := range list {
				switch i % 3 {
				case 0:
					c.say(t, get(fmt.Sprint("/next/", i)))
				case 1:
					if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
			}
			g.release()
			for i, c := range list {
				c.expect(t, 200, fmt.Sprint("/wait/", i))
				if i%3 == 0 {
					c.expect(t, 200, fmt.Sprint("/next/", i))
				}
			}
		})
	}
}

// TestAnswerWithTheServersEnd: a server that answers and ends its connection, both told in one go, gets no other call on
// it.
func TestAnswerWithTheServersEnd(t *testing.T) {
	asked, mayAnswer, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	g := newGate(t, setup{servers: []*url.URL{newSource(t, func(c net.Conn) {
		speak(c, func(req *http.Request) bool {
			if req.URL.Path == "/last" {
				close(asked)
				<-mayAnswer
				defer close(ended)
				defer c.Close()
			}
			return say(c, "", "ok")
		})
	})}})
	holder, c := g.call(t), g.call(t)
	holder.settle(t)
	c.settle(t)
	c.say(t, get("/last"))
	await(t, "the call", asked)
	g.occupy(t, holder)
	close(mayAnswer)
	await(t, "the server's end", ended)
	g.release()
	c.expect(t, 200, "ok")
	c.say(t, request("POST", "/next", "Content-Length: 0\r\n", "")) // which is not sent again
	c.expect(t, 200, "ok")
}
