package http1_test

import (
	"errors"
	"strings"
	"testing"

	"sallyport/gateway/http1"
)

// typical is a request of a machine client behind a load balancer: 12 fields, some 600 bytes.
const typical = "POST /orders/1.0.0/items/4711?expand=lines&fields=id,sku HTTP/1.1\r\n" +
	"Host: api.example.test:8243\r\n" +
	"User-Agent: Apache-HttpClient/5.4.1 (Java/21.0.5)\r\n" +
	"Accept: application/json, application/problem+json;q=0.9\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 1024\r\n" +
	"Authorization: Bearer 8f14e45fceea167a5a36dedd4bea2543c9f0f895fb98ab9159f51fd0297e236d\r\n" +
	"X-Request-Id: 7c9e6679-7425-40de-944b-e07fc1f90ae7\r\n" +
	"X-Forwarded-For: 203.0.113.7, 10.0.4.17\r\n" +
	"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
	"Cache-Control: no-cache\r\n" +
	"Connection: keep-alive\r\n\r\n"

const typicalResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: nginx/1.22.1\r\n" +
	"Date: Sun, 22 Nov 2026 10:00:00 GMT\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 1024\r\n" +
	"Connection: keep-alive\r\n" +
	"Vary: Accept-Encoding\r\n" +
	"Cache-Control: no-store\r\n" +
	"Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n" +
	"ETag: \"5f3a-62f1c9b0\"\r\n\r\n"

func TestHeadEnd(t *testing.T) {
	for _, c := range []struct{ name, whole, behind string }{
		{"a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "body"},
		{"no fields", "GET / HTTP/1.1\r\n\r\n", ""},
		{"another behind it", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"},
		{"line ends behind it", "GET / HTTP/1.1\r\n\r\n", "\r\n\r\n\n\n\r"},
		{"what no head may hold, behind it", "GET / HTTP/1.1\r\n\r\n", "\x00\x01\n"},
		{"tabs and high bytes", "GET / HTTP/1.1\r\nA:\tb\t\xff\x80\xa0\r\n\r\n", ""},
		{"typical", typical, "{}"},
		{"a response", typicalResponse, "{}"},
	} {
		b := []byte(c.whole + c.behind)
		for size := range len(b) + 1 {
			want := 0
			if size >= len(c.whole) {
				want = len(c.whole)
			}
			for seen := range min(size+1, len(c.whole)) {
				if n, err := http1.HeadEnd(b[:size], seen); n != want || err != nil {
					t.Fatalf("%s: %d bytes, %d seen: %d, %v; want %d", c.name, size, seen, n, err, want)
				}
			}
		}
	}
	// A caller that counted wrongly gets no panic.
	for _, seen := range []int{-1, 1000} {
		if n, err := http1.HeadEnd([]byte("a\r\n\r"), seen); n != 0 || err != nil {
			t.Errorf("%d seen: %d, %v", seen, n, err)
		}
	}
}

// TestHeadEndRefusesEarly: the broken byte is refused as soon as it is there, wherever the reads were cut.
func TestHeadEndRefusesEarly(t *testing.T) {
	for _, c := range []struct{ good, bad, err string }{
		{"", "\r", "an empty line before the first"},
		{"", "\n", "an empty line before the first"},
		{"", "\x16", "a control character"}, // TLS on a plain port
		{"GET / HTTP/1.1", "\n", "a line feed without carriage return"},
		{"GET / HTTP/1.1\r\nA: b", "\n", "a line feed without carriage return"},
		{"GET / HTTP/1.1\r\n", "\n", "a line feed without carriage return"},
		{"GET / HTTP/1.1\r", " ", "a carriage return without line feed"},
		{"GET / HTTP/1.1\r\nA: b\r", "c", "a carriage return without line feed"},
		{"GET / HTTP/1.1\r\nA: b\r", "\r", "a carriage return without line feed"},
		{"GET / HTTP/1.1\r\nA: b\r\n\r", "\r", "a carriage return without line feed"},
		{"GET / HTTP/1.1\r\nA: b", "\x00", "a control character"},
		{"GET / HTTP/1.1\r\nA: bcdefghijklmnopqrstuvwxyz", "\x0b", "a control character"},
		{"GET / HTTP/1.1\r\nA: b", "\x7f", "a control character"},
		{"GET / HTTP/1.1\r\nA: b\xa0\xff\x80", "\x1f", "a control character"},
	} {
		whole := []byte(c.good + c.bad)
		for seen := range len(c.good) + 1 {
			if n, err := http1.HeadEnd(whole[:len(c.good)], seen); n != 0 || err != nil {
				t.Errorf("%q, %d seen: %d, %v; it is in order so far", c.good, seen, n, err)
			}
			for _, behind := range []string{"", "x", "\r\n\r\n"} {
				n, err := http1.HeadEnd([]byte(string(whole)+behind), seen)
				if n != 0 || err == nil || err.Error() != c.err {
					t.Errorf("%q%q, %d seen: %d, %v; want %s", whole, behind, seen, n, err, c.err)
				}
				var refused *http1.Error
				if !errors.As(err, &refused) || refused.Status != 400 {
					t.Errorf("%q: %v is no 400", whole, err)
				}
			}
		}
	}
}

func TestEmptyLine(t *testing.T) {
	for text, want := range map[string]int{"": 0, "\r\n": 2, "\r\n\r\n": 2, "\r\nGET": 2, "GET": 0, "\n": 0, "\rG": 0, "\r\r\n": 0, " \r\n": 0} {
		if n, more := http1.EmptyLine([]byte(text)); n != want || more {
			t.Errorf("%q: %d, %t", text, n, more)
		}
	}
	if n, more := http1.EmptyLine([]byte("\r")); n != 0 || !more {
		t.Errorf("half of one: %d, %t", n, more)
	}
}

// TestHeadEndEveryByte holds the fast search to the plain rule, at each place of a word.
func TestHeadEndEveryByte(t *testing.T) {
	for c := range 256 {
		want := c >= ' ' && c != 0x7f || c == '\t' || c == '\r'
		for place := 1; place < 20; place++ {
			for _, fill := range []string{"a", "\xff", " ", "~", "\x80"} {
				b := []byte(strings.Repeat(fill, 21))
				b[place] = byte(c)
				if c == '\r' {
					b[place+1] = '\n'
				}
				if n, err := http1.HeadEnd(b, 0); n != 0 || (err == nil) != want {
					t.Fatalf("%#x at %d of %q: %d, %v", c, place, b, n, err)
				}
			}
		}
	}
}

func BenchmarkHeadEnd(b *testing.B) {
	head := []byte(typical)
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		if n, err := http1.HeadEnd(head, 0); n != len(head) || err != nil {
			b.Fatal(n, err)
		}
	}
}
