package config

import (
	"sallyport/gateway/control"
	"sallyport/policy"
)

// apiSecurity reads an API's `precedence` and `security`. The latter has no default: an open API must say so.
func (m *mapping) apiSecurity(api *control.API) {
	precedence, _ := ask(m, "precedence", policy.CertificateFirst, policy.ParsePrecedence)
	m.need("security", "as in [mutualssl], [oauth2], [mutualssl, oauth2], or [none] for an open API")
	api.Words, api.Security = m.security(precedence)
}

// security reads the words under `security` and what they demand; neither if they are invalid.
func (m *mapping) security(precedence policy.Precedence) (words []string, demands policy.Security) {
	values, given := m.texts("security")
	if !given {
		return nil, demands
	}
	before := len(m.load.errs)
	for _, v := range values {
		if _, err := policy.ParseWord(v.Value); err != nil {
			m.load.errorf(v.Place, "%v", err)
		}
	}
	if len(m.load.errs) > before {
		return nil, demands
	}
	words = plain(values)
	demands, err := policy.ParseSecurity(words, precedence)
	if err != nil {
		m.load.errorf(m.find("security").Place, "%v", err)
		words = nil
	}
	return words, demands
}

// resourceSecurity reads a resource's `security`: open, or just as its API's, which is the default.
func (m *mapping) resourceSecurity(api *control.API) policy.Security {
	words, demands := m.security(api.Security.Precedence)
	switch {
	case len(words) == 0 || len(api.Words) == 0:
		return api.Security
	case demands.Open && api.Security.Certificate == policy.Mandatory:
		m.load.errorf(m.find("security").Place,
			"no resource can be open under mutualssl_mandatory: remove security here, or move the resource to another "+
				"API")
	case !demands.Open && demands != api.Security:
		m.load.errorf(m.find("security").Place,
			"security of a resource other than [none] is not built yet: remove it, and it has its API's")
	}
	return demands
}
