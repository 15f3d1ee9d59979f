package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestTunnelRules holds the rules of upgraded connections, which HTTP/1.1 alone has, for each of its carriers.
func TestTunnelRules(t *testing.T) {
	for _, carrier := range []string{"loops", "goroutines"} {
		t.Run(carrier, func(t *testing.T) {
			newCell(t, carrier, false).hold(t, tunnelRules)
		})
	}
}

var webSocket = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + webSocketKey}

// A tunnel is a connection that has switched to another protocol, and the name that its call is observed by.
type tunnel struct {
	*http1Caller
	target string
}

// upgrade opens a tunnel, at whose other end the backend does that.
func (c *cell) upgrade(t *testing.T, through func(net.Conn, *bufio.Reader)) *tunnel {
	t.Helper()
	target, path := c.target("pay")
	c.handle(path, func(*received) reply {
		own := []string{"Connection: Upgrade", "Upgrade: websocket", "X-Request-Id: " + marker, expiryHeader + ": " + marker}
		return reply{status: 101, fields: own, tunnel: through}
	})
	conn := c.take(t, c.a4).(*http1Caller)
	if err := conn.send(ask{fields: webSocket}, target); err != nil {
		t.Fatal(err)
	}
	a := conn.receive("GET", nil)
	if a.status != 101 || a.header.Get("Upgrade") != "websocket" || a.header.Get("X-Request-Id") == "" || a.err != nil {
		t.Fatalf("%+v", a)
	}
	ids, ends := a.header.Values("X-Request-Id"), a.header.Values(expiryHeader)
	if len(ids) != 1 || !slices.Equal(ends, []string{c.a4.cert.NotAfter.UTC().Format(http.TimeFormat)}) {
		t.Fatalf("the client got X-Request-Id %q, %s %q", ids, expiryHeader, ends)
	}
	got := c.received(path)
	if len(got) != 1 || got[0].header.Get("Upgrade") != "websocket" || got[0].header.Get("Connection") != "Upgrade" || got[0].header.Get("X-Sallyport-Client") != "a4" {
		t.Fatalf("the backend got %+v", got)
	}
	if got[0].nth != 1 {
		t.Error("the call came on a connection that others use")
	}
	return &tunnel{conn, target}
}

// echo sends back what comes, in capitals, until its end.
func echo(c net.Conn, in *bufio.Reader) {
	p := make([]byte, 4096)
	for {
		n, err := in.Read(p)
		if _, failed := c.Write(bytes.ToUpper(p[:n])); err != nil || failed != nil {
			return
		}
	}
}

// says sends text, and waits for its echo.
func (x *tunnel) says(t *testing.T, text string) {
	t.Helper()
	go func() { _, _ = io.WriteString(x, text) }() // the reader misses what fails
	got := make([]byte, len(text))
	if _, err := io.ReadFull(x.reader, got); err != nil || string(got) != strings.ToUpper(text) {
		t.Fatalf("the echo of %.20q is %.20q, %v", text, got, err)
	}
}

var tunnelRules = []rule{
	{"both ways", func(t *testing.T, c *cell) {
		x := c.upgrade(t, echo)
		long := strings.Repeat("long ", 50_000)
		for _, text := range []string{"hello", long, "again"} {
			x.says(t, text)
		}
		x.Close()
		size := int64(len("hello") + len(long) + len("again"))
		if s := c.observed(t, x.target); s.Status != 101 || s.Alias != "a4" || s.In != size || s.Out != size {
			t.Errorf("observed %+v", s)
		}
	}},
	{"the client ends its direction", func(t *testing.T, c *cell) {
		heard := make(chan string, 1)
		x := c.upgrade(t, func(conn net.Conn, in *bufio.Reader) {
			text, _ := io.ReadAll(in) // what was heard is what counts
			heard <- string(text)
			_, _ = io.WriteString(conn, "last words")
		})
		if _, err := io.WriteString(x, "first words"); err != nil {
			t.Fatal(err)
		}
		if err := x.Conn.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if text := <-heard; text != "first words" {
			t.Errorf("the backend heard %q", text)
		}
		if text, err := io.ReadAll(x.reader); err != nil || string(text) != "last words" {
			t.Errorf("the client heard %q, %v", text, err)
		}
		if s := c.observed(t, x.target); s.Status != 101 || s.Reason != "" {
			t.Errorf("observed %+v", s)
		}
	}},
	{"the backend ends its direction", func(t *testing.T, c *cell) {
		heard := make(chan string, 1)
		x := c.upgrade(t, func(conn net.Conn, in *bufio.Reader) {
			_, _ = io.WriteString(conn, "first words")
			_ = conn.(*net.TCPConn).CloseWrite() // the client's side tells
			text, _ := io.ReadAll(in)
			heard <- string(text)
		})
		if text, err := io.ReadAll(x.reader); err != nil || string(text) != "first words" {
			t.Errorf("the client heard %q, %v", text, err)
		}
		if _, err := io.WriteString(x, "last words"); err != nil {
			t.Fatal(err)
		}
		x.Close()
		if text := <-heard; text != "last words" {
			t.Errorf("the backend heard %q", text)
		}
		if s := c.observed(t, x.target); s.Status != 101 || s.Reason != "" {
			t.Errorf("observed %+v", s)
		}
	}},
	{"its right ends", func(t *testing.T, c *cell) {
		ended := make(chan struct{})
		x := c.upgrade(t, func(conn net.Conn, in *bufio.Reader) {
			echo(conn, in)
			close(ended)
		})
		x.says(t, "before")
		c.setClients(t) // which takes nothing away
		x.says(t, "after")
		clients := c.clients
		c.remove(t, "a4")
		if !x.ended() {
			t.Error("the client's side goes on")
		}
		<-ended
		if s := c.observed(t, x.target); s.Status != 101 || s.Reason != "broken_off" {
			t.Errorf("observed %+v", s)
		}
		c.clients = clients
		c.setClients(t)
	}},
	{"what is not offered", func(t *testing.T, c *cell) {
		for name, q := range map[string]ask{
			"h2c":             {fields: []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}},
			"TLS":             {fields: []string{"Connection: Upgrade", "Upgrade: TLS/1.2"}},
			"one of two":      {fields: []string{"Connection: Upgrade", "Upgrade: websocket, h2c"}},
			"two fields":      {fields: []string{"Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"}},
			"a version":       {fields: []string{"Connection: Upgrade", "Upgrade: websocket/13"}},
			"not Connection":  {fields: []string{"Upgrade: websocket"}},
			"only Connection": {fields: []string{"Connection: Upgrade"}},
			"with a body":     {fields: webSocket, body: "body"},
			"POST":            {fields: append(slices.Clone(webSocket), "Content-Length: 0"), method: "POST"},
		} {
			got := c.do(t, q, reply{}).one(t)
			if got.header.Get("Upgrade") != "" || got.header.Get("Connection") != "" || got.header.Get("Http2-Settings") != "" {
				t.Errorf("%s: the backend got %v", name, got.header)
			}
		}
	}},
	{"refused", func(t *testing.T, c *cell) {
		for _, a := range []reply{
			{status: 403, body: "no"},
			{status: 426},
			{status: 200, body: "ok", fields: []string{"Connection: Upgrade", "Upgrade: websocket"}},
			{status: 101, fields: []string{"Connection: Upgrade", "Upgrade: h2c"}},
			{status: 101},
		} {
			o := c.do(t, ask{fields: webSocket}, a)
			status := a.status
			if status == 101 { // to something else
				status = 502
			}
			if o.status != status || o.err != nil || len(o.got) != 1 || o.got[0].nth != 1 || o.header.Get("Upgrade") != "" {
				t.Fatalf("%d: %+v; asked %d times", a.status, o.told, len(o.got))
			}
			idle := c.idle[nil]
			if len(idle) != 1 {
				t.Fatalf("%d: the connection ended", a.status)
			}
			// What comes next is a request by the letter, or none.
			next := c.do(t, ask{}, reply{})
			if got := next.one(t); got.conn == o.got[0].conn {
				t.Errorf("%d: the backend's connection was used again", a.status)
			}
			if len(c.idle[nil]) != 1 || c.idle[nil][0] != idle[0] {
				t.Errorf("%d: the next call came on another connection", a.status)
			}
			bad := c.do(t, ask{fields: []string{"Content-Length: 0", "Content-Length: 0"}}, reply{})
			bad.refused(t, 400, "400", "bad_request")
			bad.unheard(t)
		}
	}},
	{"no tunnel over HTTP/2 to the backend", func(t *testing.T, _ *cell) {
		c := newCell(t, "loops", true)
		got := c.do(t, ask{fields: webSocket}, reply{}).one(t)
		if got.header.Get("Upgrade") != "" || got.header.Get("Connection") != "" {
			t.Errorf("the backend got %v", got.header)
		}
	}},
}
