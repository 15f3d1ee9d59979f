package http1_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway/http1"
)

// request is what a test looks at.
type request struct {
	Method, Target, Host, Authority string
	Minor                           int
	Length                          int64
	Close, Expect, Upgrade          bool
}

func summary(r *http1.Request) request {
	return request{r.Method, r.Target, r.Host, r.Authority(), r.Minor, r.Length, r.Close, r.Expect, r.Upgrade}
}

func TestRequest(t *testing.T) {
	var r http1.Request // one for all: nothing of a request may be left in the next
	for _, c := range []struct {
		head string // with its last CRLF left out
		want request
	}{
		{"GET / HTTP/1.1\r\nHost: a.test\r\n", request{Method: "GET", Target: "/", Host: "a.test", Minor: 1}},
		{"GET /a/b%20c?d=%&e=\"{}|# HTTP/1.1\r\nHost: a.test:8243\r\n", request{Method: "GET", Target: "/a/b%20c?d=%&e=\"{}|#", Host: "a.test:8243", Minor: 1}},
		{"get / HTTP/1.1\r\nhOST:a\r\n", request{Method: "get", Target: "/", Host: "a", Minor: 1}},
		{"M-SEARCH!#$%&'*+.^_`|~0 / HTTP/1.1\r\nHost: a\r\n", request{Method: "M-SEARCH!#$%&'*+.^_`|~0", Target: "/", Host: "a", Minor: 1}},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n", request{Method: "OPTIONS", Target: "*", Host: "a", Minor: 1}},
		{"CONNECT a:443 HTTP/1.1\r\nHost: b\r\n", request{Method: "CONNECT", Target: "a:443", Host: "b", Authority: "a:443", Minor: 1}},
		{"GET http://a/x HTTP/1.1\r\nHost: b\r\n", request{Method: "GET", Target: "http://a/x", Host: "b", Authority: "a", Minor: 1}},
		{"GET HTTPS://[::1]:80?x=y HTTP/1.1\r\nHost:\r\n", request{Method: "GET", Target: "HTTPS://[::1]:80?x=y", Authority: "[::1]:80", Minor: 1}},
		{"GET http://a HTTP/1.1\r\nHost: b\r\n", request{Method: "GET", Target: "http://a", Host: "b", Authority: "a", Minor: 1}},
		{"GET / HTTP/1.1\r\nHost:\r\n", request{Method: "GET", Target: "/", Minor: 1}},
		{"GET / HTTP/1.1\r\nHost: \t [2001:db8::1]:443\t\r\n", request{Method: "GET", Target: "/", Host: "[2001:db8::1]:443", Minor: 1}},
		{"GET //a/../b HTTP/1.1\r\nHost: a\r\n", request{Method: "GET", Target: "//a/../b", Host: "a", Minor: 1}}, // message.ParseTarget refuses it

		{"GET / HTTP/1.2\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1, Length: http1.InChunks}},
		{"GET / HTTP/1.9\r\nHost: a\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1}},

		{"GET / HTTP/1.0\r\n", request{Method: "GET", Target: "/", Close: true}},
		{"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n", request{Method: "GET", Target: "/", Host: "a"}},
		{"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", request{Method: "GET", Target: "/", Close: true}},
		{"GET / HTTP/1.0\r\nConnection: keep-alives\r\n", request{Method: "GET", Target: "/", Close: true}},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1, Close: true}},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: ,\t, CLOSE ,\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1, Close: true}},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed, x close, clos\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1}},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnections: close\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1}},

		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n", request{Method: "POST", Target: "/", Host: "a", Minor: 1}},
		{"POST / HTTP/1.1\r\nHost: a\r\ncontent-length:10\r\n", request{Method: "POST", Target: "/", Host: "a", Minor: 1, Length: 10}},
		{"GET / HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH: \t9223372036854775807 \r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1, Length: 1<<63 - 1}},
		{"POST / HTTP/1.0\r\nContent-Length: 5\r\n", request{Method: "POST", Target: "/", Length: 5, Close: true}},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tChunKed \r\n", request{Method: "POST", Target: "/", Host: "a", Minor: 1, Length: http1.InChunks}},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent_Length: 5\r\n", request{Method: "POST", Target: "/", Host: "a", Minor: 1}}, // other fields altogether
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x, Content-Lengths, y\r\n", request{Method: "POST", Target: "/", Host: "a", Minor: 1, Length: http1.InChunks}},

		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n", request{Method: "POST", Target: "/", Host: "a", Minor: 1, Length: 5, Expect: true}},
		{"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n", request{Method: "POST", Target: "/", Length: 5, Close: true}},
		{"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1, Upgrade: true}},
		{"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1}},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n", request{Method: "GET", Target: "/", Host: "a", Minor: 1}},
		{"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade, keep-alive\r\n", request{Method: "GET", Target: "/"}},
	} {
		if c.want.Authority == "" {
			c.want.Authority = c.want.Host
		}
		if err := r.Parse(c.head + "\r\n"); err != nil {
			t.Errorf("%q: %v", c.head, err)
		} else if diff := cmp.Diff(c.want, summary(&r)); diff != "" {
			t.Errorf("%q: %s", c.head, diff)
		}
	}
}

// refused are requests that must not pass, each with what is said of it and the status if it is not 400.
var refused = []struct {
	name, head string
	err        string
	status     int
}{
	// The head as a whole.
	{"nothing", "", "line 1: the head has no end", 400},
	{"no end", "GET / HTTP/1.1\r\n", "line 2: the head has no end", 400},
	{"no end of a field", "GET / HTTP/1.1\r\nHost: a", "line 2: the head has no end", 400},
	{"no empty line", "GET / HTTP/1.1\r\nHost: a\r\n", "line 3: the head has no end", 400},
	{"half an empty line", "GET / HTTP/1.1\r\nHost: a\r\n\r", "line 3: a carriage return without line feed", 400},
	{"bytes behind it", "GET / HTTP/1.1\r\nHost: a\r\n\r\nx", "line 3: bytes behind the head", 400},
	{"an empty line before", "\r\n" + good(), "line 1: the request line is not a method, a target and a version", 400},
	{"bare LF", "GET / HTTP/1.1\nHost: a\n\n", "line 1: a line feed without carriage return", 400},
	{"bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", "line 2: a line feed without carriage return", 400},
	{"bare LF for the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n", "line 3: a line feed without carriage return", 400},
	{"bare CR", "GET / HTTP/1.1\rHost: a\r\n\r\n", "line 1: a carriage return without line feed", 400},

	// 95 and the request line.
	{"two spaces", line("GET  / HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"two spaces before the version", line("GET /  HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a space in front", line(" GET / HTTP/1.1"), "line 1: the method is no token", 400},
	{"a space behind", line("GET / HTTP/1.1 "), "line 1: the version is malformed", 400},
	{"a tab for a space", line("GET\t/ HTTP/1.1"), "line 1: the request line is not a method, a target and a version", 400},
	{"a tab in the target", line("GET /\t HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"no version", line("GET /"), "line 1: the request line is not a method, a target and a version", 400},
	{"no target", line("GET HTTP/1.1"), "line 1: the request line is not a method, a target and a version", 400},
	{"a method only", line("GET"), "line 1: the request line is not a method, a target and a version", 400},
	{"one word more", line("GET / HTTP/1.1 x"), "line 1: the version is malformed", 400},
	{"a space in the target", line("GET /a b HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"no method", line("/ HTTP/1.1"), "line 1: the request line is not a method, a target and a version", 400},
	{"an empty method", line(" / HTTP/1.1"), "line 1: the method is no token", 400},
	{"a bracket in the method", line("G(T / HTTP/1.1"), "line 1: the method is no token", 400},
	{"a high byte in the method", line("G\xc9T / HTTP/1.1"), "line 1: the method is no token", 400},
	{"NUL in the method", line("G\x00T / HTTP/1.1"), "line 1: a control character", 400},
	{"HTTP/2", line("GET / HTTP/2.0"), "line 1: the version is not HTTP/1", 505},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\n", "line 1: the version is not HTTP/1", 505},
	{"HTTP/0.9", line("GET / HTTP/0.9"), "line 1: the version is not HTTP/1", 505},
	{"HTTP/3.1", line("GET / HTTP/3.1"), "line 1: the version is not HTTP/1", 505},
	{"HTTP/1.2x", line("GET / HTTP/1.2x"), "line 1: the version is malformed", 400},
	{"HTTP/1.10", line("GET / HTTP/1.10"), "line 1: the version is malformed", 400},
	{"HTTP/11", line("GET / HTTP/11"), "line 1: the version is malformed", 400},
	{"HTTP/1", line("GET / HTTP/1"), "line 1: the version is malformed", 400},
	{"HTTP/1,1", line("GET / HTTP/1,1"), "line 1: the version is malformed", 400},
	{"HTTP/x.1", line("GET / HTTP/x.1"), "line 1: the version is malformed", 400},
	{"http/1.1", line("GET / http/1.1"), "line 1: the version is malformed", 400},
	{"XTTP/1.1", line("GET / XTTP/1.1"), "line 1: the version is malformed", 400},
	{"no version, but its space", line("GET / "), "line 1: the version is malformed", 400},
	{"* with GET", line("GET * HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a word", line("GET admin HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a query", line("GET ?x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a fragment", line("GET #x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"authority-form with GET", line("GET a:443 HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"one slash", line("GET http:/x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a scheme only", line("GET http:// HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"no authority", line("GET http:///x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"another scheme", line("GET ftp://a/x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"no scheme", line("GET ://a/x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a user", line("GET http://u@a/x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a fragment behind the authority", line("GET http://a#x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a backslash behind the authority", line(`GET http://a\x HTTP/1.1`), "line 1: the request target is malformed", 400},
	{"an IPv4 address in brackets", line("GET http://[127.0.0.1]/ HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"no address in brackets", line("GET http://[:::]/ HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a high byte in the target", line("GET /\xe9 HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"NUL in the target", line("GET /\x00 HTTP/1.1"), "line 1: a control character", 400},
	{"DEL in the target", line("GET /\x7f HTTP/1.1"), "line 1: a control character", 400},
	{"CR in the target", line("GET /\r HTTP/1.1"), "line 1: a carriage return without line feed", 400},
	{"half an escape", line("GET /%2 HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a broken escape", line("GET /%zz HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"a broken escape in absolute-form", line("GET http://a/%2x HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"an escape into the query", line("GET /%2?0 HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"CONNECT with a path", line("CONNECT / HTTP/1.1"), "line 1: the request target is malformed", 400},
	{"CONNECT with a URL", line("CONNECT http://a/ HTTP/1.1"), "line 1: the request target is malformed", 400},

	// 85: both lengths.
	{"length, then coding", good("Content-Length: 5", "Transfer-Encoding: chunked"), "line 4: both Content-Length and Transfer-Encoding", 400},
	{"coding, then length", good("Transfer-Encoding: chunked", "Content-Length: 5"), "line 4: both Content-Length and Transfer-Encoding", 400},
	{"another coding, then length", good("Transfer-Encoding: gzip", "Content-Length: 5"), "line 4: both Content-Length and Transfer-Encoding", 400},
	{"length, then another coding", good("Content-Length: 0", "Transfer-Encoding: x"), "line 4: both Content-Length and Transfer-Encoding", 400},
	{"no length and coding", good("Content-Length:", "Transfer-Encoding: chunked"), "line 3: Content-Length is no plain number", 400},

	// 86: lengths.
	{"two lengths", good("Content-Length: 5", "Content-Length: 6"), "line 4: more than one Content-Length", 400},
	{"a length twice", good("Content-Length: 5", "content-length: 5"), "line 4: more than one Content-Length", 400},
	{"a length and a wrong one", good("Content-Length: 5", "Content-Length: x"), "line 4: more than one Content-Length", 400},
	{"a list", good("Content-Length: 5, 6"), "line 3: Content-Length is no plain number", 400},
	{"a list of one thing", good("Content-Length: 5, 5"), "line 3: Content-Length is no plain number", 400},
	{"plus", good("Content-Length: +5"), "line 3: Content-Length is no plain number", 400},
	{"minus", good("Content-Length: -0"), "line 3: Content-Length is no plain number", 400},
	{"hexadecimal", good("Content-Length: 0x5"), "line 3: Content-Length is no plain number", 400},
	{"underscore", good("Content-Length: 5_0"), "line 3: Content-Length is no plain number", 400},
	{"a space within", good("Content-Length: 5 0"), "line 3: Content-Length is no plain number", 400},
	{"a colon", good("Content-Length: :5"), "line 3: Content-Length is no plain number", 400},
	{"a slash", good("Content-Length: 5/"), "line 3: Content-Length is no plain number", 400},
	{"a fraction", good("Content-Length: 5.0"), "line 3: Content-Length is no plain number", 400},
	{"an exponent", good("Content-Length: 5e0"), "line 3: Content-Length is no plain number", 400},
	{"empty", good("Content-Length: "), "line 3: Content-Length is no plain number", 400},
	{"leading zero", good("Content-Length: 05"), "line 3: Content-Length is no plain number", 400},
	{"two zeros", good("Content-Length: 00"), "line 3: Content-Length is no plain number", 400},
	{"2^63", good("Content-Length: 9223372036854775808"), "line 3: Content-Length is too big", 400},
	{"2^64+5", good("Content-Length: 18446744073709551621"), "line 3: Content-Length is too big", 400},
	{"100 digits", good("Content-Length: 1" + strings.Repeat("0", 99)), "line 3: Content-Length is too big", 400},
	{"quoted", good("Content-Length: \"5\""), "line 3: Content-Length is no plain number", 400},
	{"arabic-indic digit", good("Content-Length: \u0665"), "line 3: Content-Length is no plain number", 400},

	// 87: codings.
	{"xchunked", good("Transfer-Encoding: xchunked"), "line 3: Transfer-Encoding is not chunked", 501},
	{"chunked, identity", good("Transfer-Encoding: chunked, identity"), "line 3: Transfer-Encoding is not chunked", 501},
	{"identity, chunked", good("Transfer-Encoding: identity, chunked"), "line 3: Transfer-Encoding is not chunked", 501},
	{"chunked, chunked", good("Transfer-Encoding: chunked, chunked"), "line 3: Transfer-Encoding is not chunked", 501},
	{"a parameter", good("Transfer-Encoding: chunked;x=y"), "line 3: Transfer-Encoding is not chunked", 501},
	{"gzip", good("Transfer-Encoding: gzip"), "line 3: Transfer-Encoding is not chunked", 501},
	{"no coding", good("Transfer-Encoding:"), "line 3: Transfer-Encoding is not chunked", 501},
	{"a comma behind", good("Transfer-Encoding: chunked,"), "line 3: Transfer-Encoding is not chunked", 501},
	{"a quoted coding", good("Transfer-Encoding: \"chunked\""), "line 3: Transfer-Encoding is not chunked", 501},
	{"a Kelvin sign", good("Transfer-Encoding: chun\u212aed"), "line 3: Transfer-Encoding is not chunked", 501}, // in Unicode it folds to k
	{"a no-break space", good("Transfer-Encoding: chunked\xa0"), "line 3: Transfer-Encoding is not chunked", 501},
	{"a vertical tab", good("Transfer-Encoding: \x0bchunked"), "line 3: a control character", 400},
	{"a CR", good("Transfer-Encoding: \rchunked"), "line 3: a carriage return without line feed", 400},
	{"two lines", good("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "line 4: more than one Transfer-Encoding", 400},
	{"two lines, one unknown", good("Transfer-Encoding: x", "Transfer-Encoding: chunked"), "line 4: more than one Transfer-Encoding", 400},
	{"on a folded line", good("Transfer-Encoding:", " chunked"), "line 4: a line that goes on from the one before", 400},
	{"in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "line 2: Transfer-Encoding in HTTP/1.0", 400},
	{"a forbidden trailer", good("Transfer-Encoding: chunked", "Trailer: x,\tContent-Length"), "line 4: Trailer announces a field that frames the message", 400},
	{"another forbidden trailer", good("trailer: transfer-encoding"), "line 3: Trailer announces a field that frames the message", 400},
	{"a trailer of trailers", good("Trailer: TRAILER"), "line 3: Trailer announces a field that frames the message", 400},

	// 90: header lines.
	{"space before the colon", good("Content-Length : 5"), "line 3: a space before the colon", 400},
	{"tab before the colon", good("Content-Length\t: 5"), "line 3: a space before the colon", 400},
	{"tab in the name", good("Content\tLength: 5"), "line 3: a space before the colon", 400},
	{"space in the name", good("Content Length: 5"), "line 3: a space before the colon", 400},
	{"no name", good(": x"), "line 3: no field name", 400},
	{"no name, no value", good(":"), "line 3: no field name", 400},
	{"a space for a name", good(" : x"), "line 3: a line that goes on from the one before", 400},
	{"a folded line", good("X: a", " b"), "line 4: a line that goes on from the one before", 400},
	{"a line folded by a tab", good("X: a", "\tb"), "line 4: a line that goes on from the one before", 400},
	{"a fold of spaces", good("X: a", "  "), "line 4: a line that goes on from the one before", 400},
	{"a first line that goes on", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "line 2: a line that goes on from the one before", 400},
	{"NUL in the value", good("X: a\x00b"), "line 3: a control character", 400},
	{"DEL in the value", good("X: a\x7fb"), "line 3: a control character", 400},
	{"CR in the value", good("X: a\rb"), "line 3: a carriage return without line feed", 400},
	{"CR before the end", good("X: a\r"), "line 3: a carriage return without line feed", 400},
	{"LF in the value", good("X: a\nContent-Length: 5"), "line 3: a line feed without carriage return", 400},
	{"NUL in the name", good("X\x00: a"), "line 3: the field name is no token", 400},
	{"CR in the name", good("X\r: a"), "line 3: a carriage return without line feed", 400},
	{"LF in the name", good("X\n: a"), "line 3: a line feed without carriage return", 400},
	{"a high byte in the name", good("X\xff: a"), "line 3: the field name is no token", 400},
	{"UTF-8 in the name", good("Xé: a"), "line 3: the field name is no token", 400},
	{"a bracket in the name", good("X(: a"), "line 3: the field name is no token", 400},
	{"@ in the name", good("X@: a"), "line 3: the field name is no token", 400},
	{"a quote for a name", good("\"X\": a"), "line 3: the field name is no token", 400},
	{"no colon", good("X"), "line 3: no colon", 400},
	{"no-break space behind the name", good("Transfer-Encoding\xa0: chunked"), "line 3: the field name is no token", 400},

	// 21: hosts.
	{"no host", "GET / HTTP/1.1\r\n\r\n", "no Host", 400},
	{"no host beside an authority", "GET http://a/ HTTP/1.1\r\nX: y\r\n\r\n", "no Host", 400},
	{"a host twice", good("Host: a.test"), "more than one Host", 400},
	{"two hosts", good("host: b"), "more than one Host", 400},
	{"two hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "more than one Host", 400},
	{"two hosts beside an authority", "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "more than one Host", 400},
	{"an empty host and another", good("Host:"), "more than one Host", 400},
	{"a list of hosts", host("a, b"), "Host is malformed", 400},
	{"a user in it", host("u@a"), "Host is malformed", 400},
	{"a path in it", host("a/x"), "Host is malformed", 400},
	{"a zone", host("[fe80::1%25eth0]"), "Host is malformed", 400},
	{"a port that is none", host("a:x"), "Host is malformed", 400},
	{"a port too long", host("a:99999999"), "Host is malformed", 400},
	{"a port only", host(":80"), "Host is malformed", 400},
	{"a space in it", host("a b"), "Host is malformed", 400},
	{"a query", host("a?x"), "Host is malformed", 400},
	{"an escape", host("a%2etest"), "Host is malformed", 400},
	{"a backslash", host(`a\b`), "Host is malformed", 400},
	{"half an address", host("[::1"), "Host is malformed", 400},
	{"no address", host("[:::]"), "Host is malformed", 400},
	{"high bytes", host("\xe9"), "Host is malformed", 400},
	{"a malformed host in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", "Host is malformed", 400},

	// 94: expectations.
	{"another expectation", good("Expect: 200-ok"), "an expectation other than 100-continue", 417},
	{"two of them", good("Expect: 100-continue, x"), "an expectation other than 100-continue", 417},
	{"options beyond the bound", good("Connection: " + strings.Repeat("a,", 32)), "line 3: a list of Connection, TE or Trailer is too long", 431},
	{"options beyond the bound, on lines", good(slices.Repeat([]string{"Connection: a"}, 33)...), "line 35: a list of Connection, TE or Trailer is too long", 431},
	{"options that are none", good("Connection: " + strings.Repeat(",", 60_000)), "line 3: a list of Connection, TE or Trailer is too long", 431},
	{"a long option", good("Connection: " + strings.Repeat("a", 513)), "line 3: a list of Connection, TE or Trailer is too long", 431},
	{"codings beyond the bound", good("Te: a", "TE: "+strings.Repeat("a;q=1,", 31)+"b"), "line 4: a list of Connection, TE or Trailer is too long", 431},
	{"trailers beyond the bound", good("Trailer: " + strings.Repeat("a,", 64)), "line 3: a list of Connection, TE or Trailer is too long", 431},
	{"no expectation", good("Expect:"), "an expectation other than 100-continue", 417},
	{"the same twice", good("Expect: 100-continue", "Expect: 100-continue"), "an expectation other than 100-continue", 417},
	{"another expectation in HTTP/1.0", "GET / HTTP/1.0\r\nExpect: x\r\n\r\n", "an expectation other than 100-continue", 417},
	{"an expectation, and worse", good("Expect: x", "Host: b"), "more than one Host", 400},
}

func line(first string) string { return first + "\r\nHost: a.test\r\n\r\n" }

// good is a request that is in order with these lines if they are.
func good(lines ...string) string {
	head := "POST / HTTP/1.1\r\nHost: a.test\r\n"
	for _, line := range lines {
		head += line + "\r\n"
	}
	return head + "\r\n"
}

func host(name string) string { return "GET / HTTP/1.1\r\nHost: " + name + "\r\n\r\n" }

func TestRequestRefused(t *testing.T) {
	var r http1.Request
	for _, c := range refused {
		err := r.Parse(c.head)
		var e *http1.Error
		if !errors.As(err, &e) || err.Error() != c.err || e.Status != c.status {
			t.Errorf("%s: %.200q: got %v, want %d %s", c.name, c.head, err, c.status, c.err)
		}
	}
	// What was refused leaves nothing behind.
	if err := r.Parse(good()); err != nil {
		t.Fatal(err)
	}
	want := request{Method: "POST", Target: "/", Host: "a.test", Authority: "a.test", Minor: 1}
	if diff := cmp.Diff(want, summary(&r)); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	var r http1.Request
	b.SetBytes(int64(len(typical)))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(typical); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLookups is what a gateway asks of a request besides parsing it.
func BenchmarkLookups(b *testing.B) {
	var r http1.Request
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(typical); err != nil {
			b.Fatal(err)
		}
		for _, name := range []string{"Authorization", "X-Forwarded-For", "Forwarded", "Via", "X-Wso2-Client-Certificate", "Traceparent"} {
			r.Values(name)
		}
		for i := range r.Fields {
			r.Named(r.Fields[i].Name)
		}
	}
}

// TestCopyTo: a copy of a request has all that the request has, in memory of its own.
func TestCopyTo(t *testing.T) {
	var r, other http1.Request
	if err := r.Parse("GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: X-One\r\nX-One: 1\r\nX-One: 2\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	from := reflect.ValueOf(&r).Elem()
	for i := range from.NumField() {
		switch field := from.Field(i); field.Kind() {
		case reflect.String:
			field.SetString(from.Type().Field(i).Name)
		case reflect.Int, reflect.Int64:
			field.SetInt(int64(i + 1))
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Interface:
			field.Set(reflect.ValueOf(errors.New("a problem")))
		}
	}
	r.CopyTo(&other)
	to := reflect.ValueOf(&other).Elem()
	for i := range from.NumField() {
		name := from.Type().Field(i).Name
		if name == "fields" {
			continue
		}
		if from.Field(i).IsZero() || !to.Field(i).Equal(from.Field(i)) {
			t.Errorf("%s is %v, and in the copy %v", name, from.Field(i), to.Field(i))
		}
	}
	if !slices.Equal(r.Fields, other.Fields) || !other.Named("X-One") {
		t.Errorf("the copy has %v", other.Fields)
	}
	other.Reset() // which clears its memory
	if got := r.Values("x-one"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("the request has %q", got)
	}
}
