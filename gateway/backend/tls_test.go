package backend_test

import (
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/gateway/backend"
)

// TestOverTLS: long messages in both directions over TLS, many on one connection.
func TestOverTLS(t *testing.T) {
	for name, p := range map[string]backend.Protocol{"HTTP/1.1": backend.HTTP1, "HTTP/2": backend.HTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conns := atomic.Int64{}
			at := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				_, _ = w.Write(body)
			}))
			at.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					conns.Add(1)
				}
			}
			at.EnableHTTP2 = p == backend.HTTP2
			at.StartTLS()
			defer at.Close()
			u, _ := url.Parse(at.URL)
			roots := x509.NewCertPool()
			roots.AddCert(at.Certificate())
			var r backend.Registry
			defer r.Close()
			g := r.Group("api", backend.Production, backend.Upstream{URLs: []*url.URL{u}, Protocol: p, Roots: roots, Timeout: patience})
			text := strings.Repeat("0123456789abcdef", 10<<10)
			trip := new(backend.Trip)
			for i := range 20 {
				prepare(trip, g, "POST", strings.NewReader(text))
				if i%2 == 0 {
					trip.Length = int64(len(text))
				}
				if err := send(trip); err != nil {
					t.Fatal(err)
				}
				if got, err := rest(trip); got != text || err != nil {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				trip.Close()
			}
			// An answer that is read before the sender has noted its own end, which it may be now and then, costs the connection.
			if n := conns.Load(); n > 10 {
				t.Errorf("%d connections for 20 calls", n)
			}
			// Nobody else is believed.
			other := r.Group("other", backend.Production, backend.Upstream{URLs: []*url.URL{u}, Protocol: p, Roots: x509.NewCertPool(), TLSDigest: [32]byte{1}})
			prepare(trip, other, "GET", nil)
			if err := send(trip); err == nil {
				t.Error("a server was believed whose certificate nobody knows")
			}
			trip.Close()
		})
	}
}
