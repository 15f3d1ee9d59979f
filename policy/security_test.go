package policy_test

import (
	"strings"
	"testing"

	"sallyport/policy"
)

func TestParseSecurity(t *testing.T) {
	for _, c := range []struct {
		words, precedence string
		want              policy.Security
		err               string // part of it; empty: none
	}{
		{"none", "certificate", policy.Security{Open: true}, ""},
		{"mutualssl", "certificate", policy.Security{Certificate: policy.Optional}, ""},
		{"mutualssl_mandatory", "certificate", policy.Security{Certificate: policy.Mandatory}, ""},
		{"mutualssl mutualssl_mandatory", "certificate", policy.Security{Certificate: policy.Mandatory}, ""},
		{"mutualssl_mandatory mutualssl", "certificate", policy.Security{Certificate: policy.Mandatory}, ""},
		{"oauth2", "certificate", policy.Security{Token: policy.Optional}, ""},
		{"oauth2 oauth_basic_auth_api_key_mandatory", "certificate", policy.Security{Token: policy.Mandatory}, ""},
		{"mutualssl oauth2", "token", policy.Security{Certificate: policy.Optional, Token: policy.Optional, Precedence: policy.TokenFirst}, ""},
		{"", "certificate", policy.Security{}, "security is empty"},
		{"none mutualssl", "certificate", policy.Security{}, "none stands alone"},
		{"oauth2 none", "certificate", policy.Security{}, "none stands alone"},
		{"oauth_basic_auth_api_key_mandatory", "certificate", policy.Security{}, "needs oauth2"},
		{"None", "certificate", policy.Security{}, `not "None"`},
		{"mutualssl api_key", "certificate", policy.Security{}, "api_key is not built yet"},
		{"basic_auth", "certificate", policy.Security{}, "basic_auth is not built yet"},
		{"mutualssl", "", policy.Security{}, "neither certificate nor token"},
		{"mutualssl", "Token", policy.Security{}, "neither certificate nor token"},
	} {
		precedence, err := policy.ParsePrecedence(c.precedence)
		var got policy.Security
		if err == nil {
			got, err = policy.ParseSecurity(strings.Fields(c.words), precedence)
		}
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("[%s] %s: %+v, %v; want %+v, %q", c.words, c.precedence, got, err, c.want, c.err)
		}
	}
}
