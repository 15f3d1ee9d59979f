package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/gateway"
	"sallyport/listenerprofiles/challenge"
)

// TestValidation: a CA that validates a name by HTTP-01 gets the token that is pending, on this node or on another one, at
// the host that it is for, on the plain listener. Every other call goes its way.
func TestValidation(t *testing.T) {
	for _, carrier := range []string{"loops", "goroutines"} {
		t.Run(carrier, func(t *testing.T) {
			var elsewhere atomic.Pointer[[]challenge.Answer]
			elsewhere.Store(&[]challenge.Answer{})
			book := challenge.NewBook(func(context.Context) ([]challenge.Answer, error) { return *elsewhere.Load(), nil })
			book.SetNames([]string{"a.test", "b.test"})
			f := newFixture(t, func(_ *fixture, s *setup) { gateway.Carriers[carrier](&s.config) })
			f.listeners[1].Validations = book
			f.setListeners(t)
			conn, err := net.Dial("tcp", f.plain)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			reader := bufio.NewReader(conn)
			ask := func(method, host, path string) (*http.Response, string) {
				t.Helper()
				if _, err := io.WriteString(conn, method+" "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				res, err := http.ReadResponse(reader, &http.Request{Method: method})
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				return res, string(body)
			}
			const at = challenge.PathPrefix
			pending := func(method, host, path, want string) {
				t.Helper()
				res, body := ask(method, host, path)
				if res.StatusCode != 200 || body != want || res.Header.Get("Content-Type") != "text/plain" {
					t.Errorf("%s %s%s: %d %q %q", method, host, path, res.StatusCode, body, res.Header)
				}
			}
			nothing := func(method, host, path string, status int) {
				t.Helper()
				if res, body := ask(method, host, path); res.StatusCode != status || strings.Contains(body, "thumb") {
					t.Errorf("%s %s%s: %d %q", method, host, path, res.StatusCode, body)
				}
			}
			before := f.backend.whole()

			nothing("GET", "a.test", at+"tokenA", 404)
			book.Open(challenge.Answer{Name: "a.test", Token: "tokenA", KeyAuthorization: "tokenA.thumb"})
			pending("GET", "a.test", at+"tokenA", "tokenA.thumb")
			pending("GET", "A.TEST:80", at+"tokenA", "tokenA.thumb")
			pending("GET", "a.test", "http://a.test"+at+"tokenA", "tokenA.thumb")
			pending("GET", "a.test.", at+"tokenA?x=y", "tokenA.thumb")
			pending("GET", "b.test", "http://a.test"+at+"tokenA", "tokenA.thumb") // RFC 9112 section 3.2.2
			nothing("GET", "a.test", "http://b.test"+at+"tokenA", 404)
			nothing("GET", "b.test", at+"tokenA", 404)
			nothing("GET", "c.test", at+"tokenA", 404)
			nothing("GET", "a.test", at+"tokenB", 404)
			nothing("GET", "a.test", at, 404)
			nothing("GET", "a.test", at+"%74okenA", 404)
			nothing("GET", "a.test", at+"tokenA/x", 404)
			nothing("POST", "a.test", at+"tokenA", 404)
			nothing("HEAD", "a.test", at+"tokenA", 404)

			elsewhere.Store(&[]challenge.Answer{{Name: "b.test", Token: "tokenB", KeyAuthorization: "tokenB.thumb"}})
			pending("GET", "b.test", at+"tokenB", "tokenB.thumb")
			book.Close(challenge.Answer{Name: "a.test", Token: "tokenA"})
			const evil = "x\r\nEvil: 1\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" // by whoever can write to the storage
			book.Open(challenge.Answer{Name: "a.test", Token: "tokenC", KeyAuthorization: evil})
			pending("GET", "a.test", at+"tokenC", evil)
			nothing("GET", "a.test", at+"tokenA", 404)
			if after := f.backend.whole(); after != before {
				t.Errorf("%d calls reached the backend", after-before)
			}
			if res, _ := ask("GET", "a.test", "/pub/1.0/x"); res.StatusCode != 200 {
				t.Errorf("another call: %d", res.StatusCode)
			}
		})
	}
}

// TestValidationProtocol: acme-tls/1 is no protocol where no CA is configured, for a listener that demands certificates
// and for one that doesn't.
func TestValidationProtocol(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"req.test", "opt.test", "none.test", ""} {
		conn, err := tls.Dial("tcp", f.address, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}})
		if err == nil {
			conn.Close()
			t.Errorf("%q: a handshake for a validation that nobody has asked for", name)
		}
	}
}
