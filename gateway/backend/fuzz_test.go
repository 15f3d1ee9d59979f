package backend_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

// FuzzReader: however bytes are cut, the events and the data are the same. What net/http's client refuses is refused, and
// what both take is the same body to both. Whole agrees with Next.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		fine, hints + fine, goOn + fine, toX, toX + "abc", ok + "\r\nabc", ok + "Content-Length: 3\r\n\r\nab", chunked + "\r\n3\r\nabc\r\n0\r\n\r\n",
		chunked + "Trailer: X\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nX: y\r\n\r\nmore", chunked + "\r\nx\r\n", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.0 200\r\n\r\nabc", "HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n", strings.Repeat(hints, 16) + fine, "SSH-2.0-x\r\n\r\n",
		"HTTP/1.1 103 x\r\nContent-Length: 3\r\n\r\n" + fine, "HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n" + fine + fine,
		ok + "Content-Length : 3\r\n\r\nabc", "HTTP/1.1 103 x\r\nX \t: y\r\n\r\n" + fine, "HTTP/1.3 200 OK\r\nContent-Length: 3\r\n\r\nabc", ok + ok + "\r\n",
	} {
		f.Add(s, uint8(0), uint8(1))
		f.Add(s, uint8(1), uint8(7))
		f.Add(s, uint8(2), uint8(30))
	}
	f.Fuzz(func(t *testing.T, text string, kind, step uint8) {
		method, upgrade := "GET", ""
		switch kind % 3 {
		case 1:
			method = "HEAD"
		case 2:
			upgrade = "x"
		}
		atOnce := read(t, newReader(method, upgrade), text)
		var cuts []int
		for i := 0; i < len(text); i += 1 + int(step) {
			cuts = append(cuts, i)
		}
		inParts := read(t, newReader(method, upgrade), text, cuts...)
		if !same(atOnce, inParts) {
			t.Fatalf("%q at once: %+v\nin parts: %+v", text, atOnce, inParts)
		}

		r := newReader(method, upgrade)
		used, whole := r.Whole([]byte(text))
		ended := len(atOnce.events) > 0 && atOnce.events[len(atOnce.events)-1] == "end"
		if alone := ended && len(atOnce.events) == 2 && atOnce.left == "" && !strings.HasPrefix(atOnce.events[0], "101 ") && !strings.HasPrefix(text, "HTTP/1.1 100") && !strings.HasPrefix(text, "HTTP/1.0 100"); whole != alone {
			t.Fatalf("%q: whole is %v, and Next finds %+v", text, whole, atOnce)
		}
		behind := text[used:]
		again := read(t, r, behind)
		if whole {
			again.events = append(atOnce.events[:1:1], again.events...)
		}
		if !same(atOnce, again) {
			t.Fatalf("%q after Whole: %+v\nbefore: %+v", text, again, atOnce)
		}
		compare(t, text, method, atOnce, r)
	})
}

// withoutSpaces leaves out spaces before colons in the heads of an answer. It is an exception: to net/http they are a part
// of the name.
func withoutSpaces(text string) string {
	var b strings.Builder
	for interim := true; interim; {
		n, _ := http1.HeadEnd([]byte(text), 0)
		lines := strings.Split(text[:n], "\r\n")
		for i, line := range lines {
			if name, value, ok := strings.Cut(line, ":"); ok && i > 0 {
				lines[i] = strings.TrimRight(name, " \t") + ":" + value
			}
		}
		b.WriteString(strings.Join(lines, "\r\n"))
		interim = text[len("HTTP/1.1 ")] == '1' && text[len("HTTP/1.1 "):len("HTTP/1.1 101")] != "101"
		text = text[n:]
	}
	return b.String() + text
}

// compare holds a reading that came to a head to net/http's.
func compare(t *testing.T, text, method string, ours reading, r *backend.Reader) {
	if !r.Answered() {
		return
	}
	from := bufio.NewReader(strings.NewReader(withoutSpaces(text)))
	var res *http.Response
	var err error
	for {
		// net/http's Transport reads interim answers in this way, too.
		if res, err = http.ReadResponse(from, &http.Request{Method: method}); err != nil {
			t.Fatalf("%q: net/http refuses the head: %v", text, err)
		}
		if res.StatusCode >= 200 || res.StatusCode == 101 {
			break
		}
	}
	if res.StatusCode != r.Response.Status {
		t.Fatalf("%q: the status is %d to net/http, %d to us", text, res.StatusCode, r.Response.Status)
	}
	data, err := io.ReadAll(res.Body)
	ended := r.Over()
	switch {
	case res.StatusCode == 101:
		// An exception: what follows is no HTTP, to net/http it is the body.
	case ours.err != nil:
		// What is refused here may be taken there. It has to be the same up to there.
		if !strings.HasPrefix(string(data), ours.data) && !strings.HasPrefix(ours.data, string(data)) {
			t.Fatalf("%q: the body begins with %q to net/http, %q to us", text, data, ours.data)
		}
	case string(data) != ours.data:
		t.Fatalf("%q: the body is %q to net/http, %q to us", text, data, ours.data)
	case r.Response.Length == http1.UntilClose:
		if r.Closed(io.EOF) != io.EOF || err != nil {
			t.Fatalf("%q ends with %v to net/http", text, err)
		}
	case ended != (err == nil):
		t.Fatalf("%q: over is %v, and net/http says %v", text, ended, err)
	}
}
