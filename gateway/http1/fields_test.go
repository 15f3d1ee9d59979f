package http1_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway/http1"
)

func TestFields(t *testing.T) {
	var r http1.Request
	head := "GET / HTTP/1.1\r\nhOST: a\r\nA:\r\nA: \t \r\nb:1\r\nB:\t2 3\t\r\n!#$%&'*+-.^_`|~: x\r\nX: a:b: c\r\nX_Y: z\r\nB: \xe9\xff\r\n\r\n"
	if err := r.Parse(head); err != nil {
		t.Fatal(err)
	}
	want := []http1.Field{
		{Name: "hOST", Value: "a"},
		{Name: "A"},
		{Name: "A"},
		{Name: "b", Value: "1"},
		{Name: "B", Value: "2 3"},
		{Name: "!#$%&'*+-.^_`|~", Value: "x"},
		{Name: "X", Value: "a:b: c"},
		{Name: "X_Y", Value: "z"},
		{Name: "B", Value: "\xe9\xff"},
	}
	if diff := cmp.Diff(want, r.Fields); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		name   string
		values []string
	}{
		{"Host", []string{"a"}},
		{"A", []string{"", ""}},
		{"B", []string{"1", "2 3", "\xe9\xff"}},
		{"b", []string{"1", "2 3", "\xe9\xff"}},
		{"X", []string{"a:b: c"}},
		{"x-y", nil},
		{"x_y", []string{"z"}},
		{"!#$%&'*+-.~_`|~", nil}, // ^ and ~ differ by the bit that tells the case of letters
		{"", nil},
		{"Hos", nil},
		{"Hosts", nil},
	} {
		if diff := cmp.Diff(c.values, r.Values(c.name)); diff != "" {
			t.Errorf("%q: %s", c.name, diff)
		}
		first, n := r.First(c.name)
		if n != len(c.values) || n > 0 && first != c.values[0] || n == 0 && first != "" {
			t.Errorf("%q: %q and %d lines, want the first of %q", c.name, first, n, c.values)
		}
	}
}

// TestValuesStay: what Values returned is not touched by the calls that follow it, however many, and a caller that
// appends does not touch them.
func TestValuesStay(t *testing.T) {
	var r http1.Request
	for range 3 {
		if err := r.Parse("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nA: 3\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		a, b := r.Values("A"), r.Values("B")
		_ = append(a, "x")
		for range 100 {
			_ = append(r.Values("Host"), "y", "z")
		}
		if diff := cmp.Diff([][]string{{"1", "3"}, {"2"}}, [][]string{a, b}); diff != "" {
			t.Error(diff)
		}
	}
}

func TestNamed(t *testing.T) {
	var r http1.Request
	if err := r.Parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-A\t,,x-b\r\nconnection:x-c\r\nX-Connection: x-d\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"X-A": true, "x-a": true, "X-B": true, "X-C": true, "Close": true,
		"X-D": false, "X": false, "": false, "X-A,": false, "close, X-A": false, "Connection": false,
	} {
		if r.Named(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
	// None of them is left for the next.
	if err := r.Parse(good()); err != nil || r.Named("X-A") {
		t.Error(err, "a name is left")
	}
}

// TestLists: lists at their bounds are taken, and each option in them counts.
func TestLists(t *testing.T) {
	var r http1.Request
	for _, lines := range [][]string{
		{"Connection: " + strings.Repeat("a,", 31) + "x"},
		append(slices.Repeat([]string{"Connection: a"}, 31), "Connection: x"),
		{"Connection: x," + strings.Repeat("a", 510)},
		{"Connection: x", "Te: " + strings.Repeat("a,", 31) + "b", "Trailer: " + strings.Repeat("a,", 63) + "b"},
	} {
		if err := r.Parse(good(lines...)); err != nil || !r.Named("x") {
			t.Errorf("%.60q: %v, named: %t", lines, err, r.Named("x"))
		}
	}
}

// TestCheckTrailer: a trailer section of HTTP/2 that goes on in HTTP/1.1 has the bounds that one of HTTP/1.1 has.
func TestCheckTrailer(t *testing.T) {
	for _, lines := range [][]http1.Field{
		nil, slices.Repeat([]http1.Field{{Name: "A"}}, 64), slices.Repeat([]http1.Field{{Name: "A"}}, 65),
		{{Name: "A", Value: strings.Repeat("b", 4096-7)}},
		{{Name: "A", Value: strings.Repeat("b", 4096-6)}},
	} {
		var c http1.Chunked
		_, _, done, err := c.Next(http1.AppendLast(nil, lines))
		if got := http1.CheckTrailer(lines, http1.MaxTrailer); (got == nil) != done || (got == nil) != (err == nil) {
			t.Errorf("%d lines of %d bytes: %v, and %v", len(lines), http1.Size(lines), got, err)
		}
	}
}

// TestReset: nothing of a message is left, and a head of many lines leaves no memory either.
func TestReset(t *testing.T) {
	var r http1.Request
	var a http1.Response
	for _, lines := range []int{10, 10_000} {
		if err := r.Parse(good("Connection: close, x", strings.Repeat("A: b\r\n", lines)+"C: d")); err != nil {
			t.Fatal(err)
		}
		if err := a.Parse("HTTP/1.1 200 OK\r\n"+strings.Repeat("A: b\r\n", lines)+"\r\n", "GET"); err != nil {
			t.Fatal(err)
		}
		if len(r.Values("A")) != lines || len(a.Values("A")) != lines {
			t.Fatal("lines are missing")
		}
		r.Reset()
		a.Reset()
		if diff := cmp.Diff(request{}, summary(&r)); diff != "" || r.Named("x") {
			t.Error(diff, "a request is left")
		}
		if diff := cmp.Diff(response{}, summaryOf(&a)); diff != "" {
			t.Error(diff)
		}
		for _, f := range [][]http1.Field{r.Fields, a.Fields} {
			if len(f) != 0 || cap(f) > 128 {
				t.Errorf("room for %d lines is left, %d in use", cap(f), len(f))
			}
			for _, field := range f[:cap(f)] {
				if field != (http1.Field{}) {
					t.Fatalf("%q is left", field)
				}
			}
		}
	}
}
