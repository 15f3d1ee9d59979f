package config_test

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway"
	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/control"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/acme"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy"
	"sallyport/policy/certrule"
	"sallyport/policy/ratelimit"
	"sallyport/policy/rule"
	"sallyport/policy/token"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// limits are the defaults, which the example spells out.
var limits = gateway.Limits{Connections: 20_000, ConnectionsPerSource: 5_000, Handshakes: 1_000, HandshakesPerSource: 100, HeaderLines: 200, Streams: 100, HeaderTimeout: 10 * time.Second, FirstCallTimeout: time.Minute, IdleTimeout: 620 * time.Second, CertificateBytes: 32 << 10, Certificates: 16, CertificateKeyBits: 8192, BodyRate: 240}

func allow(t *testing.T, source string) *rule.Rule {
	t.Helper()
	r, err := rule.Compile(source)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

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
	client := func(path string) *x509.Certificate {
		certificate, err := certstore.ParseCertificate(read(t, at(path)))
		if err != nil {
			t.Fatal(err)
		}
		return certificate
	}
	clients := keystore.Ref{Location: at("stores/client-truststore.jks"), Type: "JKS", Password: "changeit"}
	tiers, err := ratelimit.NewTiers([]ratelimit.Tier{
		{Name: "Trial", RequestCount: 3, UnitTime: 1, TimeUnit: ratelimit.Minute},
		{Name: "Bursty", RequestCount: 100, UnitTime: 1, TimeUnit: ratelimit.Second, Burst: 500},
		{Name: "Monthly", RequestCount: 1000000, UnitTime: 2, TimeUnit: ratelimit.Month},
	})
	if err != nil {
		t.Fatal(err)
	}
	match, err := certrule.Match{
		DNS: []string{"api.partner.test", "*.partner.test"}, URI: []string{"spiffe://partner.test/*"}, Email: []string{"*@partner.test"},
		IP: []string{"10.0.0.0/8"}, Subject: []string{"O=Partner,C=DE"}, SPKI: []string{"sha256/" + strings.Repeat("A", 43) + "="},
		Policies: []string{"1.3.6.1.4.1.99999.7"}, Fingerprint: []string{strings.Repeat("0f", 32)},
	}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	roles, err := certrule.ScopesFrom{
		SubjectOU: map[string][]string{"Payments": {"orders:read", "orders:write"}},
		SANURI:    map[string][]string{"spiffe://partner.test/billing": {"orders:read"}},
		Extension: certrule.ExtensionScopes{OID: "1.3.6.1.4.1.99999.1", Values: map[string][]string{"gold": {"*"}}},
		PSD2Roles: map[string][]string{"PSP_AI": {"accounts"}, "PSP_PI": {"payments"}},
	}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	orders := certstore.API{Name: "orders", Version: "1.0.0"}
	both := policy.Security{Certificate: policy.Optional, Token: policy.Optional}
	mandatory := policy.Security{Certificate: policy.Mandatory, Token: policy.Mandatory, Precedence: policy.TokenFirst}
	startup := config.Startup{
		Status:          "127.0.0.1:9091",
		Log:             config.Log{Level: "info", Format: "json", Access: "stdout", Fields: []string{"id", "client", "status"}},
		Limits:          limits,
		LameDuckTimeout: 5 * time.Second,
		DrainTimeout:    30 * time.Second,
		Cluster:         control.Cluster{Node: "gw1", Folder: at("cluster"), KeyFile: at("secrets/cluster.key")},
	}
	limiting := control.RateLimit{
		Redis: ratelimit.Redis{
			Addresses: []string{"10.0.0.1:26379", "sentinel.example:26379", "[::1]:26379"},
			Mode:      ratelimit.Sentinel,
			Master:    "limits",
			Username:  "gateway",
			Password:  "changeit",
			TLS:       true,
			CAFile:    at("redis-ca.pem"),
			Database:  3,
		},
		OnFailure: ratelimit.DenyAll,
		Timeout:   100 * time.Millisecond,
	}
	want := &config.Config{Startup: startup, Spec: control.Spec{
		Listeners: []control.Listener{
			{
				Listener: decision.Listener{Name: "https", Address: "0.0.0.0:8243"},
				TLS: &listenerprofiles.Options{
					Listener: "https", Vouching: trust.All,
					Own: listenerprofiles.Settings{
						KeyStore: keystore.Ref{
							Location: at("stores/gateway.jks"), Type: "JKS", Password: "changeit", KeyPassword: "changeit",
							Alias: "gateway",
						},
						TrustStore:   clients,
						VerifyClient: listenerprofiles.Optional,
						Protocols:    []uint16{tls.VersionTLS12, tls.VersionTLS13},
						Revocation: revocation.Policy{
							CRL:                []string{at("crls/clients.crl"), "http://crl.example.com/clients.crl"},
							DistributionPoints: true,
							OCSP:               true,
							Soft:               true,
							LeafOnly:           true,
							MaxAge:             48 * time.Hour,
							Refresh:            time.Minute,
							CacheSize:          5000,
						},
					},
					FilePath: at("listenerprofiles.xml"),
					BaseDir:  at("."),
					Secrets:  listenerprofiles.Secrets{"keystore": "changeit"},
				},
				FileReadInterval: 10 * time.Minute,
			},
			{
				Listener: decision.Listener{
					Name: "behind-lb", Address: "127.0.0.1:8280",
					Proxies: &decision.Proxies{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.2.0.0/16")},
				},
				Believes: true,
			},
			{
				Listener: decision.Listener{Name: "strict", Address: "[::1]:8245", DoorByCertificate: true},
				TLS: &listenerprofiles.Options{
					Listener: "strict", Vouching: trust.All,
					Own: listenerprofiles.Settings{
						KeyStore:     keystore.Ref{Location: "/etc/sallyport/server.pem", Type: "PEM"},
						TrustStore:   keystore.Ref{Location: at("stores/clients.p12"), Type: "PKCS12", Password: "pre-from-a-file-post"},
						VerifyClient: listenerprofiles.Require,
						Protocols:    []uint16{tls.VersionTLS13},
						Ciphers:      []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
					},
				},
				Believes: true,
			},
			{Listener: decision.Listener{Name: "open", Address: "localhost:8281"}},
			{
				Listener: decision.Listener{Name: "issued", Address: "[::1]:8246"},
				TLS: &listenerprofiles.Options{
					Listener: "issued", Vouching: trust.All,
					Own: listenerprofiles.Settings{
						Order: listenerprofiles.Order{
							Names: []string{"api.example.com", "b.example.com"}, KeyTypes: []string{"ecdsa", "rsa"},
						},
						VerifyClient: listenerprofiles.None,
					},
				},
			},
			{
				Listener: decision.Listener{Name: "several", Address: "[::1]:8247"},
				TLS: &listenerprofiles.Options{
					Listener: "several", Vouching: trust.All,
					Own: listenerprofiles.Settings{
						KeyStore: keystore.Ref{
							Location: at("stores/gateway.jks"), Password: "changeit",
							Alias: keystore.JoinAliases("gateway-rsa", "gateway-ec"),
						},
						VerifyClient: listenerprofiles.None,
					},
				},
			},
		},
		Header: clientcert.DoorConfig{
			Header: "X-WSO2-CLIENT-CERTIFICATE",
			Format: clientcert.Auto, Rules: trust.Rules{Registered: trust.All},
			Balancers: []netip.Prefix{
				netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.1.2.3/32"),
				netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("2001:db8::/32"),
			},
		},
		ChainValidation: true,
		HeaderRevocation: control.Placed[revocation.Policy]{
			Value: revocation.Policy{CRL: []string{"/etc/sallyport/clients.crl"}, OCSP: true},
		},
		HeaderTrust: control.Placed[keystore.Ref]{Value: clients},
		Balancers: control.Placed[keystore.Ref]{
			Value: keystore.Ref{Location: at("stores/lb-truststore.jks"), Type: "JKS", Password: "changeit"},
		},
		Routing: decision.Settings{
			CertificateHeader: "X-WSO2-CLIENT-CERTIFICATE", ForwardCertificate: true, ExpiryHeader: "X-Client-Certificate-Expires",
		},
		Period: 10 * time.Second,
		Store: control.Placed[certstore.Source]{Value: certstore.Source{
			URL: "postgres://gateway@db.example.com:5432/sallyport", Password: "from-a-file", CAFile: at("stores/db-ca.pem"),
		}},
		ACME: control.Placed[acme.Settings]{Value: acme.Settings{
			Directory: "https://ca.example.com/acme/directory", Email: "ops@example.com", CAFile: at("acme-ca.pem"), KeyID: "kid-1",
			HMAC: "changeit", Shared: true, KeyFile: at("secrets/acme.key"), HTTP: true, TLSALPN: true,
		}},
		MaxAge: time.Hour, Snapshot: at("store.snapshot"),
		Tiers:     tiers,
		RateLimit: control.Placed[control.RateLimit]{Value: limiting},
		KeyManagers: []control.Placed[token.KeyManager]{
			{Value: token.KeyManager{
				Name: "resident", Type: "default", Issuer: "https://localhost:9444/oauth2/token",
				JWKS: "https://localhost:9444/oauth2/jwks", CAFile: at("idp-ca.pem"),
			}},
			{Value: token.KeyManager{Name: "files", Type: "default", Issuer: "files", JWKS: at("jwks.json"), TokenType: "at+jwt"}},
			{Value: token.KeyManager{Name: "pinned", Type: "WSO2-IS-7", Issuer: "urn:pinned", CertificateFile: at("km.crt")}},
		},
		APIs: []control.API{
			{
				Route: decision.Route{
					API: orders, Context: "/orders", DefaultVersion: true,
					Listeners:   []string{"https", "behind-lb", "strict", "issued", "several"},
					Security:    both,
					KeyManagers: []string{"resident", "files", "pinned"},
					Allow:       allow(t, "!certificate.present ||\n\"Ops\" in certificate.ou"),
					MaxBody:     10 << 20, EncodedSlash: true, IgnoreCase: true,
					ScopesFrom: roles,
					Upstream: backend.Upstream{
						URLs: []*url.URL{link("http://127.0.0.1:9000")}, Timeout: time.Minute, MaxCalls: 2048, MaxCallsPerCaller: 1536, StreamIdleTimeout: 10 * time.Minute,
						ConnectTimeout: 5 * time.Second, IdleTimeout: 55 * time.Second, BodyRate: 240,
					},
					Resources: []decision.Resource{
						{Path: "/items/{id}", Methods: []string{"GET"}, Scopes: []string{"orders:read"}, Security: both, Allow: allow(t, `method == "GET"`)},
						{Path: "/status", Methods: []string{"GET"}, Security: policy.Security{Open: true}},
					},
				},
				Labels:        []string{"eu"},
				Words:         []string{"mutualssl", "oauth2"},
				Tier:          "Unlimited",
				ResourceTiers: []string{"Unlimited", ""},
			},
			{
				Route: decision.Route{
					API: certstore.API{Name: "payments", Version: "v2"}, Context: "/pay/ments",
					Hosts:       []string{"api.example.com", "::1", "192.0.2.1"},
					Listeners:   []string{"https", "strict"},
					Security:    mandatory,
					KeyManagers: []string{"resident", "pinned"},
					Audiences:   []string{"payments", "https://api.example.com/"},
					Upstream: backend.Upstream{
						URLs:         []*url.URL{link("https://pay1.example.com"), link("https://pay2.example.com:8443/base/")},
						SandboxURLs:  []*url.URL{link("https://sandbox.example.com")},
						Protocol:     backend.HTTP2,
						PreserveHost: true,
						Timeout:      1500 * time.Millisecond,
						MaxCalls:     100, MaxCallsPerCaller: 75, StreamIdleTimeout: 10 * time.Minute,
						ConnectTimeout: 5 * time.Second, IdleTimeout: 55 * time.Second,
					},
					MaxBody:              65536,
					ForwardAuthorization: true,
					Resources: []decision.Resource{
						{Path: "/*", Methods: []string{"GET", "POST", "X-CUSTOM"}, Security: mandatory},
						{Path: "/", Methods: []string{"HEAD"}, Security: mandatory},
					},
				},
				Words:         []string{"mutualssl_mandatory", "oauth2", "oauth_basic_auth_api_key_mandatory"},
				Tier:          "Gold",
				ResourceTiers: []string{"", ""},
				CAFile:        at("pay-ca.pem"),
				KeyStore: keystore.Ref{
					Location: at("stores/gateway.jks"), Type: "JKS", Password: "changeit", KeyPassword: "changeit", Alias: "client",
				},
			},
			{
				Route: decision.Route{
					API: certstore.API{Name: "hello", Version: "1.10"}, Context: "/hello",
					Listeners: []string{"https", "behind-lb", "strict", "open", "issued", "several"},
					Security:  policy.Security{Open: true},
					Upstream: backend.Upstream{
						URLs: []*url.URL{link("http://127.0.0.1:9000")}, Protocol: backend.H2C, Timeout: time.Minute, MaxCalls: 2048, MaxCallsPerCaller: 1536, StreamIdleTimeout: 10 * time.Minute,
						ConnectTimeout: 5 * time.Second, IdleTimeout: 55 * time.Second,
					},
				},
				Words: []string{"none"},
				Tier:  "Unlimited",
			},
		},
		Clients: []certstore.Client{
			{
				API: orders, Alias: "acme", Tier: "Gold", KeyType: certstore.Production,
				Certificate: client("clients/acme.crt"), Fingerprint: certstore.Fingerprint(client("clients/acme.crt")), Source: "testdata/example/apis/orders.yaml:23:9",
			},
			{
				API: orders, Alias: "acme", Tier: "Trial", KeyType: certstore.Sandbox, Scopes: []string{"*"},
				Certificate: client("clients/acme-test.crt"), Fingerprint: certstore.Fingerprint(client("clients/acme-test.crt")), Source: "testdata/example/apis/orders.yaml:24:9",
			},
			{
				API: orders, Alias: "partner", Tier: "Silver", KeyType: certstore.Production, Match: match,
				Certificate: client("clients/partner-ca.crt"), Fingerprint: certstore.Fingerprint(client("clients/partner-ca.crt")), Source: "testdata/example/apis/orders.yaml:25:9",
			},
		},
		Files: []string{
			at("apis/orders.yaml"), at("clients/acme-test.crt"), at("clients/acme.crt"), at("clients/partner-ca.crt"), at("sallyport.yaml"), at("secrets/store.password"),
		},
		Globs:  []string{at("apis/*.yaml")},
		Labels: []string{"eu", "internal"},
		Fixed:  fixed(startup, limiting),
	}}
	if diff := cmp.Diff(want, got, append(equal, cmpopts.IgnoreFields(control.Spec{}, "Warnings"))...); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// fixed is what a Spec has of them.
func fixed(s config.Startup, limiting control.RateLimit) map[string]any {
	return map[string]any{
		"rateLimit": limiting,
		"status":    s.Status, "log": s.Log, "limits": s.Limits, "lameDuckTimeout": s.LameDuckTimeout, "drainTimeout": s.DrainTimeout,
		"gateway.config": s.Cluster,
	}
}

// equal compares Configs but for places and digests.
var equal = []cmp.Option{
	cmpopts.IgnoreUnexported(config.Config{}, decision.Route{}),
	cmpopts.IgnoreTypes(control.Place{}, control.Keys{}),
	cmpopts.IgnoreFields(control.Spec{}, "Digest", "Units"), // what is in Units is told once more
	cmp.AllowUnexported(ratelimit.Tiers{}),
	cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}),
}

// unset are the fields that no key sets, since others fill them in, and one whose default, which the example spells out,
// is its zero.
var unset = []string{
	"Problem.Passing",
	"Unit.Problems", "Unit.Claims", "Unit.LeftOut", "Unit.Elsewhere",
	"DoorConfig.Format",
	"Spec.Problems", "Spec.LeftOut", "Spec.Elsewhere", "Spec.Release", "Placed[string].Keys", "Listener.Profiles", "Listener.Door", "DoorConfig.Trust", "DoorConfig.BalancerTrust", "DoorConfig.CacheSize",
	"Settings.Tokens", "Settings.Name", "Settings.BindAddress", "Settings.BindHost", "Settings.ServerName", "Settings.Line",
	"Options.ACME", "Options.AlsoAskFor", "Options.Now", "Options.ReadFile", "Options.LookupHost", "Route.Limit", "Resource.Limit",
	"DoorConfig.Shown", "Options.Shown", "Options.Registered", "Options.Issuers", "Options.Checker", "Options.Denied", "Rules.Anchors", "Rules.Revocation", "Limits.Exempt", "Bounds.Bytes", "Bounds.Certificates", "Bounds.KeyBits",
	"Listener.Validations", "Settings.Folder", // that of files, and the example says store
	"Upstream.Roots", "Upstream.Certificates", "Upstream.TLSDigest",
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
				if f := v.Type().Field(i); f.IsExported() && strings.HasPrefix(v.Type().PkgPath(), "sallyport/") {
					name := v.Type().Name() + "." + f.Name
					set[name] = set[name] || !v.Field(i).IsZero()
					visit(v.Field(i))
				}
			}
		}
	}
	visit(reflect.ValueOf(c))
	for name, is := range set {
		if is == slices.Contains(unset, name) {
			t.Errorf("the example sets %s: %t", name, is)
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
	tiers, err := ratelimit.NewTiers(nil)
	if err != nil {
		t.Fatal(err)
	}
	startup := config.Startup{
		Log:          config.Log{Level: "info", Access: "stdout"},
		Limits:       limits,
		DrainTimeout: 30 * time.Second,
	}
	want := &config.Config{Startup: startup, Spec: control.Spec{
		Listeners: []control.Listener{{Listener: decision.Listener{Name: "http", Address: "127.0.0.1:0"}}},
		Header:    clientcert.DoorConfig{Header: "X-WSO2-CLIENT-CERTIFICATE"},
		Routing:   decision.Settings{CertificateHeader: "X-WSO2-CLIENT-CERTIFICATE"},
		Period:    10 * time.Second,
		Store:     control.Placed[certstore.Source]{Value: certstore.Source{URL: "sqlite:" + filepath.Join(filepath.Dir(file), "sallyport.db")}},
		Tiers:     tiers,
		Files:     []string{file},
		Fixed:     fixed(startup, control.RateLimit{}),
		Warnings:  control.Problems{{Message: "there are no APIs: every call is answered 404; add some under apis"}},
	}}
	if diff := cmp.Diff(want, got, equal...); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got.Place != (control.Place{File: file}) || got.Warnings[0].Place != (control.Place{File: file, Line: 1, Column: 1}) {
		t.Errorf("the configuration is at %v, the warning at %v", got.Place, got.Warnings[0].Place)
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
		fmt.Println(api.API, "at", api.Context, "asks for", strings.Join(api.Words, " or "), "on", strings.Join(api.Listeners, ", "))
	}
	// Output: orders:1.0.0 at /orders asks for mutualssl or oauth2 on https
}
