package http1_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway/http1"
)

// decoded is what came of a body.
type decoded struct {
	Data    string
	Used    int // bytes
	Done    bool
	Err     string
	Status  int
	Trailer []http1.Field
}

// decode reads a body whose bytes come size by size.
func decode(body []byte, size int) decoded {
	var c http1.Chunked
	var d decoded
	var all []byte
	for end := 0; !d.Done && d.Err == ""; {
		if d.Used == end {
			if end == len(body) {
				break
			}
			end = min(end+size, len(body))
		}
		data, n, done, err := c.Next(body[d.Used:end])
		all = append(all, data...)
		d.Used += n
		d.Done = done
		var e *http1.Error
		switch {
		case errors.As(err, &e):
			d.Err, d.Status = err.Error(), e.Status
		case err != nil || n == 0 && !done:
			panic(fmt.Sprintf("no progress at byte %d: %v", d.Used, err))
		}
	}
	d.Data, d.Trailer = string(all), c.Trailer()
	return d
}

// costly is a chunk that has one byte more around its data than it is worth.
const costly = "1;123456789012345\r\na\r\n"

func TestChunked(t *testing.T) {
	for _, c := range []struct {
		body    string
		data    string
		trailer []http1.Field
	}{
		{"0\r\n\r\n", "", nil},
		{"3\r\nabc\r\n0\r\n\r\n", "abc", nil},
		{"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", nil},
		{"1a\r\nabcdefghijklmnopqrstuvwxyz\r\nA\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", "abcdefghijklmnopqrstuvwxyz0123456789" + strings.Repeat("\r\n", 5), nil},
		{"0000000000000003\r\nabc\r\n0000000000000000\r\n\r\n", "abc", nil},
		{"3;\r\nabc\r\n0;\r\n\r\n", "abc", nil},
		{"3;a=b;c=\"d;\te\";\xff\r\nabc\r\n0;x\r\n\r\n", "abc", nil},
		{"3;" + strings.Repeat("x", 1023) + "\r\nabc\r\n0\r\n\r\n", "abc", nil},
		{"3\r\nabc\r\n0\r\nA: b\r\n\r\n", "abc", []http1.Field{{Name: "A", Value: "b"}}},
		{"0\r\nA:\r\nb: \tc\xff d \r\nA: 2\r\nContent-Length: 5\r\n\r\n", "", []http1.Field{{Name: "A"}, {Name: "b", Value: "c\xff d"}, {Name: "A", Value: "2"}, {Name: "Content-Length", Value: "5"}}},
		{"0\r\nA: " + strings.Repeat("b", 4096-7) + "\r\n\r\n", "", []http1.Field{{Name: "A", Value: strings.Repeat("b", 4096-7)}}},
		// A sender may send byte by byte, and sign each chunk.
		{strings.Repeat("1\r\na\r\n", 10_000) + "0\r\n\r\n", strings.Repeat("a", 10_000), nil},
		{strings.Repeat("20;chunk-signature="+strings.Repeat("f", 58)+"\r\n"+strings.Repeat("a", 32)+"\r\n", 1000) + "0\r\n\r\n", strings.Repeat("a", 32_000), nil},
		{strings.Repeat(costly, 16<<10) + "0\r\n\r\n", strings.Repeat("a", 16<<10), nil},
	} {
		want := decoded{Data: c.data, Used: len(c.body), Done: true, Trailer: c.trailer}
		body := []byte(c.body + "3\r\nGET / HTTP/1.1\r\n\r\n") // what comes behind is left alone
		for _, size := range []int{1, 2, 3, 7, 1000, len(body)} {
			if diff := cmp.Diff(want, decode(body, size)); diff != "" {
				t.Errorf("%.100q by %d: %s", c.body, size, diff)
			}
		}
		for size := range len(c.body) {
			if d := decode(body[:size], 100); d.Done || d.Err != "" || d.Used != size {
				t.Fatalf("%.100q: of %d bytes: %+v", c.body, size, d)
			}
			if size > 2000 {
				break
			}
		}
	}
}

func TestChunkedRefused(t *testing.T) {
	const size, control, lf, cr = "the chunk size is no hexadecimal number", "a control character", "a line feed without carriage return", "a carriage return without line feed"
	for _, c := range []struct {
		body, data string
		used       int // bytes before the one that is refused
		err        string
	}{
		{"3\nabc\r\n0\r\n\r\n", "", 1, size},
		{"3\rabc\r\n0\r\n\r\n", "", 2, cr},
		{"3\r\nabc\n0\r\n\r\n", "abc", 6, "the chunk does not end where its size says"},
		{"3\r\nabc\r0\r\n\r\n", "abc", 7, cr},
		{"3\r\nabc\r\n0\n\r\n", "abc", 9, size},
		{"3\r\nabc\r\n0\r\n\n", "abc", 11, lf},
		{"3\r\nabc\r\n0\r\n\rx", "abc", 12, cr},
		{"3;\nabc\r\n0\r\n\r\n", "", 2, lf},
		{"3;a=b\nabc\r\n0\r\n\r\n", "", 5, lf},
		{"3;a=\rb\r\nabc\r\n0\r\n\r\n", "", 5, cr},
		{"3;\x00\r\nabc\r\n0\r\n\r\n", "", 2, control},
		{"0x3\r\nabc\r\n0\r\n\r\n", "", 1, size},
		{" 3\r\nabc\r\n0\r\n\r\n", "", 0, size},
		{"3 \r\nabc\r\n0\r\n\r\n", "", 1, size},
		{"3 ;a\r\nabc\r\n0\r\n\r\n", "", 1, size},
		{"3\t\r\nabc\r\n0\r\n\r\n", "", 1, size},
		{"-1\r\nabc\r\n0\r\n\r\n", "", 0, size},
		{"+3\r\nabc\r\n0\r\n\r\n", "", 0, size},
		{"1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "", 1, size},
		{"3.0\r\nabc\r\n0\r\n\r\n", "", 1, size},
		{"3\x00\r\nabc\r\n0\r\n\r\n", "", 1, size},
		{"3g\r\nabc\r\n0\r\n\r\n", "", 1, size},
		{"\r\nabc\r\n0\r\n\r\n", "", 0, size},
		{";x=y\r\nabc\r\n0\r\n\r\n", "", 0, size},
		{"3\r\nabc\r\n\r\n0\r\n\r\n", "abc", 8, size},
		{"\uff13\r\nabc\r\n0\r\n\r\n", "", 0, size}, // a full-width 3
		{"00000000000000003\r\nabc\r\n0\r\n\r\n", "", 16, "the chunk size is too big"},
		{"10000000000000003\r\nabc\r\n0\r\n\r\n", "", 15, "the chunk size is too big"},
		{"1000000000000000\r\nabc\r\n0\r\n\r\n", "", 15, "the chunk size is too big"},
		{"ffffffffffffffff\r\nabc\r\n0\r\n\r\n", "", 15, "the chunk size is too big"},
		{"3\r\nabc0\r\n\r\n", "abc", 6, "the chunk does not end where its size says"},
		{"3\r\nabcdef\r\n0\r\n\r\n", "abc", 6, "the chunk does not end where its size says"},
		{"5\r\nabc\r\n0\r\n\r\n", "abc\r\n", 8, "the chunk does not end where its size says"},
		{"3;" + strings.Repeat("x", 1024) + "\r\nabc\r\n0\r\n\r\n", "", 1025, "the chunk extensions are too long"},
		{strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 20), strings.Repeat("a", 16), 16*1007 + 1002, "the chunks have too little data"},
		{strings.Repeat(costly, 16<<10+1), strings.Repeat("a", 16<<10), len(costly)*16<<10 + 17, "the chunks have too little data"},

		{"0\r\nno colon\r\n\r\n", "", 14, "line 1: a space before the colon"},
		{"0\r\nnocolon\r\n\r\n", "", 13, "line 1: no colon"},
		{"0\r\nA: b\r\n: x\r\n\r\n", "", 15, "line 2: no field name"},
		{"0\r\nA: b\r\n c\r\n\r\n", "", 14, "line 2: a line that goes on from the one before"},
		{"0\r\nA : b\r\n\r\n", "", 11, "line 1: a space before the colon"},
		{"0\r\nA: b\x00\r\n\r\n", "", 7, control},
		{"0\r\nA: b\n\r\n", "", 7, lf},
		{"0\r\nA: b\r\n\n", "", 9, lf},
		{"0\r\nA: b\rc\r\n\r\n", "", 8, cr},
		{"0\r\nA: " + strings.Repeat("b", 4096-6) + "\r\n\r\n", "", 4095, "the trailer section is too long"},
		{"0\r\n" + strings.Repeat("A:\r\n", 65) + "\r\n", "", 3 + 4*65 + 1, "too many trailer fields"},
	} {
		want := decoded{Data: c.data, Used: c.used, Err: c.err, Status: 400}
		for _, size := range []int{1, 2, 5, len(c.body)} {
			if diff := cmp.Diff(want, decode([]byte(c.body), size)); diff != "" {
				t.Errorf("%.100q by %d: %s", c.body, size, diff)
			}
		}
	}
}

// TestChunkedStays: the end is the end and an error is an error until Reset.
func TestChunkedStays(t *testing.T) {
	var c http1.Chunked
	for range 2 {
		_, _, _, first := c.Next([]byte("x"))
		if data, n, done, err := c.Next([]byte("3\r\nabc\r\n")); err == nil || err != first || data != nil || n != 0 || done {
			t.Errorf("after an error: %q, %d, %t, %v", data, n, done, err)
		}
		c.Reset()
		_, _, _, _ = c.Next([]byte("0\r\nA: b\r\n\r\n"))
		if data, n, done, err := c.Next([]byte("3\r\nabc\r\n")); data != nil || n != 0 || !done || err != nil {
			t.Errorf("after the end: %q, %d, %t, %v", data, n, done, err)
		}
		if len(c.Trailer()) != 1 {
			t.Errorf("trailer %q", c.Trailer())
		}
		c.Reset()
		if c.Trailer() != nil {
			t.Errorf("trailer %q is left", c.Trailer())
		}
	}
}

func TestAppend(t *testing.T) {
	b := http1.AppendChunk([]byte("head"), []byte("abc"))
	b = http1.AppendChunk(b, nil)
	b = http1.AppendChunk(b, []byte(strings.Repeat("d", 26)))
	b = http1.AppendLast(b, []http1.Field{
		{Name: "A", Value: "b \t\xff"},
		{Name: "B", Value: "c\r\nD: e"},
		{Name: "B", Value: "c\nD: e"},
		{Name: "B", Value: "c\x00"},
		{Name: "B\r\n", Value: "c"},
		{Name: "B:", Value: "c"},
		{Name: "", Value: "c"},
		{Name: "C", Value: ""},
	})
	want := "head3\r\nabc\r\n1a\r\n" + strings.Repeat("d", 26) + "\r\n0\r\nA: b \t\xff\r\nC: \r\n\r\n"
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkChunked reads 64 KiB in chunks of 4 KiB that came in one piece, and frames them.
func BenchmarkChunked(b *testing.B) {
	data := make([]byte, 4096)
	var body []byte
	for range 16 {
		body = http1.AppendChunk(body, data)
	}
	body = http1.AppendLast(body, nil)
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		var c http1.Chunked
		for b.Loop() {
			c.Reset()
			for rest, done := body, false; !done; {
				var n int
				var err error
				if _, n, done, err = c.Next(rest); err != nil {
					b.Fatal(err)
				}
				rest = rest[n:]
			}
		}
	})
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		out := make([]byte, 0, 2*len(data))
		for b.Loop() {
			out = http1.AppendChunk(out[:0], data)
		}
	})
}
