package message_test

import (
	"net/url"
	pathpkg "path"
	"strings"
	"testing"

	"sallyport/gateway/message"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct{ target, path, query string }{
		{"/", "/", ""},
		{"/orders/1.0.0/items/7?a=b&c=%2F", "/orders/1.0.0/items/7", "a=b&c=%2F"},
		{"/orders/", "/orders/", ""},
		{"/a%20b/%C3%A9/caf%c3%a9", "/a%20b/%C3%A9/caf%c3%a9", ""},
		{"/a;v=1/b,c@d:e", "/a;v=1/b,c@d:e", ""},
		{"/100%25", "/100%25", ""},
		{"/a%25zz", "/a%25zz", ""},
		{"/...", "/...", ""},
		{"/.well-known/x", "/.well-known/x", ""},
		{"https://api.test/orders?x", "/orders", "x"},
		{"HTTP://api.test/orders", "/orders", ""},
		{"/a?b?c", "/a", "b?c"},
		{"/a?q=\xc3\xa9\xff", "/a", "q=\xc3\xa9\xff"},
		{"/%70ay/a%2Db/a%7Eb", "/%70ay/a%2Db/a%7Eb", ""},
		{"/a%2Fb", "/a%2Fb", ""}, // where it may pass is the table's matter
		{"/a%2500", "/a%2500", ""},
		{"/%E9/%ff", "/%E9/%ff", ""}, // Latin-1
		{"/x[1]|y/\"<>^`{}", "/x[1]|y/\"<>^`{}", ""},
		{"/open/;x", "/open/;x", ""},
		{"/a;/b", "/a;/b", ""},
	} {
		path, query, hasQuery, err := message.ParseTarget(c.target)
		if err != nil || path != c.path || query != c.query || hasQuery != strings.Contains(c.target, "?") {
			t.Errorf("%q: got %q %q %v %v", c.target, path, query, hasQuery, err)
		}
	}
}

// TestParseTargetRefusesAmbiguousPaths holds what could be one path to the policy and another to the backend.
func TestParseTargetRefusesAmbiguousPaths(t *testing.T) {
	for _, target := range []string{
		"", "*", "admin", "orders/1.0.0", "ftp://h/x", "http:/x", "http://h", "http://h?x", "h:443", "//evil/x",
		"/open/../secret", "/open/..", "/./a", "/.", "/..", "/open/..;/secret", "/a/.;x=y/b", "/..;",
		"/open/..%2fsecret", "/open%2f..%2f", "/%2e%2e/", "/.%2e", "/%2E", "/..%3Bx", "/a/%2e%3bx/b", "/a%5cb", `/a\b`, "/a%00", "/a%0d%0aX:y", "/a%7f",
		"/pay//secret", "//pay", "/a//", "/open/;/secret", "/open/%3B/secret", "/open/;x=1/secret", "/a%2F/b", "/%2Fa", "/a%2f%2fb",
		"/%252e%252e/x", "/a%252fb", "/a%255cb", "/a%25%32Fb", "/a%252%46b", "/a%25%35%63",
		"/%c0%ae", "/%c1%9c", "/%e0%80%af", "/%f0%80%80%af", "/%f8%80%80%80%af", "/%fc%80%80%80%80%af",
		"/a%", "/a%2", "/a%zz", "/a%2x",
		"/a b", "/a\tb", "/a\x00", "/é", "/a\xff", "/a\x7f", "/a#b",
		"/a?b#c", "/a?b c", "/a?b\r\n", "/a?\x7f",
		"/" + strings.Repeat("a", message.MaxPath), "/" + strings.Repeat("a/", message.MaxSegments+1),
		strings.Repeat("/..", 100_000),
	} {
		if path, _, _, err := message.ParseTarget(target); err == nil {
			t.Errorf("%.60q is taken for the path %.60q", target, path)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/b?c=d", "/a%20b/..;/", "/%252e", "http://h/x", "/%c0%ae", "/a//b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, query, hasQuery, err := message.ParseTarget(target)
		if err != nil {
			return
		}
		whole := path
		if hasQuery {
			whole += "?" + query
		}
		if !strings.HasSuffix(target, whole) {
			t.Fatalf("%q is not the end of %q", whole, target)
		}
		// The standard library reads it as one path, which says the same before and after cleaning, also once parameters
		// are cut off.
		u, err := url.ParseRequestURI(path)
		if err != nil {
			t.Fatalf("net/url refuses %q: %v", path, err)
		}
		segments := strings.Split(u.Path, "/")
		for i, s := range segments {
			segments[i], _, _ = strings.Cut(s, ";")
		}
		for _, text := range []string{u.Path, strings.Join(segments, "/")} {
			if strings.ContainsAny(text, "\\\x00") || strings.TrimSuffix(pathpkg.Clean(text), "/") != strings.TrimSuffix(text, "/") {
				t.Fatalf("%q may be read as %q", path, pathpkg.Clean(text))
			}
		}
	})
}
