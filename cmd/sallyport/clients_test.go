package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport/internal/testpki"
)

// Each real client has a test of its own, which is skipped where the client is not installed.

const storePassword = "for the test"

// pkcs12 has openssl write a PKCS #12 store for a client of the demonstration.
func (d *demoFolder) pkcs12(name string) string {
	d.t.Helper()
	path := filepath.Join(d.t.TempDir(), name+".p12")
	d.output(exec.Command(tool(d.t, "openssl"), "pkcs12", "-export", "-in", d.path("clients/"+name+".crt"), "-inkey", d.path("clients/"+name+".key"),
		"-name", name, "-passout", "pass:"+storePassword, "-out", path))
	return path
}

// output runs a command and returns what it printed. The command must succeed within twice the test's patience.
func (d *demoFolder) output(cmd *exec.Cmd) string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 2*patience)
	defer cancel()
	bound := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bound.Dir, bound.Env, bound.Stdin = cmd.Dir, cmd.Env, cmd.Stdin
	var out, errs bytes.Buffer
	bound.Stdout, bound.Stderr = &out, &errs
	if err := bound.Run(); err != nil {
		d.t.Fatalf("%s: %v\n%s\n%s", cmd.Path, err, &out, &errs)
	}
	return out.String()
}

func (d *demoFolder) url(path string) string {
	return fmt.Sprintf("https://localhost:%d%s", d.Ports.HTTPS, path)
}

// seenBy checks a line that a client printed: some words, then the backend's JSON, which names the caller.
func seenBy(t *testing.T, line, before, caller string) {
	t.Helper()
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), before)
	var e echo
	if !ok || json.Unmarshal([]byte(rest), &e) != nil || e.Headers.Get("X-Sallyport-Client") != caller {
		t.Errorf("got %q, want %q and the backend's account of %s", line, before, caller)
	}
}

// TestCurl calls with curl, over each version of HTTP and of TLS.
func TestCurl(t *testing.T) {
	curl := tool(t, "curl")
	d := newDemo(t)
	d.quickstart()
	for _, how := range [][]string{{"--http1.1", "--tls-max", "1.2"}, {"--http1.1"}, {"--http2", "--tls-max", "1.2"}, {"--http2"}} {
		version := "1.1"
		if how[0] == "--http2" {
			version = "2"
		}
		args := append(how, "-sS", "--cacert", d.path("ca.crt"), "-w", "%{http_version} %{http_code}", "-d", "body")
		gold := append(args[:len(args):len(args)], "--cert", d.path("clients/gold.crt"), "--key", d.path("clients/gold.key"), "-o", d.path("answer"), d.url("/orders/1"))
		if out := d.output(exec.Command(curl, gold...)); out != version+" 200" {
			t.Errorf("%q: %q", how, out)
		}
		seenBy(t, d.read("answer"), "", "gold")
		stranger := append(args[:len(args):len(args)], "--cert", d.path("clients/unregistered.crt"), "--key", d.path("clients/unregistered.key"), "-o", d.path("answer"), d.url("/orders/1"))
		if out := d.output(exec.Command(curl, stranger...)); out != version+" 401" || !strings.Contains(d.read("answer"), `"900901"`) {
			t.Errorf("%q: a stranger: %q", how, out)
		}
	}
}

// TestOpenSSLClient calls with openssl s_client, and again in a resumed session.
func TestOpenSSLClient(t *testing.T) {
	openssl := tool(t, "openssl")
	d := newDemo(t)
	d.quickstart()
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		session := filepath.Join(t.TempDir(), "session")
		for i, keep := range [][]string{{"-sess_out", session}, {"-sess_in", session}} {
			cmd := exec.Command(openssl, append([]string{
				"s_client", version, "-connect", fmt.Sprintf("localhost:%d", d.Ports.HTTPS), "-servername", "localhost", "-CAfile", d.path("ca.crt"),
				"-verify_return_error", "-cert", d.path("clients/gold.crt"), "-key", d.path("clients/gold.key"), "-ign_eof",
			}, keep...)...)
			cmd.Stdin = strings.NewReader("GET /orders/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			out := d.output(cmd)
			_, answer, _ := strings.Cut(out, "HTTP/1.1 200 OK")
			_, body, _ := strings.Cut(answer, "\r\n\r\n")
			var e echo
			if err := json.NewDecoder(strings.NewReader(body)).Decode(&e); err != nil || e.Headers.Get("X-Sallyport-Client") != "gold" {
				t.Errorf("%s, session %v: %v\n%s", version, keep, err, out)
			}
			if i == 1 && !strings.Contains(out, "Reused, ") {
				t.Errorf("%s: the session was not resumed", version)
			}
		}
	}
}

// TestJavaClient calls with Java's HttpClient and a PKCS #12 store.
func TestJavaClient(t *testing.T) {
	java := tool(t, "java")
	tool(t, "javac") // a runtime without the compiler cannot start a source file
	d := newDemo(t)
	d.quickstart()
	out := d.output(exec.Command(java, "testdata/clients/Client.java", d.url("/orders/1"), d.path("ca.crt"), d.pkcs12("gold"), storePassword))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 {
		t.Fatalf("it printed %q", out)
	}
	for i, line := range lines {
		seenBy(t, line, []string{"HTTP_1_1 200 ", "HTTP_2 200 "}[i/2], "gold")
	}
}

// TestNodeClient calls with Node's https and http2 and a PKCS #12 store, and as a WebSocket.
func TestNodeClient(t *testing.T) {
	node := tool(t, "node")
	b := newWebBackend(t)
	d := newDemo(t)
	d.toBackend("payments", b.URL)
	d.quickstart()
	out := d.output(exec.Command(node, "testdata/clients/client.js", d.url("/orders/1"), d.path("ca.crt"), d.pkcs12("gold"), storePassword, d.url("/payments/echo")))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || lines[3] != "WebSocket 101 gold: from Node" {
		t.Fatalf("it printed %q", out)
	}
	for i, line := range lines[:3] {
		seenBy(t, line, []string{"HTTP/1.1 200 ", "HTTP/1.1 200 ", "HTTP/2 200 "}[i], "gold")
	}
}

// TestChromium opens a page of an API in headless Chromium, which has a client certificate and opens a WebSocket. Chromium
// reads the policy that selects the certificate only from a system folder. The test provides that folder in a mount
// namespace, for which it has to run as root.
func TestChromium(t *testing.T) {
	chromium, certutil, pk12util, unshare := tool(t, "chromium"), tool(t, "certutil"), tool(t, "pk12util"), tool(t, "unshare")
	if os.Getuid() != 0 {
		t.Skip("only root may give Chromium a policy of its own")
	}
	if out, err := exec.Command(unshare, "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespace can be had here: %s", out)
	}
	b := newWebBackend(t)
	d := newDemo(t)
	d.toBackend("payments", b.URL)
	d.quickstart()

	home := t.TempDir()
	db := filepath.Join(home, ".pki", "nssdb")
	etc := filepath.Join(home, "etc")
	for _, dir := range []string{db, filepath.Join(etc, "policies", "managed")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.output(exec.Command(certutil, "-N", "-d", "sql:"+db, "--empty-password"))
	d.output(exec.Command(certutil, "-A", "-d", "sql:"+db, "-n", "ca", "-t", "C,,", "-i", d.path("ca.crt")))
	d.output(exec.Command(pk12util, "-i", d.pkcs12("gold"), "-d", "sql:"+db, "-W", storePassword, "-K", ""))
	policy := fmt.Sprintf(`{"AutoSelectCertificateForUrls": ["{\"pattern\":\"https://localhost:%d\",\"filter\":{}}"]}`, d.Ports.HTTPS)
	if err := os.WriteFile(filepath.Join(etc, "policies", "managed", "select.json"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	browse := func(path string) string {
		cmd := exec.Command(unshare, "--mount", "sh", "-c", `mount --bind "$0" /etc/chromium && exec "$@"`, etc, chromium,
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
			"--disable-sync", "--disable-dev-shm-usage", "--user-data-dir="+filepath.Join(home, "data"), "--dump-dom", d.url(path))
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME=", "XDG_CACHE_HOME=")
		return d.output(cmd)
	}
	page := browse("/orders/42")
	_, page, _ = strings.Cut(page, "<pre>")
	page, _, _ = strings.Cut(page, "</pre>")
	seenBy(t, page, "", "gold")
	if page := browse("/payments/page"); !strings.Contains(page, "gold: from Chromium") {
		t.Errorf("the page with the WebSocket is %s", page)
	}
}

// toBackend sends the calls of an API to another backend.
func (d *demoFolder) toBackend(api, url string) {
	d.t.Helper()
	text := d.read("sallyport.yaml")
	at := strings.Index(text, "  - name: "+api+"\n")
	if at < 0 {
		d.t.Fatalf("there is no API %s", api)
	}
	const key = "upstream: {urls: ["
	begin := at + strings.Index(text[at:], key) + len(key)
	end := begin + strings.IndexByte(text[begin:], ']')
	d.swap("sallyport.yaml", text[:begin]+`"`+url+`"`+text[end:])
}

// A webBackend serves a page that opens a WebSocket, and the WebSocket, which tells the page who calls.
type webBackend struct {
	*httptest.Server
	shown chan struct{} // closed once the page has shown what it received
}

func newWebBackend(t *testing.T) *webBackend {
	b := &webBackend{shown: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", echoWebSocket)
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		// The page counts as loaded only when the picture has, which is answered once the echo is on the page.
		_, _ = io.WriteString(w, `<!DOCTYPE html><body><p id="got"></p><img src="wait"><script>
			const socket = new WebSocket("wss://" + location.host + "/payments/echo");
			socket.onopen = () => socket.send("from Chromium");
			socket.onmessage = (m) => { document.getElementById("got").textContent = m.data; fetch("shown"); };
			socket.onerror = () => { document.getElementById("got").textContent = "failed"; fetch("shown"); };
			</script></body>`)
	})
	show := sync.OnceFunc(func() { close(b.shown) })
	mux.HandleFunc("/shown", func(http.ResponseWriter, *http.Request) { show() })
	mux.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-b.shown:
		case <-r.Context().Done():
		}
	})
	b.Server = httptest.NewServer(mux)
	t.Cleanup(b.Close)
	return b
}

// echoWebSocket implements RFC 6455 for text messages of less than 126 bytes.
func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	w.Header().Set("Upgrade", "websocket")
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	w.WriteHeader(http.StatusSwitchingProtocols)
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	for {
		text, err := readText(buffered.Reader)
		if err != nil {
			return
		}
		text = r.Header.Get("X-Sallyport-Client") + ": " + text
		if _, err := c.Write(append([]byte{0x81, byte(len(text))}, text...)); err != nil {
			return
		}
	}
}

func readText(r *bufio.Reader) (string, error) {
	head := make([]byte, 6)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", err
	}
	size := int(head[1] & 0x7f)
	if head[0] != 0x81 || head[1]&0x80 == 0 || size > 100 {
		return "", errors.New("no short text")
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	for i := range text {
		text[i] ^= head[2+i%4]
	}
	return string(text), nil
}

// TestUpstreamKeyStore has a backend demand a certificate: it gets the one of upstream.keyStore, and a new one once the
// file has changed. Held: security K 143 for a running gateway.
func TestUpstreamKeyStore(t *testing.T) {
	d := newDemo(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(d.read("ca.crt")))
	pair := func(name string) (string, tls.Certificate) {
		text := d.read("clients/"+name+".crt") + d.read("clients/"+name+".key")
		c, err := tls.X509KeyPair([]byte(text), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return text, c
	}
	b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Shown", r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	b.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	b.StartTLS()
	t.Cleanup(b.Close)
	d.write("backend-ca.pem", string(testpki.PEM(b.Certificate())))
	gold, first := pair("gold")
	bronze, second := pair("bronze")
	d.write("stores/own.pem", gold)
	d.toBackend("hello", b.URL)
	text := d.read("sallyport.yaml")
	d.swap("sallyport.yaml", strings.Replace(text, `["`+b.URL+`"]`, `["`+b.URL+`"], caFile: backend-ca.pem, keyStore: {location: stores/own.pem, type: PEM}`, 1))
	p := d.quickstart()
	c := d.client("", dialect{tls.VersionTLS13, true})
	if r := c.get(t, "/hello/x"); r.status != 200 || r.header.Get("X-Shown") != first.Leaf.Subject.CommonName {
		t.Errorf("status %d, shown %q", r.status, r.header.Get("X-Shown"))
	}
	d.swap("stores/own.pem", bronze)
	eventually(t, "the new certificate is shown", func() bool {
		r := c.get(t, "/hello/x")
		if r.status != 200 {
			t.Errorf("status %d while it changes", r.status)
		}
		return r.header.Get("X-Shown") == second.Leaf.Subject.CommonName
	})
	p.stop()
}
