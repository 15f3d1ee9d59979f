package config

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"sallyport/certstore"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
)

// An API is what the gateway serves under one context and version.
type API struct {
	Pos
	Name           string // letters, digits, ".", "_", "-"
	Version        string // the same alphabet
	Context        string // "/orders": served at Context/Version, and at Context if DefaultVersion
	DefaultVersion bool
	Hosts          []string // lower-case names or addresses without port; empty: any
	// Listeners are the names of the listeners that serve it: those it lists, or by default every TLS listener, and
	// each plain one that believes the certificate header or whose API does not use certificates. Never empty.
	Listeners []string
	// Security holds "mutualssl", "mutualssl_mandatory" (which implies mutualssl), "oauth2",
	// "oauth_basic_auth_api_key_mandatory", as written; or "none" alone. Never empty.
	Security             []string
	Precedence           string   // "certificate" (default) or "token"
	KeyManagers          []string // names, with `all` resolved; empty only without oauth2 in Security
	Audiences            []string // checked when named
	Policy               string   // tier of the API as a whole, a known one; default "Unlimited"
	Upstream             Upstream
	MaxBodySize          int64 // bytes of a request's body, at most 1 TiB; 0: no limit
	ForwardAuthorization bool  // forward a token that the gateway has consumed to the backend
	ClientCertificates   []ClientCertificate
	Resources            []Resource // empty: every path and method

	demands policy.Security // Security and Precedence, parsed; zero if they are invalid
}

// ID is the API's name on the command line and in messages, "name:version".
func (a *API) ID() string { return a.key().String() }

func (a *API) key() certstore.API { return certstore.API{Name: a.Name, Version: a.Version} }

// A ClientCertificate is a certificate that is registered for one API by a file.
type ClientCertificate struct {
	Pos
	Alias   string   // as certstore.CheckAlias accepts it; unique for the API and KeyType
	File    string   // absolute
	Tier    string   // an existing one
	KeyType string   // a certstore.KeyType; default PRODUCTION
	Scopes  []string // as certstore.CheckScope accepts them, or "*"
	Data    []byte   // the file's content, not parsed, at most certstore.MaxCertificate bytes
}

// A Resource is a set of paths of an API, and what they demand of the caller.
type Resource struct {
	Pos
	Path     string   // "/items/{id}", "/files/*", "/"; relative to the API's context and version
	Methods  []string // RFC 9110 tokens in upper case, at least one
	Scopes   []string // one of them is needed; empty: none
	Security []string // nil: the API's; else the API's own words or "none" alone
	Policy   string   // a known tier, or "" for no limit of its own
}

// apis reads `apis:` of the main file: patterns of API files, and APIs themselves.
func (l *loader) apis(m *mapping) {
	seen := map[string]bool{}
	for _, n := range m.nodes("apis") {
		if _, ok := n.rawText(); !ok {
			l.addAPI(n)
			continue
		}
		if t := n.text("an entry of apis"); t.OK {
			l.apiFiles(m.from, t, seen)
		}
	}
	if len(l.cfg.APIs) == 0 && len(l.errs) == 0 {
		l.warnf(m.Pos, "there are no APIs: every call is answered 404; add some under apis")
	}
}

// apiFiles reads the files that pattern matches and no earlier pattern did.
func (l *loader) apiFiles(main *source, pattern text, seen map[string]bool) {
	if strings.Contains(pattern.Value, "**") {
		l.errorf(pattern.Pos, "** is not supported: name each folder, as in apis/*.yaml")
		return
	}
	glob := main.pattern(pattern.Value)
	l.cfg.Globs = append(l.cfg.Globs, glob)
	found, err := l.outside.glob(glob)
	switch {
	case err != nil:
		l.errorf(pattern.Pos, "%s is no pattern: %v", quote(pattern.Value), err)
	case len(found) == 0:
		l.errorf(pattern.Pos, "no file matches %s: add one, or remove the entry", quote(pattern.Value))
	case len(found) > maxAPIFiles:
		l.errorf(pattern.Pos, "%s matches more than %d files", quote(pattern.Value), maxAPIFiles)
		return
	}
	for _, path := range found {
		if seen[path] {
			continue
		}
		seen[path] = true
		if path == main.path {
			l.errorf(pattern.Pos,
				"%s matches this file itself: keep API files in a folder of their own", quote(pattern.Value))
			continue
		}
		l.apiFile(main.beside(path), pattern)
	}
}

const maxAPIFiles = 10_000

// apiFile reads one file with a list under `apis:`.
func (l *loader) apiFile(from *source, pattern text) {
	l.yaml = append(l.yaml, from.name)
	data, err := l.read(from.path, maxFile)
	if err != nil {
		l.errorf(pattern.Pos, "API file %s: %v", from.name, err)
		return
	}
	root, ok := l.document(from, data)
	if !ok {
		return
	}
	m := root.mapping("an API file")
	defer m.end()
	m.need("apis", "the list of its APIs")
	for _, n := range m.nodes("apis") {
		l.addAPI(n)
	}
}

// addAPI reads one API and adds it.
func (l *loader) addAPI(n node) {
	m := n.mapping("an API")
	defer m.end()
	name, version := m.name("name"), m.version()
	api := API{
		Pos:     n.Pos,
		Name:    name.Value,
		Version: version.Value,
		Context: m.context(),
	}
	if name.OK && version.OK {
		if err := api.key().Check(); err != nil {
			l.errorf(version.Pos, "%v", err) // names are short enough
		}
		for _, other := range l.cfg.APIs {
			if other.ID() == api.ID() {
				l.errorf(name.Pos,
					"a second API %s, the first at %s: give it another name or version", api.ID(), other.Pos)
			}
		}
	}
	api.DefaultVersion, _ = m.boolean("defaultVersion", false)
	api.Hosts = m.hosts()
	m.apiSecurity(&api)
	api.Listeners = l.apiListeners(m, &api)
	api.KeyManagers = l.apiKeyManagers(m, &api)
	api.Audiences = l.apiAudiences(m, &api)
	api.Policy = m.policy(ratelimit.Unlimited)
	m.refuse("unauthenticatedTier", "is not built yet: remove it")
	m.need("upstream", "where its calls go, as in {urls: [http://127.0.0.1:9000]}")
	api.Upstream = m.upstream()
	api.MaxBodySize = m.bodySize("maxBodySize")
	api.ForwardAuthorization, _ = m.boolean("forwardAuthorization", false)
	api.ClientCertificates = l.clientCertificates(m, &api)
	api.Resources = l.resources(m, &api)
	l.cfg.APIs = append(l.cfg.APIs, api)
}

// version reads `version`. A number is taken as it is written, so that 1.10 stays 1.10.
func (m *mapping) version() text {
	const key = "version"
	m.need(key, "as in 1.0.0")
	n, ok := m.take(key)
	if !ok {
		return text{Pos: m.Pos}
	}
	t := text{Pos: n.Pos}
	if n.kind() == "a number" {
		t.Value, t.OK = n.ast.GetToken().Value, true
	} else {
		t = n.text(key)
	}
	return m.checkName(key, t)
}

// hosts reads `hosts`, in the form that a request's host is compared with.
func (m *mapping) hosts() []string {
	values, _ := m.texts("hosts")
	var out []string
	for _, v := range values {
		host := strings.ToLower(v.Value)
		if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			host = addr.String()
		}
		switch {
		case strings.HasPrefix(host, "*."):
			m.load.errorf(v.Pos, "host %s: wildcards are not built yet: name each host", quote(v.Value))
		case !isHost(host):
			m.load.errorf(v.Pos,
				"host %s is to be a name or an address, without scheme, port or trailing dot, in ASCII (xn--… for "+
					"others)", quote(v.Value))
		case slices.Contains(out, host):
			m.load.errorf(v.Pos, "host %s is here twice: keep one", quote(v.Value))
		default:
			out = append(out, host)
		}
	}
	return out
}

// apiListeners returns the names of the listeners that serve api.
func (l *loader) apiListeners(m *mapping, api *API) []string {
	values, _ := m.texts("listeners")
	if len(values) == 0 {
		return l.defaultListeners(m, api)
	}
	var known, out []string
	for _, listener := range l.cfg.Listeners {
		known = append(known, listener.Name)
	}
	for _, v := range values {
		at := slices.Index(known, v.Value)
		if at < 0 {
			l.errorf(v.Pos,
				"there is no listener %s: name one of %s, or add it under listeners",
				quote(v.Value), strings.Join(known, ", "))
			continue
		}
		onlyCertificates := api.demands.Certificate != policy.Off && api.demands.Token == policy.Off
		listener := &l.cfg.Listeners[at]
		if onlyCertificates && !listener.TLS() && listener.ClientCertificateHeader == "off" {
			l.warnf(v.Pos,
				"no call can pass here: %s asks for certificates, and listener %s is plain and believes no header",
				api.ID(), listener.Name)
		}
		out = append(out, v.Value)
	}
	return out
}

// defaultListeners returns the listeners of an API that names none: every TLS listener, and a plain one only if it
// believes the certificate header or the API does not use certificates.
func (l *loader) defaultListeners(m *mapping, api *API) []string {
	var out []string
	for i := range l.cfg.Listeners {
		listener := &l.cfg.Listeners[i]
		if listener.TLS() || listener.ClientCertificateHeader != "off" || api.demands.Certificate == policy.Off {
			out = append(out, listener.Name)
		}
	}
	if len(out) == 0 && len(l.cfg.Listeners) > 0 && !m.broken {
		l.errorf(m.Pos,
			"no listener serves this API: it uses certificates, and there is none with a keyStore or an open header "+
				"door; name its listeners, or add one")
	}
	return out
}

// apiKeyManagers returns the names of the key managers whose tokens api takes.
func (l *loader) apiKeyManagers(m *mapping, api *API) []string {
	var known []string
	for _, k := range l.cfg.KeyManagers {
		known = append(known, k.Name)
	}
	values, given := m.texts("keyManagers")
	all := !given
	var named []string
	for _, v := range values {
		switch {
		case v.Value == "all" && len(values) > 1:
			l.errorf(v.Pos, "keyManagers is [all] or names: keep one of both")
		case v.Value == "all":
			all = true
		case !slices.Contains(known, v.Value):
			l.errorf(v.Pos, "there is no key manager %s: add it under keyManagers", quote(v.Value))
		default:
			named = append(named, v.Value)
		}
	}
	if api.demands.Token == policy.Off {
		if len(named) > 0 && len(api.Security) > 0 {
			l.errorf(m.find("keyManagers").Pos,
				"keyManagers has no meaning without oauth2 in security: add oauth2, or remove it")
		}
		return nil
	}
	m.notEmpty("keyManagers", "no token is good then; say [all], or name some")
	if len(known) == 0 {
		l.errorf(m.Pos,
			"the API takes tokens (oauth2), and there is no key manager: add one under keyManagers in the main file")
	}
	if all {
		return known
	}
	return named
}

func (l *loader) apiAudiences(m *mapping, api *API) []string {
	values, _ := m.texts("audiences")
	if len(values) > 0 && len(api.Security) > 0 && api.demands.Token == policy.Off {
		l.errorf(m.find("audiences").Pos,
			"audiences has no meaning without oauth2 in security: add oauth2, or remove it")
	}
	return plain(values)
}

// plain returns the values of texts.
func plain(texts []text) []string {
	var out []string
	for _, t := range texts {
		out = append(out, t.Value)
	}
	return out
}

// policy reads the tier under `policy`.
func (m *mapping) policy(otherwise string) string {
	t := m.text("policy")
	if !t.OK {
		return otherwise
	}
	m.load.checkTier(t)
	return t.Value
}

// clientCertificates reads `clientCertificates`.
func (l *loader) clientCertificates(m *mapping, api *API) []ClientCertificate {
	const key = "clientCertificates"
	values := m.nodes(key)
	if len(values) > 0 && len(api.Security) > 0 && api.demands.Certificate == policy.Off {
		l.errorf(m.find(key).Pos, "%s has no meaning without mutualssl in security: add mutualssl, or remove them", key)
	}
	var out []ClientCertificate
	for _, n := range values {
		c := l.clientCertificate(n)
		for _, other := range out {
			if c.Alias != "" && other.Alias == c.Alias && other.KeyType == c.KeyType {
				l.errorf(n.Pos,
					"a second %s certificate %s, the first in line %d: give each its own alias",
					c.KeyType, quote(c.Alias), other.Line)
			}
			if c.Data != nil && bytes.Equal(other.Data, c.Data) {
				l.errorf(n.Pos, "this certificate is registered for this API in line %d already: keep one", other.Line)
			}
		}
		if c.KeyType == string(certstore.Sandbox) && len(api.Upstream.SandboxURLs) == 0 {
			l.warnf(n.Pos,
				"a SANDBOX certificate reaches sandboxUrls only, and upstream has none: its calls are answered 403")
		}
		out = append(out, c)
	}
	return out
}

func (l *loader) clientCertificate(n node) ClientCertificate {
	m := n.mapping("a client certificate")
	defer m.end()
	m.need("alias", "the name it is registered under")
	m.need("certificate", "a PEM or DER file")
	m.need("tier", "as in Gold")
	alias, tier, file := m.text("alias"), m.text("tier"), m.text("certificate")
	if alias.OK {
		if err := certstore.CheckAlias(alias.Value); err != nil {
			l.errorf(alias.Pos, "%v", err)
		}
	}
	l.checkTier(tier)
	out := ClientCertificate{
		Pos:     n.Pos,
		Alias:   alias.Value,
		Tier:    tier.Value,
		KeyType: ask(m, "keyType", string(certstore.Production), certstore.ParseKeyType).Value,
		Scopes:  m.scopes(true),
	}
	if file.OK {
		out.File = m.from.resolve(file.Value)
		data, err := l.read(out.File, certstore.MaxCertificate)
		switch {
		case err != nil:
			l.errorf(file.Pos, "certificate %s: %v", quote(file.Value), err)
		case len(data) == 0:
			l.errorf(file.Pos, "certificate %s: the file is empty", quote(file.Value))
		default:
			out.Data = data
		}
	}
	return out
}

// scopes reads `scopes`; anyScope allows "*" for all.
func (m *mapping) scopes(anyScope bool) []string {
	values, _ := m.texts("scopes")
	for _, v := range values {
		if v.Value == "*" && !anyScope {
			m.load.errorf(v.Pos, "scope \"*\" is for client certificates: name scopes here, or remove the list")
		} else if err := certstore.CheckScope(v.Value); err != nil {
			m.load.errorf(v.Pos, "%v", err)
		}
	}
	return plain(values)
}
