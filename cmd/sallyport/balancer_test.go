package main_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const examples = "../../examples/"

// The header formats of load balancers: the name, the format in sallyport.yaml, and the value for a certificate.
var ways = []struct {
	name, header, format string
	write                func(der []byte) string
}{
	{"NGINX", "X-WSO2-CLIENT-CERTIFICATE", "auto", func(der []byte) string { return escape(blockOf(der)) }},
	{"plus as it is", "X-WSO2-CLIENT-CERTIFICATE", "auto", func(der []byte) string { return escapeSome(blockOf(der)) }},
	{"spaces", "X-WSO2-CLIENT-CERTIFICATE", "auto", func(der []byte) string { return strings.TrimSpace(strings.ReplaceAll(blockOf(der), "\n", " ")) }},
	{"base64 of PEM", "X-WSO2-CLIENT-CERTIFICATE", "auto", func(der []byte) string { return base64.StdEncoding.EncodeToString([]byte(blockOf(der))) }},
	{"base64url of PEM", "X-WSO2-CLIENT-CERTIFICATE", "auto", func(der []byte) string { return base64.RawURLEncoding.EncodeToString([]byte(blockOf(der))) }},
	{"HAProxy", "X-WSO2-CLIENT-CERTIFICATE", "auto", base64.StdEncoding.EncodeToString},
	{"base64url", "X-WSO2-CLIENT-CERTIFICATE", "auto", base64.URLEncoding.EncodeToString},
	{"RFC 9440 under the one name", "X-WSO2-CLIENT-CERTIFICATE", "auto", byteSequence},
	{"RFC 9440", "Client-Cert", "rfc9440", byteSequence},
	{"Envoy", "X-Forwarded-Client-Cert", "xfcc", func(der []byte) string {
		sum := sha256.Sum256(der)
		return `By=spiffe://mesh/gateway;Hash=` + hex.EncodeToString(sum[:]) + `;Cert="` + escape(blockOf(der)) + `";Chain="` + escape(blockOf(der)) + `";Subject="CN=any,O=\"one\"";URI=;DNS=a.test`
	}},
	{"ALB", "X-Amzn-Mtls-Clientcert", "alb", func(der []byte) string { return escapeSome(blockOf(der)) }},
}

func blockOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func escape(s string) string       { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
func escapeSome(s string) string   { return strings.NewReplacer(" ", "%20", "\n", "%0A").Replace(s) }
func byteSequence(b []byte) string { return ":" + base64.StdEncoding.EncodeToString(b) + ":" }

// A door is a listener for load balancers, called as a load balancer calls it.
type door struct {
	name string
	call func(path string, headers ...string) (reply, error)
}

func (d door) get(t *testing.T, path string, headers ...string) reply {
	t.Helper()
	r, err := d.call(path, headers...)
	if err != nil {
		t.Fatalf("%s: %v", d.name, err)
	}
	return r
}

const configuredHeader = "  clientCertificateHeader: X-WSO2-CLIENT-CERTIFICATE    # the header that load balancers fill\n"

// newDoorDemo returns a demonstration that also has a plain listener for load balancers, and reads that header format.
func newDoorDemo(t *testing.T, format string, edits ...string) (d *demoFolder, plainPort int) {
	t.Helper()
	plainPort = freePort(t)
	all := []string{"\nmutualSSL:\n", fmt.Sprintf("\n  - {name: behind-lb, address: 127.0.0.1:%d, clientCertificateHeader: address}\n\nmutualSSL:\n", plainPort)}
	if format != "auto" {
		all = append(all, configuredHeader, "", "headerFormat: auto", "headerFormat: "+format)
	}
	return newDemo(t, append(all, edits...)...), plainPort
}

// byCertificateDoor is port 8244, called with the load balancer's own certificate.
func (d *demoFolder) byCertificateDoor(how dialect) door {
	return door{"by certificate, " + how.String(), d.client("loadbalancer", how).onPort(d.Ports.LoadBalancer).call}
}

// plainDoor calls a plain listener from a load balancer's address.
func plainDoor(t *testing.T, port int) door {
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(c.CloseIdleConnections)
	return door{"by address", func(path string, headers ...string) (reply, error) {
		return callURL(c, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), headers...)
	}}
}

func callURL(c *http.Client, target string, headers ...string) (reply, error) {
	r, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(res.Body)
	return reply{res.StatusCode, res.Header, body.Bytes()}, err
}

// certificateOf returns a client's certificate as DER.
func (d *demoFolder) certificateOf(name string) []byte {
	d.t.Helper()
	return d.block("clients/" + name + ".crt")
}

// TestTruthTableBehindBalancers checks the truth table with the certificates in a header, in each format, from a load
// balancer that is known by its certificate or by its address. The outcomes are those of the handshake.
func TestTruthTableBehindBalancers(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"auto", "rfc9440", "xfcc", "alb"} {
		t.Run(format, func(t *testing.T) {
			d, plain := newDoorDemo(t, format)
			p := d.quickstart()
			for i, way := range ways {
				if way.format != format {
					continue
				}
				for _, at := range []door{d.byCertificateDoor(dialects[i%len(dialects)]), plainDoor(t, plain)} {
					d.truthThrough(t, at, way.name, func(certificate string) []string {
						return []string{way.header, way.write(d.certificateOf(certificate))}
					})
				}
			}
			p.stop()
		})
	}
}

// truthThrough checks the truth table through a door.
func (d *demoFolder) truthThrough(t *testing.T, at door, way string, present func(certificate string) []string) {
	t.Helper()
	for _, row := range truth {
		before, wantReached := d.backendCount(), 0
		for i, token := range truthTokens {
			headers := d.bearer(token)
			if row.certificate != "" {
				headers = append(headers, present(row.certificate)...)
			}
			r := at.get(t, "/"+row.api+"/42", headers...)
			got := outcome{status: r.status, code: r.code(t)}
			if r.status == http.StatusOK {
				got.by = caller(r.echo(t).Headers)
			}
			if row.outcomes[i].status == http.StatusOK {
				wantReached++
			}
			if got != row.outcomes[i] {
				t.Errorf("%s, %s: %s, certificate %q, token %q: %+v, want %+v", at.name, way, row.api, row.certificate, token, got, row.outcomes[i])
			}
		}
		if reached := d.backendCount() - before - 1; reached != wantReached {
			t.Errorf("%s, %s: %s, certificate %q: %d calls reached the backend, want %d", at.name, way, row.api, row.certificate, reached, wantReached)
		}
	}
}

// A balancer is a real load balancer in front of the demonstration, with the configuration of its example.
type balancer struct {
	name string
	port int // for HTTPS
}

// tool returns the path of a program that a test needs, and skips the test without it, or fails it if CI=true.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} { // which some systems leave out of PATH
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", name)
		}
		t.Skipf("%s is missing", name)
	}
	return path
}

// serverFiles writes the certificate with which a load balancer ends its clients' TLS; the test's clients don't verify it.
// HAProxy wants keys in the files of their certificates.
func (d *demoFolder) serverFiles() {
	d.t.Helper()
	lb, key := d.read("clients/loadbalancer.crt"), d.read("clients/loadbalancer.key")
	for name, content := range map[string]string{"server.crt": lb, "server.key": key, "server.pem": lb + key, "loadbalancer.pem": lb + key} {
		d.write(name, content)
	}
}

// example writes an example's file into the quickstart's folder, with each old text replaced by the new one that follows
// it: ports.
func (d *demoFolder) example(name string, edits ...string) string {
	d.t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(examples + name))
	if err != nil {
		d.t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			d.t.Fatalf("examples/%s does not contain %q", name, edits[i])
		}
		text = strings.ReplaceAll(text, edits[i], edits[i+1])
	}
	file := filepath.Base(name)
	d.write(file, text)
	return file
}

// runBalancer starts a load balancer in the quickstart's folder, for which the examples are, and waits until it answers on each of the ports.
func (d *demoFolder) runBalancer(ports []int, name string, args ...string) {
	d.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = d.Dir
	var said transcript
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	d.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if d.t.Failed() {
			d.t.Logf("%s said:\n%s", filepath.Base(name), &said)
		}
	})
	eventually(d.t, filepath.Base(name)+" answers", func() bool {
		select {
		case <-ended:
			d.t.Fatalf("%s has ended:\n%s", cmd, &said)
		default:
		}
		for _, port := range ports {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return false
			}
			c.Close()
		}
		return true
	})
}

func (d *demoFolder) upstream() string { return fmt.Sprintf("127.0.0.1:%d", d.Ports.LoadBalancer) }

func (d *demoFolder) nginx() balancer {
	d.t.Helper()
	nginx, port := tool(d.t, "nginx"), freePort(d.t)
	d.serverFiles()
	file := d.example("behind-nginx/nginx.conf", "listen 8310", fmt.Sprintf("listen 127.0.0.1:%d", port), "127.0.0.1:8311", d.upstream(), "worker_processes auto", "worker_processes 1")
	d.runBalancer([]int{port}, nginx, "-e", "stderr", "-p", ".", "-c", file)
	return balancer{"NGINX", port}
}

func (d *demoFolder) haproxy() balancer {
	d.t.Helper()
	haproxy, port := tool(d.t, "haproxy"), freePort(d.t)
	d.serverFiles()
	file := d.example("behind-haproxy/haproxy.cfg", "bind :8320", fmt.Sprintf("bind 127.0.0.1:%d", port), "127.0.0.1:8321", d.upstream())
	d.runBalancer([]int{port}, haproxy, "-f", file)
	return balancer{"HAProxy", port}
}

// stunnel returns the port where it adds its certificate to an HTTP balancer's calls, and the one where it terminates TLS.
func (d *demoFolder) stunnel(plainPort int) (lends int, ends balancer) {
	d.t.Helper()
	stunnel := tool(d.t, "stunnel4")
	lends, ends = freePort(d.t), balancer{"stunnel", freePort(d.t)}
	d.serverFiles()
	file := d.example("behind-stunnel/stunnel.conf", "127.0.0.1:8342", fmt.Sprintf("127.0.0.1:%d", lends), "127.0.0.1:8341", d.upstream(),
		"accept = 8340", fmt.Sprintf("accept = 127.0.0.1:%d", ends.port), "127.0.0.1:8343", fmt.Sprintf("127.0.0.1:%d", plainPort))
	d.runBalancer([]int{ends.port, lends}, stunnel, file)
	return lends, ends
}

// as returns a door that calls the load balancer as a client with that certificate.
func (b balancer) as(t *testing.T, certificate *tls.Certificate, how dialect) door {
	t.Helper()
	config := &tls.Config{ // the load balancer's certificate is not part of the test
		InsecureSkipVerify: true, MinVersion: how.tls, MaxVersion: how.tls, NextProtos: []string{"http/1.1"},
	}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, DisableCompression: true, ForceAttemptHTTP2: how.http2}
	if how.http2 {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	c := &http.Client{Timeout: patience, Transport: transport}
	t.Cleanup(c.CloseIdleConnections)
	return door{"behind " + b.name + ", " + how.String(), func(path string, headers ...string) (reply, error) {
		return callURL(c, fmt.Sprintf("https://127.0.0.1:%d%s", b.port, path), headers...)
	}}
}

// pair returns a client's certificate with its key, or nil for an empty name.
func (d *demoFolder) pair(name string) *tls.Certificate {
	d.t.Helper()
	if name == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(d.path("clients/"+name+".crt"), d.path("clients/"+name+".key"))
	if err != nil {
		d.t.Fatal(err)
	}
	return &pair
}

// TestBehindRealBalancers runs NGINX and HAProxy with the configurations of their examples. The truth table holds through
// them, whatever headers a client sends. Only they tell the backend where a call comes from. A certificate has one rate
// limit, whichever way it comes in. Held: security D 57, I 117.
func TestBehindRealBalancers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*demoFolder) balancer{"NGINX": (*demoFolder).nginx, "HAProxy": (*demoFolder).haproxy} {
		t.Run(name, func(t *testing.T) {
			d := newDemo(t, threeADay...)
			p := d.quickstart()
			b := start(d)
			for _, row := range truth {
				for _, how := range dialects {
					at := b.as(t, d.pair(row.certificate), how)
					for i, token := range truthTokens {
						before := d.backendCount()
						r := at.get(t, "/"+row.api+"/42", d.bearer(token)...)
						got := outcome{status: r.status, code: r.code(t)}
						want := 0
						if r.status == http.StatusOK {
							want = 1
							got.by = caller(r.echo(t).Headers)
						}
						if got != row.outcomes[i] {
							t.Errorf("%s, certificate %q, token %q: %+v, want %+v", row.api, row.certificate, token, got, row.outcomes[i])
						}
						if reached := d.backendCount() - before - 1; reached != want {
							t.Errorf("%s, certificate %q, token %q: %d calls reached the backend", row.api, row.certificate, token, reached)
						}
					}
				}
			}

			// A header that the client sends does not count as the load balancer's.
			gold := escape(d.read("clients/gold.crt"))
			for _, header := range []string{
				"X-WSO2-CLIENT-CERTIFICATE", "x-wso2-client-certificate", "X_WSO2_CLIENT_CERTIFICATE", "Client-Cert", "X-Forwarded-Client-Cert", "X-Amzn-Mtls-Clientcert",
				"X-SSL-Client-Cert", "SSL-Client-Cert", "X-Client-Cert", "X-Sallyport-Client",
			} {
				for _, who := range []string{"", "unregistered"} {
					before := d.backendCount()
					r := b.as(t, d.pair(who), dialects[2]).get(t, "/payments/42", header, gold, header, gold)
					if r.status != http.StatusUnauthorized || d.backendCount() != before+1 {
						t.Errorf("as %q with %s: status %d", who, header, r.status)
					}
				}
				r := b.as(t, d.pair("gold"), dialects[2]).get(t, "/payments/42", header, escape(d.read("clients/bronze.crt")))
				if r.status != http.StatusOK || caller(r.echo(t).Headers) != "certificate" {
					t.Errorf("gold with bronze in %s: status %d", header, r.status)
				}
			}
			e := b.as(t, d.pair("gold"), dialects[3]).get(t, "/hello/42", "X-Forwarded-For", "203.0.113.7", "X-Forwarded-Host", "evil.test", "X-Forwarded-Proto", "http",
				"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").echo(t)
			if got := e.Headers.Values("X-Forwarded-For"); len(got) != 1 || got[0] != "127.0.0.1, 127.0.0.1" {
				t.Errorf("X-Forwarded-For %q", got)
			}
			if h := e.Headers; h.Get("X-Forwarded-Proto") != "https" || h.Get("X-Forwarded-Host") != fmt.Sprintf("127.0.0.1:%d", b.port) || strings.Contains(h.Get("Traceparent"), "0af7651916cd43dd") {
				t.Errorf("the backend was told %v", h)
			}

			// Three calls for trial, through all doors together.
			passed := 0
			doors := []door{{"handshake", d.client("trial", dialects[3]).call}, b.as(t, d.pair("trial"), dialects[2]), d.byCertificateDoor(dialects[0])}
			for range 3 {
				for i, at := range doors {
					var headers []string
					if i == 2 {
						headers = []string{"X-WSO2-CLIENT-CERTIFICATE", escape(d.read("clients/trial.crt"))}
					}
					switch r := at.get(t, "/payments/42", headers...); {
					case r.status == http.StatusOK:
						passed++
					case r.code(t) != "900804":
						t.Errorf("%s: status %d", at.name, r.status)
					}
				}
			}
			if passed != 3 {
				t.Errorf("%d of 9 calls of trial passed, want 3", passed)
			}
			p.stop()
		})
	}
}

// TestBehindStunnel runs stunnel with the configuration of its example. An HTTP balancer that calls through it is trusted
// by stunnel's certificate. A client whose TLS ends at stunnel is anonymous, whatever it presented and whatever it sends.
func TestBehindStunnel(t *testing.T) {
	d, plain := newDoorDemo(t, "auto")
	p := d.quickstart()
	lends, ends := d.stunnel(plain)

	at := plainDoor(t, lends)
	at.name = "lent by stunnel"
	d.truthThrough(t, at, "NGINX", func(certificate string) []string {
		return []string{"X-WSO2-CLIENT-CERTIFICATE", escape(d.read("clients/" + certificate + ".crt"))}
	})

	for _, certificate := range []string{"", "gold", "rogue", "loadbalancer"} {
		client := ends.as(t, d.pair(certificate), dialects[2])
		for _, headers := range [][]string{nil, {"X-WSO2-CLIENT-CERTIFICATE", escape(d.read("clients/gold.crt")), "X-Forwarded-For", "127.0.0.1"}} {
			before := d.backendCount()
			for _, path := range []string{"/orders/42", "/payments/42"} {
				if r := client.get(t, path, headers...); r.code(t) != "900902" {
					t.Errorf("as %q on %s with %d headers: status %d", certificate, path, len(headers)/2, r.status)
				}
			}
			if d.backendCount() != before+1 {
				t.Errorf("as %q: the backend was called", certificate)
			}
			r := client.get(t, "/orders/42", append(d.bearer("valid"), headers...)...)
			if r.status != http.StatusOK || caller(r.echo(t).Headers) != "token" || r.echo(t).Headers.Get("X-Forwarded-For") != "127.0.0.3" {
				t.Errorf("as %q with a token: status %d (%s)", certificate, r.status, r.body)
			}
		}
	}
	p.stop()
}

// TestExamplesAreGood validates the sallyport.yaml of each example in a quickstart folder.
func TestExamplesAreGood(t *testing.T) {
	files, err := filepath.Glob(filepath.FromSlash(examples + "behind-*/sallyport.yaml"))
	if err != nil || len(files) != 5 {
		t.Fatal(files, err)
	}
	d := newDemo(t)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d.write("example.yaml", string(data))
		code, stdout, stderr := d.run("validate", "-c", d.path("example.yaml"))
		if code != 0 || strings.Contains(stdout+stderr, "warning") {
			t.Errorf("%s: exit code %d\n%s%s", file, code, stdout, stderr)
		}
	}
}

// TestDoorSettings refuses configurations that would trust headers from anybody. Held: security D 51, 60, 62.
func TestDoorSettings(t *testing.T) {
	d, plain := newDoorDemo(t, "auto")
	good := d.read("sallyport.yaml")
	const name, addresses = "clientCertificateHeader: X-WSO2-CLIENT-CERTIFICATE ", "addresses: [127.0.0.1/32]"
	door := fmt.Sprintf("address: 127.0.0.1:%d, clientCertificateHeader: address", plain)
	for _, c := range []struct {
		old, new string
		code     int
		says     string
	}{
		{name, "clientCertificateHeader: Host ", 2, "has a meaning of its own"},
		{name, "clientCertificateHeader: authorization ", 2, "has a meaning of its own"},
		{name, "clientCertificateHeader: Content-Length ", 2, "has a meaning of its own"},
		{name, "clientCertificateHeader: Connection ", 2, "has a meaning of its own"},
		{name, "clientCertificateHeader: Transfer-Encoding ", 2, "has a meaning of its own"},
		{name, "clientCertificateHeader: X-Sallyport-Client ", 2, "has a meaning of its own"},
		{name, "clientCertificateHeader: bad name ", 2, "is no header name"},
		{name, "clientCertificateHeader: X_WSO2_CLIENT_CERTIFICATE ", 2, "is no header name"},
		{addresses, `addresses: ["::/0"]`, 2, "is everybody"},
		{addresses, `addresses: ["0.0.0.0/0"]`, 2, "is everybody"},
		{addresses, `addresses: ["127.0.0.0/33"]`, 2, "is to be an address or a network"},
		{addresses, `addresses: ["::ffff:127.0.0.0/80"]`, 2, "is to be an address or a network"},
		{addresses, `addresses: ["127.0.0.1/"]`, 2, "is to be an address or a network"},
		{addresses, `addresses: ["127.0.0.01"]`, 2, "is to be an address or a network"},
		{addresses, `addresses: ["127.1"]`, 2, "is to be an address or a network"},
		{addresses, `addresses: ["localhost"]`, 2, "is to be an address or a network"},
		{addresses, `addresses: ["::ffff:127.0.0.0/104"]`, 0, ""},
		{door, strings.Replace(door, ": address", ": certificate", 1), 2, "needs TLS"},
		{door, strings.Replace(door, "127.0.0.1", "0.0.0.0", 1), 0, "by plain HTTP over the network"},
		{door, strings.Replace(door, ": address", ": everybody", 1), 2, "everybody"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("sallyport.yaml does not contain %q", c.old)
		}
		d.write("changed.yaml", text)
		code, stdout, stderr := d.run("validate", "-c", d.path("changed.yaml"))
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s%s", c.new, code, c.code, c.says, stdout, stderr)
		}
	}
}
