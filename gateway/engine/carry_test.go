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
	"testing"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
)

// carriers are where a call may begin.
var carriers = []struct {
	name    string
	settled bool
	version uint16
}{
	{"goroutine", false, 0},
	{"goroutine/tls", false, tls.VersionTLS13},
	{"loop", true, 0},
	{"loop/tls", true, tls.VersionTLS13},
}

// TestAnswerInPieces: an answer arrives whole however it comes, and each part of its body without waiting for the next.
func TestAnswerInPieces(t *testing.T) {
	const fields = "HTTP/1.1 200 OK\r\nX-Tag: pieces\r\n"
	answers := []struct {
		name   string
		pieces []string // the head ends with the last one before the body
		heads  int      // pieces of the head
		body   []string // that each further piece brings
	}{
		{"length", []string{"HT", fields[2:], "Content-Length: 6\r\n\r\n", "a", "bc", "def"}, 3, []string{"a", "bc", "def"}},
		{
			"chunks",
			[]string{fields + "Trailer: X-End\r\nTransfer-Encoding: chu", "nked\r\n\r\n", "1\r\na\r\n", "2\r\nbc\r\n5\r", "\ndefgh\r\n0\r\nX-End: yes\r\n\r\n"},
			2,
			[]string{"a", "bc", "defgh"},
		},
		{"early", []string{"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1", fields[6:], "Content-Length: 1\r\n\r\n", "a"}, 3, []string{"a"}},
		{"until the end", []string{fields, "\r\n", "a", "bc"}, 2, []string{"a", "bc"}},
	}
	for _, from := range carriers {
		for _, a := range answers {
			t.Run(from.name+"/"+a.name, func(t *testing.T) {
				next := make(chan struct{})
				written := make(chan net.Conn)
				g := newGate(t, setup{version: from.version, servers: []*url.URL{newSource(t, func(c net.Conn) {
					speak(c, func(req *http.Request) bool {
						if req.URL.Path != "/pieces" {
							return say(c, "", req.URL.Path)
						}
						for _, piece := range a.pieces {
							if _, err := io.WriteString(c, piece); err != nil {
								return false
							}
							written <- c
							<-next
						}
						return a.name != "until the end"
					})
				})}})
				c := g.call(t)
				if from.settled {
					c.settle(t)
				}
				c.say(t, get("/pieces"))
				for range a.heads - 1 {
					server := await(t, "a part of the head", written)
					within(t, "the engine has seen it", func() bool { return unread(server) == 0 })
					next <- struct{}{}
				}
				await(t, "the rest of the head", written)
				res, err := c.hearHead("GET")
				for err == nil && res.StatusCode == 103 {
					res, err = c.hearHead("GET")
				}
				if err != nil || res.StatusCode != 200 || res.Header.Get("X-Tag") != "pieces" {
					t.Fatal(res, err)
				}
				next <- struct{}{}
				for _, want := range a.body {
					await(t, "a part of the body", written)
					got := make([]byte, len(want))
					if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
						t.Fatalf("%q, %v, want %q", got, err, want)
					}
					next <- struct{}{}
				}
				if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
					t.Errorf("and %q, %v", rest, err)
				}
				if a.name == "chunks" && res.Trailer.Get("X-End") != "yes" {
					t.Errorf("trailer %v", res.Trailer)
				}
				if got := c.ask(t, "/next"); got != "/next" {
					t.Errorf("the next call: %q", got)
				}
			})
		}
	}
}

// TestBodyInPieces: so does a request.
func TestBodyInPieces(t *testing.T) {
	for _, from := range carriers {
		for _, framing := range []string{"Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\nTrailer: X-End\r\n"} {
			t.Run(from.name+"/"+framing[:7], func(t *testing.T) {
				got := make(chan string)
				g := newGate(t, setup{version: from.version, servers: []*url.URL{newSource(t, func(c net.Conn) {
					speak(c, func(req *http.Request) bool {
						if req.Method == "POST" {
							for one := make([]byte, 1); ; {
								if _, err := io.ReadFull(req.Body, one); err != nil {
									break
								}
								got <- string(one)
							}
						}
						return say(c, req.Trailer.Get("X-End"), req.URL.Path)
					})
				})}})
				c := g.call(t)
				if from.settled {
					c.settle(t)
				}
				chunked := strings.HasPrefix(framing, "T")
				c.say(t, request("POST", "/up", framing, ""))
				for _, piece := range []string{"abc", "d", "ef"} {
					text := piece
					if chunked {
						text = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
					}
					c.say(t, text)
					for i := range piece {
						if b := await(t, "a byte of the body", got); b != piece[i:i+1] {
							t.Errorf("the server got %q, want %q", b, piece[i])
						}
					}
				}
				if chunked {
					c.say(t, "0\r\nX-End: yes\r\n\r\n")
				}
				if r := c.expect(t, 200, "/up"); chunked && r.header.Get("X-Tag") != "yes" {
					t.Error("the trailer has not come")
				}
				c.settle(t)
			})
		}
	}
}

// newHTTP2Source is a server that speaks HTTP/2, and nothing else.
func newHTTP2Source(t *testing.T, p backend.Protocol, serve http.HandlerFunc) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(p == backend.HTTP2)
	protocols.SetUnencryptedHTTP2(p == backend.H2C)
	server := &http.Server{Handler: serve, Protocols: protocols, TLSConfig: &tls.Config{Certificates: []tls.Certificate{ourCertificate()}}}
	over := make(chan struct{})
	at := &url.URL{Scheme: "http", Host: l.Addr().String()}
	if p == backend.HTTP2 {
		at.Scheme = "https"
	}
	go func() {
		defer close(over)
		if p == backend.HTTP2 {
			_ = server.ServeTLS(l, "", "")
		} else {
			_ = server.Serve(l)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-over
	})
	return at
}

// TestServerOfHTTP2: calls go to a server of HTTP/2 like to any other, and their connections go on.
func TestServerOfHTTP2(t *testing.T) {
	for _, protocol := range []backend.Protocol{backend.HTTP2, backend.H2C} {
		for _, from := range carriers {
			t.Run(fmt.Sprintf("%v/%s", protocol, from.name), func(t *testing.T) {
				next := make(chan struct{})
				g := newGate(t, setup{version: from.version, protocol: protocol, servers: []*url.URL{newHTTP2Source(t, protocol, func(w http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						panic(http.ErrAbortHandler)
					}
					w.Header().Set("Trailer", "X-End")
					w.Header().Set("X-Tag", r.Header.Get("X-Tag")+r.Trailer.Get("X-End"))
					_, _ = fmt.Fprintf(w, "HTTP/%d %s%s", r.ProtoMajor, r.URL.Path, body)
					if r.URL.Path == "/pieces" {
						_ = http.NewResponseController(w).Flush()
						<-next
						_, _ = io.WriteString(w, "!")
					}
					w.Header().Set("X-End", "over")
				})}})
				c := g.call(t)
				if from.settled {
					c.settle(t)
				}
				for range 2 {
					c.say(t, get("/get"))
					if r := c.expect(t, 200, "HTTP/2 /get"); r.trailer.Get("X-End") != "over" || r.header.Get("X-Tag") != "/get" {
						t.Errorf("header %v, trailer %v", r.header, r.trailer)
					}
					c.say(t, request("POST", "/length", "Content-Length: 5\r\n", "hello"))
					c.expect(t, 200, "HTTP/2 /lengthhello")
					c.say(t, request("POST", "/chunks", "Transfer-Encoding: chunked\r\nTrailer: X-End\r\n", "5\r\nhello\r\n0\r\nX-End: yes\r\n\r\n"))
					if r := c.expect(t, 200, "HTTP/2 /chunkshello"); r.header.Get("X-Tag") != "/chunksyes" {
						t.Errorf("header %v", r.header)
					}
					c.say(t, request("HEAD", "/head", "", ""))
					if r, err := c.hear("HEAD"); err != nil || r.status != 200 || r.header.Get("X-Tag") != "/head" {
						t.Error(r, err)
					}
					c.say(t, get("/pieces"))
					res, err := c.hearHead("GET")
					if err != nil {
						t.Fatal(err)
					}
					first := make([]byte, len("HTTP/2 /pieces"))
					if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "HTTP/2 /pieces" {
						t.Fatalf("%q, %v", first, err)
					}
					next <- struct{}{}
					if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "!" {
						t.Fatalf("%q, %v", rest, err)
					}
				}
			})
		}
	}
}

// TestEndOfACallOverHTTP2: Close ends it, and so does the client.
func TestEndOfACallOverHTTP2(t *testing.T) {
	for _, by := range []string{"client", "Close"} {
		t.Run(by, func(t *testing.T) {
			asked, ended := make(chan struct{}), make(chan struct{})
			g := newGate(t, setup{protocol: backend.H2C, servers: []*url.URL{newHTTP2Source(t, backend.H2C, func(_ http.ResponseWriter, r *http.Request) {
				close(asked)
				<-r.Context().Done()
				close(ended)
			})}})
			c := g.call(t)
			c.say(t, get("/wait"))
			await(t, "the call", asked)
			if by == "client" {
				c.Conn.Close()
			} else {
				g.end(t)
			}
			await(t, "the end of the stream", ended)
			within(t, "the call ends", func() bool { return g.refused(decision.ClientGone) == 1 })
		})
	}
}
