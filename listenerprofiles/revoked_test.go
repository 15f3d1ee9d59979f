package listenerprofiles

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/eachfield"
	"sallyport/listenerprofiles/revocation"
)

const (
	looksUpHere = "<CertificateRevocationVerifier><Enable>true</Enable><CacheSize>1024</CacheSize><CacheDelay>2</CacheDelay></CertificateRevocationVerifier>"
	leafsOnly   = "<CertificateRevocationVerifier><Enable>true</Enable><CacheSize>1024</CacheSize><CacheDelay>2</CacheDelay><FullChainValidation>false</FullChainValidation></CertificateRevocationVerifier>"
	offHere     = "<CertificateRevocationVerifier><Enable>false</Enable></CertificateRevocationVerifier>"
)

// TestRevocationOfProfiles: a profile has its own revocation, else the listener's. One that is laxer than the listener
// is named, and where a client could choose it by a server name the file is refused.
func TestRevocationOfProfiles(t *testing.T) {
	here := revocation.Policy{OCSP: true, DistributionPoints: true, CacheSize: 1024, Refresh: 2 * time.Minute}
	leafs := here
	leafs.LeafOnly = true
	own := revocation.Policy{CRL: []string{"/a.crl"}}
	for _, tt := range []struct {
		name     string
		own      revocation.Policy
		profiles []string
		want     []revocation.Policy // of the profiles, then of the listener's own
		says     string              // part of the only warning, or of the error if there is no want
	}{
		{"nobody says", revocation.Policy{}, []string{"10.0.0.1"}, []revocation.Policy{{}, {}}, ""},
		{"the listener says", own, []string{"10.0.0.1", "10.0.0.2 verify=require"}, []revocation.Policy{own, own, own}, ""},
		{"not of who asks for nobody", own, []string{"10.0.0.1 verify=none"}, []revocation.Policy{{}, own}, ""},
		{"the profile says", revocation.Policy{}, []string{"10.0.0.1 " + looksUpHere}, []revocation.Policy{here, {}}, ""},
		{
			"the profile says less of issuers", here,
			[]string{"10.0.0.1 " + leafsOnly},
			[]revocation.Policy{leafs, here},
			"listenerprofiles.xml:2:184: <CertificateRevocationVerifier>: profile 10.0.0.1: this profile is laxer than revocation of its listener: it does not look issuers up",
		},
		{
			"the profile is off", own,
			[]string{"10.0.0.1 " + offHere},
			[]revocation.Policy{{}, own},
			"profile 10.0.0.1: this profile is laxer than revocation of its listener: it looks nothing up",
		},
		{
			"the profile says something else", own,
			[]string{"10.0.0.1 " + looksUpHere},
			[]revocation.Policy{here, own},
			`this profile is laxer than revocation of its listener: it does not read the CRL "/a.crl"`,
		},
		{
			"a name that is stricter than what serves unknown names",
			revocation.Policy{},
			[]string{"10.0.0.1 name=a.test " + looksUpHere},
			nil,
			"listenerprofiles.xml:2: <CertificateRevocationVerifier>: unknown server names on the socket of profile 10.0.0.1 a.test are served by listener https, whose revocation must be as strict: it looks nothing up",
		},
		{
			"a nameless one that is laxer", here,
			[]string{"10.0.0.1 name=*.test", "10.0.0.1 " + offHere},
			nil,
			"are served by profile 10.0.0.1, whose revocation must be as strict",
		},
		{"a name that is laxer", own, []string{"10.0.0.1", "10.0.0.1 name=a.test " + offHere}, []revocation.Policy{own, {}, own}, "it looks nothing up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.xml(t, tt.profiles...)
			cfg := f.config()
			cfg.Own.Revocation = tt.own
			set, err := Load(cfg, nil)
			if err != nil || tt.want == nil {
				if tt.want != nil || err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("%v, want %s", err, tt.says)
				}
				return
			}
			var got []revocation.Policy
			for _, p := range set.Profiles() {
				got = append(got, p.Revocation)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			warning := fmt.Sprint(errors.Join(set.Warnings()...))
			if tt.says == "" && len(set.Warnings()) > 0 || !strings.Contains(warning, tt.says) {
				t.Errorf("warnings %s, want %q", warning, tt.says)
			}
		})
	}
}

// TestRevocationIsReloaded: every field makes another profile with other keys of session tickets, and what has not
// changed is taken over.
func TestRevocationIsReloaded(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1")
	cfg := f.config()
	cfg.Own.Revocation = revocation.Policy{CRL: []string{"/a.crl"}, OCSP: true}
	first, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, changed := range eachfield.Change(cfg.Own.Revocation) {
		other := cfg
		other.Own.Revocation = changed
		next, err := Load(other, first)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for i, p := range next.Profiles() {
			if last := first.Profiles()[i]; p == last || p.made.clients == last.made.clients {
				t.Errorf("a change of %s passes %s by", path, p.Name)
			}
		}
	}
	same := cfg
	same.Own.Revocation.CRL = []string{"/a.crl"}
	if next, err := Load(same, first); err != nil || next != first {
		t.Errorf("nothing has changed, and the set did: %v", err)
	}
}

// TestLaxerRevocation: of two policies that differ in one field, one is laxer, unless it is about how often is asked.
func TestLaxerRevocation(t *testing.T) {
	base := revocation.Policy{CRL: []string{"/a.crl"}, OCSP: true, MaxAge: time.Hour}
	for path, changed := range eachfield.Change(base) {
		there, back := laxerRevocation(base, changed), laxerRevocation(changed, base)
		switch path {
		case "Refresh", "CacheSize":
			if there != "" || back != "" {
				t.Errorf("%s: laxer: %q, %q", path, there, back)
			}
		case "CRL[0]": // another list
			if there == "" || back == "" {
				t.Errorf("%s: %q, %q", path, there, back)
			}
		default:
			if (there == "") == (back == "") {
				t.Errorf("%s: laxer: %q, %q; want one", path, there, back)
			}
		}
	}
}

// TestGoneRevocation: a profile with revocation does not leave its clients to one without.
func TestGoneRevocation(t *testing.T) {
	f := newFixture(t)
	last := f.load(t, "10.0.0.1 "+looksUpHere, "10.0.0.2")
	next := f.load(t, "10.0.0.2")
	const want = "profile 10.0.0.1 is gone, and listener https would serve its clients, which is laxer: of revocation, it looks nothing up"
	if err := next.Succeeds(last); err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	if got := next.Find(netip.MustParseAddr("10.0.0.1"), "").Revocation; !cmp.Equal(got, revocation.Policy{}) {
		t.Errorf("%+v", got)
	}
}
