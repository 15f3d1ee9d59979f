//go:build !race

package gateway_test

import (
	"bytes"
	"net"
	"testing"
)

// TestAllocCall: an mTLS call that is allowed, with all that belongs to it, allocates two objects: its head with its id, and
// one that crypto/tls allocates for each record that it reads. So does the client of the test; its backend allocates none.
// To tell the client when its certificate ends takes no more.
func TestAllocCall(t *testing.T) {
	for _, header := range []string{"", expiryHeader} {
		t.Run("expiryHeader "+header, func(t *testing.T) { allocCall(t, header) })
	}
}

func allocCall(t *testing.T, header string) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go answerAll(backend)
	f := newFixture(t, func(f *fixture, s *setup) {
		s.config.Log, s.config.Observe, s.settings.ExpiryHeader = nil, nil, header
		for i := range s.routes {
			s.routes[i].Upstream = f.upstream(t, "http://"+backend.Addr().String())
		}
	})
	c := f.dial(t, f.a4, "mtls.test")
	request := []byte("GET /pay/1.0/kib HTTP/1.1\r\nHost: mtls.test\r\nUser-Agent: partner/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\nX-Correlation-Id: 5\r\nContent-Type: text/plain\r\n\r\n")
	answer := make([]byte, 64<<10)
	n := testing.AllocsPerRun(2000, func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for have := 0; !bytes.HasSuffix(answer[:have], []byte("\r\n\r\nan answer of the backend")); {
			n, err := c.Read(answer[have:])
			if err != nil {
				t.Fatal(err)
			}
			have += n
		}
	})
	if n > 2+1 {
		t.Errorf("%v allocations a call, want 2 and the client's", n)
	}
}

// answerAll answers whatever comes on each connection.
func answerAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\nServer: test\r\nContent-Length: 24\r\n\r\nan answer of the backend")
			asked := make([]byte, 64<<10)
			for {
				if _, err := c.Read(asked); err != nil {
					return
				}
				if _, err := c.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}
