package gateway_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
)

// A pending is a call that has been sent and not been answered.
type pending struct {
	cell         *cell
	conn         caller
	target, path string
}

// begin sends a call. It waits for the backend to have the head, unless the call is refused.
func (c *cell) begin(t *testing.T, q ask, a reply) *pending {
	t.Helper()
	p := &pending{cell: c, conn: c.take(t, q.who)}
	p.target, p.path = c.target(q.api)
	c.handle(p.path, func(*received) reply { return a })
	if err := p.conn.send(q, p.target); err != nil {
		t.Fatal(err)
	}
	return p
}

// arrives waits until the backend has the head of the call.
func (p *pending) arrives(t *testing.T) *received {
	t.Helper()
	eventually(t, p.target+" is at the backend", func() bool { return len(p.cell.received(p.path)) > 0 })
	return p.cell.received(p.path)[0]
}

// outcome waits for the answer, and closes the connection. began is called when a part of its body has come.
func (p *pending) outcome(t *testing.T, began func()) outcome {
	t.Helper()
	o := outcome{told: p.conn.receive(http.MethodGet, began)}
	p.conn.Close()
	o.got, o.seen = p.cell.received(p.path), p.cell.observed(t, p.target)
	return o
}

// countRules are how many calls may be under way.
var countRules = []rule{
	{"maxCalls", func(t *testing.T, c *cell) {
		for _, who := range []*party{c.a4, c.s1} { // production and sandbox have a count each
			release := make(chan struct{})
			var held []*pending
			for range 2 {
				p := c.begin(t, ask{api: "busy", who: who}, reply{wait: release})
				p.arrives(t)
				held = append(held, p)
			}
			for i := range 6 {
				if i < 4 {
					c.setRoutes(t) // an equal table
				}
				o := c.do(t, ask{api: "busy", who: who}, reply{})
				o.refused(t, 503, "503", "backend_busy")
				if o.unheard(t); o.header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			}
			defer func() {
				close(release)
				for _, p := range held {
					if o := p.outcome(t, nil); o.status != 200 || o.err != nil {
						t.Errorf("a call that was let through: %+v", o.told)
					}
				}
			}()
		}
	}},
	{"maxCalls does not leak", func(t *testing.T, c *cell) {
		held := make(chan struct{})
		defer close(held)
		long := strings.Repeat("x", 1001)
		for range 3 {
			c.do(t, ask{api: "busy"}, reply{}).refused(t, 401, "900902", "missing_credentials")
			c.do(t, ask{api: "busy", who: c.a2}, reply{}).refused(t, 401, "900901", "invalid_credentials")
			c.do(t, ask{api: "busy", who: c.a4, method: "POST", body: long}, reply{}).refused(t, 413, "413", "body_too_large")
			c.do(t, ask{api: "busy", who: c.a4, method: "POST", body: long, chunked: true}, reply{}).refused(t, 413, "413", "body_too_large")
			c.do(t, ask{api: "busy", who: c.a4, method: "POST"}, reply{none: true}).refused(t, 502, "101503", "backend_unreachable")
			c.do(t, ask{api: "tok", fields: []string{"Authorization: Bearer panic"}}, reply{}).refused(t, 500, "500", "internal")
			p := c.begin(t, ask{api: "busy", who: c.a4}, reply{body: "part", cut: true, pause: held})
			p.arrives(t)
			p.conn.Close() // the client leaves
			c.observed(t, p.target)
			gone := make(chan struct{})
			p = c.begin(t, ask{api: "busy", who: c.a4}, reply{body: "part", cut: true, pause: gone})
			if o := p.outcome(t, func() { close(gone) }); o.err == nil {
				t.Errorf("a broken answer came whole: %+v", o.told)
			}
		}
		// What was observed is given back already.
		c.do(t, ask{api: "busy", who: c.a4}, reply{}).one(t)
		release := make(chan struct{})
		one, two := c.begin(t, ask{api: "busy", who: c.a4}, reply{wait: release}), c.begin(t, ask{api: "busy", who: c.a4}, reply{wait: release})
		one.arrives(t)
		two.arrives(t)
		c.do(t, ask{api: "busy", who: c.a4}, reply{}).refused(t, 503, "503", "backend_busy")
		close(release)
		for _, p := range []*pending{one, two} {
			if o := p.outcome(t, nil); o.status != 200 {
				t.Errorf("a call that was let through: %+v", o.told)
			}
		}
	}},
}

// boundRules are how large bodies may be, and how they are counted.
var boundRules = []rule{
	{"size of a body", func(t *testing.T, c *cell) {
		for _, chunked := range []bool{false, true} {
			fits := c.do(t, ask{api: "bound", method: "POST", body: strings.Repeat("x", 1000), chunked: chunked}, reply{})
			if body, _, whole := fits.one(t).message(); len(body) != 1000 || !whole {
				t.Errorf("chunked=%v: the backend got %d bytes", chunked, len(body))
			}
			for _, size := range []int{1001, 10_000} {
				o := c.do(t, ask{api: "bound", method: "POST", body: strings.Repeat("x", size), chunked: chunked}, reply{})
				o.refused(t, 413, "413", "body_too_large")
				if !chunked {
					o.unheard(t)
				}
				for _, got := range o.got {
					if body, _, whole := got.message(); len(body) > 1000 || whole {
						t.Errorf("of %d bytes the backend got %d, whole=%v", size, len(body), whole)
					}
				}
			}
		}
	}},
	{"bytes are counted", func(t *testing.T, c *cell) {
		for _, q := range []ask{{}, {method: "POST", body: "twelve bytes"}, {method: "POST", body: strings.Repeat("x", 10_000), chunked: true}, {method: "HEAD"}} {
			for _, a := range []reply{{}, {body: "an answer"}, {body: strings.Repeat("y", 50_000)}, {body: strings.Repeat("y", 50_000), chunked: true}} {
				o := c.do(t, q, a)
				out := int64(len(a.body))
				if q.method == "HEAD" {
					out = 0
				}
				got := o.one(t)
				if body, _, _ := got.message(); body != q.body || o.seen.In != int64(len(q.body)) || o.seen.Out != out || int64(len(o.told.body)) != out {
					t.Errorf("%s of %d bytes, answered with %d: the backend got %d, the client %d; observed %+v", q.method, len(q.body), out, len(body), len(o.told.body), o.seen)
				}
				if o.seen.Status != 200 || o.seen.Reason != "" || o.seen.Upstream != c.backend.url() {
					t.Errorf("observed %+v", o.seen)
				}
			}
		}
	}},
}

// closing is a backend that closes a connection without an answer when it gets a request on it that is not its first: to
// the gateway, which knows the connection as idle, that is one that was closed meanwhile.
func closing(r *received) reply { return reply{none: r.nth > 1} }

// onUsed makes calls until one has met a connection to the backend that has carried another before.
func (c *cell) onUsed(t *testing.T, q ask, script func(*received) reply) outcome {
	t.Helper()
	var o outcome
	eventually(t, "a connection is used again", func() bool {
		c.do(t, ask{}, reply{}).one(t)
		o = c.script(t, q, script)
		return len(o.got) > 0 && o.got[0].nth > 1
	})
	return o
}

// repeatRules are when a backend is asked twice.
var repeatRules = []rule{
	{"a connection that was closed while idle", func(t *testing.T, c *cell) {
		for _, q := range []ask{
			{method: "GET"},
			{method: "HEAD"},
			{method: "OPTIONS"},
			{method: "PUT"},
			{method: "DELETE"},
			{method: "PUT", body: "body"},
			{method: "PUT", body: "body", chunked: true},
			{method: "DELETE", body: "body"},
			{method: "GET", body: "body"},
		} {
			o := c.onUsed(t, q, closing)
			if o.status != 200 || len(o.got) != 2 || o.got[0].conn == o.got[1].conn {
				t.Errorf("%+v: status %d, asked %d times", q, o.status, len(o.got))
			} else if body, _, _ := o.got[1].message(); body != q.body {
				t.Errorf("%+v: the backend got %q", q, body)
			}
			o = c.onUsed(t, q, func(*received) reply { return reply{none: true} })
			if o.status != 502 || o.seen.Reason != "backend_unreachable" || len(o.got) != 2 {
				t.Errorf("%+v, closed again: status %d, asked %d times", q, o.status, len(o.got))
			}
		}
	}},
	{"what is not repeated", func(t *testing.T, c *cell) {
		for _, q := range []ask{
			{method: "POST"},
			{method: "POST", body: "body"},
			{method: "POST", body: "body", chunked: true},
			{method: "PATCH"},
			{method: "PATCH", body: "body"},
		} {
			o := c.onUsed(t, q, closing)
			if o.refused(t, 502, "101503", "backend_unreachable"); len(o.got) != 1 {
				t.Errorf("%+v: asked %d times", q, len(o.got))
			}
		}
	}},
	{"a connection that its backend is about to close", func(t *testing.T, c *cell) {
		if c.h2c {
			return // which has no such field
		}
		kept := func(said string) bool {
			conn := c.do(t, ask{}, reply{fields: []string{"Keep-Alive: " + said}}).one(t).conn
			return c.do(t, ask{}, reply{}).one(t).conn == conn // as the one used last
		}
		eventually(t, "a connection is used again", func() bool { return kept("timeout=60") })
		for range 5 {
			if kept("max=100, timeout=0") {
				t.Error("a call went over a connection that its backend keeps no longer")
			}
		}
	}},
	{"a new connection", func(t *testing.T, c *cell) {
		eventually(t, "a connection is new", func() bool {
			o := c.script(t, ask{}, func(*received) reply { return reply{none: true} })
			if o.status != 502 || len(o.got) > 2 {
				t.Fatalf("status %d, asked %d times", o.status, len(o.got))
			}
			return o.got[0].nth == 1 && len(o.got) == 1
		})
	}},
	{"the next backend", func(t *testing.T, c *cell) {
		for range 3 { // whoever's turn it is
			for _, q := range []ask{{api: "some"}, {api: "some", method: "POST", body: "body"}, {api: "some", method: "POST", body: "body", chunked: true}} {
				if body, _, _ := c.do(t, q, reply{}).one(t).message(); body != q.body {
					t.Errorf("the backend got %q", body)
				}
			}
		}
		o := c.do(t, ask{api: "down"}, reply{})
		o.refused(t, 502, "101503", "backend_unreachable")
		for range 2 { // one that was reached has the call
			target, path := c.target("two")
			c.handle(path, func(*received) reply { return reply{none: true} })
			conn := c.take(t, nil)
			if err := conn.send(ask{method: "POST", body: "body"}, target); err != nil {
				t.Fatal(err)
			}
			a := conn.receive("POST", nil)
			c.give(nil, conn, a)
			if n := len(c.received(path)); a.status != 502 || n != 1 {
				t.Errorf("status %d, asked %d times", a.status, n)
			}
		}
	}},
}

// failureRules are what a call is called that does not come to a good end.
var failureRules = []rule{
	{"a late answer", func(t *testing.T, c *cell) {
		release := make(chan struct{})
		defer close(release)
		c.do(t, ask{api: "late"}, reply{wait: release}).refused(t, 504, "101504", "backend_late")
		c.do(t, ask{api: "late", method: "POST", body: "body"}, reply{wait: release}).refused(t, 504, "101504", "backend_late")
	}},
	{"an answer that is none", func(t *testing.T, c *cell) {
		list := []reply{{none: true}}
		if c.h2c {
			list = append(list, reply{fields: []string{"x y: z"}}, reply{status: 99}, reply{status: 1000})
		} else {
			for _, text := range []string{
				"SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
				"HTTP/1.1 99 X\r\n\r\n", "HTTP/1.1 1000 X\r\n\r\n",
			} {
				list = append(list, reply{bytes: text, cut: true})
			}
			// It is known before anything of it was sent.
			list = append(list, reply{bytes: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n", cut: true})
		}
		for _, a := range list {
			o := c.do(t, ask{method: "POST"}, a)
			code, reason := "101506", "backend_unreadable"
			if a.none {
				code, reason = "101503", "backend_unreachable"
			}
			if o.refused(t, 502, code, reason); len(o.got) != 1 {
				t.Errorf("%+v: asked %d times", a, len(o.got))
			}
		}
	}},
	{"an answer that breaks off", func(t *testing.T, c *cell) {
		for _, chunked := range []bool{false, true} {
			begun := make(chan struct{})
			p := c.begin(t, ask{}, reply{body: "the beginning", chunked: chunked, cut: true, pause: begun, fields: []string{"Content-Type: text/plain"}})
			o := p.outcome(t, func() { close(begun) })
			if o.status != 200 || o.told.body != "the beginning" || o.err == nil {
				t.Errorf("chunked=%v: the client got %+v", chunked, o.told)
			}
			if o.seen.Status != 200 || o.seen.Reason != "broken_off" || o.seen.Out != int64(len("the beginning")) || len(o.got) != 1 {
				t.Errorf("chunked=%v: observed %+v, asked %d times", chunked, o.seen, len(o.got))
			}
		}
	}},
	{"a request that breaks off", func(t *testing.T, c *cell) {
		target, path := c.target("pub")
		conn := c.take(t, nil)
		defer conn.Close()
		var err error
		switch conn := conn.(type) {
		case *http1Caller:
			conn.raw.send(t, "POST "+target+" HTTP/1.1\nHost: opt.test\nContent-Length: 100\n\nbeginning")
			err = conn.Conn.(*tls.Conn).CloseWrite()
		case *http2Caller:
			conn.asked = conn.open(t, false, ":method", "POST", ":scheme", "https", ":authority", "opt.test", ":path", target, "content-length", "100")
			err = conn.framer.WriteData(conn.asked, true, []byte("beginning"))
		}
		if err != nil {
			t.Fatal(err)
		}
		o := outcome{told: conn.receive("POST", nil), seen: c.observed(t, target)}
		o.refused(t, 400, "400", "bad_request")
		for _, got := range c.received(path) {
			if _, _, whole := got.message(); whole {
				t.Error("the backend got it as if it were whole")
			}
		}
	}},
	{"the client goes", func(t *testing.T, c *cell) {
		held := make(chan struct{})
		defer close(held)
		p := c.begin(t, ask{}, reply{wait: held})
		got := p.arrives(t)
		p.conn.Close()
		<-got.gone
		if s := c.observed(t, p.target); s.Status != 499 || s.Reason != "client_gone" || s.Out != 0 {
			t.Errorf("observed %+v", s)
		}
		p = c.begin(t, ask{}, reply{body: "part", cut: true, pause: held})
		got = p.arrives(t)
		p.conn.receive("GET", func() { p.conn.Close() })
		<-got.gone
		if s := c.observed(t, p.target); s.Status != 499 || s.Reason != "client_gone" || s.Out != int64(len("part")) {
			t.Errorf("observed %+v, once the answer had begun", s)
		}
	}},
}
