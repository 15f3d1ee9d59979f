package decision

import (
	"strings"
	"testing"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

// FuzzLocation: a reference is left as it is, or leads below the API's context; what it has become is what it stays, and
// nothing behind the path is touched. What becomes of which is a rule of package gateway's.
func FuzzLocation(f *testing.F) {
	for _, ref := range []string{
		"", "/", "//", "///", "/x?a#b", "x", "../x", "?", "#", "http://b.test:9000/x", "HTTPS://B.test:9000", "//b.test:9000?x", "http://b.test:9000/base/x", "/base", "/base/", "/based",
		"/shop/1.0/x", "/shop/1.0", "http://b.test:9000/shop/1.0/x", "http://b.test:9000@evil.test/", "http://b.test:9000.evil.test/", "http:///x", "http:/x", "http:x//b.test:9000/x",
		`/\evil.test`, `http:\\b.test:9000\x`, "https://shop.test/x", "ftp://b.test:9000/x", "/a//b", "http://[::1]:80/x", "mailto:a@b.test",
	} {
		f.Add(ref, "")
		f.Add(ref, "/base")
	}
	f.Fuzz(func(t *testing.T, ref, base string) {
		if base != "" && (base[0] != '/' || strings.HasSuffix(base, "/") || strings.ContainsAny(base, "?#")) {
			return // no upstream's path
		}
		x := &Exchange{
			Request: &http1.Request{Host: "shop.test"}, Listener: &Listener{}, Route: &Route{},
			Path: "/shop/1.0/items", ResourcePath: "/items",
		}
		s := &backend.Server{Authority: "b.test:9000", Path: base}
		got := x.location(ref, s)
		if again := x.location(got, s); again != got {
			t.Fatalf("%q becomes %q, and that %q", ref, got, again)
		}
		if got == ref {
			return
		}
		path := strings.TrimPrefix(got, "http://shop.test")
		left, below := strings.CutPrefix(path, "/shop/1.0")
		if !below || left != "" && !strings.ContainsAny(left[:1], "/?#") {
			t.Fatalf("%q becomes %q", ref, got)
		}
		if !strings.HasSuffix(ref, left) {
			t.Fatalf("%q becomes %q, which ends differently", ref, got)
		}
	})
}

// TestLocationLeadsNowhereElse: what a server has below its own path does not become another host's where the API has no
// context to put before it.
func TestLocationLeadsNowhereElse(t *testing.T) {
	x := &Exchange{
		Request: &http1.Request{Host: "shop.test"}, Listener: &Listener{}, Route: &Route{}, Path: "/items", ResourcePath: "/items",
	}
	s := &backend.Server{Authority: "b.test:9000", Path: "/base"}
	for _, c := range []struct{ ref, want string }{
		{"/base/x", "/x"},
		{"/base", "/"},
		{"/base//evil.test", "/base//evil.test"},
		{`/base/\evil.test`, `/base/\evil.test`},
		{"/base/\t/evil.test", "/base/\t/evil.test"},
		{"http://b.test:9000/base//evil.test", "http://shop.test//evil.test"},
	} {
		if got := x.location(c.ref, s); got != c.want {
			t.Errorf("%q becomes %q", c.ref, got)
		}
	}
	x.Request.Host = "" // of HTTP/1.0
	if got := x.location("http://b.test:9000/base//evil.test", s); got != "http://b.test:9000/base//evil.test" {
		t.Errorf("without a host it becomes %q", got)
	}
}
