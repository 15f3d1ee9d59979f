package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"sallyport/gateway/backend"
)

// TestTrailers: trailers pass in both directions, except those that must be headers.
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

// trailing answers with the body and the trailers of the request, and sends trailers of its own.
func trailing(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Trailer", "X-Announced")
	fmt.Fprintf(w, "%s %v", body, map[string][]string(r.Trailer))
	w.Header().Set("X-Announced", "one")
	w.Header().Set(http.TrailerPrefix+"X-Sudden", "two")
}

// afterwards calls then at the end of the Reader.
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

// TestExpect: 100 Continue is sent only for a call that is admitted, a refusal is sent without waiting for the body, and any
// other expectation is 417. Held: security F 94.
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
	// Refused: no 100, and the body is not waited for. The connection ends, since the client may still send it.
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
	// The backend answers without reading the body.
	c = f.dial(t, f.a4, "opt.test")
	c.send(t, head("/pay/1.0/early", "Content-Length: 4\n", ""))
	refusal := c.receive(t, "POST")
	if refusal.status == 100 { // not sent if the answer is quicker
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
	c2.Transport.(*http.Transport).ExpectContinueTimeout = patience // the body waits for 100 Continue
	a, err := do(c2, "POST", "https://opt.test/pay/1.0/x", strings.NewReader("body"), header("Expect", "100-continue"))
	if err != nil || a.status != 200 || a.echo(t).Body != "body" {
		t.Errorf("HTTP/2: %+v, %v", a, err)
	}
}

// early answers without reading the body.
func early(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // or net/http would read the body first
		http.Error(w, "no", status)
		_ = http.NewResponseController(w).Flush()
	}
}

// TestEarlyAnswer: an answer that comes before the end of the request is passed on at once, and does not end the request if
// the backend goes on reading.
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

			// Both directions in turn.
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

// TestInterimAnswers: 103 and its fields reach the client before the answer, unless the client speaks HTTP/1.0.
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

// TestAnswersWithoutBody: answers to HEAD, 204 and 304 end with their head, and the next call on the connection is answered
// correctly.
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
	// Connection: close is honoured on the client's side and not forwarded.
	a := c.get(t, "/pub/1.0/x", "open.test", "Connection: close")
	if a.status != 200 || a.header.Get("Connection") != "close" || !c.ended() || a.echo(t).Header.Get("Connection") != "" {
		t.Errorf("Connection: close: %+v", a)
	}
	// A backend that closes its connection does not close the client's.
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
	// HTTP/1.0: no chunks; the end of the connection ends the answer.
	c = f.dial(t, nil, "open.test")
	c.send(t, "GET /pub/1.0/x HTTP/1.0\nHost: open.test\n\n")
	if a := c.receive(t, "GET"); a.status != 200 || a.header.Get("Transfer-Encoding") != "" || !c.ended() {
		t.Errorf("HTTP/1.0: %+v", a)
	}
}

// TestHeadHasNoBody: an answer to HEAD, from the backend or the gateway, ends with its head.
func TestHeadHasNoBody(t *testing.T) {
	f := newFixture(t)
	c := f.dial(t, nil, "opt.test")
	for path, status := range map[string]int{"/pub/1.0/x": 200, "/pay/1.0/x": 401, "/nothing": 404, "/pay/1.0/open": 200} {
		c.send(t, "HEAD "+path+" HTTP/1.1\nHost: opt.test\n\n")
		if a := c.receive(t, "HEAD"); a.status != status || a.body != "" {
			t.Errorf("%s: status %d, body %q", path, a.status, a.body)
		}
	}
	// The next call gets its own answer.
	if a := c.get(t, "/pub/1.0/x", "opt.test"); a.status != 200 {
		t.Errorf("after them: status %d", a.status)
	}
	h := f.dialHTTP2(t, nil, "opt.test")
	id := h.open(t, true, ":method", "HEAD", ":scheme", "https", ":authority", "opt.test", ":path", "/pay/1.0/x")
	if a := h.receive(t, id); a.status != 401 || a.body != "" || a.header.Get("content-length") == "" {
		t.Errorf("HTTP/2: %+v", a)
	}
}

// TestTwoLengthsEndTheConnection: a request with both Content-Length and Transfer-Encoding is the last of its connection,
// refused or not.
func TestTwoLengthsEndTheConnection(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/pub/1.0/x", "/pay/1.0/x", "/nothing"} {
		for _, lines := range []string{"Content-Length: 3\nTransfer-Encoding: chunked\n", "Transfer-Encoding: chunked\nContent-Length: 3\n"} {
			c := f.dial(t, nil, "opt.test")
			before := f.backend.calls.Load()
			c.send(t, "POST "+path+" HTTP/1.1\nHost: opt.test\n"+lines+"\n0\n\nGET /pub/1.0/smuggled HTTP/1.1\nHost: opt.test\n\n")
			a := c.receive(t, "POST")
			if a.header.Get("Connection") != "close" {
				t.Errorf("%s, %q: Connection %q", path, lines, a.header.Get("Connection"))
			}
			if !c.ended() {
				t.Errorf("%s, %q: the connection goes on", path, lines)
			}
			if n := f.backend.calls.Load() - before; n > 1 || f.backend.count("/smuggled") > 0 {
				t.Errorf("%s, %q: the backend was called %d times", path, lines, n)
			}
		}
	}
}

// TestLateTrailerRace is for the race detector: request bodies that end while the answer is being sent.
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
