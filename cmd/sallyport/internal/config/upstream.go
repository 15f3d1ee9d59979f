package config

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// Upstream is where an API's calls go.
type Upstream struct {
	Pos
	// URLs (at least one) and SandboxURLs (for SANDBOX certificates, perhaps none) are http or https, with a host,
	// without user, query, fragment or trailing slash.
	URLs, SandboxURLs []*url.URL
	// Protocol is the protocol of all of them: "http1" (default); "h2", HTTP/2 over TLS, if all are https; "h2c",
	// HTTP/2 in cleartext with prior knowledge (RFC 9113, 3.3), if all are http.
	Protocol     string
	PreserveHost bool          // send the client's Host to the backend
	Timeout      time.Duration // how long the backend may take to begin its answer, at least 1 ms; default 60 s
	MaxCalls     int           // concurrent calls, beyond which the answer is 503; 1 to 1,000,000; default 2,048
	CAFile       string        // absolute path of the PEM roots for https URLs; "": the system's
	KeyStore     *KeyStore     // the gateway's own client certificate for https URLs; nil: none
}

// upstream reads `upstream`.
func (m *mapping) upstream() Upstream {
	s, _ := m.sub("upstream")
	defer s.end()
	out := Upstream{Pos: s.Pos}
	s.need("urls", "at least one, as in [http://127.0.0.1:9000]")
	out.URLs = s.urls("urls")
	s.notEmpty("urls", "name at least one, as in [http://127.0.0.1:9000]")
	out.SandboxURLs = s.urls("sandboxUrls")
	protocol := s.word("protocol", "http1", "http1", "h2", "h2c")
	out.Protocol = protocol.Value
	out.PreserveHost, _ = s.boolean("preserveHost", false)
	out.Timeout = s.duration("timeout", time.Millisecond, time.Minute)
	out.MaxCalls = s.integer("maxCalls", 1, 1_000_000, 2048)
	out.CAFile = s.path("caFile")
	out.KeyStore = s.keyStore("keyStore")
	switch out.Protocol {
	case "h2":
		if u := out.first("http"); u != nil {
			s.load.errorf(protocol.Pos,
				"protocol h2 needs https URLs, and %s is not one: write it with https, or say h2c or http1",
				quote(u.String()))
		}
	case "h2c":
		if u := out.first("https"); u != nil {
			s.load.errorf(protocol.Pos,
				"protocol h2c needs http URLs, and %s is not one: say h2 or http1", quote(u.String()))
		}
	}
	for _, key := range []string{"caFile", "keyStore"} {
		if e := s.find(key); e != nil && out.first("https") == nil {
			s.load.errorf(e.Pos, "%s is for https URLs, and there is none: remove it", key)
		}
	}
	return out
}

// first returns the first URL of a scheme, or nil.
func (u *Upstream) first(scheme string) *url.URL {
	for _, one := range slices.Concat(u.URLs, u.SandboxURLs) {
		if one.Scheme == scheme {
			return one
		}
	}
	return nil
}

// urls reads backends' URLs. Requests' paths are appended to them byte for byte, so their own path must be plain.
func (m *mapping) urls(key string) []*url.URL {
	values, _ := m.texts(key)
	var out []*url.URL
	for _, v := range values {
		u, why := parseURL(v.Value)
		if why == "" {
			u.Path = strings.TrimSuffix(u.Path, "/")
			switch {
			case strings.Contains(v.Value, "%"):
				why = "the URL can't have escapes: use a plain path"
			case strings.Contains(v.Value, "?"):
				why = "the URL can't have a query: remove what follows the ?"
			case u.Path != "" && pathTrouble(u.EscapedPath()) != "":
				why = "the URL's path " + pathTrouble(u.EscapedPath())
			}
		}
		if why != "" {
			m.load.errorf(v.Pos, "%s: %s", key, why)
			continue
		}
		out = append(out, u)
	}
	return out
}
