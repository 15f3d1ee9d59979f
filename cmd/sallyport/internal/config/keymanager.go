package config

import (
	"net"
	"net/netip"
	"net/url"
	"strings"

	"sallyport/policy/token"
)

// A KeyManager issues access tokens. It has exactly one of JWKS and Certificate.
type KeyManager struct {
	Pos
	Name        string // letters, digits, ".", "_", "-"; unique, never "all"
	Type        string // a word of token.ParseType; default "default"
	Issuer      string // the token's `iss`, compared exactly; unique
	JWKS        string // http or https URL, or the absolute path of a file
	Certificate string // absolute path of a PEM file
	CAFile      string // absolute path of the PEM roots for the JWKS URL's TLS; "": the system's
	TokenType   string // "at+jwt": only tokens of this `typ` (RFC 9068) are accepted; "": any access token
}

// keyManager reads one entry of `keyManagers:`.
func (l *loader) keyManager(n node) KeyManager {
	m := n.mapping("a key manager")
	defer m.end()
	name := m.name("name")
	m.need("issuer", "the iss of its tokens")
	issuer := m.text("issuer")
	if name.OK && name.Value == "all" {
		l.errorf(name.Pos, "the name all stands for every key manager: choose another")
	}
	for _, other := range l.cfg.KeyManagers {
		if name.OK && other.Name == name.Value {
			l.errorf(name.Pos,
				"a second key manager %s, the first in line %d: give each its own name", name.Value, other.Line)
		}
		if issuer.OK && other.Issuer == issuer.Value {
			l.errorf(issuer.Pos, "the issuer is that of key manager %s: a token must lead to one of them", other.Name)
		}
	}
	out := KeyManager{
		Pos:         n.Pos,
		Name:        name.Value,
		Type:        ask(m, "type", "default", token.ParseType).Value,
		Issuer:      issuer.Value,
		JWKS:        m.jwks(),
		Certificate: m.path("certificate"),
		CAFile:      m.path("caFile"),
		TokenType:   ask(m, "tokenType", "", token.ParseTokenType).Value,
	}
	jwks, certificate, caFile := m.find("jwks"), m.find("certificate"), m.find("caFile")
	switch {
	case m.broken:
	case jwks != nil && certificate != nil:
		l.errorf(certificate.Pos, "a key manager has jwks or certificate: keep one of them")
	case jwks == nil && certificate == nil:
		l.errorf(m.Pos, "a key manager needs the key jwks (a URL or a file) or certificate (a PEM file)")
	}
	if caFile != nil && !strings.HasPrefix(out.JWKS, "https:") {
		l.errorf(caFile.Pos, "caFile is for a jwks by https: remove it")
	}
	return out
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
		m.load.errorf(t.Pos, "jwks: %s", why)
		return ""
	}
	if u.Scheme == "http" && u.Hostname() != "localhost" && !isLoopback(net.JoinHostPort(u.Hostname(), "0")) {
		m.load.warnf(t.Pos, "keys by plain http: whoever can answer in that host's place can make tokens; use https")
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
