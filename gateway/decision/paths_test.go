package decision

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/message"
	"sallyport/policy"
)

var (
	isOpen    = policy.Security{Open: true}
	protected = policy.Security{Certificate: policy.Optional}
)

// tableOf returns a table of one API at /api, which is not put into force. Of a template, "open" and "closed" behind it
// say what it asks for; anything else is a scope.
func tableOf(change func(*Route), templates ...string) (*Table, error) {
	r := Route{
		API: certstore.API{Name: "api", Version: "1"}, Context: "/api", DefaultVersion: true, Security: protected,
		Upstream: backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "b"}}},
	}
	for _, line := range templates {
		i := strings.LastIndexByte(line, ' ')
		res := Resource{Path: line[:i], Security: protected}
		switch rule := line[i+1:]; rule {
		case "open":
			res.Security = isOpen
		case "closed":
		default:
			res.Scopes = []string{rule}
		}
		r.Resources = append(r.Resources, res)
	}
	if change != nil {
		change(&r)
	}
	return NewTable(Settings{}, []Route{r})
}

// judge says where a target leads: a template and what is left of the path, or why it is refused.
func (t *Table) judge(target string) string {
	path, _, _, err := message.ParseTarget(target)
	if err != nil {
		return "bad_request"
	}
	at, err := t.find(nil, "", path, "GET")
	var r *Refusal
	switch {
	case errors.As(err, &r):
		return r.Reason.String()
	case at.route == nil:
		return "no_such_api"
	case at.resource == nil:
		return "no_such_resource"
	}
	return at.resource.Path + " " + at.left
}

func TestPathsMeanWhatTheySay(t *testing.T) {
	ignore := func(r *Route) { r.IgnoreCase = true }
	pass := func(r *Route) { r.EncodedSlash = true }
	all := []string{"/* closed"}
	mixed := []string{"/secret closed", "/secret:export closed", "/café closed", "/status open", "/dir/ closed", "/users/{id} closed", "/a/b read", "/* open"}
	for _, c := range []struct {
		change    func(*Route)
		templates []string
		path      string
		want      string
	}{
		// Where there is nothing to mistake, everything passes that a server may have to understand.
		{nil, all, "/api/Orders(1)", "/* /Orders(1)"},
		{nil, all, "/api/users('a@b')", "/* /users('a@b')"},
		{nil, all, "/api/cars;color=red", "/* /cars;color=red"},
		{nil, all, "/api/cars;color=red/wheels", "/* /cars;color=red/wheels"},
		{nil, all, "/api/100%25", "/* /100%25"},
		{nil, all, "/api/%24metadata", "/* /%24metadata"},
		{nil, all, "/api/a:b@c,d", "/* /a:b@c,d"},
		{nil, all, "/api/items/7/", "/* /items/7/"},
		{nil, all, "/api/a%20b", "/* /a%20b"},
		{nil, all, "/api/%C3%A9", "/* /%C3%A9"},
		{nil, all, "/api/%7Eme", "/* /%7Eme"},
		{nil, all, "/api/x[1]|y", "/* /x[1]|y"},
		{nil, all, "/api/open/;/secret", "bad_request"},
		{nil, all, "/api/open/%3B/secret", "bad_request"},
		{nil, all, "/%61pi/1/x", "/* /x"},
		{nil, all, "/api/%31/x", "/* /x"},
		{nil, all, "/api/x%2Fy", "bad_request"},
		{pass, all, "/api/x%2Fy", "/* /x%2Fy"},
		{pass, all, "/api/x%2F..%2fy", "bad_request"},
		{pass, all, "/api%2Fx", "bad_request"}, // no API there allows it

		{nil, mixed, "/api/secret", "/secret /secret"},
		{nil, mixed, "/api/%73ecret", "ambiguous_path"}, // a server that undoes no escapes sees /*
		{nil, mixed, "/api/secret%3Aexport", "ambiguous_path"},
		{nil, mixed, "/api/secret:export", "/secret:export /secret:export"},
		{nil, mixed, "/api/secret;x", "ambiguous_path"},
		{nil, mixed, "/api/secret%3Bx", "ambiguous_path"},
		{nil, mixed, "/api/secret/", "ambiguous_path"},
		{nil, mixed, "/api/secret/;x", "ambiguous_path"},
		{nil, mixed, "/api/secret;x/", "ambiguous_path"},
		{nil, []string{"/status open", "/* closed"}, "/api/%73tatus", "ambiguous_path"}, // open in protected, too
		{nil, mixed, "/api/caf%C3%A9", "/café /caf%C3%A9"},
		{nil, mixed, "/api/caf%c3%a9", "/café /caf%c3%a9"},
		{nil, mixed, "/api/c%61f%C3%A9", "ambiguous_path"},
		{nil, mixed, "/api/caf%E9", "/* /caf%E9"},
		{nil, mixed, "/api/dir", "ambiguous_path"},
		{nil, mixed, "/api/dir/", "/dir/ /dir/"},
		{nil, mixed, "/api/users/7", "/users/{id} /users/7"},
		{nil, mixed, "/api/users/7%40b;v=1", "/users/{id} /users/7%40b;v=1"},
		{nil, mixed, "/api/users/7/", "ambiguous_path"},
		{nil, mixed, "/api/users;x/7", "ambiguous_path"},
		{nil, mixed, "/api/a;x/b", "ambiguous_path"}, // another scope
		{nil, mixed, "/api/A/b", "/* /A/b"},
		{nil, mixed, "/api/other%20one;x/", "/* /other%20one;x/"},
		{nil, mixed, "https://h/api/secret;x", "ambiguous_path"},
		{nil, mixed, "/api;x/secret", "no_such_api"},
		{nil, []string{"/secret closed"}, "/api/secret/", "no_such_resource"},
		{nil, []string{"/secret closed"}, "/api/%73ecret", "/secret /%73ecret"},

		{pass, []string{"/a/b closed", "/* open"}, "/api/a%2Fb", "ambiguous_path"},
		{pass, []string{"/a/b closed", "/* open"}, "/api/c%2Fb", "/* /c%2Fb"},
		{pass, []string{"/a/{x} closed", "/* open"}, "/api/a/b%2Fc", "ambiguous_path"},

		{ignore, []string{"/Secret closed", "/* open"}, "/API/SECRET", "/Secret /SECRET"},
		{ignore, []string{"/Secret closed", "/* open"}, "/api/s%65cret", "ambiguous_path"},
		{ignore, []string{"/Secret closed", "/* open"}, "/api/%C5%BFecret", "ambiguous_path"},
		{ignore, []string{"/kelvin closed", "/* open"}, "/api/%e2%84%aaelvin", "ambiguous_path"},
		{ignore, []string{"/kelvin closed", "/* open"}, "/api/%e2%84%abelvin", "/* /%e2%84%abelvin"},
	} {
		table, err := tableOf(c.change, c.templates...)
		if err != nil {
			t.Fatal(err)
		}
		if got := table.judge(c.path); got != c.want {
			t.Errorf("%s among %s: %s, want %s", c.path, c.templates, got, c.want)
		}
	}
}

// What no path can reach is an error, and so is what answers at the place of another once case is ignored.
func TestResourcesOutOfReach(t *testing.T) {
	ignore := func(r *Route) { r.IgnoreCase = true }
	for _, c := range []struct {
		change    func(*Route)
		templates string
		want      string // "" if it is good
	}{
		{nil, "/a/ closed,/a open", "no path can reach the resource /a/"},
		{nil, "/a/ closed,/a closed", ""},
		{nil, "/a/ closed", ""},
		{nil, "/a;x=1 closed,/a open", "no path can reach the resource /a;x=1"},
		{nil, "/a;x=1 closed,/b open", ""},
		{nil, "/a%2Fb closed", "no path can reach the resource /a%2Fb"},
		{nil, "/a%3Ab closed,/* open", ""}, // it is written in an escaped form, and called in the plain one
		{nil, "/.. closed", "no path can reach the resource /.."},
		{nil, "/a/{any}/* closed,/a/* open,/{any}/anyy/* closed", ""},
		{nil, "/A closed,/a open", ""},
		{ignore, "/A closed,/a open", "answer to the same calls"},
	} {
		_, err := tableOf(c.change, strings.Split(c.templates, ",")...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.templates, err, c.want)
		}
	}
	up := backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "b"}}}
	exact := Route{API: certstore.API{Name: "a", Version: "1"}, Context: "/Orders", Upstream: up}
	folded := Route{API: certstore.API{Name: "b", Version: "1"}, Context: "/orders", Upstream: up, IgnoreCase: true}
	if _, err := NewTable(Settings{}, []Route{exact, folded}); err == nil {
		t.Error("two contexts that differ by case alone were accepted, though case is ignored")
	}
	folded.IgnoreCase = false
	if _, err := NewTable(Settings{}, []Route{exact, folded}); err != nil {
		t.Error(err)
	}
}

// A path that a server may read as another API's is refused.
func TestReadingsOfContexts(t *testing.T) {
	up := backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "b"}}}
	table, err := NewTable(Settings{}, []Route{
		{API: certstore.API{Name: "wide", Version: "1"}, Context: "/w", DefaultVersion: true, Security: isOpen, Upstream: up},
		{API: certstore.API{Name: "deep", Version: "1"}, Context: "/w/deep", DefaultVersion: true, Security: protected, Upstream: up},
		{API: certstore.API{Name: "wide", Version: "2"}, Context: "/w", Security: protected, Upstream: up},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/w/deep/x": "/* /x", "/w/deep;a/x": "ambiguous_path", "/w/d%65ep/x": "ambiguous_path", "/w/2;a/x": "ambiguous_path",
		"/w/%32/x": "ambiguous_path", "/w/1;a/x": "/* /1;a/x", "/w/deeper;a/x": "/* /deeper;a/x", "/w/deep/": "/* /", "/w/deep": "/* ",
	} {
		if got := table.judge(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// The reading of an ordinary path is worked out without an object.
func TestAllocPaths(t *testing.T) {
	table, err := tableOf(nil, "/items/{id} closed", "/* open")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/1/items/7", "/api/1/x%20y", "/api/1/x;v=1/"} {
		if n := testing.AllocsPerRun(100, func() {
			if at, err := table.find(nil, "", path, "GET"); err != nil || at.resource == nil {
				panic(fmt.Sprint(at, err))
			}
		}); n > 0 {
			t.Errorf("%s: %v objects", path, n)
		}
	}
}
