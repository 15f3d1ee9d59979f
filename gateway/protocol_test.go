package gateway_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/backend"

	"golang.org/x/net/http2"
)

// WebSocket, RFC 6455, as far as a test needs it.

const webSocketKey = "dGhlIHNhbXBsZSBub25jZQ=="

const webSocketHead = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: " + webSocketKey + "\n"

func webSocketAccept() string {
	sum := sha1.Sum([]byte(webSocketKey + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// writeFrame writes one text frame, masked as a client has to.
func writeFrame(w io.Writer, text string, masked bool) error {
	frame := []byte{0x81}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	if len(text) < 126 {
		frame = append(frame, mask|byte(len(text)))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, mask|126), uint16(len(text)))
	}
	if masked {
		key := [4]byte{1, 2, 3, 4}
		frame = append(frame, key[:]...)
		for i := range len(text) {
			frame = append(frame, text[i]^key[i%4])
		}
	} else {
		frame = append(frame, text...)
	}
	_, err := w.Write(frame)
	return err
}

func readFrame(r *bufio.Reader) (string, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", err
	}
	size := int(head[1] & 0x7f)
	if size == 126 {
		more := make([]byte, 2)
		if _, err := io.ReadFull(r, more); err != nil {
			return "", err
		}
		size = int(binary.BigEndian.Uint16(more))
	}
	var key [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return "", err
		}
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	for i := range text {
		text[i] ^= key[i%4]
	}
	return string(text), nil
}

// echoWebSocket is a backend that becomes a WebSocket and sends each text back in capitals. It tells gone when it ends.
func echoWebSocket(gone chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
			http.Error(w, "no upgrade", http.StatusUpgradeRequired)
			return
		}
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Sec-WebSocket-Accept", webSocketAccept())
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			gone <- err
			return
		}
		defer c.Close()
		for {
			text, err := readFrame(buffered.Reader)
			if err == nil {
				err = writeFrame(c, strings.ToUpper(text), false)
			}
			if err != nil {
				gone <- err
				return
			}
		}
	}
}

// upgrade asks for a WebSocket; the head of the answer is the answer.
func (c *raw) upgrade(t testing.TB, target, host, lines string) *http.Response {
	t.Helper()
	c.send(t, "GET "+target+" HTTP/1.1\nHost: "+host+"\n"+lines+"\n")
	res, err := http.ReadResponse(c.reader, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (c *raw) exchange(t testing.TB, text string) {
	t.Helper()
	if err := writeFrame(c, text, true); err != nil {
		t.Fatal(err)
	}
	got, err := readFrame(c.reader)
	if err != nil || got != strings.ToUpper(text) {
		t.Fatalf("the echo is %.40q, %v", got, err)
	}
}

// TestWebSocket: frames pass both ways at once; who may not call gets no tunnel, and what the tunnel carried is counted
// as one call. Held: security F 93.
func TestWebSocket(t *testing.T) {
	gone := make(chan error, 8)
	f := newFixture(t)
	f.backend.handle("/ws", echoWebSocket(gone))
	c := f.dial(t, f.a4, "mtls.test")
	res := c.upgrade(t, "/pay/1.0/ws?a=b", "mtls.test", webSocketHead+"Sec-WebSocket-Protocol: chat\nX-Sallyport-Client: root\n")
	if res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Accept") != webSocketAccept() || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("status %d, %v", res.StatusCode, res.Header)
	}
	for _, text := range []string{"hello", strings.Repeat("long ", 5000), "again"} {
		c.exchange(t, text)
	}
	got := f.backend.last(t)
	if got.Target != "/ws?a=b" || got.Header.Get("X-Sallyport-Client") != "a4" || got.Header.Get("Sec-Websocket-Protocol") != "chat" || got.Header.Get("Sec-Websocket-Key") != webSocketKey {
		t.Errorf("the backend got %q with %v", got.Target, got.Header)
	}
	c.Close()
	<-gone
	s := f.lastSeen(t, "the tunnel is observed", func(s seen) bool { return s.Status == 101 })
	if s.Alias != "a4" || s.Path != "/pay/1.0/ws" {
		t.Errorf("observed %+v", s)
	}

	// Who may call comes first, and so do limits.
	ask := func(who *party, sni, target, lines string) func() answer {
		return func() answer {
			c := f.dial(t, who, sni)
			c.send(t, "GET "+target+" HTTP/1.1\nHost: "+sni+"\n"+lines+"\n")
			return c.receive(t, "GET")
		}
	}
	f.denied(t, 401, "900902", ask(nil, "opt.test", "/pay/1.0/ws", webSocketHead))
	f.denied(t, 401, "900901", ask(f.a2, "opt.test", "/pay/1.0/ws", webSocketHead))
	for range 10 {
		f.allowed(t, func() answer { return get(t, f.client(t, f.a1, via{}), "https://mtls.test/pay/1.0/x") })
	}
	f.denied(t, 429, "900804", ask(f.a1, "mtls.test", "/pay/1.0/ws", webSocketHead))
}

// TestOtherUpgrades: nothing but a WebSocket, asked for as it has to be, is passed on as an upgrade. Held: security F 93.
func TestOtherUpgrades(t *testing.T) {
	f := newFixture(t)
	for _, lines := range []string{
		"Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n",
		"Connection: Upgrade\nUpgrade: TLS/1.2\n",
		"Connection: Upgrade\nUpgrade: websocket, h2c\n",
		"Connection: Upgrade\nUpgrade: h2c\nUpgrade: websocket\n",
		"Connection: Upgrade\nUpgrade: websocket/13\n",
		"Upgrade: websocket\n",
		"Connection: Upgrade\n",
		webSocketHead + "Content-Length: 3\n",
	} {
		c := f.dial(t, f.a4, "mtls.test")
		body := ""
		if strings.Contains(lines, "Content-Length") {
			body = "abc"
		}
		c.send(t, "GET /pay/1.0/x HTTP/1.1\nHost: mtls.test\n"+lines+"\n"+body)
		a := c.receive(t, "GET")
		if a.status != 200 {
			t.Errorf("%q: status %d (%q)", lines, a.status, a.body)
			continue
		}
		h := a.echo(t).Header
		if h.Get("Upgrade") != "" || h.Get("Connection") != "" || h.Get("Http2-Settings") != "" {
			t.Errorf("%q: the backend got %v", lines, h)
		}
		if a := c.get(t, "/pay/1.0/x", "mtls.test"); a.status != 200 {
			t.Errorf("%q: the next call: status %d", lines, a.status)
		}
	}
	// POST, and HTTP/1.0, upgrade nothing.
	for _, head := range []string{"POST /pay/1.0/x HTTP/1.1\nContent-Length: 0\n", "GET /pay/1.0/x HTTP/1.0\n"} {
		c := f.dial(t, f.a4, "mtls.test")
		c.send(t, head+"Host: mtls.test\n"+webSocketHead+"\n")
		if a := c.receive(t, "GET"); a.status != 200 || a.echo(t).Header.Get("Upgrade") != "" {
			t.Errorf("%q: status %d (%q)", head, a.status, a.body)
		}
	}
}

// rawAnswer makes a backend answer with that text and keep the connection: what comes on it later is told to next.
func rawAnswer(text string, next chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
		p := make([]byte, 4096)
		n, _ := buffered.Read(p) // until the gateway closes it, or sends something
		next <- string(p[:n])
	}
}

// TestRefusedUpgrade: after a backend that does not switch there is no tunnel, what the client sends next is a request or
// nothing, and no other call meets that backend connection. A backend that switches unasked is a fault.
// Held: security F 93.
func TestRefusedUpgrade(t *testing.T) {
	f := newFixture(t)
	smuggled := "GET /pay/1.0/smuggled HTTP/1.1\nHost: mtls.test\n\n"
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"403":      {"HTTP/1.1 403 Forbidden\nContent-Length: 2\n\nno", 403},
		"200":      {"HTTP/1.1 200 OK\nContent-Length: 2\nConnection: Upgrade\nUpgrade: websocket\n\nok", 200},
		"426":      {"HTTP/1.1 426 Upgrade Required\nContent-Length: 0\n\n", 426},
		"other":    {"HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: h2c\n\n", 502},
		"no name":  {"HTTP/1.1 101 Switching Protocols\n\n", 502},
		"not said": {"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket2\n\n", 502},
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan string, 1)
			f.backend.handle("/no", rawAnswer(c.text, next))
			conn := f.dial(t, f.a4, "mtls.test")
			before := f.backend.conns.Load()
			conn.send(t, "GET /pay/1.0/no HTTP/1.1\nHost: mtls.test\n"+webSocketHead+"\n")
			a := conn.receive(t, "GET")
			if a.status != c.status {
				t.Errorf("status %d (%q)", a.status, a.body)
			}
			if got := <-next; got != "" {
				t.Errorf("the backend connection was used again: %q", got)
			}
			// What the client takes for its tunnel is a call like any other.
			conn.send(t, smuggled)
			if a, err := conn.tryReceive("GET"); err == nil && (a.status != 200 || a.echo(t).Header.Get("X-Sallyport-Client") != "a4") {
				t.Errorf("the next call: %+v", a)
			}
			if f.backend.conns.Load() == before {
				t.Error("the upgrade came on a connection that others use")
			}
		})
	}
	// Not asked for at all.
	next := make(chan string, 1)
	f.backend.handle("/switch", rawAnswer("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n", next))
	eachVersion(t, func(t *testing.T, h2 bool) {
		get(t, f.client(t, f.a4, via{http2: h2}), "https://mtls.test/pay/1.0/switch").refused(t, 502, "101503")
		if got := <-next; got != "" {
			t.Errorf("the backend connection was used again: %q", got)
		}
	})
}

// TestRemovedRowEndsStreams: an upgraded connection and an event stream end when the certificate's row is removed, on
// both sides; those of others, and an ordinary call under way, go on.
func TestRemovedRowEndsStreams(t *testing.T) {
	gone := make(chan error, 8)
	ended := make(chan struct{}, 8)
	release := make(chan struct{})
	f := newFixture(t, register(client(payAPI, "a2", theWorld().a2, "Unlimited")))
	f.backend.handle("/ws", echoWebSocket(gone))
	f.backend.handle("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: first\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- struct{}{}
	})
	f.backend.handle("/slow", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-release
		fmt.Fprint(w, "whole")
	})
	open := func(who *party) *raw {
		c := f.dial(t, who, "mtls.test")
		if res := c.upgrade(t, "/pay/1.0/ws", "mtls.test", webSocketHead); res.StatusCode != 101 {
			t.Fatalf("status %d", res.StatusCode)
		}
		c.exchange(t, "before")
		return c
	}
	theirs, others := open(f.a4), open(f.a2)
	slow := make(chan answer, 1)
	go func() {
		a, err := do(f.client(t, f.a4, via{}), "GET", "https://mtls.test/pay/1.0/slow", nil)
		if err != nil {
			t.Error(err)
		}
		slow <- a
	}()
	var streams []*http.Response
	for _, h2 := range []bool{false, true} {
		res, err := f.client(t, f.a4, via{http2: h2}).Get("https://mtls.test/pay/1.0/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || line != "data: first\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		streams = append(streams, res)
	}
	eventually(t, "the slow call is under way", func() bool { return f.backend.count("/slow") == 1 })

	f.setClients(t) // a swap that takes nothing away
	theirs.exchange(t, "after a swap")

	f.remove(t, "a4")
	if !theirs.ended() {
		t.Error("the tunnel goes on")
	}
	<-gone // the backend's side, too
	for _, res := range streams {
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("the event stream ended as if it were whole")
		}
		<-ended
	}
	f.lastSeen(t, "the end of the tunnel is observed", func(s seen) bool { return s.Status == 101 && s.Reason == "broken_off" && s.Alias == "a4" })
	others.exchange(t, "still here")
	close(release)
	if a := <-slow; a.status != 200 || a.body != "whole" {
		t.Errorf("the call under way: status %d, %q", a.status, a.body)
	}
	others.Close()
	<-gone
}

// TestEndedRightEndsTunnels: each way in which a certificate loses its right ends its tunnel: its CA's removal, its
// expiry, a tier that is gone, the API's removal, a change to SANDBOX; a client that reads nothing is no exception.
func TestEndedRightEndsTunnels(t *testing.T) {
	w := theWorld()
	now := newClock().Now()
	b1 := issue("b1", w.caB)
	soon := issue("soon", w.interA, validity(now.Add(-time.Hour), now.Add(time.Minute)))
	for name, c := range map[string]struct {
		who *party
		end func(*testing.T, *fixture)
	}{
		"CA":     {b1, func(t *testing.T, f *fixture) { f.setProfiles(t, f.profiles(t, certPEM(f.caA), allProfiles...)) }},
		"expiry": {soon, func(t *testing.T, f *fixture) { f.clock.Advance(time.Hour) }}, // and no swap
		"tier":   {w.a4, func(t *testing.T, f *fixture) { setTier(f, "Nowhere"); f.setClients(t) }},
		"API":    {w.a4, func(t *testing.T, f *fixture) { f.routes = f.routes[1:]; f.setRoutes(t) }},
		"sandbox": {w.a4, func(t *testing.T, f *fixture) {
			f.clients[3] = sandbox(f.clients[3])
			f.setClients(t)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan error, 1)
			f := newFixture(t, register(client(payAPI, "b1", b1, "Unlimited"), client(payAPI, "soon", soon, "Unlimited")),
				func(_ *fixture, s *setup) { s.config.Recheck(10 * time.Millisecond) })
			f.setProfiles(t, f.profiles(t, certPEM(f.caA, f.caB), allProfiles...))
			f.backend.handle("/ws", echoWebSocket(gone))
			conn := f.dial(t, c.who, "opt.test")
			if res := conn.upgrade(t, "/pay/1.0/ws", "opt.test", webSocketHead); res.StatusCode != 101 {
				t.Fatalf("status %d", res.StatusCode)
			}
			conn.exchange(t, "before")
			c.end(t, f)
			if !conn.ended() {
				t.Error("the tunnel goes on")
			}
			<-gone
		})
	}

	// A client that takes nothing.
	f := newFixture(t)
	gone := make(chan struct{})
	f.backend.handle("/pour", func(w http.ResponseWriter, _ *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	conn := f.dial(t, f.a4, "mtls.test")
	conn.send(t, "GET /pay/1.0/pour HTTP/1.1\nHost: mtls.test\n\n")
	eventually(t, "it pours", func() bool { return f.backend.count("/pour") == 1 })
	if _, err := conn.reader.ReadByte(); err != nil {
		t.Fatal(err)
	}
	f.remove(t, "a4")
	<-gone
	f.lastSeen(t, "its end is observed", func(s seen) bool { return s.Path == "/pay/1.0/pour" && s.Reason == "broken_off" })
}

func setTier(f *fixture, tier string) {
	for i := range f.clients {
		f.clients[i].Tier = tier
	}
}

// TestStreamsOfUnknownLength: an answer whose end nobody knows has as long as a drain, after its right has ended.
func TestStreamsOfUnknownLength(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.DrainTimeout = 50 * time.Millisecond })
	f.backend.handle("/lines", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprintln(w, "{}")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		f.remove(t, "a4")
		f.clients = append(f.clients, client(payAPI, "a4", f.a4, "Unlimited"))
		f.setClients(t)
		res, err := f.client(t, f.a4, via{http2: h2}).Get("https://mtls.test/pay/1.0/lines")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		f.remove(t, "a4")
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("it ended as if it were whole")
		}
	})
}

// TestTrailers pass both ways, but for those that could be taken for what only a header may be.
func TestTrailers(t *testing.T) {
	f := newFixture(t, func(f *fixture, s *setup) {
		b := h2cBackend(t, trailing)
		r := s.routes[3]
		r.API.Name, r.Context = "h2c", "/h2c"
		r.Upstream = f.upstream(t, b)
		r.Upstream.Protocol = backend.H2C
		s.routes = append(s.routes, r)
	})
	f.backend.handle("/trailers", trailing)
	eachVersion(t, func(t *testing.T, h2 bool) {
		for i, api := range []string{"pub", "h2c", "pub", "h2c"} {
			r, err := http.NewRequest([]string{"POST", "DELETE"}[i/2], "https://open.test/"+api+"/1.0/trailers", nil)
			if err != nil {
				t.Fatal(err)
			}
			names := []string{"X-Checksum", "X-Sallyport-Client", "X_sallyport_client", "X-Forwarded-For", "X-Client-Cert-Hash", "X-Wso2-Client-Certificate", "Cookie", "X-Request-Id"}
			if !h2 {
				names = append(names, "Authorization", "Host") // in HTTP/2 net/http resets the stream
			}
			r.Trailer = http.Header{}
			for _, name := range names {
				r.Trailer[name] = nil
			}
			r.Body = afterwards{strings.NewReader("body"), func() {
				for _, name := range names {
					r.Trailer[name] = []string{"late"}
				}
			}}
			r.ContentLength = -1
			res, err := f.client(t, nil, via{http2: h2}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(text) != "body map[X-Checksum:[late]]" {
				t.Errorf("%s: the backend got %q, %v", api, text, err)
			}
			if res.Trailer.Get("X-Announced") != "one" || res.Trailer.Get("X-Sudden") != "two" {
				t.Errorf("%s: trailers %v", api, res.Trailer)
			}
		}
	})
}

// trailing answers with the body and the trailers that it got, and has trailers of its own.
func trailing(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Trailer", "X-Announced")
	fmt.Fprintf(w, "%s %v", body, map[string][]string(r.Trailer))
	w.Header().Set("X-Announced", "one")
	w.Header().Set(http.TrailerPrefix+"X-Sudden", "two")
}

// afterwards does something when all has been read.
type afterwards struct {
	io.Reader
	then func()
}

func (a afterwards) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err == io.EOF {
		a.then()
	}
	return n, err
}

func (afterwards) Close() error { return nil }

// TestExpect: a body is asked for only when the call is admitted; a refusal comes without it; what else is expected is
// 417. Held: security F 94.
func TestExpect(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.routes[0].MaxBody = 100 })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	f.backend.handle("/early", early(401))
	head := func(path, length, more string) string {
		return "POST " + path + " HTTP/1.1\nHost: opt.test\nExpect: 100-continue\n" + length + more + "\n"
	}
	interim := func(t *testing.T, c *raw) {
		t.Helper()
		line, err := textproto.NewReader(c.reader).ReadLine()
		if err != nil || line != "HTTP/1.1 100 Continue" {
			t.Fatalf("got %q, %v", line, err)
		}
		if line, err = textproto.NewReader(c.reader).ReadLine(); err != nil || line != "" {
			t.Fatalf("after it %q, %v", line, err)
		}
	}
	// Admitted.
	for length, body := range map[string]string{"Content-Length: 4\n": "body", "Transfer-Encoding: chunked\n": "4\r\nbody\r\n0\r\n\r\n"} {
		c := f.dial(t, f.a4, "opt.test")
		c.send(t, head("/pay/1.0/x", length, ""))
		interim(t, c)
		_, _ = io.WriteString(c, body)
		a := c.receive(t, "POST")
		if got := a.echo(t); got.Body != "body" || got.Header.Get("Expect") != "" {
			t.Errorf("the backend got %+v", got)
		}
		if !strings.HasPrefix(length, "T") {
			if a := c.get(t, "/pub/1.0/x", "opt.test"); a.status != 200 {
				t.Errorf("the next call: %d", a.status)
			}
		}
	}
	// Refused: no 100, and no body is waited for; the connection ends, since the client may send it all the same.
	for path, status := range map[string]int{"/pay/1.0/x": 401, "/nothing": 404, "/pay/1.0/../x": 400} {
		c := f.dial(t, nil, "opt.test")
		c.send(t, head(path, "Content-Length: 4\n", ""))
		if a := c.receive(t, "POST"); a.status != status {
			t.Errorf("%s: status %d (%q)", path, a.status, a.body)
		}
		if !c.ended() {
			t.Errorf("%s: the connection goes on", path)
		}
	}
	c := f.dial(t, f.a4, "opt.test")
	c.send(t, head("/pay/1.0/x", "Content-Length: 1000\n", ""))
	c.receive(t, "POST").refused(t, 413, "413")
	// The backend refuses without reading.
	c = f.dial(t, f.a4, "opt.test")
	c.send(t, head("/pay/1.0/early", "Content-Length: 4\n", ""))
	refusal := c.receive(t, "POST")
	if refusal.status == 100 { // which a quick answer overtakes
		refusal = c.receive(t, "POST")
	}
	if refusal.status != 401 || refusal.header.Get("X-Request-Id") == "" {
		t.Errorf("status %d", refusal.status)
	}
	// Unknown.
	before := f.backend.calls.Load()
	c = f.dial(t, f.a4, "opt.test")
	c.send(t, "POST /pay/1.0/x HTTP/1.1\nHost: opt.test\nExpect: the best\nContent-Length: 4\n\nbody")
	if a := c.receive(t, "POST"); a.status != 417 {
		t.Errorf("status %d", a.status)
	}
	f.dialHTTP2(t, f.a4, "opt.test").get(t, "/pay/1.0/x", "opt.test", "expect", "the best").refused(t, 417, "417")
	if f.backend.calls.Load() != before {
		t.Error("the backend was called")
	}
	// HTTP/2.
	c2 := f.client(t, f.a4, via{http2: true})
	c2.Transport.(*http.Transport).ExpectContinueTimeout = 30 * time.Second // it waits for us
	a, err := do(c2, "POST", "https://opt.test/pay/1.0/x", strings.NewReader("body"), header("Expect", "100-continue"))
	if err != nil || a.status != 200 || a.echo(t).Body != "body" {
		t.Errorf("HTTP/2: %+v, %v", a, err)
	}
}

// early answers without a look at the body.
func early(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // or net/http would wait for it
		http.Error(w, "no", status)
		_ = http.NewResponseController(w).Flush()
	}
}

// TestEarlyAnswer: a backend that answers before it has the body is heard at once, and the body that is under way to a
// backend that wants it is not touched by that.
func TestEarlyAnswer(t *testing.T) {
	f := newFixture(t)
	f.backend.handle("/early", early(403))
	f.backend.handle("/both", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		p := make([]byte, 64)
		for {
			n, err := r.Body.Read(p)
			_, _ = w.Write(bytes.ToUpper(p[:n]))
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	})
	for _, h2 := range []bool{false, true} {
		for _, length := range []int64{1 << 20, -1} {
			name := fmt.Sprintf("http2=%v, length %d", h2, length)
			reader, writer := io.Pipe()
			r, err := http.NewRequest("POST", "https://mtls.test/pay/1.0/early", reader)
			if err != nil {
				t.Fatal(err)
			}
			r.ContentLength = length
			go func(w io.Writer) { _, _ = io.WriteString(w, "begin") }(writer)
			res, err := f.client(t, f.a4, via{http2: h2}).Do(r) // the rest of the body never comes
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if text, err := io.ReadAll(res.Body); res.StatusCode != 403 || string(text) != "no\n" || err != nil {
				t.Errorf("%s: status %d, %q, %v", name, res.StatusCode, text, err)
			}
			res.Body.Close()
			writer.Close()

			// Both directions at once.
			parts := []string{"one", "two", "three", "four"}
			size := int64(len(strings.Join(parts, "")))
			if length < 0 {
				size = -1
			}
			reader, writer = io.Pipe()
			if r, err = http.NewRequest("POST", "https://mtls.test/pay/1.0/both", reader); err != nil {
				t.Fatal(err)
			}
			r.ContentLength = size
			go func(w io.Writer) { _, _ = io.WriteString(w, parts[0]) }(writer)
			if res, err = f.client(t, f.a4, via{http2: h2}).Do(r); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for i, part := range parts {
				if i > 0 {
					go func() {
						_, _ = io.WriteString(writer, part)
						if i == len(parts)-1 {
							writer.Close() // the client looks for the end before it sends the last part
						}
					}()
				}
				got := make([]byte, len(part))
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != strings.ToUpper(part) {
					t.Errorf("%s: %q, %v", name, got, err)
					break
				}
			}
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
				t.Errorf("%s: then %q, %v", name, rest, err)
			}
			res.Body.Close()
		}
	}
}

// TestInterimAnswers: 103 and its fields reach the client before the answer, and no client of HTTP/1.0.
func TestInterimAnswers(t *testing.T) {
	f := newFixture(t)
	f.backend.handle("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("X-Final", "yes")
		fmt.Fprint(w, "done")
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		var codes []int
		var link string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			codes, link = append(codes, code), h.Get("Link")
			return nil
		}})
		a := get(t, f.client(t, nil, via{http2: h2}), "https://open.test/pub/1.0/hints", func(r *http.Request) { *r = *r.WithContext(ctx) })
		if a.status != 200 || a.body != "done" || a.header.Get("X-Final") != "yes" || a.header.Get("Link") != "" || a.id() == "" {
			t.Errorf("got %+v", a)
		}
		if len(codes) != 1 || codes[0] != 103 || link == "" {
			t.Errorf("interim answers %v, Link %q", codes, link)
		}
	})
	c := f.dial(t, nil, "open.test")
	c.send(t, "GET /pub/1.0/hints HTTP/1.0\nHost: open.test\n\n")
	if a := c.receive(t, "GET"); a.status != 200 || a.body != "done" {
		t.Errorf("HTTP/1.0: %+v", a)
	}
}

// TestAnswersWithoutBody: HEAD, 204 and 304 end with their head, and the connection is in step afterwards.
func TestAnswersWithoutBody(t *testing.T) {
	f := newFixture(t)
	f.backend.handle("/204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	f.backend.handle("/304", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Etag", `"x"`); w.WriteHeader(304) })
	f.backend.handle("/head", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1000000") })
	c := f.dial(t, nil, "open.test")
	h := f.dialHTTP2(t, nil, "open.test")
	for _, q := range []struct {
		method, path string
		status       int
		length       string
	}{{"GET", "/204", 204, ""}, {"GET", "/304", 304, ""}, {"HEAD", "/head", 200, "1000000"}, {"HEAD", "/204", 204, ""}, {"HEAD", "/x", 200, ""}} {
		c.send(t, q.method+" /pub/1.0"+q.path+" HTTP/1.1\nHost: open.test\n\n")
		a := c.receive(t, q.method)
		if a.status != q.status || a.body != "" || q.length != "" && a.header.Get("Content-Length") != q.length || a.header.Get("Connection") != "" {
			t.Errorf("%s %s: %+v", q.method, q.path, a)
		}
		id := h.open(t, true, ":method", q.method, ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0"+q.path)
		if a := h.receive(t, id); a.status != q.status || a.body != "" || q.length != "" && a.header.Get("Content-Length") != q.length {
			t.Errorf("HTTP/2 %s %s: %+v", q.method, q.path, a)
		}
	}
	if a := c.get(t, "/pub/1.0/x", "open.test"); a.status != 200 {
		t.Errorf("after them: status %d", a.status)
	}
	// Connection: close is kept on the client's side and not passed on.
	a := c.get(t, "/pub/1.0/x", "open.test", "Connection: close")
	if a.status != 200 || a.header.Get("Connection") != "close" || !c.ended() || a.echo(t).Header.Get("Connection") != "" {
		t.Errorf("Connection: close: %+v", a)
	}
	// A backend that closes does not close the client's.
	f.backend.handle("/close", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "bye")
	})
	c = f.dial(t, nil, "open.test")
	for range 2 {
		if a := c.get(t, "/pub/1.0/close", "open.test"); a.status != 200 || a.header.Get("Connection") != "" {
			t.Errorf("the backend closes: %+v", a)
		}
	}
	// HTTP/1.0: no chunks, the end of the connection is the end of the answer.
	c = f.dial(t, nil, "open.test")
	c.send(t, "GET /pub/1.0/x HTTP/1.0\nHost: open.test\n\n")
	if a := c.receive(t, "GET"); a.status != 200 || a.header.Get("Transfer-Encoding") != "" || !c.ended() {
		t.Errorf("HTTP/1.0: %+v", a)
	}
}

// TestCompressedBodies pass untouched both ways. Held: security H 112.
func TestCompressedBodies(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 32 {
		_, _ = z.Write(zeros)
	}
	z.Close()
	f := newFixture(t)
	f.backend.handle("/bomb", func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("X-Same", strconv.FormatBool(bytes.Equal(got, bomb.Bytes()) && r.Header.Get("Content-Encoding") == "gzip"))
		w.Header().Set("X-Accept", r.Header.Get("Accept-Encoding"))
		_, _ = w.Write(bomb.Bytes())
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		a, err := do(f.client(t, nil, via{http2: h2}), "POST", "https://open.test/pub/1.0/bomb", bytes.NewReader(bomb.Bytes()), header("Content-Encoding", "gzip"))
		if err != nil {
			t.Fatal(err)
		}
		if a.body != bomb.String() || a.header.Get("Content-Encoding") != "gzip" || a.header.Get("X-Same") != "true" || a.header.Get("X-Accept") != "" {
			t.Errorf("%d bytes with %v", len(a.body), a.header)
		}
	})
}

// TestMaxBodySize: a body that is too large is 413, whether its length is told or not, and no more of it than that
// reaches the backend. Held: security H 111 for the limit.
func TestMaxBodySize(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.routes[3].MaxBody = 1000 })
	var most atomic.Int64
	f.backend.handle("/size", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		for n := int64(len(body)); ; {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		fmt.Fprint(w, len(body), err)
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		for _, c := range []struct {
			size   int
			status int
		}{{1000, 200}, {1001, 413}, {100_000, 413}, {4 << 20, 413}} {
			for _, told := range []bool{true, false} {
				var body io.Reader = strings.NewReader(strings.Repeat("x", c.size))
				if !told {
					body = io.MultiReader(body)
				}
				a, err := do(f.client(t, nil, via{http2: h2}), "POST", "https://open.test/pub/1.0/size", body)
				if err != nil {
					// The client may still be sending when it is refused.
					if c.size < 1<<20 {
						t.Errorf("%d, told %v: %v", c.size, told, err)
					}
					continue
				}
				if c.status == 413 {
					a.refused(t, 413, "413")
				} else if a.status != c.status || a.body != "1000 <nil>" {
					t.Errorf("%d, told %v: status %d (%q)", c.size, told, a.status, a.body)
				}
			}
		}
	})
	if n := most.Load(); n > 1000 {
		t.Errorf("the backend got %d bytes", n)
	}
}

// TestBodyRate: a body that stalls is 408 and ends, and so does an answer that nobody takes; one that is slow for good
// reason, because the backend is, passes. Held: security H 105 for bodies.
func TestBodyRate(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits.BodyRate = 1 << 20
		s.config.Hasten(0, 0, 200*time.Millisecond)
	})
	gone := make(chan struct{}, 8)
	f.backend.handle("/pour", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				gone <- struct{}{}
				return
			}
		}
	})
	next := make(chan struct{})
	f.backend.handle("/thinks", func(w http.ResponseWriter, r *http.Request) {
		<-next
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	for name, head := range map[string]string{"told": "Content-Length: 1000\n\nabc", "chunked": "Transfer-Encoding: chunked\n\n3\nabc\n"} {
		c := f.dial(t, nil, "open.test")
		c.send(t, "POST /pub/1.0/x HTTP/1.1\nHost: open.test\n"+head)
		c.receive(t, "POST").refused(t, 408, "408")
		if !c.ended() {
			t.Errorf("%s: the connection goes on", name)
		}
	}
	h := f.dialHTTP2(t, nil, "open.test")
	id := h.open(t, false, ":method", "POST", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/x")
	if err := h.framer.WriteData(id, false, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	h.receive(t, id).refused(t, 408, "408")
	f.allowed(t, func() answer { return h.get(t, "/pub/1.0/x", "open.test") }) // its neighbours live on

	// Answers that nobody takes.
	c := f.dial(t, nil, "open.test")
	c.send(t, "GET /pub/1.0/pour HTTP/1.1\nHost: open.test\n\n")
	<-gone
	h = f.dialHTTP2(t, nil, "open.test")
	h.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/pour")
	<-gone // the connection took nothing
	h = f.dialHTTP2(t, nil, "open.test")
	if err := h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}); err != nil {
		t.Fatal(err)
	}
	id = h.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "open.test", ":path", "/pub/1.0/pour")
	if a := h.receive(t, id); a.status != 0 || len(a.body) > 1000 && !strings.Contains(a.body, "INTERNAL") {
		t.Errorf("a stream without a window: %d, %.100q", a.status, a.body)
	}
	<-gone
	f.allowed(t, func() answer { return h.get(t, "/pub/1.0/x", "open.test") })

	// It is the backend that keeps the body waiting.
	done := make(chan answer, 1)
	go func() {
		a, err := do(f.client(t, nil, via{}), "POST", "https://open.test/pub/1.0/thinks", bytes.NewReader(make([]byte, 32<<20)))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	eventually(t, "the backend has the call", func() bool { return f.backend.count("/thinks") == 1 })
	time.AfterFunc(time.Second, func() { close(next) }) // five times the grace: what is waited for is that it does not matter
	if a := <-done; a.status != 200 || a.body != strconv.Itoa(32<<20)+" <nil>" {
		t.Errorf("status %d (%q)", a.status, a.body)
	}
}

// TestPausingStream: a client that has taken all that there is does not lose its stream while the backend has nothing to say.
func TestPausingStream(t *testing.T) {
	const grace = 50 * time.Millisecond
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits.BodyRate = 1 << 20
		s.config.Hasten(0, 0, grace)
	})
	next := make(chan struct{})
	f.backend.handle("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, event := range []string{"one", "two"} {
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		res, err := f.client(t, nil, via{http2: h2}).Get("https://open.test/pub/1.0/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for _, event := range []string{"one", "two"} {
			if _, err := io.ReadFull(res.Body, make([]byte, len(event))); err != nil {
				t.Errorf("%s: %v", event, err)
			}
			<-time.After(4 * grace) // until any time for the client is over
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
			t.Errorf("it ends with %q, %v", rest, err)
		}
	})
}

// TestLateTrailerRace is for the race detector: bodies whose end comes while the answer is on its way.
func TestLateTrailerRace(t *testing.T) {
	f := newFixture(t)
	f.backend.handle("/early", early(403))
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "POST", "https://mtls.test/pay/1.0/early", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-Sum": {"1"}}
		r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", i*1000)))), -1
		res, err := f.client(t, f.a4, via{http2: i%2 == 0}).Do(r)
		var broken *net.OpError
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		} else if !errors.As(err, &broken) && i%2 == 0 {
			t.Error(err)
		}
		cancel()
	}
}
