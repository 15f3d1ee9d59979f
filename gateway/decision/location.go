package decision

import (
	"cmp"
	"strings"

	"sallyport/gateway/backend"
	"sallyport/gateway/message"
)

// location is a server's Location or Content-Location as the client gets it: where the client finds what the server
// means, if that is below the upstream's URL. A server does not know under which name and context it is called, unless it
// has learned it from X-Forwarded-Prefix: a path that begins with that is right already. References that are relative,
// to other hosts, or to what the upstream's URL does not cover, stay as they are.
func (x *Exchange) location(ref string, s *backend.Server) string {
	scheme, rest, absolute := strings.Cut(ref, "//")
	absolute = absolute && (scheme == "" || strings.EqualFold(scheme, "http:") || strings.EqualFold(scheme, "https:"))
	switch {
	case absolute:
		end := endOf(rest, "/?#")
		host := rest[:end]
		own := sameHost(host, s.Authority) || x.Route.Upstream.PreserveHost && sameHost(host, x.Request.Authority())
		if !own {
			return ref
		}
		rest = rest[end:]
	case strings.HasPrefix(ref, "/"):
		rest = ref
	default:
		return ref
	}
	end, prefix := endOf(rest, "?#"), x.prefix()
	path, tail := rest[:end], rest[end:]
	if _, known := cutSegments(path, prefix); !known || prefix == "" {
		left, covered := cutSegments(path, s.Path)
		if !covered {
			return ref
		}
		path = cmp.Or(prefix+left, "/")
	}
	_, host, proto, _ := x.origin()
	switch {
	case absolute && message.ValidAuthority(host):
	case leadsAway(path):
		return ref
	default:
		return path + tail
	}
	return proto + "://" + host + path + tail
}

// leadsAway reports whether a path alone would be read as a reference to another host: what a URL without a prefix leaves of
// /base//evil.test. Browsers take a backslash for a slash, and leave tabs out.
func leadsAway(path string) bool {
	second := strings.TrimLeft(path[1:], "\t")
	return second != "" && (second[0] == '/' || second[0] == '\\')
}

// cutSegments returns what is left of a path behind whole segments that it begins with.
func cutSegments(path, segments string) (left string, ok bool) {
	left, ok = strings.CutPrefix(path, segments)
	return left, ok && (left == "" || left[0] == '/')
}

// endOf is where the first of those characters stands in s; its length if none does.
func endOf(s, characters string) int {
	if i := strings.IndexAny(s, characters); i >= 0 {
		return i
	}
	return len(s)
}

// sameHost reports whether two authorities name one host and port. One that leaves its scheme's port out is the same:
// a server that heeds X-Forwarded-Proto says https of its plain port.
func sameHost(a, b string) bool { return strings.EqualFold(withoutPort(a), withoutPort(b)) }

func withoutPort(authority string) string {
	return strings.TrimSuffix(strings.TrimSuffix(authority, ":80"), ":443")
}
