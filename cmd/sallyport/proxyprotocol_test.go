package main_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A passer is a real proxy that passes connections through to the gateway, with a PROXY header before their bytes.
type passer struct {
	name       string
	tls, plain int // its ports
}

// snippet is the block of that kind in docs/behind-a-load-balancer.md.
func snippet(t *testing.T, kind string) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/behind-a-load-balancer.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(data), "\n```"+kind+"\n")
	text, _, ended := strings.Cut(text, "\n```\n")
	if !found || !ended || strings.Contains(text, "```") {
		t.Fatalf("the document has no block %s", kind)
	}
	return text
}

// fit replaces texts, each of which has to be there.
func fit(t *testing.T, text string, edits ...string) string {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("%q is not in %s", edits[i], text)
		}
		text = strings.ReplaceAll(text, edits[i], edits[i+1])
	}
	return text
}

// nginxStream runs NGINX with the document's block, once for each listener.
func (d *demoFolder) nginxStream(to passer) passer {
	d.t.Helper()
	nginx := tool(d.t, "nginx")
	module := ""
	if built, err := exec.Command(nginx, "-V").CombinedOutput(); err != nil || !strings.Contains(string(built), "--with-stream ") {
		const file = "/usr/lib/nginx/modules/ngx_stream_module.so"
		if _, err := os.Stat(file); err != nil {
			if os.Getenv("CI") == "true" {
				d.t.Fatal(err)
			}
			d.t.Skip("NGINX has no module stream")
		}
		module = "load_module " + file + ";\n"
	}
	p := passer{"NGINX", freePort(d.t), freePort(d.t)}
	block := snippet(d.t, "nginx")
	server := strings.TrimSuffix(strings.TrimPrefix(block, "stream {\n"), "\n}")
	var servers []string
	for listen, port := range map[int]int{p.tls: to.tls, p.plain: to.plain} {
		servers = append(servers, fit(d.t, server, "listen 443;", fmt.Sprintf("listen 127.0.0.1:%d;", listen),
			"10.1.2.10:8243", fmt.Sprintf("127.0.0.1:%d", port)))
	}
	const main = "worker_processes 1;\ndaemon off;\npid stream.pid;\nerror_log stderr warn;\nevents {}\n"
	d.write("stream.conf", module+main+"stream {\n"+strings.Join(servers, "\n")+"\n}\n")
	d.runBalancer([]int{p.tls, p.plain}, nginx, "-e", "stderr", "-p", ".", "-c", "stream.conf")
	return p
}

// haproxyTCP runs HAProxy with the document's block, once for each listener, and the word for a version of the header.
func (d *demoFolder) haproxyTCP(to passer, word string) passer {
	d.t.Helper()
	p := passer{"HAProxy, " + word, freePort(d.t), freePort(d.t)}
	text := "defaults\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
	for _, one := range []struct {
		name   string
		at, to int
	}{{"tls", p.tls, to.tls}, {"plain", p.plain, to.plain}} {
		text += "\n" + fit(d.t, snippet(d.t, "haproxy"), "bind :443", fmt.Sprintf("bind 127.0.0.1:%d", one.at),
			"10.1.2.10:8243", fmt.Sprintf("127.0.0.1:%d", one.to), "frontend clients", "frontend clients-"+one.name, "backend sallyport", "backend sallyport-"+one.name, "send-proxy-v2", word) + "\n"
	}
	d.write(word+".cfg", text)
	d.runBalancer([]int{p.tls, p.plain}, tool(d.t, "haproxy"), "-f", word+".cfg")
	return p
}

// from returns a client that calls from an address of this machine, with that certificate, if it has a name.
func (d *demoFolder) from(address, certificate string, http2 bool) *http.Client {
	d.t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}} // the gateway's is not part of the test
	if pair := d.pair(certificate); pair != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	if http2 {
		config.NextProtos = []string{"h2"}
	}
	transport := &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: http2, DisableCompression: true,
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext(ctx, network, to)
		},
	}
	c := &http.Client{Timeout: patience, Transport: transport}
	d.t.Cleanup(c.CloseIdleConnections)
	return c
}

// proxiedListeners adds two listeners behind proxies on 127.0.0.1 to a demonstration's.
func proxiedListeners(t *testing.T) (at passer, edits []string) {
	at = passer{"", freePort(t), freePort(t)}
	const proxies = "proxyProtocol: {addresses: [127.0.0.1]}"
	return at, []string{"\nmutualSSL:\n", fmt.Sprintf(`
  - name: behind-tcp
    address: 127.0.0.1:%d
    keyStore: {location: stores/gateway.jks, type: JKS, password: "${file:secrets/gateway.password}", keyPassword: "${file:secrets/gateway.password}", alias: gateway}
    trustStore: {location: stores/client-truststore.jks, type: JKS, password: "${file:secrets/client-truststore.password}"}
    `+proxies+`
  - {name: behind-plain, address: "127.0.0.1:%d", `+proxies+`}

limits: {connectionsPerSource: 8}

mutualSSL:
`, at.tls, at.plain)}
}

// TestBehindPassers runs NGINX and HAProxy, as docs/behind-a-load-balancer.md has them, before a listener with TLS and a
// plain one. A client's certificate decides as if it had called by itself; its address stands in X-Forwarded-For and the
// access log, whatever it says of addresses; and one that opens too many connections takes none of another's.
func TestBehindPassers(t *testing.T) {
	t.Parallel()
	to, edits := proxiedListeners(t)
	d := newDemo(t, append(edits, "format: text", "format: json")...)
	p := d.quickstart()
	const victim, attacker = "127.0.0.9", "127.0.0.66"
	for _, passer := range []passer{d.nginxStream(to), d.haproxyTCP(to, "send-proxy"), d.haproxyTCP(to, "send-proxy-v2")} {
		t.Run(passer.name, func(t *testing.T) {
			turnedAway := func() float64 {
				return p.number(`sallyport_connections_refused_total{why="connections_per_source"}`) +
					p.number(`sallyport_connections_evicted_total{limit="connections_per_source"}`)
			}
			before := turnedAway()
			var silent []net.Conn
			for range 12 { // four more than it may have
				c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(attacker)}}).Dial("tcp", fmt.Sprintf("127.0.0.1:%d", passer.plain))
				if err != nil {
					t.Fatal(err)
				}
				silent = append(silent, c)
			}
			eventually(t, "four are refused, or take another's place", func() bool { return turnedAway()-before >= 4 })
			claims := []string{"X-Forwarded-For", "127.0.0.1", "X-WSO2-CLIENT-CERTIFICATE", escape(d.read("clients/gold.crt"))}
			check := func(what string, r reply, err error, by string) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				h := r.echo(t).Headers
				if got := h.Values("X-Forwarded-For"); r.status != http.StatusOK || len(got) != 1 || got[0] != victim || caller(h) != by {
					t.Errorf("%s: status %d, X-Forwarded-For %q, as %q", what, r.status, got, caller(h))
				}
				line := p.accessLine(t, r.header.Get("X-Request-Id"))
				if line.Client != victim || !strings.HasPrefix(line.Peer, "127.0.0.1:") {
					t.Errorf("%s: client %q, peer %q in the access log", what, line.Client, line.Peer)
				}
			}
			for _, http2 := range []bool{false, true} {
				gold := d.from(victim, "gold", http2)
				for range 3 {
					r, err := callURL(gold, fmt.Sprintf("https://127.0.0.1:%d/payments/42", passer.tls), claims...)
					check(fmt.Sprintf("gold, HTTP/2 %v", http2), r, err, "certificate")
				}
				for who, code := range map[string]string{"rogue": "900901", "": "900902"} {
					before := d.backendCount()
					r, err := callURL(d.from(victim, who, http2), fmt.Sprintf("https://127.0.0.1:%d/payments/42", passer.tls), claims...)
					if err != nil || r.code(t) != code || d.backendCount() != before+1 {
						t.Errorf("as %q: status %d, %v", who, r.status, err)
					}
				}
			}
			r, err := callURL(d.from(victim, "", false), fmt.Sprintf("http://127.0.0.1:%d/hello/42", passer.plain), claims...)
			check("plain", r, err, "nobody")
			for _, c := range silent {
				c.Close()
			}
		})
	}
	p.stop()
}

// TestProxiesOfAReload: who is a proxy changes with sallyport.yaml, for the next connection.
func TestProxiesOfAReload(t *testing.T) {
	to, edits := proxiedListeners(t)
	d := newDemo(t, append(edits, fast...)...)
	p := d.quickstart()
	url := fmt.Sprintf("http://127.0.0.1:%d/hello/42", to.plain)
	forwarded := func(address string) string {
		c := d.from(address, "", false)
		defer c.CloseIdleConnections()
		r, err := callURL(c, url)
		if err != nil || r.status != http.StatusOK {
			return ""
		}
		return r.echo(t).Headers.Get("X-Forwarded-For")
	}
	if a, b := forwarded("127.0.0.1"), forwarded("127.0.0.9"); a != "" || b != "127.0.0.9" {
		t.Errorf("without a header the proxy's call is from %q, and another's from %q", a, b)
	}
	d.swap("sallyport.yaml", strings.ReplaceAll(d.read("sallyport.yaml"), "{addresses: [127.0.0.1]}", "{addresses: [127.0.0.9]}"))
	eventually(t, "the other one is a proxy", func() bool { return forwarded("127.0.0.1") == "127.0.0.1" && forwarded("127.0.0.9") == "" })
	if p.number(`sallyport_connections_refused_total{why="proxy_header"}`) == 0 || !strings.Contains(p.stderr.String(), "PROXY header refused") {
		t.Error("nobody is told of headers that are missing")
	}
	p.stop()
}

// A logged is what a line of the access log says of addresses.
type logged struct{ ID, Client, Peer string }

// accessLine waits for the access log's line of a call.
func (p *process) accessLine(t *testing.T, id string) (line logged) {
	t.Helper()
	eventually(t, "the call is in the access log", func() bool {
		for text := range strings.Lines(p.stdout.String()) {
			if strings.Contains(text, id) && json.Unmarshal([]byte(text), &line) == nil && line.ID == id {
				return true
			}
		}
		return false
	})
	return line
}
