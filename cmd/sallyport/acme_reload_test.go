package main_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/internal/testacme"
	"sallyport/internal/testserver"
)

// TestACMEReload changes names, in both files, and the CA, while clients call: what was issued serves on, nothing is
// ordered again, and settings that are wrong change nothing.
func TestACMEReload(t *testing.T) {
	t.Parallel()
	at := newFront(t)
	ca := testacme.Start(t, at.options())
	const listener = `, sslVerifyClient: none, dynamicSSLProfiles: {filePath: listenerprofiles.xml}`
	s := acmeSettings{names: "a.test", listener: listener}
	d := acmeDemo(t, ca, s)
	profiles := func(names string) string {
		return `<parameter name="SSLProfiles"><profile><bindAddress>0.0.0.0</bindAddress><ServerName>*.xml.test</ServerName>
			<KeyStore><Type>ACME</Type><Names>` + names + `</Names></KeyStore><SSLVerifyClient>none</SSLVerifyClient></profile></parameter>`
	}
	d.swap("listenerprofiles.xml", profiles("a.xml.test"))
	at.to(d)
	p, _ := d.serve(new(counter))
	first, ofFile := d.waitShows("a.test", "ecdsa", ca, nil), d.waitShows("a.xml.test", "ecdsa", ca, nil)
	load := callAll(t, []*demoFolder{d}, []string{"a.test", "a.xml.test"}, []string{"ecdsa"}, ca.Trust(), &sightings{serials: map[string]bool{}})

	s.names = "a.test, b.test"
	d.swap("sallyport.yaml", d.acmeConfig(ca, s))
	second := d.waitShows("b.test", "ecdsa", ca, nil)
	d.swap("listenerprofiles.xml", profiles("a.xml.test, b.xml.test"))
	d.waitShows("b.xml.test", "ecdsa", ca, nil)
	s.names = "a.test"
	d.swap("sallyport.yaml", d.acmeConfig(ca, s))
	testserver.Eventually(t, "a name that is gone", func() error {
		if now, err := d.certificateFor("b.test", "ecdsa", nil); err != nil || now.Equal(second) {
			return errors.New("it is still shown")
		}
		return nil
	})
	s.names = "a.test, b.test"
	d.swap("sallyport.yaml", d.acmeConfig(ca, s))
	if again := d.waitShows("b.test", "ecdsa", ca, nil); !again.Equal(second) {
		t.Error("a name that is there again has another certificate")
	}
	if ca.Orders() != 4 {
		t.Errorf("%d orders for 4 names", ca.Orders())
	}

	wrong := s
	wrong.more = ", challenges: [dns-01]"
	failures := p.total("sallyport_reload_failures_total")
	d.swap("sallyport.yaml", d.acmeConfig(ca, wrong))
	testserver.Eventually(t, "a reload is refused", func() error {
		if p.total("sallyport_reload_failures_total") == failures {
			return errors.New("not yet")
		}
		return nil
	})
	for name, cert := range map[string]*x509.Certificate{"a.test": first, "a.xml.test": ofFile} {
		if now, err := d.certificateFor(name, "ecdsa", ca.Trust()); err != nil || !now.Equal(cert) {
			t.Errorf("%s: %v", name, err)
		}
	}
	load.stop()

	other := testacme.Start(t, at.options())
	d.swap("sallyport.yaml", d.acmeConfig(other, s))
	load = callAll(t, []*demoFolder{d}, []string{"a.test", "a.xml.test"}, []string{"ecdsa"}, nil, &sightings{serials: map[string]bool{}})
	d.waitShows("a.test", "ecdsa", other, nil)
	d.waitShows("b.xml.test", "ecdsa", other, nil)
	load.stop()
	if other.Orders() != 4 || other.Accounts() != 1 || ca.Orders() != 4 {
		t.Errorf("%d orders and %d accounts at the other CA, %d orders at the one before", other.Orders(), other.Accounts(), ca.Orders())
	}
	p.stopClean()
}

// TestACMEValidate: checking a configuration asks nobody and keeps nothing, and says what is missing.
func TestACMEValidate(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			c.Close()
		}
	}()
	at := newFront(t)
	d := acmeDemo(t, &testacme.CA{Directory: "https://" + listener.Addr().String() + "/dir", CAFile: "ca.crt"}, acmeSettings{names: "a.test"})
	at.to(d)
	good := d.read("sallyport.yaml")
	for _, c := range []struct {
		name, old, new string
		code           int
		says           string
	}{
		{"good", "", "", 0, ""},
		{"no section", "acme:", "# acme:", 2, "acme"},
		{"no directory", "directory:", "email:", 2, "directory"},
		{"no key of the external account", `, hmac: "${file:acme.hmac}"`, "", 2, "hmac"},
		{"a file that isn't there", "${file:acme.hmac}", "${file:none.hmac}", 2, "none.hmac"},
		{"no CA file", `caFile: "ca.crt"`, `caFile: "none.crt"`, 2, "none.crt"},
		{"nothing for HTTP-01", "eab:", "challenges: [http-01, dns-01], eab:", 2, "dns-01"},
		{"a key in the store that isn't there", "eab:", "storage: store, keyFile: none.key, eab:", 2, "none.key"},
		{"a wildcard", "names: [a.test]", `names: ["*.test"]`, 2, "wildcard"},
	} {
		d.swap("sallyport.yaml", strings.Replace(good, c.old, c.new, 1))
		code, stdout, stderr := d.run("validate")
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%s: exit code %d\n%s%s", c.name, code, stdout, stderr)
		}
		if c.new != "# acme:" && strings.Contains(stderr, "it is not said which CA") {
			t.Errorf("%s: %s", c.name, stderr)
		}
	}
	if _, err := os.Stat(d.path("acme")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is kept: %v", err)
	}
	if asked.Load() != 0 {
		t.Errorf("the CA was asked %d times", asked.Load())
	}
}

// TestACMEAhead has certificates issued for another listener before the one that clients call changes from a file to them:
// no call is lost.
func TestACMEAhead(t *testing.T) {
	t.Parallel()
	at := newFront(t)
	ca := testacme.Start(t, at.options())
	d := acmeDemo(t, ca, acmeSettings{names: "a.test", more: ", challenges: [http-01]"})
	at.to(d)
	issued := d.read("sallyport.yaml")
	const fromCA = "keyStore: {type: ACME, names: [a.test]}"
	const fromFile = `keyStore: {location: stores/gateway.jks, type: JKS, password: "${file:secrets/gateway.password}", alias: gateway}`
	ahead := fmt.Sprintf("listeners:\n  - {name: ahead, address: \"127.0.0.1:%d\", %s, sslVerifyClient: none}\n", d.Ports.Issuer, fromCA)
	d.swap("sallyport.yaml", strings.Replace(strings.Replace(issued, fromCA, fromFile, 1), "listeners:\n", ahead, 1))
	p, _ := d.serve(new(counter))
	load := callAll(t, []*demoFolder{d}, []string{"a.test"}, []string{"ecdsa"}, nil, &sightings{serials: map[string]bool{}})
	testserver.Eventually(t, "it is issued", func() error {
		if !p.warned(`msg="a server certificate was issued" name=a.test`) {
			return errors.New("not yet")
		}
		return nil
	})
	d.swap("sallyport.yaml", issued)
	d.waitShows("a.test", "ecdsa", ca, nil)
	load.stop()
	if ca.Orders() != 1 {
		t.Errorf("%d orders", ca.Orders())
	}
	p.stopClean()
}
