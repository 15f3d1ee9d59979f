package backend_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

// TestAnswers: an answer comes as it was sent, whole or with an error, and only a connection that is in order carries another
// call.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20<<10)
	for _, c := range []struct {
		name, method, text string
		status             int
		length             int64
		body               string
		trailers           []http1.Field
		err                error // of the body
		reused             bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, 3, "abc", nil, nil, true},
		{"long", "GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(long), long), 200, int64(len(long)), long, nil, nil, true},
		{"no reason", "GET", "HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", 299, 0, "", nil, nil, true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, 0, "", nil, nil, true},
		{"HEAD of any length", "HEAD", chunked + "\r\n", 200, 0, "", nil, nil, true},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, 0, "", nil, nil, true},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, 0, "", nil, nil, true},
		{"chunks", "GET", chunked + "\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", 200, http1.InChunks, "abcd", nil, nil, true},
		{"no chunk", "GET", chunked + "\r\n0\r\n\r\n", 200, http1.InChunks, "", nil, nil, true},
		{"long chunks", "GET", chunked + "\r\n" + strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", len(long)/4, long[:len(long)/4]), 4) + "0\r\n\r\n", 200, http1.InChunks, long, nil, nil, true},
		{"trailers", "GET", chunked + "Trailer: x-a, X-B\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\nx-c: 2\r\n\r\n", 200, http1.InChunks, "abc", []http1.Field{{Name: "X-A", Value: "1"}, {Name: "x-c", Value: "2"}}, nil, true},
		{"trailers that frame", "GET", chunked + "\r\n3\r\nabc\r\n0\r\nContent-Length: 1\r\nHost: x\r\nX-A: 1\r\nAuthorization: x\r\n\r\n", 200, http1.InChunks, "abc", []http1.Field{{Name: "X-A", Value: "1"}}, nil, true},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", 200, 3, "abc", nil, nil, false},
		{"until close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", 200, http1.UntilClose, "abc", nil, nil, false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, 3, "abc", nil, nil, false},
		{"204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", 204, 0, "", nil, nil, false},
		{"more than the length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + fine, 200, 3, "abc", nil, nil, false},
		{"more than the chunks", "GET", chunked + "\r\n3\r\nabc\r\n0\r\n\r\n" + fine, 200, http1.InChunks, "abc", nil, nil, false},
		{"more than none", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + fine, 200, 0, "", nil, nil, false},
		{"less than the length", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabc", 200, 5, "abc", nil, io.EOF, false},
		{"chunks without an end", "GET", chunked + "Connection: close\r\n\r\n3\r\nabc\r\n", 200, http1.InChunks, "abc", nil, io.EOF, false},
		{"a chunk that is none", "GET", chunked + "\r\n3\r\nabc\r\nxyz\r\n", 200, http1.InChunks, "abc", nil, backend.ErrBadAnswer, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := speak(t, answers(c.text, fine))
			trip := newTrip(s.Group, c.method, nil)
			if err := send(trip); err != nil {
				t.Fatal(err)
			}
			if trip.Response.Status != c.status || trip.Response.Length != c.length || trip.Server != s.Servers()[0] {
				t.Errorf("the answer is %+v", trip.Response)
			}
			text, err := rest(trip)
			if text != c.body {
				t.Errorf("the body is %.100q", text)
			}
			if !errors.Is(err, c.err) || errors.Is(err, backend.ErrBadAnswer) != (c.err == backend.ErrBadAnswer) {
				t.Errorf("the body ends with %v", err)
			}
			if p, again := trip.Next(); len(p) > 0 || again == nil || (err == nil) != (again == io.EOF) {
				t.Errorf("then %d, %v", len(p), again)
			}
			for range 2 { // asked twice, the same
				if got := trip.Trailers(); !slices.Equal(got, c.trailers) {
					t.Errorf("trailers %q", got)
				}
			}
			trip.Close()
			ask(t, trip, s.Group)
			if got := s.conns.Load() == 1; got != c.reused {
				t.Errorf("%d connections", s.conns.Load())
			}
		})
	}
}

// TestAnswersOfBoth: what a server answers is the same to a Trip whatever was spoken.
func TestAnswersOfBoth(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20<<10)
	write := func(parts ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i, part := range parts {
				if i > 0 {
					flush(w)
				}
				_, _ = io.WriteString(w, part)
			}
		}
	}
	head := func(status int, fields ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(fields); i += 2 {
				w.Header().Add(fields[i], fields[i+1])
			}
			w.WriteHeader(status)
		}
	}
	for _, c := range []struct {
		name, method string
		handler      http.HandlerFunc
		status       int
		length       int64
		body         string
		fields       []string // name, value
		announced    []string
		trailers     []http1.Field
		broken       bool
	}{
		{name: "length", method: "GET", handler: write("abc"), status: 200, length: 3, body: "abc"},
		{name: "long", method: "GET", handler: write(long, long), status: 200, length: http1.InChunks, body: long + long},
		{name: "parts", method: "GET", handler: write("abc", "def"), status: 200, length: http1.InChunks, body: "abcdef"},
		{name: "none", method: "GET", handler: head(299, "X-A", "1", "X-A", "2"), status: 299, fields: []string{"X-A", "1", "X-A", "2"}},
		{name: "HEAD", method: "HEAD", handler: head(200, "Content-Length", "3"), status: 200, fields: []string{"Content-Length", "3"}},
		{name: "204", method: "GET", handler: head(204), status: 204},
		{name: "304", method: "GET", handler: head(304, "ETag", `"x"`), status: 304, fields: []string{"Etag", `"x"`}},
		{name: "compressed", method: "GET", handler: func(w http.ResponseWriter, r *http.Request) {
			if v := r.Header.Get("Accept-Encoding"); v != "" {
				t.Errorf("Accept-Encoding: %s", v)
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "abc")
		}, status: 200, length: 3, body: "abc", fields: []string{"Content-Encoding", "gzip"}},
		{name: "trailers", method: "GET", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-A, X-B")
			_, _ = io.WriteString(w, "abc")
			flush(w)
			w.Header().Set("X-A", "1")
			w.Header().Set(http.TrailerPrefix+"X-C", "2")
		}, status: 200, length: http1.InChunks, body: "abc", announced: []string{"X-A", "X-B"}, trailers: []http1.Field{{Name: "X-A", Value: "1"}, {Name: "X-C", Value: "2"}}},
		{name: "less than the length", method: "GET", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "abc")
			flush(w)
			panic(http.ErrAbortHandler)
		}, status: 200, length: 5, body: "abc", broken: true},
		{name: "no end", method: "GET", handler: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "abc")
			flush(w)
			panic(http.ErrAbortHandler)
		}, status: 200, length: http1.InChunks, body: "abc", broken: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, p backend.Protocol) {
				s := serve(t, p, firstThen(c.handler))
				trip := newTrip(s.Group, c.method, nil)
				if err := send(trip); err != nil {
					t.Fatal(err)
				}
				if trip.Response.Status != c.status || trip.Response.Length != c.length || !trip.Answered() {
					t.Errorf("the answer is %+v", trip.Response)
				}
				for i := 0; i < len(c.fields); i += 2 {
					if !slices.Contains(values(trip, c.fields[i]), c.fields[i+1]) {
						t.Errorf("%s is %q", c.fields[i], values(trip, c.fields[i]))
					}
				}
				announced := trip.Announced()
				slices.Sort(announced)
				if !slices.Equal(announced, c.announced) {
					t.Errorf("announced %q", announced)
				}
				text, err := rest(trip)
				if text != c.body || (err != nil) != c.broken || trip.Over() == c.broken {
					t.Errorf("the body is %.100q, %v", text, err)
				}
				if p, again := trip.Next(); len(p) > 0 || again == nil || c.broken == (again == io.EOF) {
					t.Errorf("then %d, %v", len(p), again)
				}
				trailers := slices.DeleteFunc(trip.Trailers(), func(f http1.Field) bool { return f.Value == "" })
				slices.SortFunc(trailers, func(a, b http1.Field) int { return strings.Compare(a.Name, b.Name) })
				if !slices.Equal(trailers, c.trailers) {
					t.Errorf("trailers %q", trailers)
				}
				trip.Close()
				ask(t, trip, s.Group)
				// Over HTTP/2 net/http may dial a connection that it then does not need.
				if reused := s.conns.Load() == 1; p == backend.HTTP1 && reused == c.broken {
					t.Errorf("%d connections", s.conns.Load())
				}
			})
		})
	}
}

// TestRefusedAnswers: what is no answer is an error, and its connection carries nothing more.
func TestRefusedAnswers(t *testing.T) {
	for name, text := range map[string]string{
		"another protocol":                  "SSH-2.0-x\r\n\r\n",
		"two lengths":                       "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"length and chunks":                 "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
		"a switch":                          "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"a head without an end":             "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 64<<10),
		"half a head":                       "HTTP/1.1 200 OK\r\nConnection: close\r\n",
		"too many interim ones":             strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 17) + fine,
		"too many of those that say go on":  strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 17) + fine,
		"what an interim one says follows":  "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\nabc" + fine,
		"an interim one without an end":     "HTTP/1.1 103 Early Hints\r\nX: " + strings.Repeat("x", 64<<10),
		"another answer instead of an end":  "HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\n\r\n",
		"an empty line before the status":   "\r\n" + fine,
		"no status":                         "HTTP/1.1 OK\r\n\r\n",
		"a line that continues another one": "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := speak(t, answers(text, fine))
			trip := newTrip(s.Group, "GET", nil)
			err := send(trip)
			if err == nil || errors.Is(err, backend.ErrBadAnswer) == (name == "half a head") {
				t.Errorf("status %d, %v", trip.Response.Status, err)
			}
			trip.Close()
			ask(t, trip, s.Group)
			if s.conns.Load() != 2 {
				t.Errorf("%d connections", s.conns.Load())
			}
		})
	}
}

// TestInterimWithABody: an interim answer ends with its head, whatever it states. As its body may follow where the next
// answer should, its connection carries nothing more.
func TestInterimWithABody(t *testing.T) {
	for _, line := range []string{"Content-Length: 3", "Transfer-Encoding: chunked", "Connection: close"} {
		for _, status := range []string{"100 Continue", "103 Early Hints"} {
			t.Run(status+", "+line, func(t *testing.T) {
				t.Parallel()
				s := speak(t, answers("HTTP/1.1 "+status+"\r\n"+line+"\r\n\r\n"+fine, fine))
				trip := newTrip(s.Group, "GET", nil)
				for range 2 {
					ask(t, trip, s.Group)
				}
				if s.conns.Load() != 2 {
					t.Errorf("%d connections", s.conns.Load())
				}
			})
		}
	}
}

// TestHeadBound: a head may be as long over HTTP/2 as over HTTP/1.1, however short its lines are, and one that is longer is
// no answer.
func TestHeadBound(t *testing.T) {
	for _, c := range []struct {
		name       string
		line, size int // bytes
		passes     bool
	}{
		{"60 KB in long lines", 1 << 10, 60 << 10, true},
		{"60 KB in short lines", 12, 60 << 10, true},
		{"70 KB in long lines", 1 << 10, 70 << 10, false},
		{"100 KB in long lines", 1 << 10, 100 << 10, false},
		{"100 KB in short lines", 12, 100 << 10, false},
		{"100 KB in one line", 100 << 10, 100 << 10, false},
		{"900 KB in long lines", 1 << 10, 900 << 10, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, p backend.Protocol) {
				s := serve(t, p, firstThen(func(w http.ResponseWriter, _ *http.Request) {
					value := strings.Repeat("x", c.line-len("Xxxxx: \r\n"))
					for i := range c.size / c.line {
						w.Header()[fmt.Sprintf("X%04d", i)] = []string{value}
					}
					_, _ = io.WriteString(w, "fine")
				}))
				trip := newTrip(s.Group, "GET", nil)
				err := send(trip)
				if c.passes && err != nil || !c.passes && !errors.Is(err, backend.ErrBadAnswer) {
					t.Errorf("got %v", err)
				}
				if c.passes && len(trip.Response.Fields) < c.size/c.line {
					t.Errorf("%d fields", len(trip.Response.Fields))
				}
				trip.Close()
				ask(t, trip, s.Group)
			})
		})
	}
}

// TestRequests: a request to a server of HTTP/1.1 is framed here.
func TestRequests(t *testing.T) {
	for _, c := range []struct {
		name, method string
		body         string
		length       int64
		trailer      []http1.Field
		want         string // behind the head that was given
	}{
		{"nothing", "GET", "", http1.Unstated, nil, "\r\n"},
		{"none is told", "DELETE", "", 0, nil, "Content-Length: 0\r\n\r\n"},
		{"none is always told", "POST", "", http1.Unstated, nil, "Content-Length: 0\r\n\r\n"},
		{"length", "GET", "abc", 3, []http1.Field{{Name: "X", Value: "1"}}, "Content-Length: 3\r\n\r\nabc"},
		{"chunks", "PUT", "abc", http1.InChunks, []http1.Field{{Name: "X", Value: "1"}, {Name: "X", Value: "2"}, {Name: "X-Barred", Value: "3"}}, "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\nX: 2\r\n\r\n"},
		{"no chunk", "PUT", "", http1.InChunks, nil, "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	} {
		for _, atOnce := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,atOnce=%v", c.name, atOnce), func(t *testing.T) {
				t.Parallel()
				got := make(chan string, 1)
				s := speak(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
					head := make([]byte, len(c.method+" /x HTTP/1.1\r\nHost: "+conn.LocalAddr().String()+"\r\n"+c.want))
					_, _ = io.ReadFull(in, head)
					got <- string(head)
					_, _ = io.WriteString(conn, fine)
					_, _ = in.Peek(1)
					if in.Buffered() > 0 {
						t.Error("there is more of it")
					}
				})
				trip := newTrip(s.Group, c.method, nil)
				trip.Length = c.length
				r := trip.Request.(*request)
				r.barred = "X-Barred"
				if c.body != "" || c.length == http1.InChunks {
					trip.Body = &body{Reader: strings.NewReader(c.body), atOnce: atOnce, trailers: func() []http1.Field { return slices.Clone(c.trailer) }}
				}
				if c.length == http1.InChunks && c.trailer != nil {
					r.trailer = []string{"X, x-barred"}
				}
				if err := send(trip); err != nil {
					t.Fatal(err)
				}
				_, _ = rest(trip)
				if bytesIn := trip.Close(); bytesIn != int64(len(c.body)) {
					t.Errorf("%d bytes of the body", bytesIn)
				}
				s.registry.Close()
				if want := c.method + " /x HTTP/1.1\r\nHost: " + s.url.Host + "\r\n" + c.want; await(t, "a request", got) != want {
					t.Errorf("the backend did not get\n%s", want)
				}
			})
		}
	}
}

// TestRequestsOfBoth: a request reaches a server as it was, whatever is spoken.
func TestRequestsOfBoth(t *testing.T) {
	for _, c := range []struct {
		name, method string
		body         string
		length       int64
		trailer      string
		want         int64
	}{
		{"nothing", "GET", "", http1.Unstated, "", 0},
		{"none", "POST", "", 0, "", 0},
		{"length", "PUT", strings.Repeat("abc", 50_000), 150_000, "", 150_000},
		{"chunks", "PATCH", strings.Repeat("abc", 50_000), http1.InChunks, "", -1},
		{"trailers", "POST", "abc", http1.InChunks, "X-A", -1},
		{"another method", "PURGE-1", "", http1.Unstated, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, p backend.Protocol) {
				s := serve(t, p, func(w http.ResponseWriter, r *http.Request) {
					text, err := io.ReadAll(r.Body)
					if r.Method != c.method || r.RequestURI != "/x" || r.ContentLength != c.want || string(text) != c.body || err != nil {
						t.Errorf("%s %s, a body of %d, %d came, %v", r.Method, r.RequestURI, r.ContentLength, len(text), err)
					}
					if got := r.Header["X-Twice"]; !slices.Equal(got, []string{"1", "2"}) || len(r.Header) != 1+min(1, len(r.Header["Content-Length"])) {
						t.Errorf("header %q", r.Header)
					}
					if got := r.Trailer.Get("X-A"); c.trailer != "" && got != "1" || r.Trailer.Get("X-Barred") != "" {
						t.Errorf("trailer %q", r.Trailer)
					}
					_, _ = io.WriteString(w, "fine")
				})
				trip := newTrip(s.Group, c.method, nil)
				trip.Length = c.length
				r := trip.Request.(*request)
				r.fields, r.barred = "X-Twice: 1\r\nx-twice: 2\r\n", "X-Barred"
				if c.body != "" {
					trip.Body = &body{Reader: strings.NewReader(c.body), trailers: func() []http1.Field {
						return []http1.Field{{Name: "x-a", Value: "1"}, {Name: "X-Barred", Value: "1"}}
					}}
				}
				if c.trailer != "" {
					r.trailer = []string{"x-a, x-barred"}
				}
				if err := send(trip); err != nil {
					t.Fatal(err)
				}
				if text, err := rest(trip); text != "fine" || err != nil || !trip.BodySent() {
					t.Errorf("%q, %v", text, err)
				}
				if bytesIn := trip.Close(); bytesIn != int64(len(c.body)) {
					t.Errorf("%d bytes of the body", bytesIn)
				}
			})
		})
	}
}
