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
	"sallyport/policy/certrule"
	"sallyport/policy/ratelimit"
	"sallyport/policy/rule"
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
	Allow                *rule.Rule      // which every call has to satisfy, open ones too; nil: none
	ForwardAuthorization bool            // a token that the gateway consumed goes on to the backend
	ScopesFrom           *certrule.Roles // scopes that a certificate has beside its registration's; nil: none

	EncodedSlash bool             // an escaped slash may pass (paths.encodedSlash)
	IgnoreCase   bool             // context and templates match without regard to the case of ASCII letters (paths.case)
	Resources    []Resource       // none: every path and method, under Security
	Limit        ratelimit.Bucket // of the API as a whole; nil: none
	MaxBody      int64            // bytes of a request's body; 0: any number
	Upstream     backend.Upstream

	resources           *resources
	production, sandbox *backend.Group // since Attach; sandbox is nil without SandboxURLs
}

// A Resource is a part of an API with rules of its own.
type Resource struct {
	Path     string   // template: "/items/{id}", "/files/*"
	Methods  []string // none: every method
	Security policy.Security
	Scopes   []string         // one of which a caller has to have; none: not checked
	Allow    *rule.Rule       // which a call has to satisfy, beside the API's; nil: none
	Limit    ratelimit.Bucket // nil: none
}

// A Verifier checks a raw token: from its cache at once, else by Verify, which may wait, or by Still, which does not:
// the token was good once, with those claims, unless they are nil. Its errors are token.ErrInvalid, token.ErrExpired and
// token.ErrUnavailable.
type Verifier interface {
	Cached(raw string) (*token.Claims, bool)
	Verify(ctx context.Context, raw string) (*token.Claims, error)
	Still(raw string, was *token.Claims) (*token.Claims, error)
}

// A Table is all routes. It never changes. The zero Table has none.
type Table struct {
	routes   []*Route
	byAPI    map[certstore.API]*Route
	places   map[string][]*Route // by meaning: "/orders/1.0.0" and "/orders" -> those that answer there
	folded   map[string][]*Route // those that ignore case, by places in lower case; nil: none
	slashed  bool                // a template of theirs ends with a slash
	settings Settings
	fenced   map[string]certstore.API // by meaning: places of APIs that are not served since their definitions are not good

	certificateHeader string // message.Fold
	expiryHeader      string // message.Fold
}

// Settings are what all routes of a Table have in common.
type Settings struct {
	Tokens             Verifier // nil: no token is good
	CertificateHeader  string   // mutualSSL.clientCertificateHeader: taken off every request
	ForwardCertificate bool     // tell the backend the caller's certificate in that header
	ExpiryHeader       string   // mutualSSL.expiryHeader: tells clients when their certificate ends; "": none does
}

// NewTable returns the table of these routes. It refuses two routes that answer at the same place.
func NewTable(settings Settings, routes []Route) (*Table, error) {
	t := &Table{byAPI: map[certstore.API]*Route{}, places: map[string][]*Route{}, settings: settings, certificateHeader: message.Fold(settings.CertificateHeader), expiryHeader: message.Fold(settings.ExpiryHeader)}
	for i := range routes {
		r := routes[i]
		if len(r.Upstream.URLs) == 0 {
			return nil, fmt.Errorf("API %s has no upstream", r.API)
		}
		var err error
		if r.resources, err = newResources(&r); err != nil {
			return nil, fmt.Errorf("API %s: %w", r.API, err)
		}
		if err := t.add(&r); err != nil {
			return nil, err
		}
		t.byAPI[r.API] = &r
		if err := r.checkReach(); err != nil {
			return nil, fmt.Errorf("API %s: %w", r.API, err)
		}
	}
	return t, nil
}

// add makes the route answer at its places.
func (t *Table) add(r *Route) error {
	for _, place := range r.Places() {
		meaning := message.Meaning(place)
		for _, other := range t.routes {
			if r.answersAt(other, meaning) {
				return fmt.Errorf("APIs %s and %s both answer at %s", other.API, r.API, place)
			}
		}
		if !r.IgnoreCase {
			t.places[meaning] = append(t.places[meaning], r)
			continue
		}
		if t.folded == nil {
			t.folded = map[string][]*Route{}
		}
		t.folded[lower(meaning)] = append(t.folded[lower(meaning)], r)
	}
	t.routes = append(t.routes, r)
	t.slashed = t.slashed || r.resources.slashed
	return nil
}

// answersAt reports whether calls at one of r's places, by its meaning, may as well be other's.
func (r *Route) answersAt(other *Route, meaning string) bool {
	return r.Meets(other) && slices.ContainsFunc(other.Places(), func(p string) bool {
		p = message.Meaning(p)
		return p == meaning || (r.IgnoreCase || other.IgnoreCase) && lower(p) == lower(meaning)
	})
}

// Contests returns a place at which both routes would answer, so that no Table has both; "" if there is none.
func (r *Route) Contests(other *Route) string {
	for _, place := range r.Places() {
		if r.answersAt(other, message.Meaning(place)) {
			return place
		}
	}
	return ""
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

// Of returns the route of an API, or nil.
func (t *Table) Of(api certstore.API) *Route { return t.byAPI[api] }

// Serves reports whether the table has that API on the listener.
func (t *Table) Serves(api certstore.API, l *Listener) bool {
	r := t.byAPI[api]
	return r != nil && r.servedBy(l)
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
