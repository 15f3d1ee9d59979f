package config_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
)

// changes are other values for the keys of the example, by file and path.
var changes = map[string]any{
	"main.listeners.3.name":                                "another",
	"main.listeners.0.address":                             "127.0.0.1:8243",
	"main.listeners.0.keyStore.location":                   "another",
	"main.listeners.0.keyStore.type":                       "PKCS12",
	"main.listeners.0.keyStore.password":                   "another",
	"main.listeners.0.keyStore.keyPassword":                "another",
	"main.listeners.0.keyStore.alias":                      "another",
	"main.listeners.4.keyStore.names":                      []any{"another.example.com"},
	"main.listeners.4.keyStore.keyTypes":                   []any{"rsa"},
	"main.listeners.0.trustStore.location":                 "another",
	"main.listeners.0.trustStore.type":                     "PKCS12",
	"main.listeners.0.trustStore.password":                 "another",
	"main.listeners.0.sslVerifyClient":                     "require",
	"main.listeners.0.httpsProtocols":                      []any{"TLSv1.3"},
	"main.listeners.0.preferredCiphers":                    []any{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
	"main.listeners.0.dynamicSSLProfiles.filePath":         "another.xml",
	"main.listeners.0.dynamicSSLProfiles.fileReadInterval": "9m",
	"main.listeners.0.dynamicSSLProfiles.baseDir":          "another",
	"main.listeners.0.dynamicSSLProfiles.secrets.keystore": "another",
	"main.listeners.0.revocation.crl":                      []any{"another.crl"},
	"main.listeners.0.revocation.crlDistributionPoints":    false,
	"main.listeners.0.revocation.ocsp":                     false,
	"main.listeners.0.revocation.fail":                     "hard",
	"main.listeners.0.revocation.maxAge":                   "9h",
	"main.listeners.0.revocation.refresh":                  "9m",
	"main.listeners.0.revocation.fullChain":                true,
	"main.listeners.0.revocation.cacheSize":                9,
	"main.mutualSSL.revocation.ocsp":                       false,
	"main.mutualSSL.revocation.crl":                        []any{"another.crl"},
	"main.listeners.1.clientCertificateHeader":             "off",
	"main.listeners.1.proxyProtocol.addresses":             []any{"127.0.0.2"},
	"main.listeners.2.clientCertificateHeader":             "address",
	"main.mutualSSL.clientCertificateHeader":               "X-Another",
	"main.mutualSSL.headerFormat":                          "xfcc",
	"main.mutualSSL.loadBalancers.addresses":               []any{"127.0.0.2"},
	"main.mutualSSL.loadBalancers.trustStore.location":     "another",
	"main.mutualSSL.loadBalancers.trustStore.type":         "PKCS12",
	"main.mutualSSL.loadBalancers.trustStore.password":     "another",
	"main.mutualSSL.trustStore.location":                   "another",
	"main.mutualSSL.trustStore.type":                       "PKCS12",
	"main.mutualSSL.trustStore.password":                   "another",
	"main.mutualSSL.enableCertificateChainValidation":      false,
	"main.mutualSSL.trustRegistered":                       "none",
	"main.mutualSSL.forwardClientCertificateHeader":        false,
	"main.mutualSSL.expiryHeader":                          "X-Another",
	"main.mutualSSL.certificateReloadPeriod":               "9s",
	"main.store.url":                                       "mysql://another@db.example.com/sallyport",
	"main.store.password":                                  "another",
	"main.store.caFile":                                    "another.pem",
	"main.gateway.name":                                    "another",
	"main.gateway.labels":                                  []any{"eu", "another"},
	"main.gateway.config.folder":                           "another",
	"main.gateway.config.keyFile":                          "another.key",
	"api.apis.0.labels":                                    []any{"internal"},
	"main.acme.directory":                                  "https://another.example.com/dir",
	"main.acme.email":                                      "another@example.com",
	"main.acme.caFile":                                     "another.pem",
	"main.acme.eab.keyID":                                  "another",
	"main.acme.eab.hmac":                                   "YW5vdGhlcg",
	"main.acme.challenges":                                 []any{"http-01"},
	"main.acme.storage":                                    nil, // files have no keyFile
	"main.acme.keyFile":                                    "another.key",
	"main.store.maxAge":                                    "9h",
	"main.store.snapshot":                                  "another.snapshot",
	"main.tiers.2.name":                                    "Another",
	"main.tiers.2.requestCount":                            9,
	"main.tiers.2.unitTime":                                9,
	"main.tiers.2.timeUnit":                                "day",
	"main.tiers.1.burst":                                   9,
	"main.rateLimit.redis.addresses":                       []any{"10.0.0.9:26379"},
	"main.rateLimit.redis.mode":                            nil, // another has no master, and a cluster no database
	"main.rateLimit.redis.master":                          "another",
	"main.rateLimit.redis.username":                        "another",
	"main.rateLimit.redis.password":                        "another",
	"main.rateLimit.redis.tls":                             nil, // false is an error beside a caFile
	"main.rateLimit.redis.caFile":                          "another.pem",
	"main.rateLimit.redis.database":                        9,
	"main.rateLimit.whenRedisFails":                        "allow",
	"main.rateLimit.redisTimeout":                          "90ms",
	"main.keyManagers.1.name":                              "another",
	"main.keyManagers.0.type":                              "custom",
	"main.keyManagers.0.issuer":                            "another",
	"main.keyManagers.0.jwks":                              "https://another",
	"main.keyManagers.0.caFile":                            "another.pem",
	"main.keyManagers.1.tokenType":                         nil, // it has no other value
	"main.keyManagers.2.certificate":                       "another.crt",
	"main.apis.0":                                          "apis/orders.*",
	"main.apis.1.name":                                     "another",
	"main.apis.1.version":                                  "9",
	"main.apis.1.context":                                  "/another",
	"main.apis.1.security":                                 []any{"oauth2"},
	"main.apis.1.upstream.urls":                            []any{"http://another"},
	"api.apis.0.paths.case":                                "exact",
	"api.apis.0.paths.encodedSlash":                        "refuse",
	"main.apis.1.upstream.protocol":                        "http1",
	"main.status.address":                                  "127.0.0.1:9",
	"main.log.level":                                       "warn",
	"main.log.format":                                      "text",
	"main.log.access":                                      "off",
	"main.log.fields":                                      []any{"id"},
	"main.limits.connections":                              19_000,
	"main.limits.connectionsPerSource":                     9,
	"main.limits.handshakes":                               999,
	"main.limits.handshakesPerSource":                      9,
	"main.limits.headerCount":                              9,
	"main.limits.streams":                                  9,
	"main.limits.headerTimeout":                            "9s",
	"main.limits.firstCallTimeout":                         "9s",
	"main.limits.idleTimeout":                              "9s",
	"main.limits.exempt":                                   []any{"10.9.0.0/16"},
	"main.limits.bodyRate":                                 9,
	"main.limits.certificateBytes":                         "9KiB",
	"main.limits.certificates":                             9,
	"main.limits.certificateKeyBits":                       4096,
	"main.lameDuckTimeout":                                 "9s",
	"main.drainTimeout":                                    "9s",
	"api.apis.0.defaultVersion":                            false,
	"api.apis.0.hosts":                                     []any{"another"},
	"api.apis.0.listeners":                                 []any{"https"},
	"api.apis.0.precedence":                                "token",
	"api.apis.0.keyManagers":                               []any{"files"},
	"api.apis.0.audiences":                                 []any{"another"},
	"api.apis.0.policy":                                    "Gold",
	"api.apis.0.upstream.preserveHost":                     true,
	"api.apis.0.upstream.timeout":                          "9s",
	"api.apis.0.upstream.maxCalls":                         1999,
	"api.apis.0.upstream.maxCallsPerCaller":                9,
	"api.apis.0.upstream.connectTimeout":                   "9s",
	"api.apis.0.upstream.idleTimeout":                      "9s",
	"api.apis.0.upstream.bodyRate":                         0,
	"api.apis.0.upstream.streamIdleTimeout":                "9s",
	"api.apis.1.upstream.sandboxUrls":                      []any{"https://another"},
	"api.apis.1.upstream.caFile":                           "another.pem",
	"api.apis.1.upstream.keyStore.location":                "another",
	"api.apis.1.upstream.keyStore.type":                    "PKCS12",
	"api.apis.1.upstream.keyStore.password":                "another",
	"api.apis.1.upstream.keyStore.keyPassword":             "another",
	"api.apis.1.upstream.keyStore.alias":                   "another",
	"api.apis.0.maxBodySize":                               "9MiB",
	"api.apis.0.forwardAuthorization":                      true,
	"api.apis.0.clientCertificates.1.alias":                "another",
	"api.apis.0.clientCertificates.0.certificate":          "../clients/another.crt",
	"api.apis.0.clientCertificates.0.tier":                 "Silver",
	"api.apis.0.clientCertificates.1.keyType":              "PRODUCTION",
	"api.apis.0.clientCertificates.1.scopes":               []any{"another"},
	"api.apis.0.resources.0.path":                          "/another",
	"api.apis.0.resources.0.methods":                       []any{"PUT"},
	"api.apis.0.resources.0.scopes":                        []any{"another"},
	"api.apis.0.allow":                                     "method != 'PUT'",
	"api.apis.0.resources.0.allow":                         "method != 'PUT'",
	"api.apis.0.resources.0.policy":                        "Gold",
	"api.apis.0.resources.1.security":                      []any{"mutualssl", "oauth2"},

	"api.apis.0.clientCertificates.2.match.dns":                  []any{"another.test"},
	"api.apis.0.clientCertificates.2.match.uri":                  []any{"spiffe://another.test/*"},
	"api.apis.0.clientCertificates.2.match.email":                []any{"*@another.test"},
	"api.apis.0.clientCertificates.2.match.ip":                   []any{"10.9.0.0/16"},
	"api.apis.0.clientCertificates.2.match.subject":              []any{"O=Another"},
	"api.apis.0.clientCertificates.2.match.spki":                 []any{strings.Repeat("09", 32)},
	"api.apis.0.clientCertificates.2.match.policies":             []any{"1.2.9"},
	"api.apis.0.clientCertificates.2.match.fingerprint":          []any{strings.Repeat("09", 32)},
	"api.apis.0.scopesFrom.subjectOU.Payments":                   []any{"another"},
	"api.apis.0.scopesFrom.sanURI.spiffe://partner.test/billing": []any{"another"},
	"api.apis.0.scopesFrom.extension.oid":                        "1.2.9",
	"api.apis.0.scopesFrom.extension.values.gold":                []any{"another"},
	"api.apis.0.scopesFrom.psd2Roles.PSP_AI":                     []any{"another"},
	"api.apis.0.scopesFrom.psd2Roles.PSP_PI":                     []any{"another"},
}

// Every key that is read makes another Config: one that is dropped would change nothing, whatever a reload does.
func TestEveryKeyIsPassedOn(t *testing.T) {
	t.Setenv("STORE_PASSWORD", "changeit")
	dir := t.TempDir()
	for name, from := range map[string]string{
		"clients/acme.crt":       "clients/acme.crt",
		"clients/acme-test.crt":  "clients/acme-test.crt",
		"clients/partner-ca.crt": "clients/partner-ca.crt",
		"secrets/store.password": "secrets/store.password",
	} {
		put(t, filepath.Join(dir, name), read(t, filepath.Join("testdata/example", from)))
	}
	put(t, filepath.Join(dir, "clients/another.crt"), another(t))
	files := map[string]any{}
	edits := strings.NewReplacer(
		"[http://127.0.0.1:9000]", `["http://127.0.0.1:9000"]`, "[orders:read]", `["orders:read"]`, // for the library alone
		"alias: acme, certificate: ../clients/acme-test.crt", "alias: sandbox, certificate: ../clients/acme-test.crt",
		"X-WSO2-CLIENT-CERTIFICATE", "X-Forwarded-Client-Cert", // that of another format
	)
	for name, file := range map[string]string{"main": "sallyport.yaml", "api": "apis/orders.yaml"} {
		var tree any
		if err := yaml.Unmarshal([]byte(edits.Replace(string(read(t, filepath.Join("testdata/example", file))))), &tree); err != nil {
			t.Fatal(err)
		}
		files[name] = tree
	}
	load := func() (*config.Config, error) {
		for name, file := range map[string]string{"main": "sallyport.yaml", "api": "apis/orders.yaml"} {
			data, err := yaml.Marshal(files[name])
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, file), data)
		}
		return config.Load(filepath.Join(dir, "sallyport.yaml"))
	}
	base, err := load()
	if err != nil {
		t.Fatal(err)
	}
	same := []cmp.Option{
		cmpopts.IgnoreTypes(control.Place{}, control.Keys{}), // another place is the same setting
		cmpopts.IgnoreFields(control.Spec{}, "Digest", "Files"),
		cmpopts.IgnoreFields(control.Unit{}, "Digest"),
		cmpopts.IgnoreFields(certstore.Client{}, "Source"),
		cmp.Exporter(func(t reflect.Type) bool { return t != reflect.TypeFor[config.Config]() }),
		cmpopts.IgnoreUnexported(config.Config{}),
	}
	index := regexp.MustCompile(`\.\d+`)
	missing := map[string]bool{} // by path without file and indices
	eachLeaf("", files, func(path string, replace func(any)) {
		_, key, _ := strings.Cut(index.ReplaceAllString(path, ""), ".")
		value, given := changes[path]
		if !given {
			missing[key] = missing[key] || !slices.ContainsFunc(slices.Collect(maps.Keys(changes)), func(p string) bool {
				return strings.HasSuffix(index.ReplaceAllString(p, ""), "."+key)
			})
			return
		}
		if value == nil {
			return
		}
		replace(value)
		changed, err := load()
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if cmp.Equal(base, changed, same...) {
			t.Errorf("%s is not passed on", path)
		}
	})
	for key, is := range missing {
		if is {
			t.Errorf("no other value for %s", key)
		}
	}
}

// eachLeaf visits the scalars and the lists of scalars of a tree. What visit puts in their place stays until it returns.
func eachLeaf(path string, tree any, visit func(path string, replace func(any))) {
	leaf := func(path string, value any, set func(any)) {
		list, isList := value.([]any)
		_, isMap := value.(map[string]any)
		if isMap || isList && slices.ContainsFunc(list, func(v any) bool { return reflect.TypeOf(v).Kind() == reflect.Map }) {
			eachLeaf(path, value, visit)
			return
		}
		visit(strings.TrimPrefix(path, "."), set)
		set(value)
	}
	switch tree := tree.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(tree)) {
			leaf(path+"."+key, tree[key], func(v any) { tree[key] = v })
		}
	case []any:
		for i := range tree {
			leaf(path+"."+strconv.Itoa(i), tree[i], func(v any) { tree[i] = v })
		}
	default:
		panic(fmt.Sprintf("%s is a %T", path, tree))
	}
}

// another returns a certificate that the example does not have.
func another(t *testing.T) []byte {
	t.Helper()
	found, err := files()
	if err != nil {
		t.Fatal(err)
	}
	return found[filepath.Join("clients", "gold.crt")]
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func put(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
