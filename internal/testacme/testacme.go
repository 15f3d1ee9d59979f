// Package testacme starts a CA that speaks ACME for tests: Pebble, with its own DNS server, which leads every name to
// 127.0.0.1.
//
//	ca := testacme.Start(t, testacme.Options{HTTPPort: "12001", TLSPort: "12002", RejectNonces: 50})
//	settings := acme.Settings{Directory: ca.Directory, CAFile: ca.CAFile, …}
package testacme

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

// The external account that a CA with Options.External asks for.
const (
	KeyID = "kid-1"
	HMAC  = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
)

// Options are the settings of a CA. Validations go to 127.0.0.1.
type Options struct {
	HTTPPort     string        // of HTTP-01 validations; "": one where nobody listens
	TLSPort      string        // of TLS-ALPN-01 validations; the same
	RejectNonces int           // per cent of good nonces that are refused
	External     bool          // an account needs KeyID and HMAC
	Validity     time.Duration // of certificates; 0: 90 days
	OCSP         string        // the URL of a responder that is named in certificates; "": none
}

// A CA is a running Pebble.
type CA struct {
	Directory string         // its URL
	CAFile    string         // the file of the CA that the directory's own certificate is from
	Roots     *x509.CertPool // that CA
	Process   testserver.Process

	t          testing.TB
	management string // its URL
	client     *http.Client
}

// built are the programs, built once for all tests of a package.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "testacme")
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", err
	}
	const pebble = "github.com/letsencrypt/pebble/v2/cmd/"
	build := exec.Command("go", "build", "-modfile=tools.mod", "-o", dir, pebble+"pebble", pebble+"pebble-challtestsrv")
	build.Dir = string(bytes.TrimSpace(root))
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pebble can't be built: %w\n%s", err, out)
	}
	return dir, nil
})

// Start starts a CA and waits until it answers.
func Start(t testing.TB, o Options) *CA {
	t.Helper()
	programs, err := built()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	self := testpki.NewCA(t, "Pebble's own CA")
	ca := &CA{t: t, CAFile: filepath.Join(dir, "ca.pem"), Roots: x509.NewCertPool()}
	ca.Roots.AddCert(self.Cert)
	ca.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Roots}, DisableKeepAlives: true}}
	identity := self.IssueServer("127.0.0.1", "localhost")
	testserver.Write(t, ca.CAFile, string(testpki.PEM(self.Cert)))
	testserver.Write(t, filepath.Join(dir, "cert.pem"), string(identity.CertPEM()))
	testserver.Write(t, filepath.Join(dir, "key.pem"), string(identity.KeyPEM()))

	dns := startDNS(t, filepath.Join(programs, "pebble-challtestsrv"))
	ca.Process = testserver.Process{
		T: t, Program: filepath.Join(programs, "pebble"), Dir: dir,
		Env: append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0", "PEBBLE_WFE_NONCEREJECT="+strconv.Itoa(o.RejectNonces)),
	}
	ca.Process.Start(func() []string {
		at, management := testserver.FreePort(t), testserver.FreePort(t)
		ca.Directory, ca.management = "https://127.0.0.1:"+at+"/dir", "https://127.0.0.1:"+management
		testserver.Write(t, filepath.Join(dir, "pebble.json"), o.config(t, at, management))
		return []string{"-config", "pebble.json", "-dnsserver", dns}
	}, ca.Answers)
	return ca
}

// Answers returns an error while the CA does not answer.
func (ca *CA) Answers() error {
	_, err := ca.get(ca.Directory)
	return err
}

func (o Options) config(t testing.TB, at, management string) string {
	number := func(port string) int {
		if port == "" {
			port = testserver.FreePort(t)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	validity := 90 * 24 * time.Hour
	if o.Validity != 0 {
		validity = o.Validity
	}
	keys := "ecdsa"
	if o.OCSP != "" {
		keys = "rsa" // the only ones that Pebble hands out
	}
	config := map[string]any{
		"listenAddress": "127.0.0.1:" + at, "managementListenAddress": "127.0.0.1:" + management,
		"certificate": "cert.pem", "privateKey": "key.pem",
		"httpPort": number(o.HTTPPort), "tlsPort": number(o.TLSPort),
		"ocspResponderURL": o.OCSP, "externalAccountBindingRequired": o.External,
		"externalAccountMACKeys": map[string]string{KeyID: HMAC},
		"retryAfter":             map[string]int{"authz": 1, "order": 1},
		"keyAlgorithm":           keys,
		"profiles":               map[string]any{"default": map[string]any{"description": "d", "validityPeriod": int(validity / time.Second)}},
	}
	text, err := json.Marshal(map[string]any{"pebble": config})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func startDNS(t testing.TB, program string) (address string) {
	t.Helper()
	var management string
	p := testserver.Process{T: t, Program: program, Dir: t.TempDir()}
	p.Start(func() []string {
		address, management = "127.0.0.1:"+testserver.FreePort(t), "127.0.0.1:"+testserver.FreePort(t)
		return []string{
			"-dnsserver", address, "-management", management, "-defaultIPv6", "", "-http01", "", "-https01", "",
			"-tlsalpn01", "", "-doh", "",
		}
	}, func() error {
		c, err := net.Dial("tcp", management)
		if err == nil {
			c.Close()
		}
		return err
	})
	return address
}

// Restart starts the CA again after Kill, at the same address. It has forgotten everything but its configuration.
func (ca *CA) Restart() {
	ca.t.Helper()
	ca.Process.Start(nil, ca.Answers)
}

// Orders counts the orders that the CA was asked for since the test began.
func (ca *CA) Orders() int { return ca.count(`Added order `) }

// Issued counts the certificates that the CA has issued since the test began.
func (ca *CA) Issued() int { return ca.count(`Issued certificate serial `) }

// Accounts counts the accounts that were made since the test began.
func (ca *CA) Accounts() int { return ca.count(`There are now [0-9]+ accounts in memory`) }

func (ca *CA) count(pattern string) int {
	ca.t.Helper()
	data, err := os.ReadFile(filepath.Join(ca.Process.Dir, "output"))
	if err != nil {
		ca.t.Error(err)
	}
	return len(regexp.MustCompile(pattern).FindAll(data, -1))
}

// Issuer returns the certificate and the private key, in PEM, of the CA that signs what is issued now.
func (ca *CA) Issuer() (cert, key []byte) {
	ca.t.Helper()
	return ca.must("/intermediates/0"), ca.must("/intermediate-keys/0")
}

// Trust returns a pool of the root that what is issued now chains to.
func (ca *CA) Trust() *x509.CertPool {
	ca.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.must("/roots/0")) {
		ca.t.Fatal("the CA has no root")
	}
	return pool
}

// SuggestWindow has the CA suggest that a certificate be renewed in a window (RFC 9773).
func (ca *CA) SuggestWindow(cert *x509.Certificate, from, to time.Time) {
	ca.t.Helper()
	window := map[string]any{"suggestedWindow": map[string]any{"start": from.UTC().Format(time.RFC3339), "end": to.UTC().Format(time.RFC3339)}}
	text, err := json.Marshal(window)
	if err != nil {
		ca.t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{
		"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})), "ariResponse": string(text),
	})
	if err != nil {
		ca.t.Fatal(err)
	}
	res, err := ca.client.Post(ca.management+"/set-renewal-info/", "application/json", bytes.NewReader(body))
	if err != nil {
		ca.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		ca.t.Fatalf("set-renewal-info: %s %s", res.Status, text)
	}
}

func (ca *CA) must(path string) []byte {
	ca.t.Helper()
	data, err := ca.get(ca.management + path)
	if err != nil {
		ca.t.Fatal(err)
	}
	return data
}

func (ca *CA) get(url string) ([]byte, error) {
	res, err := ca.client.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(res.Body)
}
