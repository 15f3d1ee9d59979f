package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sallyport/certstore"
	"sallyport/gateway/control"
	"sallyport/gateway/decision"
	"sallyport/gateway/message"
	"sallyport/internal/printable"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
)

// apis reads `apis:` of the main file: patterns of API files, and APIs themselves.
func (l *loader) apis(m *mapping) {
	seen := map[string]bool{}
	for _, n := range m.nodes("apis") {
		if _, ok := n.rawText(); !ok {
			l.unit = &control.Unit{Place: control.Place{File: m.from.name}}
			l.addAPI(n)
			l.unit.Claims = nil // the file is good, or nothing comes into force
			l.cfg.Units = append(l.cfg.Units, *l.unit)
			continue
		}
		if t := n.text("an entry of apis"); t.OK {
			l.apiFiles(m.from, t, seen)
		}
	}
	c := l.cfg
	inFiles := len(c.Problems)
	var here control.Unit // all of the main file
	for i := range c.Units {
		u := &c.Units[i]
		c.APIs, c.Clients = append(c.APIs, u.APIs...), append(c.Clients, u.Clients...)
		c.LeftOut, c.Elsewhere = append(c.LeftOut, u.LeftOut...), append(c.Elsewhere, u.Elsewhere...)
		if u.File == "" || !l.toServe {
			here.APIs, here.Clients = append(here.APIs, u.APIs...), append(here.Clients, u.Clients...)
		}
	}
	l.checkPlaces(here.APIs)
	if inFiles == 0 {
		_, err := certstore.NewIndex(here.Clients)
		c.Problems.Add(c.Place, err)
	}
	if len(c.APIs) == 0 && len(c.LeftOut) == 0 && len(l.errs) == 0 && !slices.ContainsFunc(c.Units, control.Unit.Fenced) {
		l.warnf(m.Place, "there are no APIs: every call is answered 404; add some under apis")
	}
}

// endFile adds the unit of an API file that was read to the configuration. In a gateway that serves, what is wrong since
// there were so many errors, problems and warnings is of this unit alone.
func (l *loader) endFile(errs, problems, warnings int) {
	u := l.unit
	u.Digest = [32]byte(l.made.Sum(nil))
	if l.toServe {
		l.checkPlaces(u.APIs)
		if len(l.errs) == errs && len(l.cfg.Problems) == problems {
			_, err := certstore.NewIndex(u.Clients)
			l.cfg.Problems.Add(u.Place, err)
		}
		if wrong := slices.Concat(l.errs[errs:], l.cfg.Problems[problems:]); len(wrong) > 0 {
			u.Problems = l.sorted(wrong)
			u.APIs, u.LeftOut, u.Clients, u.Elsewhere = nil, nil, nil, nil
			l.errs, l.cfg.Problems, l.warnings = l.errs[:errs], l.cfg.Problems[:problems], l.warnings[:warnings]
		}
	}
	if !u.Fenced() {
		u.Claims = nil
	}
	l.cfg.Units, l.unit = append(l.cfg.Units, *u), nil
}

// apiFiles reads the files that pattern matches and no earlier pattern did.
func (l *loader) apiFiles(main *source, pattern text, seen map[string]bool) {
	if strings.Contains(pattern.Value, "**") {
		l.errorf(pattern.Place, "** is not supported: name each folder, as in apis/*.yaml")
		return
	}
	glob := main.pattern(pattern.Value)
	l.cfg.Globs = append(l.cfg.Globs, glob)
	found, err := l.outside.glob(glob)
	switch {
	case err != nil:
		l.errorf(pattern.Place, "%s is no pattern: %v", printable.Quote(pattern.Value), err)
	case len(found) == 0:
		l.errorf(pattern.Place, "no file matches %s: add one, or remove the entry", printable.Quote(pattern.Value))
	case len(found) > maxAPIFiles:
		l.errorf(pattern.Place, "%s matches more than %d files", printable.Quote(pattern.Value), maxAPIFiles)
		return
	}
	for _, path := range found {
		if seen[path] {
			continue
		}
		seen[path] = true
		if path == main.path {
			l.errorf(pattern.Place,
				"%s matches this file itself: keep API files in a folder of their own", printable.Quote(pattern.Value))
			continue
		}
		l.apiFile(main.beside(path), pattern)
	}
}

const maxAPIFiles = 10_000

// apiFile reads one file with a list under `apis:`.
func (l *loader) apiFile(from *source, pattern text) {
	l.yaml = append(l.yaml, from.name)
	l.unit = &control.Unit{Place: control.Place{File: from.name}, File: from.path}
	l.made.Reset()
	defer l.endFile(len(l.errs), len(l.cfg.Problems), len(l.warnings))
	data, err := l.read(from.stead.actual(from.path), maxFile)
	if err != nil {
		l.errorf(pattern.Place, "API file %s: %v", from.name, err)
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
	api := control.API{Place: n.Place}
	api.API = certstore.API{Name: name.Value, Version: version.Value}
	api.Context = m.context()
	l.checkReserved(m, api.Context)
	api.Labels = m.labels()
	here := l.servedHere(api.Labels)
	if name.OK && version.OK {
		if err := api.API.Check(); err != nil {
			l.errorf(version.Place, "%v", err) // names are short enough
		}
		if other := l.namesake(api.API); here && other != nil {
			l.errorf(name.Place,
				"a second API %s, the first at %s: give it another name or version", api.API, other.Place)
		}
	}
	api.DefaultVersion = m.boolean("defaultVersion")
	if name.OK && version.OK && api.Context != "" && here {
		l.unit.Claims = append(l.unit.Claims, decision.Claim{API: api.API, Context: api.Context, DefaultVersion: api.DefaultVersion})
	}
	api.Hosts = m.hosts()
	m.apiSecurity(&api)
	if here {
		api.Listeners = l.apiListeners(m, &api)
		api.KeyManagers = l.apiKeyManagers(m, &api)
	} else { // others may have listeners and key managers that this gateway has not
		_, _ = m.texts("listeners")
		_, _ = m.texts("keyManagers")
	}
	api.Audiences = l.apiAudiences(m, &api)
	api.Tier = m.policy(ratelimit.Unlimited)
	for _, key := range []string{"unauthenticatedTier", "cors", "stripContext", "versionInPath"} {
		m.refuse(key, "is not built yet: remove it")
	}
	m.need("upstream", "where its calls go, as in {urls: [http://127.0.0.1:9000]}")
	m.upstream(&api)
	api.Keys = m.keys()
	api.MaxBody = m.bodySize("maxBodySize")
	api.ForwardAuthorization = m.boolean("forwardAuthorization")
	clients := l.unit.Clients
	l.clientCertificates(m, &api)
	l.scopesFrom(m, &api)
	m.paths(&api)
	api.Allow = m.allow()
	l.resources(m, &api)
	l.checkScopesFrom(m, &api)
	l.warnOfRules(m, &api)
	l.checkCase(&api)
	if u := l.unit; !here {
		u.Elsewhere = append(u.Elsewhere, u.Clients[len(clients):]...)
		u.Clients, u.LeftOut = clients, append(u.LeftOut, api)
	} else {
		u.APIs = append(u.APIs, api)
	}
}

// namesake returns the API of that name that was read before, or nil. In a gateway that serves, one of another file
// doesn't make this one wrong.
func (l *loader) namesake(api certstore.API) *control.API {
	find := func(u *control.Unit) *control.API {
		for i := range u.APIs {
			if u.APIs[i].API == api {
				return &u.APIs[i]
			}
		}
		return nil
	}
	for i := range l.cfg.Units {
		u := &l.cfg.Units[i]
		if l.toServe && u.File != l.unit.File {
			continue
		}
		if other := find(u); other != nil {
			return other
		}
	}
	return find(l.unit)
}

// paths reads `paths`.
func (m *mapping) paths(api *control.API) {
	s, _ := m.sub("paths")
	defer s.end()
	api.EncodedSlash = s.word("encodedSlash", "refuse", "refuse", "pass").Value == "pass"
	api.IgnoreCase = s.word("case", "exact", "exact", "ignore").Value == "ignore"
}

// checkCase refuses letters of which servers do not agree what their other case is.
func (l *loader) checkCase(api *control.API) {
	if !api.IgnoreCase {
		return
	}
	for _, path := range append([]string{api.Context}, templates(api.Resources)...) {
		if strings.ContainsFunc(message.Meaning(path), func(r rune) bool { return r >= 0x80 }) {
			l.errorf(api.Place, "under case: ignore contexts and resources are to be ASCII, and %s is not", printable.Quote(path))
		}
	}
}

func templates(resources []decision.Resource) (paths []string) {
	for _, r := range resources {
		paths = append(paths, r.Path)
	}
	return paths
}

// version reads `version`. A number is taken as it is written, so that 1.10 stays 1.10.
func (m *mapping) version() text {
	const key = "version"
	m.need(key, "as in 1.0.0")
	n, ok := m.take(key)
	if !ok {
		return text{Place: m.Place}
	}
	t := text{Place: n.Place}
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
			m.load.errorf(v.Place, "host %s: wildcards are not built yet: name each host", printable.Quote(v.Value))
		case !isHost(host):
			m.load.errorf(v.Place,
				"host %s is to be a name or an address, without scheme, port or trailing dot, in ASCII (xn--… for "+
					"others)", printable.Quote(v.Value))
		case slices.Contains(out, host):
			m.load.errorf(v.Place, "host %s is here twice: keep one", printable.Quote(v.Value))
		default:
			out = append(out, host)
		}
	}
	return out
}

// apiListeners returns the names of the listeners that serve api.
func (l *loader) apiListeners(m *mapping, api *control.API) []string {
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
			l.errorf(v.Place,
				"there is no listener %s: name one of %s, or add it under listeners",
				printable.Quote(v.Value), strings.Join(known, ", "))
			continue
		}
		onlyCertificates := api.Security.Certificate != policy.Off && api.Security.Token == policy.Off
		listener := &l.cfg.Listeners[at]
		if onlyCertificates && listener.TLS == nil && !listener.Believes {
			l.warnf(v.Place,
				"no call can pass here: %s asks for certificates, and listener %s is plain and believes no header",
				api.API, listener.Name)
		}
		out = append(out, v.Value)
	}
	return out
}

// defaultListeners returns the listeners of an API that names none: every TLS listener, and a plain one only if it
// believes the certificate header or the API does not use certificates.
func (l *loader) defaultListeners(m *mapping, api *control.API) []string {
	var out []string
	for i := range l.cfg.Listeners {
		listener := &l.cfg.Listeners[i]
		if listener.TLS != nil || listener.Believes || api.Security.Certificate == policy.Off {
			out = append(out, listener.Name)
		}
	}
	if len(out) == 0 && len(l.cfg.Listeners) > 0 && !m.broken {
		l.errorf(m.Place,
			"no listener serves this API: it uses certificates, and there is none with a keyStore or an open header "+
				"door; name its listeners, or add one")
	}
	return out
}

// apiKeyManagers returns the names of the key managers whose tokens api takes.
func (l *loader) apiKeyManagers(m *mapping, api *control.API) []string {
	var known []string
	for _, k := range l.cfg.KeyManagers {
		known = append(known, k.Value.Name)
	}
	values, given := m.texts("keyManagers")
	all := !given
	var named []string
	for _, v := range values {
		switch {
		case v.Value == "all" && len(values) > 1:
			l.errorf(v.Place, "keyManagers is [all] or names: keep one of both")
		case v.Value == "all":
			all = true
		case !slices.Contains(known, v.Value):
			l.errorf(v.Place, "there is no key manager %s: add it under keyManagers", printable.Quote(v.Value))
		default:
			named = append(named, v.Value)
		}
	}
	if api.Security.Token == policy.Off {
		if len(named) > 0 && len(api.Words) > 0 {
			l.errorf(m.find("keyManagers").Place,
				"keyManagers has no meaning without oauth2 in security: add oauth2, or remove it")
		}
		return nil
	}
	m.notEmpty("keyManagers", "no token is good then; say [all], or name some")
	if len(known) == 0 {
		l.errorf(m.Place,
			"the API takes tokens (oauth2), and there is no key manager: add one under keyManagers in the main file")
	}
	if all {
		return known
	}
	return named
}

func (l *loader) apiAudiences(m *mapping, api *control.API) []string {
	values, _ := m.texts("audiences")
	if len(values) > 0 && len(api.Words) > 0 && api.Security.Token == policy.Off {
		l.errorf(m.find("audiences").Place,
			"audiences has no meaning without oauth2 in security: add oauth2, or remove it")
	}
	if len(values) == 0 && api.Security.Token != policy.Off {
		for _, km := range l.cfg.KeyManagers {
			if km.Value.TakesOthers() && slices.Contains(api.KeyManagers, km.Value.Name) {
				l.warnf(m.Place, "an ID token of key manager %s that is not marked as one may pass for an access token here: "+
					"name the API's audiences, or set tokenType: at+jwt there if its access tokens have that typ", km.Value.Name)
			}
		}
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
func (l *loader) clientCertificates(m *mapping, api *control.API) {
	const key = "clientCertificates"
	values := m.nodes(key)
	if len(values) > 0 && len(api.Words) > 0 && api.Security.Certificate == policy.Off {
		l.errorf(m.find(key).Place,
			"%s has no meaning without mutualssl in security: add mutualssl, or remove them", key)
	}
	var own []control.Placed[certstore.Client]
	for _, n := range values {
		c := l.clientCertificate(n, api.API)
		for _, other := range own {
			if c.Alias != "" && other.Value.Alias == c.Alias && other.Value.KeyType == c.KeyType {
				l.errorf(n.Place,
					"a second %s certificate %s, the first in line %d: give each its own alias",
					c.KeyType, printable.Quote(c.Alias), other.Line)
			}
			if c.Certificate != nil && c.Certificate.Equal(other.Value.Certificate) {
				l.errorf(n.Place, "this certificate is registered for this API in line %d already: keep one", other.Line)
			}
		}
		if c.KeyType == certstore.Sandbox && len(api.Upstream.SandboxURLs) == 0 {
			l.warnf(n.Place,
				"a SANDBOX certificate reaches sandboxUrls only, and upstream has none: its calls are answered 403")
		}
		own = append(own, control.Placed[certstore.Client]{Place: n.Place, Value: c})
		l.unit.Clients = append(l.unit.Clients, c)
	}
}

func (l *loader) clientCertificate(n node, api certstore.API) certstore.Client {
	m := n.mapping("a client certificate")
	defer m.end()
	m.need("alias", "the name it is registered under")
	m.need("certificate", "a PEM or DER file")
	m.need("tier", "as in Gold")
	alias, tier, file := m.text("alias"), m.text("tier"), m.text("certificate")
	if alias.OK {
		if err := certstore.CheckAlias(alias.Value); err != nil {
			l.errorf(alias.Place, "%v", err)
		}
	}
	l.checkTier(tier)
	out := certstore.Client{API: api, Alias: alias.Value, Tier: tier.Value, Source: n.Place.String()}
	out.KeyType, _ = ask(m, "keyType", certstore.Production, certstore.ParseKeyType)
	out.Scopes = m.scopes("scopes", true)
	if !file.OK {
		out.Match = m.match(nil)
		return out
	}
	path := m.from.resolve(file.Value)
	data, err := l.read(path, certstore.MaxCertificate)
	switch {
	case err != nil:
		l.errorf(file.Place, "certificate %s: %v", printable.Quote(file.Value), err)
	case len(data) == 0:
		l.errorf(file.Place, "certificate %s: the file is empty", printable.Quote(file.Value))
	default:
		if out.Certificate, err = certstore.ParseCertificate(data); err != nil {
			// Not an error of the file that is read here: what else cannot be opened is to be told with it.
			l.cfg.Problems.Add(n.Place, fmt.Errorf("certificate %s: %w", path, err))
			break
		}
		out.Fingerprint = certstore.Fingerprint(out.Certificate)
	}
	out.Match = m.match(out.Certificate)
	return out
}

// scopes reads the scopes under key; anyScope allows "*" for all.
func (m *mapping) scopes(key string, anyScope bool) []string {
	values, _ := m.texts(key)
	for _, v := range values {
		if v.Value == "*" && !anyScope {
			m.load.errorf(v.Place, "scope \"*\" is for client certificates: name scopes here, or remove the list")
		} else if err := certstore.CheckScope(v.Value); err != nil {
			m.load.errorf(v.Place, "%v", err)
		}
	}
	return plain(values)
}
