package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/http/httpguts"

	"sallyport/gateway/http1"
)

const next = "GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n"

// requests are seeds: what smugglers send (the table of refusals), what they nearly send, and what is in order, each with
// another request behind it.
func requests() []string {
	list := []string{typical + strings.Repeat("x", 1024), typicalResponse}
	for _, r := range refused {
		list = append(list, r.head+next, strings.Replace(r.head, "a.test\r\n", "a.test\r\nConnection: close\r\n", 1)+"3\r\nabc\r\n0\r\n\r\n"+next)
	}
	const te = "Transfer-Encoding: chunked"
	for _, body := range chunkedBodies() {
		list = append(list, good(te)+body+next)
	}
	for _, head := range []string{
		good("Content-Length: 3"), good("content-length:\t3 "), good("Content-Length: 0"), good("Content-Length: 1000"), good(te, "Trailer: A, b"), good("TRANSFER-ENCODING: CHUNKED", "Connection: close"),
		good(te, "Expect: 100-continue"), good("Expect: 100-CONTINUE", "Content-Length: 3"), "\r\n" + good(te), "\r\n\r\n" + good(te), "\n" + good(te), strings.Replace(good(te), "HTTP/1.1", "HTTP/1.2", 1), strings.Replace(good("Connection: keep-alive"), "HTTP/1.1", "HTTP/1.9", 1), good("Transfer_Encoding: chunked"), good("Content_Length: 3"), good("Pragma: no-cache"),
		"POST / HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", "GET http://b.test:80/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "GET http://[::1]/ HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n", host("[::ffff:1.2.3.4]:80"), host("a:"),
	} {
		list = append(list, head+"abc"+next, head+"3\r\nabc\r\n0\r\nA: b\r\n\r\n"+next)
	}
	return list
}

func chunkedBodies() []string {
	return []string{
		"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "3;a=b\r\nabc\r\n0;c\r\n\r\n", "0003\r\nabc\r\n000\r\n\r\n", "A\r\n0123456789\r\n0\r\nA: b\r\nc:\r\nA: d\r\n\r\n", "3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
		"3\nabc\r\n0\r\n\r\n", "3\r\nabc\n0\r\n\r\n", "3\r\nabc\r\n0\n\r\n", "3\rabc\r\n0\r\n\r\n", "3;\nabc\r\n0\r\n\r\n", "3;a=\rb\r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", " 3\r\nabc\r\n0\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n",
		"-1\r\nabc\r\n0\r\n\r\n", "+3\r\nabc\r\n0\r\n\r\n", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "10000000000000003\r\nabc\r\n0\r\n\r\n", "4000000000000000\r\nabc", "fffffffffffffff\r\nabc", "3\r\nabc0\r\n\r\n",
		"3\r\nabcdef\r\n0\r\n\r\n", "5\r\nabc\r\n0\r\n\r\n", "\r\nabc\r\n0\r\n\r\n", ";x=y\r\nabc\r\n0\r\n\r\n", "3;" + strings.Repeat("x", 1023) + "\r\nabc\r\n0\r\n\r\n", "3;" + strings.Repeat("x", 5000) + "\r\nabc\r\n0\r\n\r\n",
		strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 20) + "0\r\n\r\n", strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 16) + "0\r\n\r\n",
		"0\r\nno colon\r\n\r\n", "0\r\n: x\r\n\r\n", "0\r\nA : b\r\n\r\n", "0\r\nA: b\r\n c\r\n\r\n", "0\r\n A: b\r\n\r\n", "0\r\nA: b\x00\r\n\r\n", "0\r\nA: b\n\r\n", "0\r\nA: b\r\n\n", "0\r\nA: b\r\nb: c", "0\r\n\r",
		"0\r\nA: " + strings.Repeat("b", 4096-7) + "\r\n\r\n", "0\r\nA: " + strings.Repeat("b", 4096) + "\r\n\r\n",
	}
}

func responses() []string {
	list := []string{typicalResponse + "{}"}
	for _, first := range []string{"HTTP/1.1 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 100 Continue", "HTTP/1.1 101 Switching Protocols", "HTTP/1.1 103 Early Hints", "HTTP/1.3 200 OK", "HTTP/1.0 200", "HTTP/1.1 200 ", "HTTP/1.1 999 \xff"} {
		for _, lines := range []string{
			"", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Connection: keep-alive\r\nContent-Length: 3\r\n", "Content-Length: 3\r\nContent-Length: 3\r\n", "Content-Length: 3\r\nContent-Length: 4\r\n",
			"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Content-Length : 3\r\n", "Transfer-Encoding \t: chunked\r\nX  : y : z\r\n", "Content-Length : 3\r\nContent-Length: 3\r\n", "X: y\r\n z\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\nTrailer: A\r\n", "no colon\r\n",
		} {
			list = append(list, first+"\r\n"+lines+"\r\nabc", first+"\r\n"+lines+"\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"+typicalResponse)
		}
	}
	for _, first := range []string{"HTTP/2.0 200 OK", "HTTP/1.2 200 OK", "HTTP/1.1 099 x", "HTTP/1.1  200 OK", "HTTP/1.1 +20 OK", "ICY 200 OK", "HTTP/1.1 200\tOK", "HTTP/1.1 2000 OK", "\r\nHTTP/1.1 200 OK", "HTTP/1.1 200 OK\n"} {
		list = append(list, first+"\r\nContent-Length: 3\r\n\r\nabc")
	}
	return list
}

// FuzzRequestHead: no bytes make a panic, the end of a head is found at the same place however its bytes came, and a head
// that is taken for a request is the one that it says it is.
func FuzzRequestHead(f *testing.F) {
	for _, s := range requests() {
		f.Add([]byte(s))
	}
	var used http1.Request
	f.Fuzz(func(t *testing.T, data []byte) {
		n := sameEnd(t, data)
		var r http1.Request
		err := r.Parse(string(data[:n]))
		again := used.Parse(string(data[:n]))
		if fmt.Sprint(err) != fmt.Sprint(again) {
			t.Fatalf("%v at first, %v with a request that was used", err, again)
		}
		if whole := r.Parse(string(data)); n < len(data) && whole == nil {
			t.Fatal("bytes behind the head are taken for a part of it")
		}
		if err != nil {
			return
		}
		err = r.Parse(string(data[:n]))
		if diff := cmp.Diff(summary(&r), summary(&used)); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		head := fmt.Sprintf("%s %s HTTP/1.%d\r\n", r.Method, r.Target, r.Minor) + lines(t, r.Fields)
		if err := used.Parse(head); err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if diff := cmp.Diff(summary(&r), summary(&used)) + cmp.Diff(r.Fields, used.Fields, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%q is read as another: %s", head, diff)
		}
	})
}

func FuzzResponseHead(f *testing.F) {
	for _, s := range responses() {
		f.Add([]byte(s), "GET")
		f.Add([]byte(s), "HEAD")
	}
	var used http1.Response
	f.Fuzz(func(t *testing.T, data []byte, method string) {
		n := sameEnd(t, data)
		var r http1.Response
		err := r.Parse(string(data[:n]), method)
		again := used.Parse(string(data[:n]), method)
		if fmt.Sprint(err) != fmt.Sprint(again) {
			t.Fatalf("%v at first, %v with a response that was used", err, again)
		}
		if err != nil {
			return
		}
		if diff := cmp.Diff(summaryOf(&r), summaryOf(&used)); diff != "" {
			t.Fatal(diff)
		}
		head := fmt.Sprintf("HTTP/1.%d %d %s\r\n", r.Minor, r.Status, r.Reason) + lines(t, r.Fields)
		if err := used.Parse(head, method); err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if diff := cmp.Diff(summaryOf(&r), summaryOf(&used)) + cmp.Diff(r.Fields, used.Fields, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%q is read as another: %s", head, diff)
		}
	})
}

// sameEnd looks for the end of a head byte by byte and at once.
func sameEnd(t *testing.T, data []byte) int {
	n, err := http1.HeadEnd(data, 0)
	for size := range len(data) + 1 {
		m, e := http1.HeadEnd(data[:size], max(0, size-1))
		if m == 0 && e == nil && size < len(data) {
			continue
		}
		if m != n || fmt.Sprint(e) != fmt.Sprint(err) {
			t.Fatalf("after %d bytes %d, %v; at once %d, %v", size, m, e, n, err)
		}
		break
	}
	return n
}

// lines writes fields as they are written to a peer, and holds that none could be taken for two.
func lines(t *testing.T, fields []http1.Field) string {
	var b strings.Builder
	for _, f := range fields {
		if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) || strings.Trim(f.Value, " \t") != f.Value {
			t.Fatalf("field %q", f)
		}
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	return b.String() + "\r\n"
}

// FuzzChunked: however the bytes of a body came, it is the same one; and what is framed is read as what it was.
func FuzzChunked(f *testing.F) {
	for _, s := range chunkedBodies() {
		f.Add([]byte(s+next), uint16(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint16) {
		whole := decode(data, max(1, len(data)))
		for _, size := range []int{1, int(size)%max(1, len(data)) + 1} {
			if diff := cmp.Diff(whole, decode(data, size)); diff != "" {
				t.Fatalf("by %d bytes: %s", size, diff)
			}
		}
		if whole.Used > len(data) || !whole.Done && whole.Err == "" && whole.Used != len(data) {
			t.Fatalf("%d of %d bytes are used", whole.Used, len(data))
		}
		var body []byte
		for piece := range slices.Chunk(data, int(size)+1) {
			body = http1.AppendChunk(body, piece)
		}
		trailer := whole.Trailer
		if len(http1.AppendLast(nil, trailer)) > len("0\r\n")+4096 {
			trailer = nil // with the spaces that it is written with it is longer than a trailer may be
		}
		body = http1.AppendLast(body, trailer)
		want := decoded{Data: string(data), Used: len(body), Done: true, Trailer: trailer}
		if diff := cmp.Diff(want, decode(append(body, data...), int(size)+1)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// An understanding is what a reader makes of the first message of some bytes.
type understanding struct {
	Method, Target, Host string // of a request
	Status               int    // of a response
	Minor                int
	Close                bool
	Length               int64
	Header               http.Header
	Body                 body
}

// A body is what a reader makes of what follows the head.
type body struct {
	Data     string
	Complete bool
	Refused  bool
	Trailer  http.Header
	Rest     string // what belongs to the next message
}

// FuzzAgainstNetHTTP: whatever net/http refuses is refused, and what both take they understand alike, down to the byte that
// the next request begins with. The exceptions:
//   - An empty line before a request line is left out (RFC 9112 section 2.2). net/http's server does so behind a POST only.
//   - HTTP/1.2 and later are HTTP/1.1 to us (RFC 9110 section 2.5). net/http keeps the number, and acts as we do.
//   - Spaces before a colon in an answer are left out (RFC 9112 section 5.1). To net/http they are a part of the name.
//   - An interim answer that states a body ends its connection, and so does a 204. net/http uses it again.
func FuzzAgainstNetHTTP(f *testing.F) {
	for _, s := range requests() {
		f.Add([]byte(s))
	}
	var r http1.Request
	f.Fuzz(func(t *testing.T, data []byte) {
		againstNetHTTP(t, &r, data)
	})
}

// TestAgainstNetHTTP is the same with requests put together at random from pieces that are right, nearly right and wrong:
// fuzzing seldom gets that far from one request to another.
func TestAgainstNetHTTP(t *testing.T) {
	pick := rand.New(rand.NewPCG(1, 2))
	of := func(pieces ...string) string { return pieces[pick.IntN(len(pieces))] }
	rarely := func(odd ...string) string {
		if pick.IntN(60) > 0 {
			return ""
		}
		return of(odd...)
	}
	space := func() string {
		return rarely(" ", "\t", "\r", "\n", "\x00", "\x0b", "\x7f", "\xa0", ",", ";", "0", "x", "\r\n", "\r\n ")
	}
	end := func() string { return space() + "\r\n" }
	var r http1.Request
	accepted, withBody := 0, 0
	const cases = 30_000
	for range cases {
		var b strings.Builder
		b.WriteString(space() + of("GET", "POST", "POST", "HEAD", "OPTIONS", "CONNECT", "put") + space() + " " + space() +
			of("/", "/a", "/a?b=%", "/a%2fb", "/%", "*", "a:443", "http://b:80/x", "http://b", "https://[::1]?", "http://[::1.2.3.4]/", "http://[1.2.3.4]/", "//", "http:/x") + space() + " " +
			of("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", rarely("HTTP/1.2", "HTTP/2.0")+"HTTP/1.1") + end())
		b.WriteString(of("Host", "host") + space() + ":" + space() + of("a", "a.test:80", "", "[::1]", "[::1]:1", rarely("a,b", "a b", "é", "[]", "a:b:1")) + end())
		for range pick.IntN(5) {
			name := of("Content-Length", "content-length", "Transfer-Encoding", "transfer-encoding", "Connection", "Expect", "Trailer", "Pragma", "Cache-Control", "X", "x", "Upgrade", rarely("Host", "", "X Y", "Content_Length"))
			value := of("3", "0", "chunked", "CHUNKED", "close", "keep-alive", "100-continue", "no-cache", "a, close ,b", "")
			switch strings.ToLower(name) {
			case "content-length":
				value = of("3", "0", "12", rarely("03", "+3", "3,3", "99999999999999999999", "-1"))
			case "transfer-encoding":
				value = of("chunked", "Chunked", rarely("gzip", "chunked, chunked", "identity"))
			}
			b.WriteString(name + space() + ":" + of("", " ", "\t ") + value + space() + of("", " ", "\t") + end())
		}
		b.WriteString(end())
		for range pick.IntN(3) {
			b.WriteString(of("3", "03", "3;a=b") + end() + of("abc", rarely("ab", "abcd")+"abc") + end())
		}
		b.WriteString("0" + end() + of("", "", "A: b"+end(), "A: b"+end()+"a:c"+end()) + end() + next)
		data := []byte(b.String())
		if againstNetHTTP(t, &r, data) {
			if accepted++; r.Length != 0 {
				withBody++
			}
		}
	}
	// Otherwise nothing would be compared.
	if accepted < cases/20 || withBody < cases/100 || accepted > cases/2 {
		t.Errorf("%d requests of %d are accepted, %d of them with a body", accepted, cases, withBody)
	}
}

// againstNetHTTP tells whether the request is accepted.
func againstNetHTTP(t *testing.T, r *http1.Request, data []byte) bool {
	data = behindEmptyLine(data)
	ours := understand(t, r, data)
	if ours == nil {
		return false
	}
	from := bufio.NewReader(bytes.NewReader(data))
	req, err := http.ReadRequest(from)
	if err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	compare(t, *ours, theirs(req, from), true)
	return true
}

// FuzzAgainstServer is the same with net/http's server, which refuses more and understands the rest alike, but doesn't tell
// where the next request begins.
func FuzzAgainstServer(f *testing.F) {
	for _, s := range requests() {
		f.Add([]byte(s))
	}
	server := serveNetHTTP(f)
	var r http1.Request
	f.Fuzz(func(t *testing.T, data []byte) {
		data = behindEmptyLine(data)
		ours := understand(t, &r, data)
		if ours == nil {
			return
		}
		served := server.understand(data)
		if served == nil {
			t.Fatalf("%q: net/http's server refuses it", data)
		}
		compare(t, *ours, *served, false)
	})
}

// behindEmptyLine leaves out an empty line before a request line.
func behindEmptyLine(data []byte) []byte {
	n, _ := http1.EmptyLine(data)
	return data[n:]
}

// withoutSpaces leaves out spaces before the colons of an answer's head.
func withoutSpaces(head []byte) []byte {
	lines := strings.Split(string(head), "\r\n")
	for i, line := range lines {
		if name, value, ok := strings.Cut(line, ":"); ok && i > 0 {
			lines[i] = strings.TrimRight(name, " \t") + ":" + value
		}
	}
	return []byte(strings.Join(lines, "\r\n"))
}

// understand is our way to read the first request of some bytes; nil if it is refused or not whole.
func understand(t *testing.T, r *http1.Request, data []byte) *understanding {
	n, err := http1.HeadEnd(data, 0)
	if n == 0 || err != nil || r.Parse(string(data[:n])) != nil {
		return nil
	}
	if value, n := r.First("Host"); n > 1 || value != r.Host {
		t.Fatalf("Host is %q to us, and there are %d: %q", r.Host, n, value)
	}
	u := understanding{
		Method: r.Method, Target: r.Target, Host: r.Authority(), Minor: r.Minor, Close: r.Close, Length: r.Length,
		Header: headerOf(r.Fields, r.Length), Body: bodyOf(data[n:], r.Length),
	}
	delete(u.Header, "Host")
	return &u
}

// FuzzResponseAgainstNetHTTP is the same for responses.
func FuzzResponseAgainstNetHTTP(f *testing.F) {
	for _, s := range responses() {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	var r http1.Response
	f.Fuzz(func(t *testing.T, data []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		n, err := http1.HeadEnd(data, 0)
		if n == 0 || err != nil || r.Parse(string(data[:n]), method) != nil {
			return
		}
		coded := r.Length
		if _, n := r.First("Transfer-Encoding"); n > 0 {
			coded = http1.InChunks
		}
		ours := understanding{
			Status: r.Status, Minor: r.Minor, Close: r.Close, Length: r.Length,
			Header: headerOf(r.Fields, coded), Body: bodyOf(data[n:], r.Length),
		}

		from := bufio.NewReader(bytes.NewReader(append(withoutSpaces(data[:n]), data[n:]...)))
		res, err := http.ReadResponse(from, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		got := understanding{Status: res.StatusCode, Minor: min(res.ProtoMinor, 1), Close: res.Close, Length: res.ContentLength, Header: res.Header}
		got.Body = readBody(res.Body, &res.Trailer, from)
		switch {
		case method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304:
			got.Length = 0 // it tells what was announced
		case got.Length < 0 && len(res.TransferEncoding) == 0:
			got.Length = http1.UntilClose
		}
		if got.Close {
			delete(ours.Header, "Connection") // it is deleted if it says so
			delete(got.Header, "Connection")
		} else if (r.Status < 200 || r.Status == 204) && r.Close {
			ours.Close = false // net/http would wait for the next answer on this connection; we would rather not
		}
		compare(t, ours, got, true)
	})
}

func compare(t *testing.T, ours, theirs understanding, rest bool) {
	t.Helper()
	a, b := ours.Body, theirs.Body
	ours.Body, theirs.Body = body{}, body{}
	if diff := cmp.Diff(ours, theirs, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("net/http has another understanding: %s", diff)
	}
	switch {
	case a.Refused:
		// Up to there it has to be the same.
		if !strings.HasPrefix(a.Data, b.Data) && !strings.HasPrefix(b.Data, a.Data) {
			t.Fatalf("net/http reads the body %q, we %q", b.Data, a.Data)
		}
	case a.Complete != b.Complete:
		t.Fatalf("the body is complete to us: %t, to net/http: %t", a.Complete, b.Complete)
	case a.Complete:
		if !rest {
			b.Rest = a.Rest
		}
		if diff := cmp.Diff(a, b, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("net/http has another understanding of the body: %s", diff)
		}
	}
}

// bodyOf reads our way the body that data begins with.
func bodyOf(data []byte, length int64) body {
	switch {
	case length == http1.UntilClose:
		return body{Data: string(data), Complete: true}
	case length == http1.InChunks:
		d := decode(data, 1+len(data)%13)
		return body{Data: d.Data, Complete: d.Done, Refused: d.Err != "", Trailer: canonical(d.Trailer), Rest: string(data[d.Used:])}
	case length > int64(len(data)):
		return body{Data: string(data)}
	}
	return body{Data: string(data[:length]), Complete: true, Rest: string(data[length:])}
}

func canonical(fields []http1.Field) http.Header {
	h := http.Header{}
	for _, f := range fields {
		h.Add(f.Name, f.Value)
	}
	return h
}

// headerOf is what net/http's Header holds: no coding and no announced trailers, and a Cache-Control for those who know only Pragma.
func headerOf(fields []http1.Field, length int64) http.Header {
	h := canonical(fields)
	if h.Get("Pragma") == "no-cache" && h["Cache-Control"] == nil {
		h.Set("Cache-Control", "no-cache")
	}
	if length == http1.InChunks {
		h.Del("Transfer-Encoding")
		h.Del("Trailer")
	}
	return h
}

// theirs is what net/http makes of a request.
func theirs(r *http.Request, from io.Reader) understanding {
	u := understanding{Method: r.Method, Target: r.RequestURI, Host: r.Host, Minor: min(r.ProtoMinor, 1), Close: r.Close, Length: r.ContentLength, Header: r.Header}
	u.Body = readBody(r.Body, &r.Trailer, from)
	return u
}

func readBody(b io.Reader, trailer *http.Header, from io.Reader) (got body) {
	data, err := io.ReadAll(b)
	got.Data, got.Complete = string(data), err == nil
	for name, values := range *trailer {
		for _, v := range values {
			if got.Trailer == nil {
				got.Trailer = http.Header{}
			}
			got.Trailer.Add(name, v)
		}
	}
	if from != nil {
		rest, _ := io.ReadAll(from) // from memory
		got.Rest = string(rest)
	}
	return got
}

// A netHTTP is a net/http server that tells how it understands bytes.
type netHTTP struct{ conns chan net.Conn }

type connKey struct{}

func serveNetHTTP(f *testing.F) *netHTTP {
	n := &netHTTP{conns: make(chan net.Conn)}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			c := r.Context().Value(connKey{}).(*memoryConn)
			c.mu.Lock()
			c.handled = true
			c.mu.Unlock()
			u := theirs(r, nil)
			c.result <- &u
		}),
		ConnContext:                  func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:                     log.New(io.Discard, "", 0),
		DisableGeneralOptionsHandler: true,
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(n) })
	f.Cleanup(func() {
		server.Close()
		serving.Wait()
	})
	return n
}

// understand returns nil if the bytes are refused.
func (n *netHTTP) understand(data []byte) *understanding {
	c := &memoryConn{from: bytes.NewReader(data), result: make(chan *understanding, 1)}
	n.conns <- c
	return <-c.result
}

func (n *netHTTP) Accept() (net.Conn, error) {
	if c, ok := <-n.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (n *netHTTP) Close() error { close(n.conns); return nil }

func (n *netHTTP) Addr() net.Addr { return &net.TCPAddr{} }

// A memoryConn is a client that has sent all it had to say. Only the first request on it counts.
type memoryConn struct {
	from *bytes.Reader

	mu      sync.Mutex
	handled bool
	result  chan *understanding
}

func (c *memoryConn) Read(p []byte) (int, error) { return c.from.Read(p) }

func (c *memoryConn) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(p, []byte("HTTP/1.1 100 ")) {
		c.refuse()
	}
	return len(p), nil
}

func (c *memoryConn) Close() error {
	c.refuse()
	return nil
}

// refuse is called when an answer is written or the connection ends: whoever has not been handled by then never will.
func (c *memoryConn) refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.handled {
		c.handled = true
		c.result <- nil
	}
}

func (c *memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }
