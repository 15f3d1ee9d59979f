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

// BenchmarkServeChunked is a call whose answer is of unknown length, the second piece of which the backend sends when
// the client has the first, by what lets it in; client and backend included.
func BenchmarkServeChunked(b *testing.B) {
	f := newFixture(b)
	next := make(chan struct{})
	f.backend.handle("/pieces", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1024))
		_ = http.NewResponseController(w).Flush()
		<-next
		_, _ = w.Write(make([]byte, 1024))
	})
	raw := f.token(b, "alice", nil)
	for _, c := range []struct {
		name, target string
		who          *party
	}{
		{"certificate", "https://opt.test/pay/1.0/pieces", f.a4},
		{"token", "https://opt.test/tok/1.0/pieces", nil},
		{"open", "https://opt.test/pub/1.0/pieces", nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			caller, piece := f.client(b, c.who, via{}), make([]byte, 1024)
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequest("GET", c.target, nil)
				if err != nil {
					b.Fatal(err)
				}
				bearer(raw)(r)
				res, err := caller.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(res.Body, piece); err != nil {
					b.Fatal(err)
				}
				next <- struct{}{}
				if n, err := io.Copy(io.Discard, res.Body); n != 1024 || err != nil {
					b.Fatalf("%d bytes, %v", n, err)
				}
				res.Body.Close()
			}
		})
	}
}
