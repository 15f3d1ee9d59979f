package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/decision"
)

type apiRoute = decision.Route

// A smuggle is a request that two readers could read in two ways, as it stands on the wire.
type smuggle struct {
	name string
	text string
	// want is what may become of it: "refused", or "one" request at the backend with that body; "either" where both are
	// in order and which it is doesn't matter.
	want string
	body string
	// last: the connection has to end with its answer.
	last bool
	// second: what looks like a second request is one.
	second bool
}

// The request that a smuggler would like to see taken for one of its own, and that no reader may ever see.
const smuggled = "GET /pub/1.0/smuggled HTTP/1.1\r\nHost: open.test\r\n\r\n"

// head is a request to the open API with those lines, each ended as it is given.
func head(first string, lines ...string) string {
	return first + "\r\nHost: open.test\r\n" + strings.Join(lines, "") + "\r\n"
}

func post(lines ...string) string { return head("POST /pub/1.0/p HTTP/1.1", lines...) }

// smuggles are the payloads of security F 85 to 91 and 95. Where net/http reads something in a way of its own, but in one
// way only, it says so.
func smuggles() []smuggle {
	var list []smuggle
	refused := func(name, text string) { list = append(list, smuggle{name: name, text: text, want: "refused"}) }
	one := func(name, text, body string) {
		list = append(list, smuggle{name: name, text: text, want: "one", body: body})
	}
	last := func(name, text, body string) {
		list = append(list, smuggle{name: name, text: text, want: "one", body: body, last: true})
	}
	either := func(name, text, body string) {
		list = append(list, smuggle{name: name, text: text, want: "either", body: body})
	}
	const te, chunks = "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"

	// 85: both lengths.
	for _, n := range []int{0, 3, 4, 13, 1000} {
		length := fmt.Sprintf("Content-Length: %d\r\n", n)
		last(fmt.Sprint("85 length and chunked ", n), post(length, te)+chunks+smuggled, "abc")
		last(fmt.Sprint("85 chunked and length ", n), post(te, length)+chunks+smuggled, "abc")
	}
	last("85 chunked", post(te)+chunks+smuggled, "abc")
	last("85 chunked and no length at all", post(te)+"0\r\n\r\n"+smuggled, "")
	last("85 GET with a chunked body", head("GET /pub/1.0/p HTTP/1.1", te, "Content-Length: 5\r\n")+chunks+smuggled, "abc")
	refused("85 chunked and a length that is none", post(te, "Content-Length: x\r\n")+chunks+smuggled)
	refused("85 chunked and two lengths", post(te, "Content-Length: 3\r\nContent-Length: 4\r\n")+chunks+smuggled)
	for _, coding := range []string{"identity", "gzip", "deflate", "compress", "chunked, gzip"} {
		refused("85 length and "+coding, post("Content-Length: 3\r\nTransfer-Encoding: "+coding+"\r\n")+"abc"+smuggled)
	}

	// 86: lengths that are none.
	for _, v := range []string{
		"5, 6", "5,5", "5 5", "+5", "-0", "-1", "-5", "0x5", "0b1", "0o5", "5_0", "", ",", "5,", ",5", "9223372036854775808", "18446744073709551621",
		"99999999999999999999", "5.0", "5e0", "٥", "5\x00", "\"5\"", "5;", "five", "NaN",
	} {
		refused("86 length "+v, post("Content-Length: "+v+"\r\n")+"hello"+smuggled)
	}
	refused("86 two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n")+"hello"+smuggled)
	refused("86 two lengths, the longer first", post("Content-Length: 6\r\nContent-Length: 5\r\n")+"hello"+smuggled)
	refused("86 two lengths, one spelled otherwise", post("Content-Length: 5\r\ncontent-length: 6\r\n")+"hello"+smuggled)
	refused("86 a length and none", post("Content-Length: 5\r\nContent-Length:\r\n")+"hello"+smuggled)
	either("86 the same length twice", post("Content-Length: 5\r\nContent-Length: 5\r\n")+"hello", "hello")
	one("86 length in white space", post("Content-Length: \t 5 \t\r\n")+"hello", "hello") // RFC 9110 section 5.5 allows it
	either("86 leading zeros", post("Content-Length: 005\r\n")+"hello", "hello")          // RFC 9110: 1*DIGIT
	one("86 no body at all", post(), "")

	// 87: codings that are none, and spellings of one.
	for _, v := range []string{
		"xchunked", "chunked, identity", "identity, chunked", "chunked;x=y", "chunked, chunked", "chunked,", ",chunked", "\"chunked\"", "'chunked'", "\x0bchunked",
		"chunked\x0b", "\x0cchunked", "chunked\x00", "chun ked", "chunked chunked", "chünked", "chunk", "", "identity", "gzip, chunked", "chunked\xa0", "\x85chunked", "cow",
	} {
		refused("87 coding "+v, post("Transfer-Encoding: "+v+"\r\n")+chunks+smuggled)
		refused("87 length and coding "+v, post("Content-Length: 5\r\nTransfer-Encoding: "+v+"\r\n")+"hello"+smuggled)
	}
	refused("87 two codings", post(te, te)+chunks+smuggled)
	refused("87 two codings, one of them none", post(te, "Transfer-Encoding: identity\r\n")+chunks+smuggled)
	refused("87 two codings, one of them empty", post(te, "Transfer-Encoding:\r\n")+chunks+smuggled)
	refused("87 two codings, spelled otherwise", post(te, "transfer-encoding: cow\r\n")+chunks+smuggled)
	last("87 coding in capitals", post("TRANSFER-ENCODING: CHUNKED\r\n")+chunks+smuggled, "abc")
	last("87 coding in white space", post("Transfer-Encoding:\t chunked \t\r\n")+chunks+smuggled, "abc")
	// net/http trims the CR (golang/go#53188) and reads it as chunked, always, and the connection ends.
	list = append(list, smuggle{name: "87 coding behind a bare CR", text: post("Transfer-Encoding: \rchunked\r\n") + chunks + smuggled, want: "either", body: "abc", last: true})
	refused("87 coding over two lines", post("Transfer-Encoding:\r\n chunked\r\n x\r\n")+chunks+smuggled)
	either("87 coding on a folded line", post("Transfer-Encoding:\r\n chunked\r\n")+chunks, "abc")
	one("87 a coding with an underscore", post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n")+"hello", "hello")
	one("87 a length with an underscore", post("Content_Length: 50\r\nContent-Length: 5\r\n")+"hello", "hello")
	// net/http overlooks a coding in HTTP/1.0; what may follow is not read.
	for _, keep := range []string{"", "Connection: keep-alive\r\n"} {
		list = append(list, smuggle{name: "87 coding in HTTP/1.0 " + keep, text: head("POST /pub/1.0/p HTTP/1.0", te, keep) + smuggled, want: "either", last: true})
		list = append(list, smuggle{name: "87 coding and length in HTTP/1.0 " + keep, text: head("POST /pub/1.0/p HTTP/1.0", te, keep, "Content-Length: 5\r\n") + "hello" + smuggled, want: "either", body: "hello", last: true})
	}

	// 88: chunks.
	for name, body := range map[string]string{
		"bare LF behind the size":     "3\nabc\r\n0\r\n\r\n",
		"bare LF behind the data":     "3\r\nabc\n0\r\n\r\n",
		"bare LF behind the last":     "3\r\nabc\r\n0\n\r\n",
		"bare CR behind the size":     "3\rabc\r\n0\r\n\r\n",
		"bare LF in an extension":     "3;\nabc\r\n0\r\n\r\n",
		"bare LF behind an extension": "3;a=b\nabc\r\n0\r\n\r\n",
		"0x":                          "0x3\r\nabc\r\n0\r\n\r\n",
		"space before the size":       " 3\r\nabc\r\n0\r\n\r\n",
		"minus":                       "-1\r\nabc\r\n0\r\n\r\n",
		"plus":                        "+3\r\nabc\r\n0\r\n\r\n",
		"underscore":                  "1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
		"17 digits":                   "10000000000000003\r\nabc\r\n0\r\n\r\n",
		"overflow":                    "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
		"no CRLF behind the data":     "3\r\nabc0\r\n\r\n",
		"other letters behind":        "3\r\nabcXX0\r\n\r\n",
		"more data than the size":     "3\r\nabcdef\r\n0\r\n\r\n",
		"less data than the size":     "5\r\nabc\r\n0\r\n\r\n",
		"no size":                     "\r\nabc\r\n0\r\n\r\n",
		"an extension only":           ";x=y\r\nabc\r\n0\r\n\r\n",
		"a word":                      "three\r\nabc\r\n0\r\n\r\n",
		"NUL in the size":             "3\x00\r\nabc\r\n0\r\n\r\n",
		"decimal point":               "3.0\r\nabc\r\n0\r\n\r\n",
		"a long extension":            "3;" + strings.Repeat("x", 16<<10) + "\r\nabc\r\n0\r\n\r\n",
		"nothing":                     smuggled,
		"two sizes":                   "3 3\r\nabc\r\n0\r\n\r\n",
	} {
		refused("88 chunk: "+name, post(te)+body+smuggled)
	}
	either("88 chunk: space behind the size", post(te)+"3 \r\nabc\r\n0\r\n\r\n", "abc") // net/http skips it, in one way only
	either("88 chunk: an extension", post(te)+"3;a=b\r\nabc\r\n0\r\n\r\n", "abc")
	either("88 chunk: a CR in an extension", post(te)+"3;a=\rb\r\nabc\r\n0\r\n\r\n", "abc")
	either("88 chunk: capitals and zeros", post(te)+"0003\r\nabc\r\n000\r\n\r\n", "abc")

	// 89: trailers. Those that can be read are thrown away.
	for _, line := range []string{
		"Content-Length: 5", "Host: mtls.test", "Authorization: Bearer x", "Transfer-Encoding: chunked", "X-Sallyport-Client: a1", "X-WSO2-CLIENT-CERTIFICATE: x", "Connection: close", "Trailer: x",
	} {
		either("89 trailer "+line, post(te, "Trailer: X-T\r\n")+"3\r\nabc\r\n0\r\n"+line+"\r\n\r\n", "abc")
	}
	for _, line := range []string{"no colon", " : x", ": x", "A b: c", "A : b", "A: b\x00"} {
		list = append(list, smuggle{name: "89 trailer " + line, text: post(te) + "3\r\nabc\r\n0\r\n" + line + "\r\n\r\n" + smuggled, want: "either", body: "abc", last: true})
	}
	either("89 trailer ended by a bare LF", post(te)+"3\r\nabc\r\n0\r\nA: b\n\r\n", "abc")
	either("89 trailers ended by a bare LF", post(te)+"3\r\nabc\r\n0\r\nA: b\r\n\n", "abc")
	refused("89 a forbidden trailer is announced", post(te, "Trailer: Content-Length\r\n")+"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n"+smuggled)
	refused("89 Transfer-Encoding as a trailer", post(te, "Trailer: Transfer-Encoding\r\n")+"3\r\nabc\r\n0\r\n\r\n"+smuggled)

	// 90: header lines.
	for _, line := range []string{
		"Content-Length : 5\r\n", "Content-Length\t: 5\r\n", "Content\tLength: 5\r\n", ": x\r\n", ":\r\n", " : x\r\n", "X: a\x00b\r\n", "X: a\x7fb\r\n", "X: a\x01\r\n", "X\x00: a\r\n",
		"X: a\rb\r\n", "X: a\rContent-Length: 5\r\n", "X\r: a\r\n", "Xé: a\r\n", "X\xff: a\r\n", "X(: a\r\n", "X@: a\r\n", "X/: a\r\n", "X[]: a\r\n", "no colon\r\n", "Transfer-Encoding : chunked\r\n",
		"Transfer-Encoding\x00: chunked\r\n", "Transfer-Encoding\xa0: chunked\r\n", "\x00: x\r\n", "\r: x\r\n",
	} {
		refused("90 line "+line, post(line)+smuggled)
	}
	refused("90 a first line that goes on", "POST /pub/1.0/p HTTP/1.1\r\n Host: open.test\r\n\r\n"+smuggled)
	refused("90 a first line that goes on by a tab", "POST /pub/1.0/p HTTP/1.1\r\n\tX: y\r\nHost: open.test\r\n\r\n"+smuggled)
	either("90 a folded line", post("X: a\r\n b\r\n"), "")
	either("90 a folded length", post("Content-Length:\r\n 5\r\n")+"hello", "hello")
	either("90 a length hidden in a fold", post("X: y\r\n Content-Length: 38\r\n"), "")
	either("90 bare LF lines", "POST /pub/1.0/p HTTP/1.1\nHost: open.test\nContent-Length: 5\n\nhello", "hello")
	either("90 a bare LF line", post("X: a\nContent-Length: 5\r\n")+"hello", "hello")
	either("90 high bytes in a value", post("X: \xff\xfe\r\n"), "")

	// 95 and the request line.
	for _, line := range []string{
		"GET  /pub/1.0/p HTTP/1.1", "GET\t/pub/1.0/p HTTP/1.1", "GET /pub/1.0/p", "GET /pub/1.0/p HTTP/1.1 ", "GET /pub/1.0/p HTTP/1.1 x", " GET /pub/1.0/p HTTP/1.1", "GET /pub/1.0/p HTTP/2.0",
		"GET /pub/1.0/p HTTP/0.9", "GET /pub/1.0/p HTTP/1.2x", "GET /pub/1.0/p HTTP/11", "GET /pub/1.0/p http/1.1", "GET /pub/1.0/p HTTP/1", "GET /pub/1.0/p XTTP/1.1", "G\x00T /pub/1.0/p HTTP/1.1", "G(T /pub/1.0/p HTTP/1.1",
		"GET * HTTP/1.1", "GET admin HTTP/1.1", "GET //evil/x HTTP/1.1", "GET http:/x HTTP/1.1", "GET open.test:443 HTTP/1.1", "GET /pub/1.0/p#x HTTP/1.1", "GET /pub/1.0/p\x00 HTTP/1.1",
		"GET /pub/1.0/p\r HTTP/1.1", "GET /pub/1.0/p\x0b HTTP/1.1", "GET http://user@open.test/pub/1.0/p HTTP/1.1", "GET http:///pub/1.0/p HTTP/1.1", "GET ftp://open.test/pub/1.0/p HTTP/1.1", "GET ?x HTTP/1.1",
		"GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1", "PRI * HTTP/2.0", "CONNECT open.test:443 HTTP/1.1", "CONNECT /pub/1.0/p HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /pub/1.0/p%0d%0aX:%20y HTTP/1.1",
	} {
		refused(fmt.Sprintf("95 %.60s", line), head(line)+smuggled)
	}
	either("95 HTTP/1.9", head("POST /pub/1.0/p HTTP/1.9"), "")
	either("95 an empty line before", "\r\n"+post("Content-Length: 5\r\n")+"hello", "hello")
	either("95 a lower-case method", head("post /pub/1.0/p HTTP/1.1"), "")

	// 21: hosts.
	for _, lines := range []string{
		"Host: open.test\r\nHost: open.test\r\n", "Host: open.test\r\nHost: mtls.test\r\n", "Host: a, b\r\n", "Host: \r\n", "", "Host: x@open.test\r\n", "Host: open.test/x\r\n", "Host: [fe80::1%25eth0]\r\n", "Host: open.test:x\r\n",
		"Host: open.test:99999999\r\n", "Host : open.test\r\n", "Host: open.test\x00\r\n", "Host: open test\r\n", "Host: open.test#\r\n", "Host: open.test?x\r\n", "Host: open%2etest\r\n", "Host: open\\test\r\n",
	} {
		refused("21 "+lines, "GET /pub/1.0/p HTTP/1.1\r\n"+lines+"\r\n"+smuggled)
	}
	return list
}

// forEngine is what the engine makes of what net/http cannot tell apart: a chunked request alone is in order, and so is the
// one behind it; one that has a length beside it is refused.
func (s *smuggle) forEngine() {
	if s.want != "one" || !s.last {
		return
	}
	if head, _, _ := strings.Cut(s.text, "\r\n\r\n"); strings.Contains(head, "Content-Length") {
		s.want = "refused"
		return
	}
	s.last, s.second = false, true
}

// TestNothingIsSmuggled sends each payload, and a request of good will right behind it, and looks at what a backend gets
// that reads by the letter: nothing, and the client is told so and the connection ends; or exactly one request, whose body
// is the one expected, and the next one in order. Then another client calls, over the same backend connections, and
// gets its own answer. Held: security B 21, F 85 to 91, 95.
func TestNothingIsSmuggled(t *testing.T) {
	var backend *strictBackend
	f := newFixture(t, withStrictBackend(t, &backend))
	other := f.client(t, nil, via{})
	list := smuggles()
	t.Logf("%d payloads", len(list))
	for i, s := range list {
		t.Run(s.name, func(t *testing.T) {
			s.hold(t, f, backend, other, fmt.Sprintf("/canary-%d", i), func(text string) ([]int, string, error) { return sendRaw(f.plain, text) })
		})
	}
}

// hold sends the payload, and holds what becomes of it to what TestNothingIsSmuggled says. It returns the statuses of the
// answers. Requests for /before are none of it.
func (s smuggle) hold(t *testing.T, f *fixture, backend *strictBackend, other *http.Client, canary string, send func(text string) (statuses []int, got string, err error)) []int {
	t.Helper()
	s.forEngine()
	backend.take()
	answers, raw, err := send(s.text + "GET /pub/1.0" + canary + " HTTP/1.1\r\nHost: open.test\r\nConnection: close\r\n\r\n")
	requests, faults := backend.take()
	for _, fault := range faults {
		t.Errorf("the backend got %s", fault)
	}
	defer func() {
		if t.Failed() {
			t.Logf("sent %.300q\nstatuses %v, %v\nthe backend got %+v\nthe client got %.2000q", s.text, answers, err, requests, raw)
		}
	}()
	if err != nil {
		t.Error("the connection did not end")
	}
	var bodies []string
	canaries := 0
	for _, r := range requests {
		switch {
		case r.target == "/before":
		case r.target == "/smuggled" && s.second:
			canaries++
		case r.target == "/smuggled":
			t.Error("a request was smuggled")
		case r.target == canary && r.body == "":
			canaries++
		case strings.HasPrefix(r.target, "/p"):
			bodies = append(bodies, r.body)
		default:
			t.Errorf("the backend got a request for %.100q with body %.100q", r.target, r.body)
		}
		for _, line := range r.lines {
			if name, _, _ := strings.Cut(line, ":"); strings.Contains(name, "_") {
				t.Errorf("the backend got %q", line)
			}
		}
	}
	switch {
	case s.want != "one" && len(bodies) == 0:
		if len(answers) != 1 || answers[0] < 400 || answers[0] == 500 || answers[0] > 505 || canaries > 0 {
			t.Errorf("it was refused with statuses %v, and %d canaries passed", answers, canaries)
		}
	case s.want != "refused" && len(bodies) == 1:
		if bodies[0] != s.body {
			t.Errorf("the backend got the body %.200q, want %q", bodies[0], s.body)
		}
		if len(answers) == 0 || answers[0] != 200 {
			t.Errorf("statuses %v", answers)
		}
		if s.last && (len(answers) != 1 || canaries != 0) {
			t.Errorf("the connection went on: statuses %v, %d canaries", answers, canaries)
		}
		if len(answers) > 3 || len(answers) == 3 && !s.second || len(answers)-1 != canaries || canaries >= 1 && !strings.HasSuffix(raw, canary+" ") {
			t.Errorf("the next request was not answered in order: statuses %v, %d canaries", answers, canaries)
		}
	default:
		t.Errorf("%d requests reached the backend, want %s; statuses %v", len(bodies), s.want, answers)
	}
	if a := get(t, other, "http://open.test/pub/1.0/other"+canary); a.status != 200 || a.body != "/other"+canary+" " {
		t.Errorf("another client was answered %d, %.200q", a.status, a.body)
	}
	return answers
}

// sendRaw writes bytes to a new plain connection and reads until it ends. It returns the statuses of the final answers, in
// order, and all that came; the error is that of a connection that does not end.
func sendRaw(address, text string) (statuses []int, got string, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, "", err
	}
	return sendOn(c, c, text)
}

// sendOn is sendRaw on a connection that is there, of which from has what comes. It closes it.
func sendOn(c net.Conn, from io.Reader, text string) (statuses []int, got string, err error) {
	defer c.Close()
	// For a test that fails only; every payload makes the gateway close.
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, "", err
	}
	go func() { _, _ = io.WriteString(c, text) }() // the gateway may close before it has it all
	all, err := io.ReadAll(from)
	got = string(all)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, got, err
	}
	for rest := got; strings.HasPrefix(rest, "HTTP/1."); {
		var r reader
		r.Reset(rest)
		res, err := http.ReadResponse(r.buffered(), nil)
		if err != nil {
			break
		}
		if _, err = io.ReadAll(res.Body); err != nil {
			break
		}
		res.Body.Close()
		if res.StatusCode >= 200 {
			statuses = append(statuses, res.StatusCode)
		}
		rest = r.rest()
	}
	return statuses, got, nil
}
