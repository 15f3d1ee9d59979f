package main_test

import (
	"crypto/x509"
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

	"github.com/golang-jwt/jwt/v5"

	"sallyport/internal/testpki"
)

// thorough reports whether the fault tests run at full length, for which `make chaos` sets SALLYPORT_CHAOS=full.
// Otherwise they take seconds and run with all other tests.
func thorough() bool { return os.Getenv("SALLYPORT_CHAOS") == "full" }

// scaled returns how often a test repeats something: short times, or full times if the test is thorough.
func scaled(short, full int) int {
	if thorough() {
		return full
	}
	return short
}

// serve runs the gateway without the demonstration's other servers, with the test's own backend, until the test ends.
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
	// Calls still under way after a failed test would keep Close waiting.
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
		return p.good()
	})
}

// number returns the value of a series, or 0 if there is no such series or no answer.
func (p *process) number(series string) float64 {
	value, err := strconv.ParseFloat(p.metric(series), 64)
	if err != nil {
		return 0
	}
	return value
}

// total returns the sum of those series of a metric whose labels contain every text.
func (p *process) total(name string, labels ...string) float64 {
	_, body := p.status("/metrics")
	sum := 0.0
lines:
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		cut := strings.LastIndexByte(line, ' ') // labels may contain spaces, values do not
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

// holdings counts what the process holds and a leak would add to.
type holdings struct{ goroutines, descriptors, connections float64 }

func (p *process) holdings() holdings {
	return holdings{p.number("go_goroutines"), p.number("process_open_fds"), p.number("sallyport_connections")}
}

// settlesTo waits until the process holds no more than before, plus slack for idle backend connections and watches. The
// clients make no calls any more; a connection may be busy for a moment after the last of its calls has been broken off.
func (p *process) settlesTo(before holdings, slack float64, clients ...*client) {
	p.t.Helper()
	var now holdings
	defer func() { p.t.Logf("held before: %+v, after: %+v", before, now) }()
	eventually(p.t, "goroutines, descriptors and connections are what they were", func() bool {
		for _, c := range clients {
			c.http.CloseIdleConnections()
		}
		now = p.holdings()
		return now.goroutines > 0 && now.goroutines <= before.goroutines+slack && now.descriptors <= before.descriptors+slack && now.connections <= before.connections+3 // a client may keep a connection that it has just used
	})
}

// noCertificates fails the test if text contains a certificate or a key in PEM, which must not be logged.
func noCertificates(t *testing.T, where, text string) {
	t.Helper()
	if i := strings.Index(text, "-----BEGIN "); i >= 0 {
		t.Errorf("%s holds PEM: %.60q", where, text[i:])
	}
}

// stopClean ends the process, and checks everything that it wrote for secrets, certificates and panics.
func (p *process) stopClean() {
	p.t.Helper()
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		_, body := p.status(path) // status checks for secrets itself
		noCertificates(p.t, path, body)
	}
	p.stop()
	noCertificates(p.t, "the log", p.stdout.String()+p.stderr.String())
	if p.stderr.contains("panicked") || p.stderr.contains("goroutine ") {
		p.t.Errorf("something panicked:\n%s", p.stderr)
	}
}

// demoCA returns the demonstration's own CA.
func (d *demoFolder) demoCA() *testpki.Identity {
	d.t.Helper()
	return testpki.Load(d.t, []byte(d.read("ca.crt")), []byte(d.read("secrets/ca.key")))
}

// block returns the content of a file's first PEM block.
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

// putClient issues a client certificate, and writes it and its key beside those of the demonstration's clients.
func (d *demoFolder) putClient(ca *testpki.Identity, name string) {
	d.t.Helper()
	client := ca.Issue(testpki.Leaf{CommonName: name})
	d.write("clients/"+name+".crt", string(client.CertPEM()))
	d.write("clients/"+name+".key", string(client.KeyPEM()))
}

// keyStoreFile returns a JKS key store with a new server certificate of the demonstration's CA.
func (d *demoFolder) keyStoreFile(password string) (content string, serial *big.Int) {
	d.t.Helper()
	server := d.demoCA().IssueServer("localhost", "127.0.0.1")
	return string(server.JKS(password)), server.Cert.SerialNumber
}

// trustStoreFile returns a JKS trust store of these certificates, with the password of the demonstration's store.
func (d *demoFolder) trustStoreFile(store string, certificates ...*x509.Certificate) string {
	d.t.Helper()
	return string(testpki.TrustJKS(d.t, d.password(store), certificates...))
}

func (d *demoFolder) password(store string) string {
	d.t.Helper()
	return strings.TrimSpace(d.read("secrets/" + store + ".password"))
}

// newIssuerKey returns a JWKS with one key more, and a token of the demonstration's issuer that this key signed.
func newIssuerKey(t *testing.T, jwks, like string) (with, token string) {
	t.Helper()
	key := testpki.NewRSA(t, 2048)
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
	unsigned.Header["kid"], unsigned.Header["typ"] = "second", "at+jwt"
	if token, err = unsigned.SignedString(key); err != nil {
		t.Fatal(err)
	}
	return string(text), token
}
