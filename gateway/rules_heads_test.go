package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/gateway/message"
)

// tell makes a call for a target as it stands. A stream that net/http resets, as no request, is told as 400.
func (c *cell) tell(t *testing.T, q ask, target string) (told, []*received) {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	before := c.heard()
	conn := c.take(t, q.who)
	warm := c.heard() - before
	_ = conn.send(q, target) // a head that is refused early may not be taken whole
	a := conn.receive(q.verb(), nil)
	if c.http2 && a.status == 0 && a.err != nil && strings.Contains(a.err.Error(), "PROTOCOL_ERROR") {
		a.status = http.StatusBadRequest
	}
	c.give(q.who, conn, a)
	if n := c.heard() - before - warm; a.status != http.StatusOK && n > 0 {
		t.Errorf("%.80q: status %d, and the backend was asked %d times", path, a.status, n)
	}
	return a, c.received(strings.TrimPrefix(path, "/pub/1.0"))
}

// heard is how many requests the backend has got.
func (c *cell) heard() (n int) {
	c.backend.mu.Lock()
	defer c.backend.mu.Unlock()
	for _, list := range c.backend.record {
		n += len(list)
	}
	return n
}

// fill are fields, the last as long as makes the head of a GET of the target as many bytes in HTTP/1.1.
func fill(target string, size, lines int) (fields []string) {
	size -= len("GET "+target+" HTTP/1.1\r\nHost: opt.test\r\n\r\n") + len("X-Long: \r\n")
	for i := range lines - 1 {
		fields = append(fields, fmt.Sprintf("X-%d: y", i))
		size -= len(fields[i]) + len("\r\n")
	}
	return append(fields, "X-Long: "+strings.Repeat("y", size))
}

// headRules are which targets, lengths, sizes and lists are taken: the same ones of every carrier.
var headRules = []rule{
	{"targets", func(t *testing.T, c *cell) {
		for _, target := range []string{
			"/pub/1.0/t", "/pub/1.0/t?", "/pub/1.0/t?a=%zz&&b=%", "/pub/1.0/t?q=\xff\xc3\xa4", "/pub/1.0/t?/../..//", "/pub/1.0/%7Et", "/pub/1.0/t%2Bt", "/pub/1.0/%C3%A4",
			"/pub/1.0/", "/pub/1.0/t/", "/pub/1.0/t:443", "/pub/1.0/t*", "/pub/1.0/http:t", "/pub/1.0/" + strings.Repeat("t", message.MaxPath-len("/pub/1.0/")), "/pub/1.0/t?" + strings.Repeat("t", 60_000),
		} {
			a, got := c.tell(t, ask{}, target)
			want := strings.TrimPrefix(target, "/pub/1.0")
			came := slices.ContainsFunc(got, func(r *received) bool { return r.target == want })
			if a.status != 200 || !came {
				t.Errorf("%.80q: status %d, %v", target, a.status, a.err)
			}
		}
		for _, target := range []string{
			"*", "t", "", "?t", "#t", "pub/1.0/t", "//pub/1.0/t", "/pub//1.0/t", "/pub/1.0/t#f", "/pub/1.0/t?q#f", "/#/pub/1.0/t", "/pub/1.0/%zz", "/pub/1.0/%", "/pub/1.0/%2", "/pub/1.0/%-1",
			"/pub/1.0/t t", "/pub/1.0/t\tt", "/pub/1.0/t\x00", "/pub/1.0/t\x7f", "/pub/1.0/t\xff", "/pub/1.0/t?a b", "/pub/1.0/t?\x01", "/pub/1.0/%00", "/pub/1.0/../t", "/pub/1.0/%2e%2e/t",
			"/pub/1.0/t\\t", "/pub/1.0/a%2Ft", "/pub/1.0/t%0d%0aX:%20y", "http:/pub/1.0/t", "http://", "http://opt.test", "http://opt.test?t", "http:///pub/1.0/t", "ftp://opt.test/pub/1.0/t",
			"http://u@opt.test/pub/1.0/t", "http://[::1%25lo]/pub/1.0/t", "http://opt.test/pub/1.0/../t", "opt.test:443", "opt.test",
			"/pub/1.0/" + strings.Repeat("t", message.MaxPath-len("/pub/1.0/")+1),
		} {
			for _, method := range []string{"GET", "OPTIONS", "CONNECT"} {
				// What CONNECT names is a host, which may be another than the connection's.
				if a, _ := c.tell(t, ask{method: method}, target); a.status != 400 && (method != "CONNECT" || a.status != 421) {
					t.Errorf("%s %.80q: status %d, %v", method, target, a.status, a.err)
				}
			}
		}
		for _, target := range []string{"http://opt.test/pub/1.0/absolute", "HTTPS://opt.test:443/pub/1.0/absolute"} {
			want := 200
			if c.http2 { // which has a place of its own for the authority, RFC 9113 section 8.3.1
				want = 400
			}
			if a, _ := c.tell(t, ask{}, target); a.status != want || len(c.received("/absolute"))*400 < (400-want) {
				t.Errorf("%q: status %d, %v", target, a.status, a.err)
			}
		}
	}},
	{"size of a head", func(t *testing.T, c *cell) {
		const most = 64 << 10
		for name, shape := range map[string]struct {
			target string
			lines  int
		}{
			"a line": {"/pub/1.0/size", 1}, "as many lines as there may be": {"/pub/1.0/size", 200}, "a target": {"/pub/1.0/size?" + strings.Repeat("t", most-1000), 1},
		} {
			for _, size := range []int{most, most + 1, most + 1000} {
				a, _ := c.tell(t, ask{fields: fill(shape.target, size, shape.lines)}, shape.target)
				if want := map[bool]int{true: 200, false: 431}[size <= most]; a.status != want {
					t.Errorf("%s, %d bytes: status %d, %v", name, size, a.status, a.err)
				}
			}
		}
		for _, target := range []string{"/pub/1.0/" + strings.Repeat("t", most), "/pub/1.0/t?" + strings.Repeat("t", most)} {
			if a, _ := c.tell(t, ask{}, target); a.status != 431 {
				t.Errorf("a target of %d bytes: status %d, %v", len(target), a.status, a.err)
			}
		}
	}},
	{"Content-Length", func(t *testing.T, c *cell) {
		for _, value := range []string{"", "00", "05", "+0", "-0", "-1", "0x0", "0, 0", "0 0", "0.0", "9223372036854775808", "99999999999999999999", "٥", "zero"} {
			if a, _ := c.tell(t, ask{fields: []string{"Content-Length: " + value}}, "/pub/1.0/length"); a.status != 400 {
				t.Errorf("%q: status %d, %v", value, a.status, a.err)
			}
		}
		if a, _ := c.tell(t, ask{fields: []string{"Content-Length: 0"}}, "/pub/1.0/length"); a.status != 200 {
			t.Errorf("0: status %d, %v", a.status, a.err)
		}
	}},
	{"lists of a request", func(t *testing.T, c *cell) {
		names := func(n int) string { return strings.Repeat("X-Announced, ", n-1) + "X-Last" }
		rows := map[string][2]ask{
			"Trailer": {{fields: []string{"Trailer: " + distinct(64)}}, {fields: []string{"Trailer: " + distinct(65)}}},
			"of many": {{fields: slices.Repeat([]string{"Trailer: X-A"}, 64)}, {fields: strings.Split("Trailer: "+strings.ReplaceAll(distinct(65), ", ", "\nTrailer: "), "\n")}},
		}
		if !c.http2 { // where there are no such fields, or net/http refuses them
			rows["Connection"] = [2]ask{{fields: []string{"Connection: " + names(32)}}, {fields: []string{"Connection: " + names(33)}}}
			rows["options of a letter"] = [2]ask{{fields: []string{"Connection: a"}}, {fields: []string{"Connection: " + strings.Repeat("a,", 30_000)}}}
			rows["a long option"] = [2]ask{{fields: []string{"Connection: " + strings.Repeat("a", 512)}}, {fields: []string{"Connection: " + strings.Repeat("a", 513)}}}
			rows["TE"] = [2]ask{{fields: []string{"TE: " + names(32)}}, {fields: []string{"TE: " + names(33)}}}
		}
		for name, q := range rows {
			if o := c.do(t, q[0], reply{}); o.status != 200 {
				t.Errorf("%s at its bound: status %d", name, o.status)
			}
			o := c.do(t, q[1], reply{})
			o.refused(t, 431, "431", "too_many_headers")
			o.unheard(t)
		}
	}},
	{"lists of an answer", func(t *testing.T, c *cell) {
		rows := map[string][2]string{"Trailer": {"Trailer: " + distinct(64), "Trailer: " + distinct(65)}}
		if !c.h2c {
			rows["Connection"] = [2]string{"Connection: " + strings.Repeat("a,", 31) + "X-Hop", "Connection: " + strings.Repeat("a,", 32) + "X-Hop"}
			rows["options of a letter"] = [2]string{"Connection: a, X-Hop", "Connection: " + strings.Repeat("a,", 30_000)}
		}
		for name, line := range rows {
			o := c.do(t, ask{}, reply{fields: []string{line[0], "X-Hop: y"}, body: "body", chunked: true})
			if o.one(t); (o.header.Get("X-Hop") == "") != (name != "Trailer") || o.told.body != "body" {
				t.Errorf("%s at its bound: %v, %q", name, o.header, o.told.body)
			}
			c.do(t, ask{}, reply{fields: []string{line[1]}, body: "body", chunked: true}).refused(t, 502, "101506", "backend_unreadable")
		}
	}},
	{"size of an answer's head, to the byte", func(t *testing.T, c *cell) {
		const most = 64 << 10
		for _, lines := range []int{1, 5_000} {
			for _, size := range []int{most, most + 1} {
				a := reply{fields: append(slices.Repeat([]string{"A: b"}, lines-1), "X-Long: "), body: "body"}
				head := len(a.appendHTTP1(nil, "GET")) - len(a.body)
				if c.h2c {
					head += len("OK") - len("Final") // the reason that HTTP/2 has none of
				}
				a.fields[lines-1] += strings.Repeat("y", size-head)
				o := c.do(t, ask{}, a)
				if size > most {
					o.refused(t, 502, "101506", "backend_unreadable")
				} else if o.one(t); o.told.body != "body" || len(o.header.Values("A")) != lines-1 {
					t.Errorf("%d lines, %d bytes: %q and %d lines", lines, size, o.told.body, len(o.header.Values("A")))
				}
			}
		}
	}},
	{"size of a trailer section", func(t *testing.T, c *cell) {
		most := 4 << 10
		if c.http2 && c.h2c { // as the rich errors of gRPC need
			most = 16 << 10
		}
		for _, size := range []int{4 << 10, 4<<10 + 1, most, most + 1, 3 * most} {
			line := "X-Sum: " + strings.Repeat("y", size-len("X-Sum: \r\n\r\n"))
			o := c.do(t, ask{method: "POST", body: "body", chunked: true, fields: []string{"Trailer: X-Sum"}, trailers: []string{line}}, reply{})
			if size > most {
				o.refused(t, 400, "400", "bad_request")
				for _, got := range o.got {
					if _, _, whole := got.message(); whole {
						t.Errorf("%d bytes: the backend got it as if it were whole", size)
					}
				}
			} else if _, trailer, whole := o.one(t).message(); !whole || "X-Sum: "+trailer.Get("X-Sum") != line {
				t.Errorf("%d bytes: the backend got %d of them", size, len(trailer.Get("X-Sum")))
			}
			o = c.do(t, ask{}, reply{body: "body", chunked: true, fields: []string{"Trailer: X-Sum"}, trailers: []string{line}})
			if whole := o.status == 200 && o.err == nil && "X-Sum: "+o.trailer.Get("X-Sum") == line; whole != (size <= most) || o.status == 200 && o.err == nil && !whole {
				t.Errorf("%d bytes of an answer: status %d, %v, %d of them", size, o.status, o.err, len(o.trailer.Get("X-Sum")))
			}
		}
	}},
}

// distinct is a list of so many names.
func distinct(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint("X-", i))
	}
	return strings.Join(list, ", ")
}
