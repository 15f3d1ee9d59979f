package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// via is how a client reaches the gateway. Its zero value is HTTP/1.1 over TLS with the URL's host as server name.
type via struct {
	sni     string // "127.0.0.1": none is sent
	http2   bool
	tls12   bool
	tickets tls.ClientSessionCache
	from    string // source address
}

// client is a client with that certificate, or none.
func (f *fixture) client(t testing.TB, who *party, how via) *http.Client {
	t.Helper()
	dialer := &net.Dialer{}
	if how.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(how.from)}
	}
	transport := &http.Transport{
		TLSClientConfig:     f.clientTLS(who, how),
		ForceAttemptHTTP2:   how.http2,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 8,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			if strings.HasSuffix(addr, ":80") {
				return dialer.DialContext(ctx, "tcp", f.plain)
			}
			return dialer.DialContext(ctx, "tcp", f.address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (f *fixture) clientTLS(who *party, how via) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(f.serverCA.cert)
	c := &tls.Config{RootCAs: roots, ServerName: how.sni, ClientSessionCache: how.tickets}
	if how.tls12 {
		c.MaxVersion = tls.VersionTLS12
	}
	if who != nil {
		// It is sent whatever the server says of the issuers it likes.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return who.tls(), nil }
	}
	return c
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	proto  int
	reused bool // the connection had served a call before
	local  string
}

// kept reports whether the call came on a connection that was there before, as far as that is promised: net/http's client
// gives up on one of HTTP/1.1 if it does not hear within 50 ms that its request was written.
func (a answer) kept() bool { return a.reused || a.proto == 1 }

func (a answer) id() string { return a.header.Get("X-Request-Id") }

// echo is what the backend got, by its own account.
func (a answer) echo(t testing.TB) record {
	t.Helper()
	var r record
	if err := json.Unmarshal([]byte(a.body), &r); err != nil {
		t.Fatalf("status %d, not the backend's answer: %q: %v", a.status, a.body, err)
	}
	return r
}

// refused checks that a is that refusal, in the form that all refusals have.
func (a answer) refused(t testing.TB, status int, code string) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d (%.200q)", a.status, status, a.body)
		return
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Errorf("body %.200q: %v", a.body, err)
		return
	}
	if body["code"] != code {
		t.Errorf("code %#v, want the string %q", body["code"], code)
	}
	for _, key := range []string{"message", "description"} {
		if text, ok := body[key].(string); !ok || text == "" {
			t.Errorf("body %.200q has no %s", a.body, key)
		}
	}
	if len(body) != 3 {
		t.Errorf("body %.200q, want code, message and description", a.body)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json; charset=UTF-8" {
		t.Errorf("Content-Type %q", ct)
	}
	if a.header.Get("X-Request-Id") == "" {
		t.Error("no X-Request-Id")
	}
	ofToken := code == "900910" || code == "900914" // if the token is what lacks it
	if got := a.header.Get("WWW-Authenticate") != ""; got != (status == http.StatusUnauthorized) && !ofToken {
		t.Errorf("status %d with WWW-Authenticate %q", status, a.header.Values("WWW-Authenticate"))
	}
}

func do(c *http.Client, method, target string, body io.Reader, options ...func(*http.Request)) (answer, error) {
	r, err := http.NewRequest(method, target, body)
	if err != nil {
		return answer{}, err
	}
	for _, o := range options {
		o(r)
	}
	var a answer
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		a.reused, a.local = i.Reused, i.Conn.LocalAddr().String()
	}}))
	res, err := c.Do(r)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	a.status, a.header, a.body, a.proto = res.StatusCode, res.Header, string(text), res.ProtoMajor
	return a, err
}

func get(t testing.TB, c *http.Client, target string, options ...func(*http.Request)) answer {
	t.Helper()
	a, err := do(c, "GET", target, nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// denied makes a call that has to be refused so, without reaching the backend.
func (f *fixture) denied(t testing.TB, status int, code string, call func() answer) answer {
	t.Helper()
	before := f.backend.calls.Load()
	a := call()
	a.refused(t, status, code)
	if after := f.backend.calls.Load(); after != before {
		t.Errorf("the backend was called %d times", after-before)
	}
	return a
}

// allowed makes a call that has to reach the backend, and returns what it got.
func (f *fixture) allowed(t testing.TB, call func() answer) record {
	t.Helper()
	a := call()
	if a.status != http.StatusOK {
		t.Fatalf("status %d, want 200 (%.200q)", a.status, a.body)
	}
	return a.echo(t)
}

// handshakeFails makes a call whose connection has to end in the handshake.
func (f *fixture) handshakeFails(t testing.TB, c *http.Client, target string) {
	t.Helper()
	before := f.backend.calls.Load()
	a, err := do(c, "GET", target, nil)
	if err == nil {
		t.Errorf("status %d, want a broken handshake", a.status)
	}
	if after := f.backend.calls.Load(); after != before {
		t.Errorf("the backend was called %d times", after-before)
	}
}

// A raw connection takes requests as they are written.
type raw struct {
	net.Conn
	reader *bufio.Reader
}

func (f *fixture) dial(t testing.TB, who *party, sni string) *raw {
	t.Helper()
	return dialRaw(t, f.address, f.clientTLS(who, via{sni: sni}))
}

func (f *fixture) dialPlain(t testing.TB) *raw {
	t.Helper()
	return dialRaw(t, f.plain, nil)
}

func dialRaw(t testing.TB, address string, config *tls.Config) *raw {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if config != nil {
		c = tls.Client(c, config)
	}
	t.Cleanup(func() { c.Close() })
	return &raw{c, bufio.NewReader(c)}
}

// send writes text, in which "\n" stands for CRLF.
func (c *raw) send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
}

// receive reads the answer to a request of that method.
func (c *raw) receive(t testing.TB, method string) answer {
	t.Helper()
	a, err := c.tryReceive(method)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (c *raw) tryReceive(method string) (answer, error) {
	res, err := http.ReadResponse(c.reader, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if res.Close {
		res.Header.Set("Connection", "close")
	}
	return answer{status: res.StatusCode, header: res.Header, body: string(text), proto: 1}, err
}

// get sends a target as it is.
func (c *raw) get(t testing.TB, target, host string, lines ...string) answer {
	t.Helper()
	c.send(t, "GET "+target+" HTTP/1.1\nHost: "+host+"\n"+strings.Join(append(lines, "", ""), "\n"))
	return c.receive(t, "GET")
}

// ended tells that the other end has closed the connection.
func (c *raw) ended() bool {
	_, err := c.reader.ReadByte()
	return err != nil
}

// A framed connection speaks HTTP/2 in frames.
type framed struct {
	net.Conn
	framer *http2.Framer
	encode *hpack.Encoder
	block  strings.Builder
	stream uint32
	goAway bool
}

func (f *fixture) dialHTTP2(t testing.TB, who *party, sni string) *framed {
	t.Helper()
	return framedOver(t, f.address, f.clientTLS(who, via{sni: sni}))
}

// framedOver is a connection of HTTP/2 to an address.
func framedOver(t testing.TB, address string, config *tls.Config) *framed {
	t.Helper()
	config.NextProtos = []string{"h2"}
	c := dialRaw(t, address, config)
	h := &framed{Conn: c.Conn, framer: http2.NewFramer(c, c.reader), stream: 1}
	h.encode = hpack.NewEncoder(&h.block)
	h.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	// Windows for all that a test may receive.
	if err := h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if err := h.framer.WriteWindowUpdate(0, 1<<30); err != nil {
		t.Fatal(err)
	}
	return h
}

// open begins a stream with those fields, in pairs.
func (h *framed) open(t testing.TB, end bool, fields ...string) uint32 {
	t.Helper()
	id := h.stream
	h.stream += 2
	h.headers(t, id, end, fields...)
	return id
}

func (h *framed) headers(t testing.TB, id uint32, end bool, fields ...string) {
	t.Helper()
	if err := h.write(id, end, fields); err != nil {
		t.Fatal(err)
	}
}

// write writes fields, in pairs.
func (h *framed) write(id uint32, end bool, fields []string) error {
	h.block.Reset()
	for pair := range slices.Chunk(fields, 2) {
		if err := h.encode.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]}); err != nil {
			return err
		}
	}
	return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(h.block.String()), EndStream: end, EndHeaders: true})
}

func (h *framed) get(t testing.TB, target, authority string, fields ...string) answer {
	t.Helper()
	id := h.open(t, true, append([]string{":method", "GET", ":scheme", "https", ":authority", authority, ":path", target}, fields...)...)
	return h.receive(t, id)
}

// receive reads the answer on the stream; a stream or connection that is reset is status 0, with the code as body.
func (h *framed) receive(t testing.TB, id uint32) answer {
	t.Helper()
	a := answer{header: http.Header{}, proto: 2}
	for {
		frame, err := h.framer.ReadFrame()
		if err != nil {
			a.status, a.body = 0, err.Error()
			return a
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = h.framer.WriteSettingsAck() // the next read tells
			}
		case *http2.GoAwayFrame:
			h.goAway = true
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				if field.Name == ":status" {
					a.status, _ = strconv.Atoi(field.Value)
				} else {
					a.header.Add(field.Name, field.Value)
				}
			}
			if frame.StreamID == id && frame.StreamEnded() {
				return a
			}
		case *http2.DataFrame:
			a.body += string(frame.Data())
			if frame.StreamID == id && frame.StreamEnded() {
				return a
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == id {
				a.status, a.body = 0, frame.ErrCode.String()
				return a
			}
		}
	}
}

func eachVersion(t *testing.T, run func(t *testing.T, http2 bool)) {
	t.Helper()
	for _, v := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", v), func(t *testing.T) { run(t, v) })
	}
}
