package quickstart_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
)

// read reads a file of the folder.
func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// line reads a file of one line.
func line(t *testing.T, dir, name string) string {
	t.Helper()
	text, ok := strings.CutSuffix(string(read(t, dir, name)), "\n")
	if !ok || text == "" || strings.ContainsAny(text, " \n\r") {
		t.Fatalf("%s is not one line", name)
	}
	return text
}

// certificate reads a PEM file of exactly one certificate.
func certificate(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(read(t, dir, name))
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		t.Fatalf("%s is not one PEM certificate", name)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// jks opens a keystore with the password beside it.
func jks(t *testing.T, dir, name, passwordFile string) (keystore.KeyStore, []byte) {
	t.Helper()
	password := []byte(line(t, dir, passwordFile))
	store := keystore.New()
	if err := store.Load(bytes.NewReader(read(t, dir, name)), password); err != nil {
		t.Fatal(err)
	}
	return store, password
}

func trusted(t *testing.T, dir, name, passwordFile string) *x509.Certificate {
	t.Helper()
	store, _ := jks(t, dir, name, passwordFile)
	aliases := store.Aliases()
	if len(aliases) != 1 {
		t.Fatalf("%s holds %v, want one entry", name, aliases)
	}
	entry, err := store.GetTrustedCertificateEntry(aliases[0])
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(entry.Certificate.Content)
	if err != nil || entry.Certificate.Type != "X.509" {
		t.Fatalf("%s: type %s, %v", name, entry.Certificate.Type, err)
	}
	return c
}

func pool(certificates ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}

func TestStores(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	ca := certificate(t, dir, "ca.crt")

	store, password := jks(t, dir, "stores/gateway.jks", "secrets/gateway.password")
	if aliases := store.Aliases(); !slices.Equal(aliases, []string{"gateway"}) {
		t.Errorf("gateway.jks holds %v", aliases)
	}
	entry, err := store.GetPrivateKeyEntry("gateway", password)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	server, err := x509.ParseCertificate(entry.CertificateChain[0].Content)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		options := x509.VerifyOptions{DNSName: name, Roots: pool(ca), CurrentTime: today, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if _, err := server.Verify(options); err != nil {
			t.Errorf("the server's certificate for %s: %v", name, err)
		}
	}
	if _, err := server.Verify(x509.VerifyOptions{Roots: pool(ca), CurrentTime: today, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the server's certificate passes for a client's")
	}
	if c := trusted(t, dir, "stores/client-truststore.jks", "secrets/client-truststore.password"); !c.Equal(ca) || !c.IsCA {
		t.Error("client-truststore.jks does not hold the CA of ca.crt")
	}
	if c := trusted(t, dir, "stores/lb-truststore.jks", "secrets/lb-truststore.password"); !c.Equal(certificate(t, dir, "clients/loadbalancer.crt")) {
		t.Error("lb-truststore.jks does not hold the load balancer's certificate")
	}

	handshake(t, dir, tls.Certificate{Certificate: [][]byte{server.Raw}, PrivateKey: key}, ca)
}

// handshake connects as gold to a server that has the gateway's certificate and requires one that chains to the CA.
func handshake(t *testing.T, dir string, server tls.Certificate, ca *x509.Certificate) {
	t.Helper()
	gold, err := tls.LoadX509KeyPair(filepath.Join(dir, "clients", "gold.crt"), filepath.Join(dir, "clients", "gold.key"))
	if err != nil {
		t.Fatal(err)
	}
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(right, &tls.Config{
			Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(ca), Time: clock,
		}).HandshakeContext(t.Context())
	}()
	client := tls.Client(left, &tls.Config{Certificates: []tls.Certificate{gold}, RootCAs: pool(ca), ServerName: "localhost", Time: clock})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	go io.Copy(io.Discard, client) // the server's session ticket has to be read
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestStoresWithKeytool opens the stores of TestStores with keytool as well, where there is one.
func TestStoresWithKeytool(t *testing.T) {
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("no keytool here; TestStores reads the same files")
	}
	dir := newDir(t)
	makeDemo(t, dir, 0)
	for name, kind := range map[string]string{"gateway": "PrivateKeyEntry", "client-truststore": "trustedCertEntry", "lb-truststore": "trustedCertEntry"} {
		out, err := exec.CommandContext(t.Context(), keytool, "-J-Duser.language=en", "-list",
			"-keystore", filepath.Join(dir, "stores", name+".jks"),
			"-storepass:file", filepath.Join(dir, "secrets", strings.TrimSuffix(name, ".jks")+".password")).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("Keystore type: JKS")) || !bytes.Contains(out, []byte(kind)) || !bytes.Contains(out, []byte("contains 1 entry")) {
			t.Errorf("keytool on %s.jks: %v\n%s", name, err, out)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	ca := certificate(t, dir, "ca.crt")
	verify := func(c, root *x509.Certificate, at time.Time) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: pool(root), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err
	}
	for _, name := range []string{"gold", "bronze", "trial", "trial2", "unregistered", "expired", "rogue", "loadbalancer"} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "clients", name+".crt"), filepath.Join(dir, "clients", name+".key"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if key, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s has a %T", name, pair.PrivateKey)
		}
		c := certificate(t, dir, "clients/"+name+".crt")
		if c.IsCA || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
			t.Errorf("%s: CA %t, extended key usage %v", name, c.IsCA, c.ExtKeyUsage)
		}
		err = verify(c, ca, today)
		switch name {
		case "expired":
			if !errors.As(err, new(x509.CertificateInvalidError)) || !c.NotAfter.Before(today) {
				t.Errorf("expired ends at %s: %v", c.NotAfter, err)
			}
			if err := verify(c, ca, c.NotAfter); err != nil {
				t.Errorf("expired was never good: %v", err)
			}
			if err := verify(c, ca, c.NotBefore); err != nil {
				t.Errorf("expired was not good from its beginning: %v", err)
			}
		case "rogue", "loadbalancer":
			if !errors.As(err, new(x509.UnknownAuthorityError)) {
				t.Errorf("%s chains to the clients' CA, or not for that reason: %v", name, err)
			}
			if err := verify(c, c, today); err != nil {
				t.Errorf("%s is not good by itself: %v", name, err)
			}
		default:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if c.Subject.CommonName != name {
				t.Errorf("%s is called %s", name, c.Subject)
			}
		}
	}
	gold, rogue := certificate(t, dir, "clients/gold.crt"), certificate(t, dir, "clients/rogue.crt")
	if !bytes.Equal(gold.RawSubject, rogue.RawSubject) || gold.SerialNumber.Cmp(rogue.SerialNumber) != 0 {
		t.Error("rogue does not claim gold's subject and serial number")
	}
	if gold.PublicKey.(*ecdsa.PublicKey).Equal(rogue.PublicKey) || bytes.Equal(gold.Raw, rogue.Raw) {
		t.Error("rogue has gold's key")
	}
}

func TestTokens(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 1000)
	parse := func(token string, at time.Time) (*jwt.Token, error) {
		return jwt.Parse(token, keyFunc(read(t, dir, "jwks.json")), jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(),
			jwt.WithIssuer("https://localhost:9444/oauth2/token"), jwt.WithStrictDecoding(), jwt.WithTimeFunc(func() time.Time { return at }))
	}
	for _, test := range []struct {
		name string
		at   time.Time
		want error
	}{
		{"valid", today, nil},
		{"valid", today.AddDate(1, 0, 0).Add(-time.Second), nil},
		{"valid", today.AddDate(1, 0, 0), jwt.ErrTokenExpired},
		{"expired", today, jwt.ErrTokenExpired},
		{"expired", today.AddDate(0, 0, -1).Add(-time.Second), nil},
		{"forged", today, jwt.ErrTokenSignatureInvalid},
	} {
		token, err := parse(line(t, dir, "tokens/"+test.name+".jwt"), test.at)
		if !errors.Is(err, test.want) || test.want == nil && err != nil {
			t.Errorf("%s at %s: %v, want %v", test.name, test.at, err, test.want)
		}
		if token == nil || token.Header["typ"] != "at+jwt" || token.Header["kid"] == "" || len(strings.Fields(token.Claims.(jwt.MapClaims)["scope"].(string))) == 0 {
			t.Errorf("%s has head %v", test.name, token)
		}
	}
	// Nothing but the signature tells the forged token from the valid one.
	valid, forged := decode(t, line(t, dir, "tokens/valid.jwt")), decode(t, line(t, dir, "tokens/forged.jwt"))
	ignoreID := cmp.FilterPath(func(p cmp.Path) bool { return strings.Contains(p.String()+p.GoString(), `["jti"]`) }, cmp.Ignore())
	if diff := cmp.Diff(valid.Claims, forged.Claims, ignoreID) + cmp.Diff(valid.Header, forged.Header); diff != "" {
		t.Errorf("forged differs (-valid +forged):\n%s", diff)
	}
}

func decode(t *testing.T, token string) *jwt.Token {
	t.Helper()
	parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// keyFunc finds keys in a key set with another library than the one that wrote it.
func keyFunc(jwks []byte) jwt.Keyfunc {
	return func(token *jwt.Token) (any, error) {
		set, err := jwk.Parse(jwks)
		if err != nil {
			return nil, err
		}
		key, ok := set.LookupKeyID(token.Header["kid"].(string))
		if !ok || set.Len() != 1 {
			return nil, errors.New("not in the key set")
		}
		if private, err := jwk.IsPrivateKey(key); err != nil || private {
			return nil, errors.New("a private key is in the key set")
		}
		var public rsa.PublicKey
		if err := jwk.Export(key, &public); err != nil {
			return nil, err
		}
		return &public, nil
	}
}

func TestSettingsAreYAML(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	data := read(t, dir, "sallyport.yaml")
	type store struct{ Location, Type, Password, KeyPassword, Alias string }
	type api struct {
		Name, Version, Context, Policy string
		DefaultVersion                 bool
		Security                       []string
		Upstream                       struct{ URLs []string }
	}
	var got struct {
		Listeners []struct {
			Name, Address, SSLVerifyClient, ClientCertificateHeader string
			KeyStore, TrustStore                                    store
			HTTPSProtocols                                          []string
			DynamicSSLProfiles                                      struct {
				FilePath         string
				FileReadInterval string
			}
		}
		MutualSSL struct {
			ClientCertificateHeader, HeaderFormat, CertificateReloadPeriod string
			LoadBalancers                                                  struct {
				Addresses  []string
				TrustStore store
			}
			TrustStore store
		}
		Store        string
		Tiers        []map[string]any
		KeyManagers  []map[string]string
		APIs         []api
		Status       map[string]string
		Log          map[string]string
		DrainTimeout string
	}
	// The library expects lower-case names. The program's own reader checks case.
	lower := regexp.MustCompile(`(?m)([A-Za-z]+):( |$)`).ReplaceAllFunc(data, bytes.ToLower)
	if err := yaml.UnmarshalWithOptions(lower, &got, yaml.Strict()); err != nil {
		t.Fatal(yaml.FormatError(err, false, true))
	}
	gateway := store{"stores/gateway.jks", "JKS", "${file:secrets/gateway.password}", "${file:secrets/gateway.password}", "gateway"}
	clients := store{Location: "stores/client-truststore.jks", Type: "JKS", Password: "${file:secrets/client-truststore.password}"}
	balancers := store{Location: "stores/lb-truststore.jks", Type: "JKS", Password: "${file:secrets/lb-truststore.password}"}
	if len(got.Listeners) != 2 {
		t.Fatalf("%d listeners", len(got.Listeners))
	}
	for i, want := range []struct{ name, address, header, profiles string }{
		{"https", "127.0.0.1:8243", "", "listenerprofiles.xml"},
		{"https-lb", "127.0.0.1:8244", "certificate", ""},
	} {
		l := got.Listeners[i]
		if l.Name != want.name || l.Address != want.address || l.ClientCertificateHeader != want.header || l.DynamicSSLProfiles.FilePath != want.profiles ||
			l.SSLVerifyClient != "optional" || l.KeyStore != gateway || l.TrustStore != clients {
			t.Errorf("listener %+v", l)
		}
	}
	if m := got.MutualSSL; m.ClientCertificateHeader != "X-WSO2-CLIENT-CERTIFICATE" || m.HeaderFormat != "auto" || m.TrustStore != clients ||
		m.LoadBalancers.TrustStore != balancers || !slices.Equal(m.LoadBalancers.Addresses, []string{"127.0.0.1/32"}) {
		t.Errorf("mutualSSL %+v", m)
	}
	var apis []api
	for _, a := range []api{
		{Name: "orders", Security: []string{"mutualssl", "oauth2"}},
		{Name: "payments", Security: []string{"mutualssl"}},
		{Name: "catalog", Security: []string{"oauth2"}},
		{Name: "hello", Security: []string{"none"}, Policy: "Unlimited"},
	} {
		a.Version, a.Context, a.DefaultVersion = "1.0.0", "/"+a.Name, true
		a.Upstream.URLs = []string{"http://127.0.0.1:9000"}
		apis = append(apis, a)
	}
	if diff := cmp.Diff(apis, got.APIs); diff != "" {
		t.Errorf("APIs (-want +got):\n%s", diff)
	}
	for name, diff := range map[string]string{
		"store":       cmp.Diff("sqlite:sallyport.db", got.Store),
		"tiers":       cmp.Diff([]map[string]any{{"name": "Trial", "requestcount": uint64(3), "unittime": uint64(1), "timeunit": "min"}}, got.Tiers),
		"keyManagers": cmp.Diff([]map[string]string{{"name": "resident", "type": "default", "issuer": "https://localhost:9444/oauth2/token", "jwks": "jwks.json", "tokentype": "at+jwt"}}, got.KeyManagers),
		"status":      cmp.Diff(map[string]string{"address": "127.0.0.1:9091"}, got.Status),
	} {
		if diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	secretsExist(t, dir, data)
	secretsExist(t, dir, read(t, dir, "listenerprofiles.xml"))
}

// secretsExist follows each secret's reference.
func secretsExist(t *testing.T, dir string, data []byte) {
	t.Helper()
	found := regexp.MustCompile(`\$\{file:([^}]+)\}`).FindAllSubmatch(data, -1)
	for _, match := range found {
		if name := string(match[1]); name != "PATH" {
			line(t, dir, name)
		}
	}
	if len(found) == 0 {
		t.Error("no secret is referred to")
	}
}

func TestProfilesAreXML(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	type store struct {
		Location, Type, Password, KeyPassword, ServerCertificateAlias string
		Rest                                                          []struct{ XMLName xml.Name } `xml:",any"`
	}
	var got struct {
		XMLName  xml.Name                     `xml:"parameter"`
		Name     string                       `xml:"name,attr"`
		Rest     []struct{ XMLName xml.Name } `xml:",any"`
		Profiles []struct {
			BindAddress     string `xml:"bindAddress"`
			KeyStore        store
			TrustStore      store
			SSLVerifyClient string
			HTTPSProtocols  string                       `xml:"HttpsProtocols"`
			Rest            []struct{ XMLName xml.Name } `xml:",any"`
		} `xml:"profile"`
	}
	if err := xml.Unmarshal(read(t, dir, "listenerprofiles.xml"), &got); err != nil {
		t.Fatal(err)
	}
	if got.Name != "SSLProfiles" || len(got.Profiles) != 1 || len(got.Rest) > 0 {
		t.Fatalf("profiles: %+v", got)
	}
	p := got.Profiles[0]
	keyStore := store{Location: "stores/gateway.jks", Type: "JKS", Password: "${file:secrets/gateway.password}", KeyPassword: "${file:secrets/gateway.password}", ServerCertificateAlias: "gateway"}
	trustStore := store{Location: "stores/client-truststore.jks", Type: "JKS", Password: "${file:secrets/client-truststore.password}"}
	if diff := cmp.Diff([]store{keyStore, trustStore}, []store{p.KeyStore, p.TrustStore}); diff != "" {
		t.Errorf("stores (-want +got):\n%s", diff)
	}
	if p.BindAddress != "0.0.0.0" || p.SSLVerifyClient != "optional" || p.HTTPSProtocols != "TLSv1.2,TLSv1.3" || len(p.Rest) > 0 {
		t.Errorf("profile: %+v", p)
	}
}

func TestNoSecretStandsInTheSettings(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	for _, secret := range []string{"gateway.password", "client-truststore.password", "lb-truststore.password", "issuer-client.secret"} {
		value := []byte(line(t, dir, "secrets/"+secret))
		if len(value) < 24 {
			t.Errorf("%s is short", secret)
		}
		for _, name := range []string{"sallyport.yaml", "listenerprofiles.xml", ".quickstart.json", "jwks.json", "ca.crt"} {
			if bytes.Contains(read(t, dir, name), value) {
				t.Errorf("%s stands in %s", secret, name)
			}
		}
	}
}
