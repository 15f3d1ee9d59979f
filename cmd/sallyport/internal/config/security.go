package config

import (
	"slices"
	"strings"
)

// securityWords are those of `security:`; the ones of notBuiltSecurity have a meaning that isn't built.
var (
	securityWords    = []string{"mutualssl", "mutualssl_mandatory", "oauth2", "oauth_basic_auth_api_key_mandatory", "none"}
	notBuiltSecurity = []string{"basic_auth", "api_key"}
)

// uses says whether a takes the credential, "mutualssl" or "oauth2".
func (a *API) uses(credential string) bool {
	return slices.Contains(a.Security, credential) ||
		credential == "mutualssl" && slices.Contains(a.Security, "mutualssl_mandatory")
}

// apiSecurity reads an API's `security`. There is no default: an API that is open, or closed, says so.
func (m *mapping) apiSecurity() []string {
	m.need("security", "as in [mutualssl], [oauth2], [mutualssl, oauth2], or [none] for an open API")
	words, at := m.securityWords()
	has := func(word string) bool { return slices.Contains(words, word) }
	if has("oauth_basic_auth_api_key_mandatory") && !has("oauth2") {
		m.load.errorf(at, "oauth_basic_auth_api_key_mandatory needs oauth2 in the list: add it")
	}
	return words
}

// securityWords reads the words under `security`, and where they are.
func (m *mapping) securityWords() (words []string, at Pos) {
	values, given := m.texts("security")
	if !given {
		return nil, m.Pos
	}
	at = m.find("security").Pos
	m.notEmpty("security", "name what is asked for, or say [none] for open")
	for _, v := range values {
		switch {
		case slices.Contains(securityWords, v.Value):
			words = append(words, v.Value)
		case slices.Contains(notBuiltSecurity, v.Value):
			m.load.errorf(v.Pos, "security %s is not built yet: use mutualssl or oauth2", v.Value)
		default:
			m.load.errorf(v.Pos, "security words are %s, not %s", strings.Join(securityWords, ", "), quote(v.Value))
		}
	}
	if len(words) > 1 && slices.Contains(words, "none") {
		m.load.errorf(at, "none stands alone: remove it, or the others")
	}
	return words, at
}

// resourceSecurity reads a resource's `security`, nil if it has none: open, or just as its API.
func (m *mapping) resourceSecurity(api *API) []string {
	words, at := m.securityWords()
	if len(words) == 0 || len(api.Security) == 0 {
		return nil
	}
	switch open := slices.Equal(words, []string{"none"}); {
	case open && slices.Contains(api.Security, "mutualssl_mandatory"):
		m.load.errorf(at, "no resource can be open under mutualssl_mandatory: remove security here, or move the resource to another API")
	case !open && !slices.Equal(slices.Sorted(slices.Values(words)), slices.Sorted(slices.Values(api.Security))):
		m.load.errorf(at, "security of a resource other than [none] is not built yet: remove it, and it has its API's")
	}
	return words
}
