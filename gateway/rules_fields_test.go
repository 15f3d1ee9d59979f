package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// fieldRules are what goes on of the fields of a head, and what is added.
var fieldRules = []rule{
	{"hop-by-hop request fields", func(t *testing.T, c *cell) {
		q := ask{fields: []string{"X-Kept: yes", "Proxy-Authorization: " + marker, "TE: trailers"}}
		if !c.http2 { // where net/http refuses them
			q.fields = append(q.fields, "Connection: X-Hop, keep-alive", "X-Hop: "+marker, "Keep-Alive: "+marker, "Upgrade: "+marker, "Proxy-Connection: "+marker)
		}
		got := c.do(t, q, reply{}).one(t)
		if got.header.Get("X-Kept") != "yes" || strings.Contains(fmt.Sprint(got.header), marker) || got.header.Get("Connection") != "" {
			t.Errorf("the backend got %v", got.header)
		}
		if te := got.header.Values("Te"); !slices.Equal(te, []string{"trailers"}) {
			t.Errorf("the backend got TE %q", te)
		}
	}},
	{"hop-by-hop answer fields", func(t *testing.T, c *cell) {
		a := reply{fields: []string{"X-Kept: yes", "Proxy-Authenticate: " + marker, "Keep-Alive: " + marker, "Proxy-Connection: " + marker, "Te: " + marker}}
		if !c.h2c { // where there is no Connection field
			a.fields = append(a.fields, "Connection: X-Hop", "X-Hop: "+marker, "Upgrade: "+marker)
		}
		o := c.do(t, ask{}, a)
		if o.one(t); o.header.Get("X-Kept") != "yes" || strings.Contains(fmt.Sprint(o.header), marker) {
			t.Errorf("the client got %v", o.header)
		}
	}},
	{"managed request fields", func(t *testing.T, c *cell) {
		q := ask{api: "pay", who: c.a4}
		for _, name := range slices.Concat(identityHeaders, []string{
			"X_Sallyport_Client", "x-sallyport_CLIENT", "X_WSO2_CLIENT_CERTIFICATE", "Client_Cert", "X_Client_Cert_Hash", "Content_Length", "Transfer_Encoding",
			"X-Forwarded-For", "X_Forwarded_For", "X-Forwarded-Port", "Forwarded", "X-Real-IP", "X-Request-Id", "X_Request_Id", "Traceparent",
			"Tracestate", "X-Original-URL", "X-Rewrite-URL", "Proxy-Anything",
		}) {
			q.fields = append(q.fields, name+": "+marker)
		}
		o := c.do(t, q, reply{})
		got := o.one(t)
		if strings.Contains(fmt.Sprint(got.header), marker) {
			t.Errorf("the backend got what the client forged: %v", got.header)
		}
		for name, want := range map[string]string{
			"X-Sallyport-Client": "a4", "X-Client-Cert-Hash": c.a4.hash(), "X-Request-Id": o.header.Get("X-Request-Id"), "X-Forwarded-For": "127.0.0.1",
			"X-Forwarded-Proto": "https", "X-Forwarded-Host": "opt.test",
		} {
			if v := got.header.Values(name); len(v) != 1 || v[0] != want {
				t.Errorf("%s: %q, want %q", name, v, want)
			}
		}
	}},
	{"Authorization", func(t *testing.T, c *cell) {
		const basic = "Basic Zm9vOmJhcg=="
		raw := c.token(t, "alice", nil)
		for _, q := range []struct {
			api, value string
			who        *party
			left       string
		}{
			{"tok", "Bearer " + raw, nil, ""},
			{"tok", "bEARER " + raw, nil, ""},
			{"tok", basic + ", Bearer " + raw, nil, basic},
			{"tok", "Bearer " + raw + ", " + basic, nil, basic},
			{"both", "Bearer " + raw, c.a4, ""}, // the certificate let it in
			{"both", basic, c.a4, basic},
			{"pay", "Bearer " + raw, c.a4, "Bearer " + raw}, // it knows no tokens
			{"pub", basic, nil, basic},
		} {
			got := c.do(t, ask{api: q.api, who: q.who, fields: []string{"Authorization: " + q.value}}, reply{}).one(t)
			if v := got.header.Get("Authorization"); v != q.left {
				t.Errorf("%s, %.30s: the backend got %.30q", q.api, q.value, v)
			}
		}
	}},
	{"Via", func(t *testing.T, c *cell) {
		got := c.do(t, ask{fields: []string{"Via: 1.0 other"}}, reply{}).one(t)
		version := map[bool]string{false: "1.1 ", true: "2 "}[c.http2]
		if v := got.header.Values("Via"); len(v) != 2 || v[0] != "1.0 other" || !strings.HasPrefix(v[1], version+"sallyport-") {
			t.Errorf("the backend got Via %q", v)
		}
	}},
	{"X-Request-Id and RateLimit", func(t *testing.T, c *cell) {
		theirs := reply{fields: []string{"X-Request-Id: " + marker, "RateLimit: " + marker, "RateLimit-Policy: " + marker}}
		limited := c.do(t, ask{api: "both", who: c.a3}, theirs)
		got := limited.one(t)
		for _, name := range []string{"X-Request-Id", "Ratelimit", "Ratelimit-Policy"} {
			if v := limited.header.Values(name); len(v) != 1 || v[0] == marker {
				t.Errorf("%s: %q", name, v)
			}
		}
		if id := got.header.Get("X-Request-Id"); id != limited.header.Get("X-Request-Id") || id != limited.seen.ID {
			t.Errorf("the backend was told of %q, the client of %q, the observer of %q", id, limited.header.Get("X-Request-Id"), limited.seen.ID)
		}
		free := c.do(t, ask{}, theirs)
		free.one(t)
		if v := free.header.Values("Ratelimit"); len(v) != 1 || v[0] != marker { // it is the backend's own limit
			t.Errorf("without a limit of ours: RateLimit %q", v)
		}
		if v := free.header.Values("X-Request-Id"); len(v) != 1 || v[0] != free.seen.ID {
			t.Errorf("X-Request-Id %q", v)
		}
	}},
	{"the end of the client's certificate", func(t *testing.T, c *cell) {
		token := "Authorization: Bearer " + c.token(t, "alice", nil)
		for name, call := range map[string]struct {
			q      ask
			status int
			told   bool
		}{
			"it lets the call in":               {ask{api: "pay", who: c.a4}, 200, true},
			"HEAD":                              {ask{method: "HEAD", api: "pay", who: c.a4}, 200, true},
			"beside a token":                    {ask{api: "both", who: c.a4, fields: []string{token}}, 200, true},
			"it has spent its allowance":        {ask{api: "hops", who: c.a3}, 429, true},
			"it lacks a scope":                  {ask{method: "POST", api: "hops", who: c.a4}, 403, true},
			"registered for another API":        {ask{api: "hops", who: c.a1}, 401, false},
			"registered for another, and token": {ask{api: "both", who: c.s1, fields: []string{token}}, 200, false},
			"a token":                           {ask{api: "both", fields: []string{token}}, 200, false},
			"the API takes tokens alone":        {ask{api: "tok", who: c.a4, fields: []string{token}}, 200, false},
			"the API is open":                   {ask{who: c.a4}, 200, false},
			"there is no such API":              {ask{api: "nothing", who: c.a4}, 404, false},
		} {
			theirs := []string{expiryHeader + ": " + marker, "x_cert-ENDS: " + marker}
			o := c.do(t, call.q, reply{
				interims: []interim{{103, theirs}}, fields: append([]string{"Trailer: " + expiryHeader + ", X_Cert_Ends, X-Kept"}, theirs...), body: "body",
				chunked: true, trailers: append([]string{"X-Kept: yes"}, theirs...),
			})
			want := []string{}
			if call.told {
				want = append(want, call.q.who.cert.NotAfter.UTC().Format(http.TimeFormat))
			}
			if v := o.header.Values(expiryHeader); o.status != call.status || !slices.Equal(v, want) {
				t.Errorf("%s: status %d, %q; want %d, %q", name, o.status, v, call.status, want)
			}
			if strings.Contains(fmt.Sprint(o.told), marker) || strings.Contains(fmt.Sprint(o.header["Trailer"]), "Ends") {
				t.Errorf("%s: the client got what the backend made up: %v", name, o.told)
			}
			if call.status == 200 && call.q.method == "" && o.trailer.Get("X-Kept") != "yes" {
				t.Errorf("%s: trailers %v", name, o.trailer)
			}
		}
	}},
	{"Date", func(t *testing.T, c *cell) {
		const theirs = "Sun, 22 Nov 2026 00:00:00 GMT"
		dated := c.do(t, ask{}, reply{fields: []string{"Date: " + theirs}})
		if v := dated.header.Values("Date"); len(v) != 1 || v[0] != theirs {
			t.Errorf("the backend's Date becomes %q", v)
		}
		for _, o := range []outcome{c.do(t, ask{}, reply{}), c.do(t, ask{api: "nothing"}, reply{})} {
			v := o.header.Values("Date")
			if len(v) != 1 {
				t.Errorf("status %d: Date %q", o.status, v)
			} else if _, err := http.ParseTime(v[0]); err != nil {
				t.Error(err)
			}
		}
	}},
	{"headerCount", func(t *testing.T, c *cell) {
		lines := func(n int) (list []string) {
			for i := range n {
				list = append(list, fmt.Sprint("X-", i, ": y"))
			}
			return list
		}
		cookies := slices.Repeat([]string{"Cookie: a=b"}, 100)
		for name, q := range map[string][2]ask{
			"fields":    {{fields: lines(200)}, {fields: lines(201)}},
			"cookies":   {{fields: append(lines(100), cookies...)}, {fields: append(lines(101), cookies...)}},
			"same name": {{fields: slices.Repeat([]string{"X: y"}, 200)}, {fields: slices.Repeat([]string{"X: y"}, 201)}},
			"trailer":   {{fields: append(lines(199), "Trailer: X-Sum")}, {fields: append(lines(200), "Trailer: X-Sum")}},
		} {
			if o := c.do(t, q[0], reply{}); o.status != 200 {
				t.Errorf("200 lines, %s: status %d", name, o.status)
			}
			o := c.do(t, q[1], reply{})
			o.refused(t, 431, "431", "too_many_headers")
			o.unheard(t)
		}
		if c.http2 { // a host beside :authority is no more than the Host of HTTP/1.1
			c.do(t, ask{fields: append(lines(200), "Host: opt.test")}, reply{}).one(t)
		}
	}},
	{"size of an answer's head", func(t *testing.T, c *cell) {
		long := strings.Repeat("x", 60<<10)
		o := c.do(t, ask{}, reply{fields: []string{"X-Long: " + long}, body: "body"})
		if o.one(t); o.header.Get("X-Long") != long || o.told.body != "body" {
			t.Errorf("%d bytes of a field, %q", len(o.header.Get("X-Long")), o.told.body)
		}
		for _, size := range []int{100 << 10, 300 << 10} {
			o = c.do(t, ask{}, reply{fields: []string{"X-Long: " + strings.Repeat("x", size)}})
			o.refused(t, 502, "101506", "backend_unreadable")
			if len(o.got) != 1 {
				t.Errorf("the backend was asked %d times", len(o.got))
			}
		}
	}},
	{"answers without a body", func(t *testing.T, c *cell) {
		for _, q := range []struct {
			method string
			status int
			fields []string
			length string
		}{
			{"HEAD", 200, []string{"Content-Length: 1000", "X-Kept: yes"}, "1000"},
			{"HEAD", 200, []string{"X-Kept: yes"}, ""},
			{"GET", 204, []string{"X-Kept: yes"}, ""},
			{"GET", 304, []string{"Content-Length: 1000", "X-Kept: yes"}, "1000"},
			{"HEAD", 304, []string{"X-Kept: yes"}, ""},
		} {
			o := c.do(t, ask{method: q.method}, reply{status: q.status, fields: q.fields})
			if o.status != q.status || o.told.body != "" || o.err != nil || o.header.Get("X-Kept") != "yes" || o.header.Get("Content-Length") != q.length || o.header.Get("Transfer-Encoding") != "" {
				t.Errorf("%s %d: %+v", q.method, q.status, o.told)
			}
			if o.seen.Status != q.status || o.seen.Reason != "" || o.seen.Out != 0 || len(o.got) != 1 {
				t.Errorf("%s %d: observed %+v, asked %d times", q.method, q.status, o.seen, len(o.got))
			}
			c.do(t, ask{}, reply{}).one(t) // the connections are in step
		}
		o := c.do(t, ask{method: "HEAD", api: "nothing"}, reply{})
		if o.status != 404 || o.told.body != "" || o.seen.Out != 0 || o.header.Get("Content-Length") == "" {
			t.Errorf("a refused HEAD: %+v, %+v", o.told, o.seen)
		}
	}},
	{"interim answers", func(t *testing.T, c *cell) {
		hint := interim{103, []string{"Link: </x>", "Keep-Alive: " + marker}}
		for _, n := range []int{1, 16} {
			o := c.do(t, ask{}, reply{interims: slices.Repeat([]interim{hint}, n), fields: []string{"X-Final: yes"}, body: "body"})
			if o.one(t); o.header.Get("X-Final") != "yes" || o.header.Get("Link") != "" || o.told.body != "body" || len(o.interims) != n {
				t.Errorf("%d of %d interim answers, then %+v", len(o.interims), n, o.told)
			}
			for _, i := range o.interims {
				if i.status != 103 || i.header.Get("Link") != "</x>" || i.header.Get("Keep-Alive") != "" {
					t.Errorf("interim answer %+v", i)
				}
			}
		}
		o := c.do(t, ask{}, reply{interims: []interim{{status: 100}, {status: 100}}})
		if o.one(t); len(o.interims) > 0 {
			t.Errorf("interim answers %v", o.interims)
		}
		c.do(t, ask{}, reply{interims: slices.Repeat([]interim{hint}, 17)}).refused(t, 502, "101506", "backend_unreadable")
		c.do(t, ask{}, reply{interims: slices.Repeat([]interim{{status: 100}}, 17)}).refused(t, 502, "101506", "backend_unreadable")
	}},
	{"101 that nobody asked for", func(t *testing.T, c *cell) {
		for _, fields := range [][]string{nil, {"Upgrade: websocket"}} {
			o := c.do(t, ask{}, reply{interims: []interim{{101, fields}}})
			o.refused(t, 502, "101506", "backend_unreadable")
			if len(o.interims) > 0 {
				t.Errorf("the client was told %v", o.interims)
			}
		}
	}},
}

// mustNotTrail frames, routes or authenticates a message, or comes too late in a trailer.
var mustNotTrail = []string{
	"Authorization", "Content-Length", "Cookie", "Host", "Transfer-Encoding", "Connection", "Keep-Alive", "Expect", "Trailer", "Te", "Upgrade",
	"Content-Type", "Content-Encoding", "Content-Range", "Set-Cookie", "Www-Authenticate", "Cache-Control", "Content_Length", "Transfer_encoding",
}

// trailerRules are which trailer fields go on.
var trailerRules = []rule{
	{"trailers of an answer", func(t *testing.T, c *cell) {
		a := reply{body: "body", chunked: true, trailers: []string{"X-Announced: one", "X-Sudden: two"}}
		a.fields = []string{"Trailer: X-Announced, Authorization, Cookie", "Trailer: Host"}
		for _, name := range mustNotTrail {
			a.trailers = append(a.trailers, name+": "+marker)
		}
		o := c.do(t, ask{}, a)
		o.one(t)
		if o.told.body != "body" || o.trailer.Get("X-Announced") != "one" || o.trailer.Get("X-Sudden") != "two" || len(o.trailer) != 2 {
			t.Errorf("the client got %q and the trailers %v", o.told.body, o.trailer)
		}
		if o.header.Get("X-Announced") != "" || strings.Contains(fmt.Sprint(o.header), marker) {
			t.Errorf("the client got %v", o.header)
		}
		if c.http2 && o.header.Get("Trailer") != "X-Announced" { // net/http's reader of HTTP/1.1 leaves it out
			t.Errorf("announced were %q", o.header.Values("Trailer"))
		}
	}},
	{"an answer announces trailers that frame it", func(t *testing.T, c *cell) {
		for _, name := range []string{"Content-Length", "Transfer-Encoding", "Trailer"} {
			c.do(t, ask{}, reply{chunked: true, fields: []string{"Trailer: X-Sum, " + name}}).refused(t, 502, "101506", "backend_unreadable")
		}
	}},
	{"trailers of a request", func(t *testing.T, c *cell) {
		names := []string{
			"Cookie", "X-Sallyport-Client", "X_Sallyport_Client", "X-Forwarded-For", "X-Client-Cert-Hash", "X-Wso2-Client-Certificate",
			"X_WSO2_Client_Certificate", "X-Request-Id", "Traceparent",
		}
		if !c.http2 { // where net/http resets the stream
			names = append(names, "Authorization", "Host", "Te", "Content-Type", "Content-Encoding", "Content_length")
		}
		q := ask{
			method: "POST", api: "pay", who: c.a4, body: "body", chunked: true,
			fields: []string{"Trailer: X-Announced, " + strings.Join(names, ", ")}, trailers: []string{"X-Announced: one", "X-Sudden: two"},
		}
		for _, name := range names {
			q.trailers = append(q.trailers, name+": "+marker)
		}
		got := c.do(t, q, reply{}).one(t)
		want := map[string]string{"X-Announced": "one", "X-Sudden": "two"}
		if c.http2 {
			delete(want, "X-Sudden") // net/http keeps it to itself
		}
		body, trailer, whole := got.message()
		if body != "body" || !whole || len(trailer) != len(want) {
			t.Errorf("the backend got %q, %v and the trailers %v", body, whole, trailer)
		}
		for name, value := range want {
			if trailer.Get(name) != value {
				t.Errorf("the backend got the trailers %v", trailer)
			}
		}
		if !slices.Equal(got.announced, []string{"X-Announced"}) {
			t.Errorf("announced were %q", got.announced)
		}
	}},
}
