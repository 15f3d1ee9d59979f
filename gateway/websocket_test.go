package gateway_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
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

// echoWebSocket upgrades to a WebSocket and echoes each text in capitals. It sends to gone when the connection ends.
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

// upgrade asks for a WebSocket and returns the head of the answer.
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

// TestWebSocket: frames pass in both directions. A caller without a right gets no tunnel, and a tunnel counts as one
// call. Held: security F 93.
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

	// Authorization and limits come first.
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

// TestOtherUpgrades: only a well-formed request for a WebSocket is forwarded as an upgrade. Held: security F 93.
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

// rawAnswer answers with that text and keeps the connection open. What the gateway sends on it afterwards goes to next.
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

// TestRefusedUpgrade: if the backend does not switch, there is no tunnel, what the client sends next is parsed as a
// request, and no other call uses that backend connection. A backend that switches unasked is a 502.
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
			// What the client sends into its supposed tunnel is a call like any other.
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
		get(t, f.client(t, f.a4, via{http2: h2}), "https://mtls.test/pay/1.0/switch").refused(t, 502, "101506")
		if got := <-next; got != "" {
			t.Errorf("the backend connection was used again: %q", got)
		}
	})
}
