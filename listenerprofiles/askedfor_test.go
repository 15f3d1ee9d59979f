package listenerprofiles

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sallyport/listenerprofiles/trust"
)

// namesOf returns the common names of a CertificateRequest's subjects.
func namesOf(t *testing.T, subjects [][]byte) (names []string) {
	t.Helper()
	for _, raw := range subjects {
		var rdns pkix.RDNSequence
		if rest, err := asn1.Unmarshal(raw, &rdns); err != nil || len(rest) > 0 {
			t.Errorf("%x: %v", raw, err)
		}
		var name pkix.Name
		name.FillFromRDNSequence(&rdns)
		names = append(names, name.CommonName)
	}
	return names
}

func trustOf(t *testing.T, parties ...*party) *trust.Anchors {
	t.Helper()
	var certs []*x509.Certificate
	for _, p := range parties {
		certs = append(certs, p.cert)
	}
	trust, err := trust.New(certs)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// Whoever is named in addition sends its certificate, as Go's clients decide it by the names, and is trusted no more than
// without it.
func TestAlsoAskFor(t *testing.T) {
	f := newFixture(t)
	balancers := issue(t, "Balancers", nil, isCA)
	balancer := issue(t, "balancer", balancers)
	f.xml(t, "127.0.0.1 name=opt.test", "127.0.0.1 name=mtls.test verify=require", "127.0.0.1 name=open.test verify=none", "127.0.0.1 verify=require")
	for _, version := range bothVersions {
		for _, also := range []*trust.Anchors{nil, trustOf(t, balancers), trustOf(t, f.ca, balancers, balancers)} {
			cfg := f.config()
			cfg.AlsoAskFor = also
			set, err := Load(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			call := func(name string, client *party) (string, []string, error) {
				asked := []string{"nobody"}
				c := f.clientConfig(name, nil)
				c.MinVersion, c.MaxVersion = version, version
				c.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					asked = namesOf(t, r.AcceptableCAs)
					cert := client.tls()
					if r.SupportsCertificate(&cert) != nil {
						return new(tls.Certificate), nil
					}
					return &cert, nil
				}
				got, _, err := callInMemory(func() *Set { return set }, c)
				return got, asked, err
			}
			names, sent := []string{"CA"}, "nobody; resumed false"
			if also != nil {
				names, sent = []string{"CA", "Balancers"}, "balancer; resumed false; not trusted"
			}
			if got, asked, err := call("opt.test", balancer); err != nil || got != "profile 127.0.0.1 opt.test; "+sent || !slices.Equal(asked, names) {
				t.Errorf("%q, asked %v, %v", got, asked, err)
			}
			if got, asked, err := call("opt.test", f.client); err != nil || got != "profile 127.0.0.1 opt.test; client; resumed false" || !slices.Equal(asked, names) {
				t.Errorf("%q, asked %v, %v", got, asked, err)
			}
			if got, _, err := call("mtls.test", balancer); got != "" || err == nil {
				t.Errorf("let in: %q", got)
			}
			if got, asked, err := call("open.test", balancer); err != nil || got != "profile 127.0.0.1 open.test; nobody; resumed false" || asked[0] != "nobody" {
				t.Errorf("%q, asked %v, %v", got, asked, err)
			}
			for _, p := range set.Profiles() {
				if got := len(p.Trust.Certificates()); got != 1 {
					t.Errorf("%s trusts %d", p.Name, got)
				}
			}
		}
	}
}

// What is asked for in addition is part of a profile: with other names it is another one.
func TestAlsoAskForIsPartOfProfile(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	load := func(also *trust.Anchors, last *Set) *Set {
		t.Helper()
		cfg := f.config()
		cfg.AlsoAskFor = also
		set, err := Load(cfg, last)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	none := load(nil, nil)
	one := load(trustOf(t, f.other), none)
	if one == none || one.Profiles()[0] == none.Profiles()[0] || one.Digest() == none.Digest() {
		t.Error("one CA more, and all is as it was")
	}
	if load(trustOf(t, f.other), one) != one {
		t.Error("the same again is another set")
	}
	if two := load(trustOf(t, f.other, f.client), one); two.Profiles()[0] == one.Profiles()[0] {
		t.Error("two CAs are one")
	}
	if load(nil, one).Digest() != none.Digest() {
		t.Error("without it is not as it was")
	}
}

// Many names would make a message that no client reads. It is sent without any, which asks for a certificate of whomever.
func TestTooManyNamesToAskFor(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	var many []*party
	for i := range 20 {
		many = append(many, issue(t, strings.Repeat("x", 5000)+fmt.Sprint(i), nil, isCA))
	}
	cfg := f.config()
	cfg.AlsoAskFor = trustOf(t, many...)
	set, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range bothVersions {
		cert := f.client.tls()
		c := f.clientConfig("", nil)
		c.MinVersion, c.MaxVersion, c.Certificates = version, version, []tls.Certificate{cert}
		if got, _, err := callInMemory(func() *Set { return set }, c); err != nil || got != "profile 127.0.0.1; client; resumed false" {
			t.Errorf("%s: %q, %v", tls.VersionName(version), got, err)
		}
	}
}
