package decision

import (
	"strings"
	"testing"

	"sallyport/policy"
)

// TestToPresent: a caller who presented nothing is told what this API takes, and nothing that wouldn't help.
func TestToPresent(t *testing.T) {
	for _, c := range []struct {
		certificate, token policy.Want
		names              string // of what is asked for
	}{
		{policy.Optional, policy.Off, "certificate"},
		{policy.Mandatory, policy.Off, "certificate"},
		{policy.Mandatory, policy.Optional, "certificate"},
		{policy.Off, policy.Optional, "token"},
		{policy.Optional, policy.Mandatory, "token"},
		{policy.Optional, policy.Optional, "certificate or token"},
		{policy.Mandatory, policy.Mandatory, "certificate and token"},
	} {
		x := &Exchange{Resource: &Resource{Security: policy.Security{Certificate: c.certificate, Token: c.token}}}
		body := refuse(MissingCredentials, nil).body(x.wanted())
		var named []string
		for _, what := range []string{"certificate", " or ", " and ", "token"} {
			if strings.Contains(body, what) {
				named = append(named, strings.TrimSpace(what))
			}
		}
		if got := strings.Join(named, " "); got != c.names {
			t.Errorf("certificate %s, token %s: asks for %q, want %q: %s", c.certificate, c.token, got, c.names, body)
		}
	}
}
