package listenerprofiles

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var bothVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// A1, A2: a ticket of any profile, offered to any other, leads to the full handshake that a client without a ticket has:
// it is asked for a certificate, and is let in or not by the one that it shows now. A9, in that no two profiles have a
// key in common.
func TestTicketsDoNotCrossProfiles(t *testing.T) {
	f := newFixture(t)
	stranger := issue(t, "stranger", f.other)
	set := f.load(t,
		"127.0.0.1 name=open.test verify=none",
		"127.0.0.1 name=opt.test",
		"127.0.0.1 name=mtls.test verify=require",
		"127.0.0.1 name=other.test verify=require trust=other.pem",
		"127.0.0.1 name=*.wild.test",
		"127.0.0.1 name=hard.wild.test verify=require",
		"127.0.0.1 verify=require")
	names := []string{"open.test", "opt.test", "mtls.test", "other.test", "a.wild.test", "hard.wild.test", ""}
	get := func() *Set { return set }
	for _, version := range bothVersions {
		call := func(name string, client *party, cache tls.ClientSessionCache) (string, bool) {
			cfg := f.clientConfig(name, client)
			cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, cache
			got, _, err := callInMemory(get, cfg)
			return got, err == nil
		}
		for _, from := range names {
			for _, client := range []*party{nil, f.client, stranger} {
				cache := &oneTicket{}
				if _, ok := call(from, client, cache); !ok || cache.state == nil {
					continue // no ticket without a handshake
				}
				cache.frozen = true
				if got, ok := call(from, client, cache); !ok || !strings.Contains(got, "resumed true") {
					t.Errorf("%s, ticket of %q, offered there: %q", tls.VersionName(version), from, got)
				}
				for _, to := range names {
					if to == from {
						continue
					}
					for _, now := range []*party{nil, f.client} {
						got, ok := call(to, now, cache)
						want, wantOK := call(to, now, nil)
						if got != want || ok != wantOK || strings.Contains(got, "resumed true") {
							t.Errorf("%s, ticket of %q, offered to %q: %q, want %q", tls.VersionName(version), from, to, got, want)
						}
					}
				}
			}
		}
	}
}

// A6: an optional handshake takes whatever certificate, and gives a ticket for it. The standard library does not judge it
// when it is resumed: whoever is served has to, each time.
func TestResumedStrangerStaysAStranger(t *testing.T) {
	f := newFixture(t)
	set := f.load(t, "127.0.0.1")
	tests := []struct {
		who    string
		client *party
		want   string
	}{
		{"self-signed", issue(t, "client", nil), "; not trusted"},
		{"of another CA", issue(t, "client", f.other), "; not trusted"},
		{"of a CA of the same name", issue(t, "client", issue(t, "CA", nil, isCA)), "; not trusted"},
		{"trusted", f.client, ""},
	}
	for _, tt := range tests {
		for _, version := range bothVersions {
			cfg := f.clientConfig("", tt.client)
			cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, &oneTicket{}
			for i, resumed := range []bool{false, true, true} {
				want := fmt.Sprintf("profile 127.0.0.1; client; resumed %v%s", resumed, tt.want)
				if got, _, err := callInMemory(func() *Set { return set }, cfg); err != nil || got != want {
					t.Errorf("%s %s, call %d: %q, %v, want %q", tls.VersionName(version), tt.who, i, got, err, want)
				}
			}
		}
	}
}

// A7: the leaf and the root are good for long, and the intermediate ends between handshake and resumption.
func TestIntermediateEndsBeforeResumption(t *testing.T) {
	f := newFixture(t)
	for _, verify := range []string{"require", "optional"} {
		for _, version := range bothVersions {
			f.xml(t, "127.0.0.1 verify="+verify)
			synctest.Test(t, func(t *testing.T) { // begins on 1 January 2000
				between := issue(t, "Between", f.ca, isCA, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
				leaf := issue(t, "client", between)
				set, err := Load(f.config(), nil)
				if err != nil {
					t.Fatal(err)
				}
				serving := func() *Set { return set }
				cfg := f.clientConfig("", nil)
				cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, &oneTicket{}
				cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return &tls.Certificate{Certificate: [][]byte{leaf.cert.Raw, between.cert.Raw}, PrivateKey: leaf.key}, nil
				}
				for _, want := range []string{"resumed false", "resumed true"} {
					if got, _, err := callInMemory(serving, cfg); err != nil || !strings.HasSuffix(got, want) {
						t.Errorf("%q, %v, want %s", got, err, want)
					}
				}
				time.Sleep(time.Hour + time.Second)
				got, _, err := callInMemory(serving, cfg)
				if verify == "require" && (got != "" || err == nil) {
					t.Errorf("%s: let in: %q", tls.VersionName(version), got)
				}
				if verify == "optional" && (err != nil || !strings.HasSuffix(got, "resumed true; not trusted")) {
					t.Errorf("%s: %q, %v", tls.VersionName(version), got, err)
				}
			})
		}
	}
}

// A8: after a restart, or with a new generation of the profile, old tickets lead to full handshakes, which clients don't
// notice.
func TestTicketsOfAnotherGeneration(t *testing.T) {
	f := newFixture(t)
	for _, verify := range []string{"none", "optional", "require"} {
		for _, version := range bothVersions {
			f.write(t, "trust.pem", certPEM(f.ca))
			set := f.load(t, "127.0.0.1 verify="+verify)
			call := ticketFor(t, f, func() *Set { return set }, version, "", f.client)
			offer(t, verify, call, true)
			for _, change := range []struct {
				name string
				last *Set
				file func()
			}{
				{"restart", nil, func() {}},
				{"another trust store", set, func() { f.write(t, "trust.pem", certPEM(f.ca, f.other)) }},
				{"another word", set, func() { f.xml(t, "127.0.0.1 <HttpsProtocols>TLSv1.2,TLSv1.3</HttpsProtocols> verify="+verify) }},
			} {
				change.file()
				var err error
				if set, err = Load(f.config(), change.last); err != nil {
					t.Fatal(err)
				}
				offer(t, verify+", "+change.name, call, false)
			}
		}
	}
}
