//go:build !race

package http1_test

import (
	"testing"

	"sallyport/gateway/http1"
)

// TestAlloc: once a connection has carried a call, the next one like it takes no memory here.
func TestAlloc(t *testing.T) {
	head := []byte(typical)
	data := make([]byte, 4096)
	body := http1.AppendLast(http1.AppendChunk(http1.AppendChunk(nil, data), data[:10]), nil)
	out := make([]byte, 0, 2*len(data))
	var (
		r http1.Request
		a http1.Response
		c http1.Chunked
	)
	for _, step := range []struct {
		name string
		do   func() bool
	}{
		{"HeadEnd", func() bool { n, err := http1.HeadEnd(head, 0); return n == len(head) && err == nil }},
		{"Request.Parse", func() bool { return r.Parse(typical) == nil && len(r.Fields) == 12 && r.Length == 1024 }},
		{"Response.Parse", func() bool { return a.Parse(typicalResponse, "GET") == nil && len(a.Fields) == 9 && a.Length == 1024 }},
		{"lookups", func() bool {
			_, n := r.First("x-request-id")
			return r.Parse(typical) == nil && n == 1 && len(r.Values("Authorization")) == 1 && len(r.Values("Host")) == 1 && r.Values("X") == nil &&
				r.Named("keep-alive") && !r.Named("Host") && r.Authority() == r.Host
		}},
		{"Reset and Parse", func() bool {
			r.Reset()
			a.Reset()
			return r.Parse(typical) == nil && a.Parse(typicalResponse, "HEAD") == nil
		}},
		{"Chunked.Next", func() bool {
			c.Reset()
			first, n, done, err := c.Next(body)
			if len(first) != len(data) || done || err != nil {
				return false
			}
			second, m, done, err := c.Next(body[n:])
			return len(second) == 10 && n+m == len(body) && done && err == nil && c.Trailer() == nil
		}},
		{"AppendChunk and AppendLast", func() bool {
			out = http1.AppendLast(http1.AppendChunk(out[:0], data), nil)
			return len(out) > len(data)
		}},
	} {
		n := testing.AllocsPerRun(100, func() {
			if !step.do() {
				t.Fatal(step.name)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations, want 0", step.name, n)
		}
	}
}
