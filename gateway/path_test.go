package gateway_test

import (
	"strings"
	"testing"
)

// TestAmbiguousPaths: no spelling of a protected path is taken for the open resource, and none reaches a backend that
// could read it otherwise. The targets go over the wire as they stand here. Held: security G 98, 101.
func TestAmbiguousPaths(t *testing.T) {
	f := newFixture(t)
	targets := []string{
		"/pay/1.0/open/../secret", "/pay/1.0/open/..%2fsecret", "/pay/1.0/open/%2e%2e/secret", "/pay/1.0/%2e%2e/pay/1.0/secret",
		"/pay/1.0/open/..;/secret", "/pay/1.0/open%2f..%2fsecret", "//pay//1.0//secret", "/pay/1.0/./secret", "/pay/1.0/open/.",
		`/pay\1.0\secret`, `/pay/1.0/open\..\secret`, "/pay/1.0/open%5c..%5csecret", "/pay/1.0/secret%00", "/pay/1.0/open%00/secret",
		"/pay/1.0/open/%252e%252e/secret", "/pay/1.0/open%252fsecret", "/pay/1.0/open/%c0%ae%c0%ae/secret", "/pay/1.0/open/%C0%AFsecret",
		"/pay/1.0/secret;x=/open", "/pay/1.0/secret?x=/open", "/pay/1.0/secret#/open", "/pay/1.0/open#/secret", "/pay/1.0/open;/secret",
		"/pay/1.0/open/", "/pay/1.0/open/secret", "/pay/1.0/open//", "/pay/1.0//open", "/pay/1.0/%6fpen", "/pay/1.0/ope%6E", "/pay/1.0/OPEN",
		"/pay/1.0/open%20", "/pay/1.0/open;x=y", "/pay/1.0/open%3f", "/pay/1.0/open%23", "/pay/1.0/o%zzpen", "/pay/1.0/open%", "/%70ay/1.0/secret",
		"http://opt.test/pay/1.0/open/../secret", "https://opt.test//pay/1.0/secret", "https://opt.test/pay/1.0/secret",
	}
	deny := func(t *testing.T, target string, a answer, before int64) {
		t.Helper()
		if a.status != 400 && a.status != 401 && !(a.status == 404 && !strings.HasPrefix(target, "/pay/")) && !(a.status == 0 && a.proto == 2) {
			t.Errorf("%q: status %d (%q)", target, a.status, a.body)
		}
		if f.backend.calls.Load() != before {
			t.Errorf("%q reached the backend as %q", target, f.backend.last(t).Target)
		}
	}
	for _, target := range targets {
		before := f.backend.calls.Load()
		deny(t, target, f.dial(t, nil, "opt.test").get(t, target, "opt.test"), before)
	}
	h := f.dialHTTP2(t, nil, "opt.test")
	for _, target := range targets {
		if h.goAway {
			h = f.dialHTTP2(t, nil, "opt.test")
		}
		before := f.backend.calls.Load()
		a := h.get(t, target, "opt.test")
		deny(t, target, a, before)
		if a.status == 0 && strings.Contains(a.body, "EOF") {
			h = f.dialHTTP2(t, nil, "opt.test")
		}
	}
	// The open resource itself is open, in its plain form and by its method only.
	if a := f.dial(t, nil, "opt.test").get(t, "/pay/1.0/open?x=../secret", "opt.test"); a.status != 200 {
		t.Errorf("the open resource: status %d", a.status)
	}
	c := f.client(t, nil, via{})
	f.denied(t, 401, "900902", func() answer {
		a, err := do(c, "POST", "https://opt.test/pay/1.0/open", nil)
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
}

// TestPathIsSentAsItWasJudged: the path behind context and version reaches the backend byte for byte, and so does the
// query. Held: security G 98.
func TestPathIsSentAsItWasJudged(t *testing.T) {
	f := newFixture(t)
	rests := []string{
		"/", "/x", "/x/", "/a%20b/c", "/caf%C3%A9", "/caf%c3%a9", "/a;v=1/b,c@d:e", "/100%25", "/a%25zz", "/...", "/.well-known/x", "/~a/_b-c.d",
		"/x?", "/x?a=b", "/x?a?b", "/x?a=%2F&b=../..&c=%00%zz", "/x?;a=b;c", "/x??", "/x?a=b&a=b", "/x?//", "/%E2%82%AC?%E2%82%AC", "/a'b(c)*!$&+=",
		"/%3Fx", "/%23x", "/x?" + strings.Repeat("a=b&", 2000), "/" + strings.Repeat("y", 4000), `/x?q="<>\^` + "`{|}",
	}
	places := map[string]string{"/pay/1.0": "mtls.test", "/pay": "mtls.test", "/pub/1.0": "mtls.test", "https://mtls.test/pay/1.0": "mtls.test"}
	h := f.dialHTTP2(t, f.a4, "mtls.test")
	c := f.dial(t, f.a4, "mtls.test")
	for place, host := range places {
		for _, rest := range rests {
			for _, a := range []answer{c.get(t, place+rest, host), h.get(t, place+rest, host)} {
				if a.proto == 2 && strings.HasPrefix(place, "https:") {
					if a.status == 200 && f.backend.last(t).Target != rest {
						t.Errorf("HTTP/2 %.80q reached the backend as %.80q", place+rest, f.backend.last(t).Target)
					}
					continue // :path is not in absolute form
				}
				if a.status != 200 {
					t.Errorf("HTTP/%d %.80q: status %d (%.200q)", a.proto, place+rest, a.status, a.body)
					continue
				}
				got := f.backend.last(t)
				if line, _, _ := strings.Cut(got.Raw, "\r\n"); line != "GET "+rest+" HTTP/1.1" {
					t.Errorf("HTTP/%d %.80q reached the backend as %.80q", a.proto, place+rest, line)
				}
				path, _, _ := strings.Cut(place+rest, "?")
				if s := f.seen(t, a.id()); s.Path != strings.TrimPrefix(path, "https://mtls.test") {
					t.Errorf("%.80q was judged as %.80q", place+rest, s.Path)
				}
			}
		}
	}
}

// TestPlaces: a context and a version are whole segments, and each spelling has one policy.
// Held: security G 99, 100.
func TestPlaces(t *testing.T) {
	f := newFixture(t)
	for target, want := range map[string]struct {
		status  int // without a certificate
		backend string
	}{
		"/pay/1.0":         {401, "/"},
		"/pay/1.0/":        {401, "/"},
		"/pay/1.0/x":       {401, "/x"},
		"/pay":             {401, "/"},
		"/pay/":            {401, "/"},
		"/pay/x":           {401, "/x"},
		"/pay/2.0":         {401, "/2.0"}, // the default version's resource of that name
		"/pay/1.00":        {401, "/1.00"},
		"/pay/1.0x":        {401, "/1.0x"},
		"/pay/open":        {200, "/open"},
		"/PAY/1.0":         {404, ""},
		"/Pay":             {404, ""},
		"/payx/1.0":        {404, ""},
		"/pa":              {404, ""},
		"/both":            {404, ""}, // no default version
		"/both/":           {404, ""},
		"/both/2.0/x":      {404, ""},
		"/both/1.0x":       {404, ""},
		"/both/1.0":        {401, "/"},
		"/":                {404, ""},
		"/x/pay/1.0":       {404, ""},
		"/pay;x=1/1.0":     {404, ""},
		"/pay/1.0;x=1/a":   {401, "/1.0;x=1/a"},
		"/pub/1.0/pay/1.0": {200, "/pay/1.0"},
	} {
		t.Run(target, func(t *testing.T) {
			code := map[int]string{401: "900902", 404: "404"}[want.status]
			for _, h2 := range []bool{false, true} {
				ask := func(who *party, target string) func() answer {
					if h2 {
						return func() answer { return f.dialHTTP2(t, who, "opt.test").get(t, target, "opt.test") }
					}
					return func() answer { return f.dial(t, who, "opt.test").get(t, target, "opt.test") }
				}
				if want.status == 200 {
					f.allowed(t, ask(nil, target))
				} else {
					f.denied(t, want.status, code, ask(nil, target))
				}
				if want.backend == "" {
					f.denied(t, 404, "404", ask(f.a4, target))
					continue
				}
				if got := f.allowed(t, ask(f.a4, target)); got.Target != want.backend {
					t.Errorf("the backend got %q, want %q", got.Target, want.backend)
				}
			}
		})
	}
}

// TestNotFoundComesFirst: what does not exist is told before a credential is looked at.
func TestNotFoundComesFirst(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.routes[0].Resources = s.routes[0].Resources[:2] })
	for _, who := range []*party{nil, f.a2, f.a1} {
		c := f.client(t, who, via{})
		f.denied(t, 404, "404", func() answer { return get(t, c, "https://opt.test/nothing") })
		f.denied(t, 403, "900906", func() answer { return get(t, c, "https://opt.test/pay/1.0/other") })
		f.denied(t, 403, "900906", func() answer {
			a, err := do(c, "DELETE", "https://opt.test/pay/1.0/open", nil)
			if err != nil {
				t.Fatal(err)
			}
			return a
		})
	}
}

// TestTargetsThatAreNoPaths: authority form, asterisk form and other targets are refused in the gateway's own words.
func TestTargetsThatAreNoPaths(t *testing.T) {
	f := newFixture(t)
	for _, request := range []string{
		"OPTIONS * HTTP/1.1\nHost: opt.test\n\n", "GET * HTTP/1.1\nHost: opt.test\n\n", "CONNECT opt.test:443 HTTP/1.1\nHost: opt.test:443\n\n",
		"GET ftp://opt.test/pub/1.0/x HTTP/1.1\nHost: opt.test\n\n", "GET https://opt.test HTTP/1.1\nHost: opt.test\n\n",
		"CONNECT /pub/1.0/x HTTP/1.1\nHost: opt.test\n\n",
	} {
		method, _, _ := strings.Cut(request, " ")
		t.Run(request, func(t *testing.T) {
			f.denied(t, 400, "400", func() answer {
				c := f.dial(t, nil, "opt.test")
				c.send(t, request)
				return c.receive(t, method)
			})
		})
	}
}
