//go:build linux

package engine_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
)

// newSource is a server that does with each connection what serve says.
func newSource(t testing.TB, serve func(net.Conn)) *url.URL {
	t.Helper()
	return newSourceBy(t, "http", net.ListenConfig{}, serve)
}

// newTLSSource is newSource for https. serve gets the connection below TLS.
func newTLSSource(t testing.TB, serve func(net.Conn)) *url.URL {
	t.Helper()
	return newSourceBy(t, "https", net.ListenConfig{}, serve)
}

func newSourceBy(t testing.TB, scheme string, cfg net.ListenConfig, serve func(net.Conn)) *url.URL {
	t.Helper()
	l, err := cfg.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		if !t.Failed() { // or a server may wait for a test that has given up
			all.Wait()
		}
	})
	return &url.URL{Scheme: scheme, Host: l.Addr().String()}
}

// serverTLS is the server's end of TLS over c.
func serverTLS(c net.Conn) *tls.Conn {
	return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{ourCertificate()}})
}

// echo answers each request with its path and body.
func echo(c net.Conn) {
	speak(c, func(req *http.Request) bool {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return false
		}
		return say(c, req.Header.Get("X-Tag"), req.URL.Path+string(body))
	})
}

// say writes a whole answer.
func say(c net.Conn, tag, body string) (well bool) {
	_, err := io.WriteString(c, answer(tag, body))
	return err == nil
}

// answer is a whole answer with that tag and body.
func answer(tag, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Tag: %s\r\nContent-Length: %d\r\n\r\n%s", tag, len(body), body)
}

// speak reads requests and has each answered, until there is none or answer says that it was the last.
func speak(c net.Conn, answer func(*http.Request) (more bool)) {
	r := bufio.NewReader(c)
	for {
		if req, err := http.ReadRequest(r); err != nil || !answer(req) {
			return
		}
	}
}
