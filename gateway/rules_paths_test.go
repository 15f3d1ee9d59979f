package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// pathRules are how a path goes on, and how far: the same ones of every carrier, to every backend.
var pathRules = []rule{
	{"what is left is joined without a slash of our own", func(t *testing.T, c *cell) {
		for target, want := range map[string]string{
			"/pub/1.0": "/", "/pub/1.0/": "/", "/pub/1.0/x": "/x", "/pub/1.0?q": "/?q",
			"/base/1.0": "/base", "/base/1.0/": "/base/", "/base/1.0/x": "/base/x", "/base/1.0/x/": "/base/x/", "/base/1.0?q": "/base?q", "/%62ase/1.0": "/base",
			"/slash/1.0": "/slash/", "/slash/1.0/": "/slash/", "/slash/1.0/x": "/slash/x", "/slash/1.0?": "/slash/?",
		} {
			path, _, _ := strings.Cut(want, "?")
			before := len(c.backend.received(path))
			a, _ := c.tell(t, ask{}, target)
			if got := c.backend.received(path); a.status != 200 || len(got) != before+1 || got[before].target != want {
				t.Errorf("%s: status %d, and %s was asked for %d times", target, a.status, want, len(got)-before)
			}
		}
	}},
	{"X-Forwarded-Prefix", func(t *testing.T, c *cell) {
		for target, want := range map[string]string{
			"/pub/1.0/prefix": "/pub/1.0", "/%70ub/1%2E0/prefix": "/%70ub/1%2E0", "/base/1.0/prefix": "/base/1.0", "/base/1.0": "/base/1.0",
		} {
			q := ask{fields: []string{"X-Forwarded-Prefix: " + marker, "X_Forwarded_Prefix: " + marker}}
			a, _ := c.tell(t, q, target)
			path := "/prefix"
			if strings.HasPrefix(target, "/base") {
				path = strings.ReplaceAll(target, "/1.0", "")
			}
			got := c.backend.received(path)
			if a.status != 200 || len(got) == 0 {
				t.Fatalf("%s: status %d", target, a.status)
			}
			if h := got[len(got)-1].header; !slices.Equal(h.Values("X-Forwarded-Prefix"), []string{want}) || strings.Contains(fmt.Sprint(h), marker) {
				t.Errorf("%s: the backend got %v", target, h)
			}
		}
	}},
	{"Location", func(t *testing.T, c *cell) {
		host := strings.TrimPrefix(c.backend.url(), "http://")
		for _, row := range []struct {
			api, given, want string // HOST stands for the backend's
		}{
			{"pub", "http://HOST/x", "https://opt.test/pub/1.0/x"},
			{"pub", "HTTPS://HOST/x?a=/b#c", "https://opt.test/pub/1.0/x?a=/b#c"}, // of a backend that heeds X-Forwarded-Proto only
			{"pub", "//HOST/x", "https://opt.test/pub/1.0/x"},
			{"pub", "http://HOST", "https://opt.test/pub/1.0"},
			{"pub", "http://HOST?q", "https://opt.test/pub/1.0?q"},
			{"pub", "/x/y?a", "/pub/1.0/x/y?a"},
			{"pub", "/", "/pub/1.0/"},
			{"pub", "/pub/1.0/x", "/pub/1.0/x"}, // it knows its prefix
			{"pub", "/pub/1.0?x", "/pub/1.0?x"},
			{"pub", "/pub/1.00/x", "/pub/1.0/pub/1.00/x"},
			{"pub", "http://HOST/pub/1.0/x", "https://opt.test/pub/1.0/x"},
			{"pub", "https://opt.test/pub/1.0/x", "https://opt.test/pub/1.0/x"},
			{"pub", "https://opt.test/x", "https://opt.test/x"}, // another place of the public host, for all that is known
			{"pub", "/a//b", "/pub/1.0/a//b"},
			{"pub", `/\evil.test`, `/pub/1.0/\evil.test`},
			{"pub", "x/y", "x/y"},
			{"pub", "../x", "../x"},
			{"pub", "?x", "?x"},
			{"pub", "#x", "#x"},
			{"pub", "", ""},
			{"pub", "mailto:HOST", "mailto:HOST"},
			{"pub", "ftp://HOST/x", "ftp://HOST/x"},
			{"pub", "http://HOST.test/x", "http://HOST.test/x"},
			{"pub", "http://HOST@evil.test/x", "http://HOST@evil.test/x"},
			{"pub", "http://other.test/x", "http://other.test/x"},
			{"pub", "//other.test/x", "//other.test/x"},
			{"base", "/base/x", "/base/1.0/x"},
			{"base", "/base", "/base/1.0"},
			{"base", "/base/", "/base/1.0/"},
			{"base", "http://HOST/base/x", "https://opt.test/base/1.0/x"},
			{"base", "/base/1.0/x", "/base/1.0/x"},
			{"base", "/based/x", "/based/x"}, // not below the upstream's URL
			{"base", "/x", "/x"},
			{"base", "http://HOST/x", "http://HOST/x"},
			{"slash", "/slash/x", "/slash/1.0/x"},
			{"kept", "http://opt.test/x", "https://opt.test/kept/1.0/x"},
			{"kept", "http://HOST/x", "https://opt.test/kept/1.0/x"},
			{"kept", "https://opt.test/kept/1.0/x", "https://opt.test/kept/1.0/x"},
		} {
			given, want := strings.ReplaceAll(row.given, "HOST", host), strings.ReplaceAll(row.want, "HOST", host)
			for _, status := range []int{201, 302} {
				a := reply{status: status, fields: []string{"Location: " + given, "content-location: " + given, "X-Location: " + given}}
				o := c.do(t, ask{api: row.api}, a)
				for name, want := range map[string]string{"Location": want, "Content-Location": want, "X-Location": given} {
					if v := o.header.Values(name); o.status != status || !slices.Equal(v, []string{want}) {
						t.Errorf("%s, %d: %s: %q becomes %q, want %q", row.api, o.status, name, given, v, want)
					}
				}
			}
		}
	}},
	{"octets that no URL should have, and that browsers send", func(t *testing.T, c *cell) {
		for _, rest := range []string{
			"[", "]", "|", "{", "}", "^", `"`, "<", ">", "`", `a[0]|{b}^"<c>` + "`", "%E9", "%e9/%FF", "'()*!$&+,;=:@", "~",
			"q?" + `[]|{}^"<>` + "`\\", "q?\xe9", "q?caf\xc3\xa9=\xf0\x9f\x98\x80&\xff\x80", "q?%E9&%zz&%",
		} {
			a, got := c.tell(t, ask{}, "/pub/1.0/"+rest)
			if a.status != 200 || len(got) == 0 || got[len(got)-1].target != "/"+rest {
				t.Errorf("%q: status %d, %v, and %d times as it is", rest, a.status, a.err, len(got))
			}
		}
	}},
	{"Max-Forwards", func(t *testing.T, c *cell) {
		for _, q := range []struct {
			method, value, want string
			options             []string
		}{
			{"OPTIONS", "5", "4", nil},
			{"OPTIONS", "1", "0", nil},
			{"TRACE", "1", "0", nil},
			{"TRACE", "010", "9", nil},
			{"OPTIONS", "18446744073709551616000", "18446744073709551614", nil},
			{"GET", "0", "0", nil},
			{"GET", "x", "x", nil},
			{"OPTIONS", "7", "6", []string{"Connection: max-forwards"}},
		} {
			if q.options != nil && c.http2 {
				continue // it has no such field
			}
			got := c.do(t, ask{method: q.method, api: "hops", who: c.a4, fields: append(q.options, "max-forwards: "+q.value)}, reply{}).one(t)
			if v := got.header.Values("Max-Forwards"); got.method != q.method || !slices.Equal(v, []string{q.want}) {
				t.Errorf("%s %s: the backend got %s and %q", q.method, q.value, got.method, v)
			}
		}
		for _, value := range []string{"0", "00"} {
			o := c.do(t, ask{method: "OPTIONS", api: "hops", who: c.a4, fields: []string{"Max-Forwards: " + value}}, reply{})
			o.refused(t, 200, "200", "last_hop")
			o.unheard(t)
			if v := o.header.Values("Allow"); !slices.Equal(v, []string{"GET, LINK, OPTIONS, POST, PUT"}) {
				t.Errorf("OPTIONS: Allow %q", v)
			}
			o = c.do(t, ask{method: "TRACE", api: "hops", who: c.a4, fields: []string{"Max-Forwards: " + value, "Cookie: " + marker}}, reply{})
			o.refused(t, 405, "405", "no_trace")
			o.unheard(t)
			if v := o.header.Values("Allow"); !slices.Equal(v, []string{"GET, LINK, OPTIONS, POST, PUT"}) || strings.Contains(fmt.Sprint(o.told), marker) {
				t.Errorf("TRACE: Allow %q, %+v", v, o.told)
			}
		}
		o := c.do(t, ask{method: "OPTIONS", api: "pub", fields: []string{"Max-Forwards: 0"}}, reply{}) // any method
		if o.refused(t, 200, "200", "last_hop"); o.header.Get("Allow") != "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT" {
			t.Errorf("Allow %q", o.header.Get("Allow"))
		}
		for _, method := range []string{"OPTIONS", "TRACE"} { // a stranger learns no more than from any other call
			o := c.do(t, ask{method: method, api: "hops", fields: []string{"Max-Forwards: 0"}}, reply{})
			o.refused(t, 401, "900902", "missing_credentials")
			o.unheard(t)
			if v := o.header.Values("Allow"); v != nil {
				t.Errorf("%s of a stranger: Allow %q", method, v)
			}
		}
		for _, lines := range [][]string{{""}, {"-1"}, {"+1"}, {"1.0"}, {"1, 2"}, {"0x1"}, {"x"}, {"3", "3"}} {
			q := ask{method: "OPTIONS", api: "hops", who: c.a4}
			for _, v := range lines {
				q.fields = append(q.fields, "Max-Forwards: "+v)
			}
			o := c.do(t, q, reply{})
			o.refused(t, 400, "400", "bad_request")
			o.unheard(t)
		}
	}},
	{"an empty line before a request line", func(t *testing.T, c *cell) {
		if c.http2 {
			return // it has no lines
		}
		conn := c.take(t, nil).(*http1Caller)
		ok := func(what string) {
			t.Helper()
			if a := conn.receive("GET", nil); a.status != 200 || a.err != nil {
				t.Fatalf("%s: status %d, %v", what, a.status, a.err)
			}
		}
		say := func(text string) {
			t.Helper()
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
		}
		const get = "GET /pub/1.0/empty HTTP/1.1\r\nHost: opt.test\r\n\r\n"
		for range 3 {
			say("\r\n" + get)
			ok("at once")
		}
		for _, part := range []string{"\r", "\n", get[:1], get[1:]} {
			c.settle(t)
			say(part)
		}
		ok("by parts")
		say("\r\n")
		c.settle(t)
		say(get)
		ok("alone")
		say("POST /pub/1.0/empty HTTP/1.1\r\nHost: opt.test\r\nContent-Length: 4\r\n\r\nbody\r\n" + get + "\r\n" + get)
		ok("the call with a body")
		ok("behind a body")
		ok("behind a call")
		say("\r\n\r\n" + get)
		if a := conn.receive("GET", nil); a.status != 400 || a.header.Get("Connection") != "close" {
			t.Errorf("two empty lines: status %d, %v", a.status, a.header)
		}
		for _, text := range []string{"\n" + get, "\r" + get, "\r\n \r\n" + get} {
			conn := c.take(t, nil).(*http1Caller)
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			if a := conn.receive("GET", nil); a.status != 400 {
				t.Errorf("%.10q: status %d, %v", text, a.status, a.err)
			}
			conn.Close()
		}
		conn.Close()
	}},
	{"a later HTTP/1", func(t *testing.T, c *cell) {
		if c.http2 {
			return // whose requests name no version
		}
		for version, want := range map[string]int{"1.2": 200, "1.9": 200, "2.0": 505, "0.9": 505, "1.10": 400} {
			conn := c.take(t, nil).(*http1Caller)
			if _, err := fmt.Fprintf(conn, "GET /pub/1.0/version HTTP/%s\r\nHost: opt.test\r\n\r\n", version); err != nil {
				t.Fatal(err)
			}
			a := conn.receive("GET", nil)
			if a.status != want {
				t.Errorf("HTTP/%s: status %d, %v", version, a.status, a.err)
			}
			if got := c.received("/version"); want == 200 && !strings.HasPrefix(got[len(got)-1].header.Get("Via"), "1.1 ") {
				t.Errorf("HTTP/%s: the backend got %v", version, got[len(got)-1].header)
			}
			conn.Close()
		}
	}},
	{"spaces before a colon", func(t *testing.T, c *cell) {
		if !c.http2 {
			o := c.do(t, ask{fields: []string{"X-Spaced : y"}}, reply{})
			o.refused(t, 400, "400", "bad_request")
			o.unheard(t)
		}
		if c.h2c {
			return // which has no colons
		}
		o := c.do(t, ask{}, reply{bytes: "HTTP/1.1 200 OK\r\nX-Spaced : y\r\nSet-Cookie\t \t: a=b\r\nContent-Length : 4\r\n\r\nbody"})
		if o.one(t); o.header.Get("X-Spaced") != "y" || o.header.Get("Set-Cookie") != "a=b" || o.told.body != "body" {
			t.Errorf("the client got %v, %q", o.header, o.told.body)
		}
	}},
	{"interim answers that state a body", func(t *testing.T, c *cell) {
		lines := []string{"Content-Length: 4"}
		if !c.h2c {
			lines = append(lines, "Transfer-Encoding: chunked")
		}
		for _, line := range lines {
			for _, status := range []int{100, 103} {
				o := c.do(t, ask{}, reply{interims: []interim{{status, []string{line, "Link: </x>"}}}, body: "body"})
				if o.one(t); o.told.body != "body" || status == 103 && (len(o.interims) != 1 || o.interims[0].header.Get("Link") != "</x>") {
					t.Errorf("%d with %s: %+v", status, line, o.told)
				}
				for _, i := range o.interims {
					if i.header.Get("Content-Length") != "" && i.header.Get("Content-Length") != "0" || i.header.Get("Transfer-Encoding") != "" {
						t.Errorf("the client got %v", i.header)
					}
				}
				c.do(t, ask{}, reply{}).one(t) // the connections are in step
			}
		}
	}},
}

// settle lets the gateway take what clients have sent: a call that begins now is answered.
func (c *cell) settle(t *testing.T) {
	t.Helper()
	if o := c.do(t, ask{method: http.MethodHead}, reply{}); o.status != 200 {
		t.Fatalf("status %d, %v", o.status, o.err)
	}
}
