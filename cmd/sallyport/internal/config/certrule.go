package config

import (
	"crypto/x509"
	"slices"

	"sallyport/gateway/control"
	"sallyport/gateway/decision"
	"sallyport/internal/printable"
	"sallyport/policy"
	"sallyport/policy/certrule"
)

// match reads `match` of the registration of that certificate, which is nil if it can't be read.
func (m *mapping) match(certificate *x509.Certificate) *certrule.Matcher {
	const key = "match"
	s, given := m.sub(key)
	defer s.end()
	var match certrule.Match
	before := len(m.load.errs)
	for _, name := range certrule.Keys() {
		s.notEmpty(name, "name some, or remove the key")
		values, _ := s.texts(name)
		for _, v := range values {
			if err := match.Add(name, v.Value); err != nil {
				m.load.errorf(v.Place, "%v", err)
			}
		}
	}
	if !given || s.broken || len(m.load.errs) > before {
		return nil
	}
	compiled, err := match.Compile()
	switch {
	case err != nil:
		m.load.errorf(s.Place, "%v", err)
	case compiled.IsZero() && len(s.entries) == 0:
		m.load.errorf(s.Place, "match has no key, and every leaf would count: give it some, or remove it")
	case certificate != nil && (!certificate.BasicConstraintsValid || !certificate.IsCA):
		m.load.errorf(s.Place, "match says which certificates of a CA count, and this certificate is no CA's: remove it")
	default:
		return compiled
	}
	return nil
}

// scopesFrom reads `scopesFrom`.
func (l *loader) scopesFrom(m *mapping, api *control.API) {
	const key = "scopesFrom"
	s, given := m.sub(key)
	defer s.end()
	if !given || s.broken {
		return
	}
	if len(api.Words) > 0 && api.Security.Certificate == policy.Off {
		l.errorf(m.find(key).Place, "%s has no meaning without mutualssl in security: add mutualssl, or remove it", key)
	}
	before := len(l.errs)
	from := certrule.ScopesFrom{SubjectOU: s.roles("subjectOU", "subjectOU"), SANURI: s.roles("sanURI", "sanURI")}
	e, hasExtension := s.sub("extension")
	if hasExtension && !e.broken {
		e.need("oid", "as in 1.3.6.1.4.1.99999.1")
		e.need("values", "a map to scopes, as in {gold: [orders:write]}")
		if oid := e.text("oid"); oid.OK {
			if err := certrule.CheckExtension(oid.Value); err != nil {
				l.errorf(oid.Place, "%v", err)
			}
			from.Extension.OID = oid.Value
		}
		from.Extension.Values = e.roles("values", "extension")
	}
	e.end()
	from.PSD2Roles = s.roles("psd2Roles", "psd2Roles")
	if len(l.errs) > before {
		return
	}
	roles, err := from.Compile()
	switch {
	case err != nil:
		l.errorf(s.Place, "%v", err)
	case roles == nil && len(s.entries) == 0:
		l.errorf(s.Place, "scopesFrom has no key: give it some, or remove it")
	}
	api.ScopesFrom = roles
}

// roles reads the map under key from what a certificate says to scopes; kind is what certrule.CheckRole has it for.
func (m *mapping) roles(key, kind string) map[string][]string {
	s, given := m.sub(key)
	if !given || s.broken {
		return nil
	}
	if len(s.entries) == 0 {
		m.load.errorf(s.Place, "%s is empty: name some, or remove the key", key)
	}
	roles := map[string][]string{}
	for _, e := range slices.Clone(s.entries) {
		if err := certrule.CheckRole(kind, e.key); err != nil {
			m.load.errorf(e.Place, "%v", err)
		}
		s.notEmpty(e.key, "name the scopes that it stands for, or remove it")
		roles[e.key] = s.scopes(e.key, true)
	}
	return roles
}

// checkScopesFrom warns of roles that no resource asks for.
func (l *loader) checkScopesFrom(m *mapping, api *control.API) {
	if api.ScopesFrom == nil {
		return
	}
	if !slices.ContainsFunc(api.Resources, func(r decision.Resource) bool { return len(r.Scopes) > 0 }) {
		l.warnf(m.find("scopesFrom").Place, "scopesFrom changes nothing: no resource of %s asks for scopes; name them at its resources", printable.Text(api.API.String()))
	}
}
