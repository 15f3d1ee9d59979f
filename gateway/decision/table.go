package decision

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/message"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// A Route is an API as the gateway serves it.
type Route struct {
	API            certstore.API
	Context        string   // "/orders": it answers at /orders/VERSION and below
	DefaultVersion bool     // and at /orders and below
	Hosts          []string // normalised; none: any
	Listeners      []string // by name; none: every TLS listener, and those plain ones with a Door, or all if no certificate can be asked for

	Security             policy.Security // of the API; what a resource demands stands with the resource
	KeyManagers          []string        // whose tokens are good; nil: all
	Audiences            []string        // one of which a token has to name; nil: not checked
	ForwardAuthorization bool            // a token that the gateway consumed goes on to the backend

	Resources []Resource       // none: every path and method, under Security
	Limit     ratelimit.Bucket // of the API as a whole; nil: none
	MaxBody   int64            // bytes of a request's body; 0: any number
	Upstream  backend.Upstream

	resources           *resources
	production, sandbox *backend.Group // since Attach; sandbox is nil without SandboxURLs
}

// A Resource is a part of an API with rules of its own.
type Resource struct {
	Path     string   // template: "/items/{id}", "/files/*"
	Methods  []string // none: every method
	Security policy.Security
	Scopes   []string         // one of which a caller has to have; none: not checked
	Limit    ratelimit.Bucket // nil: none
}

// A Verifier checks a raw token: from its cache at once, else by Verify, which may wait. Its errors are
// token.ErrInvalid, token.ErrExpired and token.ErrUnavailable.
type Verifier interface {
	Cached(raw string) (*token.Claims, bool)
	Verify(ctx context.Context, raw string) (*token.Claims, error)
}

// A Table is all routes. It never changes. The zero Table has none.
type Table struct {
	routes   []*Route
	places   map[string][]*Route // "/orders/1.0.0" and "/orders" -> those that answer there
	settings Settings

	certificateHeader string // Plain
}

// Settings are what all routes of a Table have in common.
type Settings struct {
	Tokens             Verifier // nil: no token is good
	CertificateHeader  string   // mutualSSL.clientCertificateHeader: taken off every request
	ForwardCertificate bool     // tell the backend the caller's certificate in that header
}

// NewTable returns the table of these routes. It refuses two routes that answer at the same place.
func NewTable(settings Settings, routes []Route) (*Table, error) {
	t := &Table{places: map[string][]*Route{}, settings: settings, certificateHeader: message.Plain(settings.CertificateHeader)}
	for i := range routes {
		r := routes[i]
		if len(r.Upstream.URLs) == 0 {
			return nil, fmt.Errorf("API %s has no upstream", r.API)
		}
		var err error
		if r.resources, err = newResources(r.Security, r.Resources); err != nil {
			return nil, fmt.Errorf("API %s: %w", r.API, err)
		}
		for _, place := range r.Places() {
			for _, other := range t.places[place] {
				if r.Meets(other) {
					return nil, fmt.Errorf("APIs %s and %s both answer at %s", other.API, r.API, place)
				}
			}
			t.places[place] = append(t.places[place], &r)
		}
		t.routes = append(t.routes, &r)
	}
	return t, nil
}

// Places are the paths that the route answers at, and below.
func (r *Route) Places() []string {
	versioned := r.Context + "/" + r.API.Version
	if r.DefaultVersion {
		return []string{versioned, r.Context}
	}
	return []string{versioned}
}

// Meets reports whether both routes answer on a common listener and host. A named host goes before any host, so that
// one of each does not conflict.
func (r *Route) Meets(other *Route) bool {
	sameHost := len(r.Hosts) == 0 && len(other.Hosts) == 0 || overlap(r.Hosts, other.Hosts)
	return sameHost && meet(r.Listeners, other.Listeners)
}

// meet reports whether two lists, of which an empty one means all, have anything in common.
func meet(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || overlap(a, b)
}

// Attach gives each route its groups of servers, before the table is put into force, and returns all of them.
func (t *Table) Attach(registry *backend.Registry) (groups []*backend.Group) {
	for _, r := range t.routes {
		api := r.API.String()
		r.production = registry.Group(api, backend.Production, r.Upstream)
		r.sandbox = registry.Group(api, backend.Sandbox, r.Upstream)
		for _, g := range []*backend.Group{r.production, r.sandbox} {
			if g != nil {
				groups = append(groups, g)
			}
		}
	}
	return groups
}

// Routes returns all routes, in the order in which they were given. The caller does not change them.
func (t *Table) Routes() []*Route { return t.routes }

// find returns the route with the longest context of whole segments that answers on that listener for that host, and
// the path that is left of it, which begins with a slash. A route that names the host goes before one for any host.
func (t *Table) find(l *Listener, host, path string) (*Route, string) {
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '/') {
		var any *Route
		for _, r := range t.places[path[:end]] {
			if !r.servedBy(l) {
				continue
			}
			if slices.Contains(r.Hosts, host) {
				return r, below(path, end)
			}
			if len(r.Hosts) == 0 {
				any = r
			}
		}
		if any != nil {
			return any, below(path, end)
		}
	}
	return nil, ""
}

func below(path string, end int) string {
	if end == len(path) {
		return "/" // the context itself is its root
	}
	return path[end:]
}

// servedBy holds Listeners. An API that asks for certificates is on a plain listener only if it is named there or load
// balancers may speak for clients: no other certificate can come in that way.
func (r *Route) servedBy(l *Listener) bool {
	if len(r.Listeners) > 0 {
		return slices.Contains(r.Listeners, l.Name)
	}
	return l.Profiles != nil || l.Door != nil || r.Security.Certificate == policy.Off
}

// OpenResources names what of the route needs no credential, as "METHODS PATH"; for reports.
func (r *Route) OpenResources() []string {
	var open []string
	for _, res := range r.resources.all {
		if res.Security.Open {
			methods := "any method"
			if len(res.Methods) > 0 {
				methods = strings.Join(res.Methods, ",")
			}
			open = append(open, methods+" "+res.Path)
		}
	}
	return open
}

// resources finds the resource of a path by its segments: a literal goes before a parameter, a parameter before a "*",
// at the first segment where they differ.
type resources struct {
	root node
	all  []*Resource
}

type node struct {
	literals map[string]*node
	param    *node
	here     []*Resource // whose template ends here
	rest     []*Resource // whose template ends in "/*" here: this place and all below
}

func newResources(security policy.Security, list []Resource) (*resources, error) {
	if len(list) == 0 {
		list = []Resource{{Path: "/*", Security: security}}
	}
	t := new(resources)
	for i := range list {
		r := &list[i]
		if !strings.HasPrefix(r.Path, "/") {
			return nil, fmt.Errorf("resource %q does not begin with a slash", r.Path)
		}
		n, segments := &t.root, strings.Split(r.Path[1:], "/")
		wild := segments[len(segments)-1] == "*"
		if wild {
			segments = segments[:len(segments)-1]
		}
		for _, s := range segments {
			n = n.child(s)
		}
		end := &n.here
		if wild {
			end = &n.rest
		}
		for _, other := range *end {
			if meet(other.Methods, r.Methods) {
				return nil, fmt.Errorf("resources %s and %s answer to the same calls", other.Path, r.Path)
			}
		}
		*end = append(*end, r)
		t.all = append(t.all, r)
	}
	return t, nil
}

func (n *node) child(segment string) *node {
	if strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "}") {
		if n.param == nil {
			n.param = new(node)
		}
		return n.param
	}
	if n.literals == nil {
		n.literals = map[string]*node{}
	}
	if n.literals[segment] == nil {
		n.literals[segment] = new(node)
	}
	return n.literals[segment]
}

// find returns the resource for a path that begins with a slash, or nil.
func (t *resources) find(path, method string) *Resource {
	return t.root.find(path[1:], true, method)
}

// find looks below n for what is left of the path; more reports whether anything is, since "/a/" has an empty last
// segment that "/a" has not.
func (n *node) find(left string, more bool, method string) *Resource {
	if !more {
		if r := forMethod(n.here, method); r != nil {
			return r
		}
		return forMethod(n.rest, method)
	}
	segment, rest, more := strings.Cut(left, "/")
	if child := n.literals[segment]; child != nil {
		if r := child.find(rest, more, method); r != nil {
			return r
		}
	}
	if n.param != nil && segment != "" {
		if r := n.param.find(rest, more, method); r != nil {
			return r
		}
	}
	return forMethod(n.rest, method)
}

func forMethod(list []*Resource, method string) *Resource {
	for _, r := range list {
		if len(r.Methods) == 0 || slices.Contains(r.Methods, method) {
			return r
		}
	}
	return nil
}
