package http1_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/gateway/http1"
)

// TestManyEventsAtOnce: what a loop is told in one go, of more sockets than it acts on at a time, is acted on in order.
// Each client gets its own answers, even if its next call, or its end, is told together with them.
func TestManyEventsAtOnce(t *testing.T) {
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			const clients = 200
			var asked, answered atomic.Int64
			var mu sync.Mutex
			answer := make(chan struct{}) // what waits for it is answered when it is closed
			all := func() chan struct{} { mu.Lock(); defer mu.Unlock(); return answer }
			k := &keeper{upstreams: []*http1.Upstream{newSource(t, func(c net.Conn) {
				speak(c, func(req *http.Request) bool {
					if wait := all(); strings.HasPrefix(req.URL.Path, "/wait") {
						asked.Add(1)
						<-wait
						defer answered.Add(1)
					}
					_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(req.URL.Path), req.URL.Path)
					return err == nil
				})
			})}}
			h := newHold()
			k.judge = h.judge
			g := newGate(t, k, version, nil)
			holder := g.call(t)
			list := make([]*caller, clients)
			for i := range list {
				list[i] = g.call(t)
			}
			hear := func(c *caller, want string) {
				t.Helper()
				if _, body, _, err := c.hear("GET"); err != nil || body != want {
					t.Errorf("answered %q, %v, want %q", body, err, want)
				}
			}
			const rounds = 4
			wait := func(round int64) {
				for i, c := range list {
					c.say(t, fmt.Sprintf("GET /wait/%d HTTP/1.1\r\nHost: a\r\n\r\n", i))
				}
				within(t, "all calls are under way", func() bool { return asked.Load() == round*clients })
			}
			for round := range rounds - 1 { // so that the loop has all clients, and a backend for each
				wait(int64(round) + 1)
				mu.Lock()
				close(answer)
				answer = make(chan struct{})
				mu.Unlock()
				for i, c := range list {
					hear(c, fmt.Sprint("/wait/", i))
				}
			}
			holder.settle(t)

			wait(rounds)
			h.occupy(t, holder)
			close(all())
			within(t, "all are answered", func() bool { return answered.Load() == rounds*clients })
			for i, c := range list {
				switch i % 3 {
				case 0:
					c.say(t, fmt.Sprintf("GET /next/%d HTTP/1.1\r\nHost: a\r\n\r\n", i))
				case 1:
					if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
			}
			close(h.release)
			for i, c := range list {
				hear(c, fmt.Sprint("/wait/", i))
				if i%3 == 0 {
					hear(c, fmt.Sprint("/next/", i))
				}
			}
		})
	}
}

// TestAnswerWithTheBackendsEnd: a backend that answers and ends its connection, both told in one go, gets no other call on it.
func TestAnswerWithTheBackendsEnd(t *testing.T) {
	asked, answer, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	k := &keeper{upstreams: []*http1.Upstream{newSource(t, func(c net.Conn) {
		speak(c, func(req *http.Request) bool {
			if req.URL.Path == "/last" {
				close(asked)
				<-answer
				defer close(ended)
				defer c.Close()
			}
			_, err := fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			return err == nil
		})
	})}}
	h := newHold()
	k.judge = h.judge
	g := newGate(t, k, 0, nil)
	holder, c := g.call(t), g.call(t)
	holder.settle(t)
	c.settle(t)
	c.say(t, "GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	h.occupy(t, holder)
	close(answer)
	<-ended
	close(h.release)
	if status, _, _, err := c.hear("GET"); status != 200 {
		t.Errorf("status %d, %v", status, err)
	}
	c.say(t, "POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") // which is not sent again
	if status, _, _, err := c.hear("POST"); status != 200 {
		t.Errorf("the next call: status %d, %v", status, err)
	}
}
