package gateway_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A record layer of TLS 1.3 for the client's side alone, AES-128 with SHA-256: it writes what crypto/tls wouldn't.
type records struct {
	net.Conn
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	number uint64
}

// recordsOf takes over a client's connection whose handshake is through and that has written nothing since.
func recordsOf(t *testing.T, under net.Conn, keyLog string) *records {
	t.Helper()
	for line := range strings.Lines(keyLog) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(words[2])
			if err != nil || len(secret) != sha256.Size {
				t.Fatalf("not a secret of SHA-256: %d bytes, %v", len(secret), err)
			}
			r := &records{Conn: under}
			r.rekey(t, secret)
			return r
		}
	}
	t.Fatal("no secret of the client's")
	return nil
}

func expand(t *testing.T, secret []byte, label string, length int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	out, err := hkdf.Expand(func() hash.Hash { return sha256.New() }, secret, string(info), length)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *records) rekey(t *testing.T, secret []byte) {
	t.Helper()
	r.secret, r.iv, r.number = secret, expand(t, secret, "iv", 12), 0
	block, err := aes.NewCipher(expand(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if r.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
}

// seal is one record of that content type.
func (r *records) seal(kind byte, content []byte) []byte {
	plain := append(bytes.Clone(content), kind)
	head := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(plain)+r.aead.Overhead()))
	nonce := bytes.Clone(r.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(r.number >> (56 - 8*i))
	}
	r.number++
	return r.aead.Seal(head, nonce, plain, head)
}

const (
	handshakeRecord   = 22
	applicationRecord = 23
)

// TestMessagesBehindTheHandshake: of the messages that TLS 1.3 knows behind the handshake, a client may send few updates of
// its keys, and nothing that would change who it is. Held: security A 11, 12.
func TestMessagesBehindTheHandshake(t *testing.T) {
	f := newFixture(t)
	connect := func(t *testing.T) (*records, *tls.Conn) {
		var keyLog bytes.Buffer
		config := f.clientTLS(nil, via{sni: "opt.test"})
		config.KeyLogWriter = &keyLog
		under := dialRaw(t, f.address, nil).Conn
		c := tls.Client(under, config)
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := c.ConnectionState(); s.Version != tls.VersionTLS13 || s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			t.Fatalf("%s, %s", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite))
		}
		return recordsOf(t, under, keyLog.String()), c
	}
	call := []byte("GET /pub/1.0/x HTTP/1.1\r\nHost: opt.test\r\nConnection: close\r\n\r\n")
	update := []byte{24, 0, 0, 1, 0}
	next := func(r *records) { r.rekey(t, expand(t, r.secret, "traffic upd", sha256.Size)) }

	t.Run("a call", func(t *testing.T) { // so that what is refused below isn't refused for a fault of this test
		r, c := connect(t)
		if _, err := r.Write(r.seal(handshakeRecord, update)); err != nil {
			t.Fatal(err)
		}
		next(r)
		if _, err := r.Write(r.seal(applicationRecord, call)); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200") {
			t.Errorf("%.100q, %v", got, err)
		}
	})
	for name, flood := range map[string]func(r *records) []byte{
		"20,000 key updates": func(r *records) []byte {
			var all []byte
			for range 20_000 {
				all = append(all, r.seal(handshakeRecord, update)...)
				next(r)
			}
			return all
		},
		"20,000 key updates that ask for one": func(r *records) []byte {
			var all []byte
			for range 20_000 {
				all = append(all, r.seal(handshakeRecord, []byte{24, 0, 0, 1, 1})...)
				next(r)
			}
			return all
		},
		"key updates in one record": func(r *records) []byte { return r.seal(handshakeRecord, bytes.Repeat(update, 3000)) },
		"a key update that is none": func(r *records) []byte { return r.seal(handshakeRecord, []byte{24, 0, 0, 1, 7}) },
		"a Certificate":             func(r *records) []byte { return r.seal(handshakeRecord, []byte{11, 0, 0, 4, 0, 0, 0, 0}) },
		"a CertificateRequest":      func(r *records) []byte { return r.seal(handshakeRecord, []byte{13, 0, 0, 3, 0, 0, 0}) },
		"a ClientHello": func(r *records) []byte {
			return r.seal(handshakeRecord, append([]byte{1, 0, 0, 40}, make([]byte, 40)...))
		},
		"a Finished": func(r *records) []byte {
			return r.seal(handshakeRecord, append([]byte{20, 0, 0, 32}, make([]byte, 32)...))
		},
		"20,000 empty records": func(r *records) []byte {
			var all []byte
			for range 20_000 {
				all = append(all, r.seal(applicationRecord, nil)...)
			}
			return all
		},
		"a forged record": func(r *records) []byte { r.number = 7; return r.seal(applicationRecord, call) },
	} {
		t.Run(name, func(t *testing.T) {
			before := f.backend.calls.Load()
			r, c := connect(t)
			bytes := flood(r)
			go func() {
				_, _ = r.Write(append(bytes, r.seal(applicationRecord, call)...)) // the gateway may have closed
			}()
			if got, err := io.ReadAll(c); isTimeout(err) || len(got) > 0 {
				t.Errorf("%.100q, %v", got, err)
			}
			if f.backend.calls.Load() != before {
				t.Error("the call behind it reached the backend")
			}
			f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://mtls.test/pay/1.0/x") })
		})
	}
}

// TestRenegotiation: in TLS 1.2 a client can't begin anew. Held: security A 11.
func TestRenegotiation(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("openssl is missing")
		}
		t.Skip("openssl is missing")
	}
	f := newFixture(t)
	before := f.backend.calls.Load()
	cmd := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", f.address, "-servername", "opt.test", "-tls1_2")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := new(logBook)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "openssl is connected", func() bool { return strings.Contains(out.String(), "Verify return code") })
	_, _ = io.WriteString(in, "R\n") // openssl's word for it
	eventually(t, "openssl has tried", func() bool { return strings.Contains(out.String(), "RENEGOTIATING") })
	_, _ = io.WriteString(in, "GET /pub/1.0/x HTTP/1.1\r\nHost: opt.test\r\n\r\n")
	err = cmd.Wait()
	in.Close()
	if text := out.String(); err == nil || !strings.Contains(text, "alert") || strings.Contains(text, "HTTP/1.1 200") || f.backend.calls.Load() != before {
		t.Errorf("%v\n%s", err, text)
	}
}

// A helloConn lets a test change what the client first sends: its ClientHello.
type helloConn struct {
	net.Conn
	change func(net.Conn, []byte) error
}

func (c *helloConn) Write(b []byte) (int, error) {
	if change := c.change; change != nil {
		c.change = nil
		return len(b), change(c.Conn, b)
	}
	return c.Conn.Write(b)
}

// TestClientHellosInPieces: however a ClientHello is cut, into records and segments, and however large it is, it leads to the
// profile of its server name. Held: security B 18, 19.
func TestClientHellosInPieces(t *testing.T) {
	f := newFixture(t)
	shake := func(t *testing.T, sni string, who *party, change func(net.Conn, []byte) error, protocols ...string) (asked bool, err error) {
		config := f.clientTLS(nil, via{sni: sni})
		config.NextProtos = protocols
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			if who == nil {
				return new(tls.Certificate), nil
			}
			return who.tls(), nil
		}
		c := tls.Client(&helloConn{dialRaw(t, f.address, nil).Conn, change}, config)
		if err := c.HandshakeContext(t.Context()); err != nil {
			return asked, err
		}
		if _, err := io.WriteString(c, "GET /pub/1.0/x HTTP/1.1\r\nHost: "+sni+"\r\nConnection: close\r\n\r\n"); err != nil {
			return asked, err
		}
		got, err := io.ReadAll(c)
		if err == nil && !strings.HasPrefix(string(got), "HTTP/1.1 200") {
			err = errors.New(string(got))
		}
		return asked, err
	}
	inRecords := func(sizes ...int) func(net.Conn, []byte) error {
		return func(c net.Conn, b []byte) error {
			head, rest := b[:3], b[5:]
			var all []byte
			for _, n := range append(sizes, len(rest)) {
				n = min(n, len(rest))
				all = append(all, head...)
				all = binary.BigEndian.AppendUint16(all, uint16(n))
				all, rest = append(all, rest[:n]...), rest[n:]
				if len(rest) == 0 {
					break
				}
			}
			_, err := c.Write(all)
			return err
		}
	}
	inBytes := func(c net.Conn, b []byte) error {
		for i := range b {
			if _, err := c.Write(b[i : i+1]); err != nil { // TCP_NODELAY is Go's default
				return err
			}
		}
		return nil
	}
	withPauses := func(c net.Conn, b []byte) error { // 20 ms each, for as long as a ClientHello's first fields last
		for i := range 40 {
			if _, err := c.Write(b[i : i+1]); err != nil {
				return err
			}
			time.Sleep(20 * time.Millisecond)
		}
		_, err := c.Write(b[40:])
		return err
	}
	var long []string // 16 KiB of protocols that nobody speaks
	for range 64 {
		long = append(long, strings.Repeat("p", 255))
	}
	for name, cut := range map[string]func(net.Conn, []byte) error{
		"whole": inRecords(), "after 1": inRecords(1), "after 5": inRecords(5), "after 40": inRecords(40), "after 100": inRecords(100),
		"several": inRecords(1, 1, 2, 40, 60), "bytes": inBytes, "with pauses": withPauses,
	} {
		for _, protocols := range [][]string{{"http/1.1"}, append(long, "http/1.1")} {
			t.Run(name, func(t *testing.T) {
				if len(protocols) > 1 && name != "bytes" && name != "whole" {
					return // crypto/tls cuts it into records itself
				}
				if len(protocols) > 1 {
					cut = func(c net.Conn, b []byte) error { _, err := c.Write(b); return err }
				}
				if asked, err := shake(t, "open.test", nil, cut, protocols...); asked || err != nil {
					t.Errorf("open.test: asked for a certificate: %v, %v", asked, err)
				}
				if asked, err := shake(t, "opt.test", nil, cut, protocols...); !asked || err != nil {
					t.Errorf("opt.test: asked for a certificate: %v, %v", asked, err)
				}
				if asked, err := shake(t, "mtls.test", nil, cut, protocols...); !asked || err == nil {
					t.Errorf("mtls.test without a certificate: asked for one: %v, %v", asked, err)
				}
				if asked, err := shake(t, "mtls.test", f.a4, cut, protocols...); !asked || err != nil {
					t.Errorf("mtls.test: asked for a certificate: %v, %v", asked, err)
				}
			})
		}
	}
}

// TestEarlyData: data before the handshake is through is not accepted, and no call runs from it. Held: security A 10.
func TestEarlyData(t *testing.T) {
	f := newFixture(t)
	before := f.backend.calls.Load()
	change := func(c net.Conn, b []byte) error {
		// An empty early_data extension at the end of the ClientHello, and a record with a call.
		i := 5 + 4 + 2 + 32
		i += 1 + int(b[i])                           // session id
		i += 2 + int(binary.BigEndian.Uint16(b[i:])) // cipher suites
		i += 1 + int(b[i])                           // compression
		hello := append(bytes.Clone(b), 0, 42, 0, 0) // early_data
		binary.BigEndian.PutUint16(hello[i:], binary.BigEndian.Uint16(b[i:])+4)
		binary.BigEndian.PutUint16(hello[7:], binary.BigEndian.Uint16(b[7:])+4)
		binary.BigEndian.PutUint16(hello[3:], binary.BigEndian.Uint16(b[3:])+4)
		early := "GET /pub/1.0/early HTTP/1.1\r\nHost: open.test\r\n\r\n"
		_, err := c.Write(append(append(hello, 23, 3, 3, 0, byte(len(early))), early...))
		return err
	}
	c := tls.Client(&helloConn{dialRaw(t, f.address, nil).Conn, change}, f.clientTLS(nil, via{sni: "open.test"}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := c.HandshakeContext(ctx); err == nil || isTimeout(err) {
		t.Errorf("the handshake: %v", err)
	}
	if f.backend.calls.Load() != before {
		t.Error("a call ran from early data")
	}
}

// TestTicketsOfAnotherProcess: a ticket of a gateway that is no more leads to a full handshake, and the client sees no
// error. Held: security A 8.
func TestTicketsOfAnotherProcess(t *testing.T) {
	first, second := newFixture(t), newFixture(t)
	for _, old := range []bool{false, true} {
		tickets := tls.NewLRUClientSessionCache(8)
		for _, f := range []*fixture{first, first, second, second} {
			c := f.client(t, f.a4, via{sni: "mtls.test", tls12: old, tickets: tickets})
			f.allowed(t, func() answer { return get(t, c, "https://mtls.test/pay/1.0/x") })
			c.CloseIdleConnections()
		}
	}
}

// TestWrongProtocolOnThePort: HTTP on a TLS port is told so, TLS on a plain one is 400 or the end, and neither is a call.
// Held: security B 22.
func TestWrongProtocolOnThePort(t *testing.T) {
	f := newFixture(t)
	before := f.backend.calls.Load()
	statuses, got, err := sendRaw(f.address, head("GET /pub/1.0/x HTTP/1.1"))
	if err != nil || len(statuses) != 1 || statuses[0] != 400 || !strings.Contains(got, `"code":"400"`) {
		t.Errorf("HTTP to the TLS port: %v, %v, %q", statuses, err, got)
	}
	c := tls.Client(dialRaw(t, f.plain, nil).Conn, f.clientTLS(nil, via{sni: "open.test"}))
	if err := c.HandshakeContext(t.Context()); err == nil || isTimeout(err) {
		t.Errorf("TLS to the plain port: %v", err)
	}
	for _, text := range []string{"SSH-2.0-x\r\n\r\n", "\x00\x00\x00\x00\r\n\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + head("GET /pub/1.0/x HTTP/1.1"), "\r\n\r\n\x00\r\nQUIT\n"} {
		for _, address := range []string{f.plain, f.address} {
			if statuses, got, err := sendRaw(address, text); err != nil || len(statuses) > 1 || len(statuses) == 1 && statuses[0] != 400 {
				t.Errorf("%q: %v, %v, %q", text, statuses, err, got)
			}
		}
	}
	if f.backend.calls.Load() != before {
		t.Error("the backend was called")
	}
}
