package config

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/control"
	"sallyport/internal/printable"
)

// upstream reads `upstream`.
func (m *mapping) upstream(api *control.API) {
	s, _ := m.sub("upstream")
	defer s.end()
	s.need("urls", "at least one, as in [http://127.0.0.1:9000]")
	out := backend.Upstream{URLs: s.urls("urls")}
	s.notEmpty("urls", "name at least one, as in [http://127.0.0.1:9000]")
	out.SandboxURLs = s.urls("sandboxUrls")
	protocol := s.word("protocol", "http1", "http1", "h2", "h2c")
	out.PreserveHost = s.boolean("preserveHost")
	out.Timeout = s.duration("timeout", time.Millisecond, time.Minute)
	out.ConnectTimeout = s.duration("connectTimeout", time.Millisecond, 5*time.Second)
	out.IdleTimeout = s.duration("idleTimeout", time.Millisecond, 55*time.Second)
	out.MaxCalls = s.integer("maxCalls", 1, 1_000_000, 2048)
	out.MaxCallsPerCaller = s.share("maxCallsPerCaller", 1_000_000, backend.DefaultShare(out.MaxCalls), "maxCalls", out.MaxCalls)
	out.StreamIdleTimeout = s.duration("streamIdleTimeout", time.Millisecond, 10*time.Minute)
	if out.BodyRate = s.integer("bodyRate", 0, 1<<30, 0); out.BodyRate == 0 && s.find("bodyRate") != nil {
		out.BodyRate = -1 // any
	}
	api.CAFile = s.path("caFile")
	api.KeyStore = s.keyStore("keyStore")
	switch protocol.Value {
	case "h2":
		out.Protocol = backend.HTTP2
		if u := first(out, "http"); u != nil {
			s.load.errorf(protocol.Place,
				"protocol h2 needs https URLs, and %s is not one: write it with https, or say h2c or http1",
				printable.Quote(u.String()))
		}
	case "h2c":
		out.Protocol = backend.H2C
		if u := first(out, "https"); u != nil {
			s.load.errorf(protocol.Place,
				"protocol h2c needs http URLs, and %s is not one: say h2 or http1", printable.Quote(u.String()))
		}
	}
	for _, key := range []string{"caFile", "keyStore"} {
		if e := s.find(key); e != nil && first(out, "https") == nil {
			s.load.errorf(e.Place, "%s is for https URLs, and there is none: remove it", key)
		}
	}
	api.Upstream = out
}

// first returns the first URL of a scheme, or nil.
func first(u backend.Upstream, scheme string) *url.URL {
	for _, one := range slices.Concat(u.URLs, u.SandboxURLs) {
		if one.Scheme == scheme {
			return one
		}
	}
	return nil
}

// urls reads backends' URLs. Requests' paths are appended to them byte for byte, so their own path must be plain; it
// may end with a slash, which a call of the API's root then keeps.
func (m *mapping) urls(key string) []*url.URL {
	values, _ := m.texts(key)
	var out []*url.URL
	for _, v := range values {
		u, why := parseURL(v.Value)
		if why == "" {
			if u.Path == "/" {
				u.Path = ""
			}
			trouble := ""
			if u.Path != "" {
				trouble = pathTrouble(strings.TrimSuffix(u.EscapedPath(), "/"))
			}
			switch {
			case strings.Contains(v.Value, "%"):
				why = "the URL can't have escapes: use a plain path"
			case strings.Contains(v.Value, "?"):
				why = "the URL can't have a query: remove what follows the ?"
			case trouble != "":
				why = "the URL's path " + trouble
			}
		}
		if why != "" {
			m.load.errorf(v.Place, "%s: %s", key, why)
			continue
		}
		out = append(out, u)
	}
	return out
}
