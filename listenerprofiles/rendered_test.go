package listenerprofiles

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/testpki"
)

// TestRenderedFileLoads: the files that WSO2 writes at its start serve with its stores, from its home folder.
func TestRenderedFileLoads(t *testing.T) {
	f := newFixture(t)
	const folder = "repository/resources/security/"
	for _, name := range []string{"wso2carbon.jks", "wso2carbon.p12"} {
		f.write(t, folder+name, f.server.JKS("wso2carbon")) // Java tells the formats apart by content
	}
	for _, name := range []string{"client-truststore.jks", "client-truststore.p12"} {
		f.write(t, folder+name, testpki.TrustJKS(t, "wso2carbon", f.ca.cert))
	}
	for _, tt := range []struct {
		file     string
		min, max uint16
		warnings string
	}{
		{"wso2", tls.VersionTLS12, tls.VersionTLS13, ""},
		{"wso2-3.0", tls.VersionTLS12, tls.VersionTLS13, ""},
		{"wso2-3.2", tls.VersionTLS12, tls.VersionTLS12, ":19:9: <HttpsProtocols>: older than TLS 1.2, and never served: TLSv1, TLSv1.1"},
		{"wso2-4.x", tls.VersionTLS12, tls.VersionTLS13, ":19:9: <HttpsProtocols>: older than TLS 1.2, and never served: TLSv1, TLSv1.1"},
	} {
		cfg := f.config()
		cfg.FilePath, cfg.BaseDir = "testdata/parse/"+tt.file+".xml", f.dir
		set, err := Load(cfg, nil)
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		p := set.Find(netip.MustParseAddr("192.0.2.1"), "")
		if p.TLS.MinVersion != tt.min || p.TLS.MaxVersion != tt.max || p.Name != "profile 0.0.0.0" {
			t.Errorf("%s: %s with TLS %x to %x", tt.file, p.Name, p.TLS.MinVersion, p.TLS.MaxVersion)
		}
		if got := errors.Join(set.Warnings()...); fmt.Sprint(got) != cfg.FilePath+tt.warnings && (got != nil || tt.warnings != "") {
			t.Errorf("%s warns of %v", tt.file, got)
		}
	}
}

// TestSecretAlias: a password is what the configuration says of its alias, and an alias that it says nothing of is an
// error at the element.
func TestSecretAlias(t *testing.T) {
	f := newFixture(t)
	f.write(t, "repository/resources/security/wso2carbon.jks", f.server.JKS("hush1"))
	f.write(t, "repository/resources/security/client-truststore.jks", testpki.TrustJKS(t, "hush2", f.ca.cert))
	cfg := f.config()
	cfg.FilePath, cfg.BaseDir = "testdata/parse/wso2-secrets.xml", f.dir
	cfg.LookupHost = func(string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("127.0.0.9")}, nil }
	cfg.Secrets = Secrets{
		"Listener.KeyStore.Password": "hush1", "Listener.KeyStore.KeyPassword": "hush1", "Listener.TrustStore.Password": "hush2",
		"keystore_password": "hush1", "truststore_password": "hush2",
	}
	set, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again := Read(cfg, set); again.Set != set {
		t.Error("what has not changed is not the same set")
	}
	for alias, at := range map[string]string{
		"Listener.KeyStore.Password":    ":10:13: <Password>: profile localhost (127.0.0.1): ",
		"Listener.KeyStore.KeyPassword": ":11:13: <KeyPassword>: profile localhost (127.0.0.1): ",
		"Listener.TrustStore.Password":  ":16:13: <Password>: profile localhost (127.0.0.1): ",
		"truststore_password":           ":32:13: <Password>: profile gateway.example.com (127.0.0.9): ",
	} {
		broken := cfg
		broken.Secrets = Secrets{}
		for name, value := range cfg.Secrets {
			if name != alias {
				broken.Secrets[name] = value
			}
		}
		_, err := Load(broken, nil)
		want := cfg.FilePath + at + fmt.Sprintf("password: nothing says what the secretAlias %q stands for: add dynamicSSLProfiles.secrets: {%[1]q: \"${file:PATH}\"}", alias)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v\nwant %s", alias, err, want)
		}
	}
	for _, printed := range []string{fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg), fmt.Sprint(cfg.Secrets)} {
		if strings.Contains(printed, "hush") {
			t.Errorf("printed: %s", printed)
		}
	}
}

// TestBindHost: a host name stands for the addresses that it has on this machine.
func TestBindHost(t *testing.T) {
	f := newFixture(t)
	cfg := f.config()
	lookups, found := 0, []string{"192.0.2.77", "127.0.0.3", "::1", "127.0.0.3"}
	cfg.LookupHost = func(host string) (addrs []netip.Addr, err error) {
		lookups++
		if host != "gateway.test" || found == nil {
			return nil, errors.New("the host has no address")
		}
		for _, a := range found {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		return addrs, nil
	}
	load := func(profiles ...string) (*Set, string) {
		f.xml(t, profiles...)
		set, err := Load(cfg, nil)
		if err != nil {
			return nil, err.Error()
		}
		return set, ""
	}
	serves := func(set *Set, addr string) string { return set.Find(netip.MustParseAddr(addr), "").Name }
	set, problem := load("gateway.test", "localhost name=a.test")
	if problem != "" {
		t.Fatal(problem)
	}
	for addr, want := range map[string]string{
		"127.0.0.3": "profile gateway.test (127.0.0.3)", "::1": "profile gateway.test (::1)",
		"127.0.0.1": "listener https", "192.0.2.77": "listener https",
	} {
		if got := serves(set, addr); got != want {
			t.Errorf("%s is served by %s, want %s", addr, got, want)
		}
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		if got := set.Find(netip.MustParseAddr(addr), "a.test").Name; got != "profile localhost ("+addr+") a.test" {
			t.Errorf("localhost at %s: %s", addr, got)
		}
	}

	// Between two readings of the file the resolver is not asked again.
	lookups = 0
	f.write(t, "trust.pem", certPEM(f.ca, f.other))
	if r := ReadStores(cfg, set); r.Err != nil || r.Set == set || lookups != 0 {
		t.Errorf("%v after %d lookups", r.Err, lookups)
	}
	found = []string{"127.0.0.4"}
	if r := Read(cfg, set); r.Err != nil || serves(r.Set, "127.0.0.4") != "profile gateway.test (127.0.0.4)" {
		t.Errorf("the host's new address is not served: %v", r.Err)
	}

	for _, tt := range []struct {
		addrs    []string
		profiles []string
		want     string
	}{
		{[]string{"192.0.2.77"}, []string{"gateway.test"}, "2:10: <bindAddress>: profile gateway.test: the host has [192.0.2.77], none of which is an address of this machine"},
		{nil, []string{"gateway.test"}, "2:10: <bindAddress>: profile gateway.test: the host has no address"},
		{[]string{"127.0.0.1"}, []string{"127.0.0.1", "gateway.test"}, "3:10: <bindAddress>: profile gateway.test (127.0.0.1): profile 127.0.0.1, in line 2, has that address already"},
	} {
		found = tt.addrs
		if _, problem := load(tt.profiles...); !strings.HasPrefix(problem, f.path("listenerprofiles.xml")+":"+tt.want) || strings.Contains(problem, "\n") {
			t.Errorf("%v: %s", tt.addrs, problem)
		}
	}
}

func TestLookupHost(t *testing.T) {
	addrs, err := lookupHost("localhost")
	if here, _ := local(addrs); err != nil || !slices.Contains(here, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("localhost: %v, %v", addrs, err)
	}
}
