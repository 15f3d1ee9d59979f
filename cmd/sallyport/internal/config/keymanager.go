package config

import (
	"net"
	"net/netip"
	"net/url"
	"strings"

	"sallyport/gateway/control"
	"sallyport/policy/token"
)

// keyManager reads one entry of `keyManagers:`.
func (l *loader) keyManager(n node) control.Placed[token.KeyManager] {
	m := n.mapping("a key manager")
	defer m.end()
	name := m.name("name")
	m.need("issuer", "the iss of its tokens")
	issuer := m.text("issuer")
	if name.OK && name.Value == "all" {
		l.errorf(name.Place, "the name all stands for every key manager: choose another")
	}
	for _, other := range l.cfg.KeyManagers {
		if name.OK && other.Value.Name == name.Value {
			l.errorf(name.Place,
				"a second key manager %s, the first in line %d: give each its own name", name.Value, other.Line)
		}
		if issuer.OK && other.Value.Issuer == issuer.Value {
			l.errorf(issuer.Place, "the issuer is that of key manager %s: a token must lead to one of them",
				other.Value.Name)
		}
	}
	out := token.KeyManager{Name: name.Value, Issuer: issuer.Value}
	out.Type, _ = ask(m, "type", "default", token.ParseType)
	out.JWKS = m.jwks()
	out.CertificateFile = m.path("certificate")
	out.CAFile = m.path("caFile")
	out.TokenType, _ = ask(m, "tokenType", "", token.ParseTokenType)
	jwks, certificate, caFile := m.find("jwks"), m.find("certificate"), m.find("caFile")
	switch {
	case m.broken:
	case jwks != nil && certificate != nil:
		l.errorf(certificate.Place, "a key manager has jwks or certificate: keep one of them")
	case jwks == nil && certificate == nil:
		l.errorf(m.Place, "a key manager needs the key jwks (a URL or a file) or certificate (a PEM file)")
	}
	if caFile != nil && !strings.HasPrefix(out.JWKS, "https:") {
		l.errorf(caFile.Place, "caFile is for a jwks by https: remove it")
	}
	return control.Placed[token.KeyManager]{Place: n.Place, Value: out, Keys: m.keys()}
}

// jwks reads the URL or the file under `jwks`.
func (m *mapping) jwks() string {
	t := m.text("jwks")
	if !t.OK {
		return ""
	}
	if !strings.Contains(t.Value, "://") {
		return m.from.resolve(t.Value)
	}
	u, why := parseURL(t.Value)
	if why != "" {
		m.load.errorf(t.Place, "jwks: %s", why)
		return ""
	}
	if u.Scheme == "http" && u.Hostname() != "localhost" && !isLoopback(net.JoinHostPort(u.Hostname(), "0")) {
		m.load.warnf(t.Place, "keys by plain http: whoever can answer in that host's place can make tokens; use https")
	}
	return u.String()
}

// parseURL reads an http or https URL with a host, without user or fragment. Of a bad one it returns what to change,
// quoting nothing, since URLs may hold passwords.
func parseURL(s string) (u *url.URL, why string) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, "this is no URL: write it as https://host:port/path"
	}
	switch host := u.Hostname(); {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "the URL is to begin with http:// or https://"
	case u.Opaque != "" || !isHost(host):
		return nil, "the URL needs a host: an address or a name in ASCII (xn--… for others)"
	case u.User != nil:
		return nil, "the URL can't hold a user or password: remove it"
	case strings.Contains(s, "#"):
		return nil, "the URL can't have a fragment: remove what follows the #"
	case u.Port() == "0" || u.Port() != "" && !isPort(u.Port()) || strings.HasSuffix(u.Host, ":"):
		return nil, "the URL's port is to be a number from 1 to 65535"
	}
	u.Host = strings.ToLower(u.Host)
	return u, ""
}

// isHost reports whether s is an address without brackets, or a name.
func isHost(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Zone() == "" || isHostname(s)
}
