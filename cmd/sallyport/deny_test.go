package main_test

import (
	"bufio"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testdb"
)

// streaming serves calls, event streams at paths that end in /events, and WebSockets.
func streaming(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	switch {
	case r.Header.Get("Upgrade") != "":
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, both, err := out.Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, both)
	case strings.HasSuffix(r.URL.Path, "/events"):
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = out.Flush()
		<-r.Context().Done()
	default:
		fmt.Fprint(w, "{}")
	}
}

// A line is a call that has no end of its own. over is closed when it has ended.
type line struct {
	name string
	over chan struct{}
}

func (l line) ended() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// watchLine reads a line until it ends.
func watchLine(name string, r io.Reader) line {
	l := line{name, make(chan struct{})}
	go func() {
		defer close(l.over)
		_, _ = io.Copy(io.Discard, r)
	}()
	return l
}

// events opens an event stream.
func (c *client) events(t *testing.T, headers ...string) line {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://localhost:%d/payments/events", c.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	endless := *c.http
	endless.Timeout = 0
	res, err := endless.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("an event stream: status %d", res.StatusCode)
	}
	return watchLine("events over "+res.Proto, res.Body)
}

// webSocket opens a WebSocket.
func (d *demoFolder) webSocket(certificate string) line {
	d.t.Helper()
	pair, err := tls.LoadX509KeyPair(d.path("clients/"+certificate+".crt"), d.path("clients/"+certificate+".key"))
	if err != nil {
		d.t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS), &tls.Config{
		InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	fmt.Fprint(conn, "GET /payments/socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		d.t.Fatalf("a WebSocket: %+v, %v", res, err)
	}
	return watchLine("WebSocket", r)
}

// A party is all that one client has open.
type party struct {
	calls []func() (int, error) // on connections that are open, or through a load balancer's
	lines []line
	open  []*client // of calls
}

// party opens connections of each kind, and streams.
func (d *demoFolder) party(certificate string) *party {
	d.t.Helper()
	p := &party{}
	add := func(c *client, headers ...string) {
		p.open = append(p.open, c)
		p.calls = append(p.calls, func() (int, error) {
			r, err := c.call("/payments/1", headers...)
			return r.status, err
		})
	}
	for _, how := range dialects {
		add(d.client(certificate, how))
		p.lines = append(p.lines, d.client(certificate, how).events(d.t))
	}
	behind := []string{"X-WSO2-CLIENT-CERTIFICATE", base64.StdEncoding.EncodeToString(d.block("clients/" + certificate + ".crt"))}
	for _, how := range dialects[2:] {
		balancer := d.client("loadbalancer", how).onPort(d.Ports.LoadBalancer)
		add(balancer, behind...)
		p.lines = append(p.lines, d.client("loadbalancer", how).onPort(d.Ports.LoadBalancer).events(d.t, behind...))
	}
	p.lines = append(p.lines, d.webSocket(certificate))
	return p
}

// all reports whether each call gets a status.
func (p *party) all(t *testing.T, status int) bool {
	t.Helper()
	for _, call := range p.calls {
		switch got, err := call(); {
		case err != nil:
			t.Fatal(err)
		case got != status:
			return false
		}
	}
	return true
}

// ended is how many lines have ended.
func (p *party) ended() (n int) {
	for _, l := range p.lines {
		if l.ended() {
			n++
		}
	}
	return n
}

// inTime is ten times as long as a denial may take to be in force.
const inTime = 10 * time.Second

// TestCertDeny denies one of two clients beside a running gateway that looks at nothing by itself: the next call on each of
// its connections is refused, by way of a load balancer, too, and its streams end, while the other goes on; off the list it
// is let in again, on the same connections.
func TestCertDeny(t *testing.T) {
	d := newDemo(t, slow...)
	p, _ := d.serve(http.HandlerFunc(streaming))
	other := d.party("bronze")
	serial := func(name string) string { return fmt.Sprintf("%x", d.certificate("clients/"+name+".crt").SerialNumber) }
	if p.metric("sallyport_denials") != "0" {
		t.Errorf("before, %s denials are in force", p.metric("sallyport_denials"))
	}
	for _, flags := range [][]string{
		{"--certificate", "clients/gold.crt"},
		{"--certificate", "clients/gold.crt", "--by", "spki"},
		{"--serial", strings.ToUpper("00" + serial("gold")), "--issuer-certificate", "ca.crt"},
	} {
		gold := d.party("gold")
		if !gold.all(t, http.StatusOK) {
			t.Fatal("gold is refused to begin with")
		}
		d.mustRun(append([]string{"cert", "deny", "add", "--comment", "stolen"}, flags...)...)
		began := time.Now()
		eventually(t, "gold's calls are refused and its streams have ended", func() bool {
			return gold.all(t, http.StatusUnauthorized) && gold.ended() == len(gold.lines)
		})
		if took := time.Since(began); took > inTime {
			t.Errorf("%s: it took %v", flags, took)
		} else {
			t.Logf("%s: in force within %v", flags, took)
		}
		if other.ended() != 0 || !other.all(t, http.StatusOK) {
			t.Errorf("%s: the other has lost %d streams, or calls", flags, other.ended())
		}
		if p.metric("sallyport_denials") != "1" {
			t.Errorf("%s: %s denials are in force", flags, p.metric("sallyport_denials"))
		}
		d.mustRun(append([]string{"cert", "deny", "remove"}, flags...)...)
		eventually(t, "gold is let in again", func() bool { return gold.all(t, http.StatusOK) })
		for i, c := range gold.open {
			if n := c.dials.Load(); n != 1 {
				t.Errorf("%s: connection %d is the %dth", flags, i, n)
			}
		}
	}
	if other.ended() != 0 {
		t.Error("the other has lost streams")
	}
	if !p.stderr.contains("certificates were put on the deny list") || !p.stderr.contains("certificates were taken off the deny list") || !p.stderr.contains("stolen") {
		t.Error("the log does not tell")
	}
}

// TestCertDenyOnTwoGateways: what is denied at one gateway is refused at each that shares the store.
func TestCertDenyOnTwoGateways(t *testing.T) {
	for name, start := range map[string]func(testing.TB, testdb.Options) *testdb.Server{
		"PostgreSQL": testdb.Postgres, "MariaDB": testdb.MariaDB,
	} {
		t.Run(name, func(t *testing.T) {
			db := start(t, testdb.Options{}).New(t)
			gateways := []*demoFolder{newDemo(t, slow...), newDemo(t, slow...)}
			for _, d := range gateways {
				d.write("database.secret", db.Password)
				d.edit("sallyport.yaml", "store: sqlite:sallyport.db", fmt.Sprintf(`store: {url: "%s", password: "${file:database.secret}"}`, db.URL))
			}
			first := gateways[0]
			for _, client := range []string{"gold", "bronze"} {
				first.mustRun("cert", "add", "--api", "payments:1.0.0", "--alias", client, "--tier", "Gold", "clients/"+client+".crt")
			}
			var gold, bronze []*party
			for _, d := range gateways {
				d.serve(http.HandlerFunc(streaming))
				gold, bronze = append(gold, d.party("gold")), append(bronze, d.party("bronze"))
			}
			first.mustRun("cert", "deny", "add", "--certificate", "clients/gold.crt")
			began := time.Now()
			for i := range gateways {
				eventually(t, "gold is refused, and its streams have ended", func() bool {
					return gold[i].all(t, http.StatusUnauthorized) && gold[i].ended() == len(gold[i].lines)
				})
				if took := time.Since(began); took > inTime {
					t.Errorf("gateway %d: it took %v", i, took)
				} else {
					t.Logf("gateway %d: in force within %v", i, took)
				}
			}
			first.mustRun("cert", "deny", "remove", "--certificate", "clients/gold.crt")
			for i := range gateways {
				eventually(t, "gold is let in again", func() bool { return gold[i].all(t, http.StatusOK) })
				if bronze[i].ended() != 0 || !bronze[i].all(t, http.StatusOK) {
					t.Errorf("gateway %d: the other has lost %d streams, or calls", i, bronze[i].ended())
				}
			}
		})
	}
}
