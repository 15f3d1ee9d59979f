package decision

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/gateway/message"
)

// A place is where a path leads: to a route, and to one of its resources, which is nil if the route has none there.
type place struct {
	route    *Route
	resource *Resource
	left     string // of the raw path, behind the route's context; it begins with a slash, or is empty
}

// An ambiguity is a refusal of a path that a server may read as that of another resource, which asks for something
// else.
type ambiguity struct {
	resource, other *Resource
	reading         message.Reading
}

func (a *ambiguity) Error() string {
	return fmt.Sprintf("the path leads to %s, and with %s to %s, which asks for something else", a.resource.Path, a.reading, a.other.Path)
}

var (
	errEscapedSlash = errors.New("path has an escaped slash")
	errOtherAPI     = errors.New("the path leads to another API in another reading")
)

// find returns the place of a path: the route with the longest context of whole segments that answers on that listener
// for that host, a route that names the host going before one for any host, and the route's resource. All readings of
// the path that find a resource have to find one that asks the same. The error is a refusal; what is not found is nil in
// the place. Without a listener, every one will do.
func (t *Table) find(l *Listener, host, path, method string) (place, error) {
	var space, more [256]byte
	meaning := message.AppendReading(space[:0], path, message.AsReceived)
	at, end := t.lookUp(l, host, method, meaning, more[:0])
	if message.HasEscapedSlash(path) && (at.route == nil || !at.route.EncodedSlash) {
		return place{}, refuse(BadRequest, errEscapedSlash)
	}
	if at.resource == nil {
		return at, nil
	}
	at.left = behind(path, bytes.Count(meaning[:end], slash))

	var problem error
	message.Readings(path, t.worthTrying(at.route), func(r message.Reading) bool {
		meaning = message.AppendReading(meaning[:0], path, r)
		other, _ := t.lookUp(l, host, method, meaning, more[:0])
		switch {
		case other.resource == nil || slashDecides(r, at.resource, other.resource):
		case other.route != at.route:
			problem = errOtherAPI
		case other.resource != at.resource && !other.resource.asksAs(at.resource, at.route):
			problem = &ambiguity{at.resource, other.resource, r}
		}
		return problem == nil
	})
	if problem != nil {
		return place{route: at.route}, refuse(AmbiguousPath, problem)
	}
	return at, nil
}

// worthTrying are the readings beyond the common ones that a server may have of a path of the route.
func (t *Table) worthTrying(r *Route) (among message.Reading) {
	if r.EncodedSlash {
		among |= message.SplitSlash
	}
	if t.folded != nil {
		among |= message.FoldLetters
	}
	if t.slashed {
		among |= message.AddSlash
	}
	return among
}

// slashDecides reports whether a reading that differs by a final slash alone does not lead to other: a template without a
// final slash says nothing of paths that lack one, and one with it is closer than a "*".
func slashDecides(r message.Reading, received, other *Resource) bool {
	switch {
	case r&message.AddSlash != 0:
		return !strings.HasSuffix(other.Path, "/")
	case r&message.CutSlash != 0:
		return strings.HasSuffix(received.Path, "/") && strings.HasSuffix(other.Path, "*")
	}
	return false
}

// lookUp returns the place of a meaning, and how much of the meaning is the route's context. It uses space.
func (t *Table) lookUp(l *Listener, host, method string, meaning, space []byte) (at place, end int) {
	var folded []byte // the meaning in lower case
	if t.folded != nil {
		folded = appendLower(space, meaning)
	}
	for end := len(meaning); end > 0; end = bytes.LastIndexByte(meaning[:end], '/') {
		exact := bestOf(t.places[string(meaning[:end])], l, host)
		ignoring := (*Route)(nil)
		if folded != nil {
			ignoring = bestOf(t.folded[string(folded[:end])], l, host)
		}
		switch {
		case exact != nil && (ignoring == nil || len(exact.Hosts) > 0):
			return place{route: exact, resource: exact.resources.find(below(meaning, end), method)}, end
		case ignoring != nil:
			return place{route: ignoring, resource: ignoring.resources.find(below(folded, end), method)}, end
		}
	}
	return place{}, 0
}

// bestOf returns the route of the list that answers on that listener for that host. One that names the host goes before
// one for any host.
func bestOf(list []*Route, l *Listener, host string) (best *Route) {
	for _, r := range list {
		switch {
		case l != nil && !r.servedBy(l):
		case slices.Contains(r.Hosts, host):
			return r
		case len(r.Hosts) == 0:
			best = r
		}
	}
	return best
}

// below is what is left of a meaning behind its context. The context itself is its root.
func below(meaning []byte, end int) []byte {
	if end == len(meaning) {
		return slash
	}
	return meaning[end:]
}

// behind is what is left of a raw path behind its first segments: from a slash on, or nothing.
func behind(path string, segments int) string {
	end := 0
	for range segments {
		next := strings.IndexByte(path[end+1:], '/')
		if next < 0 {
			return ""
		}
		end += 1 + next
	}
	return path[end:]
}

// checkReach returns an error for a resource of the route that no path can reach: others answer in its place, or each
// of its paths has another reading that leads to one that asks for something else.
func (r *Route) checkReach() error {
	alone := &Table{places: map[string][]*Route{}}
	if err := alone.add(r); err != nil {
		return err
	}
	host := ""
	if len(r.Hosts) > 0 {
		host = r.Hosts[0]
	}
	for _, res := range r.resources.all {
		if err := alone.reaches(r, res, host); err != nil {
			return fmt.Errorf("no path can reach the resource %s: %w", res.Path, err)
		}
	}
	return nil
}

// reaches returns why none of the paths of a resource leads there, or nil.
func (t *Table) reaches(r *Route, res *Resource, host string) error {
	if err := message.CheckPath(message.EscapeText(res.Path)); err != nil {
		return err
	}
	methods := res.Methods
	if len(methods) == 0 {
		methods = []string{"GET"}
	}
	var err error
	for _, path := range res.examples(r.resources.all) {
		path = message.Spell(message.Meaning(r.Places()[0] + path))
		for _, method := range methods {
			at, problem := t.find(nil, host, path, method)
			switch {
			case at.resource == res:
				return nil
			case problem != nil:
				err = problem
			case at.resource != nil:
				err = fmt.Errorf("%s answers in its place", at.resource.Path)
			}
		}
	}
	return err
}

// examples returns paths of the resource, below its context, that are no literals of any other.
func (r *Resource) examples(all []*Resource) []string {
	word, most := "any", 0
	for _, other := range all {
		most = max(most, strings.Count(other.Path, "/"))
		for strings.Contains(strings.ToLower(other.Path), word) {
			word += "y"
		}
	}
	segments := strings.Split(r.Path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
			segments[i] = word
		}
	}
	path := strings.Join(segments, "/")
	above, wild := strings.CutSuffix(path, "/*")
	if !wild {
		return []string{path}
	}
	return []string{above + "/" + word, above + strings.Repeat("/"+word, min(most+1, message.MaxSegments/2)), above}
}
