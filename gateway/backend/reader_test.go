package backend_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

// A reading is all that a Reader has found.
type reading struct {
	events    []string // interim and final heads, and the end
	data      string
	announced []string
	trailers  []http1.Field
	left      string // what was not used
	err       error
}

// read feeds a Reader with pieces of text that end at the cuts. A Reader that says More gets the unused bytes again, and
// further ones behind them, in memory that is overwritten as soon as it may be.
func read(t testing.TB, r *backend.Reader, text string, cuts ...int) (got reading) {
	t.Helper()
	var have []byte
	last := backend.Interim
	if r.Answered() { // by Whole
		last = backend.Head
	}
	for fed := 0; ; {
		found, data, used, err := r.Next(have)
		if used > len(have) || len(data) > used {
			t.Fatalf("%d bytes used of %d, %d of data", used, len(have), len(data))
		}
		got.data += string(data)
		if err != nil {
			if !errors.Is(err, backend.ErrBadAnswer) || found != backend.More {
				t.Fatalf("event %d with %v", found, err)
			}
			got.err = err
			return got
		}
		if found != backend.More && found != backend.Interim && found < last {
			t.Fatalf("event %d after %d", found, last)
		}
		if (len(data) > 0) != (found == backend.Data) || r.Answered() != (max(found, last) > backend.Interim) {
			t.Fatalf("event %d with %q, answered: %v", found, data, r.Answered())
		}
		rest := slices.Clone(have[used:])
		for i := range have {
			have[i] = '!'
		}
		have = rest
		switch found {
		case backend.Interim, backend.Head:
			got.events = append(got.events, fmt.Sprintf("%d %s %q %d %v", r.Response.Status, r.Response.Reason, r.Response.Fields, r.Response.Length, r.Response.Close))
			last = found
		case backend.Data:
			last = found
		case backend.End:
			if !r.Over() {
				t.Fatal("the end, and it is not over")
			}
			got.events = append(got.events, "end")
			got.announced, got.trailers, got.left = r.Announced(), slices.Clone(r.Trailers()), string(have)+text[fed:]
			return got
		case backend.More:
			if fed == len(text) {
				return got
			}
			next := len(text)
			for _, cut := range cuts {
				if cut > fed {
					next = min(next, cut)
				}
			}
			have = append(have, text[fed:next]...)
			fed = next
		}
	}
}

func newReader(method, upgrade string) *backend.Reader {
	r := new(backend.Reader)
	r.Begin(method, upgrade, false)
	return r
}

// everywhere cuts a text behind each byte.
func everywhere(text string) (cuts []int) {
	for i := range text {
		cuts = append(cuts, i)
	}
	return cuts
}

const (
	ok      = "HTTP/1.1 200 OK\r\n"
	hints   = "HTTP/1.1 103 Early Hints\r\n\r\n"
	goOn    = "HTTP/1.1 100 Continue\r\n\r\n"
	chunked = ok + "Transfer-Encoding: chunked\r\n"
	toX     = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
)

// TestReader: the events of an answer come in order, however its bytes are cut, and nothing behind it is used.
func TestReader(t *testing.T) {
	for _, c := range []struct {
		name, method, upgrade, text string
		events                      []string // statuses, and the end
		data                        string
		left                        string
		bad                         bool
	}{
		{"length", "GET", "", ok + "Content-Length: 3\r\n\r\nabcdef", []string{"200", "end"}, "abc", "def", false},
		{"no body", "GET", "", ok + "Content-Length: 0\r\n\r\nabc", []string{"200", "end"}, "", "abc", false},
		{"HEAD", "HEAD", "", ok + "Content-Length: 3\r\n\r\nabc", []string{"200", "end"}, "", "abc", false},
		{"304", "GET", "", "HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\nabc", []string{"304", "end"}, "", "abc", false},
		{"chunks", "GET", "", chunked + "\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nX: y\r\n\r\nf", []string{"200", "end"}, "abcde", "f", false},
		{"interim ones", "GET", "", hints + goOn + "HTTP/1.1 102 x\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", []string{"103", "102", "200", "end"}, "", "", false},
		{"until close", "GET", "", ok + "\r\nabc", []string{"200"}, "abc", "", false},
		{"truncated length", "GET", "", ok + "Content-Length: 3\r\n\r\nab", []string{"200"}, "ab", "", false},
		{"truncated chunk", "GET", "", chunked + "\r\n3\r\nab", []string{"200"}, "ab", "", false},
		{"truncated trailers", "GET", "", chunked + "\r\n3\r\nabc\r\n0\r\nX: y\r\n", []string{"200"}, "abc", "", false},
		{"truncated head", "GET", "", ok + "Content-Length: 3\r\n", nil, "", "", false},
		{"nothing", "GET", "", "", nil, "", "", false},
		{"101 unasked", "GET", "", toX, nil, "", "", true},
		{"101 to another one", "GET", "y", toX, nil, "", "", true},
		{"101 to two", "GET", "x", strings.Replace(toX, "Upgrade: x\r\n", "Upgrade: x\r\nUpgrade: x\r\n", 1), nil, "", "", true},
		{"101 to a list", "GET", "x", strings.Replace(toX, "Upgrade: x\r\n", "Upgrade: x, y\r\n", 1), nil, "", "", true},
		{"101 to nothing", "GET", "x", "HTTP/1.1 101 x\r\n\r\n", nil, "", "", true},
		{"101 with a length", "GET", "x", strings.Replace(toX, "\r\n\r\n", "\r\nContent-Length: 1\r\n\r\na", 1), []string{"101", "end"}, "", "a", false},
		{"103 with a length", "GET", "", "HTTP/1.1 103 x\r\nContent-Length: 3\r\n\r\n" + ok + "Content-Length: 1\r\n\r\na", []string{"103", "200", "end"}, "a", "", false},
		{"103 and its body", "GET", "", "HTTP/1.1 103 x\r\nContent-Length: 3\r\n\r\nabc" + ok + "\r\n", []string{"103"}, "", "", true},
		{"spaces before colons", "GET", "", ok + "Content-Length : 3\r\nX\t: y\r\n\r\nabc", []string{"200", "end"}, "abc", "", false},
		{"101 asked for", "GET", "X", hints + toX + "abc", []string{"103", "101", "end"}, "", "abc", false},
		{"no switch although asked for", "GET", "x", ok + "Content-Length: 1\r\n\r\na", []string{"200", "end"}, "a", "", false},
		{"a bad chunk behind a good one", "GET", "", chunked + "\r\n3\r\nabc\r\nx\r\n", []string{"200"}, "abc", "", true},
		{"a bad head behind a good one", "GET", "", hints + "HTTP/1.1 x\r\n\r\n", []string{"103"}, "", "", true},
		{"a head with a bare LF", "GET", "", "HTTP/1.1 200 OK\n\n", nil, "", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, cuts := range [][]int{nil, everywhere(c.text)} {
				got := read(t, newReader(c.method, c.upgrade), c.text, cuts...)
				var events []string
				for _, e := range got.events {
					status, _, _ := strings.Cut(e, " ")
					events = append(events, status)
				}
				if !slices.Equal(events, c.events) || got.data != c.data || got.left != c.left || (got.err != nil) != c.bad {
					t.Errorf("%d cuts: got %+v", len(cuts), got)
				}
			}
		})
	}
}

// TestReaderBounds: as much as is allowed is read, and not a byte more, however the bytes are cut.
func TestReaderBounds(t *testing.T) {
	head := func(n int) string {
		const text = ok + "Content-Length: 0\r\nX: \r\n\r\n"
		return strings.Replace(text, "X: ", "X: "+strings.Repeat("x", n-len(text)), 1)
	}
	early := strings.Replace(head(backend.MaxHead+1), "200 OK", "103 OK", 1)
	for _, c := range []struct {
		name, text string
		passes     bool
	}{
		{"a head of MaxHead", head(backend.MaxHead), true},
		{"a longer head", head(backend.MaxHead + 1), false},
		{"a much longer head", head(3 * backend.MaxHead), false},
		{"an interim head that is longer", early + fine, false},
		{"as many heads", strings.Repeat(hints, backend.MaxHeads-1) + fine, true},
		{"more heads", strings.Repeat(hints, backend.MaxHeads) + fine, false},
		{"more of those that say go on", strings.Repeat(goOn, backend.MaxHeads) + fine, false},
		{"interim heads that are longer together", strings.Repeat(strings.Replace(head(backend.MaxHead/2), "200 OK", "103 OK", 1), 3) + fine, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, cuts := range [][]int{nil, {backend.MaxHead - 1, backend.MaxHead}, {backend.MaxHead}, {backend.MaxHead + 1}, {1, 2, 3, 100, 70_000}} {
				if got := read(t, newReader("GET", ""), c.text, cuts...); (got.err == nil) != c.passes {
					t.Errorf("cut at %d: got %d events, %v", cuts, len(got.events), got.err)
				}
			}
			r := newReader("GET", "")
			if used, whole := r.Whole([]byte(c.text)); whole && !c.passes {
				t.Errorf("it is whole, with a head of %d bytes", used)
			}
		})
	}
}

// TestReaderCompacts: the data of all chunks is one part of what the Reader was fed, from its first byte of data on.
func TestReaderCompacts(t *testing.T) {
	r := newReader("GET", "")
	text := []byte(chunked + "\r\n3\r\nabc\r\n000002;ext=\"x\"\r\nde\r\n1\r\nf\r\n0\r\n\r\nrest")
	_, _, used, _ := r.Next(text)
	p := text[used:]
	found, data, used, err := r.Next(p)
	if found != backend.Data || string(data) != "abcdef" || string(p[used:]) != "rest" || err != nil || !r.Over() {
		t.Fatalf("event %d with %q, %q left, %v", found, data, p[used:], err)
	}
	if &data[0] != &p[len("3\r\n")] {
		t.Error("the data was moved elsewhere")
	}
	if found, data, used, err = r.Next(p[used:]); found != backend.End || len(data)+used > 0 || err != nil {
		t.Errorf("then event %d, %v", found, err)
	}
}

// TestReaderClosed: the end of a connection ends an answer that has no other end, and no other one.
func TestReaderClosed(t *testing.T) {
	reset := errors.New("reset")
	for _, c := range []struct {
		name, text string
		with, want error
	}{
		{"until close", ok + "\r\nabc", io.EOF, io.EOF},
		{"until close, empty", ok + "\r\n", io.EOF, io.EOF},
		{"until a reset", ok + "\r\nabc", reset, reset},
		{"in the length", ok + "Content-Length: 4\r\n\r\nabc", io.EOF, nil},
		{"in chunks", chunked + "\r\n3\r\nabc\r\n", io.EOF, nil},
		{"in the head", ok, io.EOF, nil},
		{"before it", "", io.EOF, nil},
		{"behind it", fine, reset, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReader("GET", "")
			read(t, r, c.text)
			err := r.Closed(c.with)
			switch {
			case c.want == io.EOF && (err != io.EOF || !r.Over()):
				t.Errorf("got %v", err)
			case c.want != io.EOF && (err == io.EOF || !errors.Is(err, c.with) || errors.Is(err, backend.ErrBadAnswer)):
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestReaderWhole: what Whole takes is what Next would read, and what it does not take leaves the Reader as it was.
func TestReaderWhole(t *testing.T) {
	for _, c := range []struct {
		name, text string
		whole      bool
	}{
		{"length", fine, true},
		{"no body", ok + "Content-Length: 0\r\n\r\n", true},
		{"chunks", chunked + "\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nX: y\r\n\r\n", true},
		{"304", "HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n", true},
		{"less", fine[:len(fine)-1], false},
		{"more", fine + "x", false},
		{"more than chunks", chunked + "\r\n0\r\n\r\nx", false},
		{"less than chunks", chunked + "\r\n0\r\n\r", false},
		{"a bad chunk", chunked + "\r\nx\r\n", false},
		{"half a head", ok, false},
		{"a bad head", "HTTP/1.1 x\r\n\r\n", false},
		{"nothing", "", false},
		{"until close", ok + "\r\nabc", false},
		{"an interim one", hints, false},
		{"an interim one before it", hints + fine, false},
		{"a switch", toX, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := read(t, newReader("GET", ""), c.text)
			r := newReader("GET", "")
			p := []byte(c.text)
			used, whole := r.Whole(p)
			if whole != c.whole || !whole && (used != 0 || r.Answered() || r.Over()) {
				t.Fatalf("%v, %d used, answered: %v", whole, used, r.Answered())
			}
			if string(p) != c.text {
				t.Errorf("the bytes are %q now", p)
			}
			if !whole {
				if got := read(t, r, c.text); !same(got, want) {
					t.Errorf("afterwards %+v, want %+v", got, want)
				}
				return
			}
			got := read(t, r, c.text[used:])
			if want.events = want.events[1:]; !same(got, want) {
				t.Errorf("behind the head %+v, want %+v", got, want)
			}
			if _, again := r.Whole([]byte(c.text)); again {
				t.Error("there is another answer")
			}
		})
	}
}

func same(a, b reading) bool {
	return slices.Equal(a.events, b.events) && a.data == b.data && a.left == b.left && (a.err == nil) == (b.err == nil) &&
		slices.Equal(a.announced, b.announced) && slices.Equal(a.trailers, b.trailers)
}

// TestReaderLasts: strings of a head that lasts outlive the next answer.
func TestReaderLasts(t *testing.T) {
	r := new(backend.Reader)
	r.Begin("GET", "", true)
	read(t, r, ok+"X: first\r\nContent-Length: 0\r\n\r\n")
	first := r.Response.Values("X")[0]
	r.Begin("GET", "", true)
	read(t, r, ok+"X: other\r\nContent-Length: 0\r\n\r\n")
	if first != "first" {
		t.Errorf("it is %q now", first)
	}
}
