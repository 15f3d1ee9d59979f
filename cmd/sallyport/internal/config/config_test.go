package config_test

import (
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/cmd/sallyport/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// limits are the defaults, which the example spells out.
var limits = config.Limits{Connections: 20_000, ConnectionsPerSource: 5_000, Handshakes: 1_000, HeaderCount: 200, BodyRate: 240}

func TestExample(t *testing.T) {
	t.Setenv("STORE_PASSWORD", "changeit")
	got, err := config.Load("testdata/example/sallyport.yaml")
	if err != nil {
		t.Fatal(err)
	}
	at := func(path string) string {
		abs, err := filepath.Abs(filepath.Join("testdata/example", path))
		if err != nil {
			t.Fatal(err)
		}
		return abs
	}
	link := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	clients := &config.KeyStore{Location: at("stores/client-truststore.jks"), Type: "JKS", Password: "changeit"}
	want := &config.Config{
		File: at("sallyport.yaml"),
		Listeners: []config.Listener{
			{
				Name:    "https",
				Address: "0.0.0.0:8243",
				KeyStore: &config.KeyStore{
					Location: at("stores/gateway.jks"), Type: "JKS", Password: "changeit", KeyPassword: "changeit", Alias: "gateway",
				},
				TrustStore:      clients,
				SSLVerifyClient: "optional",
				HTTPSProtocols:  []string{"TLSv1.2", "TLSv1.3"},
				DynamicSSLProfiles: &config.DynamicSSLProfiles{
					FilePath: at("listenerprofiles.xml"), BaseDir: at("."), FileReadInterval: 10 * time.Minute,
				},
				ClientCertificateHeader: "off",
			},
			{Name: "behind-lb", Address: "127.0.0.1:8280", SSLVerifyClient: "none", ClientCertificateHeader: "address"},
			{
				Name:             "strict",
				Address:          "[::1]:8245",
				KeyStore:         &config.KeyStore{Location: "/etc/sallyport/server.pem", Type: "PEM"},
				TrustStore:       &config.KeyStore{Location: at("stores/clients.p12"), Type: "PKCS12", Password: "pre-from-a-file-post"},
				SSLVerifyClient:  "require",
				HTTPSProtocols:   []string{"TLSv1.3"},
				PreferredCiphers: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},

				ClientCertificateHeader: "certificate",
			},
			{Name: "open", Address: "localhost:8281", SSLVerifyClient: "none", ClientCertificateHeader: "off"},
		},
		MutualSSL: config.MutualSSL{
			ClientCertificateHeader: "X-WSO2-CLIENT-CERTIFICATE",
			HeaderFormat:            "auto",
			LoadBalancers: config.LoadBalancers{
				Addresses: []netip.Prefix{
					netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.1.2.3/32"),
					netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("2001:db8::/32"),
				},
				TrustStore: &config.KeyStore{Location: at("stores/lb-truststore.jks"), Type: "JKS", Password: "changeit"},
			},
			TrustStore: clients,

			ForwardClientCertificateHeader: true,

			CertificateReloadPeriod: 10 * time.Second,
		},
		Store: "sqlite:" + at("sallyport.db"),
		Tiers: []config.Tier{
			{Name: "Trial", RequestCount: 3, UnitTime: 1, TimeUnit: "min"},
			{Name: "Bursty", RequestCount: 100, UnitTime: 1, TimeUnit: "sec", Burst: 500},
			{Name: "Monthly", RequestCount: 1000000, UnitTime: 2, TimeUnit: "month"},
		},
		KeyManagers: []config.KeyManager{
			{
				Name: "resident", Type: "default", Issuer: "https://localhost:9444/oauth2/token",
				JWKS: "https://localhost:9444/oauth2/jwks", CAFile: at("idp-ca.pem"),
			},
			{Name: "files", Type: "default", Issuer: "files", JWKS: at("jwks.json"), TokenType: "at+jwt"},
			{Name: "pinned", Type: "WSO2-IS-7", Issuer: "urn:pinned", Certificate: at("km.crt")},
		},
		APIs: []config.API{
			{
				Name: "orders", Version: "1.0.0", Context: "/orders", DefaultVersion: true,
				Listeners:   []string{"https", "behind-lb", "strict"},
				Security:    []string{"mutualssl", "oauth2"},
				Precedence:  "certificate",
				KeyManagers: []string{"resident", "files", "pinned"},
				Policy:      "Unlimited",
				Upstream: config.Upstream{
					URLs: []*url.URL{link("http://127.0.0.1:9000")}, Protocol: "http1", Timeout: time.Minute, MaxCalls: 2048,
				},
				MaxBodySize: 10 << 20,
				ClientCertificates: []config.ClientCertificate{
					{Alias: "acme", File: at("clients/acme.crt"), Tier: "Gold", KeyType: "PRODUCTION", Data: []byte("acme certificate\n")},
					{
						Alias: "acme", File: at("clients/acme-test.crt"), Tier: "Trial", KeyType: "SANDBOX", Scopes: []string{"*"},
						Data: []byte("acme test certificate\n"),
					},
				},
				Resources: []config.Resource{
					{Path: "/items/{id}", Methods: []string{"GET"}, Scopes: []string{"orders:read"}, Policy: "Unlimited"},
					{Path: "/status", Methods: []string{"GET"}, Security: []string{"none"}},
				},
			},
			{
				Name: "payments", Version: "v2", Context: "/pay/ments",
				Hosts:       []string{"api.example.com", "::1", "192.0.2.1"},
				Listeners:   []string{"https", "strict"},
				Security:    []string{"mutualssl_mandatory", "oauth2", "oauth_basic_auth_api_key_mandatory"},
				Precedence:  "token",
				KeyManagers: []string{"resident", "pinned"},
				Audiences:   []string{"payments", "https://api.example.com/"},
				Policy:      "Gold",
				Upstream: config.Upstream{
					URLs:         []*url.URL{link("https://pay1.example.com"), link("https://pay2.example.com:8443/base")},
					SandboxURLs:  []*url.URL{link("https://sandbox.example.com")},
					Protocol:     "h2",
					PreserveHost: true,
					Timeout:      1500 * time.Millisecond,
					MaxCalls:     100,
					CAFile:       at("pay-ca.pem"),
					KeyStore: &config.KeyStore{
						Location: at("stores/gateway.jks"), Type: "JKS", Password: "changeit", KeyPassword: "changeit", Alias: "client",
					},
				},
				MaxBodySize:          65536,
				ForwardAuthorization: true,
				Resources: []config.Resource{
					{
						Path: "/*", Methods: []string{"GET", "POST", "X-CUSTOM"},
						Security: []string{"oauth2", "oauth_basic_auth_api_key_mandatory", "mutualssl_mandatory"},
					},
					{Path: "/", Methods: []string{"HEAD"}},
				},
			},
			{
				Name: "hello", Version: "1.10", Context: "/hello",
				Listeners:  []string{"https", "behind-lb", "strict", "open"},
				Security:   []string{"none"},
				Precedence: "certificate",
				Policy:     "Unlimited",
				Upstream: config.Upstream{
					URLs: []*url.URL{link("http://127.0.0.1:9000")}, Protocol: "h2c", Timeout: time.Minute, MaxCalls: 2048,
				},
			},
		},
		Status:       &config.Status{Address: "127.0.0.1:9091"},
		Log:          config.Log{Level: "info", Format: "json", Access: "stdout"},
		Limits:       limits,
		DrainTimeout: 30 * time.Second,
		Files: []string{
			at("apis/orders.yaml"), at("clients/acme-test.crt"), at("clients/acme.crt"), at("sallyport.yaml"), at("secrets/store.password"),
		},
		Globs: []string{at("apis/*.yaml")},
	}
	diff := cmp.Diff(want, got,
		cmpopts.IgnoreUnexported(config.Config{}, config.API{}),
		cmpopts.IgnoreFields(config.Config{}, "Warnings"),
		cmpopts.IgnoreTypes(config.Pos{}),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b config.Secret) bool { return a.Reveal() == b.Reveal() }))
	if diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestExampleSetsEveryField: what a Config can say the example says, so that a field without a test of its key shows up.
func TestExampleSetsEveryField(t *testing.T) {
	t.Setenv("STORE_PASSWORD", "changeit")
	c, err := config.Load("testdata/example/sallyport.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{} // by type and field: whether it is more than zero anywhere
	var visit func(v reflect.Value)
	visit = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			visit(v.Elem())
		case reflect.Slice:
			for i := range v.Len() {
				visit(v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() && v.Type().PkgPath() == reflect.TypeFor[config.Config]().PkgPath() {
					name := v.Type().Name() + "." + f.Name
					set[name] = set[name] || !v.Field(i).IsZero()
					visit(v.Field(i))
				}
			}
		}
	}
	visit(reflect.ValueOf(c))
	for name, is := range set {
		if !is && name != "MutualSSL.EnableCertificateChainValidation" { // not built
			t.Errorf("the example leaves %s at its zero", name)
		}
	}
}

// TestDefaults loads the least that is a configuration.
func TestDefaults(t *testing.T) {
	file := write(t, "sallyport.yaml", "listeners: [{name: http, address: 127.0.0.1:0}]\n")
	got, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		File:         file,
		Listeners:    []config.Listener{{Name: "http", Address: "127.0.0.1:0", SSLVerifyClient: "none", ClientCertificateHeader: "off"}},
		MutualSSL:    config.MutualSSL{ClientCertificateHeader: "X-WSO2-CLIENT-CERTIFICATE", HeaderFormat: "auto", CertificateReloadPeriod: 10 * time.Second},
		Store:        "sqlite:" + filepath.Join(filepath.Dir(file), "sallyport.db"),
		Log:          config.Log{Level: "info", Format: "json", Access: "stdout"},
		Limits:       limits,
		DrainTimeout: 30 * time.Second,
		Files:        []string{file},
		Warnings:     config.Errors{{Message: "there are no APIs: every call is answered 404; add some under apis"}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(config.Config{}), cmpopts.IgnoreTypes(config.Pos{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got.Warnings[0].Pos != (config.Pos{File: file, Line: 1, Column: 1}) {
		t.Errorf("the warning is at %v", got.Warnings[0].Pos)
	}
}

// write makes a file in a folder of its own and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func ExampleLoad() {
	c, err := config.Load("testdata/first/sallyport.yaml")
	if err != nil {
		fmt.Println(err) // one line for each thing that is wrong
		return
	}
	for _, api := range c.APIs {
		fmt.Println(api.ID(), "at", api.Context, "asks for", strings.Join(api.Security, " or "), "on", strings.Join(api.Listeners, ", "))
	}
	// Output: orders:1.0.0 at /orders asks for mutualssl or oauth2 on https
}
