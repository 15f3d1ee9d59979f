package listenerprofiles

import (
	"bytes"
	"context"
	"crypto/aes"
	modes "crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"net"
	"strings"
	"testing"
)

// Types of records (RFC 8446 section 5.1) and of handshake messages (section 4, RFC 5246 section 7.4).
const (
	recordHandshake   = 22
	recordApplication = 23

	typeHelloRequest       = 0
	typeClientHello        = 1
	typeCertificate        = 11
	typeCertificateRequest = 13
	typeCertificateVerify  = 15
	typeFinished           = 20
)

// handshakeMessage puts the head before a message's body.
func handshakeMessage(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

// certificateMessage is what a client sends to show chain, in the form of version.
func certificateMessage(version uint16, p *party) []byte {
	u24 := func(b []byte) []byte {
		return append([]byte{byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
	}
	if version == tls.VersionTLS12 {
		return handshakeMessage(typeCertificate, u24(u24(p.cert.Raw)))
	}
	return handshakeMessage(typeCertificate, append([]byte{0}, u24(append(u24(p.cert.Raw), 0, 0))...))
}

// seal13 makes a record of TLS 1.3, the seq-th under a traffic secret, with AES-GCM (RFC 8446 sections 5.2, 5.3, 7.1, 7.3).
func seal13(t *testing.T, suite uint16, secret []byte, seq uint64, kind byte, content []byte) []byte {
	t.Helper()
	newHash, size := sha256.New, 16
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		newHash, size = sha512.New384, 32
	default:
		t.Skipf("%s is preferred here: no AES in hardware", tls.CipherSuiteName(suite))
	}
	expand := func(label string, n int) []byte {
		info := append([]byte{0, byte(n), byte(6 + len(label))}, "tls13 "+label+"\x00"...)
		out, err := hkdf.Expand(newHash, secret, string(info), n)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	nonce := expand("iv", 12)
	for i, b := range binary.BigEndian.AppendUint64(nil, seq) {
		nonce[4+i] ^= b
	}
	content = append(bytes.Clone(content), kind)
	head := []byte{recordApplication, 3, 3, byte((len(content) + 16) >> 8), byte(len(content) + 16)}
	return newGCM(t, expand("key", size)).Seal(head, nonce, content, head)
}

// seal12 makes the client's seq-th record of TLS 1.2 with TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 (RFC 5246 section 6.3, RFC 5288).
func seal12(t *testing.T, master, serverRandom, clientRandom []byte, seq uint64, kind byte, content []byte) []byte {
	t.Helper()
	keys := prf12(sha256.New, master, "key expansion", append(bytes.Clone(serverRandom), clientRandom...), 2*16+2*4)
	number := binary.BigEndian.AppendUint64(nil, seq)
	nonce := append(bytes.Clone(keys[32:36]), number...)
	extra := append(bytes.Clone(number), kind, 3, 3, byte(len(content)>>8), byte(len(content)))
	n := 8 + len(content) + 16
	record := append([]byte{kind, 3, 3, byte(n >> 8), byte(n)}, number...)
	return newGCM(t, keys[:16]).Seal(record, nonce, content, extra)
}

func prf12(newHash func() hash.Hash, secret []byte, label string, seed []byte, n int) (out []byte) {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(newHash, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	seed = append([]byte(label), seed...)
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}

func newGCM(t *testing.T, key []byte) modes.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := modes.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return gcm
}

// A sniffer keeps what the server sends.
type sniffer struct {
	net.Conn
	got bytes.Buffer
}

func (s *sniffer) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.got.Write(b[:n])
	return n, err
}

// An outcome is what a server's side of a connection has seen after its handshake.
type outcome struct {
	handshake, read error
	data            []byte
	before, after   tls.ConnectionState
}

// serveOnce does a handshake on c, answers "hello" if it is good, and reads until the end.
func serveOnce(c net.Conn, set *Set) <-chan outcome {
	ended := make(chan outcome, 1)
	go func() {
		defer c.Close()
		conn, _ := accept(c, anyIPv4, func() *Set { return set })
		var o outcome
		if o.handshake = conn.Handshake(); o.handshake == nil {
			o.before = conn.ConnectionState()
			_, _ = io.WriteString(conn, "hello")
			o.data, o.read = io.ReadAll(conn)
		}
		o.after = conn.ConnectionState()
		ended <- o
	}()
	return ended
}

// A11: in a live connection nobody begins a second handshake, shows a certificate or asks for one, whoever may sign what follows: an
// alert, and the connection ends with the identity that it began with.
func TestIdentityOfLiveConnectionIsFixed(t *testing.T) {
	f := newFixture(t)
	for _, verify := range []string{"none", "optional", "require"} {
		set := f.load(t, "127.0.0.1 verify="+verify)
		for _, version := range bothVersions {
			messages := map[string][]byte{
				"ClientHello":        handshakeMessage(typeClientHello, append([]byte{3, 3}, make([]byte, 32+1+2+2+1+1)...)),
				"HelloRequest":       handshakeMessage(typeHelloRequest, nil),
				"Certificate":        certificateMessage(version, f.client),
				"CertificateRequest": handshakeMessage(typeCertificateRequest, []byte{0, 0, 0}),
				"CertificateVerify":  handshakeMessage(typeCertificateVerify, append([]byte{4, 3, 0, 64}, make([]byte, 64)...)),
				"Finished":           handshakeMessage(typeFinished, make([]byte, 32)),
				"unknown":            handshakeMessage(99, nil),
			}
			for name, message := range messages {
				t.Run(verify+" "+tls.VersionName(version)+" "+name, func(t *testing.T) {
					client, server := newPipe()
					ended := serveOnce(server, set)
					sniffed := &sniffer{Conn: client}
					var log bytes.Buffer
					cfg := f.clientConfig("", nil)
					if verify == "require" {
						cfg = f.clientConfig("", issue(t, "first", f.ca))
					}
					cfg.MinVersion, cfg.MaxVersion, cfg.KeyLogWriter = version, version, &log
					cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
					conn := tls.Client(sniffed, cfg)
					hello := make([]byte, 5)
					if _, err := io.ReadFull(conn, hello); err != nil {
						t.Fatal(err)
					}
					clientRandom, secret := keyLogged(t, log.String(), map[uint16]string{tls.VersionTLS12: "CLIENT_RANDOM", tls.VersionTLS13: "CLIENT_TRAFFIC_SECRET_0"}[version])
					var record []byte
					if version == tls.VersionTLS12 {
						serverRandom := sniffed.got.Bytes()[5+4+2:][:32]
						record = seal12(t, secret, serverRandom, clientRandom, 1, recordHandshake, message) // 0 was Finished
					} else {
						record = seal13(t, conn.ConnectionState().CipherSuite, secret, 0, recordHandshake, message)
					}
					if _, err := client.Write(record); err != nil {
						t.Fatal(err)
					}
					rest, err := io.ReadAll(conn)
					o := <-ended
					if o.handshake != nil || o.read == nil || len(o.data) > 0 || len(rest) > 0 {
						t.Fatalf("handshake %v, then %q, %v; the client got %q", o.handshake, o.data, o.read, rest)
					}
					// Of no_renegotiation, which is a warning, Go's client tells nobody.
					alert := err != nil && strings.Contains(err.Error(), "remote error: tls: ") || strings.Contains(o.read.Error(), "no renegotiation")
					if !alert || strings.Contains(o.read.Error(), "bad record MAC") {
						t.Errorf("the server says %v, and the client %v", o.read, err)
					}
					if b, a := identities(o.before), identities(o.after); a != b || verify != "require" && a != "" {
						t.Errorf("the client was %q and is %q", b, a)
					}
				})
			}
		}
	}
}

// keyLogged finds a line of the key log (RFC 9850).
func keyLogged(t *testing.T, log, label string) (clientRandom, secret []byte) {
	t.Helper()
	for line := range strings.Lines(log) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == label {
			clientRandom, _ = hex.DecodeString(words[1])
			secret, _ = hex.DecodeString(words[2])
			return clientRandom, secret
		}
	}
	t.Fatalf("no %s", label)
	return nil, nil
}

func identities(s tls.ConnectionState) string {
	var names []string
	for _, c := range s.PeerCertificates {
		names = append(names, c.Subject.CommonName)
	}
	return strings.Join(names, ", ")
}

// A10: early data (0-RTT) is offered with a good ticket of the profile and good keys. It is not accepted, and nothing of it
// comes out of the connection. Go's client offers it for QUIC only, so its messages are put into records here.
func TestEarlyDataIsNotAccepted(t *testing.T) {
	f := newFixture(t)
	for _, verify := range []string{"none", "optional", "require"} {
		set := f.load(t, "127.0.0.1 verify="+verify)
		cache := &oneTicket{}
		cfg := f.clientConfig("mtls.test", f.client)
		cfg.MinVersion, cfg.ClientSessionCache, cfg.NextProtos = tls.VersionTLS13, cache, []string{"h2"}
		if _, _, err := callInMemory(func() *Set { return set }, cfg); err != nil {
			t.Fatal(err)
		}
		ticket, state, err := cache.state.ResumptionState()
		if err != nil {
			t.Fatal(err)
		}
		state.EarlyData = true
		if cache.state, err = tls.NewResumptionState(ticket, state); err != nil {
			t.Fatal(err)
		}
		cache.frozen = true

		quic := tls.QUICClient(&tls.QUICConfig{TLSConfig: cfg})
		quic.SetTransportParameters([]byte{})
		if err := quic.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		var hello, early []byte
		var suite uint16
		for e := quic.NextEvent(); e.Kind != tls.QUICNoEvent; e = quic.NextEvent() {
			switch {
			case e.Kind == tls.QUICWriteData && e.Level == tls.QUICEncryptionLevelInitial:
				hello = append(hello, e.Data...)
			case e.Kind == tls.QUICSetWriteSecret && e.Level == tls.QUICEncryptionLevelEarly:
				early, suite = bytes.Clone(e.Data), e.Suite
			}
		}
		quic.Close()
		if len(hello) == 0 || early == nil {
			t.Fatal("the client offers no early data")
		}
		client, server := newPipe()
		ended := serveOnce(server, set)
		record := append([]byte{recordHandshake, 3, 1, byte(len(hello) >> 8), byte(len(hello))}, hello...)
		record = append(record, seal13(t, suite, early, 0, recordApplication, []byte("GET /pay/1.0 HTTP/1.1\r\nHost: mtls.test\r\n\r\n"))...)
		if _, err := client.Write(record); err != nil {
			t.Fatal(err)
		}
		o := <-ended
		if o.handshake == nil || !strings.Contains(o.handshake.Error(), "early data") || len(o.data) > 0 || o.after.HandshakeComplete {
			t.Errorf("%s: handshake %v, then %q", verify, o.handshake, o.data)
		}
		if answer, _ := io.ReadAll(client); len(answer) != 7 || answer[0] != 21 || answer[5] != 2 {
			t.Errorf("%s: the client got %x, and no fatal alert", verify, answer)
		}
		client.Close()
	}
}
