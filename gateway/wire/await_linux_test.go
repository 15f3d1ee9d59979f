package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestAwait: a wait holds no buffer, whatever ends it, and what comes is read as any other read would read it.
func TestAwait(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	overTLS := func(version uint16) func(*testing.T, net.Conn, net.Conn) (net.Conn, net.Conn) {
		return func(t *testing.T, a, b net.Conn) (net.Conn, net.Conn) {
			near := tls.Server(NewWire(a), &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: version})
			far := tls.Client(b, &tls.Config{InsecureSkipVerify: true})
			shaken := make(chan error, 1)
			go func() { shaken <- far.Handshake() }()
			if err := errors.Join(near.Handshake(), <-shaken); err != nil {
				t.Fatal(err)
			}
			return near, far
		}
	}
	for name, dress := range map[string]func(*testing.T, net.Conn, net.Conn) (net.Conn, net.Conn){
		"plain": func(_ *testing.T, a, b net.Conn) (net.Conn, net.Conn) { return a, b },
		"given back by a loop": func(t *testing.T, a, b net.Conn) (net.Conn, net.Conn) {
			detach(t, a.(*Socket))
			a.(*Socket).attach()
			return a, b
		},
		"TLS 1.2": overTLS(tls.VersionTLS12),
		"TLS 1.3": overTLS(tls.VersionTLS13),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := socketPair(t)
			near, far := dress(t, a, b)
			conn := NewConn(near)
			conn.In.Room() // what was held before
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Await(); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes, %v, want the deadline", n, err)
			}
			if conn.In.Held() {
				t.Error("a buffer was held to the deadline")
			}
			if err := conn.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"a", "several bytes", strings.Repeat("a record ", 1000)} {
				sent := make(chan error, 1)
				go func() {
					_, err := io.WriteString(far, text)
					sent <- err
				}()
				var got []byte
				for len(got) < len(text) {
					n, err := conn.Await()
					if n == 0 || err != nil || n != len(conn.In.Bytes()) {
						t.Fatalf("%d bytes, %d in the window, %v", n, len(conn.In.Bytes()), err)
					}
					got = append(got, conn.In.Bytes()...)
					conn.In.Skip(n)
				}
				if err := <-sent; err != nil || string(got) != text {
					t.Errorf("%.20q of %d bytes, want %.20q of %d, %v", got, len(got), text, len(text), err)
				}
			}
			far.Close()
			if n, err := conn.Await(); n != 0 || err != io.EOF {
				t.Errorf("%d bytes, %v, want the end", n, err)
			}
			conn.In.Close()
			near.Close()
			if n, err := conn.Await(); n != 0 || err == nil {
				t.Errorf("%d bytes, %v of a closed connection", n, err)
			}
			if conn.In.Held() {
				t.Error("a closed connection holds a buffer")
			}
		})
	}
}
