package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// says is a script that answers with those bytes, and ends the connection or not.
func says(text string, goesOn bool) script {
	return func(c net.Conn, _ strictRequest) bool {
		_, err := io.WriteString(c, text)
		return goesOn && err == nil
	}
}

// TestBackendMisbehaves: whatever a backend says, its client gets a whole answer, a 502 or a broken one, and no other
// client gets any of it. Held: security F 96.
func TestBackendMisbehaves(t *testing.T) {
	var backend *strictBackend
	f := newFixture(t, withStrictBackend(t, &backend))
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for _, c := range []struct {
		name, text string
		status     int  // 0: whichever
		broken     bool // the answer has to be cut short
		orRefused  bool // 502 is as good
		body       string
	}{
		{name: "two lengths", text: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", status: 502},
		{name: "length that is none", text: "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", status: 502},
		{name: "chunked and length", orRefused: true, text: "HTTP/1.1 200 OK\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + poison, status: 200, body: "abc"},
		{name: "unknown coding", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", status: 502},
		{name: "two codings", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n", status: 502},
		{name: "line without a colon", text: "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", status: 502},
		{name: "space before the colon", text: "HTTP/1.1 200 OK\r\nContent-Length \t: 3\r\n\r\nabc" + poison, status: 200, body: "abc"},
		{name: "a head of 10 MiB", text: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 10<<20) + "\r\n\r\n", status: 502},
		{name: "a million lines", text: "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 1<<20) + "\r\n", status: 502},
		{name: "a status that is none", text: "HTTP/1.1 abc OK\r\n\r\n", status: 502},
		{name: "a status of four digits", text: "HTTP/1.1 2000 OK\r\n\r\n", status: 502},
		{name: "a status of two digits", text: "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
		{name: "status 0", text: "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
		{name: "another protocol", text: "SSH-2.0-x\r\n\r\n", status: 502},
		{name: "HTTP/2 without being asked", text: "\x00\x00\x00\x04\x00\x00\x00\x00\x00", status: 502},
		{name: "nothing", text: "", status: 502},
		{name: "half a head", text: "HTTP/1.1 200 OK\r\nX: y", status: 502},
		{name: "1xx with a length", text: "HTTP/1.1 103 Early Hints\r\nContent-Length: 47\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + poison, status: 200, body: "abc"},
		{name: "1xx in chunks", text: "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + poison, status: 502},
		{name: "1xx without an end", text: strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", 100_000), status: 502},
		{name: "101 that nobody asked for", text: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + poison, status: 502},
		{name: "more body than the length", text: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + poison, status: 200, body: "abc"},
		{name: "less body than the length", text: "HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\nabc", broken: true},
		{name: "chunks without an end", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", broken: true},
		{name: "a chunk that is none", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n", broken: true},
		{name: "body with 204", text: "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison" + poison, status: 204},
		{name: "body with 304", text: "HTTP/1.1 304 Not Modified\r\n\r\npoison" + poison, status: 304},
		{name: "an answer behind the answer", text: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + poison + poison, status: 200, body: "abc"},
		{name: "hop-by-hop headers", text: "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: y\r\nKeep-Alive: z\r\nProxy-Authenticate: w\r\nContent-Length: 3\r\n\r\nabc", status: 200, body: "abc"},
	} {
		for _, goesOn := range []bool{false, true} {
			if goesOn && (c.broken || strings.HasPrefix(c.name, "half") || strings.HasPrefix(c.name, "HTTP/2") || c.name == "nothing" || strings.HasPrefix(c.name, "1xx")) {
				continue // the gateway rightly waits for more
			}
			backend.handle("/fault", says(c.text, goesOn))
			for _, h2 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,goes on=%v,http2=%v", c.name, goesOn, h2), func(t *testing.T) {
					client := f.client(t, nil, via{http2: h2})
					a, err := do(client, "GET", "https://open.test/pub/1.0/fault", nil)
					switch {
					case c.broken && err == nil && a.status != 502: // nothing of it was sent yet
						t.Errorf("a clean end: status %d, %q", a.status, a.body)
					case !c.broken && err != nil:
						t.Error(err)
					case c.orRefused && a.status == 502:
					case !c.broken && a.status != c.status || c.status == 200 && a.body != c.body:
						t.Errorf("status %d, %.200q", a.status, a.body)
					case c.status == 502:
						a.refused(t, 502, map[bool]string{true: "101503", false: "101506"}[c.name == "nothing" || c.name == "half a head"])
					}
					if a.header.Get("X-Hop") != "" || a.header.Get("Keep-Alive") != "" {
						t.Errorf("hop-by-hop headers came through: %v", a.header)
					}
					for i := range 4 {
						if b := get(t, f.client(t, nil, via{http2: i%2 == 0}), fmt.Sprintf("https://open.test/pub/1.0/next-%d", i)); b.status != 200 || b.body != fmt.Sprintf("/next-%d ", i) {
							t.Errorf("the next client got %d, %.200q", b.status, b.body)
						}
					}
				})
			}
		}
	}
}

// TestRefusedUpgrades: whoever asks for another protocol gets a tunnel only if the backend says 101 to a WebSocket; what
// else it says is an answer like any other, and the next call on either connection is answered in order. Nobody gets so far
// without a right. Held: security F 93.
func TestRefusedUpgrades(t *testing.T) {
	var backend *strictBackend
	f := newFixture(t, withStrictBackend(t, &backend))
	const websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	last := "GET /pub/1.0/next HTTP/1.1\r\nHost: open.test\r\nConnection: close\r\n\r\n"
	for _, c := range []struct {
		name, lines, answer string
		want                []int
		upgrade             bool // the backend is asked for it
	}{
		{"refused", websocket, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", []int{403, 200}, true},
		{"overlooked", websocket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", []int{200, 200}, true},
		{"refused without an end", websocket, "HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\n\r\nno", []int{426, 200}, true},
		{"another protocol agreed", websocket, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n", []int{502, 200}, true},
		{"h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", []int{200, 200}, false},
		{"h2c agreed all the same", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", []int{502, 200}, false},
		{"TLS", "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", []int{200, 200}, false},
		{"two protocols", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", []int{200, 200}, false},
		{"two lines", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", []int{200, 200}, false},
		{"not in Connection", "Upgrade: websocket\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", []int{200, 200}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			backend.take()
			backend.handle("/up", says(c.answer, !strings.Contains(c.answer, "close")))
			statuses, got, err := sendRaw(f.plain, head("GET /pub/1.0/up HTTP/1.1", c.lines)+last)
			requests, faults := backend.take()
			if err != nil || fmt.Sprint(statuses) != fmt.Sprint(c.want) || len(faults) > 0 || len(requests) != 2 || requests[1].target != "/next" {
				t.Errorf("statuses %v, want %v; %v; the backend got %+v, %v; the client got %.500q", statuses, c.want, err, requests, faults, got)
			}
			if len(requests) > 0 {
				if asked := strings.Contains(strings.Join(requests[0].lines, "\n"), "Upgrade"); asked != c.upgrade {
					t.Errorf("the backend got %q", requests[0].lines)
				}
			}
		})
	}
	before := f.backend.calls.Load()
	for path, status := range map[string]int{"/pay/1.0/x": 401, "/nothing": 404} {
		raw := f.dial(t, nil, "open.test")
		raw.send(t, strings.ReplaceAll(head("GET "+path+" HTTP/1.1", websocket), "\r\n", "\n"))
		if a := raw.receive(t, "GET"); a.status != status {
			t.Errorf("%s: status %d", path, a.status)
		}
	}
	if f.backend.calls.Load() != before {
		t.Error("an upgrade without a right reached the backend")
	}
}

// TestExpectationsKeepStep: a client that waits to be asked for its body is answered, whatever the backend does, and nothing gets out of
// step. Held: security F 94.
func TestExpectationsKeepStep(t *testing.T) {
	var backend *strictBackend
	f := newFixture(t, withStrictBackend(t, &backend))
	t.Run("asked for", func(t *testing.T) {
		c := f.dialPlain(t)
		c.send(t, "POST /pub/1.0/x HTTP/1.1\nHost: open.test\nContent-Length: 5\nExpect: 100-continue\n\n")
		res, err := http.ReadResponse(c.reader, nil)
		if err != nil || res.StatusCode != 100 {
			t.Fatalf("%v, %v", res, err)
		}
		c.send(t, "hello")
		if a := c.receive(t, "POST"); a.status != 200 || a.body != "/x hello" {
			t.Errorf("status %d, %q", a.status, a.body)
		}
		if a := c.get(t, "/pub/1.0/y", "open.test"); a.body != "/y " {
			t.Errorf("the next call: %d, %q", a.status, a.body)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		statuses, got, err := sendRaw(f.plain, post("Content-Length: 5\r\nExpect: wonders\r\nConnection: close\r\n")+"hello")
		if err != nil || fmt.Sprint(statuses) != "[417]" {
			t.Errorf("%v, %v, %q", statuses, err, got)
		}
	})
	t.Run("refused without being asked", func(t *testing.T) {
		// The body of good will is sent, whether it was asked for or not: either it is read as the body, or the connection
		// has ended.
		backend.take()
		statuses, got, err := sendRaw(f.plain, head("POST /nothing HTTP/1.1", "Content-Length: 53\r\nExpect: 100-continue\r\n")+smuggled)
		requests, _ := backend.take()
		if err != nil || fmt.Sprint(statuses) != "[404]" || len(requests) > 0 {
			t.Errorf("%v, %v, %q; the backend got %v", statuses, err, got, requests)
		}
	})
}

// TestEarlyHintsDoNotKeepTheConnection: what comes before the answer does not hide that the answer is the last.
func TestEarlyHintsDoNotKeepTheConnection(t *testing.T) {
	var backend *strictBackend
	f := newFixture(t, withStrictBackend(t, &backend))
	backend.handle("/p", says("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true))
	backend.take()
	statuses, got, err := sendRaw(f.plain, post("Connection: close\r\nTransfer-Encoding: chunked\r\n")+"3\r\nabc\r\n0\r\n\r\n"+smuggled)
	requests, faults := backend.take()
	if err != nil || fmt.Sprint(statuses) != "[200]" || len(requests) != 1 || len(faults) > 0 || !strings.Contains(got, " 103 ") || !strings.Contains(got, "Connection: close") {
		t.Errorf("%v, %v, %q; the backend got %+v, %v", statuses, err, got, requests, faults)
	}
}

// TestAnswersAreNotMixedUp: what a backend sends behind the end of an answer is no answer to whoever uses the connection
// next, however quickly. Held: security F 96.
func TestAnswersAreNotMixedUp(t *testing.T) {
	var backend *strictBackend
	f := newFixture(t, withStrictBackend(t, &backend))
	backend.handle("/fault", says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", true))
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			c := f.client(t, nil, via{http2: i%2 == 0})
			for n := range 100 {
				path, want := "/fault", "abc"
				if n%2 == 0 {
					path = fmt.Sprintf("/good-%d-%d", i, n)
					want = path + " "
				}
				if a := get(t, c, "https://open.test/pub/1.0"+path); a.status != 200 || a.body != want {
					t.Errorf("%s: status %d, %.100q", path, a.status, a.body)
				}
			}
		})
	}
	all.Wait()
}
