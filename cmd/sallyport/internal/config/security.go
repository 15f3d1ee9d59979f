package config

import "sallyport/policy"

// apiSecurity reads an API's `precedence` and `security`. The latter has no default: an open API must say so.
func (m *mapping) apiSecurity(api *API) {
	api.Precedence = ask(m, "precedence", policy.CertificateFirst.String(), policy.ParsePrecedence).Value
	m.need("security", "as in [mutualssl], [oauth2], [mutualssl, oauth2], or [none] for an open API")
	api.Security, api.demands, _ = m.security(api.Precedence)
}

// security reads the words under `security`, their place, and what they demand; none of it if they are invalid.
func (m *mapping) security(precedence string) (words []string, demands policy.Security, at Pos) {
	values, given := m.texts("security")
	if !given {
		return nil, demands, m.Pos
	}
	at = m.find("security").Pos
	before := len(m.load.errs)
	for _, v := range values {
		if _, err := policy.ParseWord(v.Value); err != nil {
			m.load.errorf(v.Pos, "%v", err)
		}
	}
	if len(m.load.errs) > before {
		return nil, demands, at
	}
	words = plain(values)
	demands, err := policy.ParseSecurity(words, precedence)
	if err != nil {
		m.load.errorf(at, "%v", err)
		words = nil
	}
	return words, demands, at
}

// resourceSecurity reads a resource's `security`, nil if it has none: open, or just as its API.
func (m *mapping) resourceSecurity(api *API) (words []string, demands policy.Security) {
	words, demands, at := m.security(api.Precedence)
	switch {
	case len(words) == 0 || len(api.Security) == 0:
		return nil, api.demands
	case demands.Open && api.demands.Certificate == policy.Mandatory:
		m.load.errorf(at,
			"no resource can be open under mutualssl_mandatory: remove security here, or move the resource to another "+
				"API")
	case !demands.Open && demands != api.demands:
		m.load.errorf(at, "security of a resource other than [none] is not built yet: remove it, and it has its API's")
	}
	return words, demands
}
