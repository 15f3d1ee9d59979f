package proxyproto_test

import (
	"strings"
	"testing"

	"sallyport/gateway/proxyproto"
)

// BenchmarkRead is what a header costs beside its system calls.
func BenchmarkRead(b *testing.B) {
	for _, h := range headers {
		if h.name != "1, IPv4" && h.name != "2, IPv4" {
			continue
		}
		b.Run(h.name, func(b *testing.B) {
			b.ReportAllocs()
			r := strings.NewReader(h.text)
			for b.Loop() {
				r.Reset(h.text)
				if _, err := proxyproto.Read(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
