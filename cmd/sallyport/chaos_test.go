package main_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
)

// thorough tells whether the fault tests run at full length, as `make chaos` does by setting SALLYPORT_CHAOS=full. Their
// short forms take seconds and are part of all tests.
func thorough() bool { return os.Getenv("SALLYPORT_CHAOS") == "full" }

// scaled is how often something is done: the first number in the short form of a test, the second in the full one.
func scaled(short, full int) int {
	if thorough() {
		return full
	}
	return short
}

// serve runs the folder's gateway alone, before a backend of the test's own, until the test ends.
func (d *demoFolder) serve(backend http.Handler) (*process, *httptest.Server) {
	d.t.Helper()
	server := d.serveBackend(backend)
	return d.serveAlone(), server
}

func (d *demoFolder) serveBackend(backend http.Handler) *httptest.Server {
	d.t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.Backend))
	if err != nil {
		d.t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: backend}}
	server.Start()
	// What is still under way when a test has failed would keep Close waiting.
	d.t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server
}

func (d *demoFolder) serveAlone() *process {
	d.t.Helper()
	p := start(d.t, d.Demo, "serve", "-c", d.ConfigFile)
	p.becomesReady()
	return p
}

func (p *process) becomesReady() {
	p.t.Helper()
	eventually(p.t, "the gateway is ready", func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("%s: %v\n%s", p.cmd, p.err, p.stderr)
		default:
		}
		return p.ready() == "ready\n"
	})
}

// number is the value of a series; 0 if there is none, or nobody answers.
func (p *process) number(series string) float64 {
	value, err := strconv.ParseFloat(p.metric(series), 64)
	if err != nil {
		return 0
	}
	return value
}

// total adds up all series of a metric whose labels hold each text.
func (p *process) total(name string, labels ...string) float64 {
	_, body := p.status("/metrics")
	sum := 0.0
lines:
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		cut := strings.LastIndexByte(line, ' ') // labels may hold spaces, values don't
		if cut < 0 {
			continue
		}
		series, value := line[:cut], line[cut+1:]
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(series, label) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err == nil {
			sum += v
		}
	}
	return sum
}

// holdings is what the process holds of the system: what grows when something leaks.
type holdings struct{ goroutines, descriptors, connections float64 }

func (p *process) holdings() holdings {
	return holdings{p.number("go_goroutines"), p.number("process_open_fds"), p.number("sallyport_connections")}
}

// settlesTo waits until the process holds no more than before, but for a few idle connections to backends and watches.
func (p *process) settlesTo(before holdings, slack float64) {
	p.t.Helper()
	var now holdings
	defer func() { p.t.Logf("held before: %+v, after: %+v", before, now) }()
	eventually(p.t, "goroutines, descriptors and connections are what they were", func() bool {
		now = p.holdings()
		return now.goroutines > 0 && now.goroutines <= before.goroutines+slack && now.descriptors <= before.descriptors+slack && now.connections <= before.connections+3 // a client may keep one that it has just used
	})
}

// noCertificates holds a text to holding no whole certificate and no key in PEM: neither is for logs.
func noCertificates(t *testing.T, where, text string) {
	t.Helper()
	if i := strings.Index(text, "-----BEGIN "); i >= 0 {
		t.Errorf("%s holds PEM: %.60q", where, text[i:])
	}
}

// stopClean ends the process, and looks through all that it wrote once more.
func (p *process) stopClean() {
	p.t.Helper()
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		_, body := p.status(path) // which looks for secrets by itself
		noCertificates(p.t, path, body)
	}
	p.stop()
	noCertificates(p.t, "the log", p.stdout.String()+p.stderr.String())
	if p.stderr.contains("panicked") || p.stderr.contains("goroutine ") {
		p.t.Errorf("something panicked:\n%s", p.stderr)
	}
}

// An authority issues certificates that the demonstration does not know.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         crypto.Signer
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{t, sign(t, template, template, key.Public(), key), key}
}

// demoAuthority is the demonstration's own.
func (d *demoFolder) demoAuthority() *authority {
	d.t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(d.block("secrets/ca.key"))
	if err != nil {
		d.t.Fatal(err)
	}
	return &authority{d.t, d.certificate("ca.crt"), key.(crypto.Signer)}
}

// block is the content of a file with one PEM block.
func (d *demoFolder) block(name string) []byte {
	d.t.Helper()
	block, _ := pem.Decode([]byte(d.read(name)))
	if block == nil {
		d.t.Fatalf("%s holds no PEM", name)
	}
	return block.Bytes
}

func (d *demoFolder) certificate(name string) *x509.Certificate {
	d.t.Helper()
	certificate, err := x509.ParseCertificate(d.block(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return certificate
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, issuer *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

var serials = big.NewInt(time.Now().UnixNano())

func (a *authority) issue(usage x509.ExtKeyUsage, name string) (*x509.Certificate, crypto.Signer) {
	a.t.Helper()
	key := newKey(a.t)
	serials = new(big.Int).Add(serials, big.NewInt(1))
	return sign(a.t, &x509.Certificate{
		SerialNumber: serials, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, a.certificate, key.Public(), a.key), key
}

// putClient makes a client of the authority, with its files beside those of the demonstration's clients.
func (a *authority) putClient(d *demoFolder, name string) {
	a.t.Helper()
	certificate, key := a.issue(x509.ExtKeyUsageClientAuth, name)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	d.write("clients/"+name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})))
	d.write("clients/"+name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// keyStoreFile is a JKS file with a new server certificate of the demonstration's authority.
func (d *demoFolder) keyStoreFile(password string) (content string, serial *big.Int) {
	d.t.Helper()
	certificate, key := d.demoAuthority().issue(x509.ExtKeyUsageServerAuth, "localhost")
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		d.t.Fatal(err)
	}
	store := keystore.New()
	if err := store.SetPrivateKeyEntry("gateway", keystore.PrivateKeyEntry{
		CreationTime: time.Now(), PrivateKey: der, CertificateChain: []keystore.Certificate{{Type: "X.509", Content: certificate.Raw}},
	}, []byte(password)); err != nil {
		d.t.Fatal(err)
	}
	return storeText(d.t, store, password), certificate.SerialNumber
}

// trustStoreFile is a JKS file that trusts these.
func trustStoreFile(t *testing.T, password string, certificates ...*x509.Certificate) string {
	t.Helper()
	store := keystore.New()
	for i, c := range certificates {
		if err := store.SetTrustedCertificateEntry(fmt.Sprint("trusted", i), keystore.TrustedCertificateEntry{
			CreationTime: time.Now(), Certificate: keystore.Certificate{Type: "X.509", Content: c.Raw},
		}); err != nil {
			t.Fatal(err)
		}
	}
	return storeText(t, store, password)
}

func storeText(t *testing.T, store keystore.KeyStore, password string) string {
	t.Helper()
	var out bytes.Buffer
	if err := store.Store(&out, []byte(password)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func (d *demoFolder) password(store string) string {
	d.t.Helper()
	return strings.TrimSpace(d.read("secrets/" + store + ".password"))
}

// newIssuerKey adds a key to a JWKS, and returns it with a token of the demonstration's issuer that the key signed.
func newIssuerKey(t *testing.T, jwks, like string) (with, token string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal([]byte(jwks), &set); err != nil {
		t.Fatal(err)
	}
	number := base64.RawURLEncoding.EncodeToString
	set.Keys = append(set.Keys, map[string]any{
		"kty": "RSA", "kid": "second", "use": "sig", "alg": "RS256", "n": number(key.N.Bytes()), "e": number(big.NewInt(int64(key.E)).Bytes()),
	})
	text, err := json.MarshalIndent(set, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(like, claims); err != nil {
		t.Fatal(err)
	}
	unsigned := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	unsigned.Header["kid"] = "second"
	if token, err = unsigned.SignedString(key); err != nil {
		t.Fatal(err)
	}
	return string(text), token
}
