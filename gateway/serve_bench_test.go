package gateway_test

import (
	"io"
	"net/http"
	"testing"
)

// BenchmarkServeKeepAlive is an mTLS call on a live connection, net/http on both sides, client and backend included.
func BenchmarkServeKeepAlive(b *testing.B) {
	f := newFixture(b)
	f.backend.handle("/kib", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1024)) })
	for name, h2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		b.Run(name, func(b *testing.B) {
			c := f.client(b, f.a4, via{http2: h2})
			b.ReportAllocs()
			for b.Loop() {
				res, err := c.Get("https://mtls.test/pay/1.0/kib")
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, res.Body); n != 1024 || err != nil {
					b.Fatalf("%d bytes, %v", n, err)
				}
				res.Body.Close()
			}
		})
	}
}
