package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A dialect is how a client speaks.
type dialect struct {
	tls   uint16 // the only version
	http2 bool
}

func (d dialect) String() string {
	version := "HTTP/1.1"
	if d.http2 {
		version = "HTTP/2"
	}
	return tls.VersionName(d.tls) + " " + version
}

var dialects = []dialect{
	{tls.VersionTLS12, false}, {tls.VersionTLS12, true}, {tls.VersionTLS13, false}, {tls.VersionTLS13, true},
}

// A client calls the gateway with one certificate in one dialect.
type client struct {
	http    *http.Client
	port    int
	dialect dialect
	dials   atomic.Int32 // connections so far
}

// handshakes limits TLS handshakes under way to four: the gateway ends each after ten seconds, in which a busy machine
// cannot complete dozens.
var handshakes = make(chan struct{}, 4)

// client returns one with the certificate of that name, none if it is empty, and connections of its own. It sends the
// certificate whatever CAs the server names, as an attacker's would.
func (d *demoFolder) client(certificate string, how dialect) *client {
	d.t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(d.read("ca.crt"))) {
		d.t.Fatal("ca.crt holds no certificate")
	}
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: how.tls, MaxVersion: how.tls, NextProtos: []string{"http/1.1"}}
	if how.http2 {
		config.NextProtos = []string{"h2"}
	}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(d.path("clients/"+certificate+".crt"), d.path("clients/"+certificate+".key"))
		if err != nil {
			d.t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	c := &client{port: d.Ports.HTTPS, dialect: how}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case handshakes <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-handshakes }()
		c.dials.Add(1)
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!how.http2)
	protocols.SetHTTP2(how.http2)
	c.http = &http.Client{Timeout: patience, Transport: &http.Transport{DialTLSContext: dial, Protocols: protocols}}
	d.t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// keepAwake returns a function to call while waiting: it makes a call on each client's connection every few seconds, since
// the gateway closes a connection that is idle for a minute.
func (d *demoFolder) keepAwake(clients []*client) func() {
	last := time.Now()
	return func() {
		d.t.Helper()
		if time.Since(last) < 5*time.Second {
			return
		}
		for _, c := range clients {
			c.get(d.t, "/hello/1")
		}
		last = time.Now()
	}
}

// onPort is the client for another listener.
func (c *client) onPort(port int) *client {
	c.port = port
	return c
}

// A reply is what a client was answered.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// call makes a GET call with headers: name, value, name, value.
func (c *client) call(path string, headers ...string) (reply, error) {
	r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://localhost:%d%s", c.port, path), nil)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := c.http.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	if http2 := res.ProtoMajor == 2; http2 != c.dialect.http2 || res.TLS.Version != c.dialect.tls {
		return reply{}, fmt.Errorf("%s and %s instead of %s", tls.VersionName(res.TLS.Version), res.Proto, c.dialect)
	}
	body, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, body}, err
}

// get is call for those to whom an error is the end of the test.
func (c *client) get(t *testing.T, path string, headers ...string) reply {
	t.Helper()
	r, err := c.call(path, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// code is the code of a refusal, which has to have the form of all refusals; "" if the call was not refused.
func (r reply) code(t *testing.T) string {
	t.Helper()
	if r.status == http.StatusOK {
		return ""
	}
	var refusal struct{ Code, Message, Description string }
	decoder := json.NewDecoder(bytes.NewReader(r.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&refusal); err != nil || refusal.Code == "" || refusal.Message == "" || refusal.Description == "" {
		t.Errorf("status %d with the body %q (%v)", r.status, r.body, err)
	}
	if kind := r.header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		t.Errorf("status %d with Content-Type %q", r.status, kind)
	}
	return refusal.Code
}

// An echo is what the demo backend received.
type echo struct {
	Method  string
	Path    string
	Query   string
	Headers http.Header
	Count   int
}

func (r reply) echo(t *testing.T) echo {
	t.Helper()
	var e echo
	if err := json.Unmarshal(r.body, &e); err != nil {
		t.Fatalf("status %d with the body %q: %v", r.status, r.body, err)
	}
	return e
}

// backendCount asks the demo backend itself how many calls it has received, this one included.
func (d *demoFolder) backendCount() int {
	d.t.Helper()
	res, err := plainClient.Get(fmt.Sprintf("http://127.0.0.1:%d/", d.Ports.Backend))
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	var e echo
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil {
		d.t.Fatal(err)
	}
	return e.Count
}

// bearer is the header with the token of that name, or none.
func (d *demoFolder) bearer(token string) []string {
	d.t.Helper()
	if token == "" {
		return nil
	}
	return []string{"Authorization", "Bearer " + strings.TrimSpace(d.read("tokens/"+token+".jwt"))}
}
