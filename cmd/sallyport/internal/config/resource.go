package config

import (
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"sallyport/gateway/control"
	"sallyport/gateway/decision"
	"sallyport/gateway/message"
	"sallyport/internal/printable"
)

// resources reads `resources`.
func (l *loader) resources(m *mapping, api *control.API) {
	const key = "resources"
	m.notEmpty(key, "name some, or remove the key to serve every path and method")
	first := map[string]control.Place{} // by method and shape
	for _, n := range m.nodes(key) {
		r, tier := l.resource(n, api)
		for _, method := range r.Methods {
			id := method + " " + shape(r.Path)
			if at, twice := first[id]; twice && r.Path != "" {
				l.errorf(n.Place, "%s %s is a resource already, in line %d: keep one", method, r.Path, at.Line)
				continue
			}
			first[id] = n.Place
		}
		api.Resources, api.ResourceTiers = append(api.Resources, r), append(api.ResourceTiers, tier)
	}
}

// resource reads one entry of `resources`, and its tier.
func (l *loader) resource(n node, api *control.API) (out decision.Resource, tier string) {
	m := n.mapping("a resource")
	defer m.end()
	out = decision.Resource{Path: m.template(), Methods: m.methods(), Scopes: m.scopes("scopes", false)}
	out.Security = m.resourceSecurity(api)
	out.Allow = m.allow()
	tier = m.policy("")
	if e := m.find("scopes"); len(out.Scopes) > 0 && (out.Security.Open || api.Security.Open) {
		l.errorf(e.Place, "scopes have no meaning where no credential is asked for: remove them, or the none of security")
	}
	return out, tier
}

// methods reads `methods`.
func (m *mapping) methods() []string {
	const key = "methods"
	m.need(key, "as in [GET, POST]")
	m.notEmpty(key, "name at least one, as in [GET, POST]")
	values, _ := m.texts(key)
	var out []string
	for _, v := range values {
		switch upper := strings.ToUpper(v.Value); {
		case !httpguts.ValidHeaderFieldName(v.Value) || v.Value == "*": // a method is a token as a name is
			m.load.errorf(v.Place, "method %s is to be a word, as in GET", printable.Quote(v.Value))
		case upper != v.Value:
			m.load.errorf(v.Place, "method %s is to be in upper case: %s", printable.Quote(v.Value), upper)
		case v.Value == "CONNECT":
			m.load.errorf(v.Place, "method CONNECT is never forwarded: remove it")
		default:
			out = append(out, v.Value)
		}
	}
	return out
}

// template reads the path of a resource: segments that are literal or one {parameter}, and a last one that may be "*".
func (m *mapping) template() string {
	const key = "path"
	m.need(key, "as in /items/{id} or /files/*")
	t := m.text(key)
	if !t.OK {
		return ""
	}
	if why := templateTrouble(t.Value); why != "" {
		m.load.errorf(t.Place, "path %s %s", printable.Quote(t.Value), why)
		return ""
	}
	return t.Value
}

// templateTrouble returns what to change in a resource's path, or "".
func templateTrouble(path string) string {
	if path == "/" || path == "/*" {
		return ""
	}
	plain := []string{}
	var names []string
	segments := strings.Split(path, "/")
	for i, s := range segments {
		name, open := strings.CutPrefix(s, "{")
		name, closed := strings.CutSuffix(name, "}")
		switch {
		case open && closed && isName(name):
			if slices.Contains(names, name) {
				return "has the parameter {" + name + "} twice: give each its own name"
			}
			names = append(names, name)
			s = "x"
		case strings.ContainsAny(s, "{}"):
			return "has a parameter that is not a whole segment with a name: write it as /{id}"
		case s == "*" && i == len(segments)-1:
			s = "x"
		case strings.Contains(s, "*"):
			return "has a * that is not the whole last segment: write it as /files/*"
		}
		plain = append(plain, s)
	}
	return pathTrouble(strings.TrimSuffix(strings.Join(plain, "/"), "/")) // a final slash is a segment of its own
}

// shape returns path without its parameters' names: paths of the same shape match the same calls.
func shape(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = "{}"
		}
	}
	return strings.Join(segments, "/")
}

// context reads `context`.
func (m *mapping) context() string {
	const key = "context"
	m.need(key, "as in /orders")
	t := m.text(key)
	if !t.OK {
		return ""
	}
	if why := pathTrouble(t.Value); why != "" {
		m.load.errorf(t.Place, "context %s %s", printable.Quote(t.Value), why)
		return ""
	}
	return t.Value
}

// pathTrouble returns what to change in a path that requests' paths are compared with, or "".
func pathTrouble(path string) string {
	if !strings.HasPrefix(path, "/") {
		return "is to begin with \"/\""
	}
	if strings.HasSuffix(path, "/") {
		return "is not to end with \"/\""
	}
	if strings.ContainsAny(path, "?{}*") {
		return "is to be a path only, without query, {} and *"
	}
	if err := message.CheckPath(message.EscapeText(path)); err != nil {
		return "is no plain path: " + err.Error()
	}
	return ""
}
