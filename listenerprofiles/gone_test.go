package listenerprofiles

import (
	"strings"
	"testing"
)

// TestGone: a profile that goes away leaves its clients to one that is as strict, or the set does not succeed the one
// before it. The listener's own settings are optional and trust trust.pem.
func TestGone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before []string
		after  []string
		gone   string // profiles and what serves instead
		laxer  string // part of the only problem; empty: none
	}{
		{"nothing", []string{"0.0.0.0"}, []string{"0.0.0.0"}, "", ""},
		{"a laxer word of the same profile", []string{"0.0.0.0 verify=require"}, []string{"0.0.0.0 verify=none"}, "", ""},
		{"another order", []string{"10.0.0.1", "0.0.0.0"}, []string{"0.0.0.0", "10.0.0.1"}, "", ""},
		{"to the listener's own", []string{"10.0.0.1", "10.0.0.2"}, []string{"10.0.0.2"}, "10.0.0.1 > listener https", ""},
		{
			"to the laxer listener's own",
			[]string{"10.0.0.1 verify=require", "10.0.0.2"},
			[]string{"10.0.0.2"},
			"10.0.0.1 > listener https", "profile 10.0.0.1 is gone, and listener https would serve its clients, which is laxer: SSLVerifyClient is optional and not require",
		},
		{
			"a name to the nameless",
			[]string{"0.0.0.0 verify=require", "0.0.0.0 name=a.test verify=require"},
			[]string{"0.0.0.0 verify=require"},
			"0.0.0.0 a.test > profile 0.0.0.0", "",
		},
		{
			"a name to a laxer wildcard",
			[]string{"0.0.0.0 verify=require", "0.0.0.0 name=a.test verify=require", "0.0.0.0 name=*.test verify=optional"},
			[]string{"0.0.0.0 verify=require", "0.0.0.0 name=*.test verify=optional"},
			"0.0.0.0 a.test > profile 0.0.0.0 *.test", "listenerprofiles.xml:3: <profile>: profile 0.0.0.0 a.test is gone, and profile 0.0.0.0 *.test would",
		},
		{
			"a wildcard to a laxer nameless",
			[]string{"0.0.0.0 verify=require", "0.0.0.0 name=*.test verify=require"},
			[]string{"0.0.0.0 verify=optional"},
			"0.0.0.0 *.test > profile 0.0.0.0", "SSLVerifyClient is optional",
		},
		{
			"an address to any",
			[]string{"10.0.0.1 verify=require", "0.0.0.0 verify=none"},
			[]string{"0.0.0.0 verify=none"},
			"10.0.0.1 > profile 0.0.0.0", "SSLVerifyClient is none",
		},
		{
			"the fallback of an address that stays",
			[]string{"10.0.0.1 name=a.test", "0.0.0.0 verify=require"},
			[]string{"10.0.0.1 name=a.test"},
			"0.0.0.0 > listener https", "SSLVerifyClient is optional",
		},
		{
			"to one that trusts others",
			[]string{"10.0.0.1 trust=other.pem", "10.0.0.2"},
			[]string{"10.0.0.2"},
			"10.0.0.1 > listener https", "TrustStore also trusts",
		},
		{"to a stricter one", []string{"10.0.0.1 verify=none", "10.0.0.2"}, []string{"10.0.0.2"}, "10.0.0.1 > listener https", ""},
		{
			"a new name that is laxer",
			[]string{"10.0.0.1 verify=require"},
			[]string{"10.0.0.1 name=a.test verify=optional"},
			"10.0.0.1 > listener https", "SSLVerifyClient is optional",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			last := f.load(t, tt.before...)
			next := f.load(t, tt.after...)
			var gone []string
			for _, g := range next.Gone(last) {
				gone = append(gone, strings.TrimPrefix(g.Profile.Name, "profile ")+" > "+g.By.Name)
			}
			if tt.gone == "" && len(gone) > 0 || tt.gone != "" && (len(gone) == 0 || gone[0] != tt.gone) {
				t.Errorf("gone: %q, want %q", gone, tt.gone)
			}
			err := next.Succeeds(last)
			if (err == nil) != (tt.laxer == "") || err != nil && !strings.Contains(err.Error(), tt.laxer) {
				t.Errorf("succeeds: %v, want %q", err, tt.laxer)
			}
			if err := next.Succeeds(nil); err != nil {
				t.Errorf("at a start: %v", err)
			}
		})
	}
}
