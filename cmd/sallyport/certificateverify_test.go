package main_test

import (
	"crypto"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"
)

// A faultySigner signs in place of a client's key.
type faultySigner struct {
	crypto.Signer
	sign func(digest []byte) ([]byte, error)
}

func (f faultySigner) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return f.sign(digest)
}

// TestCertificateVerify: a handshake ends with decrypt_error if what proves the key is signed wrongly, is signed over
// something else, or was signed in an earlier handshake. Held: security C 42.
func TestCertificateVerify(t *testing.T) {
	d := newDemo(t)
	d.serveAlone()
	pair := d.pair("gold")
	key := pair.PrivateKey.(crypto.Signer)
	sign := func(digest []byte) ([]byte, error) { return key.Sign(nil, digest, crypto.SHA256) }
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		// shakes returns the answer to a call in a handshake that the signer proves, and the error that ended it.
		shakes := func(sign func([]byte) ([]byte, error)) (string, error) {
			conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS), &tls.Config{
				InsecureSkipVerify: true, ServerName: "localhost", MinVersion: version, MaxVersion: version,
				Certificates: []tls.Certificate{{Certificate: pair.Certificate, PrivateKey: faultySigner{key, sign}}},
			})
			if err != nil {
				return "", err
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET /payments/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
				return "", err
			}
			answer, err := io.ReadAll(conn)
			return string(answer), err
		}
		var earlier []byte
		answer, err := shakes(func(digest []byte) (signature []byte, err error) {
			earlier, err = sign(digest)
			return earlier, err
		})
		if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 502 ") { // there is no backend here
			t.Fatalf("%s: with the key: %v, %s", tls.VersionName(version), err, answer)
		}
		for name, faulty := range map[string]func([]byte) ([]byte, error){
			"a wrong signature": func(digest []byte) ([]byte, error) {
				signature, err := sign(digest)
				if err == nil {
					signature[len(signature)-1] ^= 1
				}
				return signature, err
			},
			"another message": func(digest []byte) ([]byte, error) { return sign(make([]byte, len(digest))) },
			"another hash":    func(digest []byte) ([]byte, error) { return sign(append(digest[:20:20], make([]byte, 12)...)) },
			"replayed":        func([]byte) ([]byte, error) { return earlier, nil },
			"garbage":         func([]byte) ([]byte, error) { return []byte("garbage"), nil },
		} {
			if answer, err := shakes(faulty); err == nil || answer != "" || !strings.Contains(err.Error(), "error decrypting message") {
				t.Errorf("%s, %s: %v, %q; want decrypt_error", tls.VersionName(version), name, err, answer)
			}
		}
	}
}
