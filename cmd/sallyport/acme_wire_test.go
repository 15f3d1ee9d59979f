package main_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testacme"
	"sallyport/internal/testserver"
)

// validationID is the extension of a certificate that answers a validation (RFC 8737 section 3).
const validationID = "1.3.6.1.5.5.7.1.31"

func isValidationCertificate(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.String() == validationID {
			return true
		}
	}
	return false
}

// A stranger dials the listener https with a server name and protocols, and believes whatever it is shown.
func (d *demoFolder) stranger(name string, protocols ...string) (*tls.Conn, error) {
	return tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS), &tls.Config{
		ServerName: name, NextProtos: protocols, InsecureSkipVerify: true, ClientSessionCache: noTickets{d.t},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if slices.Equal(protocols, []string{"acme-tls/1"}) {
				d.t.Error("a CA that validates is asked for a certificate")
			}
			return &tls.Certificate{}, nil
		},
	})
}

// noTickets fails the test when a CA that validates is given a session.
type noTickets struct{ t *testing.T }

func (noTickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func (n noTickets) Put(name string, s *tls.ClientSessionState) {
	if s != nil && name == "validation.test" {
		n.t.Errorf("%s got a ticket", name)
	}
}

// TestACMEProtocol: whoever speaks acme-tls/1 and nothing else sees the certificate that answers a pending validation, on
// a listener that demands certificates, and nothing besides; without a pending one there is no handshake.
func TestACMEProtocol(t *testing.T) {
	t.Parallel()
	at := newFront(t)
	ca := testacme.Start(t, at.options())
	d := acmeDemo(t, ca, acmeSettings{
		names: "validation.test", more: ", challenges: [tls-alpn-01]",
		listener: `, sslVerifyClient: require, dynamicSSLProfiles: {filePath: listenerprofiles.xml},
     trustStore: {location: stores/client-truststore.jks, type: JKS, password: "${file:secrets/client-truststore.password}"}`,
	})
	d.swap("listenerprofiles.xml", `<parameter name="SSLProfiles"><profile><bindAddress>0.0.0.0</bindAddress>
		<ServerName>*.wild.test</ServerName><SSLVerifyClient>none</SSLVerifyClient>
		<KeyStore><Type>ACME</Type><Names>w.wild.test</Names></KeyStore></profile></parameter>`)
	at.to(d)
	backend := new(counter)
	at.secure.held.Lock()
	release := sync.OnceFunc(at.secure.held.Unlock)
	defer release()
	p, _ := d.serve(backend)

	var conn *tls.Conn
	testserver.Eventually(t, "a validation", func() (err error) {
		conn, err = d.stranger("validation.test", "acme-tls/1")
		return err
	})
	defer conn.Close()
	if cert := conn.ConnectionState().PeerCertificates[0]; !isValidationCertificate(cert) || !slices.Equal(cert.DNSNames, []string{"validation.test"}) {
		t.Errorf("the certificate is for %q", cert.DNSNames)
	}
	stalled := d.stall(t, "validation.test")
	_, _ = io.WriteString(conn, "GET /hello/1 HTTP/1.1\r\nHost: validation.test\r\n\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if answer, err := io.ReadAll(conn); len(answer) > 0 || isTimeout(err) {
		t.Errorf("it is answered %q, %v", answer, err)
	}
	if other, err := d.stranger("other.test", "acme-tls/1"); err == nil {
		other.Close()
		t.Error("a validation of a name that nobody has ordered")
	}

	release()
	d.waitShows("validation.test", "ecdsa", ca, nil)
	d.waitShows("w.wild.test", "ecdsa", ca, nil)
	testserver.Eventually(t, "the validation is over", func() error {
		conn, err := d.stranger("validation.test", "acme-tls/1")
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("it is not")
	})
	d.protocolAmongOthers(t, backend)
	if calls := backend.calls.Load(); calls != 1 {
		t.Errorf("%d calls reached the backend", calls)
	}
	d.randomNames(t, p, ca)
	select {
	case <-stalled:
	case <-time.After(patience):
		t.Error("a handshake that stalls is not ended")
	}
	p.stopClean()
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// stall sends the hello of a CA that validates a name, and nothing more. The returned channel is closed when the gateway
// has ended the connection.
func (d *demoFolder) stall(t *testing.T, name string) <-chan struct{} {
	t.Helper()
	raw, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}}).Handshake()
	}()
	hello := make([]byte, 1<<14)
	n, err := ours.Read(hello)
	ours.Close()
	if err == nil {
		_, err = raw.Write(hello[:n])
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, raw)
	}()
	return ended
}

// protocolAmongOthers: who offers acme-tls/1 beside another protocol is a client like any other, and needs a certificate.
// One call reaches the backend.
func (d *demoFolder) protocolAmongOthers(t *testing.T, backend *counter) {
	t.Helper()
	before := backend.calls.Load()
	conn, err := d.stranger("validation.test", "acme-tls/1", "http/1.1")
	if err == nil { // in TLS 1.3 the client is refused after it is done
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, "GET /hello/1 HTTP/1.1\r\nHost: validation.test\r\n\r\n")
		answer, err := io.ReadAll(conn)
		conn.Close()
		if len(answer) > 0 || err == nil || isTimeout(err) {
			t.Errorf("without a certificate it is answered %q, %v", answer, err)
		}
	}
	if calls := backend.calls.Load(); calls != before {
		t.Errorf("%d calls reached the backend", calls-before)
	}
	pair, err := tls.LoadX509KeyPair(d.path("clients/gold.crt"), d.path("clients/gold.key"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err = tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS), &tls.Config{
		ServerName: "validation.test", NextProtos: []string{"acme-tls/1", "http/1.1"}, InsecureSkipVerify: true, Certificates: []tls.Certificate{pair},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if state := conn.ConnectionState(); state.NegotiatedProtocol != "http/1.1" || isValidationCertificate(state.PeerCertificates[0]) {
		t.Errorf("a client speaks %q and sees a certificate for %q", state.NegotiatedProtocol, state.PeerCertificates[0].DNSNames)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET /hello/1 HTTP/1.1\r\nHost: validation.test\r\nConnection: close\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("a client with a certificate: %v, %v", res, err)
	}
}

// randomNames makes 2,000 handshakes for names of a profile with a wildcard, a tenth of them validations: the memory does
// not grow by them, and the CA hears of none.
func (d *demoFolder) randomNames(t *testing.T, p *process, ca *testacme.CA) {
	t.Helper()
	orders := ca.Orders()
	var heap []float64
	for round := range 20 {
		var all sync.WaitGroup
		for worker := range 4 {
			all.Go(func() {
				for i := range 25 {
					name := fmt.Sprintf("r%d.wild.test", round*100+worker*25+i)
					if i%10 == 0 {
						if conn, err := d.stranger(name, "acme-tls/1"); err == nil {
							conn.Close()
							t.Errorf("a validation of %s", name)
						}
						continue
					}
					conn, err := d.stranger(name)
					if err != nil {
						t.Error(err)
						return
					}
					conn.Close()
				}
			})
		}
		all.Wait()
		heap = append(heap, p.number("go_memstats_heap_alloc_bytes"))
	}
	early, late := slices.Min(heap[:10]), slices.Min(heap[10:])
	t.Logf("heap: %.0f KiB, then %.0f KiB", early/1024, late/1024)
	if early == 0 || late > early+4<<20 {
		t.Errorf("a thousand names take %.0f KiB", (late-early)/1024)
	}
	if ca.Orders() != orders {
		t.Errorf("%d orders for names that nobody has ordered", ca.Orders()-orders)
	}
}

// TestACMEToken: the plain listener answers a validation by HTTP-01 with its token, at its host, while it is pending, and
// no other call any differently than ever.
func TestACMEToken(t *testing.T) {
	t.Parallel()
	at := newFront(t)
	ca := testacme.Start(t, at.options())
	d := acmeDemo(t, ca, acmeSettings{names: "a.test, b.test", more: ", challenges: [http-01]"})
	at.to(d)
	backend := new(counter)
	at.plain.held.Lock()
	release := sync.OnceFunc(at.plain.held.Unlock)
	defer release()
	p, _ := d.serve(backend)

	var answer struct{ Name, Token, KeyAuthorization string }
	testserver.Eventually(t, "a validation", func() error {
		files, err := filepath.Glob(d.path("acme/challenges/*"))
		if err != nil {
			return err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err == nil && json.Unmarshal(data, &answer) == nil && answer.Name == "a.test" {
				return d.ask("GET", "a.test", "/.well-known/acme-challenge/"+answer.Token, 200, answer.KeyAuthorization)
			}
		}
		return errors.New("none")
	})
	const path = "/.well-known/acme-challenge/"
	token := answer.Token
	for _, other := range []struct {
		method, host, path string
		status             int
	}{
		{"GET", "b.test", path + token, 404},
		{"GET", "localhost", path + token, 404},
		{"GET", "a.test", path + token + "x", 404},
		{"GET", "a.test", path + token[:len(token)-1], 404},
		{"GET", "a.test", path, 404},
		{"GET", "a.test", "/.well-known/acme-challenge", 404},
		{"GET", "a.test", fmt.Sprintf("%s%%%02X%s", path, token[0], token[1:]), 404},
		{"GET", "a.test", "/.well-known/acme%2Dchallenge/" + token, 404},
		{"GET", "a.test", "/hello" + path + token, 200}, // an API's
		{"POST", "a.test", path + token, 404},
		{"HEAD", "a.test", path + token, 404},
	} {
		if err := d.ask(other.method, other.host, other.path, other.status, ""); err != nil {
			t.Errorf("%s %s%s: %v", other.method, other.host, other.path, err)
		}
	}
	if err := d.ask("GET", "a.test", "/hello/1", 200, "hello"); err != nil {
		t.Errorf("a call: %v", err)
	}
	if calls := backend.calls.Load(); calls != 2 {
		t.Errorf("%d calls reached the backend", calls)
	}

	release()
	d.waitShows("a.test", "ecdsa", ca, nil)
	if err := d.ask("GET", "a.test", path+token, 404, ""); err != nil {
		t.Errorf("when the validation is over: %v", err)
	}
	p.stopClean()
}

// ask makes a call to the plain listener and returns what is wrong with the answer: "" stands for whatever is no answer to
// a validation.
func (d *demoFolder) ask(method, host, path string, status int, body string) error {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.LoadBalancer))
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", method, path, host); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	switch token := path[strings.LastIndexByte(path, '/')+1:]; {
	case err != nil:
		return err
	case res.StatusCode != status || body != "" && string(data) != body:
		return fmt.Errorf("%s %q", res.Status, data)
	case body == "" && len(token) > 20 && bytes.Contains(data, []byte(token+".")):
		return fmt.Errorf("it is answered %q", data)
	}
	return nil
}

// TestACMEByOpenSSL: OpenSSL's client gets ECDSA, and RSA if it can nothing else, each with what the CA's responder says.
func TestACMEByOpenSSL(t *testing.T) {
	t.Parallel()
	at := newFront(t)
	responder := testacme.NewResponder(t)
	options := at.options()
	options.OCSP = responder.URL
	ca := testacme.Start(t, options)
	s := acmeSettings{names: "a.test", keyTypes: "ecdsa, rsa"}
	d := acmeDemo(t, ca, s)
	at.to(d)
	p, _ := d.serve(new(counter))
	ecdsa, rsa := d.waitShows("a.test", "ecdsa", ca, nil), d.waitShows("a.test", "rsa", ca, nil)
	p.stop()
	responder.Start(ca, ecdsa, rsa)
	p = d.serveAlone()
	isECDSA, isRSA := regexp.MustCompile(`(?i)Peer signature type: ecdsa`), regexp.MustCompile(`(?i)Peer signature type: rsa.pss`)
	for _, c := range []struct {
		kind       string
		says       *regexp.Regexp
		algorithms string
	}{
		{"ECDSA", isECDSA, ""},
		{"ECDSA", isECDSA, "RSA-PSS+SHA256:ECDSA+SHA256"},
		{"RSA", isRSA, "RSA-PSS+SHA256"},
	} {
		args := []string{"s_client", "-connect", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS), "-servername", "a.test", "-status"}
		if c.algorithms != "" {
			args = append(args, "-sigalgs", c.algorithms)
		}
		testserver.Eventually(t, c.kind+" with a staple", func() error {
			out, err := exec.Command("openssl", args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if !c.says.Match(out) || !bytes.Contains(out, []byte("Cert Status: good")) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	if ca.Orders() != 2 {
		t.Errorf("%d orders", ca.Orders())
	}
	p.stopClean()
}
