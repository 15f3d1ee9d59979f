package listenerprofiles

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/eachfield"
	"sallyport/listenerprofiles/keystore"
)

// An issuer is a source of keys that change, in the place of a CA.
type issuer struct {
	keys  Keys
	err   error
	asked []Order
}

func (i *issuer) Keys(time.Time) (Keys, error) { return i.keys, i.err }

// source is an Options.ACME.
func (i *issuer) source(order Order) KeySource {
	i.asked = append(i.asked, order)
	return i
}

func (i *issuer) issue(parties ...*party) {
	i.keys.Pairs = nil
	for _, p := range parties {
		i.keys.Pairs = append(i.keys.Pairs, pairOf(p))
	}
}

// issued has a listener whose keys are of by.
func (f *fixture) issued(by *issuer) Options {
	cfg := f.config()
	cfg.FilePath, cfg.ACME = "", by.source
	cfg.Own.KeyStore = keystore.Ref{}
	cfg.Own.Order = Order{Names: []string{"server.test"}, KeyTypes: []string{"ecdsa"}}
	return cfg
}

// TestKeysThatACAIssues: without keys the profile is there, and its handshakes fail; each change of what a CA has issued
// makes another profile, and nothing else does.
func TestKeysThatACAIssues(t *testing.T) {
	f := newFixture(t)
	by := &issuer{keys: Keys{From: "ACME ca.test"}}
	cfg := f.issued(by)
	set, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := set.own
	if !slices.Equal(by.asked[0].Names, []string{"server.test"}) || p.From != "ACME ca.test" || len(p.Leafs) != 0 || p.Challenge != nil {
		t.Errorf("%+v, from %q, %d certificates", by.asked, p.From, len(p.Leafs))
	}
	for _, version := range bothVersions {
		client, server := newPipe()
		done := make(chan error)
		go func() { done <- tls.Server(server, p.TLS).Handshake(); server.Close() }()
		if err := tls.Client(client, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}).Handshake(); err == nil {
			t.Error("a handshake without a server certificate ends well")
		}
		if err := <-done; !errors.Is(err, ErrNoServerCertificate) {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}

	digests := map[[32]byte]bool{}
	served := func() string {
		name, err := f.servedBy(set, "server.test")
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	reload := func(what string, another bool) {
		t.Helper()
		next, err := Load(cfg, set)
		if err != nil {
			t.Fatal(err)
		}
		if (next != set) != another {
			t.Errorf("%s: another set: %v", what, next != set)
		}
		set = next
		digests[set.Digest()] = true
	}
	reload("nothing has changed", false)
	by.issue(f.server)
	reload("a certificate is there", true)
	if served() != "server" || set.own.Leafs[0] != f.server.cert {
		t.Errorf("served is %s", served())
	}
	reload("nothing has changed", false)
	by.keys.Renews, by.keys.Trouble = time.Now(), errors.New("the CA is away")
	reload("only renewal stands otherwise", false)
	if keys, err := set.own.Keys(time.Now()); err != nil || keys.Trouble == nil || keys.Renews.IsZero() {
		t.Errorf("how it stands with renewal: %+v, %v", keys, err)
	}
	by.keys.Pairs[0].OCSPStaple = []byte("staple")
	reload("a staple is there", true)
	cfgClient := f.clientConfig("server.test", nil)
	if _, state, err := callInMemory(func() *Set { return set }, cfgClient); err != nil || string(state.OCSPResponse) != "staple" {
		t.Errorf("stapled is %q, %v", state.OCSPResponse, err)
	}
	by.issue(f.second)
	by.keys.Challenge = func(context.Context, string) (*tls.Certificate, error) { return nil, nil }
	reload("the certificate is another", true)
	if served() != "second" || set.own.Challenge == nil {
		t.Errorf("served is %s", served())
	}
	if len(digests) != 4 { // none, a certificate, a staple, another certificate
		t.Errorf("%d digests", len(digests))
	}
	other := &issuer{keys: by.keys}
	cfg.ACME = other.source
	reload("another issuer has the same keys", true)
	other.keys.Trouble = errors.New("trouble of the other")
	if keys, err := set.own.Keys(time.Now()); err != nil || keys.Trouble == nil || keys.Trouble.Error() != "trouble of the other" {
		t.Errorf("%v, %v", keys.Trouble, err)
	}
	other.err = errors.New("no storage")
	if _, err := Load(cfg, set); err == nil || err.Error() != "listener https: no storage" {
		t.Errorf("the issuer has an error: %v", err)
	}
}

// TestExpiredOfACAIsServed: what a CA has not renewed in time is served on, since there is nothing else; a file that holds
// an expired certificate is not loaded.
func TestExpiredOfACAIsServed(t *testing.T) {
	f := newFixture(t)
	old := issue(t, "old", f.ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	by := &issuer{}
	by.issue(old)
	set, err := Load(f.issued(by), nil)
	if err != nil {
		t.Fatal(err)
	}
	if name, err := f.servedBy(set, "server.test"); name != "old" {
		t.Errorf("served is %q, %v", name, err)
	}
	f.write(t, "server.pem", old.pem(t))
	cfg := f.config()
	cfg.FilePath = ""
	if _, err := Load(cfg, nil); !errors.Is(err, keystore.ErrExpired) {
		t.Errorf("a file: %v", err)
	}
}

// TestCiphersGoWithWhatIsOrdered: what a list of suites leaves of the keys is judged by the order, before there are keys.
func TestCiphersGoWithWhatIsOrdered(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		types []string
		want  string
	}{
		{[]string{"ecdsa"}, "listener https: names no suite of TLS 1.2 that goes with the server's key"},
		{[]string{"rsa"}, ""},
		{[]string{"ecdsa", "rsa"}, ""},
	} {
		cfg := f.issued(&issuer{})
		cfg.Own.Order.KeyTypes = tt.types
		cfg.Own.Ciphers = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		_, err := Load(cfg, nil)
		if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%q: %v", tt.types, err)
		}
	}
}

// TestACMENeedsACA: without one, type ACME is an error at its place, in the file and of the listener.
func TestACMENeedsACA(t *testing.T) {
	f := newFixture(t)
	f.write(t, "listenerprofiles.xml", []byte(`<parameter name="SSLProfiles"><profile><bindAddress>127.0.0.1</bindAddress>
		<KeyStore>
			<Type>ACME</Type><Names>server.test</Names></KeyStore>
		<SSLVerifyClient>none</SSLVerifyClient></profile></parameter>`))
	cfg := f.issued(nil)
	cfg.ACME, cfg.FilePath = nil, f.path("listenerprofiles.xml")
	_, err := Load(cfg, nil)
	const problem = ": type ACME, and it is not said which CA: add acme to sallyport.yaml"
	want := []string{f.path("listenerprofiles.xml") + ":3:4: <Type>: profile 127.0.0.1" + problem, "listener https" + problem}
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("%v, want\n%s", err, strings.Join(want, "\n"))
	}
	by := &issuer{}
	cfg.ACME = by.source
	if _, err := Load(cfg, nil); err != nil || len(by.asked) != 2 {
		t.Errorf("%d orders, %v", len(by.asked), err)
	}
}

// TestKeysAreNotPrinted: whatever the verb, keys show where they are from.
func TestKeysAreNotPrinted(t *testing.T) {
	keys := Keys{Pairs: []tls.Certificate{pairOf(issue(t, "server", nil))}, From: "stores/gateway.jks"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, keys); got != "stores/gateway.jks" {
			t.Errorf("%s: %s", verb, got)
		}
	}
}

// TestRenewalKeepsTickets: another server certificate, key or staple costs no client its session; whatever else changes
// does, and the keys' age goes on.
func TestRenewalKeepsTickets(t *testing.T) {
	f := newFixture(t)
	by := &issuer{}
	by.issue(f.server)
	cfg := f.issued(by)
	cfg.Own.VerifyClient = Require
	for _, version := range bothVersions {
		set, err := Load(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		first := set
		call := ticketFor(t, f, func() *Set { return set }, version, "server.test", f.client)
		reload := func(what string, cfg Options, resumed bool) {
			t.Helper()
			next, err := Load(cfg, set)
			if err != nil || next == set {
				t.Fatalf("%s: %v", what, err)
			}
			set = next
			offer(t, what, call, resumed)
		}
		by.keys.Pairs[0].OCSPStaple = []byte("staple")
		reload("another staple", cfg, true)
		by.issue(f.second)
		reload("another certificate", cfg, true)
		if !set.own.tickets.keys[0].made.Equal(first.own.tickets.keys[0].made) {
			t.Error("a renewal makes a key younger")
		}
		file := cfg
		file.Own.Order, file.Own.KeyStore = Order{}, keystore.Ref{Location: f.path("server.pem")}
		reload("a file instead of a CA", file, true)
		laxer := file
		laxer.Own.VerifyClient = Optional
		reload("another word on clients", laxer, false)
		by.issue(f.server)
	}
}

// The key of a profile covers what is served, and where it is from.
func TestDigestOfKeys(t *testing.T) {
	one, two := issue(t, "one", nil), issue(t, "two", nil)
	keys := func() Keys {
		return Keys{Pairs: []tls.Certificate{pairOf(one), pairOf(two)}, From: "here", Skipped: []error{errors.New("one is skipped")}}
	}
	before := keys().digest()
	if !bytes.Equal(before, keys().digest()) {
		t.Error("the same keys have another digest")
	}
	for what, change := range map[string]func(*Keys){
		"one fewer":       func(k *Keys) { k.Pairs = k.Pairs[:1] },
		"the other order": func(k *Keys) { slices.Reverse(k.Pairs) },
		"a longer chain":  func(k *Keys) { k.Pairs[0].Certificate = append(k.Pairs[0].Certificate, two.cert.Raw) },
		"a staple":        func(k *Keys) { k.Pairs[1].OCSPStaple = []byte{1} },
		"another place":   func(k *Keys) { k.From = "there" },
		"none is skipped": func(k *Keys) { k.Skipped = nil },
	} {
		changed := keys()
		change(&changed)
		if bytes.Equal(before, changed.digest()) {
			t.Errorf("%s: the digest is the same", what)
		}
	}
	for path := range eachfield.Change(Order{Names: []string{"a"}, KeyTypes: []string{"b"}}) {
		if !strings.HasPrefix(path, "Names") && !strings.HasPrefix(path, "KeyTypes") {
			t.Errorf("digest knows nothing of Order.%s", path)
		}
	}
}
