package decision

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/listenerprofiles"
	"sallyport/policy"
)

// TestFindResource: a literal segment goes before a parameter and a parameter before a "*"; a method that a better
// template lacks falls through to the next; a trailing slash is a segment of its own.
func TestFindResource(t *testing.T) {
	var list []Resource
	for _, line := range strings.Split(strings.TrimSpace(`
/items GET
/items POST
/items/{id} GET,DELETE
/items/new GET
/items/new/draft GET
/items/{id}/parts/{part} GET
/items/{id}/parts/* POST
/items/*
/files/* GET
/files/private/* PUT
/a/{x}/c GET
/a/b/d GET
/dir/ GET
/ GET
/only GET
`), "\n") {
		path, methods, _ := strings.Cut(line, " ")
		r := Resource{Path: path}
		if methods != "" {
			r.Methods = strings.Split(methods, ",")
		}
		list = append(list, r)
	}
	tree, err := newResources(&Route{Resources: list})
	if err != nil {
		t.Fatal(err)
	}
	for call, want := range map[string]string{
		"GET /":                       "/",
		"GET /items":                  "/items",
		"POST /items":                 "/items",
		"PUT /items":                  "/items/*", // "/*" is this place and all below
		"GET /items/":                 "/items/*",
		"GET /items/7":                "/items/{id}",
		"DELETE /items/7":             "/items/{id}",
		"PUT /items/7":                "/items/*",
		"GET /items/new":              "/items/new",
		"DELETE /items/new":           "/items/{id}", // the literal has no DELETE
		"PATCH /items/new":            "/items/*",
		"GET /items/new/draft":        "/items/new/draft",
		"GET /items/new/other":        "/items/*",
		"GET /items/7/parts/1":        "/items/{id}/parts/{part}",
		"POST /items/7/parts/1":       "/items/{id}/parts/*",
		"POST /items/new/parts/1":     "/items/{id}/parts/*", // back out of the literal
		"GET /items/7/parts/1/x":      "/items/*",
		"POST /items/7/parts":         "/items/{id}/parts/*",
		"POST /items/7/parts/1/x":     "/items/{id}/parts/*",
		"GET /files":                  "/files/*",
		"GET /files/":                 "/files/*",
		"GET /files/a/b/c/":           "/files/*",
		"GET /files/private/a":        "/files/*", // no PUT: falls through to what is wider
		"PUT /files/private/a":        "/files/private/*",
		"PUT /files/a":                "",
		"GET /a/b/c":                  "/a/{x}/c",
		"GET /a/b/d":                  "/a/b/d",
		"GET /a/x/d":                  "",
		"GET /a//c":                   "", // an empty segment is no parameter
		"GET /dir":                    "",
		"GET /dir/":                   "/dir/",
		"GET /dir/x":                  "",
		"GET /only":                   "/only",
		"GET /only/":                  "",
		"GET /Only":                   "",
		"HEAD /only":                  "",
		"get /only":                   "",
		"GET /{id}":                   "",
		"GET /items/{id}":             "/items/{id}",
		"GET /items/*":                "/items/{id}",
		"GET /items/%7Bid%7D":         "/items/{id}",
		"GET /nothing":                "",
		"GET /items/" + many("a", 99): "/items/*",
	} {
		method, path, _ := strings.Cut(call, " ")
		got := ""
		if r := tree.find([]byte(path), method); r != nil {
			got = r.Path
		}
		if got != want {
			t.Errorf("%.60s: %q, want %q", call, got, want)
		}
	}
}

func many(segment string, n int) string {
	return strings.TrimSuffix(strings.Repeat(segment+"/", n), "/")
}

// TestResourcesThatMeet: two resources that answer to the same call are refused, and so is a path that is none.
func TestResourcesThatMeet(t *testing.T) {
	for name, c := range map[string]struct {
		list []Resource
		ok   bool
	}{
		"twice":              {[]Resource{{Path: "/a"}, {Path: "/a"}}, false},
		"one method":         {[]Resource{{Path: "/a", Methods: []string{"GET", "PUT"}}, {Path: "/a", Methods: []string{"PUT"}}}, false},
		"every method":       {[]Resource{{Path: "/a", Methods: []string{"GET"}}, {Path: "/a"}}, false},
		"parameter's name":   {[]Resource{{Path: "/{a}"}, {Path: "/{b}"}}, false},
		"star":               {[]Resource{{Path: "/a/*"}, {Path: "/a/*"}}, false},
		"no slash":           {[]Resource{{Path: "a"}}, false},
		"empty":              {[]Resource{{Path: ""}}, false},
		"other methods":      {[]Resource{{Path: "/a", Methods: []string{"GET"}}, {Path: "/a", Methods: []string{"PUT"}}}, true},
		"trailing slash":     {[]Resource{{Path: "/a"}, {Path: "/a/"}}, true},
		"star and literal":   {[]Resource{{Path: "/a/*"}, {Path: "/a"}}, true},
		"parameter and star": {[]Resource{{Path: "/{a}"}, {Path: "/*"}}, true},
	} {
		if _, err := newResources(&Route{Resources: c.list}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFindRoute: the longest context of whole segments, the host and the listener choose the API.
func TestFindRoute(t *testing.T) {
	up := backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "b"}}}
	open := policy.Security{Open: true}
	closed := policy.Security{Certificate: policy.Optional}
	routes := []Route{
		{API: certstore.API{Name: "orders", Version: "1"}, Context: "/orders", DefaultVersion: true, Security: open},
		{API: certstore.API{Name: "orders", Version: "2"}, Context: "/orders", Security: open},
		{API: certstore.API{Name: "deep", Version: "1"}, Context: "/orders/deep", DefaultVersion: true, Security: open},
		{API: certstore.API{Name: "hosted", Version: "1"}, Context: "/orders", Hosts: []string{"a.test"}, Security: open},
		{API: certstore.API{Name: "mtls", Version: "1"}, Context: "/mtls", Security: closed},
		{API: certstore.API{Name: "named", Version: "1"}, Context: "/named", Security: closed, Listeners: []string{"plain"}},
		{API: certstore.API{Name: "inside", Version: "1"}, Context: "/inside", Security: closed, Listeners: []string{"other"}},
		{API: certstore.API{Name: "outside", Version: "1"}, Context: "/inside", Security: closed, Listeners: []string{"tls"}},
	}
	for i := range routes {
		routes[i].Upstream = up
	}
	table, err := NewTable(Settings{}, routes)
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Routes(); len(got) != len(routes) || got[3].API.Name != "hosted" {
		t.Errorf("Routes: %v", got)
	}
	for call, want := range map[string]string{
		"tls x.test /orders":                  "orders:1 ",
		"tls x.test /orders/":                 "orders:1 /",
		"tls x.test /orders/1":                "orders:1 ",
		"tls x.test /orders/1/":               "orders:1 /",
		"tls x.test /orders/1/a/b":            "orders:1 /a/b",
		"tls x.test /orders/2/a":              "orders:2 /a",
		"tls x.test /orders/3/a":              "orders:1 /3/a",
		"tls x.test /orders/1.":               "orders:1 /1.",
		"tls x.test /orders/deep":             "deep:1 ",
		"tls x.test /orders/deep/1/x":         "deep:1 /x",
		"tls x.test /orders/deeper":           "orders:1 /deeper",
		"tls x.test /orders/1/deep":           "orders:1 /deep",
		"tls x.test /ordersx":                 "",
		"tls x.test /Orders":                  "",
		"tls x.test /":                        "",
		"tls x.test /orders;x/1":              "",
		"tls a.test /orders/1/x":              "hosted:1 /x",
		"tls a.test /orders/2/x":              "orders:2 /x",
		"tls a.test /orders":                  "orders:1 ",
		"plain x.test /orders/1/x":            "orders:1 /x",
		"plain x.test /mtls/1":                "",
		"tls x.test /mtls/1":                  "mtls:1 ",
		"tls x.test /named/1":                 "",
		"plain x.test /named/1":               "named:1 ",
		"tls x.test /inside/1/x":              "outside:1 /x",
		"other x.test /inside/1/x":            "inside:1 /x",
		"plain x.test /inside/1/x":            "",
		"tls x.test " + "/" + many("a", 2000): "",
	} {
		words := strings.Fields(call)
		l := &Listener{Name: words[0]}
		if words[0] != "plain" {
			l.Profiles = new(listenerprofiles.Set)
		}
		at, err := table.find(l, words[1], words[2], "GET")
		got := ""
		if at.route != nil {
			got = at.route.API.String() + " " + at.left
		}
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.60s: %q, want %q", call, got, want)
		}
	}
}

// TestRoutesThatMeet: two APIs at the same place are refused unless hosts or listeners part them.
func TestRoutesThatMeet(t *testing.T) {
	up := backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "b"}}}
	a := Route{API: certstore.API{Name: "a", Version: "1"}, Context: "/x", Upstream: up}
	for name, c := range map[string]struct {
		change func(*Route)
		ok     bool
	}{
		"the same":         {func(*Route) {}, false},
		"another version":  {func(r *Route) { r.API.Version = "2" }, true},
		"another context":  {func(r *Route) { r.Context = "/y" }, true},
		"a host":           {func(r *Route) { r.Hosts = []string{"h"} }, true}, // goes before any host
		"a listener":       {func(r *Route) { r.Listeners = []string{"l"} }, false},
		"default at place": {func(r *Route) { r.Context, r.DefaultVersion = "/x/1", true }, false},
	} {
		b := a
		b.API.Name = "b"
		c.change(&b)
		if _, err := NewTable(Settings{}, []Route{a, b}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	h1, h2 := a, a
	h1.Hosts, h2.Hosts = []string{"h", "i"}, []string{"i", "j"}
	h2.API.Name = "b"
	if _, err := NewTable(Settings{}, []Route{h1, h2}); err == nil {
		t.Error("two APIs share a place at one host")
	}
	if _, err := NewTable(Settings{}, []Route{{API: a.API, Context: "/x"}}); err == nil {
		t.Error("an API without an upstream is served")
	}
}

// TestOpenResources names what needs no credential.
func TestOpenResources(t *testing.T) {
	up := backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "b"}}}
	open, closed := policy.Security{Open: true}, policy.Security{Certificate: policy.Optional}
	table, err := NewTable(Settings{}, []Route{
		{API: certstore.API{Name: "a", Version: "1"}, Context: "/a", Security: open, Upstream: up},
		{API: certstore.API{Name: "b", Version: "1"}, Context: "/b", Security: closed, Upstream: up, Resources: []Resource{
			{Path: "/status", Methods: []string{"GET", "HEAD"}, Security: open}, {Path: "/*", Security: closed},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range table.Routes() {
		got = append(got, r.OpenResources()...)
	}
	if want := []string{"any method /*", "GET,HEAD /status"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func upstreamOfTests() backend.Upstream {
	return backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "b"}}}
}

// TestFence: a claim answers where there is no API, takes no call from one, and is no API.
func TestFence(t *testing.T) {
	routes := []Route{
		{API: certstore.API{Name: "a", Version: "1"}, Context: "/a", DefaultVersion: true, Security: policy.Security{Open: true}, Upstream: upstreamOfTests()},
		{API: certstore.API{Name: "b", Version: "1"}, Context: "/b", Security: policy.Security{Open: true}, Upstream: upstreamOfTests()},
	}
	table, err := NewTable(Settings{}, routes)
	if err != nil {
		t.Fatal(err)
	}
	table.Fence([]Claim{
		{API: certstore.API{Name: "a", Version: "1"}, Context: "/a", DefaultVersion: true},
		{API: certstore.API{Name: "x", Version: "9"}, Context: "/a/sub"},
		{API: certstore.API{Name: "b", Version: "2"}, Context: "/b", DefaultVersion: true},
		{API: certstore.API{Name: "c", Version: "1"}, Context: "/c"},
	})
	for path, want := range map[string]Reason{
		"/c/1": APIFenced, "/c/1/x": APIFenced, "/%63/1/x": APIFenced, "/c/1/": APIFenced, "/c": NoSuchAPI, "/c/1x": NoSuchAPI, "/c/2": NoSuchAPI, "/": NoSuchAPI,
		"/b/2/x": APIFenced, "/b/x": APIFenced, "/b/3": APIFenced, "/d": NoSuchAPI,
	} {
		var refusal *Refusal
		if err := table.missing(path); !errors.As(err, &refusal) || refusal.Reason != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	for path, want := range map[string]string{"/a/sub/9/x": "a", "/a/1/x": "a", "/a/x": "a", "/b/1/x": "b"} {
		if at, err := table.find(nil, "", path, "GET"); err != nil || at.route == nil || at.route.API.Name != want {
			t.Errorf("%s: %v %v, want %s", path, at.route, err, want)
		}
	}
	if table.Of(certstore.API{Name: "c", Version: "1"}) != nil || len(table.Routes()) != 2 {
		t.Error("a claim is an API")
	}
}

// TestContests: two routes contest a place exactly if no table has both.
func TestContests(t *testing.T) {
	of := func(name, context string, change func(*Route)) Route {
		r := Route{API: certstore.API{Name: name, Version: "1"}, Context: context, Security: policy.Security{Open: true}, Upstream: upstreamOfTests()}
		if change != nil {
			change(&r)
		}
		return r
	}
	byDefault := func(r *Route) { r.DefaultVersion = true }
	routes := []Route{
		of("a", "/x", nil), of("b", "/x", byDefault), of("c", "/X", nil), of("d", "/X", func(r *Route) { r.IgnoreCase = true }),
		of("e", "/x", func(r *Route) { r.Hosts = []string{"a.test"} }), of("f", "/x", func(r *Route) { r.Listeners = []string{"one"} }),
		of("g", "/x", func(r *Route) { r.Listeners = []string{"two"} }), of("h", "/x/1", byDefault), of("i", "/%78", nil), of("j", "/y", nil),
	}
	some := false
	for i := range routes {
		for j := range routes[:i] {
			_, err := NewTable(Settings{}, []Route{routes[j], routes[i]})
			there, back := routes[i].Contests(&routes[j]), routes[j].Contests(&routes[i])
			if (err != nil) != (there != "") || (there == "") != (back == "") {
				t.Errorf("%s and %s: %v, %q, %q", routes[i].API, routes[j].API, err, there, back)
			}
			some = some || there != ""
		}
	}
	if !some {
		t.Error("nothing is contested")
	}
}
