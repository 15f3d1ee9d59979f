package decision

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"sallyport/gateway/message"
	"sallyport/policy/rule"
)

// resources finds the resource of a path by its segments: a literal goes before a parameter, a parameter before a "*",
// at the first segment where they differ.
type resources struct {
	root    node
	all     []*Resource
	slashed bool // a template ends with a slash
}

type node struct {
	literals map[string]*node
	param    *node
	here     []*Resource // whose template ends here
	rest     []*Resource // whose template ends in "/*" here: this place and all below
}

func newResources(route *Route) (*resources, error) {
	list := route.Resources
	if len(list) == 0 {
		list = []Resource{{Path: "/*", Security: route.Security}}
	}
	t := new(resources)
	for i := range list {
		r := &list[i]
		if !strings.HasPrefix(r.Path, "/") {
			return nil, fmt.Errorf("resource %q does not begin with a slash", r.Path)
		}
		meaning := message.Meaning(r.Path)
		if route.IgnoreCase {
			meaning = lower(meaning)
		}
		n, segments := &t.root, strings.Split(meaning[1:], "/")
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
		t.slashed = t.slashed || len(segments) > 1 && segments[len(segments)-1] == ""
		t.all = append(t.all, r)
	}
	return t, nil
}

// asksAs reports whether both resources of a route ask the same of a call. A limit is a resource's own, and so is what a
// rule says that reads which resource it is asked about.
func (r *Resource) asksAs(other *Resource, route *Route) bool {
	within := func(a, b []string) bool {
		return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
	}
	return r.Security == other.Security && r.Limit == nil && other.Limit == nil &&
		within(r.Scopes, other.Scopes) && within(other.Scopes, r.Scopes) &&
		r.Allow.Equal(other.Allow) && !tellsApart(r.Allow) && !tellsApart(route.Allow)
}

func tellsApart(r *rule.Rule) bool { return r != nil && r.Uses("resource") }

// lower folds ASCII letters to lower case. It keeps the length.
func lower(s string) string { return string(appendLower(nil, []byte(s))) }

func appendLower(b, s []byte) []byte {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
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

// find returns the resource for the meaning of a path, which begins with a slash, or nil.
func (t *resources) find(meaning []byte, method string) *Resource {
	return t.root.find(meaning[1:], true, method)
}

// find looks below n for what is left of the path; more reports whether anything is, since "/a/" has an empty last
// segment that "/a" has not.
func (n *node) find(left []byte, more bool, method string) *Resource {
	if !more {
		if r := forMethod(n.here, method); r != nil {
			return r
		}
		return forMethod(n.rest, method)
	}
	segment, rest, more := bytes.Cut(left, slash)
	if child := n.literals[string(segment)]; child != nil {
		if r := child.find(rest, more, method); r != nil {
			return r
		}
	}
	if n.param != nil && len(segment) > 0 {
		if r := n.param.find(rest, more, method); r != nil {
			return r
		}
	}
	return forMethod(n.rest, method)
}

var slash = []byte("/")

func forMethod(list []*Resource, method string) *Resource {
	for _, r := range list {
		if len(r.Methods) == 0 || slices.Contains(r.Methods, method) {
			return r
		}
	}
	return nil
}
