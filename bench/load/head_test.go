package load

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestParseHead(t *testing.T) {
	for text, want := range map[string]*head{
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n":                               {status: 200, length: 7},
		"HTTP/1.1 200\r\ncontent-length:  7 \r\n\r\n":                                {status: 200, length: 7},
		"HTTP/1.1 500 \r\nTransfer-Encoding: Chunked\r\nX: y\r\n\r\n":                {status: 500, length: chunked},
		"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n":          {status: 200, close: true},
		"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n":                               {status: 200, length: 1, close: true},
		"HTTP/1.1 200 OK\r\n\r\n":                                                    {status: 200, length: untilEOF, close: true},
		"HTTP/1.1 204 No Content\r\n\r\n":                                            {status: 204},
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n":                                {status: 103, ignored: true},
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n":          nil,
		"HTTP/1.1 200 OK\r\nContent-Length: +7\r\n\r\n":                              nil,
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n": nil,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n":                nil,
		"HTTP/1.1 200 OK\r\nContent-Length : 7\r\n\r\n":                              nil,
		"HTTP/1.1 200 OK\r\n folded\r\n\r\n":                                         nil,
		"HTTP/1.1 200 OK\r\nnothing\r\n\r\n":                                         nil,
		"HTTP/2.0 200 OK\r\n\r\n":                                                    nil,
		"HTTP/1.1 2x0 OK\r\n\r\n":                                                    nil,
		"HTTP/1.1 2000 OK\r\n\r\n":                                                   nil,
		"HTTP/1.1 099 Low\r\n\r\n":                                                   nil,
		"HTTP/1.1 200 OK\r\n":                                                        nil,
	} {
		got, err := parseHead([]byte(text + "rest"))
		if want == nil {
			if err == nil {
				t.Errorf("%q is taken as %+v", text, got)
			}
			continue
		}
		want.size = len(text)
		if err != nil || got != *want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, *want)
		}
	}
}

// Whatever parseHead accepts, net/http accepts with the same meaning.
func FuzzParseHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n1234567"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHead(b)
		if err != nil {
			return
		}
		if h.size > len(b) || !bytes.HasSuffix(b[:h.size], headEnd) {
			t.Fatalf("size %d", h.size)
		}
		answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
		if err != nil {
			return // net/http is stricter where it doesn't matter here, such as bytes in values
		}
		defer answer.Body.Close()
		if answer.StatusCode != h.status {
			t.Fatalf("status %d, net/http has %d", h.status, answer.StatusCode)
		}
		if strings.HasPrefix(answer.Status, "1") || h.length < 0 || h.status == 204 || h.status == 304 {
			return
		}
		if answer.ContentLength != h.length {
			t.Fatalf("length %d, net/http has %d", h.length, answer.ContentLength)
		}
	})
}
