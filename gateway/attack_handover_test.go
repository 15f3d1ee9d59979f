package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
)

// A before is what happens on a connection before a payload of smuggles comes on it.
type before struct {
	name string
	do   func(t *testing.T, c *raw, answer func(script))
}

// scripted is a script that answers with those bytes, "\n" standing for CRLF.
func scripted(text string) script {
	return func(c net.Conn, _ strictRequest) bool {
		_, err := io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n"))
		return err == nil
	}
}

// asks makes a call that is answered so, and checks the status.
func (c *raw) asks(t *testing.T, text string, status int) {
	t.Helper()
	c.send(t, text)
	if a := c.receive(t, "GET"); a.status != status || a.header.Get("Connection") == "close" {
		t.Fatalf("%.60q: status %d, %v", text, a.status, a.header)
	}
}

const (
	beforeHead  = "GET /pub/1.0/before HTTP/1.1\nHost: open.test\n"
	upgradeHead = beforeHead + webSocketHead
)

// befores are the ways by which a connection goes from one reader to another, or might.
var befores = []before{
	{"an upgrade refused with 401", func(t *testing.T, c *raw, _ func(script)) {
		c.asks(t, "GET /tok/1.0/ws HTTP/1.1\nHost: open.test\n"+webSocketHead+"\n", 401)
	}},
	{"an upgrade refused with 403", func(t *testing.T, c *raw, _ func(script)) {
		c.asks(t, "GET /shut/1.0/ws HTTP/1.1\nHost: open.test\n"+webSocketHead+"\n", 403)
	}},
	{"an upgrade refused with 404", func(t *testing.T, c *raw, _ func(script)) {
		c.asks(t, "GET /nothing HTTP/1.1\nHost: open.test\n"+webSocketHead+"\n", 404)
	}},
	{"an upgrade answered otherwise", func(t *testing.T, c *raw, answer func(script)) {
		for _, status := range []int{200, 400, 403, 426, 500} {
			answer(scripted(fmt.Sprintf("HTTP/1.1 %d X\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 2\n\nno", status)))
			c.asks(t, upgradeHead+"\n", status)
		}
	}},
	{"an upgrade to something else", func(t *testing.T, c *raw, answer func(script)) {
		for _, lines := range []string{"", "Upgrade: h2c\n", "Connection: Upgrade\nUpgrade: websocket\nUpgrade: websocket\n"} {
			answer(scripted("HTTP/1.1 101 X\n" + lines + "\n"))
			c.asks(t, upgradeHead+"\n", 502)
		}
	}},
	{"an upgrade with a body", func(t *testing.T, c *raw, _ func(script)) {
		c.asks(t, upgradeHead+"Content-Length: 3\n\nabc", 200)
		c.asks(t, upgradeHead+"Transfer-Encoding: chunked\n\n3\nabc\n0\n\n", 200)
	}},
	{"an upgrade to h2c", func(t *testing.T, c *raw, _ func(script)) {
		c.asks(t, beforeHead+"Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n\n", 200)
	}},
	{"an upgrade that expects", func(t *testing.T, c *raw, _ func(script)) {
		c.asks(t, upgradeHead+"Expect: 100-continue\n\n", 200)
	}},
	{"an answer in pieces", answerInPieces},
	{"a body in pieces", bodyInPieces},
	{"Expect", func(t *testing.T, c *raw, _ func(script)) {
		c.send(t, "POST /pub/1.0/before HTTP/1.1\nHost: open.test\nContent-Length: 3\nExpect: 100-continue\n\n")
		if a := c.receive(t, "POST"); a.status != 100 {
			t.Fatalf("status %d", a.status)
		}
		c.asks(t, "abc", 200)
	}},
	{"interim answers", func(t *testing.T, c *raw, answer func(script)) {
		answer(scripted("HTTP/1.1 103 X\nLink: <x>\n\nHTTP/1.1 103 X\nLink: <x>\n\nHTTP/1.1 200 X\nContent-Length: 0\n\n"))
		c.send(t, beforeHead+"\n")
		for _, status := range []int{103, 103, 200} {
			if a := c.receive(t, "GET"); a.status != status {
				t.Fatalf("status %d", a.status)
			}
		}
	}},
	{"there and back", func(t *testing.T, c *raw, answer func(script)) {
		for range 2 {
			for range 3 {
				c.asks(t, beforeHead+"\n", 200)
			}
			answerInPieces(t, c, answer)
			answer(echoStrictly)
		}
		c.asks(t, beforeHead+"\n", 200)
	}},
	{"a backend that speaks h2c", func(t *testing.T, c *raw, _ func(script)) {
		for range 3 {
			c.asks(t, "GET /two/1.0/x HTTP/1.1\nHost: open.test\n\n", 200)
		}
	}},
	{"a refused body", func(t *testing.T, c *raw, _ func(script)) {
		c.asks(t, "POST /tok/1.0/x HTTP/1.1\nHost: open.test\nContent-Length: 3\n\nabc", 401)
		c.asks(t, "POST /tok/1.0/x HTTP/1.1\nHost: open.test\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n", 401)
	}},
}

// answerInPieces has an answer come in pieces, each after the client has got the one before.
func answerInPieces(t *testing.T, c *raw, answer func(script)) {
	t.Helper()
	next := make(chan bool)
	answer(func(to net.Conn, _ strictRequest) bool {
		for _, part := range []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n", "0\r\n\r\n"} {
			if _, err := io.WriteString(to, part); err != nil {
				return false
			}
			if part[0] != '0' {
				<-next
			}
		}
		return true
	})
	c.send(t, beforeHead+"\n")
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	next <- true
	part := make([]byte, 3)
	if _, err := io.ReadFull(res.Body, part); err != nil || string(part) != "abc" {
		t.Fatalf("%q, %v", part, err)
	}
	next <- true
	if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
		t.Fatalf("%q, %v", rest, err)
	}
}

// bodyInPieces has a body come in pieces. The gateway has begun to read it when its 100 comes.
func bodyInPieces(t *testing.T, c *raw, _ func(script)) {
	t.Helper()
	c.send(t, "POST /pub/1.0/before HTTP/1.1\nHost: open.test\nTransfer-Encoding: chunked\nExpect: 100-continue\n\n")
	if a := c.receive(t, "POST"); a.status != 100 {
		t.Fatalf("status %d", a.status)
	}
	c.send(t, "3\nabc\n")
	c.asks(t, "3\nabc\n0\n\n", 200)
}

// handoverFixture has a strict backend behind pub, an API two whose backend speaks h2c, and an API shut of one resource.
func handoverFixture(t *testing.T, carrier string) (*fixture, *strictBackend) {
	var strict *strictBackend
	h2c := newRuleBackend(t, true)
	f := newFixture(t, withStrictBackend(t, &strict), func(f *fixture, s *setup) {
		gateway.Carriers[carrier](&s.config)
		other := f.upstream(t, h2c.url())
		other.Protocol = backend.H2C
		s.routes = append(s.routes,
			decision.Route{API: twoAPI, Context: "/two", Security: open, Upstream: other},
			decision.Route{API: certstore.API{Name: "shut", Version: "1.0"}, Context: "/shut", Security: open, Upstream: other, Resources: []decision.Resource{{Path: "/only", Security: open}}},
		)
	})
	return f, strict
}

// TestStrictAfterHandover: whatever a connection has carried, plain or over TLS, the next call on it is read as the first
// one is on a new connection. Held: security L 156.
func TestStrictAfterHandover(t *testing.T) {
	t.Parallel()
	for _, carrier := range []string{"loops", "goroutines"} {
		t.Run(carrier, func(t *testing.T) {
			t.Parallel()
			f, strict := handoverFixture(t, carrier)
			answer := func(s script) { strict.handle("/before", s) }
			other := f.client(t, nil, via{})
			for i, s := range smuggles() {
				canary := fmt.Sprintf("/canary-%d", i)
				var fresh []int
				t.Run(s.name, func(t *testing.T) {
					fresh = s.hold(t, f, strict, other, canary, func(text string) ([]int, string, error) { return sendRaw(f.plain, text) })
				})
				after := func(name string, c *raw, list ...before) {
					t.Run(s.name+" after "+name, func(t *testing.T) {
						for _, b := range list {
							answer(echoStrictly)
							b.do(t, c, answer)
						}
						answer(echoStrictly)
						got := s.hold(t, f, strict, other, canary, func(text string) ([]int, string, error) { return sendOn(c, c.reader, text) })
						// Over TLS a host of no name is misdirected before it is malformed.
						if _, plain := c.Conn.(*net.TCPConn); plain && !slices.Equal(got, fresh) {
							t.Errorf("statuses %v, on a new connection %v", got, fresh)
						}
					})
				}
				after("all", f.dialPlain(t), befores...)
				for k := range 3 { // each payload after some, and each of these before some of each kind of payload
					b := befores[(i+5*k)%len(befores)]
					c := f.dialPlain(t)
					if k == 2 {
						c = f.dial(t, nil, "open.test")
					}
					after(b.name, c, b)
				}
			}
		})
	}
}

// TestBehindAnUpgrade: what a client sends right behind a request to switch is the tunnel's, byte for byte, if the
// backend switches, and a call like any other if nobody does. Held: security L 156.
func TestBehindAnUpgrade(t *testing.T) {
	for _, carrier := range []string{"loops", "goroutines"} {
		t.Run(carrier, func(t *testing.T) {
			f, strict := handoverFixture(t, carrier)
			other := f.client(t, nil, via{})
			crlf := func(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }
			for name, first := range map[string]struct {
				text   string
				status int
				answer script
			}{
				"refused with 401":  {"GET /tok/1.0/ws HTTP/1.1\nHost: open.test\n" + webSocketHead + "\n", 401, echoStrictly},
				"refused with 403":  {"GET /shut/1.0/ws HTTP/1.1\nHost: open.test\n" + webSocketHead + "\n", 403, echoStrictly},
				"answered with 200": {upgradeHead + "\n", 200, scripted("HTTP/1.1 200 X\nContent-Length: 0\n\n")},
				"answered with 403": {upgradeHead + "\n", 403, scripted("HTTP/1.1 403 X\nTransfer-Encoding: chunked\n\n2\nno\n0\n\n")},
				"answered with 101": {upgradeHead + "\n", 502, scripted("HTTP/1.1 101 X\nUpgrade: h2c\n\n")},
			} {
				strict.handle("/before", first.answer)
				for i, s := range smuggles() {
					t.Run(name+", "+s.name, func(t *testing.T) {
						s.hold(t, f, strict, other, fmt.Sprintf("/canary-%d", i), func(text string) ([]int, string, error) {
							statuses, got, err := sendRaw(f.plain, crlf(first.text)+text)
							if len(statuses) == 0 || statuses[0] != first.status {
								t.Fatalf("statuses %v, %.300q", statuses, got)
							}
							return statuses[1:], got, err
						})
					})
				}
			}
			// It switches.
			strict.take()
			for i, s := range smuggles() {
				if s.text == "" {
					continue
				}
				heard := make(chan string, 1)
				strict.handle("/before", func(c net.Conn, _ strictRequest) bool {
					in := bufio.NewReader(c)
					_, _ = io.WriteString(c, "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n") // the client tells
					text := make([]byte, len(s.text))
					n, _ := io.ReadFull(in, text)
					heard <- string(text[:n])
					_, _ = io.WriteString(c, "over")
					return false
				})
				c := f.dialPlain(t)
				go func() { _, _ = io.WriteString(c, crlf(upgradeHead+"\n")+s.text) }() // the backend tells
				res, err := http.ReadResponse(c.reader, nil)
				if err != nil || res.StatusCode != 101 {
					t.Fatalf("%s: %v, %v", s.name, res, err)
				}
				if got := <-heard; got != s.text {
					t.Errorf("%s: the backend heard %.200q", s.name, got)
				}
				if rest, err := io.ReadAll(c.reader); string(rest) != "over" || err != nil {
					t.Errorf("%s: the client heard %.200q, %v", s.name, rest, err)
				}
				if requests, faults := strict.take(); len(requests) != 1 || len(faults) > 0 {
					t.Errorf("%s, %d: the backend got %d requests, %v", s.name, i, len(requests), faults)
				}
			}
		})
	}
}
